#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Stuck, detached and vanished readers: each is seen by its name, none holds anybody up for ever.

The deadlines are so long that kvd takes nothing back by itself: what is told here is what it knows,
and what KVD.READERS KICK does. The processes (reader.c) do what they are told, line by line.
"""
import json
import os
import select
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import TIMEOUT_S, Kvd, Tap, wait_until  # noqa: E402

PROGRAM = sys.argv[1]
OK, REVOKED = 0, -1
BIG = 1 << 20
KICKS = 30
KICKS_MOST = 3000  # as many as it takes to meet an open section


class Reader:
    """A process that reads as told."""

    def __init__(self, kvd, name=None, wrapper=(), socket=None):
        self.process = subprocess.Popen(
            [*wrapper, PROGRAM, socket or kvd.socket], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if wrapper else None, bufsize=0)
        self.buffer = b''
        self.pid = int(self.line())
        self.name = name
        if name:
            self.opened = self.tell('open', name)
            self.tell('get', 'key')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def send(self, *words):
        self.process.stdin.write(' '.join(words).encode() + b'\n')

    def line(self):
        while b'\n' not in self.buffer:
            if not select.select([self.process.stdout], [], [], TIMEOUT_S * 4)[0]:
                raise TimeoutError('a reader does not answer')
            data = os.read(self.process.stdout.fileno(), 4096)
            if not data:
                raise EOFError('a reader has ended')
            self.buffer += data
        line, self.buffer = self.buffer.split(b'\n', 1)
        return line.decode()

    def tell(self, *words):
        self.send(*words)
        return int(self.line())


def told(client):
    """(what is told of all, rows)"""
    flat = client.command('KVD.READERS')
    head = dict(zip(flat[::2], flat[1::2]))
    rows = [{k.decode(): v for k, v in zip(row[::2], row[1::2])} for row in head[b'readers']]
    return {k.decode(): v for k, v in head.items()}, rows


def row_of(client, name):
    found = [row for row in told(client)[1] if row['name'] == name.encode()]
    return found[0] if found else None


def settled(client, name, count):
    """Its row once kvd has seen that so many of its sections are open."""
    wait_until(lambda: (row_of(client, name) or {}).get('open') == count,
               f'{name} has {count} open')
    return row_of(client, name)


def write_big(client, letter):
    client.command('SET', 'big', letter * BIG)


def holding(client, name):
    """Its row once kvd has seen that it holds the big value back."""
    wait_until(lambda: row_of(client, name)['held_bytes'] >= BIG, f'{name} holds memory back')
    return row_of(client, name)


def is_free(client):
    return told(client)[0]['waiting_bytes'] == 0


def stuck(tap, kvd, client):
    with Reader(kvd, 'stuck-one') as reader, Reader(kvd, 'fine') as fine:
        reader.tell('begin')
        tap.equal(reader.tell('view', 'big'), OK, 'a view is open')
        tap.equal(row_of(client, 'stuck-one')['held_bytes'], 0, 'that nobody waits for')
        write_big(client, b'b')
        wait_until(lambda: row_of(client, 'stuck-one')['epochs_behind'] > 0, 'another epoch')
        fine.tell('begin')
        settled(client, 'fine', 1)
        head, rows = told(client)
        tap.equal((rows[0]['name'], rows[0]['state'], rows[0]['pid'], rows[0]['open']),
                  (b'stuck-one', b'attached', reader.pid, 1),
                  'D: who holds the oldest grace period stands first, by its name')
        tap.ok(rows[0]['held_bytes'] >= BIG and head['waiting_bytes'] >= BIG,
               'D: with what it holds back')
        tap.ok(rows[0]['epochs_behind'] > 0 and rows[0]['uid'] == os.getuid(), 'and since when')
        tap.equal((rows[1]['name'], rows[1]['open'], rows[1]['held_bytes']), (b'fine', 1, 0),
                  'one that began later holds nothing back')
        tap.equal(head['attached'], 2, 'all are counted')
        wait_until(lambda: row_of(client, 'stuck-one')['age_us'] > 100000, 'it grows older')
        wait_until(lambda: "name 'stuck-one') has had a view open" in kvd.log(), 'the log tells')
        lines = kvd.kvctl('readers').stdout.decode().splitlines()
        table = [dict(zip(lines[0].split('\t'), line.split('\t'))) for line in lines[1:]]
        tap.ok(table[0]['name'] == 'stuck-one' and int(table[0]['held_bytes']) >= BIG,
               'kvctl readers tells the same')
        rows = [json.loads(line) for line in kvd.kvctl('--json', 'readers').stdout.splitlines()]
        tap.ok(rows[0]['name'] == 'stuck-one' and rows[0]['short_deadline'] is False and
               set(rows[0]) == set(table[0]), 'as JSON too')
        got = kvd.kvctl('readers', 'kick', reader.pid)
        tap.equal((got.returncode, got.stdout), (0, b'1 detached, 1 open views taken back\n'),
                  'D: kick')
        wait_until(lambda: is_free(client), 'memory comes free')
        tap.equal(reader.tell('end'), REVOKED, 'B: the reader learns it')
        tap.equal((reader.tell('get', 'big'), reader.tell('mapped')), (OK, 1),
                  'and attaches anew')
        tap.equal(fine.tell('end'), OK, 'B: nobody else is hurt')
        tap.ok('was kicked by client' in kvd.log(), 'the log tells who did it')


def refusals(tap, kvd, client):
    for words in (('KICK',), ('KICK', 'PID'), ('KICK', 'NAME', '1'), ('LIST',),
                  ('KICK', 'ID', '1', '2')):
        tap.ok('syntax error' in str(client.command('KVD.READERS', *words)), f'no {words}')
    for words in (('PID', 'x'), ('PID', '-1'), ('PID', str(1 << 40)), ('ID', '-5')):
        tap.ok('not an integer' in str(client.command('KVD.READERS', 'KICK', *words)),
               f'no {words}')
    for words in (('PID', kvd.pid), ('ID', 0)):
        tap.ok('kvd itself' in str(client.command('KVD.READERS', 'KICK', *words)),
               'kvd is not kicked')
    tap.ok(b'kvd itself' in kvd.kvctl('readers', 'kick', kvd.pid).stderr, 'nor by kvctl')
    tap.equal(client.command('KVD.READERS', 'KICK', 'PID', 1), [0, 0], 'who is not attached')
    got = kvd.kvctl('readers', 'kick', 'id:999999')
    tap.ok(got.returncode == 1 and b'no such reader' in got.stderr, 'kvctl: status 1')
    for words in (('kick',), ('kick', 'x'), ('kick', 'id:'), ('list',)):
        tap.equal(kvd.kvctl('readers', *words).returncode, 2, f'kvctl readers {words}: usage')
    own = row_of(client, 'kvd')
    tap.equal((own['id'], own['pid'], own['state']), (0, kvd.pid, b'kvd'), 'kvd is listed')


def stopped(tap, kvd, client):
    """SIGSTOP, as a debugger or a frozen container does it."""
    with Reader(kvd, 'stopped') as reader:
        reader.tell('begin')
        reader.tell('view', 'big')
        os.kill(reader.pid, signal.SIGSTOP)
        write_big(client, b'c')
        tap.ok(holding(client, 'stopped')['open'] == 1, 'D: a stopped process is seen')
        os.kill(reader.pid, signal.SIGCONT)
        tap.equal(reader.tell('end'), OK, 'B: continued in time its view is good')
        reader.tell('begin')
        reader.tell('view', 'big')
        os.kill(reader.pid, signal.SIGSTOP)
        write_big(client, b'd')
        tap.equal(client.command('KVD.READERS', 'KICK', 'PID', reader.pid), [1, 1],
                  'D: kicked while it is stopped')
        wait_until(lambda: is_free(client), 'memory comes free')
        write_big(client, b'e')
        os.kill(reader.pid, signal.SIGCONT)
        tap.equal(reader.tell('end'), REVOKED, 'B: continued it learns it')
        tap.equal(reader.tell('get', 'big'), OK, 'and goes on')


def detached(tap, kvd, client):
    """The connection ends, the process lives."""
    with Reader(kvd, 'closer') as reader:
        reader.tell('begin')
        reader.tell('view', 'big')
        reader.tell('closefrom')
        wait_until(lambda: row_of(client, 'closer')['state'] == b'detached', 'it is detached')
        write_big(client, b'f')
        settled(client, 'closer', 1)
        row = holding(client, 'closer')
        tap.ok(row['held_bytes'] >= BIG and row['pid'] == reader.pid,
               'B: after closefrom() its view is honoured, under its name')
        tap.equal(reader.tell('end'), OK, 'B: and good to its end')
        wait_until(lambda: row_of(client, 'closer') is None, 'then its pages go')
        tap.equal((reader.tell('get', 'big'), reader.tell('mapped')), (OK, 1),
                  'it attaches anew')
        tap.equal(row_of(client, 'closer')['state'], b'attached', 'and is listed again')

        reader.tell('begin')
        reader.tell('view', 'big')
        reader.send('exec')
        tap.equal(int(reader.line()), reader.pid, 'exec() with a view open')
        wait_until(lambda: row_of(client, 'closer')['state'] == b'detached', 'it is detached')
        row = settled(client, 'closer', 1)
        tap.equal(row['pid'], reader.pid, 'a view that nobody will end')
        tap.equal(kvd.kvctl('readers', 'kick', 'id:%d' % row['id']).returncode, 0,
                  'is taken back by its id')
        tap.equal(row_of(client, 'closer'), None, 'D: and gone')
        tap.equal((reader.tell('open', 'new'), reader.tell('get', 'big')), (OK, OK),
                  'the new program reads')
    wait_until(lambda: told(client)[0]['attached'] == 0, 'D: the dead are gone at once')


def forked(tap, kvd, client):
    with Reader(kvd, 'parent') as reader:
        reader.tell('begin')
        reader.tell('view', 'big')
        reader.send('fork', 'big')
        child, ended, status = map(int, reader.line().split())
        tap.equal((ended, status), (REVOKED, OK), "B: a child has none of its parent's views")
        wait_until(lambda: sorted((row['pid'], row['open']) for row in told(client)[1]
                                  if row['name'] == b'parent') ==
                   sorted(((reader.pid, 1), (child, 0))), 'both are listed')
        tap.equal(client.command('KVD.READERS', 'KICK', 'PID', child), [1, 0],
                  'the child is kicked')
        tap.equal(reader.tell('end'), OK, 'B: not its parent')
        tap.equal(reader.tell('reap'), 0, 'the child ends')
        tap.equal(reader.tell('churn', 'big'), 0, 'threads come and go, 40 at a time')
        row = settled(client, 'parent', 0)
        tap.ok(1 <= row['pages'] <= 3,
               f"G: in {row['pages']} pages, which they leave to each other")


def raced(tap, kvd, client):
    """Kicked at random moments while memory is used again at once: nothing false is accepted."""
    with Reader(kvd, 'racer') as reader:
        reader.tell('read', 'big')
        revoked = kicks = 0
        for count in range(KICKS_MOST):
            if count >= KICKS and revoked > 0:
                break
            kicks += 1
            wait_until(lambda: row_of(client, 'racer') is not None, 'it reads on')
            for letter in range(4):
                write_big(client, bytes((65 + (4 * count + letter) % 26,)))
            revoked += client.command('KVD.READERS', 'KICK', 'PID', reader.pid)[1]
            write_big(client, b'z')
        reader.send('stop')
        good, learnt, torn = map(int, reader.line().split())
        reader.line()
        tap.diag(f'{good} good sections, {revoked} of {kicks} kicks met an open one, '
                 f'{learnt} were told')
        tap.ok(good > 0 and torn == 0, 'B: no section that ended well saw anything false')
        tap.ok(0 < learnt <= revoked, 'B: and those that were taken back were told')


def namespaced(tap, kvd, client):
    """A container: another pid namespace, and nothing of kvd's but its socket."""
    alone = os.path.join(kvd.root, 'alone.sock')
    script = ('touch "$1" && mount --bind "$2" "$1" && mount -t tmpfs none "$3" && '
              'exec "$4" "$1"')
    wrapper = ['unshare', '--pid', '--mount', '--fork', '--kill-child']
    if not shutil.which('unshare') or subprocess.run(
            [*wrapper, 'sh', '-c', 'mount -t tmpfs none /mnt'], check=False, timeout=TIMEOUT_S,
            stderr=subprocess.DEVNULL).returncode != 0:
        tap.skip('a client in a container', 'namespaces are not permitted here')
        return
    wrapper += ['sh', '-c', script, 'sh', alone, kvd.socket, kvd.dir]
    with Reader(kvd, 'contained', wrapper, alone) as reader:
        tap.equal((reader.pid, reader.opened, reader.tell('mapped')), (1, OK, 1),
                  'a client in another pid namespace, with only the socket, is mapped')
        reader.tell('begin')
        reader.tell('view', 'big')
        write_big(client, b'n')
        settled(client, 'contained', 1)
        row = holding(client, 'contained')
        tap.ok(row['pid'] > 1 and row['held_bytes'] >= BIG,
               'D: it is seen, by the pid that it has here')
        tap.equal(kvd.kvctl('readers', 'kick', row['pid']).returncode, 0, 'and kicked by that')
        tap.equal(reader.tell('end'), REVOKED, 'B: it learns it')
        reader.tell('get', 'big')
        reader.tell('begin')
        os.kill(row['pid'], signal.SIGKILL)
        wait_until(lambda: row_of(client, 'contained') is None, 'D: its death is noticed')


