# SPDX-License-Identifier: MIT
#
# kvctl doctor against a kvd: what it prints in its three forms, for root and for another user, what
# it finds of a control group that is too small, of a reader that is stuck, of a full memory, and of
# a kvd that is down, starts, or is something else. Its judges have a test of their own.
import json
import os
import shutil
import socket
import subprocess
import threading

from kvdtest import KVCTL_PROGRAM, SOURCE_ROOT, Kvd, Tap, wait_until
from terminal import on_terminal, terminal_refused

try:
    import jsonschema
except ImportError:
    jsonschema = None

ROOT = os.environ.get('KVD_SOURCE', SOURCE_ROOT)
OTHER = 65533
MEMORY = 16 << 20
QUICK = '--no-measure'


def doctor(kvd, *args, wrapper=()):
    """(exit status, findings by check, all of the JSON)"""
    said = subprocess.run([*wrapper, KVCTL_PROGRAM, '--socket', kvd.socket, '--json', 'doctor',
                           *args], capture_output=True, timeout=240, check=False)
    try:
        told = json.loads(said.stdout)
    except ValueError:
        return said.returncode, {}, {'said': said.stdout + said.stderr}
    return said.returncode, {row['check']: row for row in told['checks']}, told


def states(found, *names):
    return [found.get(name, {}).get('state') for name in names]


def is_as_described(tap, told, name):
    if jsonschema is None:
        tap.skip(name, 'python3-jsonschema is not installed')
        return
    with open(os.path.join(ROOT, 'tools', 'doctor.schema.json'), encoding='utf-8') as file:
        schema = json.load(file)
    jsonschema.Draft7Validator.check_schema(schema)
    wrong = [f'{list(error.absolute_path)}: {error.message}'
             for error in jsonschema.Draft7Validator(schema).iter_errors(told)]
    tap.equal(wrong, [], name)


def serving(tap, kvd):
    status, found, told = doctor(kvd)
    is_as_described(tap, told, 'the JSON is as its schema says')
    tap.ok(status in (0, 1) and told.get('reached') is True and found['kvd']['state'] == 'ok' and
           str(kvd.pid) in found['kvd']['finding'], 'kvd is found, with its process')
    tap.equal(states(found, 'store', 'damage', 'memory', 'holes', 'readers', 'files', 'former'),
              ['ok'] * 7, 'what is well is said to be')
    measured = told.get('measured')
    why = found['gain']['finding']
    if measured is None:
        tap.skip('what huge pages bring is measured', why)
    else:
        none = measured['huge_pages'] == 'none'
        tap.ok(('ratio' in measured) == (not none) and
               (none or f"{measured['ratio']:.2f} times" in why),
               f'what huge pages bring is measured: {why}')
    rows = kvd.kvctl('doctor', QUICK).stdout.decode().split('\n')
    cells = [row.split('\t') for row in rows if row]
    tap.equal((cells[0], {len(row) for row in cells}, [row[0] for row in cells[1:]]),
              (['check', 'state', 'finding', 'remedy'], {4}, list(found)),
              'in a pipe: rows with tabs, the same checks in the same order')
    quiet = kvd.kvctl('-q', 'doctor', QUICK).stdout.decode().split('\n')[1:-1]
    tap.ok(all(row.split('\t')[1] in ('note', 'warning', 'damage') for row in quiet),
           '--quiet leaves out what is well')
    tap.ok('measured' not in doctor(kvd, QUICK)[2] and
           states(doctor(kvd, QUICK)[1], 'gain') == ['skipped'], '--no-measure does not')


def terminal(tap, kvd):
    why = terminal_refused()
    if why:
        tap.skip('on a terminal: columns', why)
        return
    said = on_terminal(KVCTL_PROGRAM, '--socket', kvd.socket, 'doctor', QUICK)[0].decode()
    lines = said.split('\n')
    column = lines[0].index('finding')
    below = [line for line in lines if line.strip().startswith('-> ')]
    tap.ok('\t' not in said and 'remedy' not in lines[0] and
           all(line.index('-> ') == column for line in below),
           'on a terminal: columns, and the remedy below what it is for')


