# SPDX-License-Identifier: MIT
#
# Data of seven times the memory, where there is a store: every key has its value (E), no write is
# refused (G), also in the next life, which loads what it has memory for. And what becomes of values
# that are in the store alone where another policy is set, or the next life has another.
from kept import KeptKvd
from kvdtest import Kvd, KvdFailed, ReplyError, Tap, wait_until

KEYS = 30000
AT_ONCE = 100
ARGS = ('--memory', '8MiB', '--persist', 'lazy', '--lazy-interval', '20ms')
FEW = 8000  # twice the memory


def value(number):
    return b'%08d' % number * 250


def counter(connection, name):
    rows = dict(line.split(b':', 1) for line in
                connection.command('INFO', 'everything').split(b'\r\n') if b':' in line)
    return int(rows[name.encode()])


def write(connection, keys=KEYS, prefix='k'):
    """How many were refused."""
    refused = 0
    for first in range(0, keys, AT_ONCE):
        replies = connection.pipeline([('SET', f'{prefix}{number}', value(number))
                                       for number in range(first, first + AT_ONCE)])
        refused += sum(reply not in ('OK', b'OK') for reply in replies)
    return refused


def wrong(connection, keys=KEYS, gone=False):
    """How many have not their value; those that are `gone` may."""
    found = 0
    for first in range(0, keys, AT_ONCE):
        numbers = range(first, first + AT_ONCE)
        replies = connection.pipeline([('GET', f'k{number}') for number in numbers])
        found += sum(reply != value(number) and not (gone and reply is None)
                     for number, reply in zip(numbers, replies))
    return found


def much(tap):
    with Kvd(*ARGS) as kvd:
        with kvd.connect() as connection:
            tap.equal(write(connection), 0, 'G: no write of seven times the memory is refused')
            tap.equal(connection.command('DBSIZE'), KEYS, 'all keys are there')
            tap.equal(wrong(connection), 0, 'E: each with its value')
            said = connection.command('DEBUG', 'RECOUNT')
            tap.ok(isinstance(said, int), f'G: all is counted: {said}')
            used, dataset, cold = (counter(connection, name) for name in
                                   ('used_memory', 'used_memory_dataset', 'cold_bytes'))
            tap.ok(dataset < used < cold, f'INFO: {dataset} of {used}, {cold} are in the store')
        kvd.kill()
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(wrong(connection), 0, 'E: so they are after a kill')
            tap.ok('values are in the store alone' in kvd.log(), 'the log says how many')


def bound(tap):
    """A bound that falls takes values out of memory, and leaves keys."""
    with Kvd(*ARGS, '--memory', '32MiB', '--segment', '256KiB') as kvd, \
            kvd.connect() as connection:
        write(connection, FEW)
        tap.equal(counter(connection, 'cold_values'), 0, 'all is in memory')
        tap.equal(connection.command('CONFIG', 'SET', 'maxmemory', '8mb'), 'OK', 'less is given')
        wait_until(lambda: counter(connection, 'memory_limit_bytes') == 8 << 20,
                   'the bound to come down')
        tap.ok(counter(connection, 'cold_values') > FEW / 3, 'G: for values that went')
        tap.equal(wrong(connection, FEW), 0, 'E: every key has its value')
        for first in range(0, 60000, 1000):
            connection.pipeline([('SET', f'small{number}', b'v') for number in
                                 range(first, first + 1000)])
        said = str(connection.command('CONFIG', 'SET', 'maxmemory', '4mb'))
        tap.ok('what stays of keys and values needs' in said,
               f'G: keys need memory, too: {said}')


def another_policy(tap):
    """Set while values are in the store alone."""
    for name in ('reject', 'evict'):
        with Kvd(*ARGS, '--write-wait', '1s') as kvd, kvd.connect() as connection:
            write(connection, FEW)
            stubs = counter(connection, 'cold_values')
            tap.ok(stubs > FEW / 3, f'{name}: {stubs} values are in the store alone')
            connection.command('CONFIG', 'SET', 'when-full', name)
            tap.equal(wrong(connection, FEW, gone=name == 'evict'), 0,
                      f'{name}: they are read as before')
            if name == 'reject':
                connection.command('CONFIG', 'SET', 'write-wait', '0')
                tap.ok(write(connection, FEW, 'other') > 0, 'reject: writes are refused')
                tap.equal(wrong(connection, FEW), 0, 'reject: and nothing else is')
                continue
            tap.equal(write(connection, 4 * FEW, 'other'), 0, 'evict: no write is refused')
            keys = connection.command('DBSIZE')
            tap.ok(keys < 4 * FEW, f'evict: keys go instead, {keys} are left')
            left = counter(connection, 'cold_values')
            tap.ok(left < stubs / 4, f'evict: those of such values, too: {left} are left')
            tap.equal(wrong(connection, FEW, gone=True), 0, 'evict: who is left has its value')


