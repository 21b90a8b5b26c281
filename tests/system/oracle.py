#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# kvd against Redis 7.0: the same generated command streams go to both, and the raw replies must be
# the same bytes, in RESP2 and RESP3, outside and inside MULTI. What may differ stands in EXCEPTIONS
# with its reason. Environment: KVD_REDIS_SERVER (the server to compare with), KVD_ORACLE_COMMANDS
# (length of a stream), KVD_TEST_SEED.
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Connection, Kvd, Tap, seed, wait_until  # noqa: E402
from oracle_stream import ARITY_NAMES, KEYS, Stream  # noqa: E402

COMMANDS = int(os.environ.get('KVD_ORACLE_COMMANDS', '10000'))
BATCH = 100
DIFFERENCES_SHOWN = 10


# ---- what may differ ---------------------------------------------------------------------------

def same(mine, theirs):
    return mine == theirs


def near(mine, theirs):
    """Integers that come from two clocks."""
    if mine[:1] != b':' or theirs[:1] != b':':
        return mine == theirs
    a, b = int(mine[1:]), int(theirs[1:])
    return a == b if min(a, b) < 0 else abs(a - b) <= 3000


def near_seconds(mine, theirs):
    if mine[:1] != b':' or theirs[:1] != b':':
        return mine == theirs
    a, b = int(mine[1:]), int(theirs[1:])
    return a == b if min(a, b) < 0 else abs(a - b) <= 3


def any_order(mine, theirs):
    """Flat arrays of bulk strings."""
    return mine[:1] == theirs[:1] and sorted(bulks(mine)) == sorted(bulks(theirs))


def same_kind(mine, theirs):
    """Only the kind of reply; errors must be the same."""
    return mine == theirs if b'-' in (mine[:1], theirs[:1]) else mine[:1] == theirs[:1]


def known_about(mine, theirs):
    """COMMAND INFO of one command up to its categories."""
    a, b = parse(mine)[0], parse(theirs)[0]
    return a == b if None in (a, b) else a[:7] == b[:7]


EXCEPTIONS = [
    (r'P?TTL ', near, 'two servers, two moments'),
    (r'TTL ', near_seconds, 'two servers, two moments'),
    (r'KEYS ', any_order, 'tables differ'),
    (r'TIME $', same_kind, 'two servers, two moments'),
    (r'HELLO', same_kind, 'kvd names itself and its version'),
    (r'CLIENT (ID|INFO|LIST)', same_kind, 'connections have their own numbers'),
    (r'COMMAND INFO ', known_about, 'tips and details of key specifications are not kept'),
    (r'INFO', same_kind, 'other facts'),
]


def rule_for(command):
    text = ' '.join(part.decode('latin-1') for part in command) + ' '
    for pattern, rule, _ in EXCEPTIONS:
        if re.match(pattern, text, re.IGNORECASE):
            return rule
    return same


# ---- raw replies -------------------------------------------------------------------------------

class Raw(Connection):
    """Replies as the bytes that came."""

    def raw(self):
        line = self._line()
        kind, out = line[:1], line + b'\r\n'
        if kind in b'$=!' and line[1:] != b'-1':
            return out + self._bytes(int(line[1:]) + 2)
        if kind in b'*~>%' and line[1:] != b'-1':
            for _ in range(int(line[1:]) * (2 if kind == b'%' else 1)):
                out += self.raw()
        return out

    def all(self):
        """Everything until the server closes."""
        out = self.buffer[self.at:]
        while True:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return out
            if not data:
                return out
            out += data


class Bytes(Connection):
    """Parses bytes that are here already."""

    def __init__(self, data):
        self.buffer, self.at = data, 0

    def _more(self):
        raise EOFError


def parse(data):
    return Bytes(data).reply()


def bulks(data):
    reply = parse(data)
    return reply if isinstance(reply, list) else [reply]


# ---- the comparison ----------------------------------------------------------------------------

class Redis:
    """A redis-server of our own on a Unix socket."""

    def __init__(self, program):
        self.root = tempfile.mkdtemp(prefix='kvd-oracle-', dir=os.environ.get('TMPDIR') or '/tmp')
        self.socket = os.path.join(self.root, 'r.sock')
        self.process = subprocess.Popen(
            [program, '--port', '0', '--unixsocket', self.socket, '--save', '', '--dir', self.root,
             '--appendonly', 'no', '--databases', '1'],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ready(self):
        try:
            with Connection(self.socket) as c:
                return c.command('PING') == 'PONG'
        except OSError:
            return False

    def __enter__(self):
        try:
            wait_until(self.ready, 'redis-server answers PING')
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.root, ignore_errors=True)


