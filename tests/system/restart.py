#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What a kvd accepted, the same kvd with the same options must be able to start with (E, F, G).

Memory filled to -OOM with values of all sizes, a store full of removals, of flushed large values
and of what was overwritten, many FLUSHALLs, and versions over lives that ended without a commit.
"""
import hashlib
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, KvdFailed, ReplyError, Tap, seed  # noqa: E402

# With all of it in memory: values that are spilled have spill.py.
SMALL = ('--memory', '32MiB', '--segment', '256KiB', '--persist', 'lazy', '--lazy-interval', '50ms',
         '--when-full', 'reject')


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
    with Kvd(*SMALL, '--write-wait', '10m') as kvd:  # however slow the disk
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


def start_again(kvd, hard):
    """Ends kvd and starts it. None, or why it did not."""
    if hard:
        kvd.kill()
    else:
        kvd.stop()
    try:
        kvd.start()
        return None
    except KvdFailed as error:
        return error


def large_values(tap):
    """Large values that come behind what was flushed or overwritten."""
    big = os.urandom(4 << 20)

    def flushed(connection):
        connection.pipeline([('SET', 'a%d' % i, big) for i in range(11)])
        connection.pipeline([('KVD.SYNC',), ('FLUSHALL',), ('KVD.SYNC',)])
        connection.pipeline([('SET', 'b%d' % i, big) for i in range(11)])

    def overwritten(connection):
        for value in (os.urandom(900), b'x' * 900):
            connection.pipeline([('SET', 'k%06d' % i, value) for i in range(20000)])
            connection.command('KVD.SYNC')
        connection.pipeline([('SET', 'B%d' % i, big) for i in range(5)])

    def shrunk(connection):
        for value in (os.urandom(900), b'x'):
            connection.pipeline([('SET', 'k%06d' % i, value) for i in range(45000)])
            connection.command('KVD.SYNC')
        connection.pipeline([('SET', 'B%d' % i, big) for i in range(8)])

    for fill, what in ((flushed, 'a FLUSHALL'), (overwritten, 'overwritten values'),
                       (shrunk, 'values that were larger once')):
        with Kvd('--memory', '64MiB') as kvd:
            with kvd.connect() as connection:
                fill(connection)
                connection.command('KVD.SYNC')
                keys = connection.command('DBSIZE')
            error = start_again(kvd, True)
            got = error
            if error is None:
                with kvd.connect() as connection:
                    got = connection.command('DBSIZE')
            tap.equal(got, keys, 'E, G: large values behind ' + what)


class Model:
    """Random writes, and what must be there after them."""

    def __init__(self, rng, sizes):
        self.rng = rng
        self.sizes = sizes
        self.values = {}
        self.refused = 0
        self.count = 0

    def _value(self):
        self.count += 1
        digest = hashlib.md5(b'%d' % self.count).digest()
        size = self.sizes(self.rng)
        return (digest * (size // 16 + 1))[:size]

    def write(self, connection):
        rng = self.rng
        key = b'k%d' % rng.randint(0, 400)
        pick = rng.random()
        if pick < 0.85:
            value = self._value()
            self._done(connection.command('SET', key, value), {key: value})
        elif pick < 0.95:
            connection.command('DEL', key)
            self.values.pop(key, None)
        elif pick < 0.97:
            connection.command('PEXPIRE', key, 1)
            self.values.pop(key, None)
        elif pick < 0.999:
            values = {b'k%d' % rng.randint(0, 400): b'v%d' % rng.random() for _ in range(5)}
            flat = [part for pair in values.items() for part in pair]
            self._done(connection.command('MSET', *flat), values)
        else:
            connection.command('FLUSHALL')
            self.values.clear()

    def _done(self, reply, values):
        if reply == 'OK':
            self.values.update(values)
        else:
            self.refused += 1

    def wrong(self, connection):
        return sum(connection.command('GET', key) != self.values.get(key)
                   for key in (b'k%d' % i for i in range(401)))


def full_of_all_sizes(tap):
    """Several lives in a row, each filled to -OOM, ended by SIGTERM or SIGKILL in turn."""
    def mid(rng):
        return rng.choice((rng.randint(1, 130000), 60000, 100000, 120000))

    def mixed(rng):
        return rng.choice((10, rng.randint(0, 5000), rng.randint(0, 60000),
                           rng.randint(100000, 1500000) if rng.random() < 0.2 else 10))

    def half(rng):
        return rng.randint(1, 500000)

    rng = seed()
    for memory, segment, sizes in (('16MiB', '0', mixed), ('16MiB', '0', mid),
                                   ('32MiB', '1MiB', half), ('64MiB', '0', half)):
        options = ('--memory', memory, '--segment', segment, '--write-wait', '50ms', '--persist',
                   rng.choice(('lazy', 'group')), '--compact-floor', rng.choice(('1MiB', '64MiB')))
        model = Model(random.Random(rng.random()), sizes)
        told = None
        with Kvd(*options) as kvd:
            for life in range(4):
                with kvd.connect() as connection:
                    limit = model.refused + 15
                    for _ in range(2500):
                        model.write(connection)
                        if model.refused >= limit:
                            break
                    connection.command('KVD.SYNC')
                error = start_again(kvd, rng.random() < 0.5)
                if error is not None:
                    told = 'life %d: %s' % (life, error)
                    break
                with kvd.connect() as connection:
                    wrong = model.wrong(connection)
                if wrong:
                    told = 'life %d: %d keys are wrong' % (life, wrong)
                    break
        tap.equal(told, None, 'E, G: %s in %s, %d writes refused' %
                  (sizes.__name__, ' '.join(options), model.refused))


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


def versions_after_order(tap):
    """A stop costs no versions, nor does a start that serves nobody."""
    def next_version(kvd):
        with kvd.connect() as connection:
            return connection.command('KVD.SET', b'k', b'v')

    with Kvd('--persist', 'lazy', '--lazy-interval', '1h') as kvd:
        first = next_version(kvd)
        kvd.stop()
        kvd.start()
        tap.equal(next_version(kvd), first + 1, 'versions go on after a stop')
        kvd.stop()
        place = os.path.join(kvd.root, 'no socket')
        os.mkdir(place)
        for _ in range(3):
            kvd.spawn('--socket', place)
            status = kvd.wait()
        tap.ok(status not in (0, None), 'a socket that cannot be is refused: %s' % status)
        kvd.socket = os.path.join(kvd.dir, 'kvd.sock')
        kvd.start('--persist', 'lazy')
        tap.equal(next_version(kvd), first + 2, 'and that costs no version')
        kvd.stop()
        kvd.start()
        kvd.kill()
        kvd.start()
        tap.ok(next_version(kvd) > first + 2 + (1 << 27), 'a kill does, before any write too')


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def set_durable_seq(kvd, seq):
    """Writes the store's state as after very many lives (daemon/storage/store_internal.h)."""
    path = os.path.join(kvd.dir, 'store', 'data.mdb')
    with open(path, 'r+b') as file:
        data = bytearray(file.read())
        at = data.find(b'kvd-sto1')
        while at >= 0:
            if at + 64 <= len(data):
                data[at + 24:at + 32] = seq.to_bytes(8, sys.byteorder)
                crc = crc32c(data[at + 16:at + 64])
                data[at + 12:at + 16] = crc.to_bytes(4, sys.byteorder)
            at = data.find(b'kvd-sto1', at + 1)
        file.seek(0)
        file.write(data)


