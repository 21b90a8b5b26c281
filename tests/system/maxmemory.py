# SPDX-License-Identifier: MIT
#
# CONFIG SET maxmemory: the bound on the region, moved up and down while clients read and write, who
# map nothing anew. Less than any region can have is a bound that writes meet at once, as in Redis
# with noeviction, while reads and removals go on. And a memory that the machine does not have.
import os
import re

from kept import KeptKvd
from kvdtest import Kvd, KvdFailed, Refused, Tap, wait_until

OOM = Refused("OOM command not allowed when used memory > 'maxmemory'. ")
MEMORY = 64 << 20
MOST = 256 << 20
VALUE = 'v' * 10000


def info_maxmemory(c):
    fields = dict(line.split(b':', 1) for line in c.command('INFO', 'memory').split(b'\r\n')
                  if b':' in line)
    return int(fields[b'maxmemory'])


def test_bound(tap, c):
    tap.equal(c.command('CONFIG', 'GET', 'maxmemory'), [b'maxmemory', b'%d' % MEMORY],
              'by default it is the memory')
    c.command('SET', 'a', '1')
    tap.equal(c.command('CONFIG', 'SET', 'maxmemory', '1'), 'OK', 'it can be set')
    tap.equal((c.command('CONFIG', 'GET', 'maxmemory'), info_maxmemory(c)),
              ([b'maxmemory', b'1'], 1), 'and is told')
    tap.equal([c.command(*words) for words in
               (('SET', 'b', '2'), ('INCR', 'a'), ('MSET', 'b', '2'), ('SETRANGE', 'a', 1, 'x'))],
              [OOM] * 4, 'G: over the bound writes are refused')
    tap.equal([c.command('GET', 'a'), c.command('EXPIRE', 'a', 1000), c.command('DEL', 'a'),
               c.command('EXISTS', 'b')], [b'1', 1, 1, 0], 'reads, EXPIRE and DEL are not')
    tap.ok('exceeds memory-max (256MiB)' in str(c.command('CONFIG', 'SET', 'maxmemory', MOST + 1)),
           'more than memory-max is refused')
    tap.equal(c.command('CONFIG', 'SET', 'maxmemory', '0'), 'OK', 'zero takes the bound away')
    tap.equal((c.command('SET', 'b', '2'), info_maxmemory(c)), ('OK', MEMORY), 'writes go on')


def test_multi(tap, c, other):
    other.command('CONFIG', 'SET', 'maxmemory', '1')
    tap.equal([c.command('MULTI'), c.command('SET', 'x', '1'), c.command('GET', 'b')],
              ['OK', OOM, 'QUEUED'], 'a write is refused before it is queued')
    tap.ok(str(c.command('EXEC')).startswith('EXECABORT'), 'and spoils the transaction')
    other.command('CONFIG', 'SET', 'maxmemory', '0')
    c.command('MULTI')
    c.command('SET', 'x', '1')
    other.command('CONFIG', 'SET', 'maxmemory', '1')
    tap.equal(c.command('EXEC'),
              Refused(f'EXECABORT Transaction discarded because of: {OOM}'),
              'EXEC is refused, whole, if the bound came meanwhile')
    c.command('MULTI')
    c.command('GET', 'b')
    c.command('DEL', 'b')
    tap.equal(c.command('EXEC'), [b'2', 1], 'EXEC without such writes is not')


def counter(c, name):
    rows = dict(line.split(b':', 1) for line in
                c.command('INFO', 'everything').split(b'\r\n') if b':' in line)
    return int(rows[name.encode()])


def fill(c, first, most):
    """Sets keys until one is refused; how many were set."""
    for number in range(first, most):
        if c.command('SET', f'fill{number}', VALUE) != 'OK':
            return number
    return most


def blocks(kvd):
    """Bytes of the region's file."""
    for name in os.listdir(f'/proc/{kvd.pid}/fd'):
        path = f'/proc/{kvd.pid}/fd/{name}'
        if 'kvd-region' in os.readlink(path):
            return os.stat(path).st_blocks * 512
    return 0


