# SPDX-License-Identifier: MIT
#
# Data of seven times the memory, with --when-full spill: every key has its value (E), no write is
# refused (G), also in the next life, which loads what it has memory for.
from kvdtest import Kvd, Tap

KEYS = 30000
AT_ONCE = 100
ARGS = ('--memory', '8MiB', '--persist', 'lazy', '--lazy-interval', '20ms', '--when-full', 'spill')


def value(number):
    return b'%08d' % number * 250


def wrong(connection):
    found = 0
    for first in range(0, KEYS, AT_ONCE):
        numbers = range(first, first + AT_ONCE)
        replies = connection.pipeline([('GET', f'k{number}') for number in numbers])
        found += sum(reply != value(number) for number, reply in zip(numbers, replies))
    return found


def main():
    tap = Tap()
    with Kvd(*ARGS) as kvd:
        with kvd.connect() as connection:
            refused = 0
            for first in range(0, KEYS, AT_ONCE):
                replies = connection.pipeline([('SET', f'k{number}', value(number))
                                               for number in range(first, first + AT_ONCE)])
                refused += sum(reply not in ('OK', b'OK') for reply in replies)
            tap.equal(refused, 0, 'G: no write of seven times the memory is refused')
            tap.equal(connection.command('DBSIZE'), KEYS, 'all keys are there')
            tap.equal(wrong(connection), 0, 'E: each with its value')
        kvd.kill()
        kvd.start()
        with kvd.connect() as connection:
            tap.equal(wrong(connection), 0, 'E: so they are after a kill')
    tap.done()


if __name__ == '__main__':
    main()
