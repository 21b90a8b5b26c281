#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# What client libraries send when they connect, as they send it: in the same pieces, and once more
# byte by byte. Each command must have one reply, in order, of the kind that the library looks for:
# one too many or too few, and everything behind it is taken for the answer of something else. An
# error is a good answer where the library expects that servers may not know the command.
import os
import re
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Connection, Kvd, ReplyError, Status, Tap  # noqa: E402


# ---- kinds of replies --------------------------------------------------------------------------

def ok(reply):
    return isinstance(reply, Status) and reply == 'OK'


def pong(reply):
    return isinstance(reply, Status) and reply == 'PONG'


def greeting(protocol):
    """HELLO's map (or flat array): what libraries look up in it."""
    def check(reply):
        if protocol == 2 and isinstance(reply, list):
            reply = dict(zip(reply[::2], reply[1::2]))
        return (isinstance(reply, dict) and reply.get(b'proto') == protocol and
                reply.get(b'mode') == b'standalone' and reply.get(b'role') == b'master' and
                isinstance(reply.get(b'id'), int) and reply.get(b'modules') == [] and
                re.match(rb'\d+\.\d+\.\d+$', reply.get(b'version')))
    return check


def unknown(reply):
    """As Redis refuses what it does not know: libraries compare the beginning."""
    return isinstance(reply, ReplyError) and re.match(r'ERR unknown (sub)?command', str(reply))


def no_cluster(reply):
    """As Redis refuses CLUSTER where it is one server alone."""
    return reply == ReplyError('ERR This instance has cluster support disabled')


def ready(reply):
    """INFO, in which the ready check of a library finds no loading."""
    return isinstance(reply, bytes) and b'\r\nloading:0\r\n' in reply and \
        b'\r\nrole:master\r\n' in reply and \
        re.match(rb'(txt:)?# Server\r\nredis_version:7\.', reply)


def table(reply):
    """COMMAND: an array of descriptions."""
    return isinstance(reply, list) and len(reply) > 50 and all(len(row) >= 6 for row in reply)


def docs(reply):
    return isinstance(reply, (list, dict)) and len(reply) > 50


def pairs(*names):
    """CONFIG GET in RESP2."""
    def check(reply):
        return isinstance(reply, list) and [n.decode() for n in reply[::2]] == list(names)
    return check


def value(expected):
    def check(reply):
        return reply == expected and isinstance(reply, type(expected))
    return check


def number(reply):
    return isinstance(reply, int) and not isinstance(reply, bool)


# ---- the libraries -----------------------------------------------------------------------------

def setinfo(name, version, first='LIB-NAME', second='LIB-VER', client='CLIENT', sub='SETINFO'):
    words = {'lib-name': name, 'lib-ver': version}
    return [((client, sub, word, words[word.lower()]), ok) for word in (first, second)]


