#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# Commands on strings and keys where no Redis can be the judge: Valkey's conditions, kvd's limits,
# large values that are renamed and copied, full memory, and how fairly RANDOMKEY draws.
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, Refused, ReplyError, Tap, seed  # noqa: E402

OOM = Refused("OOM command not allowed when used memory > 'maxmemory'. ")
TOO_LONG = ReplyError('ERR string exceeds maximum allowed size (proto-max-bulk-len)')
SYNTAX = ReplyError('ERR syntax error')
MIB = 1 << 20


def test_ifeq(tap, c):
    c.command('FLUSHALL')
    tap.equal(c.command('SET', 'k', 'new', 'IFEQ', 'x'), None, 'SET IFEQ of an absent key: null')
    tap.equal(c.command('EXISTS', 'k'), 0, 'and it stays absent')
    tap.equal(c.command('SET', 'k', 'new', 'IFEQ', 'x', 'GET'), None, 'with GET: null too')
    tap.equal(c.command('EXISTS', 'k'), 0, 'and it stays absent')
    c.command('SET', 'k', 'one', 'EX', 1000)
    tap.equal(c.command('SET', 'k', 'two', 'ifeq', 'one'), 'OK', 'SET IFEQ of the same value')
    tap.equal(c.command('TTL', 'k'), -1, 'takes the expiry away')
    tap.equal(c.command('SET', 'k', 'three', 'IFEQ', 'one'), None, 'of another value: null')
    tap.equal(c.command('SET', 'k', 'three', 'IFEQ', 'one', 'GET'), b'two',
              'with GET: the value that is there')
    tap.equal(c.command('GET', 'k'), b'two', 'and it stays')
    tap.equal(c.command('SET', 'k', 'three', 'GET', 'IFEQ', 'two', 'PX', 100000), b'two',
              'with GET and the same value: the former one')
    tap.ok(c.command('PTTL', 'k') > 0 and c.command('GET', 'k') == b'three', 'is replaced')
    tap.equal(c.command('SET', 'k', 'four', 'KEEPTTL', 'IFEQ', 'three'), 'OK', 'with KEEPTTL')
    tap.ok(c.command('PTTL', 'k') > 0, 'the expiry stays')
    for bad in (['IFEQ'], ['NX', 'IFEQ', 'x'], ['IFEQ', 'x', 'XX'], ['IFEQ', 'x', 'IFEQ', 'x']):
        tap.equal(c.command('SET', 'k', 'v', *bad), SYNTAX, f'SET {" ".join(bad)}')
    c.command('SET', 'empty', '')
    tap.equal(c.command('SET', 'empty', 'x', 'IFEQ', ''), 'OK', 'an empty value is one too')
    tap.equal(c.command('DELIFEQ', 'k', 'three'), 0, 'DELIFEQ of another value')
    tap.equal(c.command('DELIFEQ', 'none', ''), 0, 'of an absent key')
    tap.equal(c.command('DELIFEQ', 'k', 'four'), 1, 'of the same value')
    tap.equal(c.command('EXISTS', 'k'), 0, 'it is gone')


def test_limits(tap, c):
    c.command('FLUSHALL')
    limit = int(c.command('CONFIG', 'GET', 'proto-max-bulk-len')[1])
    tap.equal(c.command('SETRANGE', 'k', limit - 1, 'x'), limit, f'SETRANGE up to {limit} bytes')
    tap.equal(c.command('BITCOUNT', 'k', -2, -1), 4, 'zeroes, and one byte')
    tap.equal(c.command('SETRANGE', 'k', limit, 'x'), TOO_LONG, 'G: SETRANGE beyond')
    tap.equal(c.command('SETRANGE', 'none', limit, 'x'), TOO_LONG, 'G: of an absent key')
    tap.equal(c.command('SETRANGE', 'none', 1 << 62, 'x' * 100), TOO_LONG, 'G: far beyond')
    tap.equal(c.command('APPEND', 'k', 'x'), TOO_LONG, 'G: APPEND beyond')
    tap.equal(c.command('STRLEN', 'k'), limit, 'changes nothing')
    out = ReplyError('ERR bit offset is not an integer or out of range')
    tap.equal(c.command('SETBIT', 'bits', limit * 8 - 1, 1), 0, 'SETBIT of the last bit')
    tap.equal(c.command('SETBIT', 'bits', limit * 8, 1), out, 'G: SETBIT beyond')
    tap.equal(c.command('BITPOS', 'bits', 1), limit * 8 - 1, 'BITPOS finds it')
    tap.equal(c.command('BITFIELD', 'bits', 'SET', 'u8', limit * 8 - 4, 1), TOO_LONG,
              'G: BITFIELD beyond')
    tap.equal(c.command('EXISTS', 'none'), 0, 'absent keys stay absent')
    long = ReplyError('ERR key is too long: 512 bytes, the limit is 511')
    for command in (['RENAME', 'k', 'x' * 512], ['COPY', 'k', 'x' * 512], ['LCS', 'k', 'x' * 512],
                    ['BITOP', 'NOT', 'x' * 512, 'k'], ['BITOP', 'OR', 'r', 'k', 'x' * 512]):
        tap.equal(c.command(*command), long, f'G: {command[0]} with a key of 512 bytes')
    tap.equal(c.command('LCS', 'k', 'bits'), ReplyError(
        'ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len'),
        'G: LCS of values that are too long together')
    c.command('FLUSHALL')


