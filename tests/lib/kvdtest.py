# SPDX-License-Identifier: MIT
#
# System tests in Python: a kvd of one's own in a temporary folder, a small RESP client that shares
# no code with the product, and TAP output. Environment: KVD_PROGRAM, KVD_BUILD (the build folder,
# else build/ in the source tree), KVD_WRAPPER ("gdb --args"), KVD_TEST_TIMEOUT_S (default 60),
# KVD_TEST_KEEP (keep the folders), KVD_TEST_SEED.
"""
    from kvdtest import Kvd, Tap

    tap = Tap()
    with Kvd('--persist', 'group') as kvd:
        c = kvd.connect()
        tap.equal(c.command('SET', 'a', '1'), 'OK', 'E: a set is acknowledged')
        kvd.kill()
        kvd.restart()
    tap.done()
"""
import atexit
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SOURCE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD_ROOT = os.environ.get('KVD_BUILD', os.path.join(SOURCE_ROOT, 'build'))
KVD_PROGRAM = os.environ.get('KVD_PROGRAM', os.path.join(BUILD_ROOT, 'daemon', 'kvd'))
KVCTL_PROGRAM = os.environ.get('KVCTL_PROGRAM', os.path.join(BUILD_ROOT, 'tools', 'kvctl'))
TIMEOUT_S = float(os.environ.get('KVD_TEST_TIMEOUT_S', '60'))
GENTLE_S, KILLED_S = 20, 5
SOCKET_BYTES_MAX = 107

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent():
    """Nothing may outlive a test that crashed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def seed(fallback=1):
    """Seed of this run, printed so that it can be replayed; returns a random.Random."""
    value = int(os.environ.get('KVD_TEST_SEED', str(fallback)), 0)
    print(f'# seed {value} (replay with KVD_TEST_SEED={value})', flush=True)
    return random.Random(value)


class Tap:
    """Numbered results; done() prints the plan and exits."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def ok(self, condition, name):
        self.count += 1
        if not condition:
            self.failed += 1
        name = str(name).replace('\n', '\\n').replace('#', '\\#')
        print(f"{'ok' if condition else 'not ok'} {self.count} - {name}", flush=True)
        if not condition:
            frame = sys._getframe(1)
            while frame.f_back and frame.f_code.co_filename == __file__:
                frame = frame.f_back
            self.diag(f'  failed at {frame.f_code.co_filename}:{frame.f_lineno}')
        return bool(condition)

    def equal(self, got, expected, name):
        if not self.ok(got == expected, name):
            self.diag(f'  got      {got!r}')
            self.diag(f'  expected {expected!r}')
            return False
        return True

    def skip(self, name, why):
        self.count += 1
        print(f'ok {self.count} - {name} # SKIP {why}', flush=True)

    @staticmethod
    def diag(text):
        for line in str(text).split('\n'):
            print(f'# {line}', flush=True)

    @staticmethod
    def skip_all(why):
        print(f'1..0 # SKIP {why}', flush=True)
        sys.exit(0)

    @staticmethod
    def bail_out(why):
        print(f'Bail out! {why}', flush=True)
        sys.exit(99)

    def done(self):
        print(f'1..{self.count}', flush=True)
        sys.exit(1 if self.failed else 0)


class ReplyError(Exception):
    """An error reply; str() is its text without the leading '-'."""

    def __eq__(self, other):
        return isinstance(other, ReplyError) and str(self) == str(other)

    def __hash__(self):
        return hash(str(self))


class Refused(ReplyError):
    """Equal to each error reply that contains what this begins with: an answer and its remedy."""

    def __eq__(self, other):
        return isinstance(other, ReplyError) and str(self) in str(other)

    __hash__ = ReplyError.__hash__


class Push(list):
    """A RESP3 push frame."""


class Status(str):
    """A simple string, distinct from bulk strings, which are bytes."""


class Connection:
    """Blocking RESP client. Replies: Status, ReplyError (returned, not raised), int, bytes, None,
    list, dict, bool, float, Push."""

    def __init__(self, path, timeout=None):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S if timeout is None else timeout)
        try:
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise
        self.buffer = b''
        self.at = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    @staticmethod
    def encode(*args):
        out = [b'*%d\r\n' % len(args)]
        for arg in args:
            if isinstance(arg, (int, float)):
                arg = repr(arg)
            if isinstance(arg, str):
                arg = arg.encode()
            out.append(b'$%d\r\n%b\r\n' % (len(arg), arg))
        return b''.join(out)

    def send(self, data):
        self.sock.sendall(data)

    def append(self, *args):
        self.send(self.encode(*args))

    def command(self, *args):
        self.append(*args)
        return self.reply()

    def pipeline(self, commands):
        """Sends all, then reads all: keep it under the socket's buffers and kvd's output cap."""
        self.send(b''.join(self.encode(*command) for command in commands))
        return [self.reply() for _ in commands]

    def _more(self):
        data = self.sock.recv(1 << 18)
        if not data:
            raise EOFError('kvd closed the connection')
        self.buffer = self.buffer[self.at:] + data
        self.at = 0

    def _line(self):
        while True:
            end = self.buffer.find(b'\r\n', self.at)
            if end >= 0:
                line = self.buffer[self.at:end]
                self.at = end + 2
                return line
            self._more()

    def _bytes(self, count):
        if len(self.buffer) - self.at < count:
            parts = [self.buffer[self.at:]]
            have = len(parts[0])
            while have < count:
                data = self.sock.recv(min(1 << 20, count - have))
                if not data:
                    raise EOFError('kvd closed the connection')
                parts.append(data)
                have += len(data)
            self.buffer, self.at = b''.join(parts), 0
        data = self.buffer[self.at:self.at + count]
        self.at += count
        return data

    def _bulk(self, count):
        data = self._bytes(count + 2)
        if data[-2:] != b'\r\n':
            raise ValueError(f'bulk string of {count} bytes does not end in CR LF: {data[-20:]!r}')
        return data[:-2]

    def reply(self):
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b'+':
            return Status(rest.decode())
        if kind == b'-':
            return ReplyError(rest.decode())
        if kind in b':(':
            return int(rest)
        if kind in b'$=':
            return None if rest == b'-1' else self._bulk(int(rest))
        if kind == b'!':
            return ReplyError(self._bulk(int(rest)).decode())
        if kind == b'*':
            return None if rest == b'-1' else [self.reply() for _ in range(int(rest))]
        if kind == b'~':
            return [self.reply() for _ in range(int(rest))]
        if kind == b'>':
            return Push(self.reply() for _ in range(int(rest)))
        if kind == b'%':
            # A tuple-keyed list would hide order; keys of kvd's maps are all strings.
            return dict((self.reply(), self.reply()) for _ in range(int(rest)))
        if kind == b'_':
            return None
        if kind == b'#':
            return rest == b't'
        if kind == b',':
            return float(rest)
        raise ValueError(f'no RESP reply: {line[:80]!r}')

    def at_end(self):
        """True if kvd has closed the connection (waits for it up to the timeout)."""
        if len(self.buffer) > self.at:
            return False
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False
        self.buffer, self.at = self.buffer[self.at:] + data, 0
        return not data


