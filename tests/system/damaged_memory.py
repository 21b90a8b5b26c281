#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Memory that is not what was written: nobody takes it for absence, and nothing is less unsaid (H).

The test has the region's descriptor, as a keeper has, and spoils single records: while kvd serves,
and between two lives. Whoever asks for such a key is told that it is damaged, by the socket and by
the mapping alike; a dump leaves it out and says so; what another start could not bring over is
named.
"""
import json
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import ReplyError, Tap, wait_until  # noqa: E402

BASE = ('--memory', '32MiB', '--segment', '256KiB')
HEADER = 32  # bytes of a record before its key, if it has no time to live
SEQ_AT = 8   # the word with its version: 0 is no record
KEYS = 200
CORRUPT = 5


def places(fd, text):
    """Where the text stands in the file."""
    at = 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(fd, at, os.SEEK_HOLE)
        data = os.pread(fd, end - at, at)
        found = data.find(text)
        while found >= 0:
            yield at + found
            found = data.find(text, found + 1)
        at = end


def spoil(kvd, key, word=0):
    """All records of a key: no parser takes them for one."""
    fd, = [fd for fds in kvd.kept.values() for fd in fds]
    count = 0
    for at in places(fd, key):
        os.pwrite(fd, struct.pack('<Q', word), at - HEADER + SEQ_AT)
        count += 1
    assert count > 0, key
    return count


def fill(kvd):
    with kvd.connect() as c:
        c.pipeline([('SET', f'key:{i:04}', 'v' * 100) for i in range(KEYS)])
        c.pipeline([('SET', 'spoilt:1', 'x' * 100), ('SET', 'large:2', 'y' * 100000),
                    ('SET', 'spoilt:3', 'x')])


def is_damage(reply, key):
    return isinstance(reply, ReplyError) and str(reply).startswith('DAMAGED ') and \
        key in str(reply)


def counter(kvd, name):
    with kvd.connect() as c:
        return json.loads(c.command('KVD.STATS'))['counters'][name]


def asked(tap, kvd):
    """Each command that names the key, alone, among others, and in a transaction."""
    key = 'spoilt:1'
    with kvd.connect() as c:
        for command in (('GET', key), ('EXISTS', key), ('TTL', key), ('STRLEN', key),
                        ('MGET', 'key:0001', key, 'key:0002'), ('APPEND', key, 'more'),
                        ('GETDEL', key), ('EXPIRE', key, '100'), ('SET', key, 'new', 'NX'),
                        ('INCR', key), ('DEL', key), ('KVD.GETV', key)):
            reply = c.command(*command)
            if not tap.ok(is_damage(reply, key), f'{command[0]}: the key is damaged, not absent'):
                tap.diag(repr(reply))
        replies = c.pipeline([('MULTI',), ('GET', 'key:0001'), ('GET', key),
                              ('SET', 'key:0003', 'w'), ('EXEC',)])[-1]
        tap.ok(replies[0] == b'v' * 100 and is_damage(replies[1], key) and replies[2] == 'OK',
               'in a transaction it is the one reply')
        replies = c.pipeline([('MULTI',), ('SET', 'key:0004', 'w'), ('SET', key, 'w'),
                              ('EXEC',)])[-1]
        tap.ok(isinstance(replies, ReplyError) and 'EXECABORT' in str(replies) and
               'DAMAGED' in str(replies) and c.command('GET', 'key:0004') == b'v' * 100,
               'I: one that would write it is discarded as a whole')
        many = ['MGET', key] + [f'key:{i % KEYS:04}' for i in range(20000)]
        tap.ok(is_damage(c.command(*many), key), 'so it is of a command that is cut')
        tap.ok(is_damage(c.command('SET', 'spoilt:3', 'new'), 'spoilt:3'),
               'a write is not said to be well')
        tap.equal(c.command('GET', 'key:0003'), b'w', 'others are what they were')
        tap.equal(c.command('PING'), 'PONG', 'and replies go on in order')
    for via in ('shm', 'socket'):
        got = kvd.kvctl('--via', via, 'get', key)
        tap.ok(got.returncode == CORRUPT and key.encode() in got.stderr,
               f'kvctl --via {via}: exit status {got.returncode}')


def dumped(tap, kvd):
    path = os.path.join(kvd.root, 'dump')
    before = counter(kvd, 'damage_met')
    for name in ('through the mapping', 'by the socket'):
        if name == 'by the socket':
            with kvd.connect() as c:
                c.command('CONFIG', 'SET', 'reader-pages-max', '1')
        got = kvd.kvctl('dump', path)
        with open(path, encoding='utf-8') as file:
            keys = {json.loads(line)['key'] for line in file}
        tap.equal(got.returncode, CORRUPT, f'a dump {name} is not complete')
        tap.ok(b'not complete' in got.stderr, 'and says so')
        tap.equal((len(keys & {f'key:{i:04}' for i in range(KEYS)}), 'spoilt:1' in keys),
                  (KEYS, False), 'it has all the rest')
        os.unlink(path)
    tap.ok(counter(kvd, 'damage_met') > before, 'what a walk meets is counted')


def while_it_serves(tap):
    with KeptKvd(*BASE, '--persist', 'memory') as kvd:
        fill(kvd)
        clean = kvd.kvctl('dump', os.path.join(kvd.root, 'dump'))
        tap.equal(clean.returncode, 0, 'a dump of whole memory is complete')
        spoil(kvd, b'spoilt:1')
        spoil(kvd, b'spoilt:3')
        asked(tap, kvd)
        dumped(tap, kvd)


def read_out(tap):
    """Another kvd, with other segments: what it could not bring over it names and counts."""
    with KeptKvd(*BASE, '--persist', 'memory') as kvd:
        fill(kvd)
        with kvd.connect() as c:  # in further segments
            c.pipeline([('SET', f'more:{i:04}', 'w' * 2000) for i in range(KEYS)])
        fd, = kvd.kept['kvd-region']
        at, = list(places(fd, b'x' * 100))[:1]
        kvd.kill()
        os.pwrite(fd, b'z', at)  # its checksum tells
        at = max(places(fd, b'y' * 4096))
        os.pwrite(fd, b'z', at)
        kvd.start('--memory', '32MiB', '--segment', '64KiB', '--persist', 'memory')
        for key in ('spoilt:1', 'large:2'):
            tap.ok(f"of '{key}' is lost" in kvd.log(), f'F: {key}: the log names what is lost')
        tap.equal(counter(kvd, 'recovered_lost'), 2, 'F: and it is counted')
        with kvd.connect() as c:
            tap.equal(c.command('DBSIZE'), 2 * KEYS + 1, 'F: the rest is there')
        got = kvd.kvctl('dump', os.path.join(kvd.root, 'dump'))
        tap.ok(got.returncode == CORRUPT and b'2 keys or versions' in got.stderr,
               'a dump tells of it')


def newest(tap):
    """Among what was written last: a kvd without a store loses these keys, and no others."""
    with KeptKvd(*BASE, '--persist', 'memory') as kvd:
        fill(kvd)
        bad = {'key:0050', 'key:0051', 'key:0120', 'spoilt:3'}
        kvd.kill()
        for key in sorted(bad):
            spoil(kvd, key.encode(), 0 if key != 'key:0120' else (1 << 64) - 1)
        for _ in range(2):  # and once more
            kvd.start()
            with kvd.connect() as c:
                keys = {f'key:{i:04}' for i in range(KEYS)} | {'spoilt:1', 'large:2', 'spoilt:3'}
                found = {key for key in keys if c.command('EXISTS', key) == 1}
                tap.equal(found, keys - bad, 'F: all that verifies is there')
                tap.equal(c.command('DBSIZE'), len(keys - bad), 'F: and counted')
            tap.equal(counter(kvd, 'recovered_lost'), len(bad), 'F: what is lost is counted, too')
            tap.equal(kvd.kvctl('verify').returncode, 0, 'F: what is left verifies')
            kvd.kill()
        tap.ok(f'{len(bad)} keys are lost' in kvd.log() and 'is not taken over' not in kvd.log(),
               'F: the region goes on')
        kvd.start()
        with kvd.connect() as c:
            for i in range(3000):
                c.command('SET', f'key:{i % KEYS:04}', 'n' * 3000)
            tap.equal(c.command('DBSIZE'), KEYS + 2, 'F: writing, and cleaning, goes on')


def unsaved(tap):
    """The same where it is not durable yet: the store gets all but these."""
    with KeptKvd(*BASE, '--persist', 'lazy', '--lazy-interval', '3600s') as kvd:
        fill(kvd)
        kvd.kill()
        for key in ('key:0050', 'key:0051', 'spoilt:3'):
            spoil(kvd, key.encode())
        kvd.start()
        with kvd.connect() as c:
            tap.equal(c.command('DBSIZE'), KEYS, 'E, F: what verifies is in the store now')
            tap.equal((c.command('GET', 'key:0052'), c.command('STRLEN', 'large:2')),
                      (b'v' * 100, 100000), 'E, F: what stood behind the bad ones, too')
        tap.equal(counter(kvd, 'recovered_lost'), 3, 'F: what is lost is counted')


def large_value(tap, policy):
    """A region is taken over without reading large values: they are read afterwards. What is
    damaged is told, and is the store's again where there is one."""
    good = b'y' * 100000
    with KeptKvd(*BASE, '--persist', policy) as kvd:
        fill(kvd)
        with kvd.connect() as c:
            c.pipeline([('SET', f'large:many:{i}', b'%06d' % i * 20000) for i in range(20)])
            c.command('KVD.SYNC')
        fd, = kvd.kept['kvd-region']
        at = max(places(fd, b'y' * 4096))
        kvd.kill()
        os.pwrite(fd, b'z', at)
        kvd.start()
        wait_until(lambda: counter(kvd, 'large_damaged') == 1, 'the damage to be found')
        tap.ok("value of 'large:2' in the memory that was taken over is damaged" in kvd.log(),
               f'F: {policy}: a large value that is damaged is named')
        with kvd.connect() as c:
            if policy == 'memory':
                tap.ok('no other value' in kvd.log(), 'F: and that there is no other')
            else:
                wait_until(lambda: c.command('GET', 'large:2') == good, 'the value of the store')
                tap.ok('read from the store from now on' in kvd.log(), 'F: and the store serves')
            same = [c.command('GET', f'large:many:{i}') == b'%06d' % i * 20000 for i in range(20)]
            tap.ok(all(same) and c.command('DBSIZE') == KEYS + 23, 'F: all others are as they were')
        tap.equal(counter(kvd, 'large_damaged'), 1, 'F: and none of them is called damaged')


def main():
    tap = Tap()
    large_value(tap, 'group')
    large_value(tap, 'memory')
    while_it_serves(tap)
    newest(tap)
    unsaved(tap)
    read_out(tap)
    tap.done()


main()
