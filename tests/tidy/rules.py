# SPDX-License-Identifier: MIT
#
# The rules. Each is a generator of `path:line: what and the remedy`, with a bad sample on which it
# must fire and a good one on which it must not: a rule that cannot fire is worse than none.
import ast
import re

from includes import include_arrows
from tree import Tree, comments_c, functions_c, lines, strip_c

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
FILE_LINES_WARN = 400
COLUMNS_MAX = 100
SPDX = 'SPDX-License-Identifier: MIT'

BANNED_CALLS = {
    'strcpy': 'strlcpy or memcpy with a checked length',
    'strcat': 'strlcat or snprintf',
    'sprintf': 'snprintf',
    'vsprintf': 'vsnprintf',
    'gets': 'fgets or getline',
    'strtok': 'strsep or strtok_r',
    'atoi': 'strtoll with a check of what was read',
    'atol': 'strtoll with a check of what was read',
    'atoll': 'strtoll with a check of what was read',
    'atof': 'strtod with a check of what was read',
    'rand': 'a seeded generator (tests: tap_random; daemon: the seam)',
    'srand': 'a seeded generator (tests: tap_random; daemon: the seam)',
    'random': 'a seeded generator (tests: tap_random; daemon: the seam)',
    'signal': 'sigaction',
    'system': 'posix_spawn or fork and exec',
    'popen': 'posix_spawn or fork and exec',
    'alloca': 'an array of fixed size or malloc',
}
BANNED_IN_PRODUCT = {
    'sleep': 'waiting for the condition itself with a deadline',
    'usleep': 'waiting for the condition itself with a deadline',
}
PRODUCT = ('shm', 'libclient', 'daemon', 'tools')

RULES = []


def rule(name, bad, good=None):
    """Registers a rule; `bad` and `good` are file dictionaries for the self-test."""
    def register(function):
        RULES.append((name, function, Tree(bad), Tree(good or {})))
        return function
    return register


rule('include arrows',
     {'shm/meson.build': "static_library('kvs_write',\n 'log.c', include_directories: x)",
      'libclient/get.c': '#include <lmdb.h>\n', 'tools/a.c': '#include "daemon/config.h"\n',
      'libclient/b.c': '#include "shm/log.h"\n', 'shm/find.c': '#include "shm/log.h"\n',
      'daemon/c.c': '#include <lmdb.h>\n', 'daemon/d.c': '#include "libclient/kvclient.h"\n',
      'shm/e.c': '#include <curl/curl.h>\n', 'daemon/f.c': '#include "config.h"\n'},
     {'shm/meson.build': "static_library('kvs_write',\n 'log.c', include_directories: x)",
      'libclient/get.c': '#include <errno.h>\n#include "shm/table.h"\n',
      'shm/log.c': '#include <urcu/uatomic.h>\n#include "shm/log.h"\n',
      'daemon/storage/a.c': '#include <lmdb.h>\n', 'tests/a.c': '#include "daemon/x.h"\n'}
     )(include_arrows)


@rule(f'functions have at most {FUNCTION_LINES_MAX} lines',
      {'shm/a.c': 'int f(void)\n{\n' + '\tx();\n' * 69 + '}\n',
       'tests/a.py': 'def f():\n' + '    x()\n' * 70},
      {'shm/a.c': 'int f(void)\n{\n' + '\tx();\n' * 68 + '}\n',
       'tests/a.py': 'def f():\n' + '    x()\n' * 69})
def function_length(tree):
    for path, text in tree.select('.c', '.h'):
        for line, count in functions_c(text):
            if count > FUNCTION_LINES_MAX:
                yield f'{path}:{line}: function of {count} lines, split it'
    for path, text in tree.select('.py'):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = node.end_lineno - node.lineno + 1
                if count > FUNCTION_LINES_MAX:
                    yield f'{path}:{node.lineno}: function of {count} lines, split it'


@rule(f'code files have at most {FILE_LINES_MAX} lines',
      {'shm/a.c': '\n' * 501}, {'shm/a.c': '\n' * 500})
def file_length(tree):
    for path, text in tree.code():
        count = text.count('\n')
        if count > FILE_LINES_MAX:
            yield f'{path}:1: {count} lines, split the file by what changes together'


def long_files(tree):
    """Not a rule: files that are on their way to the limit."""
    for path, text in tree.code():
        count = text.count('\n')
        if FILE_LINES_WARN < count <= FILE_LINES_MAX:
            yield f'{path} has {count} lines (aim for {FILE_LINES_WARN})'


