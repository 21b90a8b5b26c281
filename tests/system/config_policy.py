# SPDX-License-Identifier: MIT
#
# when-full and maxmemory-policy are two names for one thing: whichever is set, kvd does the same
# after CONFIG REWRITE and a new start, or what another of the two says would be done to the data.
# Pairs that contradict each other are refused wherever they are given.
import os

from kvdtest import Kvd, KvdFailed, Tap

NAMES = ('when-full', 'maxmemory-policy')
GIVEN = ('', 'when-full = reject', 'when-full = evict', 'when-full = spill',
         'maxmemory-policy = noeviction', 'maxmemory-policy = allkeys-lfu',
         'maxmemory-policy = volatile-ttl', 'when-full = evict\nmaxmemory-policy = volatile-lru',
         'when-full = reject\nmaxmemory-policy = noeviction')
SETS = (('when-full', 'reject'), ('when-full', 'evict'), ('when-full', 'spill'),
        ('maxmemory-policy', 'noeviction'), ('maxmemory-policy', 'allkeys-lru'),
        ('maxmemory-policy', 'volatile-lfu'))
KEPT = ('reject', 'spill')  # no key goes


def write(path, given):
    with open(path, 'w', encoding='utf-8') as file:
        file.write(f'memory = 8MiB\n{given}\n')


def pair(c):
    rows = c.command('CONFIG', 'GET', *NAMES)
    rows = dict(zip(rows[::2], rows[1::2]))
    return tuple(rows[name.encode()].decode() for name in NAMES)


def agrees(when_full, policy):
    return (when_full == 'evict') == (policy != 'noeviction')


def test_rewrite(tap, kvd, path):
    for given in GIVEN:
        wrong = []
        for name, value in SETS:
            write(path, given)
            kvd.start('--config', path)
            with kvd.connect() as c:
                before = pair(c)
                said = [c.command('CONFIG', 'SET', name, value), c.command('CONFIG', 'REWRITE')]
                now = pair(c)
            kvd.stop()
            kvd.start('--config', path)
            with kvd.connect() as c:
                after = pair(c)
            kvd.stop()
            if said != ['OK'] * 2 or after != now or value not in now or not agrees(*before) or \
                    not agrees(*now):
                wrong.append((name, value, said, before, now, after))
        tap.equal(wrong, [], f'file {given!r}: whatever is set is what the next start does')


def test_back(tap, kvd, path):
    """`noeviction` is what was done before keys were evicted."""
    for persist, given, kept in (('lazy', '', 'spill'), ('lazy', 'when-full = reject', 'reject'),
                                 ('memory', '', 'reject'), ('lazy', 'when-full = evict', 'spill'),
                                 ('memory', 'when-full = evict', 'reject')):
        write(path, given)
        kvd.start('--config', path, '--persist', persist)
        with kvd.connect() as c:
            for policy in ('allkeys-lru', 'volatile-lru', 'noeviction'):
                c.command('CONFIG', 'SET', 'maxmemory-policy', policy)
            tap.equal(pair(c), (kept, 'noeviction'), f'{persist}, {given!r}: back to {kept}')
            c.command('CONFIG', 'SET', 'when-full', 'reject')
            c.command('CONFIG', 'SET', 'when-full', 'evict')
            c.command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction')
            tap.equal(pair(c), ('reject', 'noeviction'), 'or to what was set last')
        kvd.stop()


def test_refused(tap, kvd, path):
    write(path, '')
    kvd.start('--config', path)
    with kvd.connect() as c:
        before = pair(c)
        for when_full, policy in (('evict', 'noeviction'), ('reject', 'volatile-lru'),
                                  ('spill', 'allkeys-lru')):
            both = ('when-full', when_full, 'maxmemory-policy', policy)
            said = [str(c.command('CONFIG', 'SET', *words)) for words in
                    (both, both[2:] + both[:2])]
            tap.ok(all(f'when-full {when_full} and maxmemory-policy {policy} contradict' in text
                       for text in said) and pair(c) == before,
                   f'one CONFIG SET of both is refused: {said[0]}')
        tap.equal((c.command('CONFIG', 'SET', 'when-full', 'evict', 'maxmemory-policy',
                             'volatile-ttl'), pair(c)), ('OK', ('evict', 'volatile-ttl')),
                  'what agrees is not')
    kvd.stop()
    write(path, 'when-full = evict\nwrite-wait = 1s\nmaxmemory-policy = noeviction')
    failed(tap, kvd, ('--config', path), f'{path}:4: when-full evict and maxmemory-policy')
    failed(tap, kvd, ('--when-full', 'reject', '--maxmemory-policy', 'allkeys-lru'),
           'when-full reject and maxmemory-policy allkeys-lru contradict')
    # The command line overrules the file.
    for option, value, expected in (('--when-full', 'reject', ('reject', 'noeviction')),
                                    ('--maxmemory-policy', 'noeviction', ('spill', 'noeviction'))):
        write(path, GIVEN[2] if 'policy' in option else GIVEN[6])
        kvd.start('--config', path, option, value)
        with kvd.connect() as c:
            tap.equal(pair(c), expected, f'{option} {value} overrules the file')
        kvd.stop()


def failed(tap, kvd, options, text):
    try:
        kvd.start(*options)
        said = ''
        kvd.stop()
    except KvdFailed as ended:
        said = ended.log.strip().split('\n')[-1]
    tap.ok(text in said, f'a start is refused: {said}')


def main():
    tap = Tap()
    with Kvd(start=False) as kvd:
        path = os.path.join(kvd.root, 'kvd.conf')
        test_rewrite(tap, kvd, path)
        test_back(tap, kvd, path)
        test_refused(tap, kvd, path)
    tap.done()


if __name__ == '__main__':
    main()
