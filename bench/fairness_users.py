# SPDX-License-Identifier: MIT
"""Cases of fairness.py: what a user with many busy connections does to another user's requests.

The crowd keeps its connections full of pipelined requests. A polite client sends one small request
a millisecond, whenever the last was answered (open loop: each wait counts from when the request was
due), and tells percentiles. Run as root, crowd and polite client are different users.
"""
import os
import selectors
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'tests', 'lib'))
from kvdtest import Connection  # noqa: E402

CROWD_UID, POLITE_UID = 64001, 64002
RUN_S = 4.0
EVERY_NS = 1000000


def become(uid, kvd):
    """Another user, who may pass through the test's folders to the socket."""
    if os.geteuid() != 0:
        return
    os.chmod(kvd.root, 0o711)
    os.chmod(kvd.dir, 0o711)
    os.chmod(kvd.socket, 0o666)
    os.setgid(uid)
    os.setuid(uid)


class Child:
    """A process that does something with kvd until it is told to end; what it returns is text."""

    def __init__(self, work, *args):
        self.ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.ours.close()
            try:
                theirs.sendall(work(theirs, *args).encode())
            finally:
                os._exit(0)
        theirs.close()
        self.ours.recv(1)

    def end(self):
        self.ours.sendall(b'.')
        text = b''
        while data := self.ours.recv(4096):
            text += data
        self.ours.close()
        os.waitpid(self.pid, 0)
        return text.decode()


def crowd(pipe, kvd, uid, count, frames, replies):
    """`count` connections, each with `frames` on their way until `replies` lines have come."""
    become(uid, kvd)
    selector = selectors.DefaultSelector()
    for _ in range(count):
        c = Connection(kvd.socket, 60)
        c.sock.setblocking(False)
        selector.register(c.sock, selectors.EVENT_WRITE, [memoryview(frames), 0])
    pipe.send(b'!')
    selector.register(pipe, selectors.EVENT_READ)
    rounds = 0
    while True:
        for key, events in selector.select():
            if key.fileobj is pipe:
                pipe.recv(1)
                return str(rounds)
            state = key.data
            try:
                if events & selectors.EVENT_WRITE:
                    state[0] = state[0][key.fileobj.send(state[0]):]
                if events & selectors.EVENT_READ:
                    state[1] += key.fileobj.recv(1 << 16).count(b'\n')
            except BlockingIOError:
                continue
            if not state[0] and state[1] == replies:
                rounds += 1
                state[0], state[1] = memoryview(frames), 0
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if state[0] else 0)
            if wanted != key.events:
                selector.modify(key.fileobj, wanted, state)


def polite(pipe, kvd, uid):
    """Waits of small requests in microseconds: p50, p99, the longest."""
    if os.geteuid() == 0:
        os.nice(-10)  # it is not what is measured
    become(uid, kvd)
    c = Connection(kvd.socket, 60)
    c.command('PING')
    pipe.send(b'!')
    pipe.setblocking(False)
    waits = []
    due = time.monotonic_ns()
    while True:
        due += EVERY_NS
        ahead = due - time.monotonic_ns()
        if ahead > 0:
            time.sleep(ahead / 1e9)
        c.command('GET', 'key:000000001')
        waits.append(time.monotonic_ns() - due)
        try:
            if pipe.recv(1):
                break
        except BlockingIOError:
            pass
    waits.sort()
    return ' '.join(str(waits[int((len(waits) - 1) * part)] // 1000) for part in (0.5, 0.99, 1))


def exists(keys):
    return Connection.encode('EXISTS', *('key:%09d' % i for i in range(keys)))


def case(run, name, count, frames, replies, uid=CROWD_UID):
    """One crowd beside one polite client, and the longest turn meanwhile."""
    if run.options.only and run.options.only not in name:
        return
    one = Child(polite, run.kvd, POLITE_UID)
    many = Child(crowd, run.kvd, uid, count, frames, replies)
    time.sleep(0.5)
    run.control.command('CONFIG', 'RESETSTAT')
    time.sleep(RUN_S)
    turn_us = run.counters()['turn_longest_us']
    p50, p99, longest = (int(n) for n in one.end().split())
    rounds = int(many.end())
    run.results.append({'case': name, 'turn_us': turn_us, 'p50_us': p50, 'p99_us': p99,
                        'longest_us': longest, 'crowd_rounds': rounds})
    if not run.options.json:
        print(f'{name:<52} {turn_us:>10}   p50 {p50} p99 {p99} longest {longest} us, crowd '
              f'{rounds}', flush=True)


def users(run):
    sets = b''.join(Connection.encode('SET', 'key:%09d' % i, 'v' * 64) for i in range(100))
    case(run, 'no crowd', 0, Connection.encode('PING'), 1)
    for count in (1, 100, 1000):
        case(run, f'{count} of another user: EXISTS of 1000 keys, 10 deep', count,
             exists(1000) * 10, 10)
    case(run, '100 of another user: SET, 100 deep', 100, sets, 100)
    case(run, '1000 of another user: PING', 1000, Connection.encode('PING'), 1)
    case(run, '100 of the same user: EXISTS of 1000 keys, 10 deep', 100, exists(1000) * 10, 10,
         POLITE_UID)
