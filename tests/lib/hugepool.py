# SPDX-License-Identifier: MIT
"""Huge pages for a test, of the system's pool, without taking any away from anybody.

The system may make so many more while the test runs, on demand. A child puts the setting back when
the test ends, however it does. One test at a time, of whichever tree.
"""
import contextlib
import fcntl
import os

SETTING = '/proc/sys/vm/nr_overcommit_hugepages'
FOLDER = '/sys/kernel/mm/hugepages/hugepages-2048kB'
PAGE = 2 << 20


def count(name):
    with open(f'{FOLDER}/{name}_hugepages', encoding='ascii') as file:
        return int(file.read())


def available():
    if not os.path.isdir(FOLDER):
        return 0
    more = max(count('nr_overcommit') - count('surplus'), 0)
    return more + max(count('free') - count('resv'), 0)


def put(setting, pages):
    os.lseek(setting, 0, os.SEEK_SET)
    os.write(setting, b'%d\n' % pages)


def _guard(setting, was, end):
    """Puts the setting back when nobody has the other end of the pipe any more."""
    os.setsid()
    os.read(end, 1)
    put(setting, was)
    os._exit(0)


@contextlib.contextmanager
def pages(more):
    """The pages may be had inside; gives None, or why not."""
    try:
        setting = os.open(SETTING, os.O_RDWR)
    except OSError as error:
        yield f'{SETTING}: {error.strerror}'
        return
    fcntl.flock(setting, fcntl.LOCK_EX)
    was = int(os.read(setting, 32))
    end, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        _guard(setting, was, end)
    os.close(end)
    try:
        put(setting, was + more)
        yield None if available() >= more else f'the pool of huge pages has {available()}'
    finally:
        os.close(held)
        os.waitpid(child, 0)
        os.close(setting)
