#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A kept region is taken over by the next kvd, wherever the last one was killed (A, E, F, I).

Writes of every kind run until kvd dies, at a labelled crash point or by SIGKILL. The next life gets
the region back. What was acknowledged must be there, under every policy; of the request that was on
its way all or nothing; and what stands in the store afterwards is the same.
"""
import os
import re
import shutil
import signal
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import KvdFailed, ReplyError, Tap, seed  # noqa: E402

SMALL = ('--memory', '24MiB', '--segment', '256KiB', '--lazy-interval', '20ms',
         '--memory-return', '5ms')
POINTS = ('record_written', 'entry_published', 'batch_half_published', 'batch_published',
          'reply_queued', 'commit_before', 'commit_after', 'durable_published', 'cleaner_copied',
          'flush_published', 'value_arriving', 'memory_given_back')
ADOPTING = ('adoption_applied', 'adoption_redone', 'adoption_begun')
OFTEN = ('record_written', 'entry_published', 'batch_half_published', 'batch_published',
         'reply_queued')
KEYS = 900


class Model:
    """What must be there, and what the request that was not answered would make of it."""

    def __init__(self):
        self.sure = {}
        self.maybe = None

    def run(self, connection, commands, effect):
        """Sends; when the answers came, `effect` is sure."""
        after = dict(self.sure)
        effect(after)
        self.maybe = after
        replies = connection.pipeline(commands)
        if any(isinstance(reply, ReplyError) for reply in replies):
            raise replies[[isinstance(r, ReplyError) for r in replies].index(True)]
        self.sure = after
        self.maybe = None


def one_request(rng, model, connection, stamp):
    kind = rng.random()
    key = b'key:%d' % rng.randrange(KEYS)
    value = b'%d:' % stamp + b'x' * rng.choice((0, 20, 60, 300, 3000))
    if kind < 0.55:
        model.run(connection, [('SET', key, value)], lambda m: m.__setitem__(key, value))
    elif kind < 0.70:
        model.run(connection, [('DEL', key)], lambda m: m.pop(key, None))
    elif kind < 0.80:
        keys = [b'key:%d' % rng.randrange(KEYS) for _ in range(rng.randrange(2, 40))]
        pairs = [word for k in keys for word in (k, value)]
        model.run(connection, [('MSET', *pairs)], lambda m: m.update((k, value) for k in keys))
    elif kind < 0.90:
        other = b'key:%d' % rng.randrange(KEYS)

        def effect(m):
            m.pop(key, None)
            m[other] = value
        model.run(connection, [('MULTI',), ('DEL', key), ('SET', other, value), ('EXEC',)], effect)
    elif kind < 0.96:
        large = value + b'y' * 200000
        set_large(rng, model, connection, large)
    elif kind < 0.995:
        model.run(connection, [('PEXPIRE', key, 10 ** 9)], lambda m: None)
    else:
        model.run(connection, [('FLUSHALL',)], lambda m: m.clear())


def set_large(rng, model, connection, value):
    key = b'large:%d' % rng.randrange(6)
    model.run(connection, [('SET', key, value)], lambda m: m.__setitem__(key, value))


def contents(connection):
    keys = sorted(connection.command('KEYS', '*'))
    values = connection.command('MGET', *keys) if keys else []
    return dict(zip(keys, values))


def differs(found, wanted):
    """None, or the first difference in words."""
    for key in sorted(set(found) | set(wanted)):
        if found.get(key) != wanted.get(key):
            return (f'{key}: found {(found.get(key) or b"nothing")[:24]}, '
                    f'wanted {(wanted.get(key) or b"nothing")[:24]}')
    return None


def until_it_dies(rng, kvd, model, requests, point):
    """Writes until kvd ends by itself at `point`, or after so many requests is killed."""
    try:
        with kvd.connect() as connection:
            for stamp in range(requests):
                one_request(rng, model, connection, stamp)
    except (OSError, EOFError):
        kvd.wait()
        return True
    kvd.kill()
    return point is None


def one_life(tap, rng, kvd, model, point, name):
    kvd.env.pop('KVD_CRASH_AT', None)
    if point is not None:
        passes = rng.randrange(1, 100 if point in OFTEN else 4)
        kvd.env['KVD_CRASH_AT'] = f'{point}:{passes}'
    try:
        kvd.start()
        died = until_it_dies(rng, kvd, model, 500, point)
    except KvdFailed as failed:
        if point is None or failed.status != -signal.SIGKILL:
            raise
        died = True  # a commit of what the life before had left reached it
    if rng.random() < 0.5:  # the next life is killed while it takes over, too
        kvd.env['KVD_CRASH_AT'] = rng.choice(ADOPTING) + ':1'
        try:
            kvd.start()
        except KvdFailed:
            pass
    kvd.env.pop('KVD_CRASH_AT', None)
    if kvd.process is None:
        kvd.start()
    with kvd.connect() as connection:
        found = contents(connection)
        again = connection.command('DBSIZE')
    difference = differs(found, model.sure)
    if difference is not None and model.maybe is not None:
        second = differs(found, model.maybe)
        difference = second and f'{difference}; and {second}'
    tap.equal(difference, None, f'F, I: {name}: what was acknowledged is there')
    tap.equal(again, len(found), f'F: {name}: and is counted')
    model.sure = found
    model.maybe = None
    return died


def policy(tap, rng, name):
    reached = 0
    with KeptKvd(*SMALL, '--persist', name, start=False) as kvd:
        model = Model()
        for point in (None,) + POINTS:
            label = f'{name}, {point or "SIGKILL"}'
            if kvd.process is not None:
                kvd.kill()
            reached += one_life(tap, rng, kvd, model, point, label)
        lives = len(re.findall('took over', kvd.log()))
        tap.diag(f'counted daemon-kills {lives}')
        tap.ok(lives >= len(POINTS) * 2, f'F: {name}: the region was taken over {lives} times')
        tap.ok(reached >= 6, f'{name}: {reached} crash points were reached')
        if name != 'memory':
            with kvd.connect() as connection:
                connection.pipeline([('SET', 'last', '1'), ('DEL', 'last'), ('KVD.SYNC',)])
            kvd.kill()
            kvd.kept.clear()
            kvd.start()
            with kvd.connect() as connection:
                tap.equal(differs(contents(connection), model.sure), None,
                          f'E: {name}: the store has the same')


SLOW = ('--memory', '64MiB', '--persist', 'lazy', '--lazy-interval', '60s')


def fill(kvd):
    """3000 durable keys, then as many, a large one and a removal that only the region has."""
    with kvd.connect() as c:
        c.pipeline([('SET', b'a%d' % i, b'v' * 64) for i in range(3000)] + [('KVD.SYNC',)])
        c.pipeline([('SET', b'b%d' % i, b'w' * 64) for i in range(3000)])
        c.pipeline([('SET', 'large', 'z' * 3000000), ('DEL', 'a5')])
    kvd.kill()


def salvaged(tap, kvd, name):
    with kvd.connect() as c:
        found = (c.command('DBSIZE'), c.command('GET', 'b7'), c.command('STRLEN', 'large'),
                 c.command('GET', 'a5'))
    tap.equal(found, (6000, b'w' * 64, 3000000, None), f'E, F: {name}: nothing is lost')
    tap.ok('records that only the region had are in' in kvd.log(), f'{name}: by way of the store')
    kvd.kill()
    kvd.start()
    with kvd.connect() as c:
        tap.equal(c.command('DBSIZE'), 6000, f'F: {name}: the new region is kept')
    tap.ok('took over 6000 keys' in kvd.log(), f'F: {name}: and taken over')


def damaged(tap):
    with KeptKvd(*SLOW) as kvd:
        fill(kvd)
        fd = kvd.kept['kvd-region'][0]
        table, = struct.unpack('<Q', os.pread(fd, 8, 256))
        hit = 0
        for at in range(table, table + (2 << 20), 64):
            word, = struct.unpack('<Q', os.pread(fd, 8, at))
            if word and hit < 50:
                hit += os.pwrite(fd, struct.pack('<Q', word ^ 0x1234567), at) == 8
        kvd.start()
        tap.ok('entries of the table are damaged' in kvd.log(), 'F: damage is seen, and said')
        salvaged(tap, kvd, 'damaged')


def laid_out_otherwise(tap):
    with KeptKvd(*SLOW) as kvd:
        fill(kvd)
        kvd.start('--memory', '96MiB', '--segment', '1MiB', *SLOW[2:])
        salvaged(tap, kvd, 'other segments')


def foreign(tap):
    with KeptKvd(*SLOW) as kvd:
        fill(kvd)
        with open(os.path.join(kvd.root, 'no-region'), 'wb+') as file:
            file.write(b'x' * 4096)
            kvd.kept['kvd-region'] = [os.dup(file.fileno())] + kvd.kept['kvd-region']
        kvd.start()
        tap.ok('it is not a region of kvd' in kvd.log(), 'H: what is no region is refused')
        with kvd.connect() as c:
            tap.equal(c.command('DBSIZE'), 6000, 'F: and the one behind it taken over')


def folder_removed(tap):
    """Data folder and store are made anew by the next kvd, from what is kept."""
    with KeptKvd(*SMALL, '--persist', 'group') as kvd:
        with kvd.connect() as c:
            c.pipeline([('SET', b'a%d' % i, b'v' * 64) for i in range(3000)])
            shutil.rmtree(kvd.dir)
            tap.ok(isinstance(c.command('SET', 'late', '1'), ReplyError),
                   'E: without its folder nothing is durable')
        kvd.kill()
        for _ in range(2):
            kvd.start()
            with kvd.connect() as c:
                tap.equal(c.command('DBSIZE'), 3001, 'E, F: and nothing is lost')
            kvd.kill()
            kvd.drop_kept()


def mistaken(tap):
    """A service manager gives up, and drops the region, for some exit codes: never for kvd's."""
    name = 'a start that cannot succeed'
    file = ('--dir', '/dev/null')
    with KeptKvd(*SMALL, '--persist', 'memory') as kvd:
        fill(kvd)
        for wrong, code, words in ((('--no-such-option',), 64, 'no-such-option'),
                                   (file, 73, '/dev/null')):
            fails(tap, kvd, SMALL + wrong, 69, (words, f'instead of {code}'),
                  f'{name}, region kept')
        kvd.start(*SMALL, '--persist', 'memory')
        with kvd.connect() as c:
            tap.ok('took over' in kvd.log() and c.command('DBSIZE') > 0,
                   'F: when that is mended the region is taken over')
        kvd.kill()
        kvd.drop_kept()
        fails(tap, kvd, SMALL + ('--no-such-option',), 64, ('no-such-option',),
              f'{name}, none kept')
        fails(tap, kvd, SMALL + file, 73, ('/dev/null',), f'{name}, none kept')


def fails(tap, kvd, args, code, words, name):
    try:
        kvd.start(*args)
        tap.ok(False, f'{name}: kvd does not start')
        kvd.kill()
    except KvdFailed as failed:
        tap.equal(failed.status, code, f'{name}: {code}')
        tap.ok(all(word in failed.log for word in words), f'{name}: it tells the reason')


def main():
    tap = Tap()
    rng = seed()
    damaged(tap)
    laid_out_otherwise(tap)
    foreign(tap)
    folder_removed(tap)
    mistaken(tap)
    for name in ('memory', 'lazy', 'group'):
        policy(tap, rng, name)
    tap.done()


main()
