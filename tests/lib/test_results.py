# SPDX-License-Identifier: MIT
#
# The counter behind ./check: every way a test can go wrong must end up as a failure, or the last
# line of ./check lies.
import contextlib
import io
import json
import os
import shutil
import tempfile
import unittest.mock

import goals
import results
import summary
from kvdtest import Tap


def counts(text, status=0, timed_out=False):
    outcome = results.judge_tap('t', text, status, timed_out)
    return tuple(outcome.count(kind) for kind in ('passed', 'failed', 'skipped'))


def test_tap(tap):
    tap.equal(counts('ok 1 - a\nok 2 - b\n1..2\n'), (2, 0, 0), 'two passed')
    tap.equal(counts('1..2\nok 1\nok 2\n'), (2, 0, 0), 'a plan may come first')
    tap.equal(counts('not ok 1 - a\nok 2\n1..2\n', 1), (1, 1, 0), 'one failed')
    tap.equal(counts('ok 1 # SKIP no such kernel\n1..1\n'), (0, 0, 1), 'one skipped')
    tap.equal(counts('1..0 # SKIP no network\n'), (0, 0, 1), 'all skipped')
    tap.equal(counts('not ok 1 - a # TO' 'DO later\n1..1\n'), (1, 0, 0),
              'a failure that is expected is none')
    tap.equal(counts('ok 1\n'), (1, 1, 0), 'no plan is a failure')
    tap.equal(counts('', -11), (0, 1, 0), 'a crash before anything was said is a failure')
    tap.equal(counts('ok 1\n', -6), (1, 1, 0), 'a crash half-way is one failure')
    tap.equal(counts('ok 1\n1..3\n'), (1, 1, 0), 'too few results are a failure')
    tap.equal(counts('ok 1\nok 2\n1..1\n'), (2, 1, 0), 'too many results too')
    tap.equal(counts('ok 1\n1..1\n', 99), (1, 1, 0), 'a bad exit status after good results is one')
    tap.equal(counts('ok 1\n', -9, True), (1, 1, 0), 'a timeout is one failure')
    tap.equal(counts('ok 1\nBail out! no server\n', 99), (1, 1, 0), 'giving up is one failure')
    tap.equal(counts('ok 1 - a\n    ok 1 - inner\n    not ok 2 - inner\n1..1\n'), (1, 0, 0),
              'subtests are counted by their parent')
    tap.equal(counts('# not ok 1\nokay\nok 1\n1..1\n'), (1, 0, 0), 'other lines are not results')


def meson_entry(result, stdout, returncode):
    return {'name': 'kvd:unit / x', 'result': result, 'stdout': stdout, 'returncode': returncode}


def test_meson(tap):
    def kinds(*entry):
        return [row[0] for row in results.judge_meson(meson_entry(*entry)).results]
    tap.equal(kinds('OK', 'ok 1\nok 2\n1..2\n', 0), ['passed', 'passed'], 'TAP inside a meson log')
    tap.equal(kinds('FAIL', 'ok 1\n1..1\n', 3), ['passed', 'failed'], 'its exit status')
    tap.equal(kinds('OK', 'hello\n', 0), ['passed'], 'a program without TAP counts as one')
    tap.equal(kinds('FAIL', 'hello\n', 1), ['failed'], 'also when it fails')
    tap.equal(kinds('SKIP', '', 77), ['skipped'], 'also when it is skipped')
    tap.equal(kinds('TIMEOUT', 'ok 1\n', -15), ['passed', 'failed'], 'a timeout meson saw')
    tap.equal(kinds('ERROR', '', -11), ['failed'], 'a crash meson saw')


