# SPDX-License-Identifier: MIT
"""File systems of a test's own, in a mount namespace that goes with it.

What the machine cannot give (root, loop devices) comes back as the reason, for a skip.
"""
import ctypes
import os
import subprocess

from kvdtest import Kvd

CLONE_NEWNS = 0x20000
libc = ctypes.CDLL(None, use_errno=True)


def command(*args):
    """None, or why it was not possible."""
    said = subprocess.run([str(arg) for arg in args], capture_output=True, text=True, check=False)
    return None if said.returncode == 0 else said.stderr.strip().split('\n')[0]


def mount(*args):
    return command('mount', *args)


def own_namespace():
    if os.geteuid() != 0:
        return 'needs root'
    if libc.unshare(CLONE_NEWNS) != 0:
        return 'unshare: ' + os.strerror(ctypes.get_errno())
    return mount('--make-rprivate', '/')


class MountedKvd(Kvd):
    """A kvd with a file system on its folder, which can be removed only without it."""

    def cleanup(self):
        self.kill()
        if os.path.ismount(self.dir):
            subprocess.run(['umount', '--lazy', self.dir], check=True)
        super().cleanup()


def make_ext4(kvd, size, *options, quotas=False, features=(), folder=None):
    """A file system in a file, mounted at kvd's folder. (device or None, why not)"""
    image = os.path.join(folder or kvd.root, 'image')
    with open(image, 'wb') as file:
        file.truncate(size)
    features = ['-O', 'quota', '-E', 'quotatype=usrquota'] if quotas else features
    made = subprocess.run(['mkfs.ext4', '-q', *features, image], capture_output=True, text=True,
                          check=False)
    if made.returncode != 0:
        return None, made.stderr.strip()
    why = mount('-o', ','.join(('loop',) + options), image, kvd.dir)
    if why:
        return None, why
    with open('/proc/self/mounts', encoding='ascii') as mounts:
        return next(line.split()[0] for line in mounts if line.split()[1] == kvd.dir), None


def make_btrfs(kvd, size):
    """Another kind, whose quotas are no part of the kernel's configuration. None, or why not."""
    image = os.path.join(kvd.root, 'image')
    with open(image, 'wb') as file:
        file.truncate(size)
    return command('mkfs.btrfs', '-q', image) or mount('-o', 'loop', image, kvd.dir)
