# SPDX-License-Identifier: MIT
#
# kvctl.1 against the tables: every verb with its arguments, every option with its argument at its
# verb, every statistic and every check of the doctor with its words stand in the manual, and
# nothing else does. Also the formatter's own complaints, where mandoc is installed.
import json
import os
import re
import shutil
import subprocess

from kvdtest import KVCTL_PROGRAM, SOURCE_ROOT, Tap

ROOT = os.environ.get('KVD_SOURCE', SOURCE_ROOT)
MANUAL = os.path.join(ROOT, 'tools', 'kvctl.1')


def plain(text):
    """Arguments as both sides write them: '[PATTERN]' and 'Op Ar PATTERN' become 'PATTERN'."""
    words = re.sub(r'[\[\]]|\b(Op|Ar)\b', ' ', text).replace('...', ' ... ').split()
    return ' '.join(words)


def read_manual():
    """(verbs: name -> arguments, options: verb or '' -> {name: (letter, argument)}, statistics)."""
    verbs, options, statistics = {}, {}, {}
    section, verb, pending = '', '', None
    with open(MANUAL, encoding='utf-8') as manual:
        for line in manual.read().split('\n'):
            if line.startswith('.Sh '):
                section, verb = line[4:], ''
            elif section == 'VERBS' and (m := re.match(r'\.It Cm (\w+) ?(.*)', line)):
                verb = m.group(1)
                verbs[verb] = plain(m.group(2))
            elif m := re.match(r'\.It Fl (?:(\w) , Fl )?(-[\w-]+)(?: Ar (.*))?$', line):
                options.setdefault(verb, {})['-' + m.group(2)] = (m.group(1), m.group(3))
            elif verb and line.startswith('Takes'):
                pending = verb
            elif pending and (m := re.match(r'\.Fl (-[\w-]+)', line)):
                options.setdefault(pending, {})['-' + m.group(1)] = None
                pending = None
            elif section == 'STATISTICS' and (m := re.match(r'\.It Va (\w+)', line)):
                statistics[m.group(1)] = None
            elif statistics and list(statistics.values())[-1] is None:
                statistics[list(statistics)[-1]] = line
    return verbs, options, statistics


def read_counters():
    with open(os.path.join(ROOT, 'shm', 'counters.tbl.h'), encoding='utf-8') as table:
        return dict(re.findall(r'^X\((\w+), \w+, "(.*?)"\)', table.read(), re.M))


def check_doctor(tap):
    with open(os.path.join(ROOT, 'tools', 'doctor.tbl.h'), encoding='utf-8') as table:
        rows = re.findall(r'^X\(\w+, "([\w-]+)", "(.*?)"\)', table.read(), re.M)
    with open(MANUAL, encoding='utf-8') as manual:
        section = manual.read().split('.Sh DOCTOR\n')[1].split('.Sh ')[0]
    told = re.findall(r'^\.It ([\w-]+)\n(.*)$', section, re.M)
    tap.ok(rows and told == rows, 'every check of the doctor, in its order and with its words')


def check_options(tap, table, options):
    rows = {row['name']: row for row in table['options']}
    expected = {verb['name']: set(verb['options']) for verb in table['verbs'] if verb['options']}
    expected[''] = {name for name, row in rows.items() if row['common']}
    got = {verb: set(names) for verb, names in options.items()}
    tap.equal(got, expected, 'every option stands at its verbs')
    for names in options.values():
        for name, spelled in names.items():
            if spelled is not None and name in rows:
                row = rows[name]
                tap.equal(spelled, (row.get('short', '')[1:] or None, row.get('argument')),
                          f'{name}: letter and argument')
    explained = {name for names in options.values() for name, how in names.items() if how}
    tap.equal(explained, set(rows), 'every option is explained once')


def help_text(*args):
    return subprocess.run([KVCTL_PROGRAM, *args], capture_output=True, text=True,
                          check=True).stdout


def check_help(tap, table):
    text = help_text('help')
    for verb in table['verbs']:
        tap.ok(f"  {verb['name']} {verb['arguments']}" in text, f"help lists {verb['name']}")
        own = help_text('help', verb['name'])
        tap.equal(help_text(verb['name'], '--help'), own, f"{verb['name']} --help is the same")
        tap.ok(verb['help'] in own and all(option in own for option in verb['options']),
               f"help {verb['name']} has its options")


def check_lint(tap):
    if not shutil.which('mandoc'):
        tap.skip('mandoc has no complaint', 'mandoc is not installed')
        return
    lint = subprocess.run(['mandoc', '-T', 'lint', '-W', 'warning', MANUAL], capture_output=True,
                          text=True, check=False)
    tap.equal(lint.stdout + lint.stderr, '', 'mandoc has no complaint')


def main():
    tap = Tap()
    table = json.loads(help_text('--json', 'help'))
    verbs, options, statistics = read_manual()
    tap.equal(verbs, {verb['name']: plain(verb['arguments']) for verb in table['verbs']},
              'every verb with its arguments')
    check_options(tap, table, options)
    tap.equal(statistics, read_counters(), 'every statistic with its words')
    check_doctor(tap)
    check_help(tap, table)
    check_lint(tap)
    tap.done()


main()
