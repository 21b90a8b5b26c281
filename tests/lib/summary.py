#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# What the deep runs of one commit gave, all parts added up. A deep run takes hours in parts of
# under an hour each, so what it showed stands only in its records.
"""summary.py record FILE NAME PART/PARTS SEED COMMIT SECONDS REPORT | show FILE COMMIT"""
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


def newest(rows, commit):
    """The last record of every part of every run, in the order of their names and parts."""
    last = {}
    for row in rows:
        if row['commit'] == commit:
            last[row['name'], row['part']] = row
    return [last[key] for key in sorted(last, key=lambda key: (key[0], int(key[1].split('/')[0])))]


def parts_text(rows):
    """Which parts there are, and which of theirs are missing."""
    wholes = {row['part'].split('/')[1] for row in rows}
    seen = sorted(int(row['part'].split('/')[0]) for row in rows)
    if len(wholes) != 1:
        return 'of different divisions: ' + ' '.join(row['part'] for row in rows)
    whole = int(wholes.pop())
    missing = [str(part) for part in range(1, whole + 1) if part not in seen]
    return f'{len(seen)} of {whole}' + (f' (missing {" ".join(missing)})' if missing else '')


def show(path, commit):
    rows = newest(load(path), commit)
    print(f'Deep runs of commit {commit}:')
    print()
    print('| run | parts | passed | failed | skipped | minutes | seeds |')
    print('|---|---|---|---|---|---|---|')
    sums = {}
    failed = 0
    for name in sorted({row['name'] for row in rows}):
        own = [row for row in rows if row['name'] == name]
        total = {key: sum(row[key] for row in own)
                 for key in ('passed', 'failed', 'skipped', 'seconds')}
        failed += total['failed']
        seeds = ' '.join(str(seed) for seed in sorted({row['seed'] for row in own}))
        print(f"| {name} | {parts_text(own)} | {total['passed']} | {total['failed']} | "
              f"{total['skipped']} | {total['seconds'] / 60:.0f} | {seeds} |")
        for row in own:
            for counted, number in row['counted'].items():
                sums[counted] = sums.get(counted, 0) + number
    print()
    print('| counted | seen | goal |')
    print('|---|---|---|')
    for counted in sorted(set(sums) | set(goals.DEEP)):
        goal = goals.DEEP.get(counted)
        print(f"| {counted} | {sums.get(counted, 0)} | {goal if goal else ''} |")
    short = [name for name, goal in goals.DEEP.items() if sums.get(name, 0) < goal]
    print()
    print('All goals are reached.' if not short and not failed else
          f'{failed} failed; short of the goal: {" ".join(sorted(short)) or "nothing"}.')
    return 1 if failed or short else 0


def main(arguments):
    if len(arguments) == 8 and arguments[0] == 'record':
        record(*arguments[1:])
        return 0
    if len(arguments) == 3 and arguments[0] == 'show':
        return show(*arguments[1:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
