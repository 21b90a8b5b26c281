#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""kvd is killed again and again while four processes read and two write; its region is kept.

  A  no read finds a value older than what was acknowledged when it began, nor one never written
  B  every value read is whole
  F  nothing acknowledged is lost under any policy, DBSIZE never falls below the acknowledged keys,
     and readers get no error through it but KVC_REVOKED past a deadline

Arguments: policy, and milliseconds between kills: every other life is killed so long after its
start wherever that has come to, the others so long after a first write; 0 = all when all are at
work. Only kvds that had served are counted. KVD_TEST_KILLS (25).
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


def at_work(clients, reads_least=READS_LEAST, writes_least=WRITES_LEAST):
    """Waits until, however slow the machine is, there was reading and writing in this life."""
    _, reads, writes = told(clients)

    def done():
        now = told(clients)
        return now[1] >= reads + reads_least and now[2] >= writes + writes_least
    wait_until(done, 'reads and writes')


def campaign(tap, kvd, clients, kills, apart_ms):
    """Returns how many were killed that had served."""
    low = served = 0
    for number in range(kills):
        served += not apart_ms or number % 2
        if apart_ms:
            if number % 2:
                at_work(clients, 1, 1)
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
    return served


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
        served = campaign(tap, kvd, clients, kills, apart_ms)
        rest = clients.communicate(timeout=120)[0]
        found = dict((line.split()[0], int(line.split()[1])) for line in rest.splitlines())
        tap.diag(', '.join(f'{name} {value}' for name, value in found.items()))
        adopted = kvd.log().count('took over')
        tap.diag(f'counted daemon-kills {served}')
        tap.diag(f'{adopted} lives took the region over')
        for name in BAD:
            tap.equal(found[name], 0, f'A, B, F: {name}')
        least = (1, 1) if apart_ms else (READS_LEAST, WRITES_LEAST)
        tap.ok(found['reads'] >= served * least[0] and found['writes'] >= served * least[1],
               'there was reading and writing')
        tap.ok(found['from_socket'] * 2 <= found['reads'], 'C: mostly through the mapping')
        # The first began with none; one that was not to serve may have been killed before it had.
        tap.ok('is not taken over' not in kvd.log() and served <= adopted + 1 <= kills + 2,
               'F: every life that served took the region over')
        tap.equal(kvd.stop(), 0, 'kvd stops in order')
    tap.done()


main()
