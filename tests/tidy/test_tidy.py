# SPDX-License-Identifier: MIT
#
# House rules, checked mechanically: one result a rule, with every place that breaks it. Before that
# each rule proves on samples that it fires and that it stays quiet.
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'mutants'))
import mutants  # noqa: E402
from kvdtest import SOURCE_ROOT, Tap  # noqa: E402
from rules import RULES, long_files  # noqa: E402
from tree import SCRIPTS, Tree  # noqa: E402


def self_test(tap):
    for name, function, bad, good in RULES:
        fired = {violation.split(':')[0] for violation in function(bad)}
        # Every file of the bad sample is bad by itself, those that only give context excepted.
        missed = bad.files.keys() - fired - {'shm/meson.build', 'shm/status.tbl.h'}
        tap.equal(sorted(missed), [], f'rule fires on every bad sample: {name}')
        tap.equal(list(function(good)), [], f'rule is quiet on good samples: {name}')


def shell_scripts(tap, root):
    scripts = [path for path in SCRIPTS if os.path.exists(os.path.join(root, path))]
    name = 'shell scripts pass shellcheck'
    if not shutil.which('shellcheck'):
        tap.skip(name, 'shellcheck is not installed')
        return
    result = subprocess.run(['shellcheck', '-x', '-s', 'bash'] + scripts, cwd=root,
                            capture_output=True, text=True, check=False)
    if not tap.ok(result.returncode == 0, name):
        tap.diag(result.stdout + result.stderr)


def known_mistakes(tap, root):
    """Those of tests/mutants, most of which only a long run compiles."""
    lost = []
    for mutant in mutants.MUTANTS:
        try:
            mutant.mistaken(root)
        except (mutants.Lost, OSError) as error:
            lost.append(str(error))
    if not tap.ok(not lost, 'every known mistake can still be made'):
        tap.diag('\n'.join(lost))


def proofs(tap, root):
    """The table of tests/README.md names points and mistakes that there are, and tests use."""
    with open(os.path.join(root, 'tests', 'README.md'), encoding='utf-8') as file:
        rows = [line.strip('| \n').split(' | ') for line in file if line.startswith('| ')]
    start = next((i for i, row in enumerate(rows) if row[0] == 'mechanism'), len(rows))
    rows = [row for row in rows[start + 1:] if len(row) == 7]
    with open(os.path.join(root, 'daemon', 'seam.h'), encoding='utf-8') as file:
        labels = set(re.findall(r'^\tX\((\w+),', file.read(), re.M))
    used = ''
    folder = os.path.join(root, 'tests', 'system')
    for name in sorted(os.listdir(folder)):
        if name.endswith('.py'):
            with open(os.path.join(folder, name), encoding='utf-8') as file:
                used += file.read()
    known = {mutant.name for mutant in mutants.MUTANTS}
    wrong = [f'{row[0]}: {point} is no point at which a test kills kvd' for row in rows
             for point in row[1].split(', ') if point != '-' and
             (point not in labels or not re.search(rf"'{point}[':]", used))]
    wrong += [f'{row[0]}: {name} is no known mistake' for row in rows
              for name in row[6].split(', ') if name not in known]
    if not tap.ok(len(rows) >= 10 and not wrong, 'what proves each mechanism is there'):
        tap.diag('\n'.join(wrong))


def main():
    tap = Tap()
    root = os.environ.get('KVD_SOURCE', SOURCE_ROOT)
    self_test(tap)
    tree = Tree.walk(root)
    tap.ok(len(tree.files) > 20, 'the tree was found')
    for name, function, _, _ in RULES:
        violations = list(function(tree))
        if not tap.ok(not violations, name):
            tap.diag('\n'.join(violations))
    shell_scripts(tap, root)
    known_mistakes(tap, root)
    proofs(tap, root)
    for warning in long_files(tree):
        tap.diag(f'note: {warning}')
    tap.done()


main()
