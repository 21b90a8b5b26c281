#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A store that cannot be written, and one that is gone: what kvd says of it, and that it recovers.

Who waits for durability is told -IOERR, memory serves on, INFO, KVD.STATS, the log and kvctl health
name the state, and when the cause has passed everything is in the store (E).
"""
import json
import os
import resource
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, ReplyError, Tap, wait_until  # noqa: E402

KEYS = 300


def states(kvd, connection):
    info = connection.command('INFO', 'persistence')
    lines = dict(line.split(b':', 1) for line in bytes(info).split(b'\r\n') if b':' in line)
    stats = json.loads(bytes(connection.command('KVD.STATS')))
    health = kvd.kvctl('health')
    told = json.loads(kvd.kvctl('health', '--json').stdout)
    return (lines[b'persist_state'].decode(), stats['state'], told['state'], health.returncode,
            health.stdout.split(b':')[0].strip().decode())


def write(connection, name):
    return connection.command('SET', name, b'v' * 100)


def is_refused(reply):
    return isinstance(reply, ReplyError) and str(reply).startswith('IOERR not durable')


def recovers(connection, name):
    """Each write that is not durable is answered when an attempt has failed."""
    wait_until(lambda: not isinstance(write(connection, name), ReplyError), 'a durable write')


def fill(connection):
    replies = connection.pipeline([('SET', b'key:%d' % i, b'x' * 1000) for i in range(KEYS)])
    return not any(isinstance(reply, ReplyError) for reply in replies)


def holds(tap, kvd, names, what):
    kvd.kill()
    kvd.start()
    with kvd.connect() as connection:
        tap.equal([connection.command('EXISTS', name) for name in names], [1] * len(names), what)
        tap.equal(connection.command('DBSIZE'), KEYS + len(names), 'and all the others')


def no_room(tap):
    with Kvd('--persist', 'group') as kvd:
        with kvd.connect() as connection:
            tap.ok(fill(connection), 'writes are durable')
            tap.equal(states(kvd, connection), ('ok', 'ok', 'ok', 0, 'OK'), 'the state is OK')
            hard = resource.prlimit(kvd.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(kvd.pid, resource.RLIMIT_FSIZE, (4096, hard))
            tap.ok(is_refused(write(connection, 'a')), 'E: no room: a write is not called durable')
            tap.equal(connection.command('STRLEN', 'a'), 100, 'it is visible all the same')
            tap.equal(states(kvd, connection), ('degraded', 'degraded', 'degraded', 1, 'DEGRADED'),
                      'the state is DEGRADED, everywhere')
            resource.prlimit(kvd.pid, resource.RLIMIT_FSIZE, (hard, hard))
            recovers(connection, 'b')
            tap.equal(states(kvd, connection), ('ok', 'ok', 'ok', 0, 'OK'),
                      'with room the state is OK again')
        tap.ok('DEGRADED: ' in kvd.log() and 'can be written again' in kvd.log(), 'the log tells')
        holds(tap, kvd, ('a', 'b'), 'E: both are there after a kill')


def vanished(tap):
    with Kvd('--persist', 'group') as kvd:
        fresh = os.path.join(kvd.dir, 'store.new')
        with kvd.connect() as connection:
            fill(connection)
            with open(fresh, 'wb'):
                pass  # in the place of the new store
            shutil.rmtree(os.path.join(kvd.dir, 'store'))
            tap.ok(is_refused(write(connection, 'a')),
                   'E: the store is removed: a write is not called durable')
            tap.equal(connection.command('STRLEN', 'a'), 100, 'it is visible all the same')
            tap.equal(states(kvd, connection), ('failed', 'failed', 'failed', 5, 'FAILED'),
                      'the state is FAILED, everywhere')
            tap.ok(is_refused(write(connection, 'a')), 'E: so is the next')
            os.unlink(fresh)
            recovers(connection, 'b')
            tap.equal(states(kvd, connection), ('ok', 'ok', 'ok', 0, 'OK'),
                      'it is written anew: the state is OK again')
            stats = json.loads(bytes(connection.command('KVD.STATS')))
            tap.equal(stats['store_renewals'], 1, 'once')
        tap.ok('FAILED: ' in kvd.log() and 'written anew from memory' in kvd.log(), 'the log tells')
        tap.equal(sorted(name for name in os.listdir(kvd.dir) if name.startswith('store')),
                  ['store'], 'nothing else is left in the folder')
        holds(tap, kvd, ('a', 'b'), 'E: both are there after a kill')
        tap.equal(kvd.stop(), 0, 'it ends in order')
    tap.equal(kvd.kvctl('health').returncode, 3, 'kvctl health without a kvd: unreachable')


def folder_gone(tap):
    """The data folder itself: what is true is said, and what helps."""
    with Kvd(start=False) as kvd:
        kvd.start('--persist', 'group', '--socket', os.path.join(kvd.root, 'kvd.sock'))
        with kvd.connect() as connection:
            fill(connection)
            aside = kvd.dir + '.aside'
            os.rename(kvd.dir, aside)
            tap.ok(is_refused(write(connection, 'a')), 'E: the folder is gone: nothing is durable')
            said = kvd.kvctl('health').stdout.decode()
            tap.ok('the data folder was removed' in said and 'kvctl dump' in said,
                   f'kvctl health says so: {said}')
            os.mkdir(kvd.dir)
            wait_until(lambda: 'was replaced' in kvd.kvctl('health').stdout.decode(),
                       'the folder to be found replaced')
            tap.ok('kvctl dump' in kvd.kvctl('health').stdout.decode(),
                   'one of the same name is another one')
            tap.equal(os.listdir(kvd.dir), [], 'which kvd leaves alone')
            os.rmdir(kvd.dir)
            os.rename(aside, kvd.dir)
            recovers(connection, 'b')
            os.rename(kvd.dir, aside)
            before = len(kvd.log())
        tap.equal(kvd.stop(), 74, 'a stop without it fails')
        said = kvd.log()[before:]
        tap.ok('the data folder was removed' in said and 'is not in its store any more' in said and
               'dmesg' not in said, f'and tells what is lost: {said}')
        os.rename(aside, kvd.dir)


def gone_at_stop(tap):
    """The store is removed while nobody writes: a stop finds that, and writes it anew."""
    with Kvd('--persist', 'group') as kvd:
        with kvd.connect() as connection:
            fill(connection)
        shutil.rmtree(os.path.join(kvd.dir, 'store'))
        tap.equal(kvd.stop(), 0, 'it ends in order')
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(connection.command('DBSIZE'), KEYS, 'E: and nothing is lost')


def main():
    tap = Tap()
    no_room(tap)
    folder_gone(tap)
    gone_at_stop(tap)
    vanished(tap)
    tap.done()


main()
