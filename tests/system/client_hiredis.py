#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# hiredis on kvd's socket and on Redis's: client_hiredis.c is the conversation. With a program as
# argument that one runs, built with the installed library. Without one it is built with the hiredis
# that Redis's source brings: Debian 12's own is older and knows RESP2 only.
import os
import shlex
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'lib'))
sys.path.insert(0, os.path.join(HERE, '..', 'redis'))
from kvdtest import BUILD_ROOT, Tap, _die_with_parent  # noqa: E402
from transcript import OVER, main  # noqa: E402
import source  # noqa: E402

LIMIT_S = 120
PARTS = ('alloc', 'async', 'hiredis', 'net', 'read', 'sds', 'sockcompat')


def conversation(program, resp):
    def talk(path):
        run = subprocess.run([program, path, resp], capture_output=True, timeout=LIMIT_S,
                             preexec_fn=_die_with_parent, check=False)
        entries = [line.partition('\t')[::2] for line in
                   run.stdout.decode('ascii', 'replace').splitlines()]
        if entries[-1:] == [('over', '')]:
            entries[-1] = OVER
        else:
            entries.append(('ended', f'exit status {run.returncode}: {run.stderr[-500:]}'))
        return entries
    return talk


def built(folder, deps):
    """A program with the hiredis in deps/hiredis."""
    program = os.path.join(folder, 'client_hiredis')
    command = shlex.split(os.environ.get('CC', 'cc')) + [
        '-std=gnu11', '-O1', '-I', deps, '-o', program, os.path.join(HERE, 'client_hiredis.c')]
    command += [os.path.join(deps, 'hiredis', part + '.c') for part in PARTS]
    subprocess.run(command, check=True)
    return program


def talk(tap, both, program):
    version = subprocess.run([program, '--version'], capture_output=True, text=True,
                             check=True).stdout.strip()
    tap.diag(f'hiredis {version}')
    both.converse(tap, f'hiredis {version} RESP2', conversation(program, '2'))
    if int(version.split('.')[0]) >= 1:
        both.converse(tap, f'hiredis {version} RESP3', conversation(program, '3'))
    else:
        tap.skip('hiredis RESP3', f'hiredis {version} speaks RESP2 only')


def run(tap, both):
    if len(sys.argv) > 1:
        talk(tap, both, sys.argv[1])
        return
    try:
        deps = os.path.join(source.suite(BUILD_ROOT), 'deps')
    except source.NotHad as reason:
        tap.skip('hiredis of Redis', str(reason))
        return
    with tempfile.TemporaryDirectory(prefix='kvd-hiredis-') as folder:
        talk(tap, both, built(folder, deps))


if __name__ == '__main__':
    if len(sys.argv) > 1 and not os.path.isfile(sys.argv[1]):
        Tap.skip_all('libhiredis-dev is not installed')
    main(run)
