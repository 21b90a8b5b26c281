#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A store that cannot be written when kvd starts, or that is cut short or removed while it serves.

With the region of the life before kvd serves as it would if that had come in mid-life; a start that
fails all the same takes nothing from whoever keeps the region (E, F). The full disk is a limit on
the size of files, which leaves room for the two pages that LMDB begins with.
"""
import json
import os
import resource
import shutil
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import Kvd, ReplyError, Tap, wait_until  # noqa: E402

FULL = 8192
COMMON = ('--memory', '64MiB', '--persist')
LAZY = (*COMMON, 'lazy', '--lazy-interval', '60s')
COUNT = 3000


def write(connection, prefix):
    connection.pipeline([('SET', f'{prefix}{i}', 'v' * 64) for i in range(COUNT)])


def holds(connection, prefixes):
    values = connection.pipeline([('GET', f'{p}{i}') for p in prefixes for i in range(COUNT)])
    return values == [b'v' * 64] * len(prefixes) * COUNT


def state(kvd):
    return json.loads(kvd.kvctl('health', '--json').stdout)['state']


def room(pid, has_room):
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if has_room else FULL, hard))


def child(connection):
    return json.loads(connection.command('KVD.STATS'))['pid']


def killed(tap):
    """The next life finds a full disk, and what was acknowledged is in the region alone."""
    with Kvd('--supervise', *LAZY) as kvd:
        with kvd.connect() as c:
            c.pipeline([('SET', 'durable', '1'), ('KVD.SYNC',)])
            write(c, 'a')
            pid = child(c)
        room(kvd.pid, False)  # of the next child
        os.kill(pid, signal.SIGKILL)
        kvd.wait_ready()
        with kvd.connect() as c:
            tap.ok(child(c) != pid and holds(c, 'a'), 'F: another kvd serves what was kept')
            wait_until(lambda: state(kvd) == 'degraded', 'what is left over, tried at once')
            tap.ok(True, 'E: DEGRADED, not after the interval of the policy')
            write(c, 'b')
            tap.ok(isinstance(c.command('KVD.SYNC'), ReplyError), 'E: nothing is called durable')
            os.kill(child(c), signal.SIGKILL)
        kvd.wait_ready()
        with kvd.connect() as c:
            tap.ok(holds(c, 'ab'), 'F: and once more')
            room(child(c), True)
            wait_until(lambda: state(kvd) == 'ok', 'room')
            tap.equal(c.command('KVD.SYNC'), 'OK', 'E: with room everything is durable')
        room(kvd.pid, True)
        tap.equal(kvd.stop(), 0, 'kvd stops')
        kvd.start()
        with kvd.connect() as c:
            tap.ok(holds(c, 'ab'), 'E: and a start from the store has everything')


def full_start(kvd):
    """Starts it with a full disk."""
    os.environ['KVD_WRAPPER'] = f'prlimit --fsize={FULL}:'
    try:
        kvd.start()
    finally:
        del os.environ['KVD_WRAPPER']


def last_version(connection):
    info = connection.command('INFO').decode()
    return int(info.split('applied_seq:')[1].split()[0])


def ended(tap):
    """A life that ended in order must be called begun again, or versions could be repeated."""
    with KeptKvd(*LAZY) as kvd:
        with kvd.connect() as c:
            write(c, 'a')
        tap.equal(kvd.stop(), 0, 'kvd stops')
        full_start(kvd)
        with kvd.connect() as c:
            tap.ok(holds(c, 'a') and 'took over' in kvd.log(), 'F: a full disk ends no warm start')
            wait_until(lambda: state(kvd) == 'degraded', 'the disk to be found full')
            before = last_version(c)
        tap.equal(kvd.stop(), 0, 'E: a stop without a write loses nothing')
        full_start(kvd)
        with kvd.connect() as c:
            tap.equal(last_version(c), before, 'F: nor do versions jump')
            write(c, 'b')
            tap.ok(isinstance(c.command('KVD.SYNC'), ReplyError), 'E: nothing is called durable')
            room(kvd.pid, True)
            wait_until(lambda: state(kvd) == 'ok', 'room')
            tap.equal(c.command('KVD.SYNC'), 'OK', 'E: with room everything is')
        kvd.kill()
        kvd.drop_kept()
        kvd.start()
        with kvd.connect() as c:
            tap.ok(holds(c, 'ab') and 'took over' not in kvd.log().split('serves')[-2],
                   'E: and a start from the store has everything')


def not_repeated(tap):
    """The store still says that the life before ended in order, when this one is killed."""
    with KeptKvd(*LAZY) as kvd:
        with kvd.connect() as c:
            write(c, 'a')
        kvd.stop()
        full_start(kvd)
        with kvd.connect() as c:
            write(c, 'b')
            seen = last_version(c)
        kvd.kill()
        kvd.drop_kept()
        kvd.start()
        with kvd.connect() as c:
            tap.ok(holds(c, 'a'), 'E: what was durable is there')
            c.command('SET', 'next', '1')
            tap.ok(last_version(c) > seen, 'no version is handed out twice')


# ---- under a kvd that serves ----

def data(kvd):
    return os.path.join(kvd.dir, 'store', 'data.mdb')


def cut_short(kvd):
    os.truncate(data(kvd), os.path.getsize(data(kvd)) // 4 // 4096 * 4096)


def cut_away(kvd):
    os.truncate(data(kvd), 0)


def removed(kvd):
    os.unlink(data(kvd))


def folder_removed(kvd):
    shutil.rmtree(os.path.join(kvd.dir, 'store'))


def serving(tap, harm):
    name = harm.__name__
    with Kvd(*COMMON, 'group') as kvd:
        with kvd.connect() as c:
            write(c, 'a')
            harm(kvd)
            said = c.command('SET', 'late', '1')
            tap.ok(isinstance(said, ReplyError) and 'IOERR' in str(said),
                   f'E: {name}: what is not durable is not called so: {said}')
            wait_until(lambda: state(kvd) == 'ok', 'a store that is written anew')
            write(c, 'b')
            tap.ok(holds(c, 'ab'), f'F: {name}: kvd serves on')
        tap.equal(kvd.kvctl('verify').returncode, 0, f'{name}: memory and store verify')
        kvd.kill()
        kvd.start()
        with kvd.connect() as c:
            tap.ok(holds(c, 'ab'), f'E: {name}: the store has everything')


def stopping(tap, harm):
    """Nothing is to be written any more, and what was is not there."""
    name = harm.__name__
    with Kvd(*COMMON, 'group') as kvd:
        with kvd.connect() as c:
            write(c, 'a')
        harm(kvd)
        tap.equal(kvd.stop(), 0, f'E: {name}: a stop looks once more')
        kvd.start()
        with kvd.connect() as c:
            tap.ok(holds(c, 'a'), f'E: {name}: and had written it anew')


def too_late(tap):
    """A kvd that dies with its file cut short: the next finds that before LMDB does."""
    with Kvd('--supervise', *COMMON, 'group') as kvd:
        with kvd.connect() as c:
            write(c, 'a')
            pid = child(c)
        os.kill(pid, signal.SIGSTOP)
        cut_short(kvd)
        os.kill(pid, signal.SIGBUS)
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: 'starts again' in kvd.log(), 'its death')
        kvd.wait_ready()
        wait_until(lambda: state(kvd) == 'ok', 'a store that is written anew')
        with kvd.connect() as c:
            tap.ok(holds(c, 'a'), 'F: the next serves what was kept')
            tap.equal(c.command('SET', 'late', '1'), 'OK', 'E: and writes')
        log = kvd.log()
        tap.ok('data.mdb is cut short' in log and log.count('starts again') == 1,
               'it says what is wrong, and lives')
        tap.equal(kvd.stop(), 0, 'kvd stops')


def main():
    tap = Tap()
    killed(tap)
    ended(tap)
    not_repeated(tap)
    for harm in (cut_short, cut_away, removed, folder_removed):
        serving(tap, harm)
        stopping(tap, harm)
    too_late(tap)
    tap.done()


main()
