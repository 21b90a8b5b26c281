#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""kvd.gen: nobody maps it, so whatever is done to it ends neither kvd nor a reader (F, G); kvd
writes it again; readers of a region that is no more learn of the next one all the same (A); and it
names the region, so that folders that count alike are not taken for each other (E).
"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import KVCTL_PROGRAM, TIMEOUT_S, Kvd, Tap, wait_until  # noqa: E402

PROGRAM = sys.argv[1]
OK, NOT_FOUND = 0, 1
PAGE = 4096
SMALL = ('--memory', '24MiB', '--segment', '256KiB')


class Reader:
    """A process that reads as told (reader.c)."""

    def __init__(self, kvd):
        self.process = subprocess.Popen([PROGRAM, kvd.socket], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, bufsize=1)
        self.pid = int(self.process.stdout.readline())
        self.opened = self.tell('open', 'reader')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def send(self, *words):
        self.process.stdin.write(' '.join(words) + '\n')

    def tell(self, *words):
        self.send(*words)
        return int(self.process.stdout.readline())

    def read_on(self):
        """Sections one after the other, until stop_reading()."""
        return self.tell('read', 'key') == 0

    def stop_reading(self):
        """(good sections, revoked, with torn values)"""
        self.send('')
        counts = tuple(int(word) for word in self.process.stdout.readline().split())
        self.process.stdout.readline()  # it did not know what '' means
        return counts

    def lives(self):
        return self.process.poll() is None


def path(kvd):
    return os.path.join(kvd.dir, 'kvd.gen')


def words(kvd):
    """generation, version, named, instance"""
    with open(path(kvd), 'rb') as file:
        data = file.read(32)
    return [int.from_bytes(data[i:i + 8], sys.byteorder) for i in range(0, 32, 8)]


def maps_it(pid):
    with open(f'/proc/{pid}/maps', encoding='utf-8') as maps:
        return any('kvd.gen' in line for line in maps)


def cut(kvd):
    os.truncate(path(kvd), 0)


def garbage(kvd):
    with open(path(kvd), 'r+b') as file:
        file.write(b'\xa5' * PAGE)


def remove(kvd):
    os.unlink(path(kvd))


def written_again(kvd, connection, wanted):
    """kvd looks when it has something to do anyway."""
    def is_so():
        connection.command('PING')
        return os.path.getsize(path(kvd)) == PAGE and words(kvd) == wanted
    try:
        wait_until(is_so, 'kvd.gen is written again')
        return True
    except TimeoutError:
        return False


def harmed(tap, harm, policy):
    """Under a reader that reads, and under kvd; then kvd goes as well, and another comes."""
    name = f'kvd.gen, {harm.__name__}, {policy}'
    with Kvd(*SMALL, '--persist', policy) as kvd, kvd.connect() as connection, \
            Reader(kvd) as reader:
        connection.command('SET', 'key', 'x' * 100)
        tap.equal(reader.tell('get', 'key'), OK, f'{name}: a reader')
        tap.ok(not maps_it(kvd.pid) and not maps_it(reader.pid), f'G: {name}: nobody maps it')
        said = words(kvd)
        reader.read_on()
        harm(kvd)
        tap.equal(connection.command('SET', 'key', 'y' * 100), 'OK', f'G: {name}: kvd serves on')
        with Reader(kvd) as other:
            tap.equal((other.opened, other.tell('get', 'key'), other.tell('mapped')), (0, OK, 1),
                      f'F: {name}: readers that come attach')
        if harm is remove:
            tap.ok(not os.path.exists(path(kvd)), f'{name}: a file that is gone stays gone')
        else:
            tap.ok(written_again(kvd, connection, said), f'F: {name}: kvd writes it again')
            harm(kvd)
        good, revoked, torn = reader.stop_reading()
        tap.ok(good > 0 and (revoked, torn) == (0, 0), f'F: {name}: {good} good sections')
        reader.read_on()
        kvd.kill()
        good, revoked, torn = reader.stop_reading()
        tap.ok(reader.lives() and (revoked, torn) == (0, 0), f'F: {name}: kvd is killed')
        if harm is not garbage:  # which says that another region serves
            tap.equal(reader.tell('get', 'key'), OK, f'F: {name}: and is read on')
        kvd.start(*SMALL, '--persist', 'memory')  # nothing comes back
        wait_until(lambda: reader.tell('get', 'key') == NOT_FOUND,
                   'the reader sees the next region')
        tap.equal(reader.tell('mapped'), 1, f'A: {name}: the next region is seen and mapped')


def has_it_open(pid):
    folder = f'/proc/{pid}/fd'
    for fd in os.listdir(folder):
        try:
            if os.readlink(os.path.join(folder, fd)).endswith('/kvd.gen'):
                return True
        except FileNotFoundError:
            pass  # it was closed since it was listed
    return False


