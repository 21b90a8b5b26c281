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
group_leaves() {
    results one leaves works ok
    setsid sleep 1000 & # which is known by its environment only when it is that program
    until [ "$(cat /proc/$!/comm)" = sleep ]; do sleep 0.01; done
    disown
}
group_strews() {
    results one strews works ok
    say "memory: ${KVD_TEST_MEMORY_DIR:=$TMPDIR}"
    touch "$KVD_TEST_MEMORY_DIR/strewn"
}
group_slow() { results one slow works ok; setsid sleep 1000 & say ready; sleep 1000; }
groups_begin
groups_patience=20
'''
DEEP = r'''
. "$root/tests/lib/deep.sh"
deep_plan=(one:2:3 two:1:1)
deep_names=(one two)
deep_commit() { cat "$TMPDIR/../../commit"; }
deep_one() { results one "$group" "part $1 of $2" ok; }
deep_two() { results one "$group" works "${two:-ok}"; }
deep_file=$TMPDIR/../../deep/results
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
        for line in output.split('\n'):
            if line.startswith('memory: '):
                tap.ok(not os.path.exists(line[8:]), f'{group}: nor is its folder in memory')


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


def deep(tap):
    """Parts of the long runs: each by itself, once for a commit, and of one commit."""
    with tempfile.TemporaryDirectory() as folder:
        def say(script):
            process = start(folder, DEEP + script + 'results total')
            return process.communicate(timeout=60)[0]

        def commit(name):
            with open(os.path.join(folder, 'commit'), 'w', encoding='utf-8') as file:
                file.write(name)
        commit('aa')
        text = say('deep_run one 1/2; ')
        tap.ok('1 passed, 0 failed\n' in text and 'part 1 of 2' in text, 'deep: a part')
        text = say('two=fail; deep_run "" ""; ')
        tap.ok('about 0 h 2 min to go' in text and 'about 0 h 1 min to go' in text,
               'deep: how long it takes')
        tap.ok('one-2: 1 passed, 0 failed' in text and 'one-1: 1 passed' not in text,
               'deep: what has passed is not done again')
        tap.ok('FAILED in summary: the long runs of one commit reach every goal' in text,
               'deep: a goal that is missed is a failure')
        tap.ok('| one | 2 of 2 | 2 | 0 |' in text and '| two | 1 of 1 | 0 | 1 |' in text,
               'deep: each part is recorded by itself')
        text = say('deep_run two ""; deep_run two ""; ')
        tap.ok('2 passed, 0 failed\n' in text and text.count('== deep') == 1,
               'deep: what has failed is done again')
        text = say('deep_two() { printf bb >"$TMPDIR/../../commit"; results one "$group" x ok; }; '
                   'deep_run two 1/1; ')
        tap.ok('has become commit bb' in text and 'passed, ' not in text.split('\n')[-2],
               'deep: no part of two commits')
        tap.ok('one-1: 1 passed' in say('deep_run "" ""; '), 'deep: another commit, all of it')
        commit('bb+changes')
        tap.ok('not that of a commit' in say('deep_run "" ""; '), 'deep: not all for no commit')


def main():
    tap = Tap()
    run(tap, 'good', '2 passed, 0 failed', 'good: 2 passed, 0 failed (')
    run(tap, 'killed', '2 passed, 1 failed', 'it was killed by signal 9')
    run(tap, 'silent', '1 passed, 1 failed', 'silent: 0 passed, 1 failed (')
    run(tap, 'broken', '2 passed, 1 failed', 'it ended with 1')
    run(tap, 'leaves', '2 passed, 1 failed', 'sleep 1000')
    run(tap, 'strews', '2 passed, 1 failed', 'strewn')
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        interrupted(tap, number)
    deep(tap)
    tap.done()


main()
