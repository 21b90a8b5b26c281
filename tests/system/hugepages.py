# SPDX-License-Identifier: MIT
#
# huge-pages, prefault and mlock: a region of huge pages of the system's pool serves, gives memory
# back, is taken over and read out as any other, and never wants a page more than it said. What the
# system does not grant is refused at the start, with the remedy, and what was kept stays.
import os
import re
import shutil
import signal
import subprocess
import sys

import hugepool
from kept import KeptKvd
from kvdtest import KVCTL_PROGRAM, Kvd, KvdFailed, Tap, wait_until

MEMORY = 64 << 20
SPARE = 8  # HUGETLB_SPARE_PAGES
WANTED = MEMORY // hugepool.PAGE + SPARE
SMALL = ('--memory', MEMORY, '--memory-max', 8 * MEMORY, '--lazy-interval', '20ms')
HUGE = SMALL + ('--huge-pages', 'hugetlb')
KEYS = 400
REVOKED = -1  # KVC_REVOKED


def memory(kvd):
    rows = kvd.kvctl('memory', check=True).stdout.decode().split('\n')
    return dict(row.split('\t', 1) for row in rows if row)


def failed_start(kvd, *args):
    """What it said at a start that is to fail."""
    before = len(kvd.log())
    try:
        kvd.start(*args)
    except KvdFailed as failed:
        return failed.status, failed.log[before:]
    return 0, ''


def fill(connection, stamp):
    connection.pipeline([('SET', b'key:%d' % i, b'%d:%d' % (stamp, i) + b'v' * 3000)
                         for i in range(KEYS)])
    connection.command('SET', 'large', b'%d' % stamp + b'L' * 5000000)


def is_filled(kvd, stamp):
    via = subprocess.run([KVCTL_PROGRAM, '--socket', kvd.socket, 'get', '--via', 'shm', 'large'],
                         capture_output=True, check=False).stdout
    with kvd.connect() as c:
        keys = [c.command('GET', b'key:%d' % i) for i in range(KEYS)]
        return (via == b'%d' % stamp + b'L' * 5000000 and
                keys == [b'%d:%d' % (stamp, i) + b'v' * 3000 for i in range(KEYS)])


def test_no_pool(tap):
    """More than there is, however much that is: the region that is kept stays."""
    with KeptKvd(*SMALL) as kvd:
        with kvd.connect() as c:
            fill(c, 1)
        kvd.kill()
        few = hugepool.available()
        size = max((few + 100) * hugepool.PAGE, MEMORY)
        wanted = size // hugepool.PAGE + SPARE
        status, said = failed_start(kvd, *HUGE, '--memory', size, '--memory-max', 2 * size)
        tap.equal(status, 71, 'a start for which there are too few huge pages fails')
        found = re.search(r'(\d+) huge pages of 2MiB are wanted.* (\d+) can be had: write (\d+) to '
                          r'/proc/sys/vm/nr_hugepages', said)
        tap.ok(found and int(found.group(1)) == wanted and
               int(found.group(3)) == hugepool.count('nr') + wanted - int(found.group(2)),
               'and names the setting, how many there are, and how many there should be')
        kvd.start(*SMALL)
        tap.ok(is_filled(kvd, 1), 'F: the region that was kept is still there')


def test_serves(tap):
    with KeptKvd(*HUGE) as kvd:
        rows = memory(kvd)
        tap.equal((rows['pages.kind'], rows['pages.prefault'], rows['file.exact']),
                  ('hugetlb', 'true', 'true'), 'it says what it has')
        tap.ok(rows['file.bytes'] == rows['file.expected_bytes'] == str(MEMORY),
               'all pages are there from the start, and counted')
        with kvd.connect() as c:
            fill(c, 1)
            tap.ok(is_filled(kvd, 1), 'A: it is written, and read through the mapping')
            refused = 0
            for i in range(60):
                replies = c.pipeline([('SET', f'turn:{i % 7}', b'x' * (700000 * (i % 7 + 1))),
                                      ('DEL', f'turn:{(i + 3) % 7}')])
                refused += replies[0] != 'OK'
            tap.equal(refused, 0, 'memory goes from small to large values and back')
            tap.ok(int(memory(kvd)['file.bytes']) <= MEMORY + SPARE * hugepool.PAGE,
                   'G: with the pages that were asked for')
            c.command('DEL', *[f'turn:{i}' for i in range(7)])
        test_bound(tap, kvd)
        kvd.kill()
        kvd.start()
        tap.ok('took over' in kvd.log() and is_filled(kvd, 1), 'E: it is taken over')
        wait_until(lambda: memory(kvd)['file.bytes'] == memory(kvd)['file.expected_bytes'],
                   'pages that the former life left are found')
        tap.ok(True, 'G: and every page is counted')
        test_other_pages(tap, kvd)
        kvd.drop_kept()


