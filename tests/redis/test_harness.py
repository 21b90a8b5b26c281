# SPDX-License-Identifier: MIT
#
# What run_suite.py rests on, without Redis's suite: reading Tcl lists, deriving source lines from
# package sources, and the form of skip.md.
import contextlib
import io
import os
import shutil
import subprocess
import tempfile

import source
from harness import Client, Hang, tcl_list
from kvdtest import Tap, seed
from run_suite import UNITS, Expected, judge, judge_alone, read_skip

LINES = '''# comment
deb [signed-by=/k.gpg] http://a.example/debian bookworm main contrib
deb-src http://a.example/debian bookworm main
deb http://b.example/apt other main
deb http://c.example/debian bookworm non-free
'''
STANZAS = '''Types: deb
# a remark
URIs: http://a.example/debian
Suites: bookworm bookworm-updates other
Components: main contrib
Signed-By: /usr/share/keyrings/a.gpg

Enabled: no
Types: deb
URIs: http://b.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://c.example/debian
Suites: bookworm
Components: main
'''
STANZA = '''Types: deb-src
URIs: http://a.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/a.gpg

'''
WORDS = ('', 'a', 'two words', '{', '}', '{}', 'a{b}c', '\\', 'a\\', '"', 'q"q', '[x]', '$y', '#',
         'line\nline', '\ttab', 'ends in }', '; x', '{a b} c', 'a\r', '\x85\xa0\x1c')

# In place of Redis's: speaks as its harness does.
HELPER = '''
set fd [socket 127.0.0.1 [lindex $argv [expr {[lsearch $argv --client] + 1}]]]
fconfigure $fd -encoding binary
proc tell {status text} {
    set payload [list $status $text 7]
    puts $::fd [string length $payload]
    puts -nonewline $::fd $payload
    flush $::fd
}
tell ready [pid]
read $fd [gets $fd]
tell testing {first {of} all}
tell ok {first {of} all}
tell err "second in tests/unit/u.tcl\ntwo\nlines"
tell testing third
if {[lsearch $argv slow] > 0} { gets stdin; vwait forever }
if {[lsearch $argv dies] > 0} { puts "last words"; exit 1 }
tell done u
vwait forever
'''


def check_lists(tap):
    tap.equal(tcl_list('ok {a b} 12'), ['ok', 'a b', '12'], 'bare and braced words')
    tap.equal(tcl_list('err {a {b \\} c} d} {}'), ['err', 'a {b \\} c} d', ''], 'nested braces')
    tap.equal(tcl_list('a\\{\\ b\\n \\"'), ['a{ b\n', '"'], 'words with backslashes')
    if not shutil.which('tclsh'):
        tap.skip('lists as tclsh writes them', 'tclsh is not installed')
        return
    random = seed()
    lists = [[random.choice(WORDS) for _ in range(random.randrange(6))] for _ in range(300)]
    lists += [[word] for word in WORDS]
    script = 'fconfigure stdout -translation binary\n'
    for words in lists:
        quoted = (''.join(f'\\x{ord(c):02x}' for c in word) for word in words)
        script += 'puts -nonewline "[list ' + ' '.join(f'"{word}"' for word in quoted) + ']\\0"\n'
    run = subprocess.run(['tclsh'], input=script.encode(), capture_output=True, check=True)
    got = [tcl_list(text) for text in run.stdout.decode('latin-1').split('\0')[:-1]]
    tap.equal(got, lists, 'lists as tclsh writes them')


def check_sources(tap):
    wanted = ('bookworm', 'bookworm-updates')
    tap.equal(list(source.line_sources(LINES, wanted)),
              ['deb-src [signed-by=/k.gpg] http://a.example/debian bookworm main\n'],
              'deb lines of this Debian become source lines, with their options')
    tap.equal(list(source.stanza_sources(STANZAS, wanted)), [STANZA],
              'and so do stanzas, if they are enabled')
    with tempfile.TemporaryDirectory() as folder:
        path = os.environ['PATH']
        os.environ['PATH'] = folder
        try:
            source.suite(os.path.join(folder, 'build'))
            why = 'it was had'
        except source.NotHad as error:
            why = str(error)
        finally:
            os.environ['PATH'] = path
        tap.equal((why, os.listdir(os.path.join(folder, 'build'))), ('there is no apt-get', []),
                  'without apt-get it says so, and leaves nothing')


def check_skip(tap):
    rows = read_skip()
    tap.ok(len(rows) > 10, 'skip.md has rows')
    tap.equal([row.test for row in rows if row.unit not in UNITS or len(row.why.split()) < 3], [],
              'each names a unit and says why')
    keys = [(row.unit, row.test) for row in rows]
    tap.equal([key for key in set(keys) if keys.count(key) > 1], [], 'none stands there twice')


def drive(folder, word):
    """What a client started with `word` among its arguments told, and how it ended."""
    told = []
    client = Client(folder, 1, only=[word])
    try:
        for status, text, seconds in client.run('unit/u', 0.5, 30):
            told.append((status, text, seconds))
    except Hang as hang:
        told.append(f'hangs in {hang}')
    finally:
        client.close()
    return told


def check_client(tap):
    if not shutil.which('tclsh'):
        tap.skip('a harness process is driven', 'tclsh is not installed')
        return
    begin = [('ok', 'first {of} all', 0.007),
             ('err', 'second in tests/unit/u.tcl\ntwo\nlines', 0.007)]
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, 'tests'))
        with open(os.path.join(folder, 'tests', 'test_helper.tcl'), 'w', encoding='utf-8') as out:
            out.write(HELPER)
        tap.equal(drive(folder, 'well'), begin, 'a harness process is driven')
        tap.equal(drive(folder, 'slow'), [*begin, 'hangs in third'], 'one that hangs is cut off')
        tap.equal(drive(folder, 'dies'), [*begin, ('exception', 'last words\n', 0.0)],
                  'one that dies is noticed, with what it said')


class Result:
    """What judge() wants of a Run."""

    def __init__(self, *results):
        self.unit, self.results, self.seconds, self.ignored = 'u', results, 0, 0


def check_judge(tap):
    row = Expected('u', 'known', '', 'it is so')
    expected = {('u', 'known'): row}

    def verdict(function, *arguments):
        inner = Tap()
        with contextlib.redirect_stdout(io.StringIO()) as out:
            function(inner, *arguments)
        return inner.failed, out.getvalue().count('# SKIP it is so')

    good, bad = ('new', 'ok', ''), ('new', 'failed', 'why')
    known_good, known_bad = ('known', 'ok', ''), ('known', 'failed', 'why')
    tap.equal(verdict(judge, Result(good, known_bad), expected), (0, 1),
              'a known difference is skipped, with its reason')
    tap.equal(verdict(judge, Result(bad), expected), (1, 0), 'an unknown one fails')
    tap.equal(verdict(judge, Result(known_good), expected), (1, 0),
              'a known one that passes fails')
    tap.equal(verdict(judge_alone, row, Result(known_good)), (1, 0), 'by itself, too')
    tap.equal(verdict(judge_alone, row, Result(known_bad)), (0, 1), 'or is skipped')


def main():
    tap = Tap()
    check_lists(tap)
    check_sources(tap)
    check_skip(tap)
    check_client(tap)
    check_judge(tap)
    tap.done()


if __name__ == '__main__':
    main()
