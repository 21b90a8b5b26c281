# SPDX-License-Identifier: MIT
#
# Drives a client process of Redis's test harness, in place of the harness's own server: that one
# looks for ports on every interface, and cannot tell what a test that hangs was doing.
import os
import re
import signal
import socket
import subprocess
import time

from kvdtest import _die_with_parent

ESCAPES = {'n': '\n', 't': '\t', 'r': '\r', 'f': '\f', 'v': '\v', 'a': '\a', 'b': '\b'}
BLANKS = ' \t\n\r\v\f'  # fewer than Python's
WRAPPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'client.tcl')
DENIED_TAGS = '-needs:repl -needs:save -needs:pfdebug -large-memory'


def _braced(text, at):
    """End of the word in braces whose brace stands at `at`."""
    depth = 0
    while at < len(text):
        if text[at] == '\\':
            at += 1
        elif text[at] == '{':
            depth += 1
        elif text[at] == '}':
            depth -= 1
            if depth == 0:
                return at
        at += 1
    raise ValueError(f'unbalanced braces: {text[:80]!r}')


def tcl_list(text):
    """The elements of a Tcl list, as its `list` command writes them."""
    elements = []
    at = 0
    while at < len(text):
        if text[at] in BLANKS:
            at += 1
        elif text[at] == '{':
            end = _braced(text, at)
            elements.append(text[at + 1:end])
            at = end + 1
        else:
            end = re.compile(rf'(\\.|[^\\{BLANKS}])*', re.S).match(text, at).end()
            elements.append(re.sub(r'\\(.)', lambda m: ESCAPES.get(m.group(1), m.group(1)),
                                   text[at:end], flags=re.S))
            at = end
    return elements


class Hang(Exception):
    """Nothing came from the client for too long; str() is the test it was at."""


class Client:
    """One harness process against a server at `port`, with the suite in `folder`."""

    def __init__(self, folder, port, only=(), skip=()):
        listener = socket.create_server(('127.0.0.1', 0))
        options = ['--singledb', '--ignore-encoding', '--ignore-digest', '--durable',
                   '--tags', DENIED_TAGS]
        for name in only:
            options += ['--only', name]
        for name in skip:
            options += ['--skiptest', name]
        self.process = subprocess.Popen(
            ['tclsh', WRAPPER, 'tests/test_helper.tcl', '--host', '127.0.0.1',
             '--port', str(port), *options, '--client', str(listener.getsockname()[1])],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_die_with_parent)
        listener.settimeout(20)
        with listener:
            self.sock, _ = listener.accept()
        self.file = self.sock.makefile('rb')

    def _packet(self):
        line = self.file.readline()
        if not line:
            return ('exception', self.process.stdout.read().decode('latin-1')[-2000:], '0')
        wanted, payload, data = int(line), b'', b''
        while len(payload) < wanted:
            more = self.file.read(wanted - len(payload))
            if not more:
                return ('exception', 'the harness ended in the middle of a message', '0')
            data += more
            payload = re.sub(rb'\r\n?', b'\n', data)  # Tcl counts what it meant, not what it sent
        return (*tcl_list(payload.decode('latin-1')), '', '')[:3]

    def run(self, unit, quiet_s, limit_s):
        """Yields (status, text, seconds) until the unit is done. Raises Hang if nothing comes for
        `quiet_s`, or the unit takes longer than `limit_s`."""
        deadline = time.monotonic() + limit_s
        testing = 'before the first test'
        if self._packet()[0] != 'ready':
            raise ValueError('the harness does not start: ' +
                             self.process.stdout.read().decode('latin-1')[-2000:])
        payload = f'run {unit}'
        self.sock.sendall(f'{len(payload)}\n{payload}'.encode())
        while True:
            self.sock.settimeout(max(0.01, min(quiet_s, deadline - time.monotonic())))
            try:
                status, text, elapsed = self._packet()
            except TimeoutError:
                raise Hang(testing) from None
            if status == 'testing':
                testing = text
            elif status == 'done':
                return
            else:
                yield status, text, float(elapsed or 0) / 1000
            if status == 'exception':
                return

    def close(self):
        """Ends it, with what it may have started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.file.close()
        self.sock.close()