def test_bound(tap, kvd):
    with kvd.connect() as c:
        more = MEMORY + (hugepool.available() + 4 * SPARE) * hugepool.PAGE
        said = str(c.command('CONFIG', 'SET', 'maxmemory', more))
        tap.ok('can be had: write' in said and 'to /proc/sys/vm/nr_hugepages' in said,
               'more than the pool has is refused')
        tap.equal(c.command('CONFIG', 'GET', 'maxmemory')[1], b'%d' % MEMORY, 'nothing changed')
        wait_until(lambda: c.command('CONFIG', 'SET', 'maxmemory', MEMORY // 2) == 'OK',
                   'what was removed is gone')
        wait_until(lambda: int(memory(kvd)['file.bytes']) <= MEMORY // 2, 'pages go back')
        c.command('CONFIG', 'SET', 'maxmemory', MEMORY)
        wait_until(lambda: int(memory(kvd)['file.bytes']) > MEMORY - 2 * hugepool.PAGE,
                   'pages come again')
        tap.ok(True, 'G: pages go back to the pool with it, and come again')


def test_other_pages(tap, kvd):
    kvd.kill()
    kvd.start(*SMALL)
    tap.ok('of other pages' in kvd.log() and is_filled(kvd, 1),
           'F: it is read out into a region of small pages')
    with kvd.connect() as c:
        fill(c, 2)
    kvd.kill()
    kvd.start(*HUGE)
    tap.ok(is_filled(kvd, 2), 'F: and that one into huge pages again')


class Reader:
    """reader.c: a line each way."""

    def __init__(self, kvd):
        self.process = subprocess.Popen([sys.argv[1], kvd.socket], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, bufsize=0)
        self.process.stdout.readline()

    def tell(self, *words):
        self.process.stdin.write(' '.join(words).encode() + b'\n')
        return int(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def test_zeroes(tap):
    """What a reader of the life before looks at is not seen by looking whether it is zero."""
    with KeptKvd(*HUGE) as kvd:
        with kvd.connect() as c:
            c.command('SET', 'zeroes', bytes(6000000))
            reader = Reader(kvd)
            opened = [reader.tell('open', 'test'), reader.tell('begin'),
                      reader.tell('view', 'zeroes'), reader.tell('count')]
            c.pipeline([('SET', 'zeroes', 'replaced'), ('KVD.SYNC',)])
        kvd.kill()
        kvd.start()
        with kvd.connect() as c:
            replies = [c.command('SET', f'new:{i % 2}', b'x' * 6000000) for i in range(8)]
        changed, ended = reader.tell('count'), reader.tell('end')
        reader.end()
        kvd.drop_kept()
        tap.ok(opened == [0] * 4 and replies == ['OK'] * 8 and 'took over' in kvd.log() and
               (changed == 0 or ended == REVOKED),
               f'B: a view of zeroes is told when they change: {changed} bytes, {ended}')


def test_killed(tap):
    """Where pages come and go, in the middle of it."""
    for point in ('bound_lowered', 'limbo_given_back', 'value_arriving'):
        with KeptKvd(*HUGE, start=False) as kvd:
            kvd.env['KVD_CRASH_AT'] = point + ':2'
            kvd.start()
            acknowledged, status = 0, None
            with kvd.connect() as c:
                try:
                    while acknowledged < 400:
                        size = (900, 3000000, 60000)[acknowledged % 3]
                        if acknowledged % 20 == 19:
                            c.command('CONFIG', 'SET', 'maxmemory', MEMORY - MEMORY // 8)
                            c.command('CONFIG', 'SET', 'maxmemory', MEMORY)
                        sure = c.command('SET', f'key:{acknowledged % 7}', b'k' * size) == 'OK'
                        acknowledged += sure
                except (EOFError, OSError):
                    status = kvd.wait()
            if not tap.equal(status, -signal.SIGKILL, f'killed at {point}'):
                kvd.drop_kept()
                continue
            del kvd.env['KVD_CRASH_AT']
            kvd.start()
            with kvd.connect() as c:
                last = [c.command('STRLEN', f'key:{i % 7}')
                        for i in range(max(acknowledged - 7, 0), acknowledged)]
                wanted = [(900, 3000000, 60000)[i % 3]
                          for i in range(max(acknowledged - 7, 0), acknowledged)]
                wait_until(lambda: isinstance(c.command('DEBUG', 'RECOUNT'), int),
                           'all that is counted is what there is')
            kvd.drop_kept()
            tap.ok('took over' in kvd.log() and last[1:] == wanted[1:],
                   f'F, G: after {acknowledged} writes, which are there')


def test_prefault(tap):
    with Kvd(*SMALL, '--prefault', 'yes', '--memory-return', '20ms') as kvd:
        rows = memory(kvd)
        tap.ok(MEMORY - (3 << 20) < int(rows['file.bytes']) <= MEMORY and
               rows['pages.prefault'] == 'true', 'prefault: all memory is there from the start')
        with kvd.connect() as c:
            fill(c, 1)
            c.command('FLUSHALL')
        tap.ok(int(memory(kvd)['file.bytes']) <= MEMORY, 'G: and no more while it is used')
    with open('/proc/meminfo', encoding='ascii') as file:
        machine = int(re.search(r'MemTotal: *(\d+)', file.read()).group(1)) << 10
    with Kvd(start=False) as kvd:
        status, said = failed_start(kvd, '--memory', machine + (1 << 30), '--prefault', 'yes')
        tap.equal((status, 'prefault: memory is' in said), (78, True),
                  'more than the machine has is refused')


def locked_bytes(kvd):
    with open(f'/proc/{kvd.pid}/status', encoding='ascii') as file:
        return int(re.search(r'VmLck:\s*(\d+)', file.read()).group(1)) << 10


def test_mlock(tap):
    granted = ('a region that may be locked is', 'and one that may not be ends the start')
    if os.geteuid() != 0 or not shutil.which('setpriv') or not shutil.which('prlimit'):
        for name in granted:
            tap.skip(name, 'needs root, setpriv and prlimit')
        return
    with Kvd(*SMALL, '--mlock', 'yes', start=False) as kvd:
        try:
            kvd.start()
        except KvdFailed as failed:
            tap.skip(granted[0], failed.log.strip())
        else:
            tap.ok(locked_bytes(kvd) > MEMORY and memory(kvd)['pages.locked'] == 'true', granted[0])
    wrapper = os.environ.get('KVD_WRAPPER', '')
    os.environ['KVD_WRAPPER'] = ('setpriv --bounding-set -ipc_lock prlimit --memlock=65536:65536 ' +
                                 wrapper)
    with Kvd(start=False) as kvd:
        status, said = failed_start(kvd, *SMALL, '--mlock', 'yes')
        tap.equal((status, 'may lock 64KiB' in said, 'LimitMEMLOCK=infinity' in said),
                  (71, True, True), granted[1])
    os.environ['KVD_WRAPPER'] = wrapper


def main():
    tap = Tap()
    test_no_pool(tap)
    test_prefault(tap)
    test_mlock(tap)
    with hugepool.pages(3 * WANTED) as why:
        if why:
            tap.skip('a region of huge pages of the pool serves', why)
        else:
            test_serves(tap)
            test_zeroes(tap)
            test_killed(tap)
    tap.done()


main()
