# SPDX-License-Identifier: MIT
#
# The source tree as a dictionary of texts, so that every rule can also be run on a small invented
# tree, and the little C understanding the rules need: text without comments and strings, functions,
# includes.
import os
import re

SKIPPED_FOLDERS = {'.git', '__pycache__', '.cache', 'corpus', 'golden'}
CODE_SUFFIXES = ('.c', '.h', '.py', '.sh', '.pml', '.build')
SCRIPTS = ('run', 'check', '.ci/run')


class Tree:
    def __init__(self, files):
        self.files = files

    @staticmethod
    def walk(root):
        files = {}
        for folder, folders, names in os.walk(root):
            at_root = folder == root
            folders[:] = [f for f in folders if f not in SKIPPED_FOLDERS
                          and not (at_root and f.startswith('build'))]
            for name in names:
                path = os.path.join(folder, name)
                if name.endswith(('.o', '.swp', '.pyc', '.gcov')) or not os.path.isfile(path):
                    continue
                with open(path, 'rb') as file:
                    data = file.read()
                if b'\0' not in data:
                    files[os.path.relpath(path, root)] = data.decode('utf-8', 'replace')
        return Tree(files)

    def select(self, *suffixes, folders=None):
        """(path, text) of files with one of these suffixes, in path order."""
        for path in sorted(self.files):
            if path.endswith(suffixes) and (folders is None or path.split('/')[0] in folders):
                yield path, self.files[path]

    def code(self):
        for path in sorted(self.files):
            if path.endswith(CODE_SUFFIXES) or path in SCRIPTS:
                yield path, self.files[path]


_TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def _blank(match):
    text = match.group(0)
    if text[0] == '/':
        return re.sub(r'[^\n]', ' ', text)
    return text[0] + ' ' * (len(text) - 2) + text[-1]


def strip_c(text):
    """C text with comments and the insides of strings blanked; lines and columns stay."""
    return _TOKEN.sub(_blank, text)


def comments_c(text):
    """(line number, comment text) of every // line and every line of a /* comment."""
    for match in _TOKEN.finditer(text):
        if match.group(0)[0] == '/':
            first = text.count('\n', 0, match.start()) + 1
            for offset, line in enumerate(match.group(0).split('\n')):
                yield first + offset, line


def functions_c(text):
    """(line of the opening brace, count of lines) of functions in the house layout."""
    start = None
    for number, line in enumerate(strip_c(text).split('\n'), 1):
        if line.rstrip() == '{':
            start = number
        elif line.startswith('}') and start is not None:
            yield start, number - start + 1
            start = None


def includes_c(text):
    """(line number, '<' or '"', name) of every include."""
    for number, line in enumerate(text.split('\n'), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match:
            yield number, match.group(1), match.group(2)


def lines(text):
    return enumerate(text.split('\n'), 1)