@rule(f'lines have at most {COLUMNS_MAX} columns (tab = 8)',
      {'shm/a.c': '\t' * 13 + '\n', 'README.md': 'x' * 101 + '\n'},
      {'shm/a.c': '\t' * 12 + 'abcd\n', 'README.md': '| ' + 'x' * 200 + ' |\n'})
def columns(tree):
    for path, text in tree.files.items():
        for number, line in lines(text):
            if path.endswith('.md') and re.search(r'^\|.*\|$|https?://\S{60}', line):
                continue  # tables and addresses cannot be wrapped
            width = len(line.expandtabs(8))
            if width > COLUMNS_MAX:
                yield f'{path}:{number}: {width} columns'


@rule('no banned calls',
      {'shm/a.c': 'void f(void)\n{\n\tstrcpy(a, b);\n}\n', 'tools/a.c': '\tn = atoi (x);\n',
       'daemon/a.c': '\tsscanf(a, "%d %s", &n, b);\n', 'daemon/b.c': '\tsignal(SIGHUP, f);\n',
       'shm/c.c': '\tusleep(1);\n'},
      {'shm/a.c': '// strcpy(a, b) checks not\n\tx.signal(1);\n\tmy_rand();\n\tputs("gets(");\n',
       'daemon/a.c': '\tsscanf(a, "%63s", b);\n\t(void)signal(SIGPIPE, SIG_IGN);\n',
       'tests/a.c': '\tusleep(1);\n'})
def banned_calls(tree):
    pattern = re.compile(r'(?<![\w.>])(\w+)\s*\((?!SIG\w+, SIG_(IGN|DFL)\))')
    for path, text in tree.select('.c', '.h'):
        banned = dict(BANNED_CALLS)
        if path.split('/')[0] in PRODUCT:
            banned.update(BANNED_IN_PRODUCT)
        for number, line in lines(strip_c(text)):
            for match in pattern.finditer(line):
                call = match.group(1)
                if call in banned:
                    yield f'{path}:{number}: {call}() is banned, use {banned[call]}'
        for number, line in lines(text):
            if re.search(r'scanf\s*\(', line) and re.search(r'%\*?(s|\[)', line):
                yield f'{path}:{number}: scanf of an unbounded string, give a width'


@rule('shared words only through shm/atomics.h',
      {'libclient/a.c': '\tx = __atomic_load_n(&y, 0);\n',
       'shm/b.c': '\t__sync_synchronize();\n', 'daemon/c.c': 'static volatile int flag;\n'},
      {'shm/atomics.h': '\t__atomic_load_n(&y, 2);\n',
       'daemon/c.c': '\t__asm__ volatile("pause");\n',
       'tests/a.c': '\t__atomic_load_n(&y, 2);\n',
       'tools/d.c': 'static volatile sig_atomic_t interrupted;\n'})
def atomics(tree):
    call = re.compile(r'\b(__atomic_\w+|__sync_\w+|atomic_(load|store|fetch|exchange|thread)\w*)\b')
    for path, text in tree.select('.c', '.h', folders=PRODUCT):
        if path == 'shm/atomics.h':
            continue
        for number, line in lines(strip_c(text)):
            if call.search(line):
                yield f'{path}:{number}: use a helper of shm/atomics.h and name its partner'
            if re.search(r'\bvolatile\b(?!\s+sig_atomic_t)', line) and '__asm__' not in line:
                yield f'{path}:{number}: volatile orders nothing, use shm/atomics.h'


@rule('files open with SPDX and why they exist',
      {'shm/a.c': '#include <x.h>\n', 'shm/b.c': f'// {SPDX}\n#include <x.h>\n',
       'tests/c.py': f'# {SPDX}\nimport os\n', 'check': '#!/bin/bash\nset -e\n',
       'shm/meson.build': 'x = 1\n'},
      {'shm/a.c': f'// {SPDX}\n//\n// Finds a key in the shared table.\n',
       'libclient/kvclient.h': f'/* {SPDX} */\n/*\n * The public header of it.\n */\n',
       'run': f'#!/bin/bash\n# {SPDX}\n#\n# Builds and runs everything once.\n',
       'shm/meson.build': f'# {SPDX}\n'})
