# SPDX-License-Identifier: MIT
#
# What an attack is made of: a process of another uid, in a session of its own, which tries things
# on a kvd, counts them, says how each was answered, and ends whatever happens. It tells its parent
# by lines of JSON when it holds something, so that the parent can look at kvd meanwhile, and at the
# end what came of it.
import array
import ctypes
import errno
import json
import mmap
import os
import random
import select
import signal
import socket
import sys
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Connection, ReplyError  # noqa: E402

POLITE_UID, ATTACKER_UID, KVD_UID = 64002, 64001, 64003
FOREIGN = (errno.EACCES, errno.EPERM, errno.EBADF, errno.EINVAL, errno.ETXTBSY, errno.EXDEV,
           errno.ENOENT, errno.ESRCH)
REPORT_S = 200  # no attack takes so long
PAGE = 4096

libc = ctypes.CDLL(None, use_errno=True)


def call(function, *arguments):
    """A function of libc, with OSError as Python's own."""
    result = getattr(libc, function)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Attachment:
    """What KVD.ATTACH gives: descriptors of the region, of a reader page, of kvd.gen."""

    def __init__(self, connection, *words):
        self.connection = connection
        connection.buffer, connection.at = connection.buffer[connection.at:], 0
        connection.append('KVD.ATTACH', *words)
        self.fds = array.array('i')
        while not connection.buffer.endswith(b'\r\n') or b'gen' not in connection.buffer:
            data, control, _, _ = connection.sock.recvmsg(65536, socket.CMSG_SPACE(16 * 4))
            for level, kind, payload in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    self.fds.frombytes(payload[:len(payload) - len(payload) % 4])
            connection.buffer += data
            if not data or connection.buffer.startswith(b'-'):
                break
        self.reply = connection.reply()
        if isinstance(self.reply, ReplyError):
            self.close()
            raise PermissionError(str(self.reply))
        self.fields = dict(zip(self.reply[::2], self.reply[1::2]))
        if len(self.fds) != (1 if words else 3):
            self.close()
            raise PermissionError('the reply came without its descriptors')
        self.region, self.page_fd, self.gen = (-1, *self.fds, -1) if words else self.fds
        self.page = mmap.mmap(self.page_fd, PAGE)

    def slot(self, index, epoch, nesting=1):
        """Announces a section, as shm/layout.h says: the word of a slot is its first."""
        self.page[128 + 128 * index:136 + 128 * index] = (
            ((epoch << 16 | nesting) & (1 << 64) - 1).to_bytes(8, sys.byteorder))

    def close(self):
        for fd in self.fds:
            os.close(fd)
        self.fds = array.array('i')


