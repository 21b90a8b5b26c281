#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# What the deep runs of one commit gave, all parts added up. A deep run takes hours in parts of
# under an hour each, so what it showed stands only in its records.
"""summary.py record FILE NAME PART/PARTS SEED COMMIT SECONDS REPORT
| passed FILE NAME PART/PARTS COMMIT (is the exit status) | show FILE COMMIT NAME..."""
import datetime
import json
import sys

import goals


def load(path):
    try:
        with open(path, encoding='utf-8') as file:
            return [json.loads(line) for line in file if line.strip()]
    except FileNotFoundError:
        return []


def record(path, name, part, seed, commit, seconds, report):
    """`report` is what `results.py report` printed, empty if the run was interrupted."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%dT%H:%MZ')
    row = {'when': now, 'name': name, 'part': part, 'seed': int(seed), 'commit': commit,
           'seconds': int(seconds)}
    row.update(json.loads(report) if report.strip() else
               {'passed': 0, 'failed': 1, 'skipped': 0, 'counted': {}})
    with open(path, 'a', encoding='utf-8') as file:
        print(json.dumps(row), file=file)


def changed(commit):
    """Is it a tree with changes, or of no commit? Two such need not be the same."""
    return '+' in commit or commit == 'unknown'


def newest(rows, name, commit):
    """The last record of every part of a run, in the order of the parts. Parts of different
    divisions overlap: the one that is most complete counts, of two such the later one."""
    divisions = {}
    for row in rows:
        if row['name'] == name and row['commit'] == commit:
            part, whole = (int(number) for number in row['part'].split('/'))
            parts = divisions.pop(whole, {})
            parts[part] = row
            divisions[whole] = parts  # behind the others now
    best = max(reversed(divisions), key=lambda whole: len(divisions[whole]) / whole, default=0)
    return [row for _, row in sorted(divisions.get(best, {}).items())]


def passed(path, name, part, commit):
    """Is there a record of just that, without a failure?"""
    rows = [row for row in load(path)
            if (row['name'], row['part'], row['commit']) == (name, part, commit)]
    return not changed(commit) and bool(rows) and rows[-1]['failed'] == 0


def missing(rows):
    """Parts that there are no records of; all of them if there is no record at all."""
    if not rows:
        return ['all']
    seen = {row['part'].split('/')[0] for row in rows}
    whole = int(rows[0]['part'].split('/')[1])
    return [str(part) for part in range(1, whole + 1) if str(part) not in seen]


def parts_text(rows):
    """How many parts there are, and which of theirs are missing."""
    if not rows:
        return 'none'
    lack = missing(rows)
    whole = rows[0]['part'].split('/')[1]
    return f'{len(rows)} of {whole}' + (f' (missing {" ".join(lack)})' if lack else '')


def show_runs(runs):
    """A line for each, by name."""
    print('| run | parts | passed | failed | skipped | minutes | seeds |')
    print('|---|---|---|---|---|---|---|')
    for name, own in runs.items():
        total = {key: sum(row[key] for row in own)
                 for key in ('passed', 'failed', 'skipped', 'seconds')}
        seeds = ' '.join(str(seed) for seed in sorted({row['seed'] for row in own}))
        print(f"| {name} | {parts_text(own)} | {total['passed']} | {total['failed']} | "
              f"{total['skipped']} | {total['seconds'] / 60:.0f} | {seeds} |")


def show_counted(sums):
    print('| counted | seen | goal |')
    print('|---|---|---|')
    for counted in sorted(set(sums) | set(goals.DEEP)):
        print(f"| {counted} | {sums.get(counted, 0)} | {goals.DEEP.get(counted, '')} |")


def show(path, commit, names):
    """0 if every part of every run has passed and every goal is reached by them."""
    rows = load(path)
    runs = {name: newest(rows, name, commit) for name in sorted(names)}
    sums = {}
    for row in (row for own in runs.values() for row in own):
        for counted, number in row['counted'].items():
            sums[counted] = sums.get(counted, 0) + number
    print(f'Deep runs of commit {commit}:\n')
    show_runs(runs)
    print()
    show_counted(sums)
    failed = sum(row['failed'] for own in runs.values() for row in own)
    short = [name for name, goal in goals.DEEP.items() if sums.get(name, 0) < goal]
    lack = [name for name, own in runs.items() if missing(own)]
    wrong = [f'{failed} failed'] if failed else []
    wrong += ['short of the goal: ' + ' '.join(sorted(short))] if short else []
    wrong += ['not all of: ' + ' '.join(lack)] if lack else []
    wrong += ['the tree is not that of a commit'] if changed(commit) else []
    print()
    print('; '.join(wrong) + '.' if wrong else 'All goals are reached.')
    return 1 if wrong else 0


def main(arguments):
    if len(arguments) == 8 and arguments[0] == 'record':
        record(*arguments[1:])
        return 0
    if len(arguments) == 5 and arguments[0] == 'passed':
        return 0 if passed(*arguments[1:]) else 1
    if len(arguments) > 3 and arguments[0] == 'show':
        return show(arguments[1], arguments[2], arguments[3:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
