# SPDX-License-Identifier: MIT
#
# kvd.8 against kvd --help, which comes from the table of options: each option stands in the manual
# with its argument and its default, and no other. Also the formatter's complaints, where mandoc is
# installed.
import os
import re
import shutil
import subprocess

from kvdtest import KVD_PROGRAM, SOURCE_ROOT, Tap

MANUAL = os.path.join(os.environ.get('KVD_SOURCE', SOURCE_ROOT), 'daemon', 'kvd.8')


def read_help():
    """name -> (argument, '' for none, and default or None)"""
    text = subprocess.run([KVD_PROGRAM, '--help'], capture_output=True, check=True).stdout.decode()
    options = {}
    for name, argument, body in re.findall(r'^  --([\w-]+) ?(\S*)\n {8}(.*)$', text, re.M):
        found = re.search(r'\(default (.*)\)$', body)
        options[name] = (argument, found.group(1) if found else None)
    return options


def read_manual():
    """name -> (argument, text)"""
    with open(MANUAL, encoding='utf-8') as manual:
        text = manual.read().replace('\\\n', '')  # lines that go on
    items = re.findall(r'^\.It Fl -([\w-]+)(?: Ar (\S+))?\n(.*?)(?=^\.It |^\.El)', text,
                       re.M | re.S)
    return {name: (argument, re.sub(r'^\.\w+ ', '', body, flags=re.M).replace('\n', ' '))
            for name, argument, body in items}


def main():
    tap = Tap()
    helped, manual = read_help(), read_manual()
    tap.ok(len(helped) > 20, f'kvd --help knows {len(helped)} options')
    tap.equal({name: row[0] for name, row in manual.items()},
              {name: row[0] for name, row in helped.items()},
              'every option stands in the manual with its argument, and no other')
    wrong = [name for name, (_, default) in helped.items() if default and name in manual and
             not re.search(rf'(?<![\w/]){re.escape(default)}(?![\w/])', manual[name][1])]
    tap.equal(wrong, [], 'and with its default')
    if shutil.which('mandoc'):
        said = subprocess.run(['mandoc', '-T', 'lint', '-W', 'warning', MANUAL],
                              capture_output=True, check=False).stdout.decode()
        tap.equal(said, '', 'the formatter has no complaint')
    else:
        tap.skip('the formatter has no complaint', 'mandoc is not installed')
    tap.done()


main()
