#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Whoever is refused learns why, and what to do (G).

A client beyond a limit, one that never finishes a request, a kvd that cannot start; and a stop in
the middle of all that keeps what was acknowledged (E).
"""
import contextlib
import itertools
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import (KVD_PROGRAM, TIMEOUT_S, Connection, Kvd, ReplyError, Tap,  # noqa: E402
                     wait_until)

RESERVED = 8  # KVS_CLIENTS_RESERVED of shm/limits.h: kvd's own user, who runs this, has them too
TOO_MANY = ReplyError('ERR max number of clients reached')


def refused(kvd, command=None):
    """The first thing a new client hears, and whether the connection ends then."""
    with kvd.connect() as client:
        if command:
            try:
                client.send(client.encode(*command))
            except OSError:
                pass  # closed already: what was said is still there to be read
        said = client.reply()
        try:
            client.reply()
        except (EOFError, OSError):
            return said
    return 'the connection goes on'


def too_many_clients(tap):
    with Kvd('--maxclients', 3) as kvd:
        first = kvd.connect()
        wait_until(lambda: b'connected_clients:1\r' in first.command('INFO', 'clients'),
                   'the start to be over')
        clients = [first] + [kvd.connect() for _ in range(2 + RESERVED)]
        for client in clients:
            client.command('PING')
        tap.equal(refused(kvd), TOO_MANY, 'G: a client beyond maxclients is told so and closed')
        tap.equal(refused(kvd, ('SET', 'a', 'b')), TOO_MANY, 'G: also when it speaks first')
        tap.equal(clients[1].command('GET', 'a'), None, 'G: the others are served on')
        for client in clients:
            client.close()
        wait_until(lambda: not isinstance(refused_or_served(kvd), ReplyError), 'a free place')
        tap.ok(True, 'G: when others have gone there is room again')


def refused_or_served(kvd):
    with kvd.connect() as client:
        try:
            client.send(client.encode('PING'))
            return client.reply()
        except OSError:
            return ReplyError('reset')


def no_descriptors(tap):
    """Fewer than when it started: maxclients fitted what there was then."""
    with Kvd('--persist', 'group') as kvd:
        resource.prlimit(kvd.pid, resource.RLIMIT_NOFILE, (40, 40))
        clients = []
        while len(clients) < 40:
            clients.append(kvd.connect())
            try:
                clients[-1].send(clients[-1].encode('PING'))
            except OSError:
                break  # closed already
            if clients[-1].reply() != 'PONG':
                break
        tap.ok(5 < len(clients) < 40, f'descriptors ran out with {len(clients)} clients')
        tap.equal(refused(kvd), TOO_MANY, 'G: without descriptors a client is told and closed')
        tap.equal(clients[0].command('SET', 'a', 'b'), 'OK', 'G: the others are served on')
        tap.ok('ulimit -n' in kvd.log(), 'the log names the limit and how to raise it')
        for client in clients:
            client.close()


def unfinished_requests(tap):
    with Kvd('--frame-timeout', '200ms') as kvd:
        with kvd.connect() as idle, kvd.connect() as half:
            idle.command('PING')
            half.send(b'*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000\r\nxyz')
            said = half.reply()
            tap.ok(isinstance(said, ReplyError) and 'frame-timeout' in str(said),
                   f'G: who never finishes a request is told: {said}')
            tap.equal(idle.command('PING'), 'PONG', 'G: who has begun none may be silent')
        tap.ok('(frame-timeout)' in kvd.log(), 'the log tells who it was')


def web_pages(tap):
    """HTTP, behind whose header the body would be commands: closed at the first line."""
    with Kvd('--persist', 'memory') as kvd:
        for head in (b'POST / HTTP/1.1\r\n', b'GET / HTTP/1.1\r\nHost: localhost\r\n'):
            with kvd.connect() as client:
                client.send(head + b'\r\nSET page was-here\r\n')
                rest = b''
                try:
                    client.sock.shutdown(socket.SHUT_WR)  # all that comes has come
                    while data := client.sock.recv(65536):
                        rest += data
                except OSError:
                    pass  # closed at once
                word = head.split()[0].decode()
                tap.ok(b'OK' not in rest, f'{word} of HTTP: the connection ends')
        with kvd.connect() as client:
            tap.equal(client.command('EXISTS', 'page'), 0, 'and nothing of the body was run')


def nobody_reads(tap):
    """KEYS goes on in the next turn, and meanwhile its client shut the way back."""
    with Kvd('--persist', 'memory') as kvd, kvd.connect() as other, contextlib.ExitStack() as stack:
        other.pipeline([('SET', f'{i}:' + 'a' * 400, 'v') for i in range(20000)])
        other.command('SET', 'big', 'x' * 400000)
        ways = list(itertools.product((0, 1, 2, 4, 8, 16), ('*7:*', '*a*b')))
        for delay_ms, pattern in ways:
            client = stack.enter_context(kvd.connect())
            client.send(client.encode('GET', 'big') * 3 + client.encode('KEYS', pattern))
            time.sleep(delay_ms / 1000)  # where it is cut is chance, and all places are right
            client.sock.shutdown(socket.SHUT_RD)
        done = b'cmdstat_keys:calls=%d,' % len(ways)
        wait_until(lambda: done in other.command('INFO', 'commandstats'), 'the end of all KEYS')
        tap.equal(other.command('DBSIZE'), 20001, 'KEYS for nobody does no harm')


def start(*args, wrapper=()):
    """Exit code and last line of a kvd that is to end by itself."""
    done = subprocess.run([*wrapper, KVD_PROGRAM, *[str(arg) for arg in args]],
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S,
                          check=False)
    lines = done.stderr.decode(errors='replace').strip().split('\n')
    return done.returncode, lines[-1]


def expect(tap, name, code, parts, *args, wrapper=()):
    try:
        got, line = start(*args, wrapper=wrapper)
    except subprocess.TimeoutExpired:
        tap.ok(False, f'{name}: it started')
        return
    if not tap.ok(got == code and all(part in line for part in parts), f'{name}: {line}'):
        tap.diag(f'exit code {got}, expected {code} and {parts}')


def write(path, text=''):
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)
    return path


def things_in_the_way(tap, root):
    def folder(name, *inside):
        path = os.path.join(root, name)
        os.makedirs(os.path.join(path, *inside))
        return path

    file = write(os.path.join(root, 'file'))
    expect(tap, 'DIR is a file', 73, [file, 'Not a directory', 'move away', '--dir'], '--dir', file)
    expect(tap, 'DIR is below a file', 73, [file + '/x', 'move away'], '--dir', file + '/x')
    expect(tap, 'no folder above DIR', 73, ['no/such', 'create the folder above'],
           '--dir', os.path.join(root, 'no', 'such'))
    expect(tap, 'the lock is a folder', 73, ['kvd.lock', 'Is a directory', 'move away'],
           '--dir', folder('lock', 'kvd.lock'))
    expect(tap, 'kvd.gen is a folder', 73, ['kvd.gen', 'Is a directory', 'move away'],
           '--dir', folder('gen', 'kvd.gen'))
    store = folder('store')
    write(os.path.join(store, 'store'))
    expect(tap, 'the store is a file', 71, [store, 'Not a directory', 'move away'], '--dir', store)
    here = folder('socket')
    write(os.path.join(here, 'kvd.sock'))
    expect(tap, 'the socket is a file', 73, ['not a socket', 'move it away', '--socket'],
           '--dir', here)
    expect(tap, 'no folder for the socket', 73, ['create the folder above', '--socket'],
           '--dir', folder('far'), '--socket', os.path.join(root, 'none', 'kvd.sock'))


def limits_of_the_process(tap, root):
    data = os.path.join(root, 'limits')
    expect(tap, 'address space', 71, ['cannot create the region', 'ulimit -v', '--memory-max'],
           '--dir', data, wrapper=('prlimit', '--as=300000000'))
    for count in (5, 8, 12):
        expect(tap, f'{count} descriptors', 71, ['Too many open files', 'ulimit -n'], '--dir', data,
               wrapper=('prlimit', f'--nofile={count}:{count}'))


def permissions(tap, root):
    # Root may do anything: without these two capabilities it is a user like others.
    wrapper = ()
    if os.geteuid() == 0:
        wrapper = ('setpriv', '--bounding-set', '-dac_override,-dac_read_search')
    data = os.path.join(root, 'readonly')
    os.mkdir(data, 0o500)
    expect(tap, 'a folder that may not be written', 77, ['kvd.lock', "kvd's user", '--dir'],
           '--dir', data, wrapper=wrapper)
    expect(tap, 'a folder that may not be made', 77, ['cannot create', "kvd's user"],
           '--dir', os.path.join(data, 'below'), wrapper=wrapper)
    with Kvd() as kvd:
        with kvd.connect() as client:
            client.command('SET', 'a', 'b')
        kvd.stop()
        os.chmod(os.path.join(kvd.dir, 'store', 'data.mdb'), 0o400)
        expect(tap, 'a store that may not be written', 77, ['store', "kvd's user", '--dir'],
               '--dir', kvd.dir, wrapper=wrapper)
        os.chmod(os.path.join(kvd.dir, 'store', 'data.mdb'), 0o000)
        expect(tap, 'a store that may not be read', 77, ['store', "kvd's user", '--dir'],
               '--dir', kvd.dir, wrapper=wrapper)


def full_disk(tap, root):
    """On a small file system of its own, which goes with the process."""
    data = os.path.join(root, 'small')
    os.mkdir(data)
    script = 'mount -t tmpfs -o size=%s none "$0" && { cat /dev/zero >"$0/fill"; "$@"; }'
    small = ('unshare', '--map-root-user', '--mount', 'sh', '-c')
    if subprocess.run([*small, script % '16k', data, 'true'], stdin=subprocess.DEVNULL,
                      capture_output=True, check=False).returncode != 0:
        tap.skip('G: a full disk', 'no mount namespace of our own here')
        return
    full = (*small, (script % '16k').replace('cat /dev/zero', 'head -c 1M /dev/zero'), data)
    expect(tap, 'G: not one free page', 74, ['No space left on device', 'make room'],
           '--dir', data, wrapper=full)
    nearly = (*small, (script % '28k').replace('cat /dev/zero', ':'), data)
    expect(tap, 'G: a few free pages', 74, ['No space left on device', 'make room'],
           '--dir', data, wrapper=nearly)


def where_it_is(tap):
    with Kvd() as kvd:
        tap.ok(f'(kvctl --socket {kvd.socket}, or KVD_SOCKET={kvd.socket})' in kvd.log(),
               'a kvd where clients do not look by themselves tells what to give them')
        also = os.path.join(kvd.root, 'run', 'kvd.sock')
        kvd.stop()
        kvd.start('--socket-also', also)
        with Connection(also) as client:
            tap.equal(client.command('PING'), 'PONG', 'it listens at a second path too')
        kvd.stop()
        tap.ok(not os.path.exists(also), 'and leaves nothing there')


def replies_until_end(client):
    """How many OK came, and what came instead of the next."""
    count = 0
    try:
        while True:
            reply = client.reply()
            if reply != 'OK':
                return count, reply
            count += 1
    except (EOFError, OSError):
        return count, None


def stop_on_a_full_disk(tap):
    with Kvd('--lazy-interval', '1h') as kvd:
        resource.prlimit(kvd.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        with kvd.connect() as client:
            client.command('SET', 'a', 'b' * 100000)
        tap.equal(kvd.stop(), 74, 'E: a stop that cannot commit has its own exit code')
        line = [line for line in kvd.log().split('\n') if 'the last commit failed' in line]
        tap.ok(len(line) == 1 and 'are lost' in line[0] and 'LimitFSIZE=' in line[0],
               f'E: and says what is lost, and what to do: {line}')


def stop_in_the_middle(tap):
    options = ('--memory', '16MiB', '--segment', '256KiB', '--persist', 'lazy',
               '--write-wait', '10m')
    with Kvd(*options) as kvd:
        # While its files may not grow nothing is durable, and soon writers wait for the disk.
        before = resource.prlimit(kvd.pid, resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
        with kvd.connect() as reader, kvd.connect() as writer, kvd.connect() as half:
            count = 15000
            writer.sock.setblocking(False)
            data = b''.join(writer.encode('SET', b'p%06d' % i, b'y' * 1000) for i in range(count))
            at = 0
            deadline = time.monotonic() + TIMEOUT_S
            while int_of(reader, 'writes_waited') == 0 and time.monotonic() < deadline:
                try:
                    at += writer.sock.send(data[at:at + 65536])
                except BlockingIOError:
                    pass
            tap.ok(int_of(reader, 'writes_waited') > 0, 'a writer that waits for the disk')
            half.send(b'*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000\r\nxyz')
            reader.command('PING')
            resource.prlimit(kvd.pid, resource.RLIMIT_FSIZE, before)
            status = kvd.stop()
            tap.equal(status, 0, 'E: a stop with a waiting writer and a half request is clean')
            writer.sock.setblocking(True)
            acknowledged, instead = replies_until_end(writer)
            tap.equal(instead, None, f'E: the writer has {acknowledged} acknowledgements, then '
                                     f'the end')
        tap.ok('is durable' in kvd.log(), 'E: kvd says that everything is durable')
        kvd.start(*options)
        with kvd.connect() as client:
            there = sum(client.pipeline([('EXISTS', b'p%06d' % i) for i in range(acknowledged)]))
            tap.equal(there, acknowledged, 'E: and so it is')


def int_of(client, name):
    stats = client.command('KVD.STATS')
    text = stats if isinstance(stats, bytes) else str(stats).encode()
    at = text.index(b'"' + name.encode() + b'":') + len(name) + 3
    return int(text[at:].split(b',')[0].split(b'}')[0])


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    tap = Tap()
    too_many_clients(tap)
    no_descriptors(tap)
    unfinished_requests(tap)
    web_pages(tap)
    nobody_reads(tap)
    root = tempfile.mkdtemp(prefix='kvd-test-', dir=os.environ.get('TMPDIR') or '/tmp')
    try:
        things_in_the_way(tap, root)
        limits_of_the_process(tap, root)
        permissions(tap, root)
        full_disk(tap, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    where_it_is(tap)
    stop_on_a_full_disk(tap)
    stop_in_the_middle(tap)
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
