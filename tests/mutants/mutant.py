# SPDX-License-Identifier: MIT
#
# What a known mistake is: texts of one file, what takes their place, and the tests that have to
# notice.
import os
import re


SIMULATION = 'tests/simulation/simulate'
HISTORIES = 'daemon/kvd tests/history/histories.py'


class Lost(Exception):
    """The source has moved on, and the mistake cannot be made."""


class Mutant:
    """`changes` are pairs of texts, the first of which stands once in the file at `path`, whatever
    white space there is in it; `sources` are recompiled, if that is a header; `tests` are programs
    with arguments, in the build folder, one of which has to notice. A script among the arguments
    runs with the program as its kvd. `wholes` are others, that look at a whole kvd: when all
    mutants are tried each of them has to notice, too."""

    def __init__(self, name, what, path, changes, tests, *, sources=None, quick=False,
                 environment=None, wholes=()):
        self.name = name
        self.what = what
        self.path = path
        self.changes = changes
        self.tests = tests
        self.sources = sources
        self.quick = quick
        self.environment = environment or {}
        self.wholes = wholes

    def mistaken(self, root):
        """The text of the file, in the tree at `root`, with the mistake in it."""
        with open(os.path.join(root, self.path), encoding='utf-8') as file:
            text = file.read()
        for old, new in self.changes:
            pattern = r'\s+'.join(re.escape(word) for word in old.split())
            places = len(re.findall(pattern, text))
            if places != 1:
                raise Lost(f'{self.name}: {places} places with {old!r} in {self.path}')
            text = re.sub(pattern, lambda _, new=new: new, text)
        return text
