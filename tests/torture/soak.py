#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Everything at once, for long: a cache that is full under readers and writers, with times to live,
large values, evictions and a table that grows and shrinks; by turns values leave memory instead of
keys, and are read back, through the mapping's library and by the socket; the bound on memory is
moved, keys collide until the table has another hash key, readers and kvd are killed, kvd is
restarted, backups are made and everything is verified.

  A  no read finds a value older than what was acknowledged, one never written, or one that ended
  B  every value read is whole
  E, F  nothing acknowledged is lost by kills and restarts, with the region kept or without it, and
     while values leave memory instead of keys no key goes
  G  what kvd counts is what a fresh look at its region finds, the region's file has the pages that
     are counted and no others, and kvd's own memory does not grow

KVD_TEST_ACTIONS (30) is how much is done at least, KVD_TEST_SOAK_SECONDS (0) how long it goes on.
"""
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from collide import attached_file, colliding, region_seed  # noqa: E402
from kvdtest import BUILD_ROOT, TIMEOUT_S, Kvd, Tap, seed, wait_until  # noqa: E402

CLIENTS = os.path.join(BUILD_ROOT, 'tests', 'torture', 'soak_clients')
MIB = 1 << 20
NEVER = {'evict': 'keep:', 'spill': ''}  # what is never evicted does not leave memory, either
LEAST, MEMORY, MOST = {'evict': 16 * MIB, 'spill': 24 * MIB}, 24 * MIB, 48 * MIB
SEEN = ('keys_evicted', 'keys_expired', 'cleaner_segments', 'table_splits', 'table_merges',
        'compaction_blocks', 'values_spilled', 'cold_promotions', 'table_reseeds')
COLLIDING = 120  # keys: fewer than a chain takes, more than it has before the table is rebuilt
LARGER = 2  # values
KEYS_GROWN = 36000  # three times as many as are never removed by the hundred
BAD = ('missed', 'broken', 'old', 'unsent', 'dead', 'failed', 'writes_refused')
# Of kvd's own memory what may still come: reads counted in places that were not used before (two
# bits for 32 bytes of a log that spans twice the memory), the pages that LMDB keeps of the largest
# commit (8 MiB, and as much of compaction), and pieces that malloc() keeps.
HEAT_BYTES = MOST * 2 // 128
COMMIT_BYTES = 16 * MIB
MALLOC_BYTES = 4 * MIB


def options(memory, full):
    return ('--supervise', '--memory', memory, '--memory-max', MOST, '--segment', '256KiB',
            '--persist', 'group', '--when-full', full,
            '--revoke-min', '20ms', '--write-wait', '60s', '--compact-floor', '4MiB',
            '--memory-return', '1s', '--lazy-interval', '50ms', '--reseed-interval', '100ms',
            *(('--evict-never', NEVER[full]) if NEVER[full] else ()))


class Clients:
    def __init__(self, kvd, number):
        self.process = subprocess.Popen([CLIENTS, kvd.socket, str(number)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, words):
        self.process.stdin.write(words + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise EOFError('the clients are gone')
        return answer

    def status(self):
        words = self.tell('status').split()
        return dict(zip(words[::2], map(int, words[1::2])))

    def end(self):
        self.process.communicate(timeout=TIMEOUT_S * 4)
        return self.process.returncode


def numbers(connection, section):
    rows = dict(line.split(b':', 1) for line in connection.command('INFO', section).split(b'\r\n')
                if b':' in line)
    return {name.decode(): int(text) for name, text in rows.items() if text.isdigit()}


def child_of(kvd):
    with kvd.connect() as connection:
        return numbers(connection, 'server')['process_id']


def own_bytes(pid):
    """Memory that is kvd's own: neither the region nor the store's map."""
    with open(f'/proc/{pid}/status', encoding='ascii') as status:
        for line in status:
            if line.startswith('RssAnon:'):
                return int(line.split()[1]) * 1024
    return 0


class Soak:
    def __init__(self, tap, rng, kvd, clients):
        self.tap, self.rng, self.kvd, self.clients = tap, rng, kvd, clients
        self.child = child_of(kvd)
        self.started, self.bound = ('evict', MEMORY), MEMORY  # the first by each life anew
        self.full, self.phase = 'evict', 0
        self.larger = {}  # values by their keys, and the phase in which they were written
        self.counted = dict.fromkeys(('kills', 'restarts', 'scans', 'resizes', 'backups',
                                      'turns'), 0)
        self.wrong = []
        self.seen = dict.fromkeys(SEEN, 0)  # of the lives before

    def life_over(self):
        with self.kvd.connect() as connection:
            rows = numbers(connection, 'everything')
        for name in SEEN:
            self.seen[name] += rows[name]

    def note(self, condition, text):
        """Told once it is over: there may be thousands."""
        if not condition:
            self.wrong.append(text)
            self.tap.diag(f'wrong: {text}')

    def begin_phase(self, full):
        """Told before keys may go, and when none may any more."""
        self.phase += 1 if (self.phase % 2 == 1) != (full == 'spill') else 2
        self.clients.tell(f'phase {self.phase}')
        self.full = full

    def until(self, name, least):
        """This life has counted so much of the kind."""
        def seen():
            with self.kvd.connect() as connection:
                return numbers(connection, 'everything')[name] >= least
        wait_until(seen, name, TIMEOUT_S * 2)

    # ---- what may happen ----

    def pause(self):
        time.sleep(0.05 + self.rng.random() / 2)  # how long it goes on; nothing is awaited by it

    def kill_kvd(self):
        """The region is kept."""
        self.life_over()
        full, memory = self.started
        if full == 'evict':
            self.begin_phase(full)
        os.kill(self.child, signal.SIGKILL)
        self.counted['kills'] += 1
        before, self.child = self.child, None

        def serves():
            try:
                self.child = child_of(self.kvd)
            except (OSError, EOFError):
                return False
            return self.child != before
        wait_until(serves, 'kvd to be started again', TIMEOUT_S * 2)
        self.bound = memory
        if full != self.full:
            self.begin_phase(full)

    def kill_all(self):
        """The region is lost: the store has everything."""
        self.life_over()
        self.kvd.process.kill()
        try:
            os.kill(self.child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.kvd.process.wait()
        self.kvd.process = None
        self.counted['kills'] += 1
        self.begin_again()

    def restart(self):
        self.life_over()
        self.note(self.kvd.stop() == 0, 'kvd does not stop in order')
        self.counted['restarts'] += 1
        self.begin_again()

    def begin_again(self):
        # Whoever had the folder may need a moment to be gone.
        def gone():
            return not os.path.exists(f'/proc/{self.child}')
        wait_until(gone, 'the former kvd to be gone')
        full = self.other()
        if full == 'evict':
            self.begin_phase(full)
        # What was accepted with a higher bound is loaded with no lower one.
        self.kvd.start(*options(MOST, full))
        self.child = child_of(self.kvd)
        self.started, self.bound = (full, MOST), MOST
        if full != self.full:
            self.begin_phase(full)

    def other(self):
        return 'spill' if self.full == 'evict' else 'evict'

    def take_turns(self):
        """What goes is another: values, or keys."""
        full = self.other()
        if self.bound < LEAST[full]:
            self.resize(LEAST[full])  # stubs stay
        if full == 'evict':
            self.begin_phase(full)
        settings = [('evict-never', NEVER[full]), ('when-full', full)]
        if full == 'spill':
            settings.reverse()  # what is spared is, for as long as keys may go
        with self.kvd.connect() as connection:
            for name, value in settings:
                said = connection.command('CONFIG', 'SET', name, value)
                self.note(said == 'OK', f'{name} {value}: {said}')
        if full != self.full:
            self.begin_phase(full)
        self.counted['turns'] += 1

    def write_larger(self):
        """So large that much has to go for it."""
        key = f'cache:larger{self.rng.randrange(LARGER)}'
        value = self.rng.randbytes(1000) * (self.bound // self.rng.randrange(9, 16) // 1000)
        with self.kvd.connect() as connection:
            said = connection.command('SET', key, value)
        self.note(said == 'OK', f'{key} of {len(value)} bytes: {said}')
        self.larger[key] = value, self.phase
        self.read_larger()

    def read_larger(self):
        with self.kvd.connect() as connection:
            for key, (value, phase) in self.larger.items():
                found = connection.command('GET', key)
                gone = found is None and (phase % 2 == 0 or phase != self.phase)
                self.note(found == value or gone, f'{key} is not what it was')

    def collide(self):
        """Whoever is let in can make keys collide; the table then has another hash key, for which
        others' keys or values go where memory is full."""
        with self.kvd.connect() as connection:
            region = attached_file(connection)
            before = numbers(connection, 'everything')['table_reseeds']

            def rebuilt():
                keys = list(colliding(region_seed(region), 0, COLLIDING))
                said = connection.pipeline([('SET', key, 'c') for key in keys])
                found = connection.command('MGET', *keys)
                self.note(said == ['OK'] * len(keys), f'keys that collide: {set(map(str, said))}')
                self.note(set(found) == {b'c'} or self.full == 'evict', 'they are not there')
                connection.command('DEL', *keys)
                return numbers(connection, 'everything')['table_reseeds'] > before
            wait_until(rebuilt, 'another hash key', TIMEOUT_S * 2)
            os.close(region)

    def kill_reader(self):
        self.clients.tell('kill')

    def change_mode(self):
        self.clients.tell('mode ' + self.rng.choice(('churn', 'churn', 'grow', 'shrink')))

    def resize(self, bound=None):
        bound = bound or self.rng.randrange(LEAST[self.full], MOST) // MIB * MIB
        with self.kvd.connect() as connection:
            said = connection.command('CONFIG', 'SET', 'maxmemory', bound)
        much = 'would be too few' in str(said)
        self.note(said == 'OK' or much, f'maxmemory {bound}: {said}')
        if said == 'OK':
            self.bound = bound
            self.counted['resizes'] += 1
        return said == 'OK'

    def squeeze(self):
        """As little memory as what is stored lets it be: it is full soon."""
        for bound in range(LEAST[self.full], self.bound, 2 * MIB):
            if self.resize(bound):
                break

    def backup(self):
        name = f'soak{self.counted["backups"]}'
        made = self.kvd.kvctl('backup', os.path.join(self.kvd.root, name))
        given_up = b'writes come faster than the disk takes the backup' in made.stderr
        self.note(made.returncode == 0 or given_up, f'backup: {made.stderr[-300:]}')
        self.counted['backups'] += 1

    def verify(self):
        said = self.kvd.kvctl('verify')
        self.note(said.returncode == 0, f'verify: {said.stdout[-300:]} {said.stderr[-300:]}')

    # ---- what must be then ----

    def fresh_scan(self):
        """Everybody waits: what is counted, what there is, and what each key must be."""
        self.note(self.clients.tell('park') == 'ok', 'not everybody was answered')
        with self.kvd.connect() as connection:
            self.settle(connection)
            said = connection.command('DEBUG', 'RECOUNT')
            self.note(isinstance(said, int), f'a fresh scan: {said}')
        self.read_larger()
        before = self.clients.status()
        self.clients.tell('sweep')
        after = self.clients.status()
        self.note(after['unreachable'] == before['unreachable'] and
                  after['unjudged'] == before['unjudged'], 'a key could not be judged')
        self.counted['scans'] += 1
        self.clients.tell('resume')

    def settle(self, connection):
        def stands():
            memory = json.loads(connection.command('KVD.MEMORY'))
            file = memory['file']
            seen.update(bound=memory['bound_bytes'], blocks=os.fstat(region).st_blocks * 512,
                        counted=file['expected_bytes'])
            if seen['bound'] != self.bound:
                connection.command('SET', 'cache:', '')  # memory is wanted: readers are not awaited
            return file['exact'] and seen['bound'] == self.bound and \
                seen['blocks'] == seen['counted']

        seen = {}
        region = attached_file(connection)
        try:
            wait_until(stands, 'pages and bound')
        except TimeoutError:
            self.note(False, f'the bound is to be {self.bound}, pages as counted: {seen}')
        os.close(region)

    def measure(self):
        """kvd's own memory without what it counts itself."""
        self.fresh_scan()
        with self.kvd.connect() as connection:
            rows = numbers(connection, 'everything')
        return own_bytes(self.child) - rows['memory_expiry_bytes'] - rows['cold_loading_bytes']

    def act(self, may_end):
        chances = [(self.pause, 6), (self.kill_reader, 3), (self.change_mode, 3),
                   (self.resize, 4), (self.fresh_scan, 2), (self.verify, 1), (self.backup, 1),
                   (self.take_turns, 2), (self.write_larger, 3), (self.collide, 2)]
        if may_end:
            chances += [(self.kill_kvd, 4), (self.kill_all, 1), (self.restart, 1)]
        actions, weights = zip(*chances)
        action = self.rng.choices(actions, weights)[0]
        action()
        if action in (self.kill_kvd, self.kill_all, self.restart):
            self.fresh_scan()