def outlived(tap):
    """A kvd that took the region over knows nothing of sections begun before, but that they are."""
    with Kvd('--supervise', '--persist', 'memory', '--memory', '64MiB', '--segment', '256KiB',
             '--revoke', '600s', '--revoke-min', '600s') as kvd:
        with kvd.connect() as client:
            write_big(client, b'a')
            pid = json.loads(client.command('KVD.STATS'))['pid']
            with Reader(kvd, 'survivor') as reader:
                tap.ok(row_of(client, 'kvd') and reader.tell('begin') == OK and
                       reader.tell('view', 'big') == OK, 'a view is open')
                os.kill(pid, signal.SIGKILL)
                kvd.wait_ready()
                with kvd.connect() as heir:
                    write_big(heir, b'b')
                    row = told(heir)[1][0]
                    tap.equal((row['state'], row['pid'], row['id']), (b'earlier', -1, 0),
                              'F: whom an earlier kvd had stands first')
                    tap.ok(row['held_bytes'] >= BIG and row['epochs_behind'] > 0,
                           'with what may be read and waits for them')
                    wait_until(lambda: told(heir)[1][0]['age_us'] > row['age_us'], 'for so long')
                    rows = kvd.kvctl('readers').stdout.split(b'\n')
                    tap.ok(b'\tearlier\t' in rows[1], 'kvctl tells it')
                    tap.equal(reader.tell('end'), OK, 'F: its view is good')
                    tap.equal(reader.tell('get', 'big'), OK, 'it reads on')


