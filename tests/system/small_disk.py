#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A real file system under the store: full, over quota, read-only after an error; and room again.

The mounts are in a mount namespace of this test's own and go with it. What the machine cannot give
(root, loop devices, quotas) is skipped with the reason.
"""
import ctypes
import json
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import KVCTL_PROGRAM, KVD_PROGRAM, Kvd, ReplyError, Tap, wait_until  # noqa: E402
from mounts import (MountedKvd, command, libc, make_btrfs, make_ext4, mount,  # noqa: E402
                    own_namespace)

Q_SETQUOTA = 0x800008 << 8
QIF_BLIMITS = 1
USER = 65534
QUOTA = 6 << 20
VALUE = b'v' * 20000


def health(kvd):
    return kvd.kvctl('health').returncode


def state(kvd):
    return json.loads(kvd.kvctl('health', '--json').stdout)


def fill(connection):
    """Writes until one is not durable. Returns how many were."""
    for i in range(5000):
        if isinstance(connection.command('SET', b'key:%d' % i, VALUE), ReplyError):
            return i
    return None


def recovers(connection):
    wait_until(lambda: not isinstance(connection.command('SET', 'again', 'x'), ReplyError),
               'a durable write')


def holds(tap, kvd, durable):
    kvd.kill()
    kvd.start()
    with kvd.connect() as connection:
        lost = [i for i in range(durable) if connection.command('STRLEN', b'key:%d' % i) !=
                len(VALUE)]
        tap.equal(lost, [], f'E: {durable} that were durable are there after a kill')
        tap.equal(connection.command('GET', 'again'), b'x', 'E: and what came later')


def full(tap):
    kvd = MountedKvd('--persist', 'group', '--memory', '64MiB', start=False)
    with kvd:
        why = mount('-t', 'tmpfs', '-o', 'size=8m,mode=0700', 'none', kvd.dir)
        if why:
            tap.skip('a full file system', why)
            return
        kvd.start()
        with kvd.connect() as connection:
            durable = fill(connection)
            tap.ok(durable and durable > 50, f'E: {durable} writes are durable, then none')
            told = state(kvd)
            tap.equal((told['state'], health(kvd)), ('degraded', 1), f'DEGRADED: {told.get("why")}')
            tap.equal(connection.command('STRLEN', b'key:%d' % durable), len(VALUE),
                      'what is not durable is visible')
            said = subprocess.run([KVCTL_PROGRAM, '--socket', kvd.socket, 'backup'],
                                  capture_output=True, text=True, check=False)
            tap.ok(said.returncode == 1 and 'No space left' in said.stderr,
                   f'a backup fails, and says why: {said.stderr}')
            backups = os.path.join(kvd.dir, 'backup')
            tap.equal(os.listdir(backups) if os.path.isdir(backups) else [], [],
                      'and leaves nothing')
            tap.equal(mount('-o', 'remount,size=64m', kvd.dir), None, 'room')
            recovers(connection)
            tap.equal(health(kvd), 0, 'OK by itself')
            tap.equal(kvd.kvctl('verify').returncode, 0, 'the store is whole')
            tap.equal(kvd.kvctl('backup').returncode, 0, 'a backup succeeds')
        holds(tap, kvd, durable + 1)
        kvd.stop()


class MountedKept(MountedKvd, KeptKvd):
    """Whose region is kept, too."""


def warm(tap):
    """The next life finds its region kept, and not a page of room."""
    with MountedKept('--persist', 'group', '--memory', '64MiB', start=False) as kvd:
        why = mount('-t', 'tmpfs', '-o', 'size=8m,mode=0700', 'none', kvd.dir)
        if why:
            tap.skip('a warm start on a full file system', why)
            return
        kvd.start()
        with kvd.connect() as connection:
            connection.command('SET', 'a', VALUE)
        tap.equal(kvd.stop(), 0, 'a life ends in order')
        filler = os.path.join(kvd.dir, 'filler')
        with open(filler, 'wb', buffering=0) as file:
            try:
                while file.write(b'x' * 4096):
                    pass
            except OSError:
                pass
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(connection.command('STRLEN', 'a'), len(VALUE),
                      'F: on a full file system the next serves what was kept')
            tap.ok(isinstance(connection.command('SET', 'b', VALUE), ReplyError),
                   'E: nothing is called durable')
            tap.equal(state(kvd)['state'], 'degraded', 'DEGRADED')
            os.unlink(filler)
            recovers(connection)
            wait_until(lambda: health(kvd) == 0, 'OK by itself')
        kvd.kill()
        kvd.drop_kept()
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(connection.command('STRLEN', 'b'), len(VALUE), 'E: then it is')
        kvd.stop()


def set_quota(device, bytes_max):
    """None, or why not."""
    blocks = bytes_max // 1024
    limits = struct.pack('=8QI4x', blocks, blocks, 0, 0, 0, 0, 0, 0, QIF_BLIMITS)
    if libc.quotactl(Q_SETQUOTA, device.encode(), USER, limits) == 0:
        return None
    return 'quotactl: ' + os.strerror(ctypes.get_errno())


def quota_ext4(kvd):
    """None, or why there is none; then what sets it, of the user that kvd is to run as."""
    device, why = make_ext4(kvd, 96 << 20, 'usrquota', quotas=True)
    why = why or set_quota(device, QUOTA)
    if not why and subprocess.run(['setpriv', f'--reuid={USER}', '--clear-groups', KVD_PROGRAM,
                                   '--version'], capture_output=True, check=False).returncode != 0:
        why = 'another user cannot run kvd here'
    return why, lambda bytes_max: set_quota(device, bytes_max), USER


def quota_btrfs(kvd):
    """The same of the file system's own accounts, which hold for root as well. There a page that is
    there already needs room to be written again, also that of LMDB's lock file, which is mapped."""
    def limit(bytes_max):
        return command('btrfs', 'qgroup', 'limit', bytes_max, kvd.dir)

    why = make_btrfs(kvd, 256 << 20) or command('btrfs', 'quota', 'enable', kvd.dir)
    return why or limit(QUOTA), limit, os.geteuid()


