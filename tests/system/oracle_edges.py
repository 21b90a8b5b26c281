# SPDX-License-Identifier: MIT
#
# What generated sequences cannot compare: scans followed to their end, KEYS inside transactions,
# generated patterns, bytes that no client library sends, and the command table.
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