class KvdFailed(Exception):
    """kvd ended at its start; .status and .log tell how."""

    def __init__(self, status, log):
        super().__init__(f'kvd ended at its start with {status}: {log.strip()[-2000:]}')
        self.status = status
        self.log = log


class Kvd:
    """A kvd on a fresh folder. Started by the constructor unless start=False."""

    def __init__(self, *args, start=True, env=None, directory=None):
        base = os.environ.get('TMPDIR') or '/tmp'
        if len(base) + len('/kvd-test-XXXXXXXX/data/kvd.sock') > SOCKET_BYTES_MAX:
            base = '/tmp'
        self.root = tempfile.mkdtemp(prefix='kvd-test-', dir=base)
        self.dir = directory or os.path.join(self.root, 'data')
        os.makedirs(self.dir, mode=0o700, exist_ok=True)
        self.socket = os.path.join(self.dir, 'kvd.sock')
        self.log_path = os.path.join(self.root, 'kvd.log')
        self.args = [str(a) for a in args]
        self.env = dict(env or {})
        self.process = None
        self.owner = os.getpid()
        atexit.register(self.cleanup)
        if start:
            self.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, _):
        if value is not None and not isinstance(value, SystemExit):
            Tap.diag('kvd said: ' + self.log()[-4000:])
        self.cleanup()

    @property
    def pid(self):
        return self.process.pid if self.process else None

    def spawn(self, *args):
        """Starts without waiting; arguments, if given, replace those of the last start."""
        assert self.process is None, 'kvd is running already'
        if args:
            self.args = [str(a) for a in args]
        for name, value in zip(self.args, self.args[1:]):
            if name == '--socket':
                self.socket = value
        command = os.environ.get('KVD_WRAPPER', '').split()
        command += [KVD_PROGRAM, '--dir', self.dir] + self.args
        with open(self.log_path, 'ab') as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.env}, preexec_fn=_die_with_parent)

    def start(self, *args):
        self.spawn(*args)
        self.wait_ready()

    restart = start

    def wait_ready(self):
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            status = self.process.poll()
            if status is not None:
                self.process = None
                raise KvdFailed(status, self.log())
            try:
                with Connection(self.socket) as c:
                    if c.command('PING') == 'PONG':
                        return
            except (OSError, EOFError):
                pass
            time.sleep(0.002)
        raise TimeoutError(f'kvd does not answer PING at {self.socket}: {self.log()[-2000:]}')

    def connect(self, timeout=None):
        return Connection(self.socket, timeout)

    def wait(self):
        """Waits for kvd to end by itself; exit status, negative for a signal."""
        try:
            status = self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.process = None
        return status

    def stop(self):
        self.process.terminate()
        return self.wait()

    def kill(self):
        if self.process and os.environ.get('KVD_TEST_GENTLE'):
            self.process.send_signal(signal.SIGRTMAX - 1)  # tests/lib/coverage.h
            try:
                self.process.wait(KILLED_S)
            except subprocess.TimeoutExpired:
                pass
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def end(self):
        """When a test is over: at once, or so that kvd still writes what it has counted."""
        if self.process and os.environ.get('KVD_TEST_GENTLE'):
            self.process.terminate()
            try:
                self.process.wait(GENTLE_S)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def log(self):
        try:
            with open(self.log_path, encoding='utf-8', errors='replace') as log:
                return log.read()
        except FileNotFoundError:
            return ''

    def kvctl(self, *args, stdin=b'', check=False):
        """Runs kvctl against this kvd; subprocess.CompletedProcess with bytes."""
        return subprocess.run([KVCTL_PROGRAM, '--socket', self.socket] + [str(a) for a in args],
                              input=stdin, capture_output=True, timeout=TIMEOUT_S * 4, check=check)

    def cleanup(self):
        if os.getpid() != self.owner:
            return
        self.end()
        if os.environ.get('KVD_TEST_KEEP'):
            if os.path.isdir(self.root):
                Tap.diag(f'kept {self.root}')
        else:
            shutil.rmtree(self.root, ignore_errors=True)


def wait_until(condition, what, timeout=None):
    """Polls `condition` until it is true; fails loudly with `what` after the timeout."""
    deadline = time.monotonic() + (TIMEOUT_S if timeout is None else timeout)
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f'waited in vain for: {what}')
        time.sleep(0.005)
