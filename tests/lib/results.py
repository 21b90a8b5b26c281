# SPDX-License-Identifier: MIT
#
# Counts what really ran. Reads the TAP that each test printed (from meson's JSON log or a file),
# adds the failures TAP cannot express (a crash, a timeout, a plan that was not fulfilled), and
# keeps one line a result in a state file until the total is asked for. What a test counted itself
# (`# counted NAME N`: kills, states, reads) is added up beside them.
"""results.py STATE meson GROUP LOG.json EXIT | tap GROUP NAME FILE EXIT | one GROUP NAME ok|fail
[WHY] | count GROUP NAME NUMBER | group GROUP SECONDS EXIT | goals | report GROUP | total"""
import json
import re
import sys

import goals

LINE = re.compile(r'\s*(not )?ok\b\s*(\d+)?\s*(?:-\s*)?(.*)')
DIRECTIVE = re.compile(r'#\s*(SKIP|TO' r'DO)\b\S*\s*(.*)$', re.I)
PLAN = re.compile(r'1\.\.(\d+)\s*(?:#\s*SKIP\S*\s*(.*))?$', re.I)
COUNTED = re.compile(r'# counted (\S+) (\d+)$', re.M)
SHOWN_LINES_MAX = 60


class Outcome:
    """Results of one test program."""

    def __init__(self, test):
        self.test = test
        self.results = []  # (kind, name, detail) with kind passed, failed, skipped or counted

    def add(self, kind, name, detail=''):
        self.results.append((kind, f'{self.test}: {name}', detail))

    def count(self, kind):
        return sum(1 for result in self.results if result[0] == kind)


def parse_tap(outcome, text):
    """Adds what `text` says; True if its plan was fulfilled."""
    plan = None
    seen = 0
    for line in text.split('\n'):
        if line.startswith('Bail out!'):
            outcome.add('failed', 'gave up', line)
            continue
        match = PLAN.match(line)
        if match:
            plan = int(match.group(1))
            if plan == 0:
                outcome.add('skipped', 'all of it', match.group(2) or 'no reason given')
            continue
        match = LINE.match(line)
        if not match or line[0].isspace():
            continue  # indented lines are subtests, their parent line counts
        seen += 1
        directive = DIRECTIVE.search(match.group(3))
        name = DIRECTIVE.sub('', match.group(3)).strip(' -') or f'result {seen}'
        if directive and directive.group(1).upper() == 'SKIP':
            outcome.add('skipped', name, directive.group(2) or 'no reason given')
        elif match.group(1) and not directive:
            outcome.add('failed', name)
        else:
            outcome.add('passed', name)
    if plan is not None and plan != seen:
        outcome.add('failed', f'planned {plan} results, printed {seen}')
    return plan is not None


def judge_tap(test, stdout, status, timed_out=False):
    outcome = Outcome(test)
    complete = parse_tap(outcome, stdout)
    for name, number in COUNTED.findall(stdout):
        outcome.results.append(('counted', name, int(number)))
    if timed_out:
        outcome.add('failed', 'ran out of time')
    elif not complete and outcome.count('failed') == 0:
        outcome.add('failed', f'ended without a plan, exit status {status}')
    elif status != 0 and outcome.count('failed') == 0:
        outcome.add('failed', f'all results are good but the exit status is {status}')
    return outcome


def show_failure(stdout, stderr):
    """The lines around what failed, enough to begin with."""
    lines = stdout.split('\n')
    bad = [i for i, line in enumerate(lines) if line.startswith(('not ok', 'Bail out'))]
    shown = []
    for i in bad:
        while i > 0 and lines[i - 1].startswith('#'):
            i -= 1  # how to see it again stands before it, with many
        j = i
        while not lines[j].startswith(('not ok', 'Bail out')):
            j += 1
        j += 1
        while j < len(lines) and lines[j].startswith('#'):
            j += 1
        shown += lines[i:j]
    if not bad:
        shown = [line for line in lines if not line.startswith('ok')][-20:]
    for line in shown[:SHOWN_LINES_MAX] + stderr.strip().split('\n')[-SHOWN_LINES_MAX:]:
        if line:
            print(f'    {line}')


def read_meson(path):
    with open(path, encoding='utf-8') as log:
        for line in log:
            if line.strip():
                yield json.loads(line)


def judge_meson(test):
    """One entry of meson's testlog.json."""
    name = test['name'].split(' / ')[-1].split(':')[-1]
    stdout = test.get('stdout', '')
    status = test.get('returncode', 0)
    timed_out = test['result'] == 'TIMEOUT'
    if re.search(r'^(1\.\.\d|(not )?ok\b|Bail out!|TAP version)', stdout, re.M):
        return judge_tap(name, stdout, status, timed_out)
    outcome = Outcome(name)
    if test['result'] in ('OK', 'EXPECTEDFAIL'):
        outcome.add('passed', 'exit status 0')
    elif test['result'] == 'SKIP':
        outcome.add('skipped', 'all of it', 'exit status 77')
    else:
        outcome.add('failed', f"{test['result'].lower()}, exit status {status}")
    return outcome