def descriptors_closed(tap):
    with Kvd(*SMALL, '--persist', 'memory') as kvd, kvd.connect() as connection, \
            Reader(kvd) as reader:
        connection.command('SET', 'key', 'x' * 100)
        reader.tell('get', 'key')
        reader.tell('closefrom')
        tap.equal(reader.tell('get', 'key'), OK, 'C: an application closes all descriptors')
        wait_until(lambda: reader.tell('get', 'key') == OK and has_it_open(reader.pid),
                   'kvd sees that it hung up, and it attaches again')
        kvd.kill()
        tap.equal([reader.tell('get', 'key') for _ in range(10)], [OK] * 10,
                  'F: kvd is killed: it reads on')
        kvd.start()
        with kvd.connect() as again:
            again.command('SET', 'key', 'y')
        wait_until(lambda: reader.tell('get', 'none') == NOT_FOUND and reader.tell('mapped') == 1,
                   'it attaches anew')
        tap.equal(reader.tell('get', 'key'), OK, 'A: another kvd comes: that one is read')


def versions(tap):
    """No version is handed out twice, and the file is written rarely for that."""
    with Kvd(*SMALL, '--persist', 'memory') as kvd:
        with kvd.connect() as connection:
            first = connection.command('KVD.SET', 'key', 'x')
            before, stamp = words(kvd), os.stat(path(kvd)).st_mtime_ns
            last = connection.pipeline([('KVD.SET', b'key:%d' % i, 'x') for i in range(2000)])[-1]
        tap.ok(before[1] > last > first, 'A: versions are noted long before they are handed out')
        tap.equal((words(kvd), os.stat(path(kvd)).st_mtime_ns), (before, stamp),
                  'C: so 2000 writes cost no call')
        kvd.kill()
        kvd.start()
        with kvd.connect() as connection:
            tap.ok(connection.command('KVD.SET', 'key', 'x') > before[1], 'A: and the next life '
                   'begins above all of them')


def count_alike(tap):
    """Two folders, each served once. The region of one is offered to a kvd on the other."""
    with tempfile.TemporaryDirectory(dir=os.environ.get('TMPDIR')) as other, \
            KeptKvd(*SMALL, '--persist', 'group') as kvd:
        with kvd.connect() as connection:
            connection.command('SET', 'key', 'mine')
        kvd.stop()
        kvd.drop_kept()
        kvd.start(*SMALL, '--persist', 'group', '--dir', other, '--socket', kvd.socket)
        with kvd.connect() as connection:
            connection.command('SET', 'key', 'other')
        kvd.kill()
        kvd.start(*SMALL, '--persist', 'group')
        with kvd.connect() as connection:
            tap.equal(connection.command('GET', 'key'), b'mine', 'E: each folder has its data')
        tap.ok('this one has served from another folder' in kvd.log() or
               words(kvd)[0] == 2, 'E: and the log says why')


def restored_alike(tap):
    """A backup is of the region that is kept, so even the store's identity is the same."""
    with tempfile.TemporaryDirectory(dir=os.environ.get('TMPDIR')) as other, \
            KeptKvd(*SMALL, '--persist', 'group') as kvd:
        backup = os.path.join(kvd.root, 'backup')
        with kvd.connect() as connection:
            connection.command('SET', 'key', 'then')
            for command in (('--socket', kvd.socket, 'backup', backup),
                            ('restore', backup, other)):
                said = subprocess.run([KVCTL_PROGRAM, *command], capture_output=True, text=True,
                                      check=False, timeout=TIMEOUT_S * 4)
                tap.equal(said.returncode, 0, f'kvctl {command[-3]}: {said.stderr}')
            connection.command('SET', 'key', 'now')
        count = words(kvd)[0]
        kvd.kill()
        kvd.start(*SMALL, '--persist', 'group', '--dir', other, '--socket', kvd.socket)
        with kvd.connect() as connection:
            tap.equal(connection.command('GET', 'key'), b'then',
                      f'E: what was restored serves, though both folders count {count}')
        tap.ok('kvd.gen names another one' in kvd.log(), 'E: and the log says why')


def told_nothing(tap, harm):
    """kvd.gen is emptied, or goes, while kvd is down: what is kept serves on, and the log tells no
    story of another folder."""
    with KeptKvd(*SMALL, '--persist', 'memory') as kvd:
        with kvd.connect() as connection:
            connection.command('SET', 'key', 'mine')
        kvd.kill()
        before = len(kvd.log())
        harm(kvd)
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(connection.command('GET', 'key'), b'mine', f'F: {harm.__name__}: served on')
        said = kvd.log()[before:]
        tap.ok('does not tell that anything has served' in said and 'another folder, ' not in said,
               f'{harm.__name__}: the log says no more than is known')
        tap.equal(f'{path(kvd)} is too short' in said and 'stop kvd and what keeps' in said,
                  harm is cut, f'{harm.__name__}: a file of no bytes is named, and what to do')


def main():
    tap = Tap()
    for harm in (cut, remove):
        told_nothing(tap, harm)
    for policy in ('memory', 'group'):
        for harm in (cut, garbage, remove):
            harmed(tap, harm, policy)
    descriptors_closed(tap)
    versions(tap)
    count_alike(tap)
    restored_alike(tap)
    tap.done()


main()
