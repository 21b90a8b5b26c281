# SPDX-License-Identifier: MIT
#
# What generated sequences cannot compare: scans followed to their end, KEYS inside transactions,
# generated patterns, large values, bytes that no client library sends, and the command table.
import socket

from kvdtest import TIMEOUT_S, Connection
from oracle_exceptions import any_order, facts, parse
from oracle_run import Line


def scans(tap, kvd, redis, rng):
    """SCAN in both, to the end, with all options: the same keys."""
    mine, theirs = Connection(kvd.socket), Connection(redis.socket)
    for connection in (mine, theirs):
        connection.command('FLUSHALL')
        connection.pipeline([('SET', f'scan:{i}', i) for i in range(2000)])
    different = []
    for options in ([], ['COUNT', 7], ['MATCH', 'scan:1*'], ['TYPE', 'string'], ['TYPE', 'STRING'],
                    ['TYPE', 'list'], ['COUNT', 100000], ['MATCH', '*', 'COUNT', 3, 'TYPE',
                                                          'string'],
                    ['MATCH', 'scan:[0-4]?', 'COUNT', rng.randrange(1, 50)]):
        found = []
        for connection in (mine, theirs):
            keys, cursor = set(), b'0'
            while True:
                cursor, part = connection.command('SCAN', cursor, *options)
                keys |= set(part)
                if cursor == b'0':
                    break
            found.append(keys)
        if found[0] != found[1]:
            different.append(options)
    tap.equal(different, [], 'SCAN to its end finds the same keys, whatever the options')


def transaction(path, before, between):
    """The answer of EXEC behind these; `between` is said by another connection after WATCH."""
    with Connection(path) as c, Connection(path) as other:
        c.pipeline([('FLUSHALL',), *before, ('WATCH', 'a', 'b')])
        other.pipeline(between)
        return c.pipeline([('MULTI',), ('PING',), ('EXEC',)])[-1]


def watched(tap, kvd, redis):
    """Changes that are none, and one that Redis overlooks: EXEC runs, or not."""
    value = ('SET', 'a', 'x')
    for before, between in (
            ([value], [('SETBIT', 'a', 7, 0)]), ([value], [('SETBIT', 'a', 7, 1)]),
            ([value], [('SETBIT', 'a', 8, 0)]), ([], [('SETBIT', 'a', 0, 0)]),
            ([value], [('BITFIELD', 'a', 'SET', 'u8', 0, 120)]),
            ([value], [('BITFIELD', 'a', 'INCRBY', 'u8', 0, 0)]),
            ([value], [('BITFIELD', 'a', 'OVERFLOW', 'FAIL', 'SET', 'u8', 0, 256)]),
            ([value], [('APPEND', 'a', '')]), ([value], [('SETRANGE', 'a', 0, '')]),
            ([value], [('PERSIST', 'a')]), ([value], [('GETEX', 'a', 'PERSIST')]),
            ([value], [('EXPIRE', 'a', 100, 'XX')]), ([value], [('EXPIRE', 'a', 100)]),
            ([value], [('RENAME', 'a', 'a')]), ([value], [('COPY', 'a', 'b')]),
            ([value], [('SET', 'a', 'x')]), ([value], [('SET', 'a', 'x', 'NX')]),
            ([value], [('MSETNX', 'a', 1, 'b', 1)]), ([value], [('INCRBYFLOAT', 'a', 1)]),
            ([value], [('SET', 'a', 1, 'PXAT', 1), ('GET', 'a')]), ([], [('FLUSHALL',)]),
            ([], [('SET', 'a', 1, 'PXAT', 1), ('GET', 'a')]), ([value], [('FLUSHALL',)]),
            ([('SET', 'a', 1, 'PXAT', 1)], [('GET', 'a')]),
            ([('SET', 'a', 1, 'PXAT', 1)], [('FLUSHALL',)]),
            ([('SET', 'a', 1, 'PXAT', 1)], [('SET', 'a', 1)])):
        tap.equal(*(transaction(path, before, between) for path in (kvd.socket, redis.socket)),
                  f'WATCH behind {before}, then {between}')
    for before in ([value], []):
        longer = [('BITFIELD', 'a', 'OVERFLOW', 'FAIL', 'SET', 'u8', 80, 256)]
        tap.equal([transaction(path, before, longer) for path in (kvd.socket, redis.socket)],
                  [None, ['PONG']], 'a value that became longer because BITFIELD failed is '
                                    'another one in kvd, and the same in Redis')


