#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A full memory is taken over by the next kvd, wherever within its own work the last was killed:
while it cleans, evicts, spills, puts values back, ends keys, gives memory back, lowers its bound,
compacts its store, and while the table grows and shrinks (A, E, F, G).

Writes of every kind run until kvd dies at the labelled point. What was acknowledged must be there
in the next life unless it has ended or may be evicted, nothing may be there whose time has come,
and what the next kvd counts must be what a fresh look at the region finds. Where values are spilled
nothing may be missing, and what is read meanwhile must be what was written.
"""
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import KvdFailed, ReplyError, Tap, seed  # noqa: E402

MIB = 1 << 20
CACHE = ('--memory', '12MiB', '--memory-max', '12MiB', '--segment', '64KiB',
         '--lazy-interval', '10ms', '--compact-floor', '1MiB', '--evict-never', 'keep:',
         '--memory-return', '20ms', '--write-wait', '60s')
STORE = ('commit_before', 'commit_after', 'durable_published', 'block_compacted')
POINTS = ('evicted', 'cleaner_copied', 'key_ended', 'memory_given_back', 'limbo_given_back',
          'bound_lowered', 'flush_published', 'split_filled', 'split_published', 'chain_filled',
          'chain_published', 'merge_filled', 'merge_published') + STORE
SPILLING = ('stub_published', 'value_promoted', 'cleaner_copied', 'flush_published') + STORE
PASSES_MAX = {'evicted': 2000, 'stub_published': 3000, 'value_promoted': 200,
              'cleaner_copied': 2000, 'split_filled': 200, 'split_published': 200,
              'merge_filled': 30, 'merge_published': 30, 'key_ended': 100}
REQUESTS_MAX = 20000  # of a life: no point is further away
FILLERS = 9000
AT_ONCE = 300


def now_ms():
    return int(time.time() * 1000)


class Model:
    """What each key was last set to, as (value, when it ends or None), and what the requests that
    were not answered may have made of it."""

    def __init__(self, spills):
        self.sure = {}
        self.maybe = {}
        self.refused = 0
        self.spills = spills
        self.misread = 0

    def run(self, connection, commands, changes):
        """`changes`: key to (value, ends) or None."""
        for key, change in changes:
            self.maybe.setdefault(key, []).append(change)
        replies = connection.pipeline(commands)
        if len(replies) < len(changes):
            replies *= len(changes)  # one command for all of them
        for (key, change), reply in zip(changes, replies):
            if not isinstance(reply, ReplyError):
                self.sure[key] = change
            elif not str(reply).startswith('OOM'):
                raise reply
            self.refused += isinstance(reply, ReplyError)
        self.maybe.clear()

    def look(self, connection, commands, keys):
        if not keys:
            return
        for key, reply in zip(keys, connection.pipeline(commands)):
            if isinstance(reply, ReplyError):
                raise reply
            expected = self.sure[key]
            if reply is None and (not expected or expected[1]):
                continue  # it may have ended
            self.misread += reply != (expected and expected[0])

    def wrong(self, found, read_ms):
        """None, or the first key in words that is not as it must be."""
        for key in set(found) | set(self.sure) | set(self.maybe):
            may = [self.sure.get(key)] + self.maybe.get(key, [])
            values = [change[0] for change in may if change]
            if key in found:
                ended = all(change[1] and change[1] <= read_ms
                            for change in may if change and change[0] == found[key])
                if found[key] not in values or ended:
                    return f'{key}: {found[key][:24]} was found, {len(values)} values may be'
            elif (self.spills or key.startswith(b'keep:')) and None not in may and \
                    not any(change[1] and change[1] <= now_ms() for change in may):
                return f'{key} is lost'
        return None


class Writer:
    def __init__(self, rng, model):
        self.rng, self.model = rng, model
        self.stamp = 0
        self.growing = True

    def value(self, bytes_max):
        self.stamp += 1
        return b'%d:' % self.stamp + b'x' * self.rng.randrange(bytes_max)

    def cached(self):
        changes = [(b'cache:%d' % self.rng.randrange(20000), (self.value(4000), None))
                   for _ in range(20)]
        return [('SET', key, change[0]) for key, change in changes], changes

    def large(self):
        key, value = b'large:%d' % self.rng.randrange(10), self.value(200000) + b'y' * 20000
        return [('SET', key, value)], [(key, (value, None))]

    def kept(self):
        key = b'keep:%d' % self.rng.randrange(500)
        if self.rng.random() < 0.3:
            return [('DEL', key)], [(key, None)]
        value = self.value(300)
        return [('SET', key, value)], [(key, (value, None))]

    def ending(self):
        key, value = b'keep:e%d' % self.rng.randrange(500), self.value(300)
        ends = now_ms() + self.rng.choice((5, 50, 100000))
        return [('SET', key, value, 'PXAT', ends)], [(key, (value, ends))]

    def read(self):
        """Some of what was written, which must be as it was."""
        keys = self.rng.sample(sorted(self.model.sure), min(20, len(self.model.sure)))
        return [('GET', key) for key in keys], keys

    def fillers(self):
        """The table grows by some thousands of small keys and shrinks again."""
        if self.rng.random() < 0.02:
            self.growing = not self.growing
        first = self.rng.randrange(FILLERS // AT_ONCE) * AT_ONCE
        keys = [b'fill:%d' % i for i in range(first, first + AT_ONCE)]
        if not self.growing:
            return [('DEL', *keys)], [(key, None) for key in keys]
        value = self.value(10)
        return [('MSET', *(word for key in keys for word in (key, value)))], \
            [(key, (value, None)) for key in keys]

    def bound(self):
        return [('CONFIG', 'SET', 'maxmemory', self.rng.randrange(7, 13) * MIB)], []

    def flush(self):
        keys = set(self.model.sure)
        return [('FLUSHALL',)], [(key, None) for key in keys]

    def one(self, connection, point):
        chances = [(self.cached, 40), (self.large, 4), (self.kept, 15), (self.ending, 15),
                   (self.fillers, 24), (self.bound, 2),
                   (self.flush, 2 if point == 'flush_published' else 0.05)]
        if self.model.spills:
            chances.append((self.read, 30))
        make = self.rng.choices(*zip(*chances))[0]
        if make == self.read:
            self.model.look(connection, *make())
        else:
            self.model.run(connection, *make())


def contents(connection):
    keys = connection.command('KEYS', '*')
    found = {}
    for start in range(0, len(keys), 1000):
        part = keys[start:start + 1000]
        found.update((key, value) for key, value in zip(part, connection.command('MGET', *part))
                     if value is not None)
    return found


def until_it_dies(kvd, writer, point):
    try:
        with kvd.connect() as connection:
            for _ in range(REQUESTS_MAX):
                writer.one(connection, point)
    except (OSError, EOFError):
        return kvd.wait()
    kvd.kill()
    return None


def one_life(tap, rng, kvd, writer, point, name):
    kvd.env['KVD_CRASH_AT'] = f'{point}:{rng.randrange(1, PASSES_MAX.get(point, 3) + 1)}'
    try:
        kvd.start()
        died = until_it_dies(kvd, writer, point)
    except KvdFailed as failed:
        died = failed.status  # what the life before had left reached it
    tap.equal(died, -signal.SIGKILL, f'{name}: kvd dies there')
    kvd.env.pop('KVD_CRASH_AT')
    kvd.start()
    with kvd.connect() as connection:
        read_ms = now_ms()
        found = contents(connection)
        said = connection.command('DEBUG', 'RECOUNT')
    tap.equal(writer.model.wrong(found, read_ms), None, f'A, F: {name}: what must be there is')
    tap.ok(isinstance(said, int), f'G: {name}: it is counted: {said}')
    writer.model.sure = {key: writer.model.sure.get(key) for key in found}
    for key, changes in writer.model.maybe.items():
        if key in found:
            writer.model.sure[key] = next((change for change in changes if change and
                                           change[0] == found[key]), writer.model.sure[key])
    writer.model.maybe.clear()


def policy(tap, rng, name, full):
    spills = full == 'spill'
    with KeptKvd(*CACHE, '--persist', name, '--when-full', full, start=False) as kvd:
        writer = Writer(rng, Model(spills))
        for point in SPILLING if spills else POINTS:
            if name == 'memory' and point in STORE:
                continue
            if kvd.process is not None:
                kvd.kill()
            one_life(tap, rng, kvd, writer, point, f'{name}, {full}, {point}')
        log = kvd.log()
        tap.diag(f'counted daemon-kills {log.count("took over")}')
        tap.diag(f'{writer.model.refused} writes were refused, with memory full of large values')
        tap.ok('is not taken over' not in log, f'F: {name}, {full}: every region was taken over')
        tap.equal(writer.model.misread, 0, f'A: {name}, {full}: what was read was right')


def main():
    tap = Tap()
    rng = seed()
    for name, full in (('memory', 'evict'), ('lazy', 'evict'), ('lazy', 'spill')):
        policy(tap, rng, name, full)
    tap.done()


main()
