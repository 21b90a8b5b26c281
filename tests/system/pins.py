#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Replies that are not read keep memory from nobody for long (G).

A large value is sent from where it stands. Who asks for it and does not read keeps it, though its
key has another by now: as much as some memory, and not when that is wanted.
"""
import contextlib
import mmap
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, ReplyError, Tap, wait_until  # noqa: E402

MIB = 1 << 20
OPTIONS = ('--persist', 'memory', '--memory', '64MiB', '--memory-max', '64MiB')


def counters(client, *names):
    text = client.command('INFO', 'everything').decode()
    rows = dict(line.split(':', 1) for line in text.splitlines() if ':' in line)
    return [int(rows[name]) for name in names]


def value(letter, size):
    return letter * size


def fill(client, prefix, count):
    """Sets values of 1 MiB until one is refused; how many were set."""
    for number in range(count):
        if isinstance(client.command('SET', f'{prefix}{number}', value('f', MIB)), ReplyError):
            return number
    return count


def leave_unread(kvd, stack, client, size, key='big', ends_by=()):
    """A connection that asks for the value and reads half of it; then the value is replaced."""
    said = [client.command('SET', key, value('a', size))]
    greedy = stack.enter_context(kvd.connect())
    greedy.send(greedy.encode('GET', key))
    left = size // 2  # more than its socket holds stays with kvd, whatever the system's default
    while left > 0:
        left -= len(greedy.sock.recv(min(left, 1 << 20)))
    if ends_by:
        said.append(client.command(*ends_by))
    said.append(client.command('SET', key, value('b', size)))
    return greedy, said.count('OK')


def ended(connection):
    """Reads what there is; is that the end?"""
    try:
        while connection.sock.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    return True


def bound(tap):
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client, contextlib.ExitStack() as stack:
        greedy, good = zip(*[leave_unread(kvd, stack, client, 4 * MIB) for _ in range(24)])
        kept, dropped = counters(client, 'memory_orphaned_bytes', 'dropped_pins')
        tap.ok(kept <= 16 * MIB, f'G: unread replies keep a quarter of the memory at most: {kept}')
        tap.ok(dropped >= 19, f'G: who kept longest is closed: {dropped}')
        tap.equal(sum(good), 48, 'G: and no write is refused')
        tap.ok(ended(greedy[0]), 'G: the first of them is told by the end')
        tap.ok('replies that it has not read' in kvd.log() and f'pid {os.getpid()}' in kvd.log(),
               'the log names the process and what to do')


def wanted(tap):
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        room = fill(client, 'fill', 64)
    with Kvd(*OPTIONS, '--write-wait', '5s') as kvd, kvd.connect() as client, \
            contextlib.ExitStack() as stack:
        for number in range(3):
            leave_unread(kvd, stack, client, 4 * MIB, f'big{number}',
                         () if number else ('FLUSHALL',))
        before = fill(client, 'fill', 16)
        tap.equal([before] + counters(client, 'dropped_pins'), [16, 0],
                  'while there is memory they are left alone')
        filled = fill(client, 'more', 64)
        kept, dropped = counters(client, 'memory_orphaned_bytes', 'dropped_pins')
        tap.equal(12 + before + filled, room, 'G: then keys get all of it')
        tap.equal((kept, dropped), (0, 3), 'G: unread replies do not keep memory that is wanted')
        tap.ok('writes wait for it' in kvd.log(), 'the log says why they were closed')


def harmless(tap):
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client, contextlib.ExitStack() as stack:
        client.command('SET', 'big', value('a', 4 * MIB))
        slow = []
        for _ in range(10):
            one = stack.enter_context(kvd.connect())
            one.send(one.encode('GET', 'big'))
            slow.append(one)
        fill(client, 'fill', 64)
        tap.equal(counters(client, 'memory_orphaned_bytes', 'dropped_pins'), [0, 0],
                  'G: who is slow to read what a key has keeps nothing')
        good = [one.reply() == value(b'a', 4 * MIB) for one in slow]
        tap.ok(all(good), f'B: and gets all of it: {good}')


def bounded(tap):
    """With maxmemory it is the same."""
    with Kvd(*OPTIONS, '--maxmemory', '24MiB', '--value-max', '8MiB') as kvd, \
            kvd.connect() as client, contextlib.ExitStack() as stack:
        leave_unread(kvd, stack, client, 6 * MIB)
        # With what the reply keeps that would be all of maxmemory.
        wait_until(lambda: fill(client, 'fill', 12) == 12, 'memory below maxmemory')
        kept, dropped = counters(client, 'memory_orphaned_bytes', 'dropped_pins')
        tap.ok((kept, dropped) == (0, 1), f'G: so it is with maxmemory: {kept}, {dropped}')


def reading(connection):
    """Attaches and opens a view that does not end; the page, to keep."""
    told = connection.command('KVD.READERS')
    epoch = dict(zip(told[::2], told[1::2]))[b'epoch']
    connection.send(connection.encode('KVD.ATTACH'))
    _, fds, _, _ = socket.recv_fds(connection.sock, 1 << 16, 3)
    page = mmap.mmap(fds[1], 4096)
    page[128:136] = ((epoch << 16) + 1).to_bytes(8, 'little')  # the first slot
    for fd in fds:
        os.close(fd)
    return page


def remedies(tap):
    """Who is refused memory learns what holds it."""
    with Kvd(*OPTIONS, '--on-stuck', 'block', '--write-wait', '100ms') as kvd, \
            kvd.connect() as client, kvd.connect() as reader:
        client.command('SET', 'big', value('a', 4 * MIB))
        page = reading(reader)
        said = 'OK'
        for _ in range(40):
            said = client.command('SET', 'big', value('b', 4 * MIB))
            if said != 'OK':
                break
        tap.ok('kvctl readers' in str(said), f'G: a view that does not end: {said}')
        tap.ok('kvctl readers' in kvd.log(), 'the log says the same')
        page.close()


def main():
    tap = Tap()
    for part in (bound, wanted, harmless, bounded, remedies):
        part(tap)
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
