#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Few descriptors: nobody's use of them keeps others from theirs (G, H).

The limits concern a kvd without privileges, to which users connect that are none of its own: that
needs root.
"""
import contextlib
import mmap
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import ReplyError, Tap, wait_until  # noqa: E402
from users import Users  # noqa: E402

KVD_USER, ALICE, BOB, CAROL = 4200, 4201, 4202, 4203


class Limited(Users):
    """A kvd of a user of its own, that may have so many descriptors."""

    def __init__(self, files, *args, **others):
        self.files = files
        super().__init__('--persist', 'memory', *args, **others)

    def open_socket(self):
        folder = os.path.join(self.root, 'door')
        os.mkdir(folder)
        for path in (folder, self.dir):
            os.chown(path, KVD_USER, KVD_USER)
        self.args += ['--socket', os.path.join(folder, 'users.sock')]

    def spawn(self, *args):
        before = os.environ.get('KVD_WRAPPER')
        os.environ['KVD_WRAPPER'] = (
            f'prlimit --nofile={self.files} setpriv --reuid={KVD_USER} --regid={KVD_USER} '
            f'--clear-groups {before or ""}')
        try:
            super().spawn(*args)
        finally:
            if before is None:
                del os.environ['KVD_WRAPPER']
            else:
                os.environ['KVD_WRAPPER'] = before


def attach(client):
    """What is said, and how many descriptors came with it; they are closed."""
    client.send(client.encode('KVD.ATTACH'))
    data, fds, _, _ = socket.recv_fds(client.sock, 1 << 16, 3)
    for fd in fds:
        os.close(fd)
    return data, len(fds)


def attaches(kvd, uid):
    with kvd.user(uid) as client:
        said, count = attach(client)
        if count != 3:
            Tap.diag(f'uid {uid}: {said}')
        return count == 3


def unread(kvd, stack, uid, count):
    """Connections of a user that ask for descriptors and never read."""
    clients = []
    for _ in range(count):
        client = stack.enter_context(kvd.user(uid))
        client.send(client.encode('KVD.ATTACH'))
        clients.append(client)
    return clients


def settled(kvd):
    """Attachments that were refused and descriptors on their way, when all asked was answered."""
    counters = kvd.stats()['counters']
    return counters['refused_flight'], counters['descriptors_in_flight']


def on_their_way(tap):
    with Limited('1024:1024', '--maxclients-uid-share', 100) as kvd, \
            contextlib.ExitStack() as stack:
        greedy = unread(kvd, stack, ALICE, 342)
        wait_until(lambda: settled(kvd)[0] > 0, 'the bound to be reached')
        tap.ok(attaches(kvd, BOB), 'G: who leaves descriptors unread keeps nobody from attaching')
        tap.ok(attaches(kvd, 0), 'G: root neither')
        unread(kvd, stack, CAROL, 10)
        tap.ok(attaches(kvd, BOB), 'G: two of them neither')
        with kvd.user(ALICE) as again:
            said, count = attach(again)
            tap.ok(count == 0 and b'were not received' in said, f'they themselves are told: {said}')
        tap.ok(f'uid {ALICE}' in kvd.log() and 'ulimit -n' in kvd.log(),
               'the log names the user and what to change')
        # What kvd closes the kernel still counts: as long as the client keeps its end open.
        with kvd.connect() as root:
            root.command('CLIENT', 'KILL', 'SKIPME', 'yes')
        _, before = settled(kvd)
        tap.ok(before > 60, f'G: of closed connections {before} descriptors are still on their way')
        tap.ok(attaches(kvd, BOB), 'G: which still keeps nobody from attaching')
        for client in greedy:
            client.close()
        wait_until(lambda: settled(kvd)[1] < before, 'what was given up to be seen')
        tap.ok(attaches(kvd, ALICE), 'who has given them up may attach again')


def option(kvd, name):
    with kvd.connect() as root:
        return int(root.command('CONFIG', 'GET', name)[1])


def served(kvd, uid):
    try:
        with kvd.user(uid) as client:
            return client.command('PING') == 'PONG'
    except (OSError, EOFError):
        return False


def connections(tap):
    with Limited('96:96') as kvd, contextlib.ExitStack() as stack:
        most = option(kvd, 'maxclients')
        tap.ok(1 < most < 30, f'G: maxclients is what there are descriptors for: {most}')
        tap.ok(f'maxclients is {most} and not 10000' in kvd.log() and 'ulimit -n' in kvd.log(),
               'the log says so and what to change')
        for _ in range(90):
            try:
                client = stack.enter_context(kvd.user(ALICE))
                client.send(client.encode('KVD.ATTACH'))
                client.reply()
            except (OSError, EOFError):
                pass
        tap.ok(served(kvd, BOB), 'G: a user has its share of few descriptors, too')
        tap.ok(attaches(kvd, BOB), 'G: and leaves others theirs')
        for _ in range(most):
            try:
                stack.enter_context(kvd.user(CAROL)).command('PING')
            except (OSError, EOFError):
                pass
        tap.ok(served(kvd, 0), 'G: places that are kept for root are there')
        with kvd.connect() as root:
            said = root.command('CONFIG', 'SET', 'maxclients', most + 1)
            tap.ok(isinstance(said, ReplyError) and f'try with {most}' in str(said),
                   f'no more can be set: {said}')
            tap.equal(root.command('CONFIG', 'SET', 'maxclients', most), 'OK', 'but as many')


def raised(tap):
    with Limited('64:1024') as kvd:
        most = option(kvd, 'maxclients')
        tap.ok(300 < most < 1000, f'the limit is raised as far as it goes: {most}')


def left_behind(tap):
    """Connections that are closed while their process goes on reading."""
    with Limited('96:96') as kvd:
        for _ in range(60):
            try:
                with kvd.user(ALICE) as client:
                    client.send(client.encode('KVD.ATTACH'))
                    _, fds, _, _ = socket.recv_fds(client.sock, 1 << 16, 3)
                    if len(fds) == 3:
                        with mmap.mmap(fds[1], 4096) as page:
                            page[128:136] = ((1 << 16) + 1).to_bytes(8, 'little')  # the first slot
                    for fd in fds:
                        os.close(fd)
            except (OSError, EOFError):
                pass
        tap.ok(served(kvd, BOB), 'G: processes that are only watched leave descriptors')
        tap.ok(attaches(kvd, BOB), 'G: and others may be watched, too')
        tap.ok('processes of its user are watched' in kvd.log(), 'the log says who has so many')


def main():
    if os.geteuid() != 0:
        Tap.skip_all('only root can be other users')
    tap = Tap()
    for part in (on_their_way, connections, raised, left_behind):
        part(tap)
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
