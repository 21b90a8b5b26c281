#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""kvctl verify, backup and restore that are cut off: kvd or kvctl is killed, somebody interrupts,
the folder goes. What is half done is taken for nothing, and what is good is not called damaged (E).
"""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import (KVCTL_PROGRAM, TIMEOUT_S, Kvd, KvdFailed, Tap,  # noqa: E402
                     wait_until)

TRIES = 200  # to come into the middle of something that may be over sooner


def kvctl(*args):
    return subprocess.run([KVCTL_PROGRAM, *[str(a) for a in args]], capture_output=True, text=True,
                          check=False, timeout=TIMEOUT_S * 4)


def ask(kvd, *args):
    return kvctl('--socket', kvd.socket, *args)


def job_state(connection):
    return json.loads(bytes(connection.command('KVD.BACKUP', 'STATUS')))['state']


def started(kvd, connection, folder):
    """Begins a backup and stops kvd in the middle of it; what is in the folder then."""
    for _ in range(TRIES):
        connection.command('KVD.BACKUP', 'START', 'named.backup')
        wait_until(lambda: os.path.isdir(folder) and os.listdir(folder), 'a start')
        os.kill(kvd.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, kvd.pid, os.WSTOPPED)
        names = os.listdir(folder)
        if names != ['named.backup']:
            break
        os.kill(kvd.pid, signal.SIGCONT)  # it was over sooner
        wait_until(lambda: job_state(connection) == 'done', 'its end')
        os.unlink(os.path.join(folder, 'named.backup'))
    return names


def interrupted_backup(kvd, connection, path):
    """Exit status and words of a kvctl backup that is interrupted before it is over."""
    for _ in range(TRIES):
        process = subprocess.Popen([KVCTL_PROGRAM, '--socket', kvd.socket, 'backup', path],
                                   stderr=subprocess.PIPE, text=True)
        while process.poll() is None and job_state(connection) != 'running':
            pass
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
        if process.returncode != 0:
            break
        os.unlink(path)  # it was over sooner
    return process.returncode, said


def cut_off(tap):
    """kvd or kvctl dies in the middle."""
    with Kvd('--persist', 'group') as kvd:
        backup = os.path.join(kvd.root, 'file.backup')
        folder = os.path.join(kvd.dir, 'backup')
        with kvd.connect() as connection:
            for at in range(0, 300):
                connection.command('SET', b'value:%d' % at, b'v' * 200000)
            names = started(kvd, connection, folder)
            kvd.kill()
        tap.equal(names, ['named.backup.new'], 'while it is written its name tells')
        kvd.start()
        tap.equal(os.listdir(folder), [], 'the next kvd removes it')
        with kvd.connect() as connection:
            tap.equal(kvctl('verify', folder).returncode, 2, 'what is left is no backup')
            code, said = interrupted_backup(kvd, connection, backup)
            tap.ok(code == 1 and 'interrupted' in said, f'interrupted: {said}')
            tap.equal(job_state(connection), 'failed', 'and it is over: the next one need not wait')
            tap.equal(os.listdir(folder), [], 'it leaves nothing, nor what was there before')
            tap.ok(not [name for name in os.listdir(kvd.root) if 'backup' in name], 'nor here')
        tap.equal(ask(kvd, 'backup', backup).returncode, 0, 'the next one succeeds')
        tap.ok(f'a backup is done: {folder}/' in kvd.log(), 'the log has where it was written')
        link = os.path.join(kvd.root, 'link')
        os.symlink('nowhere', link)
        for path in (backup, link):
            said = ask(kvd, 'backup', path)
            tap.ok(said.returncode == 1 and '--force' in said.stderr,
                   f'what is there is not replaced unasked: {said.stderr}')
        tap.equal(ask(kvd, 'backup', '--force', backup).returncode, 0, 'unless it is to be')
        fresh = os.path.join(kvd.root, 'fresh')
        for _ in range(TRIES):
            shutil.rmtree(fresh, ignore_errors=True)
            process = subprocess.Popen([KVCTL_PROGRAM, 'restore', backup, fresh],
                                       stderr=subprocess.DEVNULL)
            while process.poll() is None and not os.path.exists(
                    os.path.join(fresh, 'store.restore/data.mdb')):
                pass
            process.kill()
            process.wait()
            if not os.path.exists(os.path.join(fresh, 'store')):
                break
        if os.path.exists(os.path.join(fresh, 'store')):
            tap.skip('a restore that was killed', 'it was over sooner')
        else:
            again = Kvd('--persist', 'group', directory=fresh, start=False)
            try:
                again.start()
                tap.ok(False, 'kvd does not start where a restore was cut off')
            except KvdFailed as failed:
                tap.ok(failed.status == 65 and 'kvctl restore' in failed.log,
                       'kvd does not start where a restore was cut off, and says what to do')
            again.cleanup()
        tap.equal(kvctl('restore', backup, fresh).returncode, 0, 'restoring again completes it')
        with Kvd('--persist', 'group', directory=fresh) as again:
            with again.connect() as connection:
                tap.equal(connection.command('DBSIZE'), 300, 'E: and is served')
        shutil.rmtree(fresh)


def child_of(process):
    """The process that reads for it, stopped; None if it was over sooner."""
    children = []
    try:
        while not children and process.poll() is None:
            with open(f'/proc/{process.pid}/task/{process.pid}/children', encoding='ascii') as file:
                children = file.read().split()
        if children:
            os.kill(int(children[0]), signal.SIGSTOP)
            wait_until(lambda: state_of(children[0]) in 'TZX', 'it stands still')
            return int(children[0]) if state_of(children[0]) == 'T' else None
    except (FileNotFoundError, ProcessLookupError):
        pass
    return None


def state_of(pid):
    with open(f'/proc/{pid}/stat', encoding='ascii') as file:
        return file.read().rsplit(')', 1)[1].split()[0]


def stopped_reading(args, number, whom):
    """Exit status and words of a kvctl one of whose two processes gets a signal while it reads."""
    for _ in range(TRIES):
        with subprocess.Popen([KVCTL_PROGRAM, *args], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as process:
            child = child_of(process)
            if child is None:
                process.communicate()
                continue
            os.kill(process.pid if whom == 'kvctl' else child, number)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGCONT)
            said = process.communicate(timeout=TIMEOUT_S * 4)[1]
            if process.returncode != 0:
                return process.returncode, said
            if args[0] == 'restore':
                shutil.rmtree(args[-1])  # it had read all when it was stopped
    return None, 'it was over sooner, each time'


def interrupted(tap):
    """Who is interrupted while he reads a good backup does not call it damaged."""
    with Kvd('--persist', 'memory') as kvd:
        backup = os.path.join(kvd.root, 'file.backup')
        fresh = os.path.join(kvd.root, 'fresh')
        with kvd.connect() as connection:
            for at in range(0, 300):
                connection.command('SET', b'value:%d' % at, b'v' * 200000)
        ask(kvd, 'backup', backup)
        for args in (('restore', backup, fresh), ('verify', backup)):
            for number in (signal.SIGINT, signal.SIGTERM):
                code, said = stopped_reading(args, number, 'kvctl')
                tap.ok(code == 1 and 'interrupted' in said and 'damage' not in said,
                       f'E: {args[0]} is interrupted: {code} {said}')
            code, said = stopped_reading(args, signal.SIGKILL, 'its reader')
            tap.ok(code == 1 and 'signal 9' in said and 'damage' not in said,
                   f'E: {args[0]} loses its reader: {code} {said}')
            code, said = stopped_reading(args, signal.SIGSEGV, 'its reader')
            tap.equal(code, 5, f'E: {args[0]}: a crash speaks of damage: {said}')
        tap.ok(not os.path.exists(fresh), 'nothing is restored')
        pipe = os.path.join(kvd.root, 'pipe')
        os.mkfifo(pipe)
        for args in (('verify', pipe), ('restore', pipe, fresh)):
            said = kvctl(*args)
            tap.ok(said.returncode == 2 and 'is not a file' in said.stderr,
                   f'{args[0]} of a pipe waits for nobody: {said.stderr}')


def without_folder(tap):
    with Kvd('--persist', 'memory') as kvd, kvd.connect() as connection:
        os.rename(kvd.dir, kvd.dir + '.away')
        said = str(connection.command('KVD.VERIFY', 'START'))
        tap.ok('No such file' in said and kvd.dir in said and 'memory' not in said,
               f'a data folder that is gone is called that: {said}')
        os.rename(kvd.dir + '.away', kvd.dir)


def other_file_system(kvd):
    """A folder of another one that can make files without a name; None if there is none."""
    base = '/dev/shm'
    try:
        if os.stat(base).st_dev == os.stat(kvd.dir).st_dev:
            return None
        os.close(os.open(base, os.O_TMPFILE | os.O_RDWR))
        return tempfile.mkdtemp(prefix='kvd-test-', dir=base)
    except OSError:
        return None


def has_open_in(pid, folder):
    try:
        for fd in os.listdir(f'/proc/{pid}/fd'):
            if os.readlink(f'/proc/{pid}/fd/{fd}').startswith(folder + '/'):
                return True
    except OSError:
        pass
    return False


def killed_copying(kvd, folder):
    """kvctl dies while it copies to another file system. Whether it did."""
    for _ in range(TRIES):
        path = os.path.join(folder, 'file.backup')
        process = subprocess.Popen([KVCTL_PROGRAM, '--socket', kvd.socket, 'backup', path],
                                   stderr=subprocess.DEVNULL)
        while process.poll() is None and not has_open_in(process.pid, folder):
            pass
        process.kill()
        process.wait()
        if not os.path.exists(path):
            return True
        os.unlink(path)  # it was over sooner
        for name in os.listdir(os.path.join(kvd.dir, 'backup')):
            os.unlink(os.path.join(kvd.dir, 'backup', name))
    return False


def forgotten(tap):
    """Of a kvctl that is killed while it takes a backup away nothing is left there, nor here."""
    with Kvd('--persist', 'group') as kvd:
        backups = os.path.join(kvd.dir, 'backup')
        folder = other_file_system(kvd)
        if folder is None:
            tap.skip('a kvctl that is killed as it copies', 'no other file system')
            return
        try:
            with kvd.connect() as connection:
                for at in range(0, 200):
                    connection.command('SET', b'value:%d' % at, b'v' * 200000)
            tap.ok(killed_copying(kvd, folder), 'kvctl is killed while it copies')
            tap.equal(os.listdir(folder), [], 'nothing is left where it copied to')
            left = os.listdir(backups)
            tap.ok(len(left) == 1 and left[0].endswith('.fetch'), f'kvd has its own yet: {left}')
            tap.equal(ask(kvd, 'backup', folder).returncode, 0, 'another backup, at once')
            taken = os.listdir(folder)
            tap.ok(len(taken) == 1 and taken[0].startswith('kvd-') and
                   taken[0].endswith('Z.backup'), f'is named by the time: {taken}')
            tap.equal(os.listdir(backups), left, 'which leaves what somebody may just be opening')
            os.utime(os.path.join(backups, left[0]), (1, 1))
            again = os.path.join(folder, taken[0])
            tap.equal(ask(kvd, 'backup', '--force', again).returncode, 0, 'one replaces another')
            tap.equal((os.listdir(backups), os.listdir(folder)), ([], taken),
                      'and what nobody came for is gone')
            tap.equal(kvctl('verify', again).returncode, 0, 'it verifies')
            tap.ok(killed_copying(kvd, folder) and len(os.listdir(backups)) == 1,
                   'once more')
            ask(kvd, 'backup')
            kvd.kill()
            kvd.start()
            stays = os.listdir(backups)
            tap.ok(len(stays) == 1 and stays[0].endswith('Z.backup'),
                   f'the next start keeps only what was to stay there: {stays}')
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def main():
    tap = Tap()
    cut_off(tap)
    interrupted(tap)
    without_folder(tap)
    forgotten(tap)
    tap.done()


main()