def findings(tap, kvd):
    """Things that are not as they should be, one after the other."""
    os.mkdir(os.path.join(kvd.dir, 'store.failed-17'))
    _, found, _ = doctor(kvd, QUICK)
    tap.ok(states(found, 'former') == ['note'] and
           'store.failed-17' in found['former']['finding'], 'a store that was put aside')
    os.rmdir(os.path.join(kvd.dir, 'store.failed-17'))
    value = b'x' * 60000
    with kvd.connect() as c:
        refused = 0
        for i in range(2 * MEMORY // len(value)):
            refused = c.command('SET', b'fill:%d' % i, value) != 'OK'
            if refused:
                break
        status, found, _ = doctor(kvd, QUICK)
        tap.ok(refused and status == 1 and states(found, 'memory') == ['warning'] and
               'maxmemory' in found['memory']['remedy'],
               f"memory that is full: {found['memory']['finding']}")
        c.command('CONFIG', 'SET', 'when-full', 'evict')
        tap.equal(states(doctor(kvd, QUICK)[1], 'memory'), ['ok'], 'which is well if keys may go')
        c.command('CONFIG', 'SET', 'when-full', 'reject')
        c.command('FLUSHALL')
        wait_until(lambda: states(doctor(kvd, QUICK)[1], 'memory') == ['ok'], 'memory comes free')
    tap.ok(True, 'and when keys have gone')


def another_user(tap, kvd):
    name = 'another user sees what he may'
    if os.geteuid() != 0 or not shutil.which('setpriv'):
        tap.skip(name, 'needs root and setpriv')
        return
    os.chmod(kvd.root, 0o755)
    os.chmod(kvd.dir, 0o711)
    wrapper = ('setpriv', f'--reuid={OTHER}', f'--regid={OTHER}', '--clear-groups')
    if subprocess.run([*wrapper, KVCTL_PROGRAM, 'version'], capture_output=True,
                      check=False).returncode != 0:
        tap.skip(name, 'another user cannot run kvctl here')
        return
    status, found, told = doctor(kvd, QUICK, wrapper=wrapper)
    tap.ok(status in (0, 1) and told.get('reached') is True and
           states(found, 'kvd', 'store', 'memory') == ['ok'] * 3, name)
    tap.equal(states(found, 'disk', 'pages'), ['skipped'] * 2, 'and of the rest that he may not')
    is_as_described(tap, told, 'in JSON as described')


def down(tap, kvd):
    """`kvd` has been stopped."""
    status, found, told = doctor(kvd, QUICK)
    tap.ok(status == 3 and told['reached'] is False and states(found, 'kvd') == ['warning'] and
           'no such socket' in found['kvd']['finding'] and 'tart kvd' in found['kvd']['remedy'],
           'kvd is down: that is said, with status 3')
    tap.ok(states(found, 'store', 'readers', 'pages') == ['skipped'] * 3 and
           states(found, 'disk', 'former') == ['ok'] * 2 and kvd.dir in found['disk']['finding'],
           'what can be told without it is: its folder is beside its socket')
    is_as_described(tap, told, 'in JSON as described')
    elsewhere = subprocess.run([KVCTL_PROGRAM, '--socket', kvd.root + '/x', '--json', 'doctor',
                                QUICK, kvd.dir], capture_output=True, check=False)
    rows = {row['check']: row for row in json.loads(elsewhere.stdout)['checks']}
    tap.ok(kvd.dir in rows['disk']['finding'] and 'kvctl verify' in rows['store']['remedy'],
           'or is named')
    tap.equal(kvd.kvctl('doctor', QUICK, '').returncode, 2, 'a folder without a name is none')
    tap.equal(kvd.kvctl('--timeout', 'soon', 'doctor').returncode, 2, 'nor is that a time')


def something_else(tap, kvd):
    """Its lock is held while nobody listens; then somebody listens who is no kvd."""
    kvd.start()
    held = kvd.dir + '/kvd.sock'
    os.rename(held, held + '.away')
    _, found, _ = doctor(kvd, QUICK)
    tap.ok(f'process {kvd.pid} has the lock' in found['kvd']['remedy'],
           'a kvd that does not listen there is named')
    kvd.kill()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(kvd.root + '/other')
        listener.listen()

        def answer():
            with listener.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n')

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        said = subprocess.run([KVCTL_PROGRAM, '--socket', kvd.root + '/other', '--timeout', '500ms',
                               '--json', 'doctor', QUICK], capture_output=True, check=False)
        thread.join()
    tap.ok(said.returncode == 3 and json.loads(said.stdout)['reached'] is False,
           f'what is no kvd is not taken for one: {said.stdout[:160]}')


def main():
    tap = Tap()
    with Kvd('--memory', MEMORY, '--value-max', '1MiB', '--when-full', 'reject',
             '--socket-mode', '666', '--lazy-interval', '20ms', '--write-wait', '50ms') as kvd:
        serving(tap, kvd)
        terminal(tap, kvd)
        findings(tap, kvd)
        another_user(tap, kvd)
        kvd.stop()
        down(tap, kvd)
        something_else(tap, kvd)
    tap.done()


main()
