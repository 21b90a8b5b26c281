# SPDX-License-Identifier: MIT
"""What memory does by itself while a history is written: a client with keys of its own, of which
the history knows nothing, makes it happen again and again, across kills. The history's keys have no
end and are never evicted, so whatever becomes of the others no answer of theirs may differ; their
values leave memory, which nobody may notice. Of its own keys it knows what they are, for nobody
else writes them, and looks at them again and again.
"""
import os
import random
import threading
import time

from collide import attached_file, colliding, region_seed
from kvdtest import ReplyError, wait_until

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
# Runs of pages once round their range. One in so many stays, which takes more than a turn to copy;
# no gap between these is as long as the largest value.
RUN_BYTES, LONG_BYTES, RUNS, EACH, AT_ONCE, LARGEST = 20000, 150000, 500, 30, 25, 700000


def everything(client):
    """What INFO tells, by name."""
    rows = client.command('INFO', 'everything').split(b'\r\n')
    return dict(row.split(b':', 1) for row in rows if b':' in row)


def named(key):
    return f'{MINE}{key}'.encode()


class Pressure(threading.Thread):
    """Begins and ends with its block. `wrong` is the first of its own answers that was."""

    def __init__(self, kvd, kind, number, kept):
        super().__init__(daemon=True)
        self.kvd = kvd
        self.kept = kept  # is what was acknowledged there whenever kvd is?
        self.known = {}
        self.flying = ()
        self.stamp = 0
        self.wrong = None
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
            if self.wrong is not None:
                return True
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
                self.forget(self.flying if self.kept else list(self.known))
                self.over.wait(0.002)

    def forget(self, names):
        for name in names:
            self.known.pop(name, None)

    def check(self):
        """In the end: all that it knows."""
        with self.kvd.connect() as client:
            self.look(client, list(self.known))

    def look(self, client, names):
        """Are they as they were set? What that is may not be known, but whose value it is."""
        for first in range(0, len(names), AT_ONCE):
            if self.wrong is not None:
                return  # what cannot be had may take as long as read-wait
            some = names[first:first + AT_ONCE]
            values = client.command('MGET', *some)
            if isinstance(values, ReplyError):
                self.wrong = str(values)[:300]
                return
            for name, found in zip(some, values):
                known = self.known.get(name)
                own = found is None or found[:len(name) + 1] == name + b':'
                if found != known and (known is not None or not own):
                    self.wrong = f'{name} is {str(found)[:60]} and was {str(known)[:60]}'

    def value(self, name, size):
        self.stamp += 1
        head = b'%b:%d:' % (name, self.stamp)
        return (head * (size // len(head) + 1))[:max(size, len(head))]

    def set(self, client, pairs, *options):
        """`pairs` of a key and its size. With options what becomes of them is not known."""
        changes = [(name, self.value(name, size)) for name, size in pairs]
        self.flying = [name for name, _ in changes]
        said = client.pipeline([('SET', *change, *options) for change in changes])
        self.flying = ()
        for (name, value), reply in zip(changes, said):
            if reply == 'OK' and not options:
                self.known[name] = value
            elif reply != 'OK' and not str(reply).startswith('OOM'):
                self.wrong = self.wrong or f'SET {name}: {reply}'

    def delete(self, client, names):
        self.flying = names
        if names:
            client.command('DEL', *names)
        self.flying = ()
        self.forget(names)

    def sets(self, client, keys, most_bytes, *options):
        self.set(client, [(named(key), self.rng.randrange(most_bytes)) for key in keys], *options)

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
        """More and more keys, of which any may go."""
        self.sets(client, [self.rng.randrange(100000) for _ in range(100)], 8000)
        self.known.clear()

    def cold(self, client):
        """More than memory holds, again and again; the values of all others leave memory, too, some
        come back, and the store is compacted meanwhile."""
        self.sets(client, [self.rng.randrange(2000) for _ in range(100)], 8000)
        for _ in range(5):
            client.command('DEBUG', 'SPILL')
            self.look(client, [named(self.rng.randrange(2000)) for _ in range(20)])

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
        self.set(client, [(key, 1) for key in keys])
        self.look(client, keys)
        self.delete(client, keys)

    def moving(self, client):
        """Large values left here and there, and one that is larger than each gap between them. How
        many go once round their range depends on who else is there, so it is tried."""
        runs = self.rng.randrange(RUNS - 40, RUNS + 10)

        def passing(first):
            keys = range(first - AT_ONCE, min(first, runs))
            return [named(key) for key in keys if key >= 0 and key % EACH]

        for first in range(0, runs, AT_ONCE):
            self.set(client, [(named(key), RUN_BYTES if key % EACH else LONG_BYTES)
                              for key in range(first, min(first + AT_ONCE, runs))])
            self.delete(client, passing(first))
        self.delete(client, [named(key) for key in range(runs - 2 * AT_ONCE, runs) if key % EACH])
        stay = [named(key) for key in range(0, runs, EACH)]
        self.set(client, [(named('largest'), LARGEST)])
        self.look(client, stay)
        self.delete(client, stay + [named('largest')])

    def returning(self, client):
        """Much comes and goes, and then nothing does for longer than memory-return."""
        self.sets(client, range(1000), 8000)
        self.delete(client, [named(key) for key in range(1, 1000)])
        time.sleep(0.05)  # how long nothing comes; awaits nothing
        self.look(client, [named(0)])

    def taken(self, client):
        """As cleaning, where all of the memory is taken at the start and kept."""
        self.cleaning(client)