class Attacker:
    """Handed to each attack; see play()."""

    def __init__(self, target, pipe, seconds, seed):
        self.target = target  # socket, directory, pid, others' pids: what an attacker can find out
        self.pipe = pipe
        self.seconds = seconds
        self.until = time.monotonic() + seconds
        self.random = random.Random(seed)
        self.tried = 0
        self.said = []
        self.bad = []
        self.connections = []

    def going(self, most=1 << 62):
        """False when the attack has lasted, or tried, as much as it may; but something it tries,
        however late it comes to that."""
        return self.tried < most and (self.tried == 0 or time.monotonic() < self.until)

    def say(self, text):
        if len(self.said) < 40:
            self.said.append(text)

    def fail(self, text):
        self.say('NOT REFUSED: ' + text)
        if len(self.bad) < 40:
            self.bad.append(text)

    def connect(self, timeout=10):
        """A connection that stays open until the end of the attack."""
        connection = Connection(self.target['socket'], timeout)
        self.connections.append(connection)
        return connection

    def drop(self, connection):
        self.connections.remove(connection)
        connection.close()

    def attach(self):
        return Attachment(self.connect())

    def refused(self, what, function, *arguments, errors=FOREIGN):
        """The kernel, or kvd, must not allow it."""
        self.tried += 1
        try:
            got = function(*arguments)
        except PermissionError as error:
            self.say(f'{what}: {error}')
        except OSError as error:
            if error.errno in errors:
                self.say(f'{what}: {error.strerror}')
            else:
                self.fail(f'{what}: {error}')
        else:
            self.fail(f'{what}: it worked ({got!r})')

    def harmless(self, what, function, *arguments):
        """It may be done or refused: whoever watches kvd decides."""
        self.tried += 1
        try:
            function(*arguments)
            self.say(f'{what}: done')
        except (OSError, EOFError) as error:
            self.say(f'{what}: {error}')

    def answered(self, what, reply, *texts):
        """An error reply with one of the texts in it."""
        self.tried += 1
        if isinstance(reply, ReplyError) and any(text in str(reply) for text in texts):
            self.say(f'{what}: {reply}')
        else:
            self.fail(f'{what}: {str(reply)[:200]!r}')

    def closed(self, what, connection, *texts):
        """kvd has closed it, or does now; with one of the texts, if some are given, as last word.
        """
        self.tried += 1
        last = None
        try:
            while True:
                last = connection.reply()
        except (EOFError, ConnectionError):
            if texts and not any(text in str(last) for text in texts):
                self.fail(f'{what}: closed with {str(last)[:200]!r}')
            else:
                self.say(f'{what}: closed, {str(last)[:120]}')
        except (OSError, ValueError) as error:
            self.fail(f'{what}: not closed ({error})')

    def hold(self, what):
        """Stays as it is until the parent has looked."""
        self.pipe.sendall(json.dumps({'hold': what}).encode() + b'\n')
        self.pipe.recv(1)

    def child(self, function, *arguments):
        """A process that does something and then stays until the attack is over."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            try:
                function(*arguments)
                theirs.sendall(b'!')
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        theirs.close()
        ours.recv(1)
        ours.close()
        return pid


def become(uid):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


class Played:
    """An attack under way, as its parent sees it."""

    def __init__(self, function, target, seconds, seed, nice=0):
        self.pipe, theirs = socket.socketpair()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self.pipe.close()
            self._child(function, target, theirs, seconds, seed, nice)
        theirs.close()
        self.buffer = b''
        self.report = None

    @staticmethod
    def _child(function, target, pipe, seconds, seed, nice):
        try:
            os.setsid()
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, 0, nice)
            become(ATTACKER_UID)
            attacker = Attacker(target, pipe, seconds, seed)
            try:
                function(attacker)
            except Exception:
                attacker.bad.append(traceback.format_exc())
            pipe.sendall(json.dumps({'tried': attacker.tried, 'said': attacker.said,
                                     'bad': attacker.bad}).encode() + b'\n')
        finally:
            os._exit(0)

    def next(self, timeout=REPORT_S):
        """What it holds now, or None when it is over: then .report has the rest."""
        while b'\n' not in self.buffer:
            data = b''
            if select.select([self.pipe], [], [], timeout)[0]:
                data = self.pipe.recv(65536)
            if not data:
                self.report = {'tried': 0, 'said': [], 'bad': ['it never came to an end']}
                return None
            self.buffer += data
        line, self.buffer = self.buffer.split(b'\n', 1)
        told = json.loads(line)
        if 'hold' in told:
            return told['hold']
        self.report = told
        return None

    def go_on(self):
        self.pipe.sendall(b'.')

    def end(self):
        """All of its processes, stopped ones too: they are a session of their own."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it did not live to have one
        os.waitpid(self.pid, 0)
        self.pipe.close()


ATTACKS = []


def attack(row, counters=(), fresh=(), needs=''):
    """Registers an attack under the name of its row in ARCHITECTURE.md's table. `counters` must
    rise by it; with `fresh` it gets a kvd of its own with those options; without the option that it
    `needs` kvd has no counter to it."""
    def register(function):
        name = row + '/' + function.__name__.replace('_', '-')
        ATTACKS.append({'name': name, 'function': function, 'counters': counters, 'fresh': fresh,
                        'needs': needs})
        return function
    return register
