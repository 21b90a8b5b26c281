#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A kept region whose kvd is started otherwise: nothing acknowledged is lost by a change (E, F, G).

What fits the region goes on in it; for the rest it is read out into a new one, and into the store
where there was none before. A start that fails leaves the region with its keeper.
"""
import glob
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
import kept as kept_module  # noqa: E402
from kvdtest import KVD_PROGRAM, KvdFailed, Tap, seed  # noqa: E402

BASE = ('--memory', '32MiB', '--memory-max', '256MiB', '--segment', '256KiB',
        '--lazy-interval', '60s')
TEN_HOURS_MS = 36000000
IN_PLACE, READ_OUT = 'took over', 'out of the region of the life before'


class World:
    """What was acknowledged, and how to write more of it."""

    def __init__(self, rng):
        self.rng = rng
        self.values = {}
        self.timed = set()
        self.round = 0

    def write(self, kvd, flush=False):
        """One life's worth of everything, killed at its end."""
        self.round += 1
        with kvd.connect() as c:
            if flush:
                c.command('FLUSHALL')
                self.values, self.timed = {}, set()
            for _ in range(12):
                commands = [self.one() for _ in range(120)]
                c.pipeline(commands)
            large = b'%d' % self.round + b'L' * 300000
            c.pipeline([('SET', 'large', large), ('COPY', 'large', 'other', 'REPLACE'),
                        ('EXPIRE', 'large', TEN_HOURS_MS // 1000)])
            self.values.update({b'large': large, b'other': large})
            self.timed.add(b'large')
            self.timed.discard(b'other')
        kvd.kill()

    def one(self):
        key = b'key:%d' % self.rng.randrange(900)
        kind = self.rng.random()
        if kind < 0.7 or key not in self.values:
            value = b'%d:%d:' % (self.round, self.rng.randrange(1 << 30)) + b'x' * (
                self.rng.choice((0, 30, 200, 2000)))
            self.values[key] = value
            self.timed.discard(key)
            return ('SET', key, value)
        if kind < 0.85:
            del self.values[key]
            self.timed.discard(key)
            return ('DEL', key)
        self.timed.add(key)
        return ('PEXPIRE', key, TEN_HOURS_MS)

    def difference(self, kvd):
        """None, or what is not as it was acknowledged."""
        keys = sorted(self.values)
        with kvd.connect() as c:
            found = c.command('MGET', *keys)
            size = c.command('DBSIZE')
            left = c.pipeline([('PTTL', key) for key in keys])
        for key, value, ms in zip(keys, found, left):
            if value != self.values[key]:
                return f'{key}: {(value or b"nothing")[:30]}'
            timed = TEN_HOURS_MS - 600000 < ms <= TEN_HOURS_MS
            if timed != (key in self.timed):
                return f'{key}: {ms} ms to live'
        return None if size == len(keys) else f'{size} keys instead of {len(keys)}'


def life(tap, kvd, world, args, way, name, **others):
    """The next life with other arguments; it is to have everything."""
    before = len(kvd.log())
    kvd.start(*args)
    tap.equal(world.difference(kvd), None, f'E, F: {name}: nothing is lost')
    tap.ok(way is None or way in kvd.log()[before:], f'F: {name}: by way of "{way}"')
    world.write(kvd, **others)


def sync(kvd):
    """All is durable, and kvd killed."""
    with kvd.connect() as c:  # its own writes are what a connection waits for
        c.pipeline([('SET', 'sync', '1'), ('DEL', 'sync'), ('KVD.SYNC',)])
    kvd.kill()


def from_the_store(tap, kvd, world, name):
    """A start without the region."""
    kvd.start()
    tap.equal(world.difference(kvd), None, f'F: {name}: nothing is lost')
    sync(kvd)
    kvd.kept.clear()
    kvd.start()
    tap.equal(world.difference(kvd), None, f'E: {name}: the store has the same')
    kvd.kill()


def geometry(tap, rng):
    for policy in ('memory', 'lazy'):
        base = BASE + ('--persist', policy)
        world = World(rng)
        with KeptKvd(*base) as kvd:
            world.write(kvd)
            for args, way in (
                    (('--memory', '40MiB'), IN_PLACE), (('--memory', '24MiB'), IN_PLACE),
                    (('--value-max', '1MiB'), IN_PLACE),
                    (('--segment', '128KiB'), READ_OUT), (('--segment', '1MiB'), READ_OUT),
                    (('--memory-max', '512MiB'), READ_OUT), ((), IN_PLACE),
                    (('--hash', 'siphash'), READ_OUT), ((), READ_OUT)):
                life(tap, kvd, world, base + args, way, f'{policy}, {" ".join(args) or "back"}')
            if policy != 'memory':
                from_the_store(tap, kvd, world, 'after all of them')


def policies(tap, rng):
    world = World(rng)
    with KeptKvd(*BASE, '--persist', 'memory') as kvd:
        world.write(kvd)
        for policy, more, flush in (('lazy', (), False), ('memory', (), False),
                                    ('group', (), True), ('memory', (), True),
                                    ('sync', ('--segment', '512KiB'), False),
                                    ('memory', (), False), ('lazy', (), False)):
            way = READ_OUT if more else IN_PLACE if policy == 'sync' else None
            life(tap, kvd, world, BASE + ('--persist', policy) + more, way,
                 f'to {policy} {" ".join(more)}', flush=flush)
        from_the_store(tap, kvd, world, 'from policy to policy')


def another_store(tap, rng):
    """Memory policy beside a store that it never read: the store is put aside, not lost."""
    world = World(rng)
    with KeptKvd(*BASE, '--persist', 'lazy') as kvd:
        with kvd.connect() as c:
            c.pipeline([('SET', 'former', '1'), ('KVD.SYNC',)])
        kvd.kill()
        kvd.kept.clear()
        kvd.start(*BASE, '--persist', 'memory')
        world.write(kvd)
        life(tap, kvd, world, BASE + ('--persist', 'lazy'), IN_PLACE, 'beside another store')
        aside = glob.glob(os.path.join(kvd.dir, 'store.before-*'))
        tap.equal(len(aside), 1, 'E: what the store had is put aside')
        from_the_store(tap, kvd, world, 'beside another store')


def elsewhere(tap, rng):
    """Another data folder and socket: nothing has served from there."""
    for policy in ('memory', 'lazy'):
        world = World(rng)
        with KeptKvd(*BASE, '--persist', policy) as kvd:
            world.write(kvd)
            kvd.dir = os.path.join(kvd.root, 'elsewhere')
            os.mkdir(kvd.dir, 0o700)
            kvd.socket = os.path.join(kvd.root, 'other.sock')
            args = BASE + ('--persist', policy, '--socket', kvd.socket)
            life(tap, kvd, world, args, IN_PLACE, f'{policy}, another folder')
            life(tap, kvd, world, args, IN_PLACE, f'{policy}, and again')
            if policy != 'memory':
                from_the_store(tap, kvd, world, 'another folder')


def killed_meanwhile(tap, rng):
    """A read-out that is cut short is done again, whichever region is kept by then."""
    world = World(rng)
    segments = ('128KiB', '256KiB')
    with KeptKvd(*BASE, '--persist', 'memory') as kvd:
        world.write(kvd)
        for i, point in enumerate(('adoption_applied', 'adoption_redone', 'region_kept',
                                   'adoption_begun')):
            policy = ('memory', 'lazy')[i // 2 % 2]
            args = BASE + ('--persist', policy, '--segment', segments[i % 2])
            kvd.env['KVD_CRASH_AT'] = point
            try:
                kvd.start(*args)
            except KvdFailed:
                pass
            tap.ok(kvd.process is None, f'{point} is reached')
            kvd.env.pop('KVD_CRASH_AT')
            life(tap, kvd, world, args, None, f'killed at {point}')
            tap.equal(sum(len(fds) for fds in kvd.kept.values()), 1, f'{point}: one is kept')


def refuses(tap, kvd, args, words, name):
    try:
        kvd.start(*args)
        tap.ok(False, f'G: {name}: kvd does not start')
        kvd.kill()
    except KvdFailed as failure:
        tap.equal(failure.status, os.EX_OSERR, f'G: {name}: kvd does not start')
        tap.ok(words in failure.log, f'G: {name}: and says why')


def not_now(tap, rng):
    """Too little memory, of the machine or by configuration: the region stays kept."""
    world = World(rng)
    with KeptKvd(*BASE, '--persist', 'memory') as kvd:
        world.write(kvd)
        kvd.start()
        with kvd.connect() as c:
            c.pipeline([('SET', b'bulk:%d' % i, b'b' * 4000) for i in range(5000)])
            c.command('DEL', *[b'bulk:%d' % i for i in range(1, 5000, 5)])
        world.values.update({b'bulk:%d' % i: b'b' * 4000 for i in range(5000) if i % 5 != 1})
        kvd.kill()
        args = BASE + ('--persist', 'memory')
        less = ('--memory', '8MiB', '--segment', '64KiB', '--persist', 'memory')
        refuses(tap, kvd, less, 'does not fit --memory', 'less memory than data')
        os.environ['KVD_WRAPPER'] = 'prlimit --as=60000000'
        refuses(tap, kvd, args, 'it stays kept', 'too little address space')
        del os.environ['KVD_WRAPPER']
        life(tap, kvd, world, args, IN_PLACE, 'after two failures')


def unchanged(tap, rng):
    """Readers of the old region read on: not a byte of it changes."""
    world = World(rng)
    with KeptKvd(*BASE, '--persist', 'memory') as kvd:
        world.write(kvd)
        fd = os.dup(kvd.kept['kvd-region'][0])
        before = dense(fd)
        args = BASE + ('--persist', 'lazy', '--segment', '1MiB')
        life(tap, kvd, world, args, READ_OUT, 'with readers')
        tap.ok(dense(fd) == before, 'B: the old region is as it was')
        os.close(fd)


def dense(fd):
    at, parts = 0, []
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return hash(tuple(parts))
        end = os.lseek(fd, at, os.SEEK_HOLE)
        parts.append((at, os.pread(fd, end - at, at)))
        at = end


def other_builds(tap, rng):
    """Two builds of one layout are the same path; an unknown layout or flag leaves the store."""
    world = World(rng)
    args = BASE + ('--persist', 'lazy')
    with KeptKvd(*args) as kvd:
        with kvd.connect() as c:
            version = c.command('INFO', 'server').split(b'kvd_version:')[1].split()[0]
        other = os.path.join(kvd.root, 'kvd-other')
        with open(KVD_PROGRAM, 'rb') as file:
            image = file.read()
        renamed = b''.join(b'9' if 48 <= byte <= 57 else bytes([byte]) for byte in version)
        with open(other, 'wb') as file:
            file.write(image.replace(version + b'\0', renamed + b'\0'))
        os.chmod(other, 0o755)
        world.write(kvd)
        for program, text in ((other, renamed), (KVD_PROGRAM, version)):
            kept_module.KVD_PROGRAM = program
            life(tap, kvd, world, args, IN_PLACE, f'build {text.decode()}')
            tap.ok(f'kvd {text.decode()} serves' in kvd.log(), f'it is {text.decode()}')
        kvd.start()
        sync(kvd)
        for offset, layout, bytes_ in ((8, '<I', 4), (24, '<Q', 8)):
            fd = next(iter(kvd.kept.values()))[0]
            word, = struct.unpack(layout, os.pread(fd, bytes_, offset))
            os.pwrite(fd, struct.pack(layout, word + 64), offset)
            life(tap, kvd, world, args, 'it is of another layout', f'byte {offset}')
            kvd.start()
            sync(kvd)


def main():
    tap = Tap()
    rng = seed()
    geometry(tap, rng)
    policies(tap, rng)
    another_store(tap, rng)
    elsewhere(tap, rng)
    killed_meanwhile(tap, rng)
    not_now(tap, rng)
    unchanged(tap, rng)
    other_builds(tap, rng)
    tap.done()


main()
