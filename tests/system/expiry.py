#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Keys that end although nobody asks for them: their memory comes back, and their place in the
store, each is told once, and none that lives is taken, also by a kvd that took over the region or
read the store. No time is measured: what is waited for has to come at all.
"""
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, Tap, wait_until  # noqa: E402

KEYS = 4000
VALUE = b'v' * 1000
LARGE = b'l' * 900000
YEAR_MS = 365 * 86400000


def stats(connection):
    return json.loads(connection.command('KVD.STATS'))['counters']


def write(connection, prefix, ms, count=KEYS):
    connection.pipeline([('SET', b'%s%d' % (prefix, i), VALUE, 'PX', str(ms))
                         for i in range(count)])


def end_soon(connection, keys):
    connection.pipeline([('PEXPIRE', key, '1') for key in keys])


def gone(connection, left):
    """Nobody reads a key: what goes, goes by itself."""
    wait_until(lambda: connection.command('DBSIZE') == left, f'{left} keys are left')


def test_reclaimed(tap):
    with Kvd('--persist', 'group', '--memory', '64MiB', '--compact-floor', '1MiB') as kvd, \
            kvd.connect() as connection:
        connection.command('SET', 'stays', 'v')
        connection.command('SET', 'later', 'v', 'PX', str(YEAR_MS))
        before = stats(connection)
        write(connection, b'k', YEAR_MS)
        connection.command('SET', 'large', LARGE, 'PX', str(YEAR_MS))
        full = stats(connection)
        tap.equal(full['expiry_items'] >= KEYS, True, 'each key with a time has an item')
        tap.ok(full['store_bytes'] > KEYS * len(VALUE), 'all is in the store')
        end_soon(connection, [b'k%d' % i for i in range(KEYS)] + ['large'])
        gone(connection, 2)
        wait_until(lambda: stats(connection)['memory_live_bytes'] <= before['memory_live_bytes'],
                   'nothing but what stays is live')
        wait_until(lambda: stats(connection)['memory_large_bytes'] == 0, 'the large value is gone')
        wait_until(lambda: stats(connection)['store_bytes'] < 2 << 20, 'the store is compacted')
        after = stats(connection)
        tap.equal(after['keys_expired'], KEYS + 1, 'all that ended is counted')
        tap.equal((after['expiry_items'] - after['expiry_items_stale'], after['expiry_walks']),
                  (1, 0), 'the index has what is left, and no table was walked')
        tap.equal(connection.command('MGET', 'stays', 'later'), [b'v', b'v'], 'which can be read')


def test_told(tap):
    with Kvd('--persist', 'lazy', '--notify-keyspace-events', 'Ex') as kvd, \
            kvd.connect() as connection, kvd.connect() as listener:
        listener.command('SUBSCRIBE', '__keyevent@0__:expired')
        write(connection, b'e', YEAR_MS)
        connection.pipeline([('DEL', b'e%d' % i) for i in range(0, KEYS, 4)])
        connection.pipeline([('SET', b'e%d' % i, 'v') for i in range(1, KEYS, 4)])
        end_soon(connection, [b'e%d' % i for i in range(KEYS) if i % 4 > 1])
        told = sorted(listener.reply()[2] for _ in range(KEYS // 2))
        tap.equal(told, sorted(b'e%d' % i for i in range(KEYS) if i % 4 > 1),
                  'each key that ends is told once, and no other')
        gone(connection, KEYS // 4)
        tap.equal(stats(connection)['keys_expired'], KEYS // 2, 'and counted once')


def rest(kvd):
    """Until kvd sleeps, or not much longer: what comes then wakes it from a long sleep."""
    seen, looks = None, 0
    for _ in range(200):
        with open(f'/proc/{kvd.pid}/status', encoding='ascii') as file:
            switches = [line for line in file if 'ctxt_switches' in line]
        looks = looks + 1 if switches == seen else 0
        seen = switches
        if looks == 10:
            return
        time.sleep(0.02)


def test_idle(tap):
    """The last command of a kvd that has nothing else to do is followed up: nobody wakes it."""
    for options in (('--persist', 'memory', '--memory-return', '0'),
                    ('--persist', 'memory', '--prefault', 'yes'),
                    ('--persist', 'lazy', '--lazy-interval', '1h', '--memory-return', '0'),
                    ('--persist', 'lazy', '--lazy-interval', '1h', '--prefault', 'yes')):
        with Kvd('--memory', '32MiB', '--notify-keyspace-events', 'Ex', *options) as kvd, \
                kvd.connect() as connection, kvd.connect() as listener:
            listener.command('SUBSCRIBE', '__keyevent@0__:expired')
            for key in (b'first', b'second'):
                rest(kvd)
                connection.command('SET', key, 'v', 'PX', '100')
                tap.equal(listener.reply()[2], key,
                          f'{" ".join(options)}: the {key.decode()} key to end is told')
            connection.command('SET', 'third', 'v')
            rest(kvd)
            connection.command('PEXPIRE', 'third', '100')
            tap.equal(listener.reply()[2], b'third', 'and one that was there before')


def test_lives(tap):
    """The next kvd knows nothing of the index, and finds all that ends."""
    with Kvd('--persist', 'group', '--memory', '64MiB') as kvd:
        with kvd.connect() as connection:
            write(connection, b'a', 2000)
            write(connection, b'b', YEAR_MS, 100)
        kvd.kill()
        kvd.start()
        with kvd.connect() as connection:
            gone(connection, 100)
            tap.ok(stats(connection)['expiry_walks'] >= 1, 'killed: the index is filled by a walk')
            # A walk may meet a key twice while the table shrinks behind those that are gone.
            wait_until(lambda: stats(connection)['expiry_items'] >= 100, 'the index is whole')
            end_soon(connection, [b'b%d' % i for i in range(100)])
            gone(connection, 0)
            tap.ok(True, 'and all that ends goes')


def main():
    tap = Tap()
    test_reclaimed(tap)
    test_told(tap)
    test_idle(tap)
    test_lives(tap)
    tap.done()


main()
