# SPDX-License-Identifier: MIT
#
# E, G: kvd on a system that refuses. libkvd_faults (faults.c) is preloaded and lets the n-th call
# that may fail do so, while kvd starts, reads its store, serves, commits, compacts, writes its
# store anew, stops, or takes a region over. Whatever n: kvd does not crash; it goes on, or ends
# with one of the exit codes of kvd(8) and a line that says why; it neither hangs nor keeps a
# descriptor or memory; and the next kvd has everything that was acknowledged.
#
# Usage: faults.py LIBRARY. KVD_FAULTS_EACH=all tries every n (KVD_FAULTS_PART=I/N a part of them),
# else so many runs are spread over them. KVD_FAULTS_ONE=SCENARIO:N shows one.
import concurrent.futures
import os
import random
import shutil
import subprocess
import sys
import tempfile

import faults_scenarios
from faults_scenarios import SCENARIOS, Broken, Page
from kvdtest import BUILD_ROOT, Tap

RUNS_DEFAULT = 100
WORKERS = 2


def where_called(page):
    """The line of the source that made the call which failed first."""
    module = {'kvd': 'daemon/kvd'}.get(page.text('module'))
    if module is None:
        return page.text('module')
    told = subprocess.run(['addr2line', '-e', os.path.join(BUILD_ROOT, module),
                           hex(page.get('where') - 1)], capture_output=True, check=False)
    return os.path.basename(told.stdout.decode().strip())


def in_a_row(number, seed):
    """Mostly one call fails; now and then those behind it, too: it lasts for a while."""
    return 25 if (number + seed) % 4 == 0 else 1


def run(task):
    """One scenario with the n-th call failing: (scenario, n, what failed, calls, wrong, blocks).
    What it leaves is held against what a run without failures left, if that is known."""
    library, base, name, number, seed, blocks = task
    folder = tempfile.mkdtemp(prefix='kvd-faults-', dir=base)
    page = Page(os.path.join(folder, 'page'))
    page.set(fail_at=number, fail_count=in_a_row(number, seed), seed=seed)
    wrong = None
    try:
        SCENARIOS[name](faults_scenarios.Run(library, base, folder, page))
    except (Broken, OSError, EOFError, subprocess.SubprocessError) as error:
        wrong = f'{type(error).__name__}: {error}'
    left = page.get('blocks')
    if wrong is None and blocks is not None and left > blocks and name != 'an adoption':
        wrong = f'{left} blocks of memory were never freed, usually {blocks}'
    what = ''
    if page.get('failed'):
        what = f"{page.text('name')}() at {where_called(page)}: {os.strerror(page.get('error'))}"
        if page.get('error') == 0:
            what = what.replace(os.strerror(0), 'less than asked for')
    result = (name, number, what, page.get('calls'), wrong, left)
    page.close()
    if wrong is None or not os.environ.get('KVD_TEST_KEEP'):
        shutil.rmtree(folder, ignore_errors=True)
    return result


def choose(calls, seed):
    """The runs to make: (scenario, n)."""
    every = [(name, number) for name in calls for number in range(1, calls[name] + 1)]
    each = os.environ.get('KVD_FAULTS_EACH', str(RUNS_DEFAULT))
    if each == 'all':
        part, parts = (int(x) for x in os.environ.get('KVD_FAULTS_PART', '1/1').split('/'))
        return every[part - 1::parts]
    return random.Random(seed).sample(every, min(int(each), len(every)))


def main():
    tap = Tap()
    library = sys.argv[1]
    seed = int(os.environ.get('KVD_TEST_SEED', '1'), 0)
    print(f'# seed {seed} (replay with KVD_TEST_SEED={seed})', flush=True)
    memory = os.environ.get('KVD_TEST_MEMORY_DIR')
    if not memory and not os.environ.get('TMPDIR') and os.access('/dev/shm', os.W_OK):
        memory = '/dev/shm'
    base = tempfile.mkdtemp(prefix='kvd-faults-', dir=memory)
    try:
        faults_scenarios.prepare(base)
        one = os.environ.get('KVD_FAULTS_ONE')
        if one:
            name, number = one.split(':')
            tap.diag(run((library, base, name, int(number), seed, None)))
            tap.done()
        with concurrent.futures.ProcessPoolExecutor(WORKERS) as pool:
            calls = {}
            blocks = {}
            for name, _, _, count, wrong, blocks[name] in pool.map(
                    run, [(library, base, name, 0, seed, None) for name in SCENARIOS]):
                tap.equal(wrong, None, f'{name}: {count} calls that may fail, none does')
                calls[name] = count
            tasks = [(library, base, name, number, seed, blocks[name])
                     for name, number in choose(calls, seed)]
            failed = 0
            bad = dict.fromkeys(SCENARIOS, 0)
            for name, number, what, _, wrong, _ in pool.map(run, tasks):
                failed += bool(what)
                if wrong is not None:
                    bad[name] += 1
                    tap.diag(f'{name}, call {number}, {what}: {wrong}')
                    tap.diag(f'alone: KVD_TEST_SEED={seed} KVD_FAULTS_ONE={name}:{number}')
        for name in SCENARIOS:
            tap.equal(bad[name], 0, f'E: {name}: nothing is lost or crashes, whichever call fails')
        tap.ok(failed > len(tasks) // 2, f'{failed} of {len(tasks)} runs had a call that failed')
        tap.diag(f'counted faults-injected {failed}')
    finally:
        shutil.rmtree(base, ignore_errors=True)
    tap.done()


if __name__ == '__main__':
    main()