def run(soak, actions, seconds):
    """Two thirds with kills of kvd; then one life, whose own memory is looked at."""
    for action in (soak.collide, soak.write_larger, soak.kill_kvd, soak.resize, soak.take_turns,
                   soak.fresh_scan, soak.kill_all, soak.fresh_scan):
        action()  # in any case
    began = time.monotonic()
    done = 0
    while done < actions * 2 / 3 or time.monotonic() - began < seconds * 2 / 3:
        soak.act(True)
        done += 1
    if soak.full != 'spill':
        soak.take_turns()
    soak.clients.tell('mode churn')
    soak.squeeze()
    soak.until('values_spilled', 1)
    soak.until('cold_promotions', 1)
    soak.restart()
    for mode, name, least in (('churn', 'keys_evicted', 1), ('grow', 'keys', KEYS_GROWN),
                              ('shrink', 'table_merges', 1), ('churn', 'keys_expired', 1)):
        soak.clients.tell('mode ' + mode)
        soak.until(name, least)
    for action in (soak.backup, soak.verify, soak.resize, soak.take_turns):
        action()
    while done < actions * 5 / 6 or time.monotonic() - began < seconds * 5 / 6:
        soak.act(False)
        done += 1
    warm = soak.measure()
    while done < actions or time.monotonic() - began < seconds:
        soak.act(False)
        done += 1
    return warm, soak.measure(), int(time.monotonic() - began)


