#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The data folder is removed under a kvd that serves: it is made anew, with all that was in memory.

One that was only moved away, and one that somebody else has put there, are left alone (E).
"""
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, KvdFailed, ReplyError, Tap, wait_until  # noqa: E402
from mounts import MountedKvd, mount, own_namespace  # noqa: E402

COUNT = 2000


def fill(connection):
    connection.pipeline([('SET', f'k{i}', 'v' * 64) for i in range(COUNT)])


def holds(connection):
    values = connection.pipeline([('GET', f'k{i}') for i in range(COUNT)])
    return values == [b'v' * 64] * COUNT


def is_refused(reply):
    return isinstance(reply, ReplyError) and 'IOERR' in str(reply)


def state(kvd):
    return json.loads(kvd.kvctl('health', '--json').stdout)['state']


def recovers(connection):
    wait_until(lambda: connection.command('SET', 'again', '1') == 'OK', 'a durable write')


def generation(path):
    with open(path, 'rb') as file:
        return int.from_bytes(file.read(8), sys.byteorder)


def exchange(one, other):
    """Each gets the other's name, with no moment in between without one."""
    libc = ctypes.CDLL(None, use_errno=True)
    at_fdcwd, rename_exchange = -100, 2
    if libc.renameat2(at_fdcwd, one.encode(), at_fdcwd, other.encode(), rename_exchange) != 0:
        raise OSError(ctypes.get_errno(), 'renameat2')


def unwritten(tap, policy):
    """Nobody writes, and still who comes after it finds kvd."""
    with Kvd('--persist', policy) as kvd:
        with kvd.connect() as c:
            fill(c)
            shutil.rmtree(kvd.dir)
            wait_until(lambda: os.path.exists(os.path.join(kvd.dir, 'kvd.gen')), 'kvd.gen')
            tap.ok(holds(c), f'{policy}: removed while nobody writes: memory serves')
        with kvd.connect() as c:
            tap.ok(holds(c), 'and who comes finds its socket')
            tap.ok('was removed; kvd made it anew' in kvd.log(), 'the log tells')
            shutil.rmtree(kvd.dir)
            wait_until(lambda: os.path.exists(os.path.join(kvd.dir, 'kvd.gen')), 'kvd.gen')
            tap.equal(c.command('SET', 'late', '1'), 'OK', 'and so the next time')


def socket_removed(tap):
    with Kvd('--persist', 'memory') as kvd:
        with kvd.connect() as c:
            fill(c)
            os.unlink(kvd.socket)
            wait_until(lambda: os.path.exists(kvd.socket), 'the socket')
            with kvd.connect() as late:
                tap.ok(holds(late), 'a socket that was removed is made anew')
            tap.ok(holds(c), 'and who was there before stays')
        tap.ok('the socket' in kvd.log() and 'made it anew' in kvd.log(), 'the log tells')


def not_made(tap):
    """Something else stands in its place: the reason is logged, and it is tried until that goes."""
    with Kvd(start=False) as kvd:
        kvd.start('--persist', 'memory', '--socket', os.path.join(kvd.root, 'kvd.sock'))
        theirs = os.path.join(kvd.root, 'theirs')
        os.mkdir(theirs)
        with open(os.path.join(theirs, 'file'), 'wb'):
            pass
        exchange(theirs, kvd.dir)
        shutil.rmtree(theirs)
        wait_until(lambda: 'what stands in its place is not empty' in kvd.log(), 'the log to tell')
        tap.equal(os.listdir(kvd.dir), ['file'], "memory: what is somebody's is left alone")
        os.unlink(os.path.join(kvd.dir, 'file'))
        wait_until(lambda: os.path.exists(os.path.join(kvd.dir, 'kvd.gen')), 'kvd.gen')
        tap.equal(kvd.log().count('what stands in its place is not empty'), 1, 'told once')


def removed(tap):
    with Kvd('--persist', 'group') as kvd:
        with kvd.connect() as c:
            fill(c)
            word = generation(os.path.join(kvd.dir, 'kvd.gen'))
            with open(os.path.join(kvd.dir, 'kvd.gen'), 'rb') as old:
                shutil.rmtree(kvd.dir)
                tap.ok(is_refused(c.command('SET', 'late', '1')),
                       'E: the folder is removed: nothing is durable')
                recovers(c)
                wait_until(lambda: os.path.exists(os.path.join(kvd.dir, 'kvd.gen')), 'kvd.gen')
                wait_until(lambda: int.from_bytes(os.pread(old.fileno(), 8, 0), sys.byteorder) ==
                           word + 1, 'the old kvd.gen to say that it is over')
            tap.equal(generation(os.path.join(kvd.dir, 'kvd.gen')), word, 'the new one goes on')
        tap.equal(os.stat(kvd.dir).st_mode & 0o777, 0o700, 'it is made anew, for kvd alone')
        with kvd.connect() as c:
            tap.ok(holds(c), 'and who comes finds its socket')
            tap.equal(kvd.kvctl('health').returncode, 0, 'OK by itself')
            tap.ok('was removed; kvd made it anew' in kvd.log(), 'the log tells')
        with open(os.path.join(kvd.dir, 'kvd.lock'), 'r+b') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                tap.ok(False, 'the new folder is locked')
            except BlockingIOError:
                tap.ok(True, 'the new folder is locked')
        other = Kvd('--persist', 'group', '--socket', os.path.join(kvd.root, 'other.sock'),
                    start=False, directory=kvd.dir)
        try:
            other.start()
            tap.ok(False, 'another kvd is refused')
        except KvdFailed as failed:
            tap.ok('in use by another kvd' in failed.log, 'another kvd is refused')
        tap.equal(kvd.kvctl('verify').returncode, 0, 'memory and store verify')
        kvd.kill()
        kvd.start()
        with kvd.connect() as c:
            tap.ok(holds(c) and c.command('GET', 'late') == b'1', 'E: the store has everything')
        shutil.rmtree(kvd.dir)
        tap.equal(kvd.stop(), 0, 'E: removed while nobody writes: the stop makes it anew')
        kvd.start()
        with kvd.connect() as c:
            tap.ok(holds(c), 'E: with everything')


