# SPDX-License-Identifier: MIT
#
# A stand-in for kvd under --supervise (supervised.c), led step by step over a socket. Its clock
# stands in a file, and its waits pass at once ('pass'), never ('stay'), or it looks at signals only
# when a child has ended ('late').
import atexit
import mmap
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

from kvdtest import TIMEOUT_S, Tap, _die_with_parent

PROGRAM = sys.argv[1] if len(sys.argv) > 1 else ''


class Life:
    """One child: what it said when it began, and the way to tell it something."""

    def __init__(self, connection):
        self.file = connection.makefile('rw', encoding='ascii', newline='\n')
        connection.close()
        self.given = []
        self.facts = {}
        while True:
            word, *rest = self.read()
            if word == 'hello':
                break
            if word == 'given':
                self.given.append(tuple(rest))
            else:
                self.facts[word] = rest
        self.pid, self.parent = (int(number) for number in self.facts['pid'])

    def read(self):
        line = self.file.readline()
        if not line:
            raise EOFError('the child is gone')
        return line.split()

    def tell(self, *words):
        """Returns what it says until it is done with that."""
        self.file.write(' '.join(str(word) for word in words) + '\n')
        self.file.flush()
        said = []
        while True:
            line = self.read()
            if line == ['done']:
                return said
            said.append(line)

    def end(self, code):
        self.file.write('exit %d\n' % code)
        self.file.flush()

    def is_over(self):
        """True when its end of the socket is closed (waits for that)."""
        while self.file.readline():
            pass
        return True


class Supervised:
    """The stand-in under --supervise, and its children as they come."""

    def __init__(self, waits='pass', env=None, prefix=(), prepare=lambda: None):
        self.root = tempfile.mkdtemp(prefix='kvd-test-')
        self.life = None
        atexit.register(self.close)
        self.clock_path = os.path.join(self.root, 'clock')
        with open(self.clock_path, 'wb') as clock:
            clock.write(struct.pack('=Q', 10 ** 9))
        socket_path = os.path.join(self.root, 'control')
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(socket_path)
        self.listener.listen(16)
        self.listener.settimeout(TIMEOUT_S)
        self.log_path = os.path.join(self.root, 'log')
        clean = {name: value for name, value in os.environ.items()
                 if name not in ('NOTIFY_SOCKET', 'LISTEN_FDS', 'LISTEN_PID', 'FDSTORE')}

        def before_exec():
            _die_with_parent()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            prepare()

        with open(self.log_path, 'wb') as log:
            self.process = subprocess.Popen(
                [*prefix, PROGRAM, '--supervise', self.clock_path, socket_path, waits],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**clean, **(env or {})},
                preexec_fn=before_exec)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, _):
        if value is not None:
            Tap.diag(self.log())
        self.close()

    def next(self):
        connection, _ = self.listener.accept()
        connection.settimeout(TIMEOUT_S)
        self.life = Life(connection)  # which ends when nobody has it any more
        return self.life

    def has_next(self):
        """Is another child there already?"""
        self.listener.setblocking(False)
        try:
            self.listener.accept()[0].close()
            return True
        except BlockingIOError:
            return False

    def advance(self, ms):
        with open(self.clock_path, 'r+b') as file, mmap.mmap(file.fileno(), 8) as clock:
            now, = struct.unpack('=Q', clock[:8])
            clock[:8] = struct.pack('=Q', now + ms * 10 ** 6)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        return self.process.wait(TIMEOUT_S)

    def log(self):
        with open(self.log_path, encoding='utf-8', errors='replace') as log:
            return log.read()

    def waits(self):
        """Every pause so far, in ms."""
        return [int(line.split()[1]) for line in self.log().split('\n')
                if line.startswith('waited ')]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.listener.close()
        shutil.rmtree(self.root, ignore_errors=True)
