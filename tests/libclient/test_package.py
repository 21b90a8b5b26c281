# SPDX-License-Identifier: MIT
#
# What a user of the library gets: exactly the declared symbols, no writable globals, a pkg-config
# file that asks for nothing else, a header that C and C++ take alone, a manual without complaints.
import os
import re
import shutil
import subprocess
import tempfile

from kvdtest import BUILD_ROOT, SOURCE_ROOT, Tap

LIBRARY = os.path.join(BUILD_ROOT, 'libclient', 'libkvclient.so')
FOLDER = os.path.join(os.environ.get('KVD_SOURCE', SOURCE_ROOT), 'libclient')


def lines(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    return done.returncode, [line for line in (done.stdout + done.stderr).split('\n') if line]


def symbols():
    _, table = lines('nm', '-D', '--defined-only', LIBRARY)
    return sorted(line.split()[-1].split('@')[0] for line in table if ' A ' not in line)


def listed():
    with open(os.path.join(FOLDER, 'kvclient.map'), encoding='utf-8') as text:
        return sorted(re.findall(r'^\t(kvc_\w+);', text.read(), re.M))


def check_compilers(tap):
    source = '#include <kvclient.h>\nint main(void) { return kvc_version()[0] == 0; }\n'
    for compiler, standard, suffix in (('cc', 'c11', 'c'), ('c++', 'c++11', 'cpp')):
        if not shutil.which(compiler):
            tap.skip(f'{compiler} takes the header', f'no {compiler}')
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'user.' + suffix)
            with open(path, 'w', encoding='utf-8') as file:
                file.write(source)
            status, said = lines(compiler, '-std=' + standard, '-Wall', '-Wextra', '-Wpedantic',
                                 '-Werror', '-I' + FOLDER, '-c', path, '-o', path + '.o')
            tap.equal((status, said), (0, []), f'{compiler} takes the header alone, pedantic')


tap = Tap()
tap.equal(symbols(), listed(), 'the library exports what its map lists')
_, sections = lines('nm', LIBRARY)
writable = [line for line in sections if re.search(r' [bBdDC] (kvc|kvs|resp)_', line)]
tap.equal(writable, [], 'no writable globals')
_, dynamic = lines('readelf', '-d', LIBRARY)
tap.ok(any('SONAME' in line and '[libkvclient.so.0]' in line for line in dynamic), 'soname')
needed = [re.search(r'\[(.*)\]', line).group(1) for line in dynamic if 'NEEDED' in line]
tap.ok([name for name in needed if not re.match(r'lib(c|asan|ubsan|tsan|m)\.', name)] == [],
       f'needs nothing but libc: {needed}')
with open(os.path.join(BUILD_ROOT, 'meson-private', 'kvclient.pc'), encoding='utf-8') as package:
    text = package.read()
tap.ok('Requires' not in text and '-lkvclient' in text, 'pkg-config asks for no other package')
check_compilers(tap)
if shutil.which('mandoc'):
    _, said = lines('mandoc', '-T', 'lint', '-W', 'warning', os.path.join(FOLDER, 'kvclient.3'))
    tap.equal(said, [], 'the manual formats without complaint')
else:
    tap.skip('the manual formats without complaint', 'no mandoc')
tap.done()