def someone_elses(tap):
    """What stands in its place is not empty, or not of the same file system; then it goes."""
    with Kvd(start=False) as kvd:
        kvd.start('--persist', 'group', '--socket', os.path.join(kvd.root, 'kvd.sock'))
        with kvd.connect() as c:
            fill(c)
            theirs = os.path.join(kvd.root, 'theirs')
            with Kvd('--persist', 'group') as other:
                other.stop()
                shutil.copytree(other.dir, theirs)
            exchange(theirs, kvd.dir)  # at once, or kvd makes an empty one first
            before = sorted(os.listdir(kvd.dir))
            shutil.rmtree(theirs)
            tap.ok(is_refused(c.command('SET', 'late', '1')), 'E: nothing is durable')
            wait_until(lambda: 'is not empty' in kvd.kvctl('health').stdout.decode(),
                       'the data of another kvd to be found there')
            tap.equal((state(kvd), sorted(os.listdir(kvd.dir))), ('failed', before),
                      "another kvd's data is left alone: FAILED")
            tap.ok('kvctl dump' in kvd.kvctl('health').stdout.decode(), 'and what helps is said')
            for name in before:
                path = os.path.join(kvd.dir, name)
                (shutil.rmtree if os.path.isdir(path) else os.unlink)(path)
            recovers(c)
            tap.ok('store' in os.listdir(kvd.dir) and state(kvd) == 'ok', 'E: an empty one is used')
        kvd.kill()
        kvd.start()
        with kvd.connect() as c:
            tap.ok(holds(c), 'E: with everything')


def another_file_system(tap):
    """What was mounted is not there any more: nothing is written to what is below."""
    why = own_namespace()
    if why:
        tap.skip('a file system that is unmounted', why)
        return
    with MountedKvd(start=False) as kvd:
        above = os.path.join(kvd.root, 'above')
        os.mkdir(above)
        why = mount('-t', 'tmpfs', 'none', above)
        if why:
            tap.skip('a file system that is unmounted', why)
            return
        folder = os.path.join(above, 'data')
        kvd.start('--persist', 'group', '--dir', folder, '--socket',
                  os.path.join(kvd.root, 'kvd.sock'))
        kvd.socket = os.path.join(kvd.root, 'kvd.sock')
        with kvd.connect() as c:
            fill(c)
            os.kill(kvd.pid, signal.SIGSTOP)  # or it makes another one in between
            shutil.rmtree(folder)
            subprocess.run(['umount', '--lazy', above], check=True)
            os.kill(kvd.pid, signal.SIGCONT)
            tap.ok(is_refused(c.command('SET', 'late', '1')), 'E: nothing is durable')
            wait_until(lambda: 'another file system' in kvd.kvctl('health').stdout.decode(),
                       'that to be found')
            tap.equal(os.listdir(above), [], 'nothing is written to what is below')
        kvd.kill()


def odd_files(tap):
    """Where a file of kvd's should be stands a pipe, or a link to somebody's file: the start is
    refused, which names it, and when it has gone all is there."""
    with Kvd('--persist', 'group') as kvd:
        with kvd.connect() as c:
            fill(c)
        kvd.stop()
        victim = os.path.join(kvd.root, 'victim')
        with open(victim, 'wb') as file:
            file.write(b'not kvd\'s')
        for name, kind in (('store/lock.mdb', 'link'), ('store/lock.mdb', 'pipe'),
                           ('store/data.mdb', 'pipe'), ('kvd.lock', 'pipe'), ('kvd.gen', 'pipe'),
                           ('store.ready', 'pipe'), ('store.ready', 'link')):
            path = os.path.join(kvd.dir, name)
            is_there = os.path.lexists(path)
            if is_there:
                os.rename(path, path + '.away')
            if kind == 'pipe':
                os.mkfifo(path)
            else:
                os.symlink(victim, path)
            said = len(kvd.log())
            try:
                kvd.start()
                text = 'it started'
                kvd.kill()
            except KvdFailed:
                text = kvd.log()[said:]
            tap.ok(os.path.basename(name) in text and 'move' in text and 'away' in text,
                   f'H: {name} is a {kind}: {text.strip()[-200:]}')
            os.unlink(path)
            if is_there:
                os.rename(path + '.away', path)
        with open(victim, 'rb') as file:
            tap.equal(file.read(), b'not kvd\'s', 'H: what a link names is not touched')
        kvd.start()
        with kvd.connect() as c:
            tap.ok(holds(c), 'E: and nothing is lost')


def main():
    tap = Tap()
    odd_files(tap)
    removed(tap)
    for policy in ('memory', 'lazy'):
        unwritten(tap, policy)
    not_made(tap)
    socket_removed(tap)
    someone_elses(tap)
    another_file_system(tap)
    tap.done()


main()
