#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Data of ten times the memory, as its users meet it: every key has its value (E), through the
library and through the socket; who asks for a key that is absent asks no store; many that miss one
key cause one reading; what is read again and again stays in memory beside a walk over all (the hit
path, C); and kvd may be killed in the middle of it.

Argument: the program that reads through the library.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import Tap, seed, wait_until  # noqa: E402

MIB = 1 << 20
READER = sys.argv[1]
MEMORY = 16 * MIB
OPTIONS = ('--memory', MEMORY, '--memory-max', 8 * MEMORY, '--segment', '256KiB', '--persist',
           'lazy', '--lazy-interval', '20ms', '--when-full', 'spill', '--read-wait', '60s')
VALUE, LARGE = 4000, 120000
LARGE_EVERY = 100
KEYS = 10 * MEMORY // (VALUE + LARGE // LARGE_EVERY) + 1
HOT = MEMORY // 10 // VALUE
WALKED = 2  # keys between two hot ones
SAMPLE = 7  # one key in so many is looked at where all were before
AT_ONCE = 50
LINKS = 4
PROCESSES = 8


def value(number):
    bytes_wanted = LARGE if number % LARGE_EVERY == 7 else VALUE
    return b'%08d' % number * (bytes_wanted // 8)


def counters(kvd, *names):
    with kvd.connect() as client:
        text = client.command('INFO', 'everything').decode()
    rows = dict(line.split(':', 1) for line in text.splitlines() if ':' in line)
    return [int(rows[name]) for name in names]


class Reader:
    """A process of its own."""

    def __init__(self, kvd):
        self.process = subprocess.Popen([READER, kvd.socket, str(VALUE), str(LARGE)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def ask(self, *words):
        self.process.stdin.write(b' '.join(str(word).encode() for word in words) + b'\n')
        self.process.stdin.flush()

    def answer(self):
        """Right, wrong, absent, failed, and how many of the right ones came by socket."""
        return [int(word) for word in self.process.stdout.readline().split()]

    def look(self, *words):
        self.ask(*words)
        return self.answer()


def write(kvd, prefix, keys):
    refused = 0
    with kvd.connect() as client:
        for first in range(0, keys, AT_ONCE):
            replies = client.pipeline([('SET', f'{prefix}{number}', value(number))
                                       for number in range(first, min(first + AT_ONCE, keys))])
            refused += sum(reply != 'OK' for reply in replies)
        client.command('KVD.SYNC')
    return refused


def wrong_by_socket(kvd, step):
    """How many keys have not their values."""
    wrong = 0
    numbers = list(range(0, KEYS, step))
    links = [kvd.connect() for _ in range(LINKS)]
    for first in range(0, len(numbers), LINKS * AT_ONCE):
        parts = [numbers[first + i * AT_ONCE:first + (i + 1) * AT_ONCE] for i in range(LINKS)]
        for link, part in zip(links, parts):
            link.send(b''.join(link.encode('GET', f'k{number}') for number in part))
        wrong += sum(link.reply() != value(number) for link, part in zip(links, parts)
                     for number in part)
    for link in links:
        link.close()
    return wrong


def all_there(tap, kvd, step, what):
    with Reader(kvd) as reader:
        got = reader.look('k', 0, KEYS, step)
        tap.equal(got[:4], [len(range(0, KEYS, step)), 0, 0, 0],
                  f'E: {what}: through the library every key has its value')
        tap.diag(f'{got[4]} of them by socket')


def tenfold(tap, kvd):
    tap.equal(write(kvd, 'k', KEYS), 0, f'G: {KEYS} values of ten times the memory are taken')
    cold, bytes_cold = counters(kvd, 'cold_values', 'cold_bytes')
    tap.ok(cold > KEYS / 2 and bytes_cold > 8 * MEMORY,
           f'{cold} values, {bytes_cold} bytes, are in the store alone')
    all_there(tap, kvd, 1, 'all')
    tap.equal(wrong_by_socket(kvd, 1), 0, 'E: and through the socket')
    tap.equal(counters(kvd, 'cold_load_errors'), [0], 'none could not be read')
    tap.ok(counters(kvd, 'memory_used_bytes')[0] <= MEMORY, 'G: in no more memory than it has')


def absent(tap, kvd):
    names = ('cold_gets', 'cold_loads', 'socket_misses')
    with Reader(kvd) as reader:
        before = counters(kvd, *names)
        tap.equal(reader.look('none', 0, 5000, 1), [0, 0, 5000, 0, 0], 'what is absent is absent')
        tap.equal(counters(kvd, *names), before, 'C: kvd is not asked for it, nor is the store')
    with kvd.connect() as client:
        replies = client.pipeline([('GET', f'none{number}') for number in range(1000)])
        tap.equal(replies, [None] * 1000, 'nor is it there through the socket')
    tap.equal(counters(kvd, *names[:2]), before[:2], 'for which the store is not asked either')


def hot(tap, kvd):
    write(kvd, 'hot', HOT)
    with Reader(kvd) as reader:
        walked = len(range(0, KEYS, 2))
        got = reader.look('k', 0, KEYS, 2, 'hot', HOT, WALKED)
        tap.equal(got[:4], [walked + -(-walked // WALKED), 0, 0, 0],
                  'E: a walk beside what is hot')
        got = reader.look('hot', 0, HOT, 1)
        tap.equal(got[:4], [HOT, 0, 0, 0], 'E: every hot key has its value')
        tap.ok(got[4] < HOT / 4, f'C: in memory, but for {got[4]} of {HOT}')


def one_reading(tap, kvd, rng):
    """There is room for what comes back."""
    readers = [Reader(kvd) for _ in range(PROCESSES)]
    with kvd.connect() as client:
        client.command('CONFIG', 'SET', 'maxmemory', 2 * MEMORY)
        for number in (rng.randrange(KEYS) // LARGE_EVERY * LARGE_EVERY + last
                       for last in (1, 7, 50)):
            client.command('SET', f'k{number}', value(number))
            client.command('KVD.SYNC')
            wait_until(lambda key=f'k{number}': client.command('DEBUG', 'SPILL', key) == 1,
                       'its value leaves memory')
            gets, before = counters(kvd, 'cold_gets', 'cold_loads')
            for reader in readers:
                reader.ask('k', number, number + 1, 1)
            answers = [reader.answer()[:4] for reader in readers]
            tap.equal(answers, [[1, 0, 0, 0]] * PROCESSES, f'E: {PROCESSES} ask for k{number}')
            gets_now, now = counters(kvd, 'cold_gets', 'cold_loads')
            tap.equal(now - before, 1, f'the store is asked once ({gets_now - gets} found it cold)')
        client.command('CONFIG', 'SET', 'maxmemory', MEMORY)
    for reader in readers:
        with reader:
            pass


def killed(tap, kvd, rng, kept):
    """While several read, and what they read is put back and others leave."""
    before = counters(kvd, 'cold_loads')[0]
    wanted = before + rng.randrange(20, 2000)
    name = 'the region is kept' if kept else 'the store is all there is'
    readers = [Reader(kvd) for _ in range(LINKS)]
    for i, reader in enumerate(readers):
        reader.ask('k', i, KEYS, LINKS)
    wait_until(lambda: counters(kvd, 'cold_loads')[0] >= wanted, 'as many values are read')
    kvd.kill()
    if not kept:
        kvd.drop_kept()
    kvd.start()
    tap.equal([reader.answer()[:4] for reader in readers],
              [[len(range(i, KEYS, LINKS)), 0, 0, 0] for i in range(LINKS)],
              f'A: {name}: who reads meanwhile gets every value')
    for reader in readers:
        with reader:
            pass
    tap.equal(kvd.log().count('took over'), kvd.took_over + kept, f'F: {name}')
    kvd.took_over = kvd.log().count('took over')
    all_there(tap, kvd, SAMPLE, f'killed, {name}')
    with kvd.connect() as client:
        said = client.command('DEBUG', 'RECOUNT')
        tap.ok(isinstance(said, int), f'G: all is counted: {said}')


def main():
    tap = Tap()
    rng = seed()
    with KeptKvd(*OPTIONS) as kvd:
        kvd.took_over = 0
        tenfold(tap, kvd)
        absent(tap, kvd)
        hot(tap, kvd)
        one_reading(tap, kvd, rng)
        for kept in (True, False, True):
            killed(tap, kvd, rng, kept)
        tap.equal(wrong_by_socket(kvd, SAMPLE), 0, 'E: through the socket, too')
    tap.done()


main()