def test_large(tap, rng):
    """E: renamed and copied large values, in a batch and alone, come back after a crash."""
    with Kvd('--persist', 'group', '--memory', '64MiB') as kvd:
        c = kvd.connect()
        values = [rng.randbytes(3 * MIB + n) for n in range(4)]
        c.command('SET', 'a', values[0])
        c.command('SET', 'b', values[1], 'EX', 1000)
        tap.equal(c.command('RENAME', 'a', 'a2'), 'OK', 'a large value is renamed')
        tap.equal(c.command('COPY', 'b', 'b2'), 1, 'another copied')
        c.pipeline([('MULTI',), ('RENAME', 'a2', 'a3'), ('RENAME', 'a3', 'a4'),
                    ('APPEND', 'a4', 'tail'), ('COPY', 'a4', 'a5'), ('SETRANGE', 'b', 5, 'xyz'),
                    ('SETBIT', 'b2', 7, 1), ('RENAME', 'b', 'b3')])
        tap.ok(ReplyError not in map(type, c.command('EXEC')), 'several such in a transaction')
        c.command('SET', 'c', values[2])
        for n in range(40):  # in 64 MiB: 120 MiB if each left something behind
            c.command('RENAME', f'c{n - 1}' if n else 'c', f'c{n}')
        c.command('RENAME', 'c39', 'b3')
        edited = bytearray(values[1])
        edited[0] |= 1
        wanted = {b'a4': values[0] + b'tail', b'a5': values[0] + b'tail', b'b2': bytes(edited),
                  b'b3': values[2]}
        for when in ('', ' after kill -9'):
            found = {key: c.command('GET', key) for key in sorted(c.command('KEYS', '*'))}
            tap.ok(found == wanted, f'E: all values are right{when}: {sorted(found)}')
            tap.ok(c.command('TTL', 'b2') > 0 and c.command('TTL', 'b3') == -1,
                   f'E: and their times to live{when}')
            kvd.kill()
            kvd.restart()
            c = kvd.connect()


def test_full(tap):
    with Kvd('--persist', 'memory', '--memory', '8MiB', '--write-wait', '0') as kvd:
        c = kvd.connect()
        value = b'v' * 1000
        written = 0
        while c.command('SET', f'key:{written}', value) == 'OK':
            written += 1
        wrong = [n for n in range(100) if c.command('RENAME', f'key:{n}', f'renamed:{n}') != 'OK']
        tap.equal(wrong, [], 'G: memory is full, and keys are renamed all the same')
        tap.equal(c.command('GET', 'renamed:99'), value, 'with their values')
        for command in (['COPY', 'key:200'], ['BITOP', 'NOT', None, 'key:200'],
                        ['SETRANGE', None, 20000, 'x']):
            n, reply = 0, 1
            while isinstance(reply, int) and n < 10000:
                n += 1
                name = f'{command[0]}:{n}'
                parts = [part or name for part in command]
                reply = c.command(*parts, *([name] if command[0] == 'COPY' else []))
            tap.equal((reply, c.command('EXISTS', name)), (OOM, 0),
                      f'G: {command[0]} is refused, after {n - 1} that found room')


def draw(c, count):
    out = {}
    for _ in range(count // 100):
        for key in c.pipeline([('RANDOMKEY',)] * 100):
            out[key] = out.get(key, 0) + 1
    return out


def test_randomkey(tap, c):
    c.command('FLUSHALL')
    tap.equal(c.command('RANDOMKEY'), None, 'RANDOMKEY of nothing is null')
    for keys, draws in ((1, 100), (20, 4000), (5000, 50000)):
        c.command('FLUSHALL')
        for start in range(0, keys, 100):
            c.pipeline([('SET', f'r{n}', '') for n in range(start, min(start + 100, keys))])
        drawn = draw(c, draws)
        # Each is drawn so often on average; the chance that one strays by six deviations is nil.
        mean = draws / keys
        far = [n for n in drawn.values() if abs(n - mean) > 6 * mean ** 0.5 + 6]
        tap.equal(far, [], f'RANDOMKEY of {keys}: none too often')
        tap.ok(len(drawn) > keys * 0.99, f'{len(drawn)} of {keys} were drawn {draws} times')
    c.command('FLUSHALL')
    c.pipeline([('SET', f'e{n}', '', 'PXAT', 1) for n in range(50)] + [('SET', 'alive', '')])
    tap.equal(draw(c, 1000), {b'alive': 1000}, 'never one that has expired')
    c.command('DEL', 'alive')
    c.pipeline([('SET', f'e{n}', '', 'PXAT', 1) for n in range(50)])
    tap.equal(c.command('RANDOMKEY'), None, 'null if all have')
    c.pipeline([('SET', 'old', ''), ('MULTI',), ('DEL', 'old'), ('SET', 'new', ''),
                ('RANDOMKEY',), ('DEL', 'new'), ('RANDOMKEY',)])
    tap.equal(c.command('EXEC')[2::2], [b'new', None], 'inside MULTI it sees what was done there')


def test_copy(tap, c):
    """DB 0 is the only one, also for COPY; options in any case."""
    c.command('FLUSHALL')
    c.command('SET', 'k', 'v', 'EX', 1000)
    tap.equal(c.command('COPY', 'k', 'k2', 'db', 0, 'replace'), 1, 'COPY db 0 replace')
    tap.ok(c.command('TTL', 'k2') > 0, 'with its time to live')
    tap.equal(c.command('COPY', 'k', 'k2', 'DB', 1), ReplyError('ERR DB index is out of range'),
              'COPY DB 1')
    tap.equal(c.command('TOUCH', 'k', 'k', 'none'), 2, 'TOUCH counts twice')


def main():
    tap = Tap()
    rng = seed(1)
    with Kvd('--persist', 'memory', '--memory', '64MiB', '--value-max', '2MiB') as kvd:
        c = kvd.connect()
        test_ifeq(tap, c)
        test_limits(tap, c)
        test_randomkey(tap, c)
        test_copy(tap, c)
    test_large(tap, rng)
    test_full(tap)
    tap.done()


if __name__ == '__main__':
    main()
