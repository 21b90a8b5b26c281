# SPDX-License-Identifier: MIT
#
# kvctl bridge from outside: a client behind it must not be able to tell that it is there. Against
# a real kvd, and against a peer of our own where kvd would not do what is to be passed on.
import contextlib
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time

from kvdtest import (KVCTL_PROGRAM, TIMEOUT_S, Connection, Kvd, Tap, _die_with_parent, seed,
                     wait_until)

WAITING_BYTES_MAX = 65536
LINGER_RESET = struct.pack('ii', 1, 0)


class Bridge:
    """kvctl bridge in front of `path`, on a free port of its own."""

    def __init__(self, path, *args, listen='127.0.0.1:0', descriptors=None):
        def prepare():
            _die_with_parent()
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)
        self.process = subprocess.Popen(
            [KVCTL_PROGRAM, '--socket', path, 'bridge', '--listen', listen, *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=prepare)
        self.line = self.process.stdout.readline().decode()
        host, _, port = self.line.strip().rpartition(':')
        self.address = (host.strip('[]'), int(port or 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def socket(self):
        sock = socket.create_connection(self.address, TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def connect(self):
        """kvdtest's client over TCP."""
        connection = Connection.__new__(Connection)
        connection.sock = self.socket()
        connection.buffer, connection.at = b'', 0
        return connection

    def descriptors(self):
        return len(os.listdir(f'/proc/{self.process.pid}/fd'))

    def memory(self):
        with open(f'/proc/{self.process.pid}/statm', encoding='ascii') as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    def stop(self, number=signal.SIGTERM):
        """Exit status and what it said."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, said.decode()


class Peer:
    """In kvd's place: a listening Unix socket whose connections the test holds."""

    def __init__(self, folder, name='peer.sock'):
        self.path = os.path.join(folder, name)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(TIMEOUT_S)
        self.listener.bind(self.path)
        self.listener.listen(64)

    def accept(self):
        connection, _ = self.listener.accept()
        connection.settimeout(TIMEOUT_S)
        return connection


def read_all(sock):
    """Everything up to the end, and how it ended: '' or 'reset'."""
    parts = []
    try:
        while data := sock.recv(1 << 18):
            parts.append(data)
    except ConnectionResetError:
        return b''.join(parts), 'reset'
    return b''.join(parts), ''


def fill(sock):
    """Sends until nothing is taken any more; how much that was."""
    sock.settimeout(0.3)
    sent = 0
    with contextlib.suppress(socket.timeout, BlockingIOError):
        while True:
            sent += sock.send(b'x' * 65536)
    sock.settimeout(TIMEOUT_S)
    return sent


def check_kvd(tap, rng):
    with Kvd() as kvd, Bridge(kvd.socket) as bridge:
        tap.ok(bridge.line == f'127.0.0.1:{bridge.address[1]}\n', 'port 0 is chosen and printed')
        c = bridge.connect()
        tap.equal(c.command('SET', 'a', b'\0\r\n\xff'), 'OK', 'a SET passes')
        tap.equal(kvd.connect().command('GET', 'a'), b'\0\r\n\xff', 'and is the one kvd has')
        value = rng.randbytes(3 << 20)
        tap.equal(c.command('SET', 'large', value), 'OK', 'a value much larger than any buffer')
        tap.ok(c.command('GET', 'large') == value, 'comes back byte for byte')
        replies = c.pipeline([('SET', f'k{i}', i) for i in range(2000)])
        tap.ok(replies == ['OK'] * 2000, '2000 pipelined commands are answered')
        many = [bridge.connect() for _ in range(200)]
        for i, one in enumerate(many):
            one.append('GET', f'k{i}')
        tap.ok(all(one.reply() == b'%d' % i for i, one in enumerate(many)),
               '200 connections at a time, each with its own replies')
        idle = bridge.descriptors()
        for one in many:
            one.close()
        wait_until(lambda: bridge.descriptors() <= idle - 400, 'descriptors of closed clients')
        tap.ok(True, 'whose descriptors are given back')
        desync(tap, bridge)
        kvd.kill()
        tap.ok(c.at_end(), 'kvd dies: its clients are disconnected')
        away = bridge.connect()
        tap.ok(str(away.command('PING')).startswith(f'ERR kvd at {kvd.socket} cannot be reached'),
               'while it is away a client is told so')
        tap.ok(away.at_end(), 'and disconnected')
        kvd.restart()
        tap.equal(bridge.connect().command('PING'), 'PONG', 'the next kvd is found')
        bridge.connect()
        status, said = bridge.stop()
        tap.equal((status, said.count('cannot be reached')), (0, 1),
                  'SIGTERM ends it well, and the absence was said once')


def desync(tap, bridge):
    """As Redis's suite does it: sends nonsense until it cannot, then reads why."""
    with bridge.socket() as sock:
        sock.sendall(b'\0')
        deadline = time.monotonic() + TIMEOUT_S
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                sock.sendall(b'A' * 1024)
        text, _ = read_all(sock)
    tap.ok(b'Protocol error' in text, 'a protocol error reaches who goes on sending')


def check_ends(tap, folder):
    peer = Peer(folder)
    with Bridge(peer.path) as bridge:
        client, kvd = bridge.socket(), peer.accept()
        client.sendall(b'last words')
        client.shutdown(socket.SHUT_WR)
        tap.equal(read_all(kvd), (b'last words', ''), 'the end of what a client sends passes')
        kvd.sendall(b'answer')
        kvd.close()
        tap.equal(read_all(client), (b'answer', ''), 'and it still gets its answer')

        client, kvd = bridge.socket(), peer.accept()
        client.sendall(b'SET x')
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        client.close()
        tap.equal(read_all(kvd)[0], b'SET x', 'a reset ends the connection, behind what was sent')

        client, kvd = bridge.socket(), peer.accept()
        client.sendall(b'x' * 1000)
        tap.equal(len(kvd.recv(1)), 1, '(a peer that reads one byte)')
        kvd.sendall(b'-ERR away\r\n')
        kvd.close()
        text, _ = read_all(client)
        tap.equal(text, b'-ERR away\r\n', 'last words of a peer that read not all of it arrive')
        with contextlib.suppress(OSError):
            for _ in range(1000):
                client.sendall(b'x' * 1000)
            tap.ok(False, 'who goes on sending is reset')
        client.close()
        check_pressure(tap, bridge, peer)
        check_descriptors(tap, bridge, peer)


def check_pressure(tap, bridge, peer):
    before = bridge.memory()
    client, kvd = bridge.socket(), peer.accept()
    up, down = fill(client), fill(kvd)
    tap.ok(bridge.memory() - before < 32 * WAITING_BYTES_MAX,
           'who does not read is not buffered for')
    time_before = cpu(bridge.process.pid)
    second, other = bridge.socket(), peer.accept()
    second.sendall(b'ping')
    tap.equal(other.recv(4), b'ping', 'others go on meanwhile')
    with contextlib.suppress(socket.timeout):
        other.settimeout(0.3)
        other.recv(1)
    tap.ok(cpu(bridge.process.pid) - time_before < 10, 'and nothing spins')
    client.shutdown(socket.SHUT_WR)
    got_up = len(read_all(kvd)[0])
    kvd.close()
    tap.equal((got_up, len(read_all(client)[0])), (up, down), 'all of it arrives in the end')
    client, kvd = bridge.socket(), peer.accept()
    fill(kvd)
    client.close()
    tap.equal(read_all(kvd)[0], b'', 'a client that is gone does not hold up its peer')
    endless = False
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(1000):
            kvd.sendall(b'x' * WAITING_BYTES_MAX)
        endless = True
    tap.ok(not endless, 'which cannot go on sending to nobody')
    for sock in (kvd, second, other):
        sock.close()


def cpu(pid):
    """Ticks a process has used."""
    with open(f'/proc/{pid}/stat', encoding='ascii') as stat:
        fields = stat.read().rsplit(')', 1)[1].split()
    return int(fields[11]) + int(fields[12])


def check_descriptors(tap, bridge, peer):
    client, kvd = bridge.socket(), peer.accept()
    client.sendall(b'x')  # what passes has been accepted on both sides
    kvd.recv(1)
    before = bridge.descriptors()
    reading, writing = os.pipe()
    socket.send_fds(kvd, [b'take it'], [writing])
    os.close(writing)
    tap.equal(client.recv(100), b'take it', 'bytes that come with a descriptor pass')
    tap.equal((bridge.descriptors(), os.read(reading, 1)), (before, b''), 'the descriptor does not')
    os.close(reading)
    client.close()
    kvd.close()


def check_options(tap, folder):
    peer = Peer(folder)
    with Bridge(peer.path, '--max-connections', '2') as bridge:
        first, second = bridge.connect(), bridge.connect()
        held = [peer.accept(), peer.accept()]
        third = bridge.connect()
        tap.ok('max number of clients' in str(third.command('PING')), 'one too many is told so')
        tap.ok(third.at_end(), 'and disconnected')
        first.close()
        tap.equal(held[0].recv(1), b'', '(the first leaves)')
        held[0].close()
        wait_until(lambda: is_let_in(bridge, peer), 'the place of one that left')
        tap.ok(True, 'the place of one that left is free')
        second.close()
        tap.equal(bridge.stop(signal.SIGINT)[0], 0, 'SIGINT ends it well, too')
    peer = Peer(folder, 'v6.sock')
    with Bridge(peer.path, listen='[::1]:0') as bridge:
        if bridge.address[1]:
            with bridge.socket() as client, peer.accept() as kvd:
                client.sendall(b'six')
                tap.equal(kvd.recv(3), b'six', 'it listens at ::1')
        else:
            tap.skip('it listens at ::1', 'this machine has no IPv6')
    for text, args in (('other machines', ('--listen', '0.0.0.0:0')),
                       ('other machines', ('--listen', '[::]:0')),
                       ('in numbers', ('--listen', 'x:1')),
                       ('in numbers', ('--listen', '127.0.0.1:65536')), ('say where', ()),
                       ('it can be', ('--listen', '127.0.0.1:0', '--max-connections', '0'))):
        run = subprocess.run([KVCTL_PROGRAM, '--socket', peer.path, 'bridge', *args],
                             capture_output=True, timeout=TIMEOUT_S, check=False)
        tap.ok(run.returncode == 2 and text in run.stderr.decode(), f'refused: {args}')
    with Bridge(peer.path, '--force-any', listen='0.0.0.0:0') as bridge:
        tap.ok('warning' in bridge.stop()[1], 'with --force-any it warns')
    with Bridge(peer.path, descriptors=(64, 64)) as bridge:
        status, said = bridge.stop()
        tap.ok(status == 2 and 'ulimit' in said, 'more connections than descriptors are refused')


def is_let_in(bridge, peer):
    """Is a new client connected to the peer, not turned away?"""
    with bridge.socket() as client:
        return peer.listener in select.select([client, peer.listener], [], [], TIMEOUT_S)[0]


def main():
    tap = Tap()
    rng = seed()
    check_kvd(tap, rng)
    for check in (check_ends, check_options):
        with tempfile.TemporaryDirectory() as folder:
            check(tap, folder)
    tap.done()


if __name__ == '__main__':
    main()