# K is a key whose time is over, L one that is there, D one that never was.
ON_ENDED = (
    'APPEND K x|BITCOUNT K|BITFIELD K GET u8 0|BITFIELD K SET u8 0 1|BITFIELD_RO K GET u8 0|'
    'BITOP AND D K L|BITOP NOT D K|BITOP OR K L|BITPOS K 1|COPY K D|COPY L K|COPY L K REPLACE|'
    'DECR K|DEL K|DEL K K L|EXISTS K K|EXPIRE K 100|EXPIRE K -1|EXPIRETIME K|GET K|GETBIT K 1|'
    'GETDEL K|GETEX K|GETEX K PERSIST|GETRANGE K 0 1|GETSET K y|INCR K|INCRBYFLOAT K 1.5|KEYS *|'
    'LCS K L|LCS L K|LCS K K|MGET K L K|MOVE K 1|MSET K a|MSETNX K a L b|OBJECT ENCODING K|'
    'OBJECT FREQ K|PERSIST K|PEXPIREAT K 1|PSETEX K 100000 v|PTTL K|RENAME K D|RENAME L K|'
    'RENAMENX L K|SET K v|SET K v GET|SET K v KEEPTTL|SET K v NX|SET K v XX|SET K v XX GET|'
    'SETBIT K 1 1|SETEX K 100000 v|SETNX K v|SETRANGE K 0 x|STRLEN K|SUBSTR K 0 1|TOUCH K|TTL K|'
    'TYPE K|UNLINK K').split('|')
END = ('SET', 'K', 'v', 'PXAT', '1'), ('SET', 'L', 'value')
DELETE = ('SET', 'K', 'v'), ('SET', 'L', 'value'), ('GETEX', 'K', 'PXAT', '1')


def events(path, before, commands):
    """The last reply, and the events of both together, but for the end of a key: each server
    notices that in its own time."""
    with Connection(path) as c, Connection(path) as listener:
        c.pipeline([('FLUSHALL',), ('CONFIG', 'SET', 'notify-keyspace-events', 'EAmn')])
        listener.command('PSUBSCRIBE', '__keyevent@0__:*')
        reply = c.pipeline([*before, *commands])[-1]
        c.pipeline([('CONFIG', 'SET', 'notify-keyspace-events', ''),
                    ('PUBLISH', '__keyevent@0__:', 'last')])
        told = []
        while told[-1:] != [(b'', b'last')]:
            message = listener.reply()
            told.append((message[2].partition(b':')[2], message[3]))
        return str(reply), [event for event in told if event[0] != b'expired']


def ended(tap, kvd, redis):
    """What every command says, and tells, about a key whose time is over."""
    for name, before in (('has ended', END), ('was deleted', DELETE)):
        different = []
        for command in ON_ENDED:
            words = tuple(command.split())
            block = ('MULTI',), words, ('EXEC',)
            for setup, commands in ((before, (words,)), (before, block),
                                    ((), (('MULTI',), *before, words, ('EXEC',)))):
                mine, theirs = (events(path, setup, commands)
                                for path in (kvd.socket, redis.socket))
                if mine != theirs:
                    different.append((setup, commands, mine, theirs))
        tap.equal(different[:5], [], f'{len(ON_ENDED)} commands about a key that {name}: the '
                                     'same replies and events, in transactions too')


