# SPDX-License-Identifier: MIT
#
# Looks at what `meson install` put into a staging folder as a stranger would: is everything there,
# does a program build and link against it, and does the library export its interface and nothing
# else.
import os
import re
import subprocess
import sys

from kvdtest import Tap

PROGRAM = r'''
#include <kvclient.h>
#include <stdio.h>
#include <string.h>
int main(void)
{
    struct kvc_options options;
    kvc_options_init(&options);
    return puts(kvc_version()) < 0 || strlen(kvc_strerror(KVC_BUSY)) == 0;
}
'''
FOREIGN_LIBRARIES = ('lmdb', 'cjson', 'urcu', 'bsd', 'inih')


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def find(stage, pattern):
    """Paths below the stage that match, relative to it."""
    found = []
    for folder, _, names in os.walk(stage):
        for name in names:
            path = '/' + os.path.relpath(os.path.join(folder, name), stage)
            if re.fullmatch(pattern, path):
                found.append(path)
    return found


def files(tap, stage):
    for what, pattern in (
            ('kvd', r'.*/s?bin/kvd'), ('kvctl', r'.*/bin/kvctl'),
            ('the public header', r'.*/include/kvclient\.h'),
            ('the library with its version', r'.*/libkvclient\.so\.\d+\.\d+\.\d+'),
            ('its soname', r'.*/libkvclient\.so\.\d+'), ('its link name', r'.*/libkvclient\.so'),
            ('the pkg-config file', r'.*/pkgconfig/kvclient\.pc'),
            ('the manual of the library', r'.*/man3/kvclient\.3'),
            ('the manual of kvctl', r'.*/man1/kvctl\.1'),
            ('the manual of kvd', r'.*/man8/kvd\.8'),
            ("the schema of the doctor's JSON", r'.*/share/kvd/doctor\.schema\.json'),
            ('the unit', r'.*/systemd/system/kvd\.service'),
            ('the user', r'.*/sysusers\.d/kvd\.conf'),
            ('the folders', r'.*/tmpfiles\.d/kvd\.conf')):
        tap.ok(find(stage, pattern), f'{what} is installed')
    headers = find(stage, r'.*/include/.*')
    tap.equal(len(headers), 1, 'one header is installed')
    tests = [path for path in find(stage, '.*') if re.search(r'test|bench|fuzz|harness', path)]
    tap.equal(tests, [], 'no test is installed')


def library(tap, stage):
    paths = find(stage, r'.*/libkvclient\.so\.\d+\.\d+\.\d+')
    if not paths:
        return
    path = stage + paths[0]
    dynamic = run('readelf', '-dW', path).stdout
    tap.ok(re.search(r'SONAME.*\[libkvclient\.so\.\d+\]', dynamic), 'the library has a soname')
    needed = re.findall(r'NEEDED.*\[(.*)\]', dynamic)
    foreign = [name for name in needed if any(word in name for word in FOREIGN_LIBRARIES)]
    tap.equal(foreign, [], 'the library needs no library of the daemon or the tools')
    tap.ok('TEXTREL' not in dynamic, 'the library is position independent')
    symbols = run('nm', '-D', '--defined-only', path).stdout.split('\n')
    names = [line.split()[-1].split('@')[0] for line in symbols if line and ' A ' not in line]
    tap.ok(len(names) > 20, 'the library exports its interface')
    tap.equal([name for name in names if not name.startswith('kvc_')], [],
              'and nothing but its interface')
    all_symbols = run('nm', path).stdout
    tap.ok(not re.search(r'kvs_(table_(insert|put|publish|split)|segments_|log_append|limbo_)',
                         all_symbols), 'no code that writes the table is in it')


def program(tap, stage, source):
    """Builds against the stage with its pkg-config file, in C11 and, for the header, in C++."""
    pc = find(stage, r'.*/pkgconfig/kvclient\.pc')
    if not pc:
        tap.ok(False, 'a program can be built with pkg-config')
        return
    environment = {**os.environ, 'PKG_CONFIG_PATH': os.path.dirname(stage + pc[0]),
                   'PKG_CONFIG_SYSROOT_DIR': stage, 'PKG_CONFIG_ALLOW_SYSTEM_CFLAGS': '1',
                   'PKG_CONFIG_ALLOW_SYSTEM_LIBS': '1'}
    flags = run('pkg-config', '--cflags', '--libs', 'kvclient', env=environment)
    tap.equal(flags.returncode, 0, 'pkg-config knows kvclient')
    private = run('pkg-config', '--print-requires', 'kvclient', env=environment).stdout
    tap.equal(private.strip(), '', 'a user of the library needs no other package')
    with open(os.path.join(source, 'program.c'), 'w', encoding='utf-8') as file:
        file.write(PROGRAM)
    # Paths may hold blanks, which pkg-config's plain output cannot quote.
    include = stage + os.path.dirname(find(stage, r'.*/include/kvclient\.h')[0])
    libraries = stage + os.path.dirname(find(stage, r'.*/libkvclient\.so')[0])
    built = run('gcc', '-std=c11', '-pedantic', '-Wall', '-Wextra', '-Werror', '-I', include,
                'program.c', '-o', 'program', '-L', libraries, '-lkvclient', cwd=source)
    if not tap.equal(built.returncode, 0, 'a strict C11 program builds against it'):
        tap.diag(built.stderr)
        return
    ran = run('./program', cwd=source, env={**os.environ, 'LD_LIBRARY_PATH': libraries})
    tap.ok(ran.returncode == 0 and re.match(r'\d+\.\d+\.\d+', ran.stdout), 'and runs')


def manuals(tap, stage):
    for path in find(stage, r'.*/man\d/.*\.\d'):
        lint = run('mandoc', '-T', 'lint', '-W', 'error', stage + path)
        if not tap.equal(lint.returncode, 0, f'{os.path.basename(path)} is a clean manual'):
            tap.diag(lint.stdout)


def units(tap, stage):
    name = 'the unit holds no mistakes systemd can see'
    paths = find(stage, r'.*/systemd/system/kvd\.service')
    if not paths:
        return
    if run('sh', '-c', 'command -v systemd-analyze').returncode != 0:
        tap.skip(name, 'systemd-analyze is not installed')
        return
    verify = run('systemd-analyze', 'verify', '--recursive-errors=no', '--man=no', stage + paths[0])
    # The program is not at its place here: that complaint is none.
    complaints = [line for line in verify.stderr.split('\n')
                  if 'kvd.service' in line and 'not executable' not in line]
    tap.equal(complaints, [], name)


def main():
    stage, source = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[1]) + '.program'
    os.makedirs(source, exist_ok=True)
    tap = Tap()
    files(tap, stage)
    library(tap, stage)
    program(tap, stage, source)
    manuals(tap, stage)
    units(tap, stage)
    tap.done()


main()
