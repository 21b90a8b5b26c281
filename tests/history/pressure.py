# SPDX-License-Identifier: MIT
"""What memory does by itself while a history is written: a client with keys of its own, of which
the history knows nothing, makes it happen again and again, across kills. The history's keys have no
end and are never evicted, so whatever becomes of the others no answer of theirs may differ; their
values leave memory, which nobody may notice.
"""
import os
import random
import threading
import time

from collide import attached_file, colliding, region_seed
from kvdtest import wait_until

MINE = 'pressure:'
THEIRS = 'torture:'  # as torture/value.h names the history's keys
# Each with what has to have happened by it, in the last life. An odd number of them: so each comes
# with every policy and every way.
KINDS = {
    'none': (),
    'cleaning': ('cleaner_segments',),
    'table': ('table_splits', 'table_merges'),
    'ends': ('expired_keys',),
    'eviction': ('evicted_keys',),
    'cold': ('values_spilled', 'cold_promotions', 'compaction_blocks'),
    'bound': ('cleaner_segments',),
    'rebuilding': ('table_reseeds',),
    'moving': ('large_moved',),
    'returning': ('memory_returned_bytes',),
    'taken': ('cleaner_segments',),
}
SMALL = '6MiB'  # full after a few rounds
LARGE = '24MiB'
COLLIDING = 120  # keys: fewer than a chain takes, more than it has before the table is rebuilt
# Runs of pages of which one in so many stays; no gap is as long as the largest value then.
RUN_BYTES, RUNS, EACH, AT_ONCE, LARGEST = 20000, 600, 10, 60, 700000


def everything(client):
    """What INFO tells, by name."""
    rows = client.command('INFO', 'everything').split(b'\r\n')
    return dict(row.split(b':', 1) for row in rows if b':' in row)


class Pressure(threading.Thread):
    """Begins and ends with its block."""

    def __init__(self, kvd, kind, number):
        super().__init__(daemon=True)
        self.kvd = kvd
        self.wanted = KINDS[kind]
        self.round = getattr(self, kind)
        self.rng = random.Random(number)
        self.over = threading.Event()

    @staticmethod
    def kind_of(number, policy):
        kind = list(KINDS)[number % len(KINDS)]
        return 'eviction' if kind == 'cold' and policy == 'memory' else kind

    @staticmethod
    def options(kind):
        full = {'eviction': 'evict', 'cold': 'spill'}.get(kind, 'reject')
        small = kind in ('cleaning', 'eviction', 'cold', 'moving', 'taken')
        words = ['--memory', SMALL if small else LARGE, '--when-full', full,
                 '--compact-floor', '1MiB' if kind == 'cold' else '2MiB']
        return words + {'eviction': ['--evict-never', THEIRS],
                        'rebuilding': ['--reseed-interval', '10ms'],
                        'moving': ['--memory-max', SMALL, '--write-wait', '60s'],
                        'returning': ['--memory-return', '20ms'],
                        'taken': ['--prefault', 'yes']}.get(kind, [])

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
        def has_happened():
            with self.kvd.connect() as client:
                rows = everything(client)
            return all(int(rows[name.encode()]) > 0 for name in self.wanted)
        wait_until(has_happened, f'pressure: {self.wanted}')

    def run(self):
        while not self.over.is_set():
            try:
                with self.kvd.connect() as client:
                    while not self.over.is_set():
                        self.round(client)
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
        """More than memory holds, again and again; the values of all others leave memory, too, some
        come back, and the store is compacted meanwhile."""
        self.sets(client, [self.rng.randrange(2000) for _ in range(100)], 8000)
        client.command('DEBUG', 'SPILL')
        client.pipeline([('GET', f'{MINE}{self.rng.randrange(2000)}') for _ in range(20)])

    def bound(self, client):
        """Now it is lower, now higher."""
        self.cleaning(client)
        client.pipeline([('CONFIG', 'SET', 'maxmemory', f'{self.rng.randrange(5, 25)}MiB')])

    def rebuilding(self, client):
        """Keys that collide, until the table has another hash key."""
        with self.kvd.connect() as reader:
            region = attached_file(reader)
        keys = list(colliding(region_seed(region), 0, COLLIDING))
        os.close(region)
        client.pipeline([('SET', key, 'c') for key in keys])
        client.command('DEL', *keys)

    def moving(self, client):
        """Large values left here and there, and one that is larger than each gap between them."""
        for first in range(0, RUNS, AT_ONCE // 2):
            here = range(first, first + AT_ONCE // 2)
            client.pipeline([('SET', f'{MINE}{key}', b'm' * RUN_BYTES) for key in here])
            client.command('DEL', *[f'{MINE}{(key - AT_ONCE) % RUNS}' for key in here
                                    if (key - AT_ONCE) % RUNS % EACH])
        client.command('SET', f'{MINE}largest', b'm' * LARGEST)
        client.command('DEL', f'{MINE}largest')

    def returning(self, client):
        """Much comes and goes, and then nothing does for longer than memory-return."""
        self.sets(client, range(1000), 8000)
        client.command('DEL', *[f'{MINE}{key}' for key in range(1000)])
        time.sleep(0.05)  # how long nothing comes; awaits nothing

    def taken(self, client):
        """As cleaning, where all of the memory is taken at the start and kept."""
        self.cleaning(client)