def options_in_exec(tap, kvd, redis):
    """Events go by the options at their time, though they are told when EXEC is over."""
    option = 'CONFIG', 'SET', 'notify-keyspace-events'
    for name, before, commands in (
            ('off', DELETE, (('STRLEN', 'K'), (*option, ''), ('SET', 'K', 1))),
            ('on', [(*option, '')], (('SET', 'K', 1), (*option, 'E$'), ('SET', 'L', 1))),
            ('others', [(*option, 'Eg')], (('SET', 'K', 1), ('DEL', 'K'), (*option, 'E$'),
                                           ('SET', 'L', 1), ('DEL', 'L')))):
        tap.equal(*(events(path, before, (('MULTI',), *commands, ('EXEC',)))
                    for path in (kvd.socket, redis.socket)),
                  f'events switched {name} inside a transaction')


PATTERN_BYTES = 'ab*?[]^-\\:*'


def keys_in_multi(tap, kvd, redis):
    """KEYS and DBSIZE between MULTI and EXEC see what was done before them."""
    replies = []
    for path in (kvd.socket, redis.socket):
        c = Connection(path)
        c.pipeline([('FLUSHALL',), ('MSET', 'old', 1, 'gone', 1, 'changed', 1, 'moved', 1)])
        c.pipeline([('MULTI',), ('SET', 'new', 1), ('DEL', 'gone'), ('SET', 'changed', 2),
                    ('EXPIRE', 'moved', 1000), ('SET', 'brief', 1), ('DEL', 'brief'),
                    ('DBSIZE',), ('KEYS', '*'), ('FLUSHALL',), ('DBSIZE',), ('KEYS', '*'),
                    ('SET', 'last', 1), ('DBSIZE',), ('KEYS', '*')])
        replies.append([sorted(r) if isinstance(r, list) else r for r in c.command('EXEC')])
        tap.equal(c.command('KEYS', '*'), [b'last'], 'and what is left is what came last')
    tap.equal(replies[0], replies[1], 'KEYS and DBSIZE inside MULTI')


def large_commands(rng):
    """Reads and writes of bits and parts of large values, all over them and past their ends."""
    def bit(room=2000):
        return rng.randrange(8 * 600000 + room)

    def field():
        verb = rng.choice(['GET', 'SET', 'INCRBY'])
        number = [] if verb == 'GET' else [rng.randrange(-1000, 1000)]
        return [verb, f'{rng.choice("iu")}{rng.randrange(1, 64)}', bit(), *number]

    key, other = rng.sample(['a', 'b', 'c'], 2)
    word = bytes(rng.randrange(256) for _ in range(rng.randrange(40)))
    return rng.choice([
        ['BITCOUNT', key], ['BITCOUNT', key, bit(), -rng.randrange(5000), 'BIT'],
        ['BITPOS', key, rng.randrange(2), rng.randrange(600000)],
        ['BITPOS', key, rng.randrange(2), bit(), -1, 'BIT'],
        ['BITFIELD', key, 'OVERFLOW', rng.choice(['WRAP', 'SAT', 'FAIL']),
         *[part for _ in range(200) for part in field()]],
        ['BITFIELD_RO', key, 'GET', 'u63', bit(), 'GET', 'i7', bit()],
        ['BITOP', rng.choice(['AND', 'OR', 'XOR']), key, *rng.choices(['a', 'b', 'c', 'no'], k=3)],
        ['BITOP', 'NOT', key, other], ['SETBIT', key, bit(), rng.randrange(2)],
        ['APPEND', key, word * rng.randrange(1, 300)],
        ['SETRANGE', key, rng.randrange(620000), word * rng.randrange(1, 300)],
        ['GETRANGE', key, rng.randrange(620000), rng.randrange(620000)],
        ['STRLEN', key], ['LCS', 'long', 'short'], ['LCS', 'short', 'long', 'IDX', 'WITHMATCHLEN']])