def main():
    tap = Tap()
    rng = seed()
    actions = int(os.environ.get('KVD_TEST_ACTIONS', '30'))
    seconds = int(os.environ.get('KVD_TEST_SOAK_SECONDS', '0'))
    with Kvd(*options(MEMORY, 'evict')) as kvd:
        clients = Clients(kvd, rng.randrange(1 << 48))
        soak = Soak(tap, rng, kvd, clients)
        warm, last, took = run(soak, actions, seconds)
        soak.life_over()
        found = clients.status()
        tap.diag(', '.join(f'{name} {value}' for name, value in found.items()))
        tap.diag(', '.join(f'{name} {value}' for name, value in soak.counted.items()))
        tap.diag(', '.join(f'{name} {value}' for name, value in soak.seen.items()))
        tap.diag(f'own memory without what is counted: {warm}, at the end {last}')
        tap.diag(f'counted daemon-kills {soak.counted["kills"]}')
        tap.diag(f'counted fresh-scans {soak.counted["scans"]}')
        tap.diag(f'counted soak-seconds {took}')
        tap.equal(soak.wrong, [], 'E, F, G: all was as it must be')
        for name in BAD:
            tap.equal(found[name], 0, f'A, B, E, F: {name}')
        tap.ok(last <= warm + HEAT_BYTES + COMMIT_BYTES + MALLOC_BYTES,
               'G: kvd\'s own memory does not grow')
        tap.equal(clients.end(), 0, 'the clients end in order')
        tap.equal(kvd.stop(), 0, 'kvd stops in order')
    tap.done()


main()