def opening(tree):
    comment = re.compile(r'(?://+|#(?!\s*(?:include|pragma|ifndef|define))|/?\*+/?)(.*)')
    for path, text in tree.code():
        head = text.split('\n')[:8]
        if head and head[0].startswith('#!'):
            head = head[1:]
        if not head or SPDX not in head[0]:
            yield f'{path}:1: begin with {SPDX}'
            continue
        prose = ''
        for line in head[1:]:
            match = comment.match(line.strip())
            if not match:
                break
            prose += match.group(1)
        if path.endswith('.py'):
            prose += ast.get_docstring(ast.parse(text)) or ''
        if len(prose.split()) < 3 and not path.endswith('meson.build'):
            yield f'{path}:2: after SPDX say in a sentence why the file exists'


@rule('no reminders and no dead code',
      {'shm/a.c': '// TO' + 'DO: later\n', 'shm/b.c': '#if ' + '0\n',
       'shm/c.c': '\t// count += 1;\n',
       'README.md': 'FIX' + 'ME\n'},
      {'shm/a.c': '// made by mkdtemp("/x/XXXXXX")\n// as said, it is so\n'})
def reminders(tree):
    for path, text in tree.files.items():
        for number, line in lines(text):
            if re.search(r'\b(TO' + 'DO|FIX' + 'ME|XX' + r'X)\b', line):
                yield f'{path}:{number}: do it or open an issue, the tree holds no reminders'
            if path.endswith(('.c', '.h')) and re.match(r'\s*#\s*if\s+0\b', line):
                yield f'{path}:{number}: delete code that is off'
    for path, text in tree.select('.c', '.h'):
        for number, comment in comments_c(text):
            if re.match(r'\s*//[^a-z]*[\w>.\-\[\]]+(\(.*\)| [-+|&]?= .*|\+\+|--);\s*$', comment):
                yield f'{path}:{number}: delete commented-out code'


@rule('headers are guarded',
      {'shm/a.h': '// SPDX\nint x;\n', 'libclient/kvclient.h': '#pragma once\n'},
      {'shm/a.h': '#pragma once\n', 'shm/a.tbl.h': 'X(1)\n',
       'libclient/kvclient.h': '#ifndef KVCLIENT_H\n#define KVCLIENT_H\n#endif\n'})
def guards(tree):
    for path, text in tree.select('.h'):
        if path == 'libclient/kvclient.h':
            if '#ifndef KVCLIENT_H\n#define KVCLIENT_H\n' not in text:
                yield f'{path}:1: the installed header has a classic guard KVCLIENT_H'
        elif not path.endswith('.tbl.h') and '#pragma once\n' not in text:
            yield f'{path}:1: put #pragma once after the opening comment'


@rule('no dead files',
      {'shm/a.c': '', 'shm/meson.build': "'ba.c'", 'shm/b.h': '', 'tests/x.py': ''},
      {'shm/a.c': '#include "shm/b.h"\n', 'shm/meson.build': "'a.c'", 'shm/b.h': '',
       'tests/x.py': '', 'tests/test_q.c': '', 'tests/meson.build': "files('x.py'), ['q']",
       'tests/y.py': 'import os, z\n', 'tests/c.h': '', 'meson.build': "'-include', 'tests/c.h'",
       'check': 'tests/y.py', 'tests/z.py': ''})
def dead_files(tree):
    builds = {path: text for path, text in tree.files.items() if path.endswith('meson.build')}
    sources = [text for _, text in tree.select('.c', '.h')]
    scripts = [text for path, text in tree.files.items()
               if path.endswith(('.py', '.sh')) or '.' not in path or path == '.ci/run']
    for path, _ in tree.select('.c', '.pml', '.py', '.sh'):
        folder, _, name = path.rpartition('/')
        # A foreach in meson.build has the stem, or what follows test_, as a string of its own.
        bare = re.escape(name.rpartition('.')[0].removeprefix('test_'))
        named = re.compile(rf"(?<![\w.-]){re.escape(name)}|'(test_)?{bare}'")
        stem = re.compile(r'^\s*(?:from|import)\b.*\b' + re.escape(name[:-3]) + r'\b', re.M)
        above = [text for build, text in builds.items()
                 if path.startswith(build[:-len('meson.build')])]
        if any(named.search(text) for text in above):
            continue
        if not path.endswith('.c') and any(named.search(t) or stem.search(t) for t in scripts):
            continue
        yield f'{path}:1: no meson.build of {folder or "the root"} or above names it'
    for path, _ in tree.select('.h'):
        wanted = re.compile(r'#\s*include\s*["<](?:.*/)?' + re.escape(path.split('/')[-1]) + '[">]')
        given = f"'{path}'"  # to the compiler, for every file
        if not any(wanted.search(text) for text in sources) and given not in tree.files.get(
                'meson.build', ''):
            yield f'{path}:1: nobody includes it'