def versions_used_up(tap):
    most = (1 << 48) - 1
    with Kvd('--persist', 'group') as kvd:
        with kvd.connect() as connection:
            connection.command('SET', b'k', b'v')
        kvd.stop()
        set_durable_seq(kvd, most - 4)
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(connection.command('KVD.SET', b'a', b'v'), most - 3, 'near the last version')
            tap.equal(connection.command('MSET', b'b', b'v', b'c', b'v'), 'OK', 'up to the last')
            told = connection.pipeline([('MSET', b'd', b'v', b'e', b'v'), ('EXISTS', b'd')])
            tap.ok('versions are used up' in str(told[0]) and told[1] == 0,
                   'I: what needs more is refused as a whole: %s' % told[0])
            tap.equal(connection.command('SET', b'd', b'v'), 'OK', 'the last')
            for command in (('SET', b'f', b'v'), ('DEL', b'a'), ('FLUSHALL',), ('INCR', b'n'),
                            ('EXPIRE', b'a', b'100')):
                reply = connection.command(*command)
                tap.ok('versions are used up' in str(reply), '%s is refused' % command[0])
        for hard in (False, True, False):
            error = start_again(kvd, hard)
            tap.equal(error, None, 'E: the store is served after %s' %
                      ('a kill' if hard else 'a stop'))
            with kvd.connect() as connection:
                tap.equal(connection.command('MGET', b'k', b'a', b'b', b'd'), [b'v'] * 4,
                          'E: with all that is in it')
                tap.ok('versions are used up' in str(connection.command('SET', b'f', b'v')),
                       'and nothing is written')
        tap.ok('kvctl dump' in kvd.log(), 'the log names the remedy')


def main():
    tap = Tap()
    full_memory(tap)
    many_removals(tap)
    large_values(tap)
    full_of_all_sizes(tap)
    many_flushes(tap)
    versions_over_lives(tap)
    versions_after_order(tap)
    versions_used_up(tap)
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
