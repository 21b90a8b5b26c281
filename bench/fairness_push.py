# SPDX-License-Identifier: MIT
"""Cases of fairness.py: what is told to many, and what many are told."""
import socket

from kvdtest import Connection

NAMES = 100000


def named(command, count):
    """COMMAND name name …"""
    return b'*%d\r\n$%d\r\n%b\r\n' % (count + 1, len(command), command) + b''.join(
        b'$15\r\nchannel%08d\r\n' % i for i in range(count))


def subscriptions(run):
    run.case(f'SUBSCRIBE to {NAMES} channels, and the end',
             lambda hostile: (hostile.sock.sendall(b'HELLO 3\r\n' + named(b'SUBSCRIBE', NAMES)),
                              hostile.drain()), 0.5)
    run.case('the same with UNSUBSCRIBE of all',
             lambda hostile: (hostile.sock.sendall(b'HELLO 3\r\n' + named(b'SUBSCRIBE', NAMES) +
                                                   b'UNSUBSCRIBE\r\n'), hostile.drain()), 0.5)
    run.case('the same with RESET',
             lambda hostile: (hostile.sock.sendall(b'HELLO 3\r\n' + named(b'SUBSCRIBE', NAMES) +
                                                   b'RESET\r\n'), hostile.drain()), 0.5)
    run.case(f'{NAMES} keys tracked, and the end',
             lambda hostile: (hostile.sock.sendall(b'HELLO 3\r\nCLIENT TRACKING ON\r\n' +
                                                   named(b'MGET', NAMES)), hostile.drain()), 0.5)


def told(run, hostile, sockets, line, *requests):
    """Everybody in `sockets` sends `line`, then the hostile one sends the requests."""
    for s in sockets:
        s.sendall(line)
    for s in sockets:
        s.recv(4096)
    run.control.command('CONFIG', 'RESETSTAT')
    hostile.append(*requests[0])
    for each in requests[1:]:
        hostile.append(*each)
    hostile.drain()


def pushes(run, count):
    subscriptions(run)
    sockets = []
    for _ in range(count):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.connect(run.kvd.socket)
        s.settimeout(20)
        sockets.append(s)
    cases = [
        (f'PUBLISH of 100 bytes to {count}', b'SUBSCRIBE news\r\n',
         [('PUBLISH', 'news', b'x' * 100)]),
        (f'PUBLISH of 1 MiB to {count}', b'PING\r\n', [('PUBLISH', 'news', b'x' * (1 << 20))]),
    ]
    for name, line, requests in cases:
        run.case(name, lambda hostile, line=line, requests=requests: told(
            run, hostile, sockets, line, *requests), 0.5)
    for s in sockets:
        s.close()
    sockets = [Connection(run.kvd.socket, 20).sock for _ in range(count)]
    hello = b'HELLO 3\r\nCLIENT TRACKING ON\r\nGET tracked\r\n'
    run.case(f'SET of a key that {count} track', lambda hostile: told(
        run, hostile, sockets, hello, ('SET', 'tracked', 'x')), 0.5)
    run.case(f'FLUSHALL with {count} that track', lambda hostile: told(
        run, hostile, sockets, b'GET tracked\r\n', ('FLUSHALL',)), 0.5)
    run.case('EXEC of 10000 PUBLISH to 100', lambda hostile: told(
        run, hostile, sockets[:100], b'SUBSCRIBE news\r\n', ('MULTI',),
        *[('PUBLISH', 'news', 'x')] * 10000, ('EXEC',)), 0.5)
    for s in sockets:
        s.close()
