# SPDX-License-Identifier: MIT
#
# The examples of the manual, run as a reader of it would: against a kvd, one after the other.
import os
import subprocess

from kvdtest import BUILD_ROOT, Kvd, Tap

EXAMPLES = os.path.join(BUILD_ROOT, 'libclient')


def run(kvd, name, *args):
    done = subprocess.run([os.path.join(EXAMPLES, 'example_' + name), *args], timeout=60,
                          env={**os.environ, 'KVD_SOCKET': kvd.socket}, capture_output=True,
                          text=True, check=False)
    return done.returncode, done.stdout, done.stderr


tap = Tap()
with Kvd() as kvd:
    tap.equal(run(kvd, 'get', 'greeting'), (1, '', 'get: no such key\n'), 'get: nothing there')
    tap.equal(run(kvd, 'set', 'greeting', 'hello world'), (0, '', ''), 'set')
    tap.equal(run(kvd, 'set', 'greeting', 'and again'), (0, '', ''), 'set: another line')
    status, output, notes = run(kvd, 'get', 'greeting')
    tap.equal((status, output), (0, 'hello world\nand again\n\n'), 'get: both lines')
    tap.ok('by mapping' in notes and '4 words' in notes, f'get: {notes}')
    with kvd.connect() as connection:
        connection.command('SET', 'alice', '100')
        tap.equal(run(kvd, 'batch', 'alice', 'bob', '30'), (0, 'alice 70\nbob 30\n', ''), 'batch')
        connection.command('SET', 'alice', 'nothing')
    status, output, notes = run(kvd, 'batch', 'alice', 'bob', '30')
    tap.equal((status, output), (1, ''), f'batch: not a number: {notes}')
    for name in ('get', 'set', 'batch'):
        tap.equal(run(kvd, name)[0], 2, f'{name}: usage')
    kvd.stop()
    status, output, notes = run(kvd, 'get', 'greeting')
    tap.equal((status, output), (1, ''), f'get: no kvd: {notes}')
tap.done()