def quiet(*arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = results.main(list(arguments))
    return status, out.getvalue()


def test_total(tap):
    with tempfile.TemporaryDirectory() as folder:
        state, log = os.path.join(folder, 'state'), os.path.join(folder, 'log.json')
        tap.equal(quiet(state, 'total')[0], 1, 'no result at all is no success')
        with open(log, 'w', encoding='utf-8') as file:
            print(json.dumps(meson_entry('OK', 'ok 1\nok 2 # SKIP why\n1..2\n', 0)), file=file)
        quiet(state, 'meson', 'unit', log, '0')
        status, text = quiet(state, 'total')
        tap.equal(status, 0, 'good results are a success')
        tap.equal(text.split('\n')[-2], '1 passed, 0 failed, 1 skipped', 'the last line has counts')
        tap.ok('why' in text, 'a skip says why')
        quiet(state, 'one', 'build', 'builds', 'fail', 'see above')
        status, text = quiet(state, 'total')
        tap.equal(status, 1, 'a failure is the exit status')
        tap.equal(text.split('\n')[-2], '1 passed, 1 failed, 1 skipped', 'and is counted')
        open(log, 'w', encoding='utf-8').close()
        quiet(state, 'meson', 'empty', log, '0')
        tap.equal(quiet(state, 'total')[1].split('\n')[-2], '1 passed, 2 failed, 1 skipped',
                  'a group without tests is a failure')


def test_shown(tap):
    """What failed is shown with the comments on both sides: how to see it again is among them."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        results.show_failure('ok 1\n# of 1\nok 2\n# before\nnot ok 3\n# behind\nok 4\n# of 4\n', '')
    tap.equal(out.getvalue().split(), ['#', 'before', 'not', 'ok', '3', '#', 'behind'],
              'what is shown of a failure')


def test_ends(tap):
    """What ended before it was done is a failure, even where all that was said is good."""
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, 'log.json')
        with open(log, 'w', encoding='utf-8') as file:
            print(json.dumps(meson_entry('OK', 'ok 1\n1..1\n', 0)), file=file)
        for status, failed in (('0', 0), ('1', 1), ('137', 1)):
            state = os.path.join(folder, f'meson{status}')
            quiet(state, 'meson', 'unit', log, status)
            tap.equal(quiet(state, 'total')[1].split('\n')[-2], f'1 passed, {failed} failed',
                      f'meson ended with {status}')
        for status, kind, failed in (('0', 'ok', 0), ('1', 'ok', 1), ('137', 'ok', 1),
                                     ('1', 'fail', 1), ('137', 'fail', 2)):
            state = os.path.join(folder, f'group{status}{kind}')
            quiet(state, 'one', 'unit', 'x', kind)
            quiet(state, 'group', 'unit', '0.1', status)
            tap.ok(f'{failed} failed' in quiet(state, 'total')[1].split('\n')[-2],
                   f'a group ended with {status} after a result {kind}')
        state = os.path.join(folder, 'nothing')
        quiet(state, 'group', 'unit', '0.1', '0')
        tap.equal(quiet(state, 'total')[1].split('\n')[-2], '0 passed, 1 failed',
                  'a group that said nothing')


def test_counted(tap):
    """What tests count is added up by name, apart from the results, and held against the goals."""
    with tempfile.TemporaryDirectory() as folder:
        log, state = os.path.join(folder, 'log.json'), os.path.join(folder, 'state')
        text = '# counted kills 3\n# counted kills 4\n# counted no number\nok 1\n1..1\n'
        with open(log, 'w', encoding='utf-8') as file:
            print(json.dumps(meson_entry('OK', text, 0)), file=file)
        quiet(state, 'meson', 'unit', log, '0')
        quiet(state, 'count', 'unit', 'states', '5')
        tap.ok('counted: 7 kills, 5 states' in quiet(state, 'group', 'unit', '0.1', '0')[1],
               'a group tells what its tests counted')
        tap.equal(json.loads(quiet(state, 'report', 'unit')[1]),
                  {'passed': 1, 'failed': 0, 'skipped': 0, 'counted': {'kills': 7, 'states': 5}},
                  'so does the record of a deep run')
        for goal, text in ((7, '2 passed, 0 failed'), (8, '1 passed, 1 failed')):
            copy = os.path.join(folder, f'goal{goal}')
            shutil.copy(state, copy)
            with unittest.mock.patch.dict(goals.CHECK, {'kills': goal}, clear=True):
                quiet(copy, 'goals')
            tap.equal(quiet(copy, 'total')[1].split('\n')[-2], text, f'7 of {goal} counted')


GOOD = json.dumps({'passed': 2, 'failed': 0, 'skipped': 0, 'counted': {'kills': 5}})


def show(path, commit, goal, **others):
    out = io.StringIO()
    with unittest.mock.patch.dict(goals.DEEP, {'kills': goal, **others}, clear=True):
        with contextlib.redirect_stdout(out):
            status = summary.show(path, commit, ['kills'])
    return status, out.getvalue()


def test_summary(tap):
    """Parts of one commit are added up, the newest of each; what is missing is said."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'results')
        summary.record(path, 'kills', '1/3', '7', 'aa', '60', '')
        summary.record(path, 'kills', '1/3', '7', 'aa', '60', GOOD)
        summary.record(path, 'kills', '3/3', '8', 'aa', '60', GOOD)
        summary.record(path, 'kills', '2/3', '8', 'bb', '60', GOOD)
        status, text = show(path, 'aa', 10)
        tap.ok('| kills | 2 of 3 (missing 2) | 4 | 0 | 0 | 2 | 7 8 |' in text, 'by parts')
        tap.ok('| kills | 10 | 10 |' in text, 'added up')
        tap.ok(status == 1 and 'not all of: kills' in text, 'enough of them, but not every part')
        summary.record(path, 'kills', '2/3', '8', 'aa', '60', GOOD)
        status, text = show(path, 'aa', 15)
        tap.ok(status == 0 and 'All goals are reached.' in text, 'all of it')
        status, text = show(path, 'aa', 16)
        tap.ok(status == 1 and 'short of the goal: kills' in text, 'too few of them')
        status, text = show(path, 'aa', 15, stops=1)
        tap.ok(status == 1 and 'short of the goal: stops' in text and '| stops | 0 | 1 |' in text,
               'what nobody counted is none')
        tap.ok(show(path, 'cc', 0)[0] == 1, 'a run without any record')
        summary.record(path, 'kills', '1/3', '7', 'aa', '60', '')
        tap.equal(show(path, 'aa', 5)[0], 1, 'a part that was interrupted has failed')


def test_summary_of(tap):
    """What is added up belongs together, and what has passed is known."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'results')
        for part, commit in (('1/2', 'aa'), ('2/2', 'aa'), ('1/3', 'aa'), ('2/3', 'aa'),
                             ('1/1', 'aa+changes')):
            summary.record(path, 'kills', part, '7', commit, '60', GOOD)
        text = show(path, 'aa', 0)[1]
        tap.ok('| kills | 2 of 2 | 4 |' in text and '| kills | 10 |' in text,
               'of two divisions the whole one counts, alone')
        summary.record(path, 'kills', '1/1', '7', 'aa', '60', GOOD)
        tap.ok('| kills | 1 of 1 | 2 |' in show(path, 'aa', 0)[1], 'of two whole ones the later')
        summary.record(path, 'kills', '2/2', '7', 'aa', '60', GOOD)
        tap.ok('| kills | 2 of 2 | 4 |' in show(path, 'aa', 0)[1], 'or the one done again since')
        status, text = show(path, 'aa+changes', 5)
        tap.ok(status == 1 and 'not that of a commit' in text, 'a tree with changes proves nothing')
        summary.record(path, 'kills', '1/1', '7', 'unknown', '60', GOOD)
        status, text = show(path, 'unknown', 5)
        tap.ok(status == 1 and 'not that of a commit' in text, 'nor one that is of no commit')
        tap.ok(summary.passed(path, 'kills', '2/2', 'aa'), 'a part that has passed')
        summary.record(path, 'kills', '2/2', '7', 'aa', '60', '')
        for what, *part in (('failed since', '2/2', 'aa'), ('was of another commit', '1/2', 'bb'),
                            ('of another division', '1/4', 'aa'),
                            ('of a tree with changes', '1/1', 'aa+changes'),
                            ('of no commit', '1/1', 'unknown')):
            tap.ok(not summary.passed(path, 'kills', *part), f'not one that {what}')


def main():
    tap = Tap()
    test_tap(tap)
    test_meson(tap)
    test_total(tap)
    test_shown(tap)
    test_ends(tap)
    test_counted(tap)
    test_summary(tap)
    test_summary_of(tap)
    tap.done()


main()
