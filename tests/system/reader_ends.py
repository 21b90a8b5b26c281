# SPDX-License-Identifier: MIT
"""E: a store that was not read is not called whole: the child that is to read it for a verification
ends before it has, with any exit code; nor is one called damaged at the start that nobody came to
read. Argument: the library that sees to that."""
import sys

from kvdtest import Kvd, KvdFailed, Tap

LIBRARY = sys.argv[1]
CODES = (0, 1, 2, 127)  # good, damaged, failed, and the loader's


def start(tap):
    """The child that looks before kvd opens the store."""
    with Kvd('--persist', 'group') as kvd:
        with kvd.connect() as connection:
            connection.command('SET', 'k', 'v')
        kvd.stop()
        kvd.env['LD_PRELOAD'] = LIBRARY
        for code in CODES[1:]:
            kvd.env['KVD_TEST_PROBE_ENDS'] = str(code)
            try:
                kvd.start()
                told = 'it started'
            except KvdFailed as failed:
                told = failed.log.strip().splitlines()[-1]
            tap.ok(f'ended with exit code {code} before' in told and 'damaged' not in told,
                   f'at the start: exit code {code} is told, and is no damage: {told}')
        kvd.env.clear()
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(connection.command('GET', 'k'), b'v', 'the store is as it was')


def main():
    tap = Tap()
    start(tap)
    for code in CODES:
        env = {'LD_PRELOAD': LIBRARY, 'KVD_TEST_READER_ENDS': str(code)}
        with Kvd('--persist', 'group', env=env) as kvd:
            with kvd.connect() as connection:
                connection.command('SET', 'k', 'v')
                connection.command('KVD.SYNC')
            said = kvd.kvctl('verify')
            told = said.stderr.decode()
            tap.equal((said.returncode, said.stdout), (1, b''), f'exit code {code}: no verdict')
            tap.ok(f'ended with exit code {code} before' in told, f'but why: {told.strip()}')
            tap.equal(kvd.kvctl('health').returncode, 0, 'the store is trusted as before')
    tap.done()


if __name__ == '__main__':
    main()
