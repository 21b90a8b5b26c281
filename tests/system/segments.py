#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A kvd is started with other segments than the one before: nothing durable is lost (E, F, G).

Whether a value stands in a segment or in a run of its own depends on the segment's size, so one
that was in a segment may be longer than a segment of the next life, and the other way round. Values
around every limit of every size go through changes in both directions, by way of the store and of a
region that is kept; each life changes some of them and adds others.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import Tap, seed  # noqa: E402

KIB = 1024
MEMORY = '64MiB'
SEGMENTS = (64, 256, 1024, 4096)  # KiB
# Up and down, by one step and by all.
LIVES = (4096, 64, 1024, 256, 4096, 1024, 64, 4096)
HEAD = 64  # bytes of a record beside its value, roughly: limits of records are met as well
TEN_HOURS_MS = 36000000


def sizes():
    found = {0, 1, 100}
    for segment in SEGMENTS:
        for limit in (segment * KIB // 4, segment * KIB):
            found.update((limit - 1, limit, limit + 1))
    for limit in (64 * KIB, 256 * KIB):
        found.update(range(limit - HEAD, limit, 8))
    return sorted(found)


class World:
    """What was acknowledged; values are made from (size, stamp) so that none need be kept."""

    def __init__(self, rng):
        self.rng = rng
        self.stamps = {}  # key: (size, stamp, has a time to live)
        self.count = 0

    def one(self, key, size):
        self.count += 1
        timed = self.rng.random() < 0.3
        self.stamps[key] = (size, self.count, timed)
        words = ('PX', TEN_HOURS_MS) if timed else ()
        return ('SET', key, value(size, self.count), *words)

    def write(self, connection, policy, share):
        for size in sizes():
            if self.rng.random() < share:
                replies = connection.pipeline([self.one(b'size:%d' % size, size)])
                assert replies == ['OK'], replies
        # A transaction, one of whose values is long, and a changed time to live.
        replies = connection.pipeline([
            ('MULTI',), self.one(b'in-exec', self.rng.choice(sizes()) % 300000),
            self.one(b'beside', 20), ('EXEC',)])
        assert replies[-1] == ['OK', 'OK'], replies
        key = self.rng.choice(sorted(self.stamps))
        assert connection.command('PERSIST', key) in (0, 1)
        self.stamps[key] = self.stamps[key][:2] + (False,)
        if policy != 'memory':
            assert connection.command('KVD.SYNC') is not None


def value(size, stamp):
    pattern = b'%d:%d;' % (size, stamp)
    return (pattern * (size // len(pattern) + 1))[:size]


def wrong(connection, world):
    """Keys that are not what was acknowledged, in words."""
    found = []
    for key, (size, stamp, timed) in world.stamps.items():
        got = connection.command('GET', key)
        ttl = connection.command('PTTL', key)
        if got != value(size, stamp):
            found.append(f'{key}: {len(got) if got is not None else None} of {size} bytes')
        elif timed != (ttl > 0):
            found.append(f'{key}: its time to live is {ttl}')
    return found


def life(tap, kvd, world, policy, name):
    with kvd.connect() as connection:
        tap.equal(wrong(connection, world), [], f'E, F: {name}: every value is there')
        tap.equal(connection.command('DBSIZE'), len(world.stamps), f'{name}: and no other')
        world.write(connection, policy, 0.4)
        tap.equal(wrong(connection, world), [], f'A: {name}: writing goes on')
    verified = kvd.kvctl('verify')
    tap.equal(verified.returncode, 0, f'{name}: and all of it verifies')
    if verified.returncode != 0:
        tap.diag(verified.stdout + verified.stderr)


def change(tap, kvd, segment, policy, way, name):
    """Ends a life and begins one with other segments. `way`: how the data gets there."""
    if way == 'stopped':
        tap.equal(kvd.stop(), 0, f'{name}: kvd stops in order')
    else:
        kvd.kill()
    if way != 'kept':
        kvd.drop_kept()
    kvd.start('--memory', MEMORY, '--segment', f'{segment}KiB', '--persist', policy)


def campaign(tap, rng, policy, ways):
    world = World(rng)
    with KeptKvd('--memory', MEMORY, '--segment', f'{LIVES[-1]}KiB', '--persist', policy) as kvd:
        with kvd.connect() as connection:
            world.write(connection, policy, 1)
        before = LIVES[-1]
        for number, segment in enumerate(LIVES):
            way = ways[number % len(ways)]
            name = f'{policy}, {before} to {segment} KiB, {way}'
            change(tap, kvd, segment, policy, way, name)
            life(tap, kvd, world, policy, name)
            before = segment
        dumped = kvd.kvctl('dump', os.path.join(kvd.root, 'dump'))
        tap.equal(dumped.returncode, 0, f'{policy}: a dump is complete')
        lines = subprocess.run(['wc', '-l', os.path.join(kvd.root, 'dump')], capture_output=True,
                               check=True).stdout.split()
        tap.equal(int(lines[0]), len(world.stamps), f'{policy}: and has every key')


def main():
    tap = Tap()
    rng = seed()
    campaign(tap, rng, 'group', ('stopped', 'killed', 'kept'))
    campaign(tap, rng, 'lazy', ('kept', 'stopped'))
    campaign(tap, rng, 'memory', ('kept',))
    tap.done()


main()
