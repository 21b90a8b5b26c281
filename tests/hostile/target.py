# SPDX-License-Identifier: MIT
#
# What is attacked, and how one sees that it is not hurt: a kvd under a uid of its own, a polite
# client of another, and the facts about both that attacks must not change beyond bounds.
import json
import os
import select
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from attacker import ATTACKER_UID, KVD_UID, POLITE_UID, become  # noqa: E402
from kvdtest import KVD_PROGRAM, TIMEOUT_S, Kvd, wait_until  # noqa: E402

# Small bounds, so that little is needed to reach them.
OPTIONS = (
    '--memory', '32MiB', '--value-max', '1MiB', '--segment', '256KiB', '--persist', 'lazy',
    '--maxclients', '200', '--maxclients-uid-share', '50', '--client-output-max', '2MiB',
    '--subscriber-output-max', '1MiB', '--frame-timeout', '300ms', '--revoke', '200ms',
    '--revoke-min', '20ms', '--write-wait', '200ms', '--tracking-table-max-keys', '10000',
    '--subscriber-patterns-max', '500',
    '--quota-stored-bytes', '8MiB', '--reader-pages-max', '512')
HELP = subprocess.run([KVD_PROGRAM, '--help'], capture_output=True,
                      check=True).stdout.decode()
OPTIONS = tuple(word for pair in zip(OPTIONS[::2], OPTIONS[1::2]) if pair[0] in HELP
                for word in pair)
# Requests of the largest size for three, shares and all: what buffers may come to (PROTOCOL.md).
ANONYMOUS_BYTES_MAX = 6 * (33 << 20) + (64 << 20)
LINES_MAX = 60  # of the log, for one attack: what it tries is counted in thousands


def is_reachable(uid, path):
    """May a process of that uid run the program? A build folder can be anywhere."""
    pid = os.fork()
    if pid == 0:
        become(uid)
        os._exit(0 if os.access(path, os.X_OK) else 1)
    return os.waitpid(pid, 0)[1] == 0


def copy_programs(programs, root):
    """Copies polite and collide to where any uid may run them, and the library beside them, as the
    build folder has it. Returns their folder."""
    folder = os.path.join(root, 'tests', 'hostile')
    library = os.path.join(root, 'libclient')
    for path in (os.path.dirname(folder), folder, library):
        os.mkdir(path)
        os.chmod(path, 0o755)
    for name in ('polite', 'collide'):
        shutil.copy(os.path.join(programs, name), folder)
    built = os.path.join(programs, '..', '..', 'libclient')
    for name in os.listdir(built):
        if name.startswith('libkvclient.so') and os.path.isfile(os.path.join(built, name)):
            shutil.copy(os.path.join(built, name), library)
    return folder


class Polite:
    """The polite client, see polite.c."""

    def __init__(self, program, path):
        self.process = subprocess.Popen([program, path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, bufsize=0,
                                        preexec_fn=lambda: become(POLITE_UID))
        self.buffer = b''
        self.opened = self.line()

    def line(self):
        while b'\n' not in self.buffer:
            if not select.select([self.process.stdout], [], [], TIMEOUT_S * 4)[0]:
                return 'the polite client hangs'
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return 'the polite client has ended'
            self.buffer += data
        line, self.buffer = self.buffer.split(b'\n', 1)
        return line.decode()

    def send(self, text):
        self.process.stdin.write(text.encode() + b'\n')

    def tell(self, text):
        self.send(text)
        return self.line()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Target:
    """A kvd that is attacked."""

    def __init__(self, programs, extra=()):
        """`programs`: folder with polite and collide; `extra` options override OPTIONS."""
        self.polite = None
        self.kvd = Kvd(start=False)
        os.chmod(self.kvd.root, 0o711)
        os.chmod(self.kvd.dir, 0o711)
        self.uid = 0
        wrapper = os.environ.get('KVD_WRAPPER')
        if is_reachable(KVD_UID, KVD_PROGRAM):
            self.uid = KVD_UID
            os.chown(self.kvd.dir, KVD_UID, KVD_UID)
            os.environ['KVD_WRAPPER'] = (
                f'setpriv --reuid {KVD_UID} --regid {KVD_UID} --clear-groups --pdeathsig KILL '
                + (wrapper or ''))
        try:
            self.kvd.start('--socket-mode', '0666', *OPTIONS, *extra)
        finally:
            if wrapper is None:
                os.environ.pop('KVD_WRAPPER', None)
            else:
                os.environ['KVD_WRAPPER'] = wrapper
        self.admin = self.kvd.connect()
        wait_until(lambda: self.admin.command('DBSIZE') == 0, 'the start to be over')
        self.programs = copy_programs(programs, self.kvd.root)
        self.polite = Polite(os.path.join(self.programs, 'polite'), self.kvd.socket)

    def facts(self):
        """What an attacker knows."""
        listed = self.admin.command('CLIENT', 'LIST').decode().splitlines()
        rows = [dict(word.split('=', 1) for word in line.split()) for line in listed]
        return {'socket': self.kvd.socket, 'dir': self.kvd.dir, 'pid': self.kvd.pid,
                'polite_pid': self.polite.process.pid, 'polite_uid': POLITE_UID,
                'polite_id': next(row['id'] for row in rows if row['name'] == 'polite'),
                'collide': os.path.join(self.programs, 'collide')}

    def state(self):
        counters = json.loads(self.admin.command('KVD.STATS'))['counters']
        with open(f'/proc/{self.kvd.pid}/status', encoding='ascii') as status:
            fields = dict(line.split(':', 1) for line in status)
        return {'counters': counters, 'anonymous': int(fields['RssAnon'].split()[0]) << 10,
                'fds': len(os.listdir(f'/proc/{self.kvd.pid}/fd')),
                'lines': self.kvd.log().count('\n')}

    def wait_for_polite(self, count):
        """Until that many connections of polite clients are there."""
        wait_until(lambda: self.admin.command('CLIENT', 'LIST').count(b'name=polite') >= count,
                   'the polite client')

    def strangers(self):
        """Connections of attackers, or pages of theirs that kvd still has."""
        listed = self.admin.command('CLIENT', 'LIST').decode().splitlines()
        readers = self.admin.command('KVD.READERS')
        rows = dict(zip(readers[::2], readers[1::2]))[b'readers']
        return (sum(f'uid={ATTACKER_UID} ' in line for line in listed) +
                sum(dict(zip(row[::2], row[1::2]))[b'uid'] == ATTACKER_UID for row in rows))

    def calm(self):
        """Waits until kvd has let go of what an attacker left. None, or what is wrong."""
        try:
            wait_until(lambda: self.strangers() == 0, 'all that the attacker had is gone')
        except (TimeoutError, OSError, EOFError) as error:
            return f'{type(error).__name__}: {error}'
        return None

    def look(self, before):
        """What is wrong now, None if nothing."""
        if self.kvd.process.poll() is not None:
            return f'kvd ended with {self.kvd.process.returncode}'
        said = self.polite.tell('visit')
        if said != 'ok':
            return 'a polite client that comes now: ' + said
        state = self.state()
        if state['anonymous'] > ANONYMOUS_BYTES_MAX:
            return f"kvd's own memory: {state['anonymous']} bytes"
        counters = state['counters']
        if counters['memory_used_bytes'] > counters['memory_limit_bytes']:
            return f"the region: {counters['memory_used_bytes']} bytes"
        if state['lines'] - before['lines'] > LINES_MAX:
            return f"{state['lines'] - before['lines']} lines in the log"
        return None

    def end(self):
        if self.polite:
            self.polite.end()
        self.kvd.cleanup()
