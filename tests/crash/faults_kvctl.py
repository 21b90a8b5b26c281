# SPDX-License-Identifier: MIT
#
# kvctl on a system that refuses: libkvd_faults (faults.c) is preloaded and lets the n-th call that
# may fail do so, for each verb that answers; kvd itself is well. Whatever n: kvctl ends with one of
# its exit codes and says why if that is not the usual one; what it prints is whole lines, each of
# them true; success is success; and damage is never called none. What the doctor finds may be that
# a call fails.
#
# Usage: faults_kvctl.py LIBRARY. KVD_FAULTS_EACH=all tries every n (KVD_FAULTS_PART=I/N
# a part of them), else so many runs are spread over them. KVD_FAULTS_ONE=VERB:N shows one.
import concurrent.futures
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

from faults_scenarios import Page
from kvdtest import KVCTL_PROGRAM, Kvd, Tap

RUNS_DEFAULT = 150
WORKERS = 2
TIMEOUT_S = 60
EXIT_CODES = (0, 1, 2, 3, 4, 5)
# Of no answer from one run to the next; 0 stands for them.
CHANGES = ('seconds', 'age', 'idle', 'id', 'pid', 'qbuf', 'age_us', 'tot-net-in', 'tot-net-out',
           'tot-cmds', 'epochs_behind', 'file', 'omem', 'tot-mem')
FLEETING = ('stats', 'clients', 'readers', 'verify-folder-text', 'verify-damaged-text')


def damage(path):
    """One byte of a value in the store."""
    with open(path, 'r+b') as file:
        data = file.read()
        at = data.index(b'needle')
        file.seek(at)
        file.write(b'N')


class Bench:
    """A kvd with keys, a folder that was stopped, one that is damaged, a backup of each."""

    def __init__(self, base):
        self.base = base
        self.whole = os.path.join(base, 'whole')
        self.bad = os.path.join(base, 'bad')
        self.kvd = Kvd('--memory', '64MiB', '--persist', 'group')
        with self.kvd.connect() as connection:
            for i in range(20):
                connection.command('SET', f'k{i:02}', f'value {i} needle')
            connection.command('SET', 'bytes', b'\xff\x00' * 40)
            connection.command('KVD.SYNC')
        self.backup = os.path.join(base, 'backup')
        subprocess.run([KVCTL_PROGRAM, '--socket', self.kvd.socket, 'backup', self.backup],
                       check=True, capture_output=True)
        for folder in (self.whole, self.bad):
            subprocess.run([KVCTL_PROGRAM, 'restore', self.backup, folder], check=True,
                           capture_output=True)
        damage(os.path.join(self.bad, 'store', 'data.mdb'))

    def verbs(self):
        """Name: the arguments of kvctl. What is written by one does not matter to another."""
        return {
            'get': ('get', 'k01', '--json'),
            'get-text': ('get', 'k01'),
            'mget': ('mget', 'k01', 'absent', 'bytes', '--json'),
            'mget-socket': ('mget', 'k01', 'absent', 'bytes', '--json', '--via', 'socket'),
            'ttl': ('ttl', 'k02', '--json'),
            'scan': ('scan', '--json'),
            'dump': ('dump',),
            'stats': ('stats', '--json'),
            'clients': ('clients', '--json'),
            'readers': ('readers', '--json'),
            'health': ('health', '--json'),
            'ping': ('ping', '--json'),
            'doctor': ('doctor', '--no-measure', '--json'),
            'backup': ('backup', '--json'),
            'verify': ('verify', '--json'),
            'verify-folder': ('verify', self.whole, '--json'),
            'verify-folder-text': ('verify', self.whole),
            'verify-damaged': ('verify', self.bad, '--json'),
            'verify-damaged-text': ('verify', self.bad),
            'verify-backup': ('verify', self.backup, '--json'),
        }


def steady(value):
    """What must be the same in every run."""
    if isinstance(value, dict):
        return {key: 0 if key in CHANGES else steady(member) for key, member in value.items()}
    return [steady(member) for member in value] if isinstance(value, list) else value


def lines(output):
    """The lines of an answer, as objects where they are; None if one is not whole."""
    if output and b'{' in output and not output.endswith(b'\n'):
        return None
    found = []
    for line in output.splitlines():
        try:
            found.append(steady(json.loads(line)) if line.startswith(b'{') else line)
        except ValueError:
            return None
    return found


