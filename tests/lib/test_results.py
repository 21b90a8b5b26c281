# SPDX-License-Identifier: MIT
#
# The counter behind ./check: every way a test can go wrong must end up as a failure, or the last
# line of ./check lies.
import contextlib
import io
import json
import os
import tempfile

import results
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


def main():
    tap = Tap()
    test_tap(tap)
    test_meson(tap)
    test_total(tap)
    test_ends(tap)
    tap.done()


main()