STATUS_ENUM = 'enum kvc_status {\n\tKVC_OK = 0,\n\tKVC_BUSY = -%d,\n};\n'


@rule('kvclient.h has the numbers of shm/status.tbl.h',
      {'shm/status.tbl.h': 'X(OK, 0, "fine")\nX(BUSY, -2, "busy")\n',
       'libclient/kvclient.h': STATUS_ENUM % 3},
      {'shm/status.tbl.h': 'X(OK, 0, "fine")\nX(BUSY, -2, "busy")\n',
       'libclient/kvclient.h': STATUS_ENUM % 2})
def status_numbers(tree):
    path = 'libclient/kvclient.h'
    table = dict(re.findall(r'^X\((\w+), (-?\d+),', tree.files.get('shm/status.tbl.h', ''), re.M))
    header = tree.files.get(path, '')
    enum = re.search(r'enum kvc_status \{(.*?)\};', header, re.S)
    public = dict(re.findall(r'\bKVC_(\w+) = (-?\d+)', enum.group(1))) if enum else {}
    for name in sorted(table.keys() | public.keys()):
        if table.get(name) != public.get(name):
            yield (f'{path}:1: KVC_{name} is {public.get(name)}, '
                   f'shm/status.tbl.h says {table.get(name)}')


@rule('manuals name what the tables have',
      {'shm/status.tbl.h': 'X(OK, 0, "fine")\nX(LOST, -2, "lost")\n',
       'libclient/kvclient.3': 'KVC_OK\n'},
      {'shm/status.tbl.h': 'X(OK, 0, "fine")\n', 'libclient/kvclient.3': '.B KVC_OK\n'})
def manual_tables(tree):
    manual = tree.files.get('libclient/kvclient.3')
    if manual is None:
        return
    for name in re.findall(r'^X\((\w+),', tree.files.get('shm/status.tbl.h', ''), re.M):
        if not re.search(rf'\bKVC_{name}\b', manual):
            yield f'libclient/kvclient.3:1: says nothing of KVC_{name}'


@rule('every guarantee of shm/LAYOUT.md is named by a test',
      {'shm/LAYOUT.md': '- **A1 Kept.**\n'},
      {'shm/LAYOUT.md': '- **A1 Kept.**\n', 'tests/test_a.c': 'ok(kept, "A1: it is");\n'})
def guarantees(tree):
    tests = [text for _, text in tree.select('.c', '.py', '.pml', folders=('tests',))]
    for letter in re.findall(r'^- \*\*([A-Z]\d) ', tree.files.get('shm/LAYOUT.md', ''), re.M):
        if not any(re.search(rf'["\']{letter}: ', text) for text in tests):
            yield f'shm/LAYOUT.md:1: no test says that it shows {letter}'


@rule('no paths of one machine',
      {'README.md': 'see /ho' + 'me/someone/x\n', 'check': 'cd /wo' + 'rk/x\n'},
      {'README.md': 'homework/rooted, /run/kvd/kvd.sock, https://x.org/home/y\n'})
def machine_paths(tree):
    pattern = re.compile(r'(?<![\w/.:])/(ho' + 'me|wo' + 'rk|ro' + r'ot|Users)/')
    for path, text in tree.files.items():
        for number, line in lines(text):
            if pattern.search(re.sub(r'https?://\S+', '', line)):
                yield f'{path}:{number}: a path that exists on one machine only'


@rule('white space',
      {'a.c': 'x; \n', 'b.py': '\tx\n', 'c.md': 'x', 'd.c': 'x\r\n'}, {'a.c': '\tx;\n', 'b.md': ''})
def white_space(tree):
    for path, text in tree.files.items():
        for number, line in lines(text):
            if line != line.rstrip(' \t\r'):
                yield f'{path}:{number}: white space at the end of the line'
            if path.endswith('.py') and '\t' in line:
                yield f'{path}:{number}: a tab in Python'
        if text and not text.endswith('\n'):
            yield f'{path}:1: the last line does not end'
