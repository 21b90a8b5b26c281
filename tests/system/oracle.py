#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# kvd against Redis 7.0: generated sequences of commands go to both in step, over several
# connections, in RESP2 and RESP3, one by one and pipelined, and what comes back must be the same
# bytes. What may differ stands in oracle_exceptions.py, what is sent in oracle_grammar.py. A
# sequence that fails is shrunk to what is needed and printed with its seed. Environment:
# KVD_ORACLE_SEQUENCES (how many), KVD_ORACLE_SECONDS (instead: for so long), KVD_ORACLE_PART (I/N:
# the I-th of N runs, which have no sequence in common), KVD_ORACLE_ONE (the seed of a sequence
# that failed), KVD_ORACLE_FAILURES (after how many different ones it stops), KVD_ORACLE_WITHOUT
# (commands left out, which makes other sequences), KVD_TEST_SEED, KVD_REDIS_SERVER.
import os
import re
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'lib'))
from kvdtest import SOURCE_ROOT, Kvd, Tap, seed  # noqa: E402
from redistest import Redis, redis_or_skip  # noqa: E402
import oracle_edges  # noqa: E402
from oracle_grammar import GRAMMAR, NOT_SENT  # noqa: E402
from oracle_run import Difference, Run, Side, shown  # noqa: E402
from oracle_sequence import Step, sequence  # noqa: E402

SEQUENCES = int(os.environ.get('KVD_ORACLE_SEQUENCES', '600'))
FAILURES_SHOWN = int(os.environ.get('KVD_ORACLE_FAILURES', '5'))
PART, PARTS = map(int, os.environ.get('KVD_ORACLE_PART', '1/1').split('/'))
SECONDS = float(os.environ.get('KVD_ORACLE_SECONDS', '0'))
SEQUENCES_MAX = 10_000_000  # in a run by time
SHRINK_S = 30
PATIENCE_S = 5       # for what kvd owes
PATIENCE_SHRINK_S = 0.5


def rows(table='daemon/commands.tbl.h'):
    """Names in commands.tbl.h and its parts, subcommands as "command|subcommand"."""
    with open(os.path.join(SOURCE_ROOT, table), encoding='utf-8') as lines:
        found = re.findall(r'^(?:X\(\w+,\s*|#include )"([^"]+)"', lines.read(), re.M)
    return [name for one in found
            for name in (rows(one) if one.endswith('.tbl.h') else [one])]


def differs(kvd, redis, steps, patience=PATIENCE_SHRINK_S):
    """The first Difference, or None."""
    try:
        Run(kvd, redis, patience).sequence(steps)
    except Difference as difference:
        return difference
    return None


def without(steps, start, count):
    """The steps without so many commands from the start-th on."""
    out, at = [], 0
    for step in steps:
        left = [command for n, command in enumerate(step.commands, at)
                if not start <= n < start + count]
        at += len(step.commands)
        if left:
            out.append(Step(step.connection, left))
    return out


def shrink(kvd, redis, steps, first):
    """As few commands as still differ in the same way, found by leaving out halves, quarters, ...;
    None if it does not happen again."""
    deadline = time.monotonic() + SHRINK_S
    found = differs(kvd, redis, steps, PATIENCE_S)
    if not found:
        return None, None
    index = steps.index(found.step) if found.step in steps else len(steps)
    steps = steps[:index + 1]
    alone = [Step(step.connection, [command]) for step in steps for command in step.commands]
    again = differs(kvd, redis, alone)
    if again and again.signature == first.signature:
        steps, found = alone, again
    total = sum(len(step.commands) for step in steps)
    size = max(1, total // 2)
    while time.monotonic() < deadline:
        start, smaller = 0, False
        while start < total and time.monotonic() < deadline:
            fewer = without(steps, start, size)
            again = differs(kvd, redis, fewer) if fewer else None
            if again and again.signature == first.signature:
                steps, found, smaller = fewer, again, True
                total = sum(len(step.commands) for step in steps)
            else:
                start += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return steps, found


def report(tap, kvd, redis, number, steps, difference):
    tap.diag(f'sequence {number} differs (KVD_ORACLE_ONE={number} sends it again): {difference}')
    small, found = shrink(kvd, redis, steps, difference)
    if small is None:
        tap.diag('  but not when it is sent again; what was seen:')
        small, found = [difference.step], difference
    for step in small:
        tap.diag('  ' + str(step).replace('\n', '\n  '))
    tap.diag(f'  connection {found.connection} got: {found}')
    tap.diag(f'    kvd   {shown(found.mine)}')
    tap.diag(f'    redis {shown(found.theirs)}')


def sequences(tap, kvd, redis, numbers, names):
    failed, done, known, commands = 0, 0, set(), 0
    started = time.monotonic()
    for number in numbers:
        if SECONDS and time.monotonic() - started > SECONDS:
            break
        done += 1
        steps = sequence(number, names)
        commands += sum(len(step.commands) for step in steps)
        difference = differs(kvd, redis, steps, PATIENCE_S)
        if difference:
            failed += 1
            if difference.signature not in known:
                known.add(difference.signature)
                report(tap, kvd, redis, number, steps, difference)
            if len(known) >= FAILURES_SHOWN:
                tap.diag(f'stopped after {done} sequences')
                break
    tap.diag(f'{commands} commands in {time.monotonic() - started:.1f} s')
    tap.equal(failed, 0, f'{done} sequences of commands are answered alike')


def main():
    tap = Tap()
    rng = seed(1)
    program = redis_or_skip()
    table = rows()
    missing = [name for name in table if name not in GRAMMAR and
               not any(name.startswith(prefix) for prefix in NOT_SENT)]
    tap.equal(missing, [], 'every command of the table is sent, or is named with a reason')
    names = set(table) & set(GRAMMAR) - set(os.environ.get('KVD_ORACLE_WITHOUT', '').split())
    with Redis(program) as server, Kvd('--persist', 'memory', '--memory', '64MiB') as daemon:
        kvd, redis = Side(daemon.socket), Side(server.socket)
        first = rng.randrange(1 << 40) + PART - 1
        numbers = range(first, first + (SEQUENCES_MAX if SECONDS else SEQUENCES) * PARTS, PARTS)
        if 'KVD_ORACLE_ONE' in os.environ:
            numbers = [int(os.environ['KVD_ORACLE_ONE'])]
        sequences(tap, kvd, redis, numbers, names)
        kvd.close()
        redis.close()
        oracle_edges.scans(tap, daemon, server, rng)
        oracle_edges.keys_in_multi(tap, daemon, server)
        oracle_edges.watched(tap, daemon, server)
        oracle_edges.ended(tap, daemon, server)
        oracle_edges.options_in_exec(tap, daemon, server)
        oracle_edges.patterns(tap, daemon, server, rng)
        oracle_edges.large_values(tap, daemon, server, rng)
        oracle_edges.table(tap, daemon, server, names)
        oracle_edges.raw_streams(tap, daemon, server)
    tap.done()


if __name__ == '__main__':
    main()