def quota(tap, make):
    name = make.__name__.replace('quota_', 'a quota of ')
    kvd = MountedKvd('--persist', 'group', '--memory', '64MiB', start=False)
    with kvd:
        try:
            why, limit, user = make(kvd)
        except FileNotFoundError as error:
            why = str(error)
        if why:
            tap.skip(name, why)
            return
        os.chown(kvd.dir, user, -1)
        os.chmod(kvd.root, 0o755)
        if user != os.geteuid():
            os.environ['KVD_WRAPPER'] = f'setpriv --reuid={user} --clear-groups'
        try:
            kvd.start()
            with kvd.connect() as connection:
                durable = fill(connection)
                told = state(kvd)
                tap.ok(durable and told['state'] == 'degraded' and 'quota' in told['why'].lower(),
                       f'{name}: {told["state"]} after {durable}: {told.get("why")}')
                tap.equal(limit(10 * QUOTA), None, 'a larger one')
                recovers(connection)
                tap.equal(health(kvd), 0, 'OK by itself')
                tap.ok('written anew' not in kvd.log(), 'and it is the same store')
            holds(tap, kvd, durable + 1)
            kvd.stop()
        finally:
            os.environ.pop('KVD_WRAPPER', None)


def read_only(tap):
    kvd = MountedKvd('--persist', 'group', '--keep-failed-store', 'yes', start=False)
    with kvd:
        try:
            device, why = make_ext4(kvd, 32 << 20, 'errors=remount-ro')
        except FileNotFoundError as error:
            why = str(error)
        trigger = '' if why else f'/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error'
        if not why and not os.access(trigger, os.W_OK):
            why = 'the kernel cannot be asked for a file system error'
        if why:
            tap.skip('a file system that turns read-only', why)
            return
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(connection.command('SET', 'a', '1'), 'OK', 'E: durable')
            with open(trigger, 'w', encoding='ascii') as file:
                file.write('test')
            reply = connection.command('SET', 'b', '2')
            tap.ok(isinstance(reply, ReplyError) and 'IOERR' in str(reply),
                   f'E: read-only: nothing is called durable: {reply}')
            told = state(kvd)
            tap.equal((told['state'], health(kvd)), ('failed', 5), f'FAILED: {told.get("why")}')
            tap.equal(connection.command('MGET', 'a', 'b'), [b'1', b'2'], 'memory serves on')
            said = kvd.kvctl('verify', '--json')
            tap.equal((said.returncode, json.loads(said.stdout)['store']), (5, 'failed'),
                      'kvctl verify says that the store is not trusted')
            tap.ok(kvd.kvctl('backup').returncode == 1, 'a backup says that it cannot be')
        kvd.kill()


def kept(tap):
    """--keep-failed-store"""
    with Kvd('--persist', 'group', '--keep-failed-store', 'yes') as kvd:
        with kvd.connect() as connection:
            connection.command('SET', 'a', '1')
            os.rename(os.path.join(kvd.dir, 'store/data.mdb'), os.path.join(kvd.dir, 'store/moved'))
            connection.command('SET', 'again', 'x')
            recovers(connection)
        names = [name for name in os.listdir(kvd.dir) if name.startswith('store.failed-')]
        tap.equal(len(names), 1, 'the store that failed is kept where that is asked for')
        kvd.kill()
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(connection.command('MGET', 'a', 'again'), [b'1', b'x'], 'E: all is there')


def main():
    tap = Tap()
    kept(tap)
    why = own_namespace()
    if why:
        tap.skip('file systems of our own', why)
    else:
        full(tap)
        warm(tap)
        quota(tap, quota_ext4)
        quota(tap, quota_btrfs)
        read_only(tap)
    tap.done()


main()
