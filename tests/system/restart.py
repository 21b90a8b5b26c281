#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What a kvd accepted, the same kvd with the same options must be able to start with (E, F, G).

Memory filled to -OOM, a store full of removals, many FLUSHALLs, and versions over lives that ended
without a commit.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, ReplyError, Tap  # noqa: E402

SMALL = ('--memory', '32MiB', '--segment', '256KiB', '--persist', 'lazy', '--lazy-interval', '50ms')


def fill_to_oom(connection):
    count = 0
    while True:
        replies = connection.pipeline([('SET', b'key:%09d' % (count + i), b'x' * 60)
                                       for i in range(500)])
        if any(isinstance(reply, ReplyError) for reply in replies):
            return
        count += len(replies)


def full_memory(tap):
    with Kvd(*SMALL) as kvd:
        with kvd.connect() as connection:
            fill_to_oom(connection)
            keys = connection.command('DBSIZE')
        kvd.stop()
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(connection.command('DBSIZE'), keys,
                      'E, G: memory filled to -OOM fits the same memory after a restart')


def many_removals(tap):
    with Kvd(*SMALL) as kvd:
        with kvd.connect() as connection:
            connection.pipeline([('SET', b'stay:%d' % i, b'v' * 60) for i in range(80000)])
            for start in range(0, 150000, 1000):
                batch = []
                for i in range(start, start + 1000):
                    batch += [('SET', b'gone:%d' % i, b'v'), ('DEL', b'gone:%d' % i)]
                connection.pipeline(batch)
            connection.command('KVD.SYNC')
        kvd.kill()
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(connection.command('DBSIZE'), 80000,
                      'E, G: removals in the store take no room of the keys that are there')


def many_flushes(tap):
    with Kvd(*SMALL) as kvd:
        with kvd.connect() as connection:
            for _ in range(40):
                connection.pipeline([('SET', b'k', b'v'), ('FLUSHALL',)] * 50)
                connection.command('KVD.SYNC')
            connection.command('SET', b'last', b'v')
        kvd.stop()
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(connection.command('KEYS', '*'), [b'last'], 'E: 2000 FLUSHALLs and a key')


def versions_over_lives(tap):
    with Kvd('--persist', 'lazy', '--lazy-interval', '1h') as kvd:
        seen = []
        for _ in range(4):
            with kvd.connect() as connection:
                seen.append(connection.command('KVD.SET', b'k', b'v'))
            kvd.kill()
            kvd.start()
        tap.ok(all(a < b for a, b in zip(seen, seen[1:])),
               'a version that a lost life handed out is never handed out again: %s' % seen)


def main():
    tap = Tap()
    full_memory(tap)
    many_removals(tap)
    many_flushes(tap)
    versions_over_lives(tap)
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