def another_life(tap):
    """The store is larger than the memory of the next life, or its region has such values."""
    with Kvd(*ARGS, '--when-full', 'spill') as kvd:
        with kvd.connect() as connection:
            write(connection, FEW)
            connection.command('KVD.SYNC')
        kvd.stop()
        try:
            kvd.start(*ARGS, '--when-full', 'reject')
            said = 'it starts'
        except KvdFailed as failed:
            said = f'{failed.status} {kvd.log()}'
            kvd.process = None
        tap.ok(said.startswith('78') and '--when-full spill' in said,
               'reject: a start ends, and says what to do')
        kvd.start(*ARGS, '--when-full', 'evict')
        with kvd.connect() as connection:
            tap.ok('until their keys are evicted' in kvd.log(), 'evict: it starts with all keys')
            tap.equal(wrong(connection, FEW, gone=True), 0, 'evict: those that are left are whole')
            tap.equal(write(connection, 4 * FEW, 'other'), 0, 'evict: writes find room')
            keys = connection.command('DBSIZE')
            tap.ok(FEW / 8 < keys < FEW, f'evict: for keys that go: {keys} are left')
    for name in ('reject', 'evict'):
        with KeptKvd(*ARGS, start=False) as kvd:
            kvd.start()
            with kvd.connect() as connection:
                write(connection, FEW)
                stubs = counter(connection, 'cold_values')
            kvd.kill()
            kvd.start(*ARGS, '--when-full', name)
            with kvd.connect() as connection:
                tap.ok('took over' in kvd.log() and
                       counter(connection, 'cold_values') >= stubs > FEW / 3,
                       f'{name}: a region with {stubs} such values is taken over')
                tap.equal(wrong(connection, FEW, gone=name == 'evict'), 0,
                          f'{name}: each has its value')
    with KeptKvd(*ARGS, '--memory', '32MiB', '--memory-max', '32MiB', start=False) as kvd:
        kvd.start()
        with kvd.connect() as connection:
            write(connection, FEW)
        kvd.kill()
        kvd.start(*ARGS, '--memory-max', '8MiB', '--segment', '128KiB')
        with kvd.connect() as connection:
            tap.equal(wrong(connection, FEW), 0,
                      'F: a region that is larger than the next life\'s memory is no loss')
            tap.ok('the store is read instead' in kvd.log(), 'the log says what was done')


def write_ending(connection, first, end, prefix='e'):
    """Keys that have a time to live. How many were refused."""
    refused = 0
    for at in range(first, end, AT_ONCE):
        replies = connection.pipeline([('SET', f'{prefix}{number}', value(number), 'EX', 100000)
                                       for number in range(at, at + AT_ONCE)])
        refused += sum(reply not in ('OK', b'OK') for reply in replies)
    return refused


def volatile_life(tap):
    """More data than memory for a life in which only keys that end may be evicted."""
    with Kvd(*ARGS, '--when-full', 'spill') as kvd:
        with kvd.connect() as connection:
            write(connection, FEW // 2)  # as much as memory
            write_ending(connection, 0, FEW // 2)
            connection.command('KVD.SYNC')
        kvd.stop()
        kvd.start(*ARGS, '--maxmemory-policy', 'volatile-lru', '--write-wait', '1s')
        with kvd.connect() as connection:
            tap.equal(wrong(connection, FEW // 2), 0, 'E: volatile: what does not end is there')
            tap.ok(counter(connection, 'cold_values') > FEW / 8,
                   'volatile: it may be in the store alone')
            tap.equal(write_ending(connection, 0, 2 * FEW, 'other'), 0,
                      'G: volatile: writes find room')
            tap.ok(counter(connection, 'evicted_keys') > FEW, 'volatile: for keys that end')
            tap.equal(wrong(connection, FEW // 2), 0, 'E: volatile: and for no others')
            said = connection.command('DEBUG', 'RECOUNT')
            tap.ok(isinstance(said, int), f'G: volatile: all is counted: {said}')
        kvd.kill()
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(wrong(connection, FEW // 2), 0, 'E: volatile: nor by a kill')


def all_lasting(tap):
    """The same where none ends: nothing may go, and nothing does."""
    with Kvd(*ARGS, '--when-full', 'spill') as kvd:
        with kvd.connect() as connection:
            write(connection, FEW)
            connection.command('KVD.SYNC')
        kvd.stop()
        kvd.start(*ARGS, '--maxmemory-policy', 'volatile-ttl', '--write-wait', '100ms')
        with kvd.connect() as connection:
            connection.command('CONFIG', 'SET', 'write-wait', '0')
            tap.ok(write(connection, FEW, 'other') > 0, 'G: lasting: writes are refused')
            tap.equal(wrong(connection, FEW), 0, 'E: lasting: every key has its value')
            tap.equal(counter(connection, 'evicted_keys'), 0, 'lasting: no key went')
            tap.equal(connection.command('DEL', *(f'k{number}' for number in range(FEW // 2, FEW))),
                      FEW // 2, 'G: lasting: keys can be removed')
            connection.command('CONFIG', 'SET', 'write-wait', '60s')
            tap.equal(write(connection, AT_ONCE, 'other'), 0, 'G: lasting: which makes room')


def no_store(tap):
    """What is in a store alone a life without one cannot have."""
    with KeptKvd(*ARGS, start=False) as kvd:
        kvd.start()
        with kvd.connect() as connection:
            write(connection, FEW)
        kvd.kill()
        try:
            kvd.start('--memory', '8MiB', '--persist', 'memory')
            said = 'it starts'
        except KvdFailed:
            said = kvd.log()
            kvd.process = None
        tap.ok('in the store alone' in said or 'store alone' in said, 'F: memory: a start ends')
        kvd.start(*ARGS)
        with kvd.connect() as connection:
            tap.equal(wrong(connection, FEW), 0, 'F: and has taken nothing away')
            tap.ok(not isinstance(connection.command('SET', 'x', 'y'), ReplyError), 'it goes on')


def main():
    tap = Tap()
    much(tap)
    bound(tap)
    another_policy(tap)
    another_life(tap)
    volatile_life(tap)
    all_lasting(tap)
    no_store(tap)
    tap.done()


if __name__ == '__main__':
    main()
