#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What hostile clients cost a polite one: its p99.9 while all attacks of tests/hostile are played,
beside the same without them.

The polite client reads through the mapping and writes through the socket at a fixed rate (open
loop: a wait counts from when the request was due). Quiet rounds and attacked ones alternate in one
run; a quiet one lasts as long as the attacks did. With --each every attack is measured by itself,
to see which one it is. kvd and the polite client run at nice -10, for how the kernel shares
processors is not what is measured; with --realtime they go before everything else, for a machine
that is busy with other things. Attackers run at nice 0. They can be given another value, but on a
busy machine a higher one measures the kernel: who maps the region takes locks of that file in it,
and kvd waits for a client that holds one and does not get to run.

usage: hostile.py [BUILD] [--each] [--rounds N] [--seconds S] [--nice N] [--realtime] [--only TEXT]
"""
import argparse
import json
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, 'tests', part) for part in ('hostile', 'lib')]

GETS, SETS = 2000, 1000  # a second
# Beside those of the tests: room as a machine has it, and a user's share of writing.
OPTIONS = ('--memory', '256MiB', '--segment', '2MiB', '--revoke', '5s', '--revoke-min', '50ms')
QUOTA = ('--quota-write-bytes', '32MiB')
PARTS = ('p50', 'p99', 'p99.9', 'max')


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('build', nargs='?', default=os.path.join(ROOT, 'build'))
    parser.add_argument('--each', action='store_true', help='each attack by itself')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=0.5, help='of each attack')
    parser.add_argument('--nice', type=int, default=0, help='of the attackers')
    parser.add_argument('--realtime', action='store_true', help='kvd before all others')
    parser.add_argument('--only', default='', help='attacks whose name has this text')
    return parser.parse_args()


class Round:
    """Waits of one round, by kind and percentile, in microseconds."""

    def __init__(self, line):
        told = json.loads(line)
        self.waits = {kind: [ns / 1000 for ns in told[kind]['waits_ns']] for kind in told}
        self.bad = sum(told[kind]['wrong'] + told[kind]['failed'] for kind in told)


def quiet(polite, seconds):
    return Round(polite.tell(f'run {seconds} {GETS} {SETS}'))


def attacked(target, rows, options, seed):
    """A round with these attacks, and how long it took."""
    from attacker import Played
    began = time.monotonic()
    target.polite.send(f'run 3600 {GETS} {SETS}')
    target.wait_for_polite(5)
    for row in rows:
        played = Played(row['function'], target.facts(), options.seconds, seed, options.nice)
        while played.next() is not None:
            played.go_on()
        played.end()
        if played.report['bad']:
            print(f"# {row['name']}: {played.report['bad'][0]}", flush=True)
    seconds = time.monotonic() - began
    measured = Round(target.polite.tell('enough'))
    problem = target.calm()
    if problem:
        print(f'# {problem}', flush=True)
    return measured, seconds


def compare(name, before, after):
    """One line for each kind of request: medians of the rounds and the ratio of each pair's."""
    bad = sum(round_.bad for round_ in before + after)
    for kind, what in (('get', 'mapped get'), ('set', 'SET and get')):
        line = []
        for part in range(len(PARTS)):
            left = [round_.waits[kind][part] for round_ in before]
            right = [round_.waits[kind][part] for round_ in after]
            ratio = statistics.median(b / a for a, b in zip(left, right))
            line.append(f'{statistics.median(left):.0f} {statistics.median(right):.0f} '
                        f'({ratio:.2f})')
        print(f'{name:58.58} {what:12} ' + ' '.join(f'{text:>22}' for text in line) +
              (f'  {bad} WRONG OR FAILED' if bad else ''), flush=True)


def main():
    options = arguments()
    os.environ.setdefault('KVD_PROGRAM', os.path.join(options.build, 'daemon', 'kvd'))
    os.environ.setdefault('KVD_BUILD', options.build)
    import attacks_load  # noqa: F401
    import attacks_memory  # noqa: F401
    import attacks_rights  # noqa: F401
    import attacks_socket  # noqa: F401
    from attacker import ATTACKS
    from target import HELP, Target
    if os.geteuid() != 0:
        sys.exit('attackers and the polite client are other users: run it as root')
    rows = [row for row in ATTACKS if options.only in row['name'] and row['needs'] in HELP and
            not row['fresh']]
    os.nice(-10)  # kvd and the polite client: the kernel's choices are not what is measured
    if options.realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    target = Target(os.path.join(options.build, 'tests', 'hostile'),
                    OPTIONS + (QUOTA if QUOTA[0] in HELP else ()))
    print(f'{len(rows)} attacks of {options.seconds} s at nice {options.nice}, {options.rounds} '
          f'rounds; {GETS} gets and {SETS} SETs a second; microseconds: quiet, attacked (ratio)')
    print(f"{'':58} {'':12} " + ' '.join(f'{part:>22}' for part in PARTS), flush=True)
    groups = [[row] for row in rows] if options.each else [rows]
    try:
        for group in groups:
            name = group[0]['name'] if options.each else 'all attacks'
            before, after = [], []
            seconds = max(options.seconds, 1)
            for number in range(options.rounds):
                if number == 0 and not options.each:
                    _, seconds = attacked(target, group, options, number)  # warm, and timed
                before.append(quiet(target.polite, seconds))
                after.append(attacked(target, group, options, number)[0])
            compare(name, before, after)
        counters = target.state()['counters']
        print(f"longest turn of kvd: {counters['turn_longest_us']} us of processor time, "
              f"{counters['turn_longest_wall_us']} by the clock: what is between them it waited "
              'for the machine', flush=True)
    finally:
        target.end()


main()
