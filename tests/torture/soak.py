#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Everything at once, for long: a cache that is full under readers and writers, with times to live,
large values, evictions and a table that grows and shrinks; the bound on memory is moved, readers
and kvd are killed, kvd is restarted, backups are made and everything is verified.

  A  no read finds a value older than what was acknowledged, one never written, or one that ended
  B  every value read is whole
  E, F  nothing acknowledged is lost by kills and restarts, with the region kept or without it
  G  what kvd counts is what a fresh look at its region finds, the region's file has the pages that
     are counted and no others, and kvd's own memory does not grow

KVD_TEST_ACTIONS (30) is how much is done at least, KVD_TEST_SOAK_SECONDS (0) how long it goes on.
"""
import array
import json
import os
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import BUILD_ROOT, TIMEOUT_S, Kvd, Tap, seed, wait_until  # noqa: E402

CLIENTS = os.path.join(BUILD_ROOT, 'tests', 'torture', 'soak_clients')
MIB = 1 << 20
LEAST, MEMORY, MOST = 16 * MIB, 24 * MIB, 48 * MIB
SEEN = ('keys_evicted', 'keys_expired', 'cleaner_segments', 'table_splits', 'table_merges',
        'compaction_blocks')
KEYS_GROWN = 36000  # three times as many as are never removed by the hundred
BAD = ('missed', 'broken', 'old', 'unsent', 'dead', 'failed', 'writes_refused')
# Of kvd's own memory what may still come: reads counted in places that were not used before (two
# bits for 32 bytes of a log that spans twice the memory), the pages that LMDB keeps of the largest
# commit (8 MiB, and as much of compaction), and pieces that malloc() keeps.
HEAT_BYTES = MOST * 2 // 128
COMMIT_BYTES = 16 * MIB
MALLOC_BYTES = 4 * MIB


def options(memory):
    return ('--supervise', '--memory', memory, '--memory-max', MOST, '--segment', '256KiB',
            '--persist', 'group', '--when-full', 'evict', '--evict-never', 'keep:',
            '--revoke-min', '20ms', '--write-wait', '60s', '--compact-floor', '4MiB',
            '--memory-return', '1s', '--lazy-interval', '50ms')


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


def attached_file(connection):
    """The descriptor of the region, as any reader gets it."""
    connection.append('KVD.ATTACH')
    data, control, _, _ = connection.sock.recvmsg(1 << 16, socket.CMSG_SPACE(16 * 4))
    connection.buffer, connection.at = data, 0
    connection.reply()
    fds = array.array('i')
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
    region = None
    for fd in fds:
        if region is None and 'kvd-region' in os.readlink(f'/proc/self/fd/{fd}'):
            region = fd
        else:
            os.close(fd)
    return region


class Soak:
    def __init__(self, tap, rng, kvd, clients):
        self.tap, self.rng, self.kvd, self.clients = tap, rng, kvd, clients
        self.child = child_of(kvd)
        self.started = self.bound = MEMORY
        self.counted = dict.fromkeys(('kills', 'restarts', 'scans', 'resizes', 'backups'), 0)
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
        self.bound = self.started

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
        # What was accepted with a higher bound is loaded with no lower one.
        self.kvd.start(*options(MOST))
        self.child = child_of(self.kvd)
        self.started = self.bound = MOST

    def kill_reader(self):
        self.clients.tell('kill')

    def change_mode(self):
        self.clients.tell('mode ' + self.rng.choice(('churn', 'churn', 'grow', 'shrink')))

    def resize(self):
        bound = self.rng.randrange(LEAST, MOST) // MIB * MIB
        with self.kvd.connect() as connection:
            said = connection.command('CONFIG', 'SET', 'maxmemory', bound)
        self.note(said == 'OK', f'maxmemory {bound}: {said}')
        if said == 'OK':
            self.bound = bound
            self.counted['resizes'] += 1

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
            counted = numbers(connection, 'everything')['memory_expiry_bytes']
        return own_bytes(self.child) - counted

    def act(self, may_end):
        chances = [(self.pause, 6), (self.kill_reader, 3), (self.change_mode, 3),
                   (self.resize, 4), (self.fresh_scan, 2), (self.verify, 1), (self.backup, 1)]
        if may_end:
            chances += [(self.kill_kvd, 4), (self.kill_all, 1), (self.restart, 1)]
        actions, weights = zip(*chances)
        action = self.rng.choices(actions, weights)[0]
        action()
        if action in (self.kill_kvd, self.kill_all, self.restart):
            self.fresh_scan()


def run(soak, actions, seconds):
    """Two thirds with kills of kvd; then one life, whose own memory is looked at."""
    for action in (soak.kill_kvd, soak.resize, soak.fresh_scan, soak.kill_all, soak.fresh_scan):
        action()  # in any case
    began = time.monotonic()
    done = 0
    while done < actions * 2 / 3 or time.monotonic() - began < seconds * 2 / 3:
        soak.act(True)
        done += 1
    soak.restart()
    for mode, name, least in (('churn', 'keys_evicted', 1), ('grow', 'keys', KEYS_GROWN),
                              ('shrink', 'table_merges', 1), ('churn', 'keys_expired', 1)):
        soak.clients.tell('mode ' + mode)
        soak.until(name, least)
    for action in (soak.backup, soak.verify, soak.resize, soak.pause):
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
    with Kvd(*options(MEMORY)) as kvd:
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
