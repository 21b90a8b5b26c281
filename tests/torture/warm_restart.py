#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""kvd is killed again and again while four processes read and two write; its region is kept.

  A  no read finds a value older than what was acknowledged when it began, nor one never written
  B  every value read is whole
  F  nothing acknowledged is lost under any policy, DBSIZE never falls below the acknowledged keys,
     and readers get no error through it but KVC_REVOKED past a deadline

Arguments: policy, and milliseconds between kills (0 = as soon as it serves). KVD_TEST_KILLS (25).
"""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import BUILD_ROOT, Tap, wait_until  # noqa: E402

CLIENTS = os.path.join(BUILD_ROOT, 'tests', 'torture', 'warm_clients')
READS_LEAST, WRITES_LEAST = 50, 10  # in each life
BAD = ('missed', 'broken', 'old', 'unsent', 'failed', 'writes_refused', 'lost', 'died')


def told(clients):
    """Acknowledged keys, reads, writes."""
    clients.stdin.write('keys\n')
    clients.stdin.flush()
    words = clients.stdout.readline().split()
    return int(words[1]), int(words[3]), int(words[5])


def acknowledged(clients):
    return told(clients)[0]


def at_work(clients):
    """Waits until, however slow the machine is, there was reading and writing in this life."""
    _, reads, writes = told(clients)

    def done():
        now = told(clients)
        return now[1] >= reads + READS_LEAST and now[2] >= writes + WRITES_LEAST
    wait_until(done, 'reads and writes')


def campaign(tap, kvd, clients, kills, apart_ms):
    low = 0
    for number in range(kills):
        if apart_ms:
            time.sleep(apart_ms / 1000)  # how long it lives; nothing is awaited by it
        else:
            at_work(clients)
            before = acknowledged(clients)
            with kvd.connect() as connection:
                low += connection.command('DBSIZE') < before
                connection.pipeline([('GET', 'x')] * (number % 50 + 1))
        kvd.kill()
        kvd.spawn()
        if not apart_ms:
            kvd.wait_ready()
    kvd.wait_ready()
    before = acknowledged(clients)
    with kvd.connect() as connection:
        low += connection.command('DBSIZE') < before
    tap.equal(low, 0, 'F1: DBSIZE never fell below the acknowledged keys')


def main():
    policy, apart_ms = sys.argv[1], int(sys.argv[2])
    kills = int(os.environ.get('KVD_TEST_KILLS', '25'))
    number = os.environ.get('KVD_TEST_SEED', '1')
    tap = Tap()
    tap.diag(f'seed {number} (replay with KVD_TEST_SEED={number}), {kills} kills')
    with KeptKvd('--memory', '64MiB', '--segment', '256KiB', '--persist', policy,
                 '--revoke-min', '20ms', '--write-wait', '60s') as kvd:
        clients = subprocess.Popen([CLIENTS, kvd.socket, number], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)
        campaign(tap, kvd, clients, kills, apart_ms)
        rest = clients.communicate(timeout=120)[0]
        found = dict((line.split()[0], int(line.split()[1])) for line in rest.splitlines())
        tap.diag(', '.join(f'{name} {value}' for name, value in found.items()))
        tap.diag(f'counted daemon-kills {kills}')
        for name in BAD:
            tap.equal(found[name], 0, f'A, B, F: {name}')
        if not apart_ms:
            tap.ok(found['reads'] >= kills * READS_LEAST and
                   found['writes'] >= kills * WRITES_LEAST, 'there was reading and writing')
        tap.ok(found['from_socket'] * 2 <= found['reads'], 'C: mostly through the mapping')
        tap.ok('is not taken over' not in kvd.log() and 'took over' in kvd.log(),
               'F: every life took the region over')
        tap.equal(kvd.stop(), 0, 'kvd stops in order')
    tap.done()


main()
