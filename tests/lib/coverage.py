# SPDX-License-Identifier: MIT
#
# How many branches of the source the tests took, from what gcov says of a build that counts them
# (-Db_coverage=true), held against the goals. A branch that stands in the source once counts once,
# however many programs contain it. What truly no test can reach is marked where it stands, by a
# comment `// unreached: why` above the line or at its end; it is taken out, counted and told.
"""coverage.py BUILD ROOT REPORT: prints TAP, writes each line with a branch not taken to REPORT"""
import collections
import glob
import json
import os
import re
import subprocess
import sys

import goals

FOLDERS = ('daemon', 'libclient', 'shm', 'tools')
MARK = re.compile(r'(.*?)\s*//.*?\bunreached: (\S.*)')
# What ends the process, which then cannot count it; no branch of kvd's own.
FATAL = re.compile(r'\s*(?:assert|SEAM_CRASH)\(')
READ_PATH = "shm's read path"
GCOV_FILES_MAX = 50


class Source:
    """A file: what its lines say, which of them are marked, and the branches of each."""

    def __init__(self, text):
        self.lines = text.split('\n')
        self.reasons = {}  # line number: why its branches cannot all be taken
        for number, line in enumerate(self.lines, 1):
            mark = MARK.match(line)
            if not mark:
                continue
            target = number
            while re.match(r'\s*(//|$)', self.lines[target - 1]) and target < len(self.lines):
                target += 1
            self.reasons[target] = mark.group(2)
        self.branches = {}  # line number: how often each was taken
        self.read_path = set()  # numbers of lines that are part of it

    def add(self, number, counts, in_read_path):
        if FATAL.match(self.lines[number - 1]):
            return
        if in_read_path:
            self.read_path.add(number)
        known = self.branches.get(number, [])
        if len(known) < len(counts):
            known, counts = list(counts), known
        # Where programs see different numbers (a macro), the longer list has what they share first.
        for i, count in enumerate(counts):
            known[i] += count
        self.branches[number] = known

    def missing(self, number):
        return 0 if number in self.reasons else self.branches[number].count(0)

    def excluded(self, number):
        return self.branches[number].count(0) if number in self.reasons else 0


def gcov(build):
    """What gcov says of each object."""
    notes = sorted(glob.glob(os.path.join(build, '**', '*.gcno'), recursive=True))
    for first in range(0, len(notes), GCOV_FILES_MAX):
        some = notes[first:first + GCOV_FILES_MAX]
        told = subprocess.run(
            ['gcov', '--json-format', '--stdout', '--branch-probabilities', *some],
            cwd=build, capture_output=True, text=True, check=False)
        # Objects that were never run have no figures, and all of their branches are missing.
        for line in told.stderr.splitlines():
            if not re.search('cannot open data file|no functions found', line):
                print(f'# gcov: {line}')
        for line in told.stdout.splitlines():
            yield json.loads(line)


def linked(library):
    """Names of the functions in the client library."""
    told = subprocess.run(['nm', library], check=True, capture_output=True, text=True).stdout
    return {words[2] for words in map(str.split, told.splitlines())
            if len(words) == 3 and words[1] in 'tT'}


def in_client(unit, functions):
    """True for objects that libkvclient is made of: its own, and those of shm/ that it links."""
    path = unit['data_file']
    if '/libkvclient_objects.a.p/' in path:
        return True
    names = {function['name'] for file in unit['files'] for function in file['functions']}
    return '/libkvs_read.a.p/' in path and names <= functions


def collect(units, root, functions):
    """{path from the root: Source} of all files in FOLDERS."""
    sources = {}
    for unit in units:
        of_client = in_client(unit, functions)
        for file in unit['files']:
            full = os.path.join(unit['current_working_directory'], file['file'])
            path = os.path.relpath(os.path.realpath(full), os.path.realpath(root))
            if path.split('/')[0] not in FOLDERS or '/examples/' in path:
                continue
            if path not in sources:
                with open(full, encoding='utf-8') as text:
                    sources[path] = Source(text.read())
            for line in file['lines']:
                if line['branches']:
                    sources[path].add(line['line_number'],
                                      [branch['count'] for branch in line['branches']],
                                      of_client and path.startswith('shm/'))
    return sources


class Sum:
    """Branches of some lines."""

    def __init__(self):
        self.all = self.missing = self.excluded = self.marks = 0

    def add(self, source, number):
        self.excluded += source.excluded(number)
        self.marks += source.excluded(number) > 0
        self.missing += source.missing(number)
        self.all += len(source.branches[number]) - source.excluded(number)

    def percent(self):
        """Rounded down: 100 means all of them."""
        return (self.all - self.missing) * 1000 // max(self.all, 1) / 10


def summed(sources):
    """Sums of each file, and of each folder with READ_PATH among them."""
    files, groups = collections.defaultdict(Sum), collections.defaultdict(Sum)
    for path, source in sources.items():
        for number in source.branches:
            files[path].add(source, number)
            groups[path.split('/')[0] + '/'].add(source, number)
            if number in source.read_path:
                groups[READ_PATH].add(source, number)
    return files, groups


def tell(sources, report):
    """Prints the tables and the results; the number of goals that were not reached."""
    files, groups = summed(sources)
    print('# branches not taken, of all, files with most of them first:')
    worst = sorted(files, key=lambda path: (-files[path].missing, path))
    for path in (path for path in worst if files[path].missing):
        of_file = files[path]
        print(f'# {of_file.missing:5} {of_file.all:5} {of_file.percent():6.1f} %  {path}')
    for path in sorted(sources):
        source = sources[path]
        for number in sorted(source.branches):
            counts = source.branches[number]
            if 0 in counts:
                why = f'  # {source.reasons[number]}' if number in source.reasons else ''
                print(f'{path}:{number}: {counts}{why}\n    {source.lines[number - 1].strip()}',
                      file=report)
        for number in sorted(set(source.reasons) - {n for n in source.branches
                                                    if source.excluded(n)}):
            print(f'# {path}:{number}: marked as unreached, but nothing here is')
    failed = 0
    for number, name in enumerate(sorted(groups), 1):
        of_group, goal = groups[name], goals.COVERAGE.get(name, 0)
        failed += of_group.percent() < goal
        print(f'{"not ok" if of_group.percent() < goal else "ok"} {number} - branches of {name}: '
              f'{of_group.percent()} % of {of_group.all}, goal {goal} %')
        print(f'# branches of {name}: {of_group.percent()} %, {of_group.missing} of {of_group.all} '
              f'not taken, goal {goal} %; {of_group.excluded} more are marked as unreached, in '
              f'{of_group.marks} places')
    print(f'1..{len(groups)}')
    return failed


def main(build, root, report):
    functions = linked(os.path.join(build, 'libclient', 'libkvclient.so'))
    sources = collect(gcov(build), root, functions)
    with open(report, 'w', encoding='utf-8') as out:
        return 1 if tell(sources, out) else 0


if __name__ == '__main__':
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