def lowered(tap):
    """A bound that waits for a reader is accepted, kvd says why it is not reached, and no more keys
    go for it than it takes once the reader is done."""
    value, bound = 'v' * 1000, 12 << 20
    with Kvd('--memory', '32MiB', '--segment', '64KiB', '--persist', 'memory', '--when-full',
             'evict', '--on-stuck', 'block') as kvd, kvd.connect() as client, \
            Reader(kvd, 'lowering') as reader:
        client.command('SET', 'big', 'v' * BIG)
        for at in range(0, 20000, 500):
            client.pipeline([('SET', f'key{n}', value) for n in range(at, at + 500)])

        def field(name, section='everything'):
            rows = dict(line.split(b':', 1) for line in
                        client.command('INFO', section).split(b'\r\n') if b':' in line)
            return rows[name.encode()].decode()

        tap.equal(field('maxmemory_waits_for'), 'nothing', 'a bound that holds waits for nothing')
        reader.tell('begin')
        tap.equal(reader.tell('view', 'big'), OK, 'a view is open')
        tap.equal(client.command('CONFIG', 'SET', 'maxmemory', bound), 'OK', 'less is accepted')
        wait_until(lambda: 'is to be bounded by' in kvd.log(), 'a line of the log')
        tap.ok('what came free waits for readers' in kvd.log() and
               field('maxmemory_waits_for') == 'readers' and
               int(field('memory_limit_bytes')) > bound, 'G: it is told what it waits for')
        memory = json.loads(client.command('KVD.MEMORY'))
        tap.ok(memory['wanted_bytes'] == bound and 'readers' in memory['bound_waits_for'],
               f'in KVD.MEMORY, too: {memory["bound_waits_for"]}')
        found = kvd.kvctl('doctor', '--json').stdout
        tap.ok(b'the bound is to be' in found, 'and by the doctor')
        gone = int(field('keys_evicted'))
        reader.tell('end')
        wait_until(lambda: int(field('memory_limit_bytes')) == bound, 'the bound to come down')
        tap.equal(field('maxmemory_waits_for'), 'nothing', 'with the reader it is reached')
        left = client.command('DBSIZE')
        tap.ok(left * 1040 > bound // 2,
               f'G: no more went than was wanted: {gone}, then {20001 - left}, {left} are left')


def main():
    tap = Tap()
    with Kvd('--persist', 'memory', '--memory', '64MiB', '--segment', '256KiB', '--revoke', '600s',
             '--revoke-min', '600s') as kvd:
        client = kvd.connect()
        client.command('SET', 'key', 'value')
        write_big(client, b'a')
        for part in (stuck, stopped, detached, forked, raced, namespaced):
            part(tap, kvd, client)
            wait_until(lambda: is_free(client), 'nothing waits any more')
        refusals(tap, kvd, client)
    outlived(tap)
    lowered(tap)
    tap.done()


main()
