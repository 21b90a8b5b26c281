# SPDX-License-Identifier: MIT
#
# kvd in a real control group that has less memory than it is asked to take: said at the start,
# refused where all of it would be taken at once and where it is asked for later, and named by
# kvctl doctor, which itself is in another group. What is within the limit is filled to the brim.
import json
import os

import cgroup
from kvdtest import Kvd, KvdFailed, Tap

MIB = 1 << 20
LIMIT = 96 * MIB
VALUE = b'v' * 100000


def doctor(kvd):
    said = kvd.kvctl('--json', 'doctor', '--no-measure')
    rows = {row['check']: row for row in json.loads(said.stdout)['checks']}
    return said.returncode, rows['group']


def test_more(tap, limit):
    with Kvd('--memory', 2 * LIMIT) as kvd:
        tap.ok('this process may use 96MiB' in kvd.log() and limit in kvd.log() and
               'MemoryMax=' in kvd.log(), 'more than the group has is a warning at the start')
        status, group = doctor(kvd)
        tap.ok(status == 1 and group['state'] == 'warning' and limit in group['finding'] and
               'MemoryMax=' in group['remedy'], f"kvctl doctor names it: {group['finding']}")
    with Kvd(start=False) as kvd:
        try:
            kvd.start('--memory', 2 * LIMIT, '--prefault', 'yes')
            failed = (0, '')
        except KvdFailed as error:
            failed = (error.status, error.log)
        tap.ok(failed[0] == 78 and 'prefault: memory is 192MiB' in failed[1] and limit in failed[1],
               'and refused where all would be taken at once')


def test_unsaid(tap):
    with Kvd() as kvd:
        with kvd.connect() as c:
            tap.equal(c.command('CONFIG', 'GET', 'memory')[1], b'%d' % (LIMIT // 2),
                      'who does not say how much gets half of it')


def test_within(tap, limit):
    with Kvd('--memory', 32 * MIB, '--memory-max', 8 * LIMIT, '--persist', 'memory',
             '--write-wait', '50ms') as kvd:
        with kvd.connect() as c:
            said = str(c.command('CONFIG', 'SET', 'maxmemory', LIMIT + MIB))
            tap.ok(str(LIMIT) in said and limit in said,
                   f'more than the group has is refused later: {said[:120]}')
            tap.equal(c.command('CONFIG', 'GET', 'maxmemory')[1], b'%d' % (32 * MIB),
                      'and the old bound kept')
            tap.equal(doctor(kvd)[1]['state'], 'ok', 'kvctl doctor has nothing to say')
            tap.equal(c.command('CONFIG', 'SET', 'maxmemory', LIMIT // 2), 'OK',
                      'what the group has is not')
            kept, refused = 0, ''
            while not refused and kept < LIMIT // len(VALUE):
                refused = c.command('SET', f'key:{kept}', VALUE)
                refused = '' if refused == 'OK' else str(refused)
                kept += not refused
            tap.ok(refused.startswith('OOM') and kept * len(VALUE) > LIMIT // 4,
                   f'G: filled, kvd refuses and is not ended: {kept} values')
            tap.equal(c.command('STRLEN', f'key:{kept - 1}'), len(VALUE), 'and serves')


def main():
    tap = Tap()
    with cgroup.memory(LIMIT) as (wrapper, limit):
        if wrapper is None:
            tap.skip('kvd in a control group', limit)
        else:
            before = os.environ.get('KVD_WRAPPER', '')
            os.environ['KVD_WRAPPER'] = f'{wrapper} {before}'
            test_more(tap, limit)
            test_unsaid(tap)
            test_within(tap, limit)
            os.environ['KVD_WRAPPER'] = before
    tap.done()


main()
