#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""zero-freed: what removed and replaced values were cannot be found in the shared memory once it
came free. Looked for as a client may, through a mapping of the region (H).
"""
import mmap
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Connection, Kvd, Tap, wait_until  # noqa: E402

SECRET = b'kvd-secret-%08d'
KEYS = 3000
LARGE = 900000


def attach(kvd):
    """A client's descriptor of the region; the connection holds its place among the readers."""
    connection = Connection(kvd.socket)
    connection.send(connection.encode('KVD.ATTACH'))
    _, fds, _, _ = socket.recv_fds(connection.sock, 65536, 16)
    region = max(fds, key=lambda fd: os.fstat(fd).st_size)
    for fd in fds:
        if fd != region:
            os.close(fd)
    return connection, region


def found(region, what):
    """How often it stands in the region's pages that there are."""
    at, count = 0, 0
    while True:
        try:
            at = os.lseek(region, at, os.SEEK_DATA)
        except OSError:
            return count
        end = os.lseek(region, at, os.SEEK_HOLE)
        start = at - at % mmap.ALLOCATIONGRANULARITY
        with mmap.mmap(region, end - start, mmap.MAP_SHARED, mmap.PROT_READ, offset=start) as data:
            place = data.find(what)
            while place >= 0:
                count += 1
                place = data.find(what, place + 1)
        at = end


def secret(i):
    return SECRET % i


def write(connection):
    connection.pipeline([('SET', b'k%d' % i, secret(i) * 8) for i in range(KEYS)])
    connection.command('SET', 'large', secret(0) * (LARGE // len(secret(0))))


def removed(connection):
    connection.pipeline([('DEL', b'k%d' % i) for i in range(KEYS)] + [('DEL', 'large')])


def replaced(connection):
    connection.pipeline([('SET', b'k%d' % i, 'v' * 100) for i in range(KEYS)] +
                        [('SET', 'large', 'v' * LARGE)])


def flushed(connection):
    connection.command('FLUSHALL')


def ended(connection):
    connection.pipeline([('PEXPIRE', b'k%d' % i, '1') for i in range(KEYS)] +
                        [('PEXPIRE', 'large', '1')])
    wait_until(lambda: connection.command('DBSIZE') == 0, 'the end of all keys')


def gone(tap, way, *options):
    name = f'{way.__name__} {" ".join(options)}'
    with Kvd('--memory', '32MiB', '--zero-freed', 'yes', *options) as kvd:
        reader, region = attach(kvd)
        with reader, kvd.connect() as connection:
            write(connection)
            before = found(region, SECRET[:11])
            tap.ok(before >= 8 * KEYS, f'{name}: {before} times before')
            way(connection)
            # The segment that is written to is cleaned when it is full.
            connection.pipeline([('SET', b'f%d' % i, 'f' * 4000) for i in range(600)])
            wait_until(lambda: found(region, SECRET[:11]) == 0, f'{name}: that it is nowhere')
            tap.ok(True, f'H: {name}: and nowhere after that')
            tap.equal(connection.command('STRLEN', 'f1'), 4000, f'{name}: what is there stays')
        os.close(region)


def main():
    tap = Tap()
    for way in (removed, replaced, flushed, ended):
        gone(tap, way, '--persist', 'memory')
    gone(tap, removed, '--persist', 'group')
    tap.done()


main()