def append(state, group, outcome):
    with open(state, 'a', encoding='utf-8') as out:
        for kind, name, detail in outcome.results:
            print(json.dumps([group, kind, name, detail]), file=out)


def load(state, group=None):
    try:
        with open(state, encoding='utf-8') as file:
            rows = [json.loads(line) for line in file]
    except FileNotFoundError:
        rows = []
    return [row for row in rows if group is None or row[0] == group]


def counts_text(rows):
    counts = {kind: sum(1 for row in rows if row[1] == kind)
              for kind in ('passed', 'failed', 'skipped')}
    text = f"{counts['passed']} passed, {counts['failed']} failed"
    return text + (f", {counts['skipped']} skipped" if counts['skipped'] else '')


def counted(rows):
    """What the tests counted themselves, added up by name."""
    sums = {}
    for _, kind, name, number in rows:
        if kind == 'counted':
            sums[name] = sums.get(name, 0) + number
    return sums


def counted_text(sums):
    return ', '.join(f'{sums[name]} {name}' for name in sorted(sums))


def ended(status):
    """How a command ended, by what the shell says of it."""
    return f'was killed by signal {status - 128}' if status > 128 else f'ended with {status}'


def add_meson(state, group, path, status):
    """`status` is meson's: 0 only if all is well."""
    failed = 0
    tests = list(read_meson(path))
    for test in tests:
        outcome = judge_meson(test)
        append(state, group, outcome)
        if outcome.count('failed'):
            failed += 1
            print(f'  FAILED in {group}: {outcome.test}')
            show_failure(test.get('stdout', ''), test.get('stderr', ''))
    if not tests:
        add_one(state, group, 'has tests', 'fail', 'none were found')
    elif int(status) > 128 or (int(status) != 0 and failed == 0):
        add_one(state, group, 'all tests were run', 'fail', f'meson {ended(int(status))}')


def add_tap(state, group, name, path, status):
    with open(path, encoding='utf-8', errors='replace') as file:
        text = file.read()
    outcome = judge_tap(name, text, int(status))
    append(state, group, outcome)
    if outcome.count('failed'):
        print(f'  FAILED in {group}: {name}')
        show_failure(text, '')


def add_one(state, group, name, verdict, why=''):
    outcome = Outcome(group)
    outcome.add('passed' if verdict == 'ok' else 'failed', name, why)
    append(state, group, outcome)
    if verdict != 'ok':
        print(f'  FAILED in {group}: {name}: {why}')


def add_count(state, group, name, number):
    outcome = Outcome(group)
    outcome.results.append(('counted', name, int(number)))
    append(state, group, outcome)


def end_group(state, group, seconds, status):
    """`status` is that of the group's shell; what failed there may have been counted already."""
    status = int(status)
    rows = load(state, group)
    failed = any(row[1] == 'failed' for row in rows)
    sums = counted(rows)
    if sums:
        print(f'  counted: {counted_text(sums)}')
    if status > 128 or (status != 0 and not failed) or not rows:
        add_one(state, group, 'ran to its end', 'fail', f'it {ended(status)}')
    print(f'{group}: {counts_text(load(state, group))} ({seconds} s)', flush=True)


def check_goals(state):
    """A result for each count that a whole ./check has to reach."""
    sums = counted(load(state))
    for name, goal in sorted(goals.CHECK.items()):
        seen = sums.get(name, 0)
        add_one(state, 'goals', f'{seen} of {goal} {name}', 'ok' if seen >= goal else 'fail',
                '' if seen >= goal else 'too few')


def report(state, group):
    """One line of JSON with what a deep run gave, for its summary."""
    rows = load(state, group)
    row = {kind: sum(1 for entry in rows if entry[1] == kind)
           for kind in ('passed', 'failed', 'skipped')}
    print(json.dumps({**row, 'counted': counted(rows)}))


def total(state):
    rows = load(state)
    failed = [row for row in rows if row[1] == 'failed']
    skipped = [row for row in rows if row[1] == 'skipped']
    if skipped:
        print('skipped:')
        for group, _, name, why in skipped:
            print(f'  {group}: {name}: {why}')
    if failed:
        print('failed:')
        for group, _, name, why in failed:
            print(f'  {group}: {name}' + (f': {why}' if why else ''))
    print(counts_text(rows))
    return 1 if failed or not rows else 0


def main(arguments):
    state, verb, *rest = arguments
    if verb == 'meson':
        add_meson(state, *rest)
    elif verb == 'tap':
        add_tap(state, *rest)
    elif verb == 'one':
        add_one(state, *rest)
    elif verb == 'count':
        add_count(state, *rest)
    elif verb == 'group':
        end_group(state, *rest)
    elif verb == 'goals':
        check_goals(state)
    elif verb == 'report':
        report(state, *rest)
    elif verb == 'total':
        return total(state)
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
