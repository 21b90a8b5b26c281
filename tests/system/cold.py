#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Values that are in the store alone: every command answers as if they were in memory.

What is asked for is read once for all who want it, by nobody's cost but theirs, and put back if the
key has not changed meanwhile.
"""
import json
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import Kvd, ReplyError, Tap, seed, wait_until  # noqa: E402

OPTIONS = ('--persist', 'lazy', '--memory', '64MiB', '--memory-max', '64MiB')
LARGE = 3 << 20


def counters(client, *names):
    text = client.command('INFO', 'everything').decode()
    rows = dict(line.split(':', 1) for line in text.splitlines() if ':' in line)
    return [int(rows[name]) for name in names]


def spill(client, *keys):
    """The values of these keys leave memory."""
    client.command('KVD.SYNC')
    for key in keys:
        # That a commit is over the loop hears of a moment later than who waited for it.
        wait_until(lambda key=key: client.command('DEBUG', 'SPILL', key) == 1,
                   what=f'{key} is spilled')


def value(letter, size=300):
    return letter * size


# Each command on values in memory, and on the same in the store alone. V and W are the keys.
COMMANDS = '''
GET V|STRLEN V|EXISTS V W|TYPE V|TTL V|GETRANGE V 5 10|GETBIT V 7|BITCOUNT V|BITPOS V 1
MGET V none W|KVD.GETV V|APPEND V tail|SETRANGE V 5 xx|SETBIT V 3 1|GETSET V new|SET V new GET
SET V new NX|SET V new XX|SET V new KEEPTTL|SET V new XX GET|GETDEL V|GETEX V PERSIST
GETEX V EX 100|DEL V|EXPIRE V 100|PERSIST V|RENAME V to|RENAMENX V W|COPY V to|COPY V W REPLACE
LCS V W|LCS V W LEN|BITOP AND to V W|BITOP NOT to V|BITFIELD V GET u8 0 SET u8 0 7
BITFIELD_RO V GET u8 8|OBJECT ENCODING V|SETNX V x|MSETNX V x to y|DELIFEQ V other
SET V x IFEQ other|TOUCH V W|UNLINK V W|INCR V|DBSIZE|KVD.SET V new XX|MEMORY USAGE V
'''


def words(line, v, w):
    return [{'V': v, 'W': w}.get(word, word) for word in line.split()]


def alike(got, expected):
    if isinstance(expected, ReplyError):
        return isinstance(got, ReplyError) and str(got) == str(expected)
    return got == expected


def every_command(tap):
    lines = [line for row in COMMANDS.strip().splitlines() for line in row.split('|')]
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        for line in lines:
            answers, after = [], []
            for cold in (False, True):
                client.command('FLUSHALL')
                client.command('SET', 'v', value('a'), 'EX', 1000)
                client.command('SET', 'w', value('ab', 200))
                if cold:
                    spill(client, 'v', 'w')
                got = client.command(*words(line, 'v', 'w'))
                if line.startswith('KVD.'):
                    got = type(got)  # versions differ
                answers.append(got)
                after.append(client.command('MGET', 'v', 'w', 'to', 'none'))
            tap.ok(alike(answers[1], answers[0]) and after[0] == after[1],
                   f'{line} of a value in the store alone')
        tap.equal(counters(client, 'cold_load_errors'), [0], 'no value could not be read')


def numbers(tap):
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        client.command('SET', 'n' * 78, '41')
        client.command('KVD.SYNC')
        wait_until(lambda: 'so small' in str(client.command('DEBUG', 'SPILL', 'n' * 78)),
                   what='a small value stays, and that is said')
        client.command('SET', 'f', '1' + '0' * 200)
        spill(client, 'f')
        tap.ok(isinstance(client.command('INCR', 'f'), ReplyError), 'no integer is none, cold too')
        tap.equal(client.command('STRLEN', 'f'), 201, 'and it is there')


def at_rest(tap):
    """What does not need the value does not read it."""
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        client.command('SET', 'v', value('a'), 'EX', 1000)
        spill(client, 'v')
        for line in ('EXISTS v', 'TTL v', 'TYPE v', 'STRLEN v', 'SET v x NX', 'SETNX v x',
                     'TOUCH v', 'RENAMENX v v', 'SCAN 0', 'KEYS *', 'DBSIZE', 'RANDOMKEY',
                     'WATCH v', 'UNWATCH', 'MEMORY USAGE v', 'GET none', 'DEL none'):
            client.command(*line.split())
        tap.equal(counters(client, 'cold_gets', 'cold_values', 'cold_bytes'), [0, 1, 300],
                  'a look reads no value')
        memory = json.loads(client.command('KVD.MEMORY'))
        tap.equal(memory['cold'], {'values': 1, 'bytes': 300, 'waits': 0, 'loading_bytes': 0},
                  'KVD.MEMORY tells of it')
        tap.ok(memory['records']['live_bytes'] < 300, 'which is not in memory')
        tap.equal(client.command('SET', 'v', 'x'), 'OK', 'nor does a new value')
        client.command('SET', 'd', value('d'))
        spill(client, 'd')
        client.command('DEL', 'd')
        tap.equal(counters(client, 'cold_gets', 'cold_values', 'cold_bytes'), [0, 0, 0],
                  'or a removal')


def large(tap):
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        for name in ('get', 'expire', 'append', 'copy'):
            client.command('SET', name, value(name[0], LARGE))
            spill(client, name)
        tap.ok(client.command('GET', 'get') == value(b'g', LARGE), 'a large value')
        tap.equal(client.command('EXPIRE', 'expire', 1000), 1, 'its time to live')
        tap.ok(client.command('GET', 'expire') == value(b'e', LARGE), 'and it is kept')
        tap.equal(client.command('APPEND', 'append', 'x'), LARGE + 1, 'something behind it')
        tap.ok(client.command('GET', 'append') == value(b'a', LARGE) + b'x', 'is there')
        tap.equal(client.command('COPY', 'copy', 'to'), 1, 'a copy of it')
        tap.ok(client.command('GET', 'to') == value(b'c', LARGE), 'is one')


def transactions(tap):
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client, kvd.connect() as other:
        for key in 'abc':
            client.command('SET', key, value(key))
        spill(client, *'abc')
        client.command('WATCH', 'a')
        client.command('MULTI')
        for line in ('GET a', 'APPEND b x', 'GET b', 'DEL a', 'GET a', 'STRLEN c', 'RENAME c d'):
            client.command(*line.split())
        tap.equal(client.command('EXEC'),
                  [value('a').encode(), 301, value('b').encode() + b'x', 1, None, 300, 'OK'],
                  'I: EXEC sees values that have to be read first')
        tap.equal(counters(client, 'cold_loads'), [3], 'each of them is read once')
        other.command('SUBSCRIBE', 'channel')
        client.command('SET', 'p', value('p'))
        spill(client, 'p')
        client.command('MULTI')
        client.command('PUBLISH', 'channel', 'once')
        client.command('GET', 'p')
        tap.equal(client.command('EXEC'), [1, value('p').encode()], 'a message beside a cold get')
        client.command('PUBLISH', 'channel', 'last')
        told = [other.reply(), other.reply()]
        tap.equal([message[2] for message in told], [b'once', b'last'], 'is sent once')


def order(tap):
    """Who waits waits alone, and his requests are answered in their order."""
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client, kvd.connect() as other:
        keys = [f'key{i}' for i in range(200)]
        for key in keys:
            client.command('SET', key, value(key, 100))
        spill(client, *keys)
        requests = b''
        expected = []
        for i, key in enumerate(keys):
            requests += client.encode('SET', 'warm', str(i)) + client.encode('GET', key)
            requests += client.encode('GET', 'warm')
            expected += ['OK', value(key, 100).encode(), str(i).encode()]
        client.send(requests)
        tap.equal(other.command('SET', 'x', 'y'), 'OK', 'others go on')
        got = [client.reply() for _ in expected]
        wrong = [i for i in range(len(got)) if got[i] != expected[i]]
        tap.equal(wrong, [], 'a pipeline keeps its order')
        if wrong:
            tap.diag(f'{[(got[i], expected[i]) for i in wrong][:2]}'[:900])
        before = counters(client, 'cold_gets')[0]
        for key in keys[:20]:
            client.command('SET', key, value(key, 100))
        spill(client, *keys[:20])
        for key in keys[:20]:
            gone = kvd.connect()
            gone.send(gone.encode('GET', key))
            gone.sock.close()
        tap.equal(other.command('GET', 'x'), b'y', 'who leaves while he waits hinders nobody')
        tap.ok(counters(client, 'cold_gets')[0] >= before, 'and is forgotten')
        tap.ok(client.command('MGET', *keys) == [value(key, 100).encode() for key in keys],
               'all values are what they were')


def many_keys(tap):
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        keys = [f'key{i}' for i in range(5000)]
        client.command('MSET', *[word for key in keys for word in (key, value(key, 40))])
        client.command('KVD.SYNC')
        wait_until(lambda: client.command('DEBUG', 'SPILL') + counters(client, 'cold_values')[0] >=
                   len(keys), what='all are spilled')
        wait_until(lambda: counters(client, 'cold_values')[0] == len(keys), what='and counted')
        tap.ok(client.command('MGET', *keys) == [value(key, 40).encode() for key in keys],
               'A: many values that have to be read first, in one request')
        wait_until(lambda: counters(client, 'cold_values')[0] == 0, what='all are back')
        tap.equal(counters(client, 'cold_loads', 'cold_promotions'), [5000, 5000],
                  'each was read once, and is back in memory')


def one_reading(tap):
    """Many that miss one key cause one reading."""
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        client.command('SET', 'big', value('b', LARGE))
        spill(client, 'big')
        many = [kvd.connect() for _ in range(50)]
        for one in many:
            one.send(one.encode('GETRANGE', 'big', 0, 9))
        tap.equal([one.reply() for one in many], [b'b' * 10] * 50, 'each gets it')
        tap.equal(counters(client, 'cold_loads'), [1], 'it is read once')
        for one in many:
            one.close()


def changes(tap):
    """What becomes of a key while its value is read: no older version comes back."""
    with Kvd(*OPTIONS) as kvd, kvd.connect() as writer:
        readers = [kvd.connect() for _ in range(4)]
        wrong = 0
        for number in range(200):
            for key in ('set', 'del', 'flush'):
                writer.command('SET', key, f'{number}:' + value(key, 100))
            spill(writer, 'set', 'del', 'flush')
            for reader in readers:
                reader.send(b''.join(reader.encode('GET', key) for key in ('set', 'del', 'flush')))
            writer.send(writer.encode('SET', 'set', f'{number}.5:' + value('set', 100)) +
                        writer.encode('DEL', 'del') +
                        (writer.encode('FLUSHALL') if number % 10 == 0 else b''))
            for _ in range(3 if number % 10 == 0 else 2):
                writer.reply()
            for reader in readers:
                said = [reader.reply() for _ in range(3)]
                wrong += any(one is not None and not one.startswith(str(number).encode())
                             for one in said)
            now = writer.command('MGET', 'set', 'del', 'flush')
            flushed = number % 10 == 0
            wrong += now[1] is not None
            wrong += now[0] != (None if flushed else
                                (f'{number}.5:' + value('set', 100)).encode())
            wrong += now[2] != (None if flushed else
                                (f'{number}:' + value('flush', 100)).encode())
        tap.equal(wrong, 0, 'A: a value that was read late takes no newer one\'s place')
        gets, loads, shared = counters(writer, 'cold_gets', 'cold_loads', 'cold_loads_shared')
        tap.ok(0 < loads <= gets and loads + shared >= loads, f'{gets} cold gets, {loads} readings')
        for reader in readers:
            reader.close()


def unreadable(tap):
    """A store that cannot be read is an error that says what to do, and hinders nobody else."""
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        client.command('SET', 'v', value('v', 4000))
        client.command('SET', 'warm', 'w')
        spill(client, 'v')
        path = os.path.join(kvd.dir, 'store', 'data.mdb')
        with open(path, 'r+b') as file:
            data = file.read()
            at = data.find(b'v' * 1000)
            while at >= 0:
                file.seek(at)
                file.write(b'x' * 100)
                at = data.find(b'v' * 1000, at + 1000)
        said = client.command('GET', 'v')
        tap.ok(isinstance(said, ReplyError) and str(said).startswith('DAMAGED') and
               'kvctl verify' in str(said), f'G: {said}')
        said = client.command('APPEND', 'v', 'x')
        tap.ok(isinstance(said, ReplyError), 'G: nothing is written over what cannot be read')
        client.command('SET', 'good', value('g', 4000))
        spill(client, 'good')
        said = client.command('MGET', 'good', 'v', 'good', 'warm')
        tap.ok(isinstance(said, ReplyError) and "'v'" in str(said),
               f'G: one of many is an error of the request, that names it: {said}')
        tap.equal(client.command('GET', 'good'), value('g', 4000).encode(), 'the others are there')
        tap.equal(client.command('GET', 'warm'), b'w', 'others are answered')
        tap.equal(client.command('SET', 'v', 'new'), 'OK', 'a new value takes its place')
        tap.equal(client.command('GET', 'v'), b'new', 'and is there')
        tap.ok(counters(client, 'cold_load_errors')[0] >= 1, 'it is counted')


def restart(tap):
    """A region with stubs is taken over, and they are still read."""
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        client.command('SET', 'v', value('v'))
        spill(client, 'v')
        tap.equal(client.command('GET', 'v'), value('v').encode(), 'E: it is in the store')
        spill(client, 'v')
        kvd.kill()
        kvd.restart()
        with kvd.connect() as again:
            tap.equal(again.command('GET', 'v'), value('v').encode(), 'E: and survives a kill')


def backed_up(tap):
    """A backup has the values that are in the store alone, and asks for none of them."""
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        client.command('SET', 'v', value('v'))
        client.command('SET', 'large', value('l', LARGE))
        spill(client, 'v', 'large')
        backup, fresh = (os.path.join(kvd.root, name) for name in ('backup', 'fresh'))
        said = kvd.kvctl('backup', backup)
        tap.equal(said.returncode, 0, f'a backup: {said.stderr.decode()}')
        tap.equal(counters(client, 'cold_values', 'cold_gets'), [2, 0], 'nothing came back for it')
        said = kvd.kvctl('restore', backup, fresh)
        tap.equal(said.returncode, 0, f'is restored: {said.stderr.decode()}')
        with Kvd(*OPTIONS, directory=fresh) as again, again.connect() as other:
            tap.ok(other.command('MGET', 'v', 'large') ==
                   [value(b'v'), value(b'l', LARGE)], 'E: with the values')


def killed(tap):
    """kvd dies while values are on their way back: the next has all of them."""
    rng = seed()
    values = {f'key{i}': value(chr(97 + i), LARGE if i % 2 else 300) for i in range(8)}
    for point, passes in (('value_half_promoted', 60), ('value_promoted', 8)):
        with KeptKvd(*OPTIONS, start=False) as kvd:
            kvd.env['KVD_CRASH_AT'] = f'{point}:{rng.randrange(1, passes + 1)}'
            kvd.start()
            with kvd.connect() as client:
                for key, expected in values.items():
                    client.command('SET', key, expected)
                spill(client, *values)
                client.send(b''.join(client.encode('GETRANGE', key, 0, 0) for key in values))
                tap.equal(kvd.wait(), -signal.SIGKILL, f'{point}: kvd dies there')
            del kvd.env['KVD_CRASH_AT']
            kvd.start()
            with kvd.connect() as client:
                tap.ok('took over' in kvd.log(), f'F: {point}: its region is taken over')
                said = client.command('DEBUG', 'RECOUNT')
                tap.ok(isinstance(said, int), f'G: {point}: it is counted: {said}')
                wrong = [key for key, expected in values.items()
                         if client.command('GET', key) != expected.encode()]
                tap.equal(wrong, [], f'E: {point}: every key has its value')


PARTS = (every_command, numbers, at_rest, large, transactions, order, many_keys, one_reading,
         changes, unreadable, restart, backed_up, killed)
tap = Tap()
for part in PARTS:
    if len(sys.argv) == 1 or part.__name__ in sys.argv[1:]:
        tap.diag(part.__name__)
        part(tap)
tap.done()
