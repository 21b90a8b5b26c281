#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A store that is damaged when kvd starts: with a region of the life before kvd serves from that
and writes the store anew, in every way of taking it over; without one it says what is wrong and
leaves everything as it is (E, F).
"""
import json
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import KvdFailed, ReplyError, Tap, wait_until  # noqa: E402

PAGE = 4096
LAZY = ('--memory', '64MiB', '--persist', 'lazy', '--lazy-interval', '60s')
DATAERR, UNAVAILABLE = 65, 69


def fill(kvd):
    """3000 durable keys, then as many, a large one and a removal that only the region has."""
    with kvd.connect() as c:
        c.pipeline([('SET', b'a%d' % i, b'v' * 64) for i in range(3000)] + [('KVD.SYNC',)])
        c.pipeline([('SET', b'b%d' % i, b'w' * 64) for i in range(3000)])
        c.pipeline([('SET', 'large', 'z' * 3000000), ('DEL', 'a5')])
    kvd.kill()


def holds(kvd):
    with kvd.connect() as c:
        values = c.pipeline([('GET', b'a%d' % i) for i in range(3000)] +
                            [('GET', b'b%d' % i) for i in range(3000)])
        wanted = [b'v' * 64] * 3000 + [b'w' * 64] * 3000
        wanted[5] = None
        return values == wanted and c.command('DBSIZE') == 6000 and \
            c.command('GET', 'large') == b'z' * 3000000


def state(kvd):
    return json.loads(kvd.kvctl('health', '--json').stdout)['state']


def good(kvd):
    wait_until(lambda: state(kvd) == 'ok', 'a store that is written anew')


# ---- ways of damage ----

def data(kvd):
    return os.path.join(kvd.dir, 'store', 'data.mdb')


def no_meta(path):
    """The two pages that LMDB begins with."""
    with open(path, 'r+b') as file:
        file.write(b'\xff' * 2 * PAGE)


def cut_short(path):
    os.truncate(path, max(os.path.getsize(path) // 2, 3 * PAGE))


def no_roots(path):
    """The roots of the trees: pages whose header is not one."""
    with open(path, 'r+b') as file:
        for meta in (0, PAGE):
            for tree in (0, 1):
                root, = struct.unpack('<Q', os.pread(file.fileno(), 8,
                                                     meta + 16 + 24 + 48 * tree + 40))
                if root < 1 << 40:
                    os.pwrite(file.fileno(), b'\xee' * 64, root * PAGE)


def no_state(path):
    """kvd's own record of what is in the store."""
    with open(path, 'r+b') as file:
        content = file.read()
        at = content.find(b'kvd-sto1')
        while at >= 0:
            os.pwrite(file.fileno(), b'\x99' * 8, at + 16)
            at = content.find(b'kvd-sto1', at + 1)


# ---- a region is kept ----

def in_place(tap, harm, *options):
    name = harm.__name__
    with KeptKvd(*LAZY, *options) as kvd:
        fill(kvd)
        harm(data(kvd))
        blocking = os.path.join(kvd.dir, 'store.new')
        with open(blocking, 'wb'):
            pass  # in the place of the new store
        try:
            kvd.start()
        except KvdFailed as failed:
            tap.ok(False, f'F: {name}: kvd starts: {failed}')
            return
        tap.ok('took over 6000 keys' in kvd.log(), f'F: {name}: the region is taken over')
        tap.ok(holds(kvd), f'F: {name}: and served')
        log = kvd.log()
        tap.ok('the store is damaged: ' in log and 'kvd writes it anew from memory; the region of '
               'the life before has all that was in it' in log, f'{name}: what is wrong is said')
        tap.equal((state(kvd), kvd.kvctl('health').returncode), ('failed', 5),
                  f'E: {name}: until there is another the state is FAILED')
        with kvd.connect() as c:
            tap.ok(isinstance(c.pipeline([('SET', 'late', '1'), ('KVD.SYNC',)])[1], ReplyError),
                   f'E: {name}: nothing is called durable')
            c.command('DEL', 'late')
            os.unlink(blocking)
            good(kvd)
            tap.equal(c.command('KVD.SYNC'), 'OK', f'E: {name}: then everything is durable')
        left = [entry for entry in os.listdir(kvd.dir) if entry.startswith('store.')]
        tap.equal([entry.split('-')[0] for entry in left], ['store.failed'] if options else [],
                  f'{name}: what failed {"stays" if options else "goes"}')
        tap.equal(kvd.kvctl('verify').returncode, 0, f'{name}: memory and store verify')
        kvd.kill()
        kvd.drop_kept()
        kvd.start()
        tap.ok(holds(kvd), f'E: {name}: and a start from the store has everything')