def large_values(tap, kvd, redis, rng):
    """What is done in slices is what Redis does in one go."""
    mine, theirs = Connection(kvd.socket), Connection(redis.socket)
    different = []
    # Redis bounds what LCS needs, and kvd as much as a value may have.
    values = [('FLUSHALL',), ('SET', 'short', rng.randbytes(2)),
              ('SET', 'long', rng.randbytes(300000))]
    values += [('SET', key, rng.randbytes(600000)) for key in 'abc']
    for connection in (mine, theirs):
        connection.pipeline(values)
    for _ in range(90):
        command = large_commands(rng)
        replies = [[connection.command(*command), *connection.pipeline(
            [('GET', key) for key in 'abc'])] for connection in (mine, theirs)]
        if replies[0] != replies[1]:
            different.append([str(word)[:20] for word in command[:12]])
    tap.equal(different, [], 'bits and parts of large values are those of Redis')
    for connection in (mine, theirs):
        connection.command('FLUSHALL')
        connection.close()


def patterns(tap, kvd, redis, rng):
    """Generated glob patterns through KEYS."""
    mine, theirs = Line(kvd.socket), Line(redis.socket)
    names = [''.join(rng.choice('ab-:]\\') for _ in range(rng.randrange(1, 6))) for _ in range(300)]
    sets = Connection.encode('FLUSHALL') + b''.join(Connection.encode('SET', name, 1)
                                                    for name in names)
    for line in (mine, theirs):
        line.send(sets)
        line.wait(1 + len(names), TIMEOUT_S)
    different = []
    for _ in range(500):
        pattern = ''.join(rng.choice(PATTERN_BYTES) for _ in range(rng.randrange(0, 9)))
        replies = [line.ask(Connection.encode('KEYS', pattern)) for line in (mine, theirs)]
        if not any_order(*replies):
            different.append(pattern)
    tap.equal(different[:10], [], '500 generated patterns match the same keys')


RAW_STREAMS = [
    b'PING\r\n', b'ping hello\n', b'SET inline "a b\\x41\\n"\r\nGET inline\r\n',
    b"SET inline 'it\\'s'\r\nGET inline\r\n", b'\r\n\r\nPING\r\n', b'*0\r\nPING\r\n',
    b'*-1\r\nPING\r\n',
    b'SET a "unbalanced\r\n', b'SET a "b"c\r\n', b'*1\r\n$abc\r\n', b'*1\r\n$-1\r\nPING\r\n',
    b'*abc\r\nPING\r\n', b'*2147483648\r\n', b'*1\r\n*1\r\n', b'*1\r\n:1\r\n',
    b'*2\r\n$3\r\nGET\r\n$-5\r\n', b'*1\r\n$4\r\nPINGxxPING\r\n', b'x' * 70000, b'*' + b'1' * 70000,
    b'*1\r\n$' + b'1' * 70000, b'   \r\nPING\r\n', b'PING\r\nQUIT\r\nPING\r\n',
    b'*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n',
]


def raw_streams(tap, kvd, redis):
    """Bytes that no client library sends: answered and closed alike. (Arrays of more than 1048576
    elements, which kvd refuses and Redis waits for, are left out.)"""
    for data in RAW_STREAMS:
        replies = []
        for path in (kvd.socket, redis.socket):
            line = Line(path)
            line.send(data)
            try:
                line.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # closed by the server already
            while line.receive(TIMEOUT_S):
                pass
            replies.append(line.data)
            line.close()
        tap.equal(replies[0], replies[1], f'bytes {data[:40]!r}: answered alike')


def table(tap, kvd, redis, names):
    """The command table: what COMMAND INFO says about arity, flags, keys and categories."""
    mine, theirs = Line(kvd.socket), Line(redis.socket)
    different = []
    for name in sorted(names):
        replies = [parse(line.ask(Connection.encode('COMMAND', 'INFO', name)))[0]
                   for line in (mine, theirs)]
        if facts(replies[0]) != facts(replies[1]):
            different.append((name, *map(facts, replies)))
    if not tap.ok(not different,
                  f'COMMAND INFO agrees on arity, flags, keys, categories: {len(names)} commands'):
        for name, a, b in different[:10]:
            tap.diag(f'{name}: kvd   {a}\n{" " * len(name)}  redis {b}')