# name -> pieces, each a list of (command, kind of its reply) that is written at once and answered
# before the next piece is written.
CLIENTS = {
    'hiredis': [
        [(('PING',), pong)],
    ],
    'hiredis, RESP3': [
        [(('HELLO', '3'), greeting(3))],
        [(('PING',), pong)],
    ],
    'redis-cli -3': [
        [(('HELLO', '3'), greeting(3))],
        [(('COMMAND', 'DOCS'), docs)],
    ],
    'redis-benchmark': [
        [(('CONFIG', 'GET', 'save'), pairs('save')),
         (('CONFIG', 'GET', 'appendonly'), pairs('appendonly'))],
    ],
    'redis-py 4': [
        [(('CLIENT', 'SETNAME', 'worker'), ok)],
        [(('SELECT', '0'), ok)],
        [(('PING',), pong)],
    ],
    'redis-py 5': [
        setinfo('redis-py', '5.0.8'),
        [(('PING',), pong)],
    ],
    'redis-py 5, RESP3 and a name': [
        [(('HELLO', '3'), greeting(3))],
        [(('CLIENT', 'SETNAME', 'worker'), ok)],
        setinfo('redis-py', '5.2.1') + [(('SELECT', '0'), ok)],
    ],
    'redis-py 6': [
        [(('HELLO', 3, 'AUTH', 'default', 'secret'), greeting(3))],
        setinfo('redis-py', '6.4.0'),
    ],
    'redis-py 8': [
        [(('HELLO', '3'), greeting(3))],
        [(('CLIENT', 'MAINT_NOTIFICATIONS', 'ON', 'moving-endpoint-type', 'none'), unknown)],
        setinfo('redis-py', '8.0.0'),
    ],
    'node-redis 4': [
        [(('CLIENT', 'SETNAME', 'web'), ok)] +
        setinfo('node-redis', '4.7.0') + [(('PING',), pong)],
    ],
    'node-redis 6': [
        [(('HELLO', '3'), greeting(3))] +
        setinfo('node-redis', '6.3.1', first='LIB-VER', second='LIB-NAME'),
    ],
    'node-redis 6 with a cache': [
        [(('HELLO', '3', 'SETNAME', 'web'), greeting(3))] +
        setinfo('node-redis', '6.3.1', first='LIB-VER', second='LIB-NAME') +
        [(('CLIENT', 'TRACKING', 'ON'), ok)],
    ],
    'ioredis 5': [
        [(('info',), ready)],
        [(('client', 'setname', 'jobs'), ok), (('get', 'nokey'), value(None))],
    ],
    'ioredis 5.11': [
        [(('client', 'setname', 'jobs'), ok)] +
        setinfo('ioredis', '5.11.1', client='client') + [(('info',), ready)],
        [(('get', 'nokey'), value(None))],
    ],
    'ioredis 6 with a name': [
        [(('hello', '3'), greeting(3)), (('client', 'setname', 'jobs'), ok)] +
        setinfo('ioredis', '6.0.0', first='LIB-VER', second='LIB-NAME', client='client') +
        [(('info',), ready)],
    ],
    'ioredis 6': [
        [(('hello', '3'), greeting(3))] +
        setinfo('ioredis', '6.0.0', client='client') + [(('info',), ready)],
    ],
    'go-redis 9': [
        [(('hello', '3'), greeting(3))],
        [(('client', 'setname', 'svc'), ok)],
        setinfo('go-redis(,go1.22.0)', '9.5.1', client='client', sub='setinfo'),
        [(('ping',), pong)],
    ],
    'go-redis 9.15 and later': [
        [(('hello', '3'), greeting(3))],
        [(('client', 'maint_notifications', 'on', 'moving-endpoint-type', 'internal-ip'),
          unknown)],
        setinfo('go-redis(,go1.24.0)', '9.15.1', client='client', sub='setinfo'),
    ],
    'rueidis': [
        [(('HELLO', '3', 'SETNAME', 'svc'), greeting(3)),
         (('CLIENT', 'TRACKING', 'ON', 'OPTIN'), ok)] +
        setinfo('rueidis', '1.0.47'),
        [(('PING',), pong)],
        [(('CLIENT', 'CACHING', 'YES'), ok), (('MULTI',), ok),
         (('PTTL', 'nokey'), value(Status('QUEUED'))), (('GET', 'nokey'), value(Status('QUEUED'))),
         (('EXEC',), value([-2, None]))],
    ],
    'lettuce 5': [
        [(('PING',), pong)],
        [(('COMMAND',), table)],
    ],
    'lettuce 6': [
        [(('HELLO', '3'), greeting(3))],
        [(('CLIENT', 'SETNAME', 'app'), ok)] +
        setinfo('Lettuce', '6.3.2.RELEASE/8941aea', first='lib-name', second='lib-ver'),
        [(('PING',), pong)],
    ],
    'jedis 5': [
        setinfo('jedis(jvm:17)', '5.1.0'),
        [(('CLIENT', 'ID'), number)],
    ],
    'phpredis': [
        [(('AUTH', 'default', 'secret'), ok)],
        [(('SELECT', '0'), ok)],
        [(('CLIENT', 'SETNAME', 'php'), ok)],
        [(('PING',), pong)],
    ],
    'StackExchange.Redis': [
        [(('CLIENT', 'SETNAME', 'host(SE.Redis-v2.7)'), ok)] +
        setinfo('SE.Redis', '2.7.33', first='lib-name', second='lib-ver', sub='SETINFO') +
        [(('CLIENT', 'ID'), number),
         (('CONFIG', 'GET', 'timeout'), pairs('timeout')),
         (('CONFIG', 'GET', 'slave-read-only'), pairs('slave-read-only')),
         (('CONFIG', 'GET', 'databases'), pairs('databases')),
         (('INFO', 'replication'), lambda r: isinstance(r, bytes) and b'role:master' in r),
         (('INFO', 'server'), lambda r: isinstance(r, bytes) and b'redis_version:' in r),
         (('CLUSTER', 'NODES'), no_cluster),
         (('ECHO', '\x01\x02\x03'), value(b'\x01\x02\x03'))],
    ],
    'a pool that takes a connection back': [
        [(('HELLO', '3'), greeting(3))],
        [(('CLIENT', 'TRACKING', 'ON'), ok), (('SUBSCRIBE', 'news'), None),
         (('WATCH', 'a'), ok), (('MULTI',), ok), (('CLIENT', 'SETNAME', 'used'), value('QUEUED')),
         (('RESET',), value(Status('RESET'))), (('CLIENT', 'GETNAME'), value(None)),
         (('GET', 'nokey'), value(None))],
    ],
}


def read_push(connection):
    """The frame of a SUBSCRIBE, which is a push, not a reply."""
    frame = connection.reply()
    return frame[:1] == [b'subscribe']


def check(tap, connection, name, commands):
    wrong = []
    for command, kind in commands:
        if kind is None:
            good = read_push(connection)
            reply = 'no push'
        else:
            reply = connection.reply()
            good = kind(reply)
        if not good:
            wrong.append((command, str(reply)[:200]))
    tap.equal(wrong, [], name)


def at_once(tap, kvd, name, pieces):
    """Piece by piece, as the library does; then nothing is left over."""
    with kvd.connect() as c:
        for commands in pieces:
            c.send(b''.join(Connection.encode(*command) for command, _ in commands))
            check(tap, c, f'{name}: ' + ', '.join(' '.join(str(w) for w in command[:2])
                                                  for command, _ in commands), commands)
        tap.equal(c.command('ECHO', 'last'), b'last', f'{name}: and not one reply more')


def bytewise(tap, kvd, name, pieces):
    """All of it, one byte a packet: kvd parses whatever has come."""
    commands = [pair for piece in pieces for pair in piece]
    with kvd.connect() as c:
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for byte in b''.join(Connection.encode(*command) for command, _ in commands):
            c.send(bytes((byte,)))
        check(tap, c, f'{name}: byte by byte', commands)
        tap.equal(c.command('ECHO', 'last'), b'last', f'{name}: and in order')


def main():
    tap = Tap()
    with Kvd('--persist', 'memory', '--memory', '64MiB') as kvd:
        for name, pieces in CLIENTS.items():
            at_once(tap, kvd, name, pieces)
            bytewise(tap, kvd, name, pieces)
    tap.done()


if __name__ == '__main__':
    main()
