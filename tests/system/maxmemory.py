# SPDX-License-Identifier: MIT
#
# CONFIG SET maxmemory: a bound that writes meet at once, as in Redis with noeviction, while reads
# and removals go on. And a memory that the machine does not have.
from kvdtest import Kvd, Refused, Tap

OOM = Refused("OOM command not allowed when used memory > 'maxmemory'. ")
MEMORY = 64 << 20


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
    tap.ok(str(c.command('CONFIG', 'SET', 'maxmemory', MEMORY + 1)).startswith('ERR CONFIG SET'),
           'more than the memory is refused')
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
    with Kvd('--memory', MEMORY) as kvd:
        test_bound(tap, kvd.connect())
        test_multi(tap, kvd.connect(), kvd.connect())
    with Kvd('--memory', MEMORY, '--maxmemory', '1') as kvd:
        tap.equal(kvd.connect().command('SET', 'a', '1'), OOM, 'it can be given at the start')
        test_remedies(tap, kvd, kvd.connect())
    test_machine(tap)
    tap.done()


if __name__ == '__main__':
    main()