def test_resize(tap):
    with Kvd('--memory', MEMORY, '--memory-max', MOST, '--persist', 'memory') as kvd, \
            kvd.connect() as c:
        filled = fill(c, 0, 40000)
        tap.ok(filled * len(VALUE) > MEMORY / 2, f'{filled} values fill the memory')
        tap.equal(c.command('CONFIG', 'SET', 'maxmemory', 2 * MEMORY), 'OK', 'more is given')
        wait_until(lambda: c.command('SET', f'fill{filled}', VALUE) == 'OK', 'room')
        more = fill(c, filled, 40000)
        tap.ok(more > filled * 3 / 2, f'G: writes have it at once: {more} values')
        said = str(c.command('CONFIG', 'SET', 'maxmemory', MEMORY))
        tap.ok('what is stored needs' in said and 'remove keys first' in said,
               f'G: less than what is stored is refused: {said}')
        tap.equal(c.command('CONFIG', 'GET', 'maxmemory')[1], b'%d' % (2 * MEMORY),
                  'and the old bound holds')
        for number in range(200, more):
            c.command('DEL', f'fill{number}')
        tap.equal(c.command('CONFIG', 'SET', 'maxmemory', MEMORY // 2), 'OK', 'less is enough now')
        wait_until(lambda: c.command('SET', 'meanwhile', '1') == 'OK' and
                   counter(c, 'memory_limit_bytes') == MEMORY // 2, 'the bound to come down')
        wait_until(lambda: blocks(kvd) <= MEMORY // 2, 'its pages to go back')
        tap.ok(all(c.command('GET', f'fill{number}') == VALUE.encode() for number in range(200)),
               'A: what was left is as it was')
        lower = fill(c, 1000, 40000) - 1000
        tap.ok(lower * len(VALUE) < MEMORY // 2, f'G: {lower} more fit then')
    restart(tap, MEMORY // 4)


def restart(tap, bound):
    """With a bound below `memory`."""
    with Kvd('--memory', MEMORY, '--maxmemory', bound, '--when-full', 'reject') as kvd:
        with kvd.connect() as c:
            filled = fill(c, 0, 40000)
            tap.ok(filled * len(VALUE) < bound, f'at the start: {filled} values')
        for name, stop in (('in order', kvd.stop), ('kill -9', kvd.kill)):
            stop()
            kvd.start()
            with kvd.connect() as c:
                more = fill(c, 0, 40000)
                tap.ok(counter(c, 'memory_limit_bytes') == bound and
                       counter(c, 'memory_used_bytes') <= bound and
                       more * len(VALUE) < bound, f'the same after {name}: {more} values')


def test_warm(tap):
    """A life that takes over more than its bound allows comes down by itself."""
    options = ('--memory', '32MiB', '--segment', '256KiB', '--revoke', '300ms')
    for full in ('spill', 'evict'):
        with KeptKvd(*options, '--when-full', full, start=False) as kvd:
            kvd.start()
            with kvd.connect() as c:
                fill(c, 0, 1800)
                c.command('KVD.SYNC')
            kvd.kill()
            kvd.start(*options, '--when-full', full, '--maxmemory', '8MiB')
            with kvd.connect() as c:
                wait_until(lambda c=c: counter(c, 'memory_used_bytes') <= 8 << 20,
                           'the memory to come down')
                tap.ok('took over 1800 keys' in kvd.log(),
                       f'G: {full}: more than the bound was taken over, and goes unasked')
                wait_until(lambda kvd=kvd: blocks(kvd) <= 10 << 20, 'its pages to go back')


def test_refused(tap):
    machine = 2 * os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    with Kvd('--memory', MEMORY, '--value-max', '24MiB', '--memory-max', machine) as kvd, \
            kvd.connect() as c:
        for bound, text in (('40mb', 'value-max (24MiB) exceeds half of 40MiB'),
                            (machine, 'are more than ')):
            said = str(c.command('CONFIG', 'SET', 'maxmemory', bound))
            tap.ok(text in said, f'G: {bound} is refused: {said}')
        tap.equal(c.command('CONFIG', 'GET', 'maxmemory')[1], b'%d' % MEMORY, 'the old bound holds')
    with Kvd('--memory', MEMORY, '--segment', '2MiB', '--when-full', 'reject') as kvd, \
            kvd.connect() as c:
        c.command('SET', 'a', '1')
        tap.equal([c.command('CONFIG', 'SET', 'maxmemory', '31mb'), c.command('SET', 'b', '1'),
                   counter(c, 'memory_limit_bytes')], ['OK', 'OK', MEMORY],
                  'fewer than 16 segments bound commands, not the region')


def sets(c, name, numbers, value, *more):
    for at in range(0, len(numbers), 500):
        said = c.pipeline([('SET', name % n, value, *more) for n in numbers[at:at + 500]])
        assert said == ['OK'] * len(said), said


def refused_with(tap, c, bound, what):
    """Sets a bound that cannot be had; the least that could."""
    before = counter(c, 'memory_limit_bytes')
    said = str(c.command('CONFIG', 'SET', 'maxmemory', bound))
    found = re.search(f'{what} needs ([0-9]+) bytes, and {bound} would be too few', said)
    tap.ok(found and c.command('CONFIG', 'GET', 'maxmemory')[1] == b'%d' % before and
           counter(c, 'memory_limit_bytes') == before, f'G: {bound} is refused: {said}')
    return int(found.group(1)) if found else before


def reached(tap, c, bound, what):
    tap.equal(c.command('CONFIG', 'SET', 'maxmemory', bound), 'OK', f'{what}: {bound} is accepted')
    wait_until(lambda: counter(c, 'memory_limit_bytes') == bound, 'the bound to come down')


def test_stays(tap):
    """What must stay is reckoned before anything else goes for a bound that it does not allow."""
    options = ('--memory', '32MiB', '--segment', '64KiB')
    persons = range(8000)
    with Kvd(*options, '--persist', 'memory', '--when-full', 'evict', '--evict-never',
             'lock: keep:') as kvd, kvd.connect() as c:
        sets(c, 'keep:%d', persons, 'v' * 1500)
        sets(c, 'other:%d', persons, 'v' * 1000)
        least = refused_with(tap, c, 8 << 20, 'what may not be evicted')
        tap.equal((counter(c, 'keys_evicted'), c.command('DBSIZE')), (0, 16000),
                  'G: and nothing goes for it')
        c.command('MULTI')
        c.command('CONFIG', 'SET', 'maxmemory', 8 << 20)
        c.command('SET', 'other:0', 'v')
        said = c.command('EXEC')
        tap.ok(f'needs {least} bytes' in str(said[0]) and said[1] == 'OK', 'so it is in a MULTI')
        tap.ok(8000 * 1500 < least < 8000 * 1500 * 4 // 3, f'the least is what may not go: {least}')
        reached(tap, c, least, 'evict-never')
        kept = sum(c.pipeline([('EXISTS', f'keep:{n}') for n in persons]))
        tap.ok(kept == 8000 and counter(c, 'keys_evicted') > 0, 'G: by keys that may go')
        said = c.pipeline([('SET', f'more:{n}', 'v' * 1000) for n in range(2000)])
        tap.equal(said, ['OK'] * 2000, 'and writes go on')
        tap.equal(c.command('CONFIG', 'SET', 'maxmemory', 4 << 20, 'evict-never', 'lock:'), 'OK',
                  'with what is set together it is reckoned')
    with Kvd(*options, '--persist', 'memory', '--maxmemory-policy', 'volatile-lru') as kvd, \
            kvd.connect() as c:
        sets(c, 'ends:%d', persons, 'v' * 1500, 'EX', '10000')
        reached(tap, c, 6 << 20, 'all keys have a time to live')
        c.command('CONFIG', 'SET', 'maxmemory', 0)
        sets(c, 'stays:%d', persons, 'v' * 1500)
        least = refused_with(tap, c, 6 << 20, 'what may not be evicted')
        reached(tap, c, least, 'some have none')
        tap.equal(sum(c.pipeline([('EXISTS', f'stays:{n}') for n in persons])), 8000,
                  'G: those stay')
    with Kvd(*options, '--when-full', 'spill') as kvd, kvd.connect() as c:
        sets(c, 'k' * 400 + '%d', persons, 'v' * 600)
        c.command('SET', 'large', 'v' * 1000000)
        c.command('KVD.SYNC')
        least = refused_with(tap, c, 3 << 20, 'what stays of keys and values')
        tap.ok(8000 * 400 < least < 8000 * 700, f'keys count with all their bytes: {least}')
        reached(tap, c, least, 'values leave memory')
        tap.equal(c.command('GET', 'k' * 400 + '7'), b'v' * 600, 'and are read')


def test_segments(tap):
    """What the segments cannot serve is refused where something could go for it."""
    for options, what in ((('--when-full', 'evict'), 'no key can go'),
                          (('--when-full', 'spill'), 'no value can leave memory')):
        with Kvd('--memory', MEMORY, '--segment', '2MiB', *options) as kvd, kvd.connect() as c:
            said = str(c.command('CONFIG', 'SET', 'maxmemory', '31mb'))
            tap.ok(f'31MiB is less than 16 segments of 2MiB, without which {what}' in said and
                   'give at least 32MiB' in said, f'G: {said}')
            reached(tap, c, 32 << 20, options[1])
            sets(c, 'key:%d', range(5000), VALUE)
        with Kvd(*options, start=False) as kvd:
            try:
                kvd.start('--memory', MEMORY, '--segment', '2MiB', *options, '--maxmemory', '31mb')
                said = ''
            except KvdFailed as ended:
                said = ended.log.strip()
            tap.ok('give at least 32MiB' in said, f'at a start, too: {said}')


def test_remedies(tap, kvd, c):
    said = str(c.command('SET', 'b', '2'))
    tap.ok('maxmemory is 1: raise it (CONFIG SET maxmemory)' in said,
           f'G: the answer helps: {said}')
    for _ in range(100):
        c.command('SET', 'b', '2')
    rows = dict(line.split(b':', 1) for line in
                c.command('INFO', 'everything').split(b'\r\n') if b':' in line)
    refused = int(rows[b'writes_refused'])
    lines = kvd.log().count('a write is refused to client')
    tap.ok(refused >= 101 and 1 <= lines < 100,
           f'and is counted and logged, not always: {refused}, {lines}')


def test_machine(tap):
    with open('/proc/meminfo', encoding='ascii') as meminfo:
        machine_kib = int(meminfo.readline().split()[1])
    with Kvd('--persist', 'memory', '--memory', f'{2 * machine_kib}KiB') as kvd:
        tap.ok('when it fills the kernel will end kvd' in kvd.log(),
               'G: more memory than the machine has is warned of')
    with Kvd('--persist', 'memory', '--memory', MEMORY) as kvd:
        tap.ok('the kernel will end kvd' not in kvd.log(), 'what it has is not')


def main():
    tap = Tap()
    with Kvd('--memory', MEMORY, '--memory-max', MOST) as kvd:
        test_bound(tap, kvd.connect())
        test_multi(tap, kvd.connect(), kvd.connect())
    with Kvd('--memory', MEMORY, '--maxmemory', '1') as kvd:
        tap.equal(kvd.connect().command('SET', 'a', '1'), OOM, 'it can be given at the start')
        test_remedies(tap, kvd, kvd.connect())
    test_resize(tap)
    test_warm(tap)
    test_refused(tap)
    test_stays(tap)
    test_segments(tap)
    test_machine(tap)
    tap.done()


if __name__ == '__main__':
    main()
