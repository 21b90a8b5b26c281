# SPDX-License-Identifier: MIT
#
# Redis's own test suite against kvd: every unit with a kvd and a bridge of its own, several at a
# time. Each test of the suite is one result here; those in skip.md must fail, and say why.
"""run_suite.py [UNIT...]: TAP. Environment as for kvdtest; KVD_BUILD keeps the suite."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import time

import source
from harness import Client, Hang
from kvdtest import BUILD_ROOT, KVCTL_PROGRAM, SOURCE_ROOT, Kvd, Tap, _die_with_parent

UNITS = ('type/string', 'type/incr', 'expire', 'keyspace', 'scan', 'protocol', 'info-command',
         'quit', 'pubsub', 'tracking', 'multi', 'introspection', 'introspection-2', 'other',
         'querybuf', 'slowlog', 'latency-monitor', 'bitops', 'bitfield', 'pause')
AT_A_TIME = 4
PASSED_MIN = 455
UNIT_LIMIT_S = 180  # of all its tests
QUIET_S = 20        # of one
ALONE_S = 3         # of one that is expected to fail, perhaps by hanging
# Tests count the changes since the last save: none comes of its own accord.
# Some set a bound of 10 MB, which is less than 16 of the segments that kvd has by itself.
KVD_OPTIONS = ('--lazy-interval', '1h', '--segment', '512KiB')
DETAIL_LINES_MAX = 8
SKIP = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'skip.md')


class Expected:
    """A row of skip.md."""

    def __init__(self, unit, test, alone, why):
        self.unit, self.test, self.alone, self.why = unit, test, bool(alone), why


def read_skip():
    rows = []
    with open(SKIP, encoding='utf-8') as file:
        for line in file:
            cells = re.split(r'(?<!\\)\|', line.strip())
            if len(cells) == 6 and cells[1].strip() not in ('unit', '---'):
                rows.append(Expected(*(cell.strip().replace('\\|', '|') for cell in cells[1:5])))
    return rows


class Bridge:
    """kvctl bridge in front of a kvd."""

    def __init__(self, kvd):
        self.process = subprocess.Popen(
            [KVCTL_PROGRAM, '--quiet', '--socket', kvd.socket, 'bridge', '--listen', '127.0.0.1:0'],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=_die_with_parent)
        self.port = int(self.process.stdout.readline().rsplit(b':', 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


class Run:
    """What a unit, or one test of it, gave: a list of (test, 'ok' | 'failed', details)."""

    def __init__(self, suite, unit, quiet_s, **choice):
        self.unit = unit
        self.results = []
        self.ignored = 0
        started = time.monotonic()
        with Kvd(*KVD_OPTIONS) as kvd, Bridge(kvd) as bridge:
            client = Client(suite, bridge.port, **choice)
            try:
                for status, text, _ in client.run(f'unit/{unit}', quiet_s, UNIT_LIMIT_S):
                    self.take(status, text)
            except Hang as hang:
                self.results.append((str(hang), 'failed',
                                     'hangs: it was cut off, the rest of the unit was not run'))
            finally:
                client.close()
            status = kvd.stop()
            if status != 0:
                self.results.append((f'kvd ended with {status}', 'failed', kvd.log()[-2000:]))
        self.seconds = time.monotonic() - started

    def take(self, status, text):
        if status == 'ok':
            self.results.append((text, 'ok', ''))
        elif status == 'err':
            head, _, details = text.partition('\n')
            name, place, _ = head.partition(f' in tests/unit/{self.unit}.tcl')
            if place:
                self.results.append((name, 'failed', details))
            else:
                self.results.append(('outside of a test', 'failed', text))
        elif status == 'exception':
            self.results.append(('the harness goes on', 'failed', text))
        elif status == 'ignore':
            self.ignored += 1


def judge(tap, run, expected):
    """Prints the results of one unit. How many passed, and the rows of skip.md that were met."""
    passed, met = 0, set()
    for name, result, details in run.results:
        row = expected.get((run.unit, name))
        label = f'{run.unit}: {name}'
        if row:
            met.add(row)
        if row and result == 'ok':
            tap.ok(False, f'{label}: passes now, take it off skip.md')
        elif row:
            tap.skip(label, row.why)
        else:
            passed += result == 'ok'
            if not tap.ok(result == 'ok', label):
                tap.diag('\n'.join(line[:300] for line in details.split('\n')[:DETAIL_LINES_MAX]))
    tap.diag(f'{run.unit}: {passed} passed in {run.seconds:.1f} s, {run.ignored} not meant for an '
             f'external server')
    return passed, met


def run_all(suite, units, rows):
    """(unit, row or None, future of a Run) of every unit and of every test to be run alone."""
    pool = concurrent.futures.ThreadPoolExecutor(AT_A_TIME)
    jobs = []
    for unit in units:
        alone = [row.test for row in rows if row.unit == unit and row.alone]
        jobs.append((unit, None, pool.submit(Run, suite, unit, QUIET_S, skip=alone)))
    jobs += [(row.unit, row, pool.submit(Run, suite, row.unit, ALONE_S, only=[row.test]))
             for row in rows if row.alone and row.unit in units]
    return jobs


def judge_alone(tap, row, run):
    good = [result for name, result, _ in run.results if name == row.test]
    if good == ['ok']:
        tap.ok(False, f'{row.unit}: {row.test}: passes now, take it off skip.md')
    else:
        tap.skip(f'{row.unit}: {row.test}', row.why)


def main(arguments):
    tap = Tap()
    units = arguments or UNITS
    if not shutil.which('tclsh'):
        tap.skip_all('tclsh is not installed')
    try:
        suite = source.suite(BUILD_ROOT)
    except source.NotHad as why:
        tap.skip_all(f"Redis's test suite cannot be had: {why}")
    rows = read_skip()
    expected = {(row.unit, row.test): row for row in rows}
    started = time.monotonic()
    passed, met = 0, set()
    for unit, row, job in run_all(suite, units, rows):
        if row:
            judge_alone(tap, row, job.result())
        else:
            count, here = judge(tap, job.result(), expected)
            passed += count
            met |= here
    for row in rows:
        if row.unit in units and not row.alone and row not in met:
            tap.ok(False, f'{row.unit}: {row.test}: stands in skip.md but was not run')
    if not arguments:
        tap.ok(passed >= PASSED_MIN, f'at least {PASSED_MIN} tests pass: {passed}')
    tap.diag(f'{passed} passed in {time.monotonic() - started:.1f} s')
    tap.done()


if __name__ == '__main__':
    os.environ.setdefault('KVD_SOURCE', SOURCE_ROOT)
    main(sys.argv[1:])
