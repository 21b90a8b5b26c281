# SPDX-License-Identifier: MIT
#
# What ./check --coverage concludes from gcov's figures: branches are added up by where they stand,
# marks take out what was not reached and nothing else, and a goal that was missed is a failure.
import contextlib
import io
import os
import tempfile
import unittest.mock

import coverage
import goals
from kvdtest import Tap

C = '''int f(int a, int b)
{
  if (a) {
  }
  // unreached: nobody passes it,
  // whatever is asked
  if (b) {
  }
  while (a) { // unreached: at the end of a line
  }
  SEAM_CRASH(x);
  return a || b;
}
'''


def unit(object_path, branches, name='f'):
    """An object's figures: {line: counts}."""
    lines = [{'line_number': number, 'branches': [{'count': count} for count in counts]}
             for number, counts in branches.items()]
    return {'data_file': object_path, 'current_working_directory': '',
            'files': [{'file': 'shm/a.c', 'functions': [{'name': name}], 'lines': lines}]}


def collect(folder, *units):
    for one in units:
        one['current_working_directory'] = folder
    return coverage.collect(units, folder, {'f'})


def shown(sources, wanted):
    out, report = io.StringIO(), io.StringIO()
    with unittest.mock.patch.dict(goals.COVERAGE, wanted, clear=True):
        with contextlib.redirect_stdout(out):
            failed = coverage.tell(sources, report)
    return failed, out.getvalue(), report.getvalue()


def test_branches(tap, folder):
    source = collect(folder, unit('x', {3: [1, 0], 11: [5, 0]}),
                     unit('y', {3: [0, 0, 7]}))['shm/a.c']
    tap.equal(source.branches, {3: [1, 0, 7]}, 'added up over objects; what kills is left out')
    tap.equal(source.missing(3), 1, 'one was not taken')


def test_marks(tap, folder):
    source = collect(folder, unit('x', {3: [1, 0], 7: [1, 0], 9: [2, 2], 12: [0, 0]}))['shm/a.c']
    tap.equal(source.reasons, {7: 'nobody passes it,', 9: 'at the end of a line'},
              'a mark is for the line behind the comment, or its own')
    tap.equal([source.missing(line) for line in (3, 7, 9, 12)], [1, 0, 0, 2],
              'it takes out what is not reached, there alone')
    tap.equal([source.excluded(line) for line in (3, 7, 9, 12)], [0, 1, 0, 0], 'which is counted')
    text = shown({'shm/a.c': source}, {})[1]
    tap.ok('shm/a.c:9: marked as unreached, but nothing here is' in text, 'a mark may be wrong')
    tap.ok('1 more are marked as unreached, in 1 places' in text, 'marks are told')


def test_read_path(tap, folder):
    for path, name, expected in (('/b/libkvs_read.a.p/a.c.gcda', 'f', True),
                                 ('/b/libkvs_read.a.p/a.c.gcda', 'g', False),
                                 ('/b/libkvclient_objects.a.p/a.c.gcda', 'g', True),
                                 ('/b/libkvs_write.a.p/a.c.gcda', 'f', False)):
        source = collect(folder, unit(path, {3: [1, 1]}, name))['shm/a.c']
        tap.equal(3 in source.read_path, expected,
                  f'{name} of {path.split("/")[2]}: what clients link' + ' not' * (not expected))


def test_goals(tap, folder):
    sources = collect(folder, unit('x', {3: [1, 0], 12: [1, 1]}))
    tap.equal(shown(sources, {'shm/': 75})[0], 0, 'a goal that was reached')
    failed, text, report = shown(sources, {'shm/': 76})
    tap.equal(failed, 1, 'one that was not')
    tap.ok('not ok 1 - branches of shm/: 75.0 % of 4, goal 76 %' in text, 'is a failed result')
    tap.equal(report, 'shm/a.c:3: [1, 0]\n    if (a) {\n', 'lines with what is missing')


def main():
    tap = Tap()
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, 'shm'))
        with open(os.path.join(folder, 'shm', 'a.c'), 'w', encoding='utf-8') as file:
            file.write(C)
        for test in (test_branches, test_marks, test_read_path, test_goals):
            test(tap, folder)
    tap.done()


if __name__ == '__main__':
    main()
