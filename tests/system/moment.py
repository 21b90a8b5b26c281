#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Reads of many keys are one moment although others write in the middle of them (I), and nobody
waits for them; what is never cut has a bound that an administrator sets (G).

Whether a read was cut is told by its neighbour: its writes are answered while the read is under
way.
"""
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Connection, Kvd, Tap  # noqa: E402

FILLERS = 150000
MARKED = 60
ROUNDS_MOST = 200  # as many as it takes to come into the middle of one


def marked_keys(fillers=FILLERS):
    """All that is read: keys with markers among them, first and last included, one twice."""
    keys = [b'filler:%06d' % i for i in range(fillers)]
    step = fillers // (MARKED - 1)
    marks = [b'mark:%02d' % i for i in range(MARKED)]
    for i, mark in enumerate(marks):
        keys.insert(min(i * step, len(keys)), mark)
    keys.append(marks[0])
    return keys, marks


class Writer:
    """Writes all markers at once, with a number that rises, while another connection reads."""

    def __init__(self, kvd, marks):
        self.client = kvd.connect(60)
        self.marks = marks
        self.number = 0

    def write(self, how=None):
        self.number += 1
        pairs = [part for mark in self.marks for part in (mark, b'%08d' % self.number)]
        if how == 'flush':
            for command in (['MULTI'], ['FLUSHALL'], ['MSET', *pairs], ['EXEC']):
                self.client.command(*command)
        elif how == 'delete':
            self.client.command('DEL', *self.marks)
        else:
            self.client.command('MSET', *pairs)

    def until_answered(self, reader, how=None):
        """Writes until the reader's socket has something; how often."""
        count = 0
        reader.sock.setblocking(False)
        while True:
            try:
                if reader.sock.recv(1, socket.MSG_PEEK):
                    break
            except BlockingIOError:
                self.write(how if count == 2 else None)
                count += 1
        reader.sock.settimeout(60)
        return count


def one_moment(tap, kvd, how, rounds=6, fillers=FILLERS):
    keys, marks = marked_keys(fillers)
    frame = Connection.encode('MGET', *keys)
    writer = Writer(kvd, marks)
    writer.write()
    seen, mixed = 0, 0
    with kvd.connect(60) as reader:
        for count in range(ROUNDS_MOST):
            if count >= rounds and seen > 0:
                break
            reader.sock.sendall(frame)
            seen += writer.until_answered(reader, how)
            reply = reader.reply()
            values = {value for key, value in zip(keys, reply) if key.startswith(b'mark')}
            mixed += len(values) != 1 or len(reply) != len(keys)
            reader.sock.sendall(Connection.encode('EXISTS', *keys))
            writer.until_answered(reader, how)
            found = reader.reply()
            mixed += found not in (MARKED + 1, 0, len(keys), fillers)
    tap.ok(mixed == 0, f'I: MGET and EXISTS see one moment ({how or "written"} in the middle, '
           f'{len(keys)} keys)')
    tap.ok(seen > 0, 'G: writes are answered while a read is under way')
    writer.client.close()


def no_stale_copy(tap, kvd):
    """A tracking client's copies are what the keys have, or it was told (by keys)."""
    keys, marks = marked_keys()
    writer = Writer(kvd, marks)
    writer.write()
    with kvd.connect(60) as reader:
        reader.command('HELLO', '3')
        reader.command('CLIENT', 'TRACKING', 'ON')
        wrong, told = 0, 0
        for count in range(ROUNDS_MOST):
            if count >= 4 and told > 0:
                break
            reader.sock.sendall(Connection.encode('MGET', *keys) +
                                Connection.encode('ECHO', 'over'))
            writer.until_answered(reader)
            copies = dict(zip(keys, reader.reply()))
            message = reader.reply()
            while message != b'over':
                for key in message[1] or list(copies):
                    copies.pop(key, None)
                    told += 1
                message = reader.reply()
            now = writer.client.command('MGET', *marks)
            wrong += sum(mark in copies and copies[mark] != value
                         for mark, value in zip(marks, now))
        tap.ok(wrong == 0, 'a tracking client is told of what is old when it gets it')
        tap.ok(told > 0, 'and that happens')
    writer.client.close()


def many_at_once(tap, kvd):
    """More reads than may be under way at once: each is answered in the end."""
    keys, marks = marked_keys()
    writer = Writer(kvd, marks)
    writer.write()
    frame = Connection.encode('MGET', *keys[:20000])
    readers = [kvd.connect(60) for _ in range(24)]
    for reader in readers:
        reader.sock.sendall(frame)
    for reader in readers[::5]:
        reader.close()  # in the middle of it
    writer.until_answered(readers[-1])
    whole = 0
    for i, reader in enumerate(readers):
        if i % 5:
            whole += len(reader.reply()) == 20000
            reader.close()
    tap.ok(whole == 19, 'G: reads that wait for others are answered, too')
    writer.client.close()


def bound(tap, kvd):
    with kvd.connect() as c:
        c.command('CONFIG', 'SET', 'atomic-keys-max', 3)
        text = '(atomic-keys-max)'
        refused = [c.command('MSET', *['a', 'b'] * 4), c.command('MSETNX', *['a', 'b'] * 4)]
        tap.ok(all(text in str(reply) for reply in refused), 'G: atomic requests have a bound')
        taken = [c.command('MSET', *['a', 'b'] * 3), c.command('DEL', 'a', 'b', 'c')]
        tap.ok(taken == ['OK', 1] and c.command('MGET', *['a'] * 9) == [None] * 9 and
               c.command('DEL', *['a'] * 9) == 0,
               'up to it they are done; reads have none, and removals are cut')
        c.command('MULTI')
        replies = [c.command('MSET', 'a', 1, 'b', 2), c.command('PING'), c.command('GET', 'a')]
        tap.ok(replies[:2] == ['QUEUED'] * 2 and text in str(replies[2]) and
               'EXECABORT' in str(c.command('EXEC')), 'so have transactions')
        c.command('CONFIG', 'SET', 'atomic-keys-max', 0)
        tap.ok(c.command('DEL', *['a'] * 5000) == 0, '0 is none')


def main():
    tap = Tap()
    with Kvd('--persist', 'memory', '--memory', '256MiB') as kvd:
        for how in (None, 'delete', 'flush'):
            one_moment(tap, kvd, how)
        no_stale_copy(tap, kvd)
        with kvd.connect(60) as c:  # few keys, much to be copied
            for i in range(300):
                c.command('SET', b'filler:%06d' % i, bytes([i % 256]) * 200000)
        for how in (None, 'delete', 'flush'):
            one_moment(tap, kvd, how, 3, 300)
        many_at_once(tap, kvd)
        bound(tap, kvd)
    tap.done()


if __name__ == '__main__':
    main()
