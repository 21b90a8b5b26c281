# SPDX-License-Identifier: MIT
"""E: a store that was not read is not called whole: the child that is to read it for a verification
ends before it has, with any exit code. Argument: the library that sees to that."""
import sys

from kvdtest import Kvd, Tap

LIBRARY = sys.argv[1]
CODES = (0, 1, 2, 127)  # good, damaged, failed, and the loader's


def main():
    tap = Tap()
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
