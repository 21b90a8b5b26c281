# SPDX-License-Identifier: MIT
#
# A redis-server of one's own beside kvd, for tests that hold one against the other: on a Unix
# socket in a temporary folder, with nothing of the machine's configuration. KVD_REDIS_SERVER names
# another program than the installed one; it must be Redis 7.0, whose answers kvd gives.
import atexit
import os
import shutil
import subprocess
import tempfile

from kvdtest import Connection, Tap, _die_with_parent, wait_until

SERIES = '7.0.'


def find_redis():
    """Path of the server to compare with, and None; or None and why there is none."""
    program = os.environ.get('KVD_REDIS_SERVER') or shutil.which('redis-server')
    if not program:
        return None, 'redis-server is not installed'
    version = subprocess.run([program, '--version'], capture_output=True, text=True,
                             check=False).stdout
    if f' v={SERIES}' not in version:
        return None, f'the server to compare with must be Redis 7.0, not: {version.strip()}'
    return program, None


def redis_or_skip():
    """The same for a test that is nothing without it."""
    program, why = find_redis()
    if not program:
        Tap.skip_all(why)
    return program


class Redis:
    """A running redis-server; .socket is where."""

    def __init__(self, program, *options):
        self.root = tempfile.mkdtemp(prefix='kvd-redis-', dir=os.environ.get('TMPDIR') or '/tmp')
        atexit.register(self.stop)
        self.socket = os.path.join(self.root, 'r.sock')
        self.process = subprocess.Popen(
            [program, '--port', '0', '--unixsocket', self.socket, '--save', '', '--dir', self.root,
             '--appendonly', 'no', '--databases', '1', *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent)

    def ready(self):
        try:
            with Connection(self.socket) as c:
                return c.command('PING') == 'PONG'
        except OSError:
            return False

    def __enter__(self):
        wait_until(self.ready, 'redis-server answers PING')
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.root, ignore_errors=True)
