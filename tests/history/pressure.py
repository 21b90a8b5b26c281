# SPDX-License-Identifier: MIT
"""What memory does by itself while a history is written: a client with keys of its own, of which
the history knows nothing, makes it happen again and again, across kills. The history's keys have no
end and are never evicted, so whatever becomes of the others no answer of theirs may differ; their
values leave memory, which nobody may notice.
"""
import random
import threading

from kvdtest import wait_until

MINE = 'pressure:'
THEIRS = 'torture:'  # as torture/value.h names the history's keys
KINDS = ('none', 'cleaning', 'table', 'ends', 'eviction', 'cold', 'bound')
SMALL = '6MiB'  # full after a few rounds
LARGE = '24MiB'


class Pressure(threading.Thread):
    """Begins and ends with its block; `rounds` is how often it happened."""

    def __init__(self, kvd, kind, number):
        super().__init__(daemon=True)
        self.kvd = kvd
        self.round = getattr(self, kind)
        self.rng = random.Random(number)
        self.over = threading.Event()
        self.rounds = 0

    @staticmethod
    def kind_of(number, policy):
        kind = KINDS[number % len(KINDS)]  # prime: with every policy and every way
        return 'eviction' if kind == 'cold' and policy == 'memory' else kind

    @staticmethod
    def options(kind):
        full = {'eviction': 'evict', 'cold': 'spill'}.get(kind, 'reject')
        small = kind in ('cleaning', 'eviction', 'cold')
        words = ['--memory', SMALL if small else LARGE, '--when-full', full,
                 '--compact-floor', '1MiB' if kind == 'cold' else '2MiB']
        return words + (['--evict-never', THEIRS] if kind == 'eviction' else [])

    def __enter__(self):
        if self.round != self.none:
            self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        if self.ident is not None:
            self.join()

    def wait(self):
        """Until it has happened."""
        wait_until(lambda: self.rounds > 0 or self.round == self.none, 'pressure')

    def run(self):
        while not self.over.is_set():
            try:
                with self.kvd.connect() as client:
                    while not self.over.is_set():
                        self.round(client)
                        self.rounds += 1
            except (OSError, EOFError):  # it was killed
                self.over.wait(0.002)

    def sets(self, client, keys, most_bytes, *options):
        client.pipeline([('SET', f'{MINE}{key}', b'p' * self.rng.randrange(most_bytes), *options)
                         for key in keys])

    def none(self, client):
        """Nothing."""

    def cleaning(self, client):
        """The same few keys again and again, in values of all sizes."""
        self.sets(client, [self.rng.randrange(300) for _ in range(100)], 8000)

    def table(self, client):
        """Thousands of keys that come and go."""
        for word in ('MSET', 'UNLINK'):
            for first in range(0, 6000, 500):
                keys = [f'{MINE}{key}' for key in range(first, first + 500)]
                client.command(word, *([x for key in keys for x in (key, '')]
                                       if word == 'MSET' else keys))

    def ends(self, client):
        """Keys that end within some milliseconds."""
        self.sets(client, range(300), 200, 'PX', 1 + self.rng.randrange(40))

    def eviction(self, client):
        """More and more keys."""
        self.sets(client, [self.rng.randrange(100000) for _ in range(100)], 8000)

    def cold(self, client):
        """The same, and the values of all others leave memory, too; some come back."""
        self.eviction(client)
        client.command('DEBUG', 'SPILL')
        client.pipeline([('GET', f'{MINE}{self.rng.randrange(100000)}') for _ in range(20)])

    def bound(self, client):
        """Now it is lower, now higher."""
        self.cleaning(client)
        client.pipeline([('CONFIG', 'SET', 'maxmemory', f'{self.rng.randrange(5, 25)}MiB')])