def killed_again(tap):
    with KeptKvd(*LAZY) as kvd:
        fill(kvd)
        cut_short(data(kvd))
        with open(os.path.join(kvd.dir, 'store.new'), 'wb'):
            pass
        for _ in range(2):
            kvd.start()
            tap.ok(holds(kvd) and state(kvd) == 'failed', 'F: again and again')
            kvd.kill()
        os.unlink(os.path.join(kvd.dir, 'store.new'))
        kvd.start()
        good(kvd)
        tap.equal(kvd.stop(), 0, 'E: in the end it is written anew, and kvd ends in order')


def read_out(tap):
    with KeptKvd(*LAZY) as kvd:
        fill(kvd)
        no_meta(data(kvd))
        kvd.start('--memory', '96MiB', '--segment', '1MiB', *LAZY[2:])
        tap.ok(holds(kvd) and state(kvd) == 'ok',
               'F: a region that does not fit is read out, into a new store, too')
        kvd.kill()
        kvd.drop_kept()
        kvd.start()
        tap.ok(holds(kvd), 'E: which has everything')


def storeless(tap):
    """The region grew without the store, so nobody knows what was in that."""
    with KeptKvd('--memory', '64MiB', '--persist', 'lazy') as kvd:
        with kvd.connect() as c:
            c.pipeline([('SET', 'old', '1'), ('KVD.SYNC',)])
        kvd.stop()
        kvd.drop_kept()
        kvd.start('--memory', '64MiB', '--persist', 'memory')
        fill(kvd)
        no_meta(data(kvd))
        kvd.start(*LAZY)
        tap.ok(holds(kvd), 'F: what was only in memory is served')
        tap.equal([entry.split('-')[0] for entry in os.listdir(kvd.dir)
                   if entry.startswith('store.')], ['store.before'],
                  'and a store that it did not come from is put aside')


# ---- none is kept, or it is not good either ----

def refused(tap, kvd, name):
    with open(data(kvd), 'rb') as file:
        before = file.read()
    try:
        kvd.start()
        tap.ok(False, f'E: {name}: kvd does not start')
    except KvdFailed as failed:
        tap.equal(failed.status, UNAVAILABLE if kvd.kept else DATAERR,
                  f'E: {name}: kvd does not start')
        tap.ok('the store is damaged: ' in failed.log and 'restore a backup' in failed.log,
               f'{name}: it says what is wrong, and what helps')
    with open(data(kvd), 'rb') as file:
        tap.ok(file.read() == before, f'E: {name}: nothing is changed')


def cold(tap):
    with KeptKvd(*LAZY) as kvd:
        fill(kvd)
        kvd.drop_kept()
        cut_short(data(kvd))
        refused(tap, kvd, 'no region')


def both(tap):
    with KeptKvd(*LAZY) as kvd:
        fill(kvd)
        cut_short(data(kvd))
        region = kvd.kept['kvd-region'][0]
        table, = struct.unpack('<Q', os.pread(region, 8, 256))
        hit = 0
        for at in range(table, table + (2 << 20), 64):
            word, = struct.unpack('<Q', os.pread(region, 8, at))
            if word and hit < 50:
                hit += os.pwrite(region, struct.pack('<Q', word ^ 0x1234567), at) == 8
        refused(tap, kvd, 'a damaged region')


def of_another_folder(tap):
    """kvd.gen does not say that the region is this store's."""
    with KeptKvd(*LAZY) as kvd:
        fill(kvd)
        cut_short(data(kvd))
        os.unlink(os.path.join(kvd.dir, 'kvd.gen'))
        refused(tap, kvd, 'a folder that tells nothing of the region')


def main():
    tap = Tap()
    for harm in (no_meta, cut_short, no_roots, no_state):
        in_place(tap, harm)
    in_place(tap, cut_short, '--keep-failed-store', 'yes')
    for part in (killed_again, read_out, storeless, cold, both, of_another_folder):
        part(tap)
    tap.done()


main()
