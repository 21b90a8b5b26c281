#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""kvd as a service of a booted systemd: the region in the store of descriptors (E, F).

Boots a small Debian (tree.sh) by systemd-nspawn, its changes in memory, with kvd installed by
`meson install`, and looks from inside: start, readiness, user and folders, sandbox; kvd killed,
hanging, restarted, replaced, under each policy, with a reader in the middle of a section. Nothing
of it is left behind but the tree. Arguments: the tree's folder, the build folder.
"""
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Tap, wait_until  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
BOOT_S, SHUTDOWN_S, COMMAND_S = 120, 60, 60
OK = 0
POLICIES = ('memory', 'lazy', 'group', 'sync')
KILLS_IN_A_ROW = 8  # more than systemd lets pass by default
EXPOSURE_MOST = 1.0  # of systemd-analyze security; 0 to 10


class Machine:
    """A booted tree; commands run inside as its root."""

    def __init__(self, tree, build):
        self.log = tempfile.NamedTemporaryFile(prefix='kvd-boot-', suffix='.log')
        self.process = subprocess.Popen(
            ['systemd-nspawn', '--quiet', '--boot', '--directory', tree, '--volatile=overlay',
             f'--machine=kvd-test-{os.getpid()}', '--private-network', '--register=no',
             '--keep-unit', '--console=pipe', f'--bind-ro={build}/tests/system:/mnt'],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.leader = None

    def said(self):
        with open(self.log.name, errors='replace', encoding='utf-8') as log:
            return log.read()[-2000:]

    def find_leader(self):
        if self.process.poll() is not None:
            raise RuntimeError('systemd-nspawn ended: ' + self.said())
        pid = self.process.pid
        with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as children:
            for child in children.read().split():
                with open(f'/proc/{child}/comm', encoding='ascii') as comm:
                    if comm.read() == 'systemd\n':
                        self.leader = child
        return self.leader is not None

    def inside(self, *words):
        return ['nsenter', '-t', self.leader, '-a', 'env', '-i', 'LC_ALL=C', 'HOME=/root',
                'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', *words]

    def run(self, *words, stdin=''):
        """(exit status, what it said)"""
        done = subprocess.run(self.inside(*words), input=stdin.encode(), timeout=COMMAND_S,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.returncode, done.stdout.decode(errors='replace').strip()

    def wait_booted(self):
        wait_until(self.find_leader, 'systemd to begin', BOOT_S)
        wait_until(lambda: self.run('systemctl', 'is-system-running')[1] in
                   ('running', 'degraded'), 'the boot to end', BOOT_S)

    def write(self, path, text):
        self.run('mkdir', '-p', os.path.dirname(path))
        self.run('tee', path, stdin=text)

    def show(self, *names):
        got = self.run('systemctl', 'show', 'kvd', *(f'-p{name}' for name in names))[1]
        values = dict(line.split('=', 1) for line in got.splitlines() if '=' in line)
        return [values.get(name, '') for name in names]

    def pid(self):
        return int(self.show('MainPID')[0] or 0)

    def signal(self, name, pid):
        self.run('sh', '-c', f'kill -{name} {pid}')  # there is no program of that name

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()  # systemd inside is asked to power off
            try:
                self.process.wait(SHUTDOWN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


class Reader:
    """tests/system/reader.c inside, as an ordinary user who may use kvd's socket."""

    def __init__(self, machine):
        self.process = subprocess.Popen(
            machine.inside('LD_LIBRARY_PATH=' + machine.libraries, 'setpriv', '--reuid', '65534',
                           '--regid', '65534', '--groups', machine.group, '/mnt/reader',
                           '/run/kvd/kvd.sock'),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.buffer = b''
        self.line()
        self.opened = self.tell('open', 'reader')

    def line(self):
        while b'\n' not in self.buffer:
            if not select.select([self.process.stdout], [], [], COMMAND_S)[0]:
                raise TimeoutError('the reader does not answer')
            data = os.read(self.process.stdout.fileno(), 4096)
            if not data:
                raise EOFError('the reader has ended')
            self.buffer += data
        line, self.buffer = self.buffer.split(b'\n', 1)
        return line.decode()

    def tell(self, *words):
        self.process.stdin.write(' '.join(words).encode() + b'\n')
        return int(self.line())

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def value(machine, key):
    return machine.run('kvctl', 'get', key)[1]


def store(machine, key, text):
    return machine.run('kvctl', 'set', key, text)[0] == 0


def is_back(machine, pid):
    """Does another kvd serve?"""
    state, main = machine.show('ActiveState', 'MainPID')
    return state == 'active' and int(main) not in (0, pid)


def kill(machine, pid):
    machine.signal('KILL', pid)
    wait_until(lambda: is_back(machine, pid), 'systemd to start the next kvd')


def begin(machine, options):
    """A kvd that begins with nothing. Its pid."""
    machine.run('systemctl', 'stop', 'kvd')
    machine.run('sh', '-c', 'rm -rf /var/lib/kvd/*')
    machine.write('/etc/default/kvd', f'KVD_OPTIONS={options}\n')
    machine.run('systemctl', 'reset-failed', 'kvd')
    machine.run('systemctl', 'start', 'kvd')
    return machine.pid()


def drop_in(machine, text):
    path = '/run/systemd/system/kvd.service.d/test.conf'
    if text:
        machine.write(path, '[Service]\n' + text + '\n')
    else:
        machine.run('rm', '-f', path)
    machine.run('systemctl', 'daemon-reload')


def installed(tap, machine):
    state, kind, sub = machine.show('ActiveState', 'Type', 'SubState')
    tap.equal((state, kind, sub), ('active', 'notify', 'running'),
              'the unit is started at boot, and is ready by its own word')
    tap.equal(machine.run('systemctl', '--failed', '--plain', '--no-legend')[1], '',
              'no unit failed')
    tap.ok(machine.run('getent', 'passwd', 'kvd')[1].startswith('kvd:'), 'sysusers made the user')
    for path, wanted in (('/run/kvd', 'kvd kvd 755'), ('/var/lib/kvd', 'kvd kvd 700'),
                         ('/run/kvd/kvd.sock', 'kvd kvd 660')):
        tap.equal(machine.run('stat', '-c', '%U %G %a', path)[1], wanted, f'{path}: {wanted}')
    machine.run('systemctl', 'stop', 'kvd')
    code, said = machine.run('systemd-tmpfiles', '--create', 'kvd.conf')
    tap.equal((code, said, machine.run('stat', '-c', '%U %a', '/run/kvd')[1]), (0, '', 'kvd 755'),
              'tmpfiles makes the folder of the socket')
    tap.equal(machine.run('systemctl', 'start', 'kvd')[0], 0, 'and kvd serves in it')


def sandbox(tap, machine):
    pid = machine.pid()
    status = machine.run('cat', f'/proc/{pid}/status')[1]
    for name, wanted in (('NoNewPrivs', '1'), ('Seccomp', '2'), ('CapEff', '0' * 16),
                         ('CapBnd', '0' * 16)):
        tap.equal(re.search(rf'^{name}:\s*(\S+)', status, re.M).group(1), wanted,
                  f'sandbox: {name} of the process is {wanted}')
    for kind in ('net', 'mnt', 'ipc'):
        own, others = (machine.run('readlink', f'/proc/{which}/ns/{kind}')[1]
                       for which in (pid, 1))
        tap.ok(own != others, f'sandbox: a {kind} namespace of its own')
    for path in ('/etc', '/usr', '/var/lib', '/'):
        code, said = machine.run('nsenter', '-t', str(pid), '-m', 'touch', f'{path}/mine')
        tap.ok(code != 0 and 'Read-only' in said, f'sandbox: {path} cannot be written')
    code, _ = machine.run('nsenter', '-t', str(pid), '-m', 'setpriv', '--reuid', 'kvd',
                          '--clear-groups', 'ls', '/home')
    tap.ok(code != 0, 'sandbox: /home is out of reach')
    said = machine.run('systemd-analyze', 'security', 'kvd', '--no-pager')[1]
    figure = re.search(r'exposure level for kvd.service: ([\d.]+)', said)
    tap.diag('systemd-analyze security: ' + (figure.group(1) if figure else said[-200:]))
    tap.ok(figure and float(figure.group(1)) <= EXPOSURE_MOST,
           f'sandbox: exposure at most {EXPOSURE_MOST} of 10')


def survives(tap, machine, policy, how, end):
    """A kvd ends somehow, a section open: its successor has it all, the reader saw nothing."""
    before = machine.pid()
    reader = Reader(machine)
    try:
        tap.equal(reader.opened, OK, f'{policy}: a reader of another uid attaches')
        good = all(store(machine, f'{policy}:{i}', f'value {i}') for i in range(5))
        tap.ok(good, f'{policy}: writes are acknowledged')
        reader.tell('begin')
        tap.equal(reader.tell('view', f'{policy}:0'), OK, f'{policy}: a section is open')
        end(before)
        tap.ok(is_back(machine, before), f'{policy}, {how}: another kvd serves')
        tap.equal(reader.tell('end'), OK, f'F2: {policy}, {how}: no view was taken back')
        tap.equal((reader.tell('get', f'{policy}:1'), reader.tell('mapped')), (OK, 1),
                  f'F: {policy}, {how}: the reader reads on, mapped')
        tap.equal([value(machine, f'{policy}:{i}') for i in range(5)],
                  [f'value {i}' for i in range(5)],
                  f'E: {policy}, {how}: what was acknowledged is there')
        tap.ok(store(machine, f'{policy}:0', 'new') and value(machine, f'{policy}:0') == 'new',
               f'{policy}, {how}: and can be written')
        tap.equal(reader.tell('get', f'{policy}:0'), OK, f'A: {policy}, {how}: and is seen')
        tap.equal(machine.show('NFileDescriptorStore')[0], '1',
                  f'{policy}, {how}: systemd holds the region')
        said = machine.run('journalctl', '-q', '-b', f'_PID={machine.pid()}', '-o', 'cat')[1]
        tap.ok('took over' in said, f'{policy}, {how}: it was taken over, not loaded')
    finally:
        reader.end()


def outage(tap, machine):
    """Readers go on while there is no kvd."""
    drop_in(machine, 'RestartSec=3s')
    pid = begin(machine, '--memory 64MiB')
    store(machine, 'there', 'x')
    reader = Reader(machine)
    try:
        machine.signal('KILL', pid)
        wait_until(lambda: machine.show('SubState')[0] == 'auto-restart', 'the outage')
        tap.equal((reader.tell('get', 'there'), reader.tell('mapped')), (OK, 1),
                  'F: a reader reads on while kvd is down')
        tap.equal(machine.run('kvctl', 'ping')[0], 3, 'when kvd cannot be reached')
        wait_until(lambda: is_back(machine, pid), 'the next kvd')
        tap.equal((reader.tell('get', 'there'), reader.tell('mapped')), (OK, 1), 'F: and after')
    finally:
        reader.end()
        drop_in(machine, '')


def watchdog(tap, machine):
    drop_in(machine, 'WatchdogSec=1s')
    pid = begin(machine, '--memory 64MiB')
    store(machine, 'there', 'x')
    since = time.monotonic()
    wait_until(lambda: time.monotonic() - since > 3, 'three periods')  # what is waited for is time
    tap.equal((machine.pid(), machine.show('NRestarts')[0]), (pid, '0'),
              'the watchdog lets a kvd live that turns')
    machine.signal('STOP', pid)
    wait_until(lambda: is_back(machine, pid), 'the watchdog')
    tap.equal((value(machine, 'there'), machine.show('NFileDescriptorStore')[0]), ('x', '1'),
              'F: one that hangs is ended, and its region taken over')
    tap.ok('watchdog' in machine.run('journalctl', '-q', '-b', '-u', 'kvd', '-o', 'cat')[1].lower(),
           'by the watchdog')
    drop_in(machine, '')


def many_kills(tap, machine):
    pid = begin(machine, '--memory 64MiB')
    store(machine, 'kept', 'x')
    for _ in range(KILLS_IN_A_ROW):
        before, pid = pid, None
        kill(machine, before)
        pid = machine.pid()
    tap.equal((machine.show('ActiveState', 'NRestarts', 'NFileDescriptorStore'),
               value(machine, 'kept')), (['active', str(KILLS_IN_A_ROW), '1'], 'x'),
              f'F: {KILLS_IN_A_ROW} kills in a row, and the region is there')
    tap.diag(f'daemon-kills {KILLS_IN_A_ROW + len(POLICIES) + 1}')


def upgrade(machine):
    """Another program in the place of the one that runs, then a restart."""
    machine.run('sh', '-c', 'cd /usr/local/sbin && cp kvd kvd.new && echo >>kvd.new && '
                'mv kvd.new kvd')
    machine.run('systemctl', 'restart', 'kvd')


def restarts(tap, machine):
    begin(machine, '--memory 64MiB --persist group')
    survives(tap, machine, 'group', 'systemctl restart',
             lambda _: machine.run('systemctl', 'restart', 'kvd'))
    old = machine.run('stat', '-L', '-c', '%i', f'/proc/{machine.pid()}/exe')[1]
    survives(tap, machine, 'group', 'upgrade', lambda _: upgrade(machine))
    new = machine.run('stat', '-L', '-c', '%i', f'/proc/{machine.pid()}/exe')[1]
    tap.ok(old != new, 'another program runs after the upgrade')
    if machine.show('CanReload')[0] == 'yes':
        pid = machine.pid()
        tap.equal((machine.run('systemctl', 'reload', 'kvd')[0], machine.pid()), (0, pid), 'reload')
    else:
        tap.skip('reload', 'the unit has none: CONFIG SET changes what can change')


def stops(tap, machine):
    tap.equal(machine.run('systemctl', 'stop', 'kvd'), (0, ''), 'stop')
    tap.equal(machine.show('ActiveState', 'Result', 'NFileDescriptorStore'),
              ['inactive', 'success', '0'], 'it ends in order, and its region with it')
    machine.run('systemctl', 'start', 'kvd')
    tap.equal(value(machine, 'group:1'), 'value 1', 'E: started again it has what was durable')
    begin(machine, '--no-such-option')
    tap.equal(machine.show('ActiveState', 'ExecMainStatus', 'NRestarts'), ['failed', '64', '0'],
              'what cannot become better by itself, with nothing to keep, is not tried again')
    pid = begin(machine, '--memory 64MiB')
    tap.ok(pid != 0 and machine.run('kvctl', 'ping')[0] == 0, 'it serves when that is mended')


def mistaken(tap, machine):
    """Options that are wrong at a restart: nothing is lost when they are mended."""
    for policy in ('memory', 'group'):
        good = f'--memory 64MiB --persist {policy}'
        pid = begin(machine, good)
        store(machine, 'kept', 'x')
        machine.write('/etc/default/kvd', 'KVD_OPTIONS=--no-such-option\n')
        code, _ = machine.run('systemctl', 'restart', 'kvd')
        tap.ok(code != 0, f'{policy}: a restart with an option that is wrong fails')
        wait_until(lambda: int(machine.show('NRestarts')[0]) > 1, 'systemd to try again, twice')
        tap.equal(machine.show('NFileDescriptorStore'), ['1'],
                  f'F: {policy}: it is tried again, and the region is held')
        machine.write('/etc/default/kvd', f'KVD_OPTIONS={good}\n')
        wait_until(lambda before=pid: is_back(machine, before), 'kvd to serve when it is mended')
        said = machine.run('journalctl', '-q', '-b', f'_PID={machine.pid()}', '-o', 'cat')[1]
        tap.equal((value(machine, 'kept'), 'took over' in said), ('x', True),
                  f'F: {policy}: the data is still served after the typo is mended')


def prepare(tap, tree, build):
    """Makes the tree and installs kvd in it."""
    done = subprocess.run([os.path.join(HERE, 'tree.sh'), tree], capture_output=True, check=False)
    if done.returncode != 0:
        tap.skip_all('no tree to boot: ' + done.stderr.decode().strip().replace('\n', ' '))
    install = subprocess.run(['meson', 'install', '-C', build, '--no-rebuild', '--quiet'],
                             env={**os.environ, 'DESTDIR': tree}, capture_output=True, check=False)
    if install.returncode != 0:
        tap.bail_out('meson install: ' + (install.stdout + install.stderr).decode()[-500:])
    with open(os.path.join(build, 'meson-info', 'intro-buildoptions.json'), encoding='utf-8') as f:
        options = {row['name']: row['value'] for row in json.load(f)}
    subprocess.run(['chroot', tree, '/sbin/ldconfig'], check=True)
    wants = os.path.join(tree, 'etc/systemd/system/multi-user.target.wants')
    os.makedirs(wants, exist_ok=True)
    link = os.path.join(wants, 'kvd.service')
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink(os.path.join(options['prefix'], 'lib/systemd/system/kvd.service'), link)
    return os.path.join(options['prefix'], options['libdir'])


def main():
    tap = Tap()
    tree, build = (os.path.abspath(path) for path in sys.argv[1:3])
    if os.geteuid() != 0:
        tap.skip_all('booting a machine takes root')
    for program in ('systemd-nspawn', 'debootstrap', 'nsenter'):
        if not shutil.which(program):
            tap.skip_all(f'{program} is not installed')
    libraries = prepare(tap, tree, build)
    machine = Machine(tree, build)
    try:
        machine.wait_booted()
        machine.libraries = libraries
        machine.group = machine.run('getent', 'group', 'kvd')[1].split(':')[2]
        installed(tap, machine)
        sandbox(tap, machine)
        for policy in POLICIES:
            begin(machine, f'--memory 64MiB --persist {policy}')
            survives(tap, machine, policy, 'kill', lambda pid: kill(machine, pid))
        outage(tap, machine)
        many_kills(tap, machine)
        watchdog(tap, machine)
        mistaken(tap, machine)
        restarts(tap, machine)
        stops(tap, machine)
    except Exception:
        tap.diag(machine.said())
        if machine.leader:
            tap.diag(machine.run('journalctl', '-q', '-b', '-u', 'kvd', '-n', '40', '-o', 'cat')[1])
        raise
    finally:
        machine.end()
    tap.done()


main()
