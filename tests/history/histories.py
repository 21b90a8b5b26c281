#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Histories: clients write down what they ask of kvd and what it answers, and a checker looks for
an order that explains all of it (A, E, F, I).

Mapped readers, socket readers, writers with SET, DEL, INCR, compare-and-set, batches and SYNC, and
an asynchronous one. In turn: nothing happens; kvd is killed and its region kept; it is killed
and only the store is kept; clients are killed. Each under every policy, and by turns while other
keys (pressure.py) make memory be cleaned, moved and given back, the table grow, shrink and have
another hash key, keys end, others be evicted, values leave memory and come back while the store is
compacted, or the bound move. KVD_TEST_HISTORIES (30) of them, beginning with
KVD_TEST_HISTORY_FIRST (0); KVD_TEST_HISTORY_MS (150) is how long each runs.
"""
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import BUILD_ROOT, TIMEOUT_S, Tap, seed, wait_until  # noqa: E402
from pressure import KINDS, Pressure, everything  # noqa: E402

FOLDER = os.path.join(BUILD_ROOT, 'tests', 'history')
CLIENTS = os.path.join(FOLDER, 'history_clients')
CHECK = os.path.join(FOLDER, 'history_check')
POLICIES = ('memory', 'lazy', 'group', 'sync')
WAYS = ('calm', 'kept', 'lost', 'clients')
KILLS = 3
EVENTS_MIN = 300  # between kills
EVENTS_FULL = 20000  # enough in all
counted = dict.fromkeys(sorted({name for names in KINDS.values() for name in names}), 0)


class Clients:
    def __init__(self, kvd, path, number, policy, way):
        self.process = subprocess.Popen(
            [CLIENTS, kvd.socket, path, str(number), str(POLICIES.index(policy)),
             '5' if way == 'clients' else '0'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, word):
        self.process.stdin.write(word + '\n')
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.communicate(timeout=TIMEOUT_S * 4)
        return self.process.returncode


def lose(kvd, clients):
    """kvd is killed, and its region with it."""
    answers = [clients.tell('crash')]
    kvd.kill()
    kvd.drop_kept()
    answers.append(clients.tell('park'))
    kvd.start()
    answers.append(clients.tell('recovered'))
    return answers == ['ok'] * 3


def run(kvd, clients, way, rng, length_ms):
    good = True
    pieces = KILLS + 1 if way in ('kept', 'lost') else 1
    for piece in range(pieces):
        least = min(int(clients.tell('count')) + EVENTS_MIN, EVENTS_FULL)
        time.sleep(length_ms / 1000 / pieces * (0.5 + rng.random()))  # how long; awaits nothing
        wait_until(lambda least=least: int(clients.tell('count')) >= least, 'something happens')
        if piece < KILLS and way == 'kept':
            kvd.kill()
            kvd.start()
        elif piece < KILLS and way == 'lost':
            good = lose(kvd, clients) and good
    return good


def count_up(kvd):
    """What memory did by itself in the last life, for the report."""
    with kvd.connect() as client:
        rows = everything(client)
    for name in counted:
        counted[name] += int(rows[name.encode()])


def one(rng, number, length_ms):
    """(None or what was wrong, operations)"""
    policy = POLICIES[number % 4]
    way = WAYS[number // 4 % 4]
    fenced = '1' if rng.random() < 0.25 else '0'
    kind = Pressure.kind_of(number, policy)
    with KeptKvd('--segment', '64KiB', '--persist', policy,
                 '--lazy-interval', '20ms', '--revoke-min', '20ms', *Pressure.options(kind),
                 env={'KVD_POISON': '1', 'KVD_FENCED': fenced}) as kvd:
        path = os.path.join(kvd.root, 'history')
        clients = Clients(kvd, path, rng.randrange(1 << 48), policy, way)
        with Pressure(kvd, kind, rng.randrange(1 << 48), way != 'lost') as pressure:
            good = run(kvd, clients, way, rng, length_ms)
            pressure.wait()
            ended = clients.end()
        pressure.check()
        count_up(kvd)
        found = subprocess.run([CHECK, path], capture_output=True, text=True, check=False)
        kvd.stop()
        words = found.stdout.split()
        wrong = None
        if not good or ended != 0 or found.returncode != 0 or pressure.wrong:
            wrong = (f'{policy}, {way}, {kind}: clients {good}, {ended}; {pressure.wrong}; '
                     f'{found.stdout}{found.stderr}')
            keep = os.environ.get('KVD_TEST_KEEP')
            if keep:
                os.replace(path, f'{kvd.root}.history')
        return wrong, int(words[1]) if found.returncode < 2 and words else 0


def main():
    tap = Tap()
    base = seed(1).randrange(1 << 32)
    count = int(os.environ.get('KVD_TEST_HISTORIES', '30'))
    first = int(os.environ.get('KVD_TEST_HISTORY_FIRST', '0'))
    length_ms = int(os.environ.get('KVD_TEST_HISTORY_MS', '150'))
    operations = checked = 0
    for number in range(first, first + count):
        wrong, done = one(random.Random(f'{base} {number}'), number, length_ms)
        operations += done
        checked += done > 100 and not wrong
        if wrong or done <= 100:
            tap.ok(False, f'history {number}: {wrong or "nothing happened"}')
    tap.diag(f'{operations} operations')
    tap.diag('meanwhile ' + ', '.join(f'{name} {count}' for name, count in counted.items()))
    tap.diag(f'counted histories {checked}')
    tap.equal(checked, count, 'A, E, F, I: every history has an order that explains it')
    if count >= 2 * len(KINDS):
        tap.equal([name for name, times in counted.items() if not times], [],
                  'all of it happened meanwhile')
    tap.done()


main()