def run(task):
    """One verb with its n-th call failing: (verb, n, what failed, calls, exit code, output,
    error)."""
    library, socket, base, verb, arguments, number, seed = task
    folder = tempfile.mkdtemp(prefix='kvctl-faults-', dir=base)
    page = Page(os.path.join(folder, 'page'))
    page.set(armed=1, fail_at=number, fail_count=1, seed=seed)
    env = dict(os.environ, LD_PRELOAD=library, KVD_FAULTS=page.path, KVD_SOCKET=socket)
    try:
        told = subprocess.run([KVCTL_PROGRAM, *arguments], env=env, capture_output=True,
                              check=False, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)
        code, output, error = told.returncode, told.stdout, told.stderr
    except subprocess.TimeoutExpired:
        code, output, error = None, b'', b'it hangs'
    what = f"{page.text('name')}(): {os.strerror(page.get('error'))}" if page.get('failed') else ''
    calls = page.get('calls')
    page.close()
    shutil.rmtree(folder, ignore_errors=True)
    return verb, number, what, calls, code, output, error


def usual_code(verb, code):
    if verb == 'doctor' and code == 1:
        return 1  # this machine needs one
    return 5 if 'damaged' in verb else 1 if 'mget' in verb else 0


def wrong_with(verb, usual, code, output, error):
    """What is wrong with an answer, beside the one without failures; None if nothing is."""
    found, whole = lines(output), lines(usual[1])
    if code not in EXIT_CODES:
        return f'exit code {code}: {error.decode()}'
    if found is None:
        return f'half an answer: {output!r}'
    if verb == 'doctor':
        good = error or len(found) == 1 and len(found[0]['checks']) == len(whole[0]['checks'])
        return None if good and code != 5 else f'exit code {code}, no whole answer: {output!r}'
    if code not in (0, usual[0]) and not error:
        return f'exit code {code}, and no word why'
    if verb.startswith('verify-damaged') and code == 0:
        return f'damage is called none: {output!r}'
    if usual[0] != 5 and code == 5 and 'memory' in error.decode():
        return f'no memory is called damage: {error.decode()}'
    if code == usual[0] and not error and verb not in FLEETING and found != whole:
        return f'another answer: {output!r}'
    # Of several lines those that were printed before the failure are true.
    if verb.startswith(('get', 'mget', 'ttl', 'scan', 'dump')) and \
            any(line not in whole for line in found):
        return f'an answer that is not true: {output!r}'
    return None


def choose(calls, seed):
    """The runs to make: (verb, n)."""
    every = [(verb, number) for verb in calls for number in range(1, calls[verb] + 1)]
    each = os.environ.get('KVD_FAULTS_EACH', str(RUNS_DEFAULT))
    if each == 'all':
        part, parts = (int(x) for x in os.environ.get('KVD_FAULTS_PART', '1/1').split('/'))
        return every[part - 1::parts]
    return random.Random(seed).sample(every, min(int(each), len(every)))


def campaign(tap, library, bench, seed):
    """All verbs: once without a failure, then with each of those chosen."""
    verbs = bench.verbs()

    def task(verb, number):
        return library, bench.kvd.socket, bench.base, verb, verbs[verb], number, seed

    one = os.environ.get('KVD_FAULTS_ONE')
    if one:
        verb, number = one.split(':')
        tap.diag(run(task(verb, int(number))))
        return
    usual, calls, bad = {}, {}, dict.fromkeys(verbs, 0)
    for verb in verbs:
        _, _, _, calls[verb], code, output, error = run(task(verb, 0))
        usual[verb] = (code, output)
        tap.equal((code, lines(output) is not None), (usual_code(verb, code), True),
                  f'{verb}: {calls[verb]} calls that may fail, none does {error.decode()}')
    tasks = [task(verb, number) for verb, number in choose(calls, seed)]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for verb, number, what, _, code, output, error in pool.map(run, tasks):
            failed += bool(what)
            wrong = wrong_with(verb, usual[verb], code, output, error)
            if wrong is not None:
                bad[verb] += 1
                tap.diag(f'{verb}, call {number}, {what}: {wrong}')
                tap.diag(f'alone: KVD_TEST_SEED={seed} KVD_FAULTS_ONE={verb}:{number}')
    for verb, count in bad.items():
        tap.equal(count, 0, f'{verb}: whichever call fails, it is told or made good')
    tap.ok(failed > len(tasks) // 2, f'{failed} of {len(tasks)} runs had a call that failed')
    tap.diag(f'counted faults-injected {failed}')


def main():
    tap = Tap()
    seed = int(os.environ.get('KVD_TEST_SEED', '1'), 0)
    print(f'# seed {seed} (replay with KVD_TEST_SEED={seed})', flush=True)
    base = tempfile.mkdtemp(prefix='kvctl-faults-')
    bench = None
    try:
        bench = Bench(base)
        campaign(tap, sys.argv[1], bench, seed)
    finally:
        if bench is not None:
            bench.kvd.cleanup()
        shutil.rmtree(base, ignore_errors=True)
    tap.done()


if __name__ == '__main__':
    main()
