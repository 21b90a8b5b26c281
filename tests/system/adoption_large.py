#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""kvd is killed while it moves large values that are in the way of larger ones, and the next life
takes the region over.

  A, F  each key has a value that was acknowledged, or the one that was being written; none is torn
  G     what is counted is what a fresh look finds, and the place that was wanted is found then
"""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import Tap, seed  # noqa: E402

MIB = 1 << 20
OPTIONS = ('--memory', '16MiB', '--memory-max', '16MiB', '--segment', '64KiB', '--value-max',
           '3MiB', '--lazy-interval', '10ms', '--compact-floor', '1MiB', '--write-wait', '60s')
# With how often each is passed at least: two larger values find no place at once.
POINTS = {'value_half_moved': 2, 'value_moved': 2, 'limbo_given_back': 400}
SMALL = 40000
EACH = 40  # one in so many stays: no gap of the range, which has 32 MiB, is as long as LARGE
LAG = 100  # so many are there at a time, so that no place is used again at once
LARGE = 2 * MIB


class Data:
    def __init__(self, rng):
        self.rng = rng
        self.sure = {}
        self.maybe = {}
        self.stamp = 0

    def value(self, size):
        self.stamp += 1
        return (b'%08d' % self.stamp) * (size // 8)

    def run(self, connection, changes):
        """`changes`: pairs of a key and its value, None = it is removed."""
        for key, value in changes:
            self.maybe.setdefault(key, []).append(value)
        replies = connection.pipeline([('SET', key, value) if value else ('DEL', key)
                                       for key, value in changes])
        for (key, value), reply in zip(changes, replies):
            if isinstance(reply, Exception):
                raise reply
            self.sure[key] = value
        self.maybe.clear()

    def scatter(self, connection):
        """Once round the range."""
        runs = 32 * MIB // SMALL
        first = self.stamp
        for start in range(0, runs, 20):
            numbers = range(first + start, first + start + 20)
            self.run(connection, [(b'small:%d' % n, self.value(SMALL)) for n in numbers])
            self.run(connection, [(b'small:%d' % n, None) for n in range(numbers[0] - LAG,
                                                                         numbers[-1] - LAG + 1)
                                  if n % EACH and b'small:%d' % n in self.sure])

    def larger(self, connection):
        key = b'large:%d' % self.rng.randrange(3)
        self.run(connection, [(key, self.value(LARGE))])

    def wrong(self, connection):
        """None, or the first key in words that has not what it may have."""
        for key in set(self.sure) | set(self.maybe):
            found = connection.command('GET', key)
            if found not in [self.sure.get(key)] + self.maybe.get(key, []):
                return f'{key}: {(found or b"nothing")[:24]} was found'
            self.sure[key] = found
        self.maybe.clear()
        return None


def look(tap, kvd, data, name):
    with kvd.connect() as connection:
        tap.equal(data.wrong(connection), None, f'A, F: {name}: what must be there is')
        said = connection.command('DEBUG', 'RECOUNT')
        tap.ok(isinstance(said, int), f'G: {name}: it is counted: {said}')


def until_it_dies(kvd, data):
    try:
        with kvd.connect() as connection:
            data.scatter(connection)
            for _ in range(20):
                data.larger(connection)
    except (OSError, EOFError):
        return kvd.wait()
    return None


def one_life(tap, rng, point, name):
    """Each in a region of its own: what a life before left would be places for the next."""
    data = Data(rng)
    with KeptKvd(*OPTIONS, '--persist', name.split(',')[0], start=False) as kvd:
        kvd.env['KVD_CRASH_AT'] = f'{point}:{rng.randrange(1, POINTS[point] + 1)}'
        kvd.start()
        tap.equal(until_it_dies(kvd, data), -signal.SIGKILL, f'{name}: kvd dies there')
        kvd.env.pop('KVD_CRASH_AT')
        kvd.start()
        look(tap, kvd, data, name)
        with kvd.connect() as connection:
            data.larger(connection)
            connection.command('KVD.SYNC')
        look(tap, kvd, data, f'{name}, and there is place for another')
        tap.ok('is not taken over' not in kvd.log(), f'F: {name}: the region was taken over')
        if not name.startswith('memory'):
            kvd.kill()
            kvd.kept.clear()
            kvd.start()
            look(tap, kvd, data, f'E: {name}, then from the store')


def main():
    tap = Tap()
    rng = seed()
    for name in ('memory', 'lazy'):
        for point in POINTS:
            one_life(tap, rng, point, f'{name}, {point}')
    tap.done()


main()
