#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Hostile clients, of another uid than kvd and the client they would hurt (H, G).

Each attack of ARCHITECTURE.md's table is played against a running kvd, bounded in count and time,
while a polite client reads and writes; what it tried and how that was answered is told. In between
and afterwards kvd must be there, serve a polite client that comes now, have the right values, hold
no more memory, descriptors and connections than it may, have counted what it counts, and not have
flooded its log. How long the polite client waits is bench/hostile.py's business.

KVD_HOSTILE_SECONDS is how long an attack lasts that goes on as long as it may (0.1);
KVD_HOSTILE_ONLY plays those whose name contains the text.
"""
import json
import os
import sys

import attacks_load  # noqa: F401
import attacks_memory  # noqa: F401
import attacks_rights  # noqa: F401
import attacks_socket  # noqa: F401
from attacker import ATTACKS, Played
from target import HELP, Target

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Tap, seed  # noqa: E402

SECONDS = float(os.environ.get('KVD_HOSTILE_SECONDS', '0.1'))
ONLY = os.environ.get('KVD_HOSTILE_ONLY', '')
GETS, SETS = 500, 200  # a second: watching, not measuring


class Watched:
    """A target whose polite client works all the time."""

    def __init__(self, tap, programs, extra=()):
        self.tap = tap
        self.target = Target(programs, extra)
        self.worker = type(self.target.polite)(os.path.join(self.target.programs, 'polite'),
                                               self.target.kvd.socket)
        self.tried = 0

    def begin_work(self):
        self.worker.send(f'run 3600 {GETS} {SETS}')
        self.target.wait_for_polite(6)  # two at rest; two threads, the reader of each its own

    def end_work(self):
        got = json.loads(self.worker.tell('enough'))
        for name, row in got.items():
            self.tap.ok(row['count'] > 0 and row['wrong'] == 0 and row['failed'] == 0,
                        f"A, H: the polite client's {name}s: {row['count']}, {row['wrong']} wrong, "
                        f"{row['failed']} failed {row['why']}")

    def play(self, row, number):
        tap, target = self.tap, self.target
        before = target.state()
        played = Played(row['function'], target.facts(), SECONDS, number)
        wrong = []
        try:
            while (held := played.next()) is not None:
                problem = target.look(before)
                if problem:
                    wrong.append(f'while it holds {held}: {problem}')
                played.go_on()
        finally:
            played.end()
        report = played.report
        wrong += [problem for problem in (target.look(before), target.calm()) if problem]
        if target.kvd.process.poll() is not None:
            tap.diag(target.kvd.log()[-3000:])
            tap.bail_out(f"kvd ended with {target.kvd.process.returncode} by {row['name']}: "
                         f'{wrong} {report}')
        after = target.state()
        if after['fds'] > before['fds'] + 2:
            wrong.append(f"descriptors: {before['fds']} before, {after['fds']} now")
        silent = [name for name in row['counters'] if name in before['counters'] and
                  after['counters'][name] <= before['counters'][name]]
        if silent:
            wrong.append(f'counters that did not rise: {silent}')
        self.tried += report['tried']
        for text in report['said'][:6]:
            tap.diag('  ' + text)
        if not tap.ok(not wrong and not report['bad'] and report['tried'] > 0,
                      f"{row['name']}: {report['tried']} tried, refused or harmless"):
            for text in wrong + report['bad']:
                tap.diag('  ' + text)


def main():
    tap = Tap()
    if os.geteuid() != 0:
        tap.skip_all('attacks come from other uids: run it as root')
    programs = os.path.dirname(os.path.abspath(sys.argv[1]))
    base = seed().randrange(1 << 30)
    chosen = [row for row in ATTACKS if ONLY in row['name']]
    for row in chosen:
        if row['needs'] not in HELP:
            tap.skip(row['name'], f"this kvd has no {row['needs']}")
    chosen = [row for row in chosen if row['needs'] in HELP]
    tried = 0
    for options in dict.fromkeys(row['fresh'] for row in chosen):
        watched = Watched(tap, programs, options)
        try:
            watched.begin_work()
            for number, row in enumerate(chosen):
                if row['fresh'] == options:
                    watched.play(row, base + number)
            watched.end_work()
        finally:
            watched.worker.end()
            watched.target.end()
        tried += watched.tried
    tap.diag(f'counted hostile-actions {tried}')
    tap.done()


main()
