#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A device that cannot read what it was given: kvd touches a page of its mapped store that is lost.

The device is a file in a file system of its own that is cut short, which then has no room to grow
again: what is beyond the cut can neither be read nor written, until the device is mended. kvd lives
on, is FAILED, and writes the store anew by itself (E).
"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import ReplyError, Tap, wait_until  # noqa: E402
from mounts import MountedKvd, libc, make_ext4, mount, own_namespace  # noqa: E402

KEYS = 1500
VALUE = b'v' * 20000
SIZE = 128 << 20
TRIES = 300


class DeviceKvd(MountedKvd):
    """With what is below its file system mounted, too."""

    def cleanup(self):
        self.kill()
        if os.path.ismount(self.dir):
            subprocess.run(['umount', '--lazy', self.dir], check=True)
        device = os.path.join(self.root, 'device')
        if os.path.ismount(device):
            subprocess.run(['umount', '--lazy', device], check=True)
        super().cleanup()


def state(kvd):
    return json.loads(kvd.kvctl('health', '--json').stdout)


def begin_device(kvd):
    """None, or why not."""
    device = os.path.join(kvd.root, 'device')
    os.mkdir(device)
    why = mount('-t', 'tmpfs', '-o', f'size={SIZE + (8 << 20)},mode=0700', 'none', device)
    if not why:
        # No journal: what it does at its own time would depend on when that is.
        _, why = make_ext4(kvd, SIZE, 'errors=continue', features=('-b', '4096', '-O',
                                                                    '^has_journal'), folder=device)
    return why


def cut_device(kvd):
    """What was written last cannot be read any more; and the file system below has no room."""
    device = os.path.join(kvd.root, 'device')
    image = os.path.join(device, 'image')
    data = os.path.join(kvd.dir, 'store', 'data.mdb')
    with open(data, 'rb') as file:
        libc.syncfs(file.fileno())  # of this device: that of others may take its time
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    said = subprocess.run(['filefrag', '-e', data], capture_output=True, text=True, check=False)
    lines = [line.replace(':', ' ').replace('..', ' ').split() for line in said.stdout.split('\n')
             if line.strip()[:1].isdigit()]
    start = min(int(words[3]) for words in lines) * 4096
    os.truncate(image, start)
    filler = os.path.join(device, 'filler')
    try:
        with open(filler, 'wb', buffering=0) as file:
            while file.write(b'x' * (1 << 20)):
                pass
    except OSError:
        pass
    return filler, image


def missed(kvd, connection):
    """Writes on until kvd misses a page, at most so often; kvd's state then."""
    for i in range(TRIES):
        told = state(kvd)
        if told['state'] == 'failed':
            break
        connection.command('SET', b'key:%d' % (i % KEYS), b'new' + VALUE)
    return told


def lost(tap, kvd):
    with kvd.connect() as c:
        c.pipeline([('SET', b'key:%d' % i, VALUE) for i in range(KEYS)])
        tap.equal(c.command('KVD.SYNC'), 'OK', 'E: all is durable')
        pid = json.loads(c.command('KVD.STATS'))['pid']
        filler, image = cut_device(kvd)
        tap.equal(c.command('CONFIG', 'SET', 'compact-floor', '0', 'compact-ratio', '110'), 'OK',
                  'what was written is to be read again')
        for i in range(KEYS):
            reply = c.command('SET', b'key:%d' % i, b'new' + VALUE)
            if isinstance(reply, ReplyError):
                break
        tap.ok(isinstance(reply, ReplyError) and 'IOERR' in str(reply),
               f'E: then nothing is called durable: {reply}')
        told = missed(kvd, c)
        if told['state'] != 'failed':
            # What ext4 cannot read of its own tells it that it is full.
            tap.skip('a page that was mapped is lost', f'nothing asked for it: {told.get("why")}')
            return
        tap.ok(True, f'FAILED: {told.get("why")}')
        tap.ok('FAILED' in kvd.log() and 'a page of its files is not there' in kvd.log(),
               'a page that was mapped is lost')
        tap.equal(c.command('STRLEN', b'key:%d' % (KEYS - 1)), len(VALUE), 'memory serves on')
        os.unlink(filler)
        os.truncate(image, SIZE)
        wait_until(lambda: state(kvd)['state'] == 'ok', 'a store that is written anew')
        tap.equal(c.command('SET', 'late', '1'), 'OK', 'E: once the device is mended it is durable')
        tap.equal(json.loads(c.command('KVD.STATS'))['pid'], pid, 'the same kvd all the time')
    tap.equal(kvd.kvctl('verify').returncode, 0, 'memory and store verify')
    kvd.kill()
    kvd.start()
    with kvd.connect() as c:
        values = c.pipeline([('STRLEN', b'key:%d' % i) for i in range(KEYS)])
        tap.ok(all(value >= len(VALUE) for value in values), 'E: the store has everything')
    kvd.stop()


def main():
    tap = Tap()
    why = own_namespace()
    if why:
        tap.skip('a device that fails', why)
    else:
        with DeviceKvd('--persist', 'group', '--memory', '128MiB', '--compact-floor', '1GiB',
                       start=False) as kvd:
            try:
                why = begin_device(kvd)
            except FileNotFoundError as error:
                why = str(error)
            if why:
                tap.skip('a device that fails', why)
            else:
                kvd.start()
                lost(tap, kvd)
    tap.done()


main()
