# SPDX-License-Identifier: MIT
#
# How ./check ends: whatever becomes of a group, nothing goes on running, nothing is left behind,
# and the last line counts it.
import os
import signal
import subprocess
import tempfile

from kvdtest import SOURCE_ROOT, Tap, wait_until

PRELUDE = r'''
set -u -o pipefail
root=$1
say() { printf '%s\n' "$*"; }
die() { say "$*" >&2; exit 1; }
. "$root/tests/lib/groups.sh"
group_good() { results one good works ok; }
group_killed() { results one killed works ok; kill -KILL "$BASHPID"; }
group_silent() { true; }
group_broken() { results one broken works ok; false; }
group_leaves() { results one leaves works ok; setsid sleep 1000 & disown; }
group_slow() { results one slow works ok; setsid sleep 1000 & say ready; sleep 1000; }
groups_begin
'''


def heeds_signals():
    """Whoever started this may ignore SIGINT, as shells do for what runs in the background."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(folder, script):
    return subprocess.Popen(['/bin/bash', '-c', PRELUDE + script, 'check', SOURCE_ROOT],
                            env={**os.environ, 'TMPDIR': folder}, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            preexec_fn=heeds_signals)


def marked(folder):
    """Processes that work in the folder."""
    mark = f'TMPDIR={folder}/'.encode()
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/environ', 'rb') as file:
                if mark in file.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def run(tap, group, last, words):
    with tempfile.TemporaryDirectory() as folder:
        process = start(folder, f'run_group good; run_group {group}; results total')
        output = process.communicate(timeout=60)[0]
        tap.equal(output.split('\n')[-2], last, f'{group}: counted')
        tap.ok(words in output, f'{group}: {words}')
        tap.equal(process.returncode, 0 if group == 'good' else 1, f'{group}: exit status')
        tap.equal((os.listdir(folder), marked(folder)), ([], []), f'{group}: nothing is left')


def interrupted(tap, number):
    name = signal.Signals(number).name
    with tempfile.TemporaryDirectory() as folder:
        process = start(folder, 'run_group good; run_group slow; run_group good; results total')
        output = ''
        while not output.endswith('ready\n'):
            output += process.stdout.readline()
        wait_until(lambda: len(marked(folder)) >= 2, 'the group to be at work')
        process.send_signal(number)
        output += process.communicate(timeout=60)[0]
        tap.equal(output.split('\n')[-2], '2 passed, 1 failed', f'{name}: counted')
        tap.ok(f'interrupted by {name}' in output, f'{name}: said')
        tap.equal(process.returncode, 130, f'{name}: exit status')
        tap.equal((os.listdir(folder), marked(folder)), ([], []), f'{name}: nothing is left')


def main():
    tap = Tap()
    run(tap, 'good', '2 passed, 0 failed', 'good: 2 passed, 0 failed (')
    run(tap, 'killed', '2 passed, 1 failed', 'it was killed by signal 9')
    run(tap, 'silent', '1 passed, 1 failed', 'silent: 0 passed, 1 failed (')
    run(tap, 'broken', '2 passed, 1 failed', 'it ended with 1')
    run(tap, 'leaves', '2 passed, 1 failed', 'sleep 1000')
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        interrupted(tap, number)
    tap.done()


main()