def find_redis():
    program = os.environ.get('KVD_REDIS_SERVER') or shutil.which('redis-server')
    if not program:
        Tap.skip_all('redis-server is not installed')
    version = subprocess.run([program, '--version'], capture_output=True, text=True).stdout
    if ' v=7.0.' not in version:
        Tap.skip_all(f'the server to compare with must be Redis 7.0, not: {version.strip()}')
    return program


def describe(command):
    def short(part):
        return repr(part)[1:] if len(part) < 40 else repr(part[:40])[1:] + '…'
    return ' '.join(short(part) for part in command)


def stream(tap, kvd, redis, name, protocol, rng):
    commands = Stream(rng).commands(COMMANDS)
    mine, theirs = Raw(kvd.socket), Raw(redis.socket)
    for connection in (mine, theirs):
        connection.command('FLUSHALL')
        connection.command('HELLO', protocol)
    differences = 0
    history = []
    for start in range(0, len(commands), BATCH):
        batch = commands[start:start + BATCH]
        data = b''.join(Connection.encode(*command) for command in batch)
        mine.send(data)
        theirs.send(data)
        for command in batch:
            a, b = mine.raw(), theirs.raw()
            history.append(command)
            if not rule_for(command)(a, b):
                differences += 1
                if differences <= DIFFERENCES_SHOWN:
                    show(command, a, b, history)
    tap.equal(differences, 0, f'{name}: {len(commands)} commands are answered alike')
    for connection in (mine, theirs):
        connection.close()


def show(command, mine, theirs, history):
    Tap.diag(f'{describe(command)}')
    Tap.diag(f'  kvd   {mine[:300]!r}')
    Tap.diag(f'  redis {theirs[:300]!r}')
    keys = set(command[1:]) & set(KEYS)
    before = [c for c in history[:-1] if keys & set(c) or c[0] in (b'MULTI', b'EXEC', b'DISCARD')]
    for old in before[-6:]:
        Tap.diag(f'    after {describe(old)}')


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
    mine, theirs = Raw(kvd.socket), Raw(redis.socket)
    names = [''.join(rng.choice('ab-:]\\') for _ in range(rng.randrange(1, 6))) for _ in range(300)]
    for connection in (mine, theirs):
        connection.command('FLUSHALL')
        connection.pipeline([('SET', name, 1) for name in names])
    different = []
    for _ in range(2000):
        pattern = ''.join(rng.choice(PATTERN_BYTES) for _ in range(rng.randrange(0, 9)))
        replies = []
        for connection in (mine, theirs):
            connection.append('KEYS', pattern)
            replies.append(connection.raw())
        if not any_order(*replies):
            different.append(pattern)
    tap.equal(different[:10], [], '2000 generated patterns match the same keys')


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
            connection = Raw(path)
            try:
                connection.send(data)
                connection.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            replies.append(connection.all())
            connection.close()
        tap.equal(replies[0], replies[1], f'bytes {data[:40]!r}: answered alike')


def table(tap, kvd, redis):
    """The command table: what COMMAND INFO says about arity, flags, keys and categories."""
    mine, theirs = Raw(kvd.socket), Raw(redis.socket)
    different = []
    for name in ARITY_NAMES + [b'exec', b'multi', b'client', b'config', b'client|info',
                               b'config|resetstat']:
        replies = []
        for connection in (mine, theirs):
            connection.append('COMMAND', 'INFO', name)
            replies.append(parse(connection.raw())[0][:7])
        if replies[0] != replies[1]:
            different.append((name, replies))
    tap.equal(different, [], 'COMMAND INFO agrees on arity, flags, keys and categories')


def main():
    tap = Tap()
    rng = seed(1)
    program = find_redis()
    with Redis(program) as redis, Kvd('--persist', 'memory', '--memory', '64MiB') as kvd:
        Tap.diag(f'{COMMANDS} commands a stream')
        for protocol in (2, 3):
            start = time.monotonic()
            stream(tap, kvd, redis, f'RESP{protocol}', protocol, rng)
            Tap.diag(f'{time.monotonic() - start:.1f} s')
        scans(tap, kvd, redis, rng)
        keys_in_multi(tap, kvd, redis)
        patterns(tap, kvd, redis, rng)
        table(tap, kvd, redis)
        raw_streams(tap, kvd, redis)
    tap.done()


if __name__ == '__main__':
    main()
