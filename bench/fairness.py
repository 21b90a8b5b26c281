#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""How long one client can make the others wait: a list of the worst that it can send.

For each case kvd's own record of its longest turn, in processor time of the loop's thread
(KVD.STATS, turn_longest_us), which a busy machine does not blur; the same by the clock on the
wall; and the longest round trip of a second connection that sends nothing but PING.
"""
import argparse
import json
import os
import resource
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'tests', 'lib'))
from kvdtest import Connection, Kvd  # noqa: E402
from fairness_push import pushes  # noqa: E402

from fairness_users import users  # noqa: E402

MIB = 1 << 20


class Hostile(Connection):
    """A connection that sends much and throws away what comes back."""

    def __init__(self, path):
        super().__init__(path, 600)

    def drain(self, marker=b'the-end-of-it'):
        """Reads until everything sent before is answered."""
        self.append('ECHO', marker)
        tail = b''
        while not tail.endswith(b'\r\n' + marker + b'\r\n'):
            data = self.sock.recv(1 << 20)
            if not data:
                raise EOFError('kvd closed the connection')
            tail = (tail + data)[-64:]


def request(*args):
    return Connection.encode(*args)


def keys_request(name, count, prefix=b'key:', fixed=b''):
    """NAME key key …; with `fixed`, NAME key fixed key fixed …"""
    value = b'$%d\r\n%b\r\n' % (len(fixed), fixed) if fixed else b''
    body = b''.join(b'$%d\r\n%b%09d\r\n%b' % (len(prefix) + 9, prefix, i, value)
                    for i in range(count))
    return b'*%d\r\n$%d\r\n%b\r\n%b' % (1 + count * (2 if fixed else 1), len(name), name, body)


def load(kvd, count, prefix=b'key:', value=b'v' * 16, extra=b'', each=20000):
    with kvd.connect(600) as c:
        for start in range(0, count, each):
            n = min(each, count - start)
            head = 3 + (2 if extra else 0)
            tail = b'$2\r\nPX\r\n$%d\r\n%b\r\n' % (len(extra), extra) if extra else b''
            c.send(b''.join(b'*%d\r\n$3\r\nSET\r\n$%d\r\n%b%09d\r\n$%d\r\n%b\r\n%b' %
                            (head, len(prefix) + 9, prefix, i, len(value), value, tail)
                            for i in range(start, start + n)))
            want = 5 * n
            while want:
                want -= len(c.sock.recv(min(1 << 18, want)))


class Probe:
    """A process that sends PING after PING and tells its longest round trip."""

    def __init__(self, path):
        self.ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.run(path, theirs)
            finally:
                os._exit(0)
        theirs.close()
        self.ours.recv(1)

    @staticmethod
    def run(path, pipe):
        c = Connection(path, 600)
        c.command('PING')
        pipe.send(b'!')
        pipe.setblocking(False)
        longest = 0
        while True:
            before = time.monotonic_ns()
            c.sock.sendall(b'PING\r\n')
            c.sock.recv(64)
            longest = max(longest, time.monotonic_ns() - before)
            time.sleep(0.0002)
            try:
                if not pipe.recv(1):
                    return
            except BlockingIOError:
                continue
            pipe.setblocking(True)
            pipe.sendall(b'%20d' % longest)
            pipe.setblocking(False)
            longest = 0

    def longest_us(self):
        self.ours.send(b'?')
        return int(self.ours.recv(20)) // 1000

    def close(self):
        self.ours.close()
        os.waitpid(self.pid, 0)


class Run:
    def __init__(self, options):
        self.options = options
        self.results = []

    def counters(self):
        return json.loads(self.control.command('KVD.STATS'))['counters']

    def open(self, *args):
        self.kvd = Kvd(*args)
        self.control = self.kvd.connect(600)
        self.probe = Probe(self.kvd.socket)

    def close(self):
        self.probe.close()
        self.control.close()
        self.kvd.cleanup()

    def case(self, name, act, settle=0.0):
        """Measures from before `act` until everything it sent is answered."""
        if self.options.only and self.options.only not in name:
            return
        self.control.command('CONFIG', 'RESETSTAT')
        self.probe.longest_us()
        before = time.monotonic()
        try:
            with Hostile(self.kvd.socket) as hostile:
                act(hostile)
            why = ''
        except (EOFError, OSError) as error:
            why = f' ({error})'
        took = time.monotonic() - before
        if settle:
            time.sleep(settle)
        self.control.command('PING')
        counters = self.counters()
        result = {'case': name, 'turn_us': counters['turn_longest_us'],
                  'turn_wall_us': counters['turn_longest_wall_us'],
                  'probe_us': self.probe.longest_us(), 'took_ms': int(took * 1000)}
        self.results.append(result)
        if not self.options.json:
            print(f"{name + why:<52} {result['turn_us']:>10} {result['turn_wall_us']:>10} "
                  f"{result['probe_us']:>10} {result['took_ms']:>8}", flush=True)


def send(*frames, times=1):
    def act(hostile):
        for _ in range(times):
            for frame in frames:
                hostile.sock.sendall(frame)
        hostile.drain()
    return act


def every_key(run, count):
    run.case('KEYS *', send(request('KEYS', '*')))
    run.case('KEYS that match nothing', send(request('KEYS', 'nothing')))
    run.case('KEYS a*a*a*a*b, which goes back', send(request('KEYS', '*0*0*0*0*b')))
    classes = '*[' + 'x' * 4000 + ']*[' + 'y' * 90 + ']'
    run.case('KEYS with classes of 4 KiB', send(request('KEYS', classes)))
    run.case('SCAN COUNT 1000000', send(request('SCAN', '0', 'COUNT', '1000000')))
    run.case('SCAN COUNT 1000000 MATCH 4 KiB',
             send(request('SCAN', '0', 'COUNT', '1000000', 'MATCH', '*[' + 'x' * 4000 + ']')))
    run.case('10000 RANDOMKEY', send(request('RANDOMKEY') * 10000))
    run.case('MULTI, KEYS *, EXEC', send(request('MULTI') + request('KEYS', '*') + request('EXEC')))


def many_keys(run, count):
    n = min(count, 1000000)
    for name in (b'EXISTS', b'TOUCH', b'MGET'):
        run.case(f'{name.decode()} of {n} keys', send(keys_request(name, n)))
    run.case(f'BITOP OR of {n // 10} keys',
             send(b'*%d\r\n$5\r\nBITOP\r\n$2\r\nOR\r\n$4\r\ndest\r\n' % (3 + n // 10) +
                  keys_request(b'X', n // 10).split(b'\r\nX\r\n', 1)[1]))
    half = n // 2
    run.case(f'MSET of {half} pairs', send(keys_request(b'MSET', half, b'mset', b'v')))
    run.case(f'MSETNX of {half} pairs, new',
             send(keys_request(b'MSETNX', half, b'msnx', b'v')))
    run.case(f'MSETNX of {half} pairs, not new',
             send(keys_request(b'MSETNX', half, b'msnx', b'v')))
    run.case(f'DEL of {half} keys', send(keys_request(b'DEL', half, b'mset')))
    run.case(f'UNLINK of {half} keys', send(keys_request(b'UNLINK', half, b'msnx')))
    run.case(f'DEL of {n} keys not there', send(keys_request(b'DEL', n, b'none')))
    frame = keys_request(b'EXISTS', n)

    def dribble(hostile):
        for at in range(0, len(frame), 997):
            hostile.sock.sendall(frame[at:at + 997])
        hostile.drain()
    run.case(f'EXISTS of {n} keys in small pieces', dribble)


def transactions(run):
    set_ = b''.join(request('SET', b'x%06d' % i, 'v') for i in range(100000))
    get = request('GET', 'key:000000001') * 100000
    run.case('EXEC of 100000 SET', send(request('MULTI') + set_ + request('EXEC')))
    run.case('EXEC of 100000 GET', send(request('MULTI') + get + request('EXEC')))
    run.case('DISCARD of 100000 SET', send(request('MULTI') + set_ + request('DISCARD')))
    big = request('MULTI') + request('SET', 'y', b'v' * 100) * 500000

    def leaves(hostile):
        hostile.sock.sendall(big)
        hostile.sock.settimeout(600)
        want = 5 + 9 * 500000
        while want > 0:
            want -= len(hostile.sock.recv(1 << 20))
    run.case('a client that leaves 500000 queued commands', leaves, 0.5)


def large_values(run, bytes_):
    value = os.urandom(bytes_)
    mib = bytes_ // MIB
    run.case(f'SET of {mib} MiB', send(request('SET', 'big', value)))
    run.case(f'SET of {mib} MiB again', send(request('SET', 'big', value)))
    run.case(f'GET of {mib} MiB', send(request('GET', 'big')))
    run.case(f'SET GET of {mib} MiB', send(request('SET', 'big', value, 'GET')))
    run.case(f'GETSET of {mib} MiB', send(request('GETSET', 'big', value)))
    run.case(f'GETRANGE of {mib} MiB', send(request('GETRANGE', 'big', '0', '-1')))
    run.case('SETRANGE of a byte in it', send(request('SETRANGE', 'big', '5', 'x')))
    run.case('SETBIT in it', send(request('SETBIT', 'big', '5', '1')))
    run.case(f'BITCOUNT of {mib} MiB', send(request('BITCOUNT', 'big')))
    run.case('SET of zeros', send(request('SET', 'zero', b'\0' * bytes_)))
    run.case('COPY of zeros', send(request('COPY', 'zero', 'zero2')))
    run.case(f'BITPOS over {mib} MiB', send(request('BITPOS', 'zero', '1')))
    run.case('COPY', send(request('COPY', 'big', 'big2')))
    run.case('RENAME', send(request('RENAME', 'big2', 'big3')))
    run.case('DEL of it', send(request('DEL', 'big3'), request('DEL', 'zero')), 0.1)
    run.case(f'MGET of 3 times {mib} MiB', send(request('MGET', 'big', 'big', 'big')))
    run.case('APPEND to 63 MiB', send(request('SET', 'part', value[:-MIB]),
                                      request('APPEND', 'part', 'x')))
    run.case('GETDEL', send(request('GETDEL', 'part')))
    run.case('ECHO of it', send(request('ECHO', value)))
    run.case('PING with it', send(request('PING', value)))
    run.case('EXEC with a SET of it', send(request('MULTI'), request('SET', 'big', value),
                                           request('EXEC')))
    run.case('EXEC with a GET of it', send(request('MULTI'), request('GET', 'big'),
                                           request('EXEC')))
    run.case('LCS', send(request('SET', 'a', value[:100000]),
                         request('SET', 'b', value[50000:150000]),
                         request('LCS', 'a', 'b', 'LEN')))
    run.case(f'BITOP OR of two of {mib} MiB',
             send(request('BITOP', 'OR', 'both', 'big', 'zero2')))
    run.case('BITOP NOT', send(request('BITOP', 'NOT', 'both', 'big')))
    run.case('BITFIELD with 100000 GETs', send(request(
        'BITFIELD', 'big', *[w for i in range(100000) for w in ('GET', 'u8', i * 99)])))
    run.case('BITFIELD with 100000 SETs', send(request(
        'BITFIELD', 'both', *[w for i in range(100000) for w in ('SET', 'u8', i * 99, i % 256)])))
    run.case('BITFIELD with two SETs far apart', send(request(
        'BITFIELD', 'both', 'SET', 'u8', 0, 1, 'SET', 'u8', bytes_ * 8 - 80, 1)))
    run.case('LCS of a long and a short value', send(
        request('SET', 'a', value[:bytes_ // 8]), request('SET', 'b', 'x'),
        request('LCS', 'a', 'b')))
    run.case('LCS of 4000 and 4000 bytes', send(
        request('SET', 'a', value[:4000]), request('SET', 'b', value[2000:6000]),
        request('LCS', 'a', 'b')))
    run.case('DEL of what BITOP made', send(request('DEL', 'both', 'zero2')), 0.1)
    run.case('SETRANGE far out', send(request('SETRANGE', 'far', str(bytes_ - 10), 'x')))
    run.case('EXPIRE of a large value', send(request('EXPIRE', 'big', '1000')))
    run.case('DEL of the rest', send(request('DEL', 'big', 'far', 'a', 'b')), 0.1)

    def leaves(hostile):
        for _ in range(3):
            hostile.append('ECHO', value)
        time.sleep(0.5)
    run.case('a client that leaves 200 MiB of replies', leaves, 0.2)

    def half(hostile):
        hostile.sock.sendall(request('SET', 'k', value)[:-100])
        time.sleep(0.2)
    run.case('a client that leaves half a large request', half, 0.2)


def many_clients(run, count):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = []

    def storm(_):
        for _ in range(count):
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            s.settimeout(20)
            s.connect(run.kvd.socket)
            clients.append(s)
    run.case(f'{count} connections', storm)
    run.case('CLIENT LIST', send(request('CLIENT', 'LIST')))
    run.case('CLIENT LIST ID with 100000 ids',
             send(b'*100003\r\n$6\r\nCLIENT\r\n$4\r\nLIST\r\n$2\r\nID\r\n' +
                  b'$4\r\n9999\r\n' * 100000))
    run.case('INFO', send(request('INFO', 'everything')))

    def at_once(_):
        for s in clients:
            s.sendall(b'PING\r\n')
        for s in clients:
            s.recv(64)
    run.case(f'{count} PINGs on as many connections', at_once)

    def publish(hostile):
        if 'unknown' in str(hostile.command('PUBLISH', 'nobody', 'x')):
            return
        for s in clients:
            s.sendall(request('SUBSCRIBE', 'news'))
        for s in clients:
            s.recv(200)
        run.control.command('CONFIG', 'RESETSTAT')
        hostile.append('PUBLISH', 'news', b'x' * 100)
        hostile.drain()
        for s in clients:
            s.recv(4096)
    run.case(f'PUBLISH to {count}', publish)

    def patterns(hostile):
        n = 1000
        hostile.sock.sendall(b'*%d\r\n$10\r\nPSUBSCRIBE\r\n' % (n + 1) + b''.join(
            b'$27\r\n*a*a*a*a*a*a*a*a*b%09d\r\n' % i for i in range(n)))
        time.sleep(1)
        with Hostile(run.kvd.socket) as other:
            other.append('PUBLISH', 'a' * 1000, 'x')
            other.drain()
    run.case('PSUBSCRIBE with 1000 hostile patterns', patterns)

    def tracking(hostile):
        n = 20000
        hostile.sock.sendall(request('HELLO', '3') + b'*%d\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n'
                             b'$2\r\nON\r\n$5\r\nBCAST\r\n' % (4 + 2 * n) + b''.join(
                                 b'$6\r\nPREFIX\r\n$10\r\np%09d\r\n' % i for i in range(n)))
        time.sleep(1)
        with Hostile(run.kvd.socket) as other:
            other.append('SET', 'p000000001x', 'x')
            other.drain()
    run.case('CLIENT TRACKING BCAST with 20000 prefixes', tracking)
    run.case('CLIENT KILL of all', send(request('CLIENT', 'KILL', 'TYPE', 'pubsub')), 0.2)

    def leave(_):
        for s in clients:
            s.close()
    run.case(f'{count} connections that end', leave, 0.5)


def talk(run):
    run.case('CONFIG GET *', send(request('CONFIG', 'GET', '*')))
    run.case('CONFIG GET with 10000 patterns', send(request('CONFIG', 'GET', *['*a*b*c*'] * 10000)))
    run.case('CONFIG GET with 15000 patterns of 4 KiB',
             send(b'*15002\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n' +
                  (b'$4000\r\n' + b'*a' * 1999 + b'*b\r\n') * 15000))
    run.case('COMMAND', send(request('COMMAND')))
    run.case('COMMAND DOCS', send(request('COMMAND', 'DOCS')))
    run.case('COMMAND DOCS with 10000 names', send(request('COMMAND', 'DOCS', *['set'] * 10000)))
    run.case('COMMAND INFO with 10000 names', send(request('COMMAND', 'INFO', *['set'] * 10000)))
    run.case('COMMAND GETKEYS of a million', send(
        b'*1000003\r\n$7\r\nCOMMAND\r\n$7\r\nGETKEYS\r\n$4\r\nMGET\r\n' +
        b'$1\r\na\r\n' * 1000000))
    run.case('COMMAND GETKEYSANDFLAGS of 100000', send(
        keys_request(b'COMMAND', 100000).replace(
            b'*100001\r\n$7\r\nCOMMAND\r\n',
            b'*100003\r\n$7\r\nCOMMAND\r\n$15\r\nGETKEYSANDFLAGS\r\n$4\r\nMGET\r\n')))
    run.case('LATENCY HISTOGRAM with 10000 names',
             send(request('LATENCY', 'HISTOGRAM', *['ping'] * 10000)))
    run.case('CLIENT KILL with 10000 filters',
             send(request('CLIENT', 'KILL', *['ID', '999999'] * 10000)))

    def slow(hostile):
        hostile.command('CONFIG', 'SET', 'slowlog-log-slower-than', '0', 'slowlog-max-len', '50000')
        hostile.sock.sendall(request('ECHO', 'x' * 100) * 50000)
        hostile.drain()
        run.control.command('CONFIG', 'RESETSTAT')
        hostile.command('CONFIG', 'SET', 'slowlog-log-slower-than', '-1')
        hostile.sock.sendall(request('SLOWLOG', 'GET', '-1') + request('SLOWLOG', 'RESET'))
        hostile.drain()
    run.case('SLOWLOG GET of 50000, and RESET', slow)
    run.case('INFO', send(request('INFO')))
    run.case('INFO with 10000 sections', send(request('INFO', *['all'] * 10000)))
    run.case('KVD.STATS', send(request('KVD.STATS')))
    run.case('10000 requests PING in one piece', send(b'PING\r\n' * 10000))
    run.case('a million empty lines', send(b'\r\n' * 1000000))
    run.case('a million empty arrays', send(b'*0\r\n' * 1000000))
    run.case('a line of 64 KiB of words', send(b'PING ' + b'a ' * 32000 + b'\r\n'))
    run.case('unknown command of a million arguments',
             send(b'*1000000\r\n' + b'$1\r\na\r\n' * 1000000))


def flushes(run, count):
    run.case(f'FLUSHALL of {count} keys', send(request('FLUSHALL')), 0.5)
    run.case('FLUSHALL twice', send(request('FLUSHALL'), request('FLUSHALL')), 0.3)
    load(run.kvd, min(count, 1000000))
    run.case('FLUSHALL of a million keys, twice', send(request('FLUSHALL'), request('FLUSHALL')),
             0.5)

    def fill(_):
        load(run.kvd, min(count, 1000000))
    run.case('a million SETs: the table grows', fill)

    def remove(_):
        with run.kvd.connect(600) as c:
            for start in range(0, min(count, 1000000), 20000):
                c.send(b''.join(b'*2\r\n$3\r\nDEL\r\n$13\r\nkey:%09d\r\n' % i
                                for i in range(start, start + 20000)))
                want = 4 * 20000
                while want:
                    want -= len(c.sock.recv(min(1 << 18, want)))
    run.case('a million DELs: it shrinks', remove, 2)

    def expire(_):
        load(run.kvd, min(count, 1000000), b'ttl:', b'v' * 16, b'8000')
        time.sleep(9)
    run.case('a million keys expire together', expire, 2)

    def random_keys(hostile):
        load(run.kvd, 500000, b'ttl:', b'v' * 16, b'3000')
        time.sleep(3.2)
        hostile.sock.sendall(request('RANDOMKEY') * 1000)
        hostile.drain()
    run.case('RANDOMKEY where nearly all has expired', random_keys, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--keys', type=int, default=5000000)
    parser.add_argument('--clients', type=int, default=9000)
    parser.add_argument('--value-mib', type=int, default=64)
    parser.add_argument('--memory', default='3GiB')
    parser.add_argument('--persist', default='memory')
    parser.add_argument('--only', help='cases with this in their name')
    parser.add_argument('--groups', default='talk,large,clients,push,keys,many,multi,users,flush')
    parser.add_argument('--json', action='store_true')
    options = parser.parse_args()
    run = Run(options)
    groups = options.groups.split(',')
    run.open('--persist', options.persist, '--memory', options.memory)
    if not options.json:
        print(f"{'':<52} {'turn us':>10} {'wall us':>10} {'probe us':>10} {'took ms':>8}")
    if 'talk' in groups:
        talk(run)
    if 'large' in groups:
        large_values(run, options.value_mib * MIB)
    if 'clients' in groups:
        many_clients(run, options.clients)
    if 'push' in groups:
        pushes(run, min(options.clients, 5000))
    if {'keys', 'many', 'multi', 'users', 'flush'} & set(groups):
        load(run.kvd, options.keys)
    if 'keys' in groups:
        every_key(run, options.keys)
    if 'many' in groups:
        many_keys(run, options.keys)
    if 'multi' in groups:
        transactions(run)
    if 'users' in groups:
        users(run)
    if 'flush' in groups:
        flushes(run, options.keys)
    run.close()
    if options.json:
        print(json.dumps(run.results))


if __name__ == '__main__':
    main()
