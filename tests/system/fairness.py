#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What comes in slices is what would come at once (G), and whoever goes in the middle leaves
nothing behind.

How long turns take is only told here: processor time is no fact on a busy machine.
bench/fairness.py measures it.
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, Tap  # noqa: E402

KEYS = 200000
BIG = 24 << 20


def longest_us(client):
    return json.loads(client.command('KVD.STATS'))['counters']['turn_longest_us']


def main():
    tap = Tap()
    with Kvd('--persist', 'memory', '--memory', '512MiB') as kvd:
        client, other = kvd.connect(120), kvd.connect()
        for start in range(0, KEYS, 10000):
            client.pipeline([('SET', b'key:%06d' % i, b'v') for i in range(start, start + 10000)])
        big = os.urandom(BIG)
        cases = [
            ('KEYS *', ('KEYS', '*'), lambda got: len(got) == KEYS and len(set(got)) == KEYS),
            ('KEYS with a pattern', ('KEYS', '*[0-4]*9'), lambda got: sorted(got) == [
                b'key:%06d' % i for i in range(9, KEYS, 10)
                if any(c in '01234' for c in '%06d' % i)]),
            ('SET', ('SET', 'big', big), lambda got: got == 'OK'),
            ('GET', ('GET', 'big'), lambda got: got == big),
            ('SET GET', ('SET', 'big', big[::-1], 'GET'), lambda got: got == big),
            ('APPEND', ('APPEND', 'big', 'end'), lambda got: got == BIG + 3),
            ('SETRANGE', ('SETRANGE', 'big', 5, 'x'), lambda got: got == BIG + 3),
            ('GETRANGE', ('GETRANGE', 'big', 6, -4), lambda got: got == big[::-1][6:]),
            ('COPY', ('COPY', 'big', 'big2'), lambda got: got == 1),
            ('MGET', ('MGET', 'big', 'none', 'big2'),
             lambda got: got[0] == got[2] and got[1] is None and len(got[0]) == BIG + 3),
            ('GETDEL', ('GETDEL', 'big2'), lambda got: got[BIG:] == b'end'),
            ('ECHO', ('ECHO', big), lambda got: got == big),
            ('PING', ('PING', big), lambda got: got == big),
        ]
        for name, command, good in cases:
            other.command('CONFIG', 'RESETSTAT')
            client.append(*command)
            client.append('ECHO', 'behind')
            tap.ok(good(client.reply()) and client.reply() == b'behind',
                   f'{name}: the whole of it, and what follows')
            tap.diag(f'{name}: longest turn {longest_us(other)} us of processor time')
        abandoned(tap, kvd, big)
    tap.done()


def abandoned(tap, kvd, big):
    """Clients that go in the middle leave nothing behind."""
    for command in (('KEYS', '*'), ('SET', 'gone', big), ('GET', 'big'), ('ECHO', big)):
        for _ in range(5):
            with kvd.connect() as client:
                client.append(*command)
    client = kvd.connect()
    client.command('DEL', 'gone', 'big')
    tap.equal(client.command('DBSIZE'), KEYS, 'clients that do not wait for their replies')


main()
