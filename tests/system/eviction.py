# SPDX-License-Identifier: MIT
#
# A cache: with --when-full evict, or one of Redis's policies, keys go when memory is full. Which
# ones may, who hears of it, what a restart and a crash make of it, and the names in CONFIG.
from kvdtest import Kvd, Tap

MEMORY = '8MiB'
VALUE = b'v' * 500
MANY = 16000  # of these: half as many again as the memory holds


def info(c, section):
    return dict(line.split(b':', 1) for line in c.command('INFO', section).split(b'\r\n')
                if b':' in line)


def fill(c, prefix, count=MANY, options=()):
    """Writes so many keys, pipelined; returns what was not OK."""
    wrong = []
    for start in range(0, count, 500):
        keys = range(start, min(start + 500, count))
        replies = c.pipeline([('SET', f'{prefix}{i}', VALUE, *options) for i in keys])
        wrong += [reply for reply in replies if reply != 'OK']
    return wrong


def left(c, prefix, count):
    found = set()
    for start in range(0, count, 500):
        keys = range(start, min(start + 500, count))
        replies = c.pipeline([('EXISTS', f'{prefix}{i}') for i in keys])
        found |= {i for i, reply in zip(keys, replies) if reply == 1}
    return found


def there(c, prefix, count):
    return len(left(c, prefix, count))


def test_names(tap, c, has_store):
    def policy():
        return [c.command('CONFIG', 'GET', name)[1]
                for name in ('maxmemory-policy', 'when-full')] + \
            [info(c, 'memory')[b'maxmemory_policy']]

    first = [b'noeviction', has_store and b'spill' or b'reject', b'noeviction']
    tap.equal(policy(), first, f'by default nothing is evicted, {first[1].decode()}')
    for name in ('allkeys-lru', 'allkeys-lfu', 'allkeys-random', 'volatile-lru', 'volatile-lfu',
                 'volatile-random', 'volatile-ttl'):
        c.command('CONFIG', 'SET', 'maxmemory-policy', name)
        tap.equal(policy(), [name.encode(), b'evict', name.encode()], f'{name} is told back')
    c.command('CONFIG', 'SET', 'when-full', 'reject')
    tap.equal(policy(), [b'noeviction', b'reject', b'noeviction'], 'reject takes it back')
    c.command('CONFIG', 'SET', 'when-full', 'evict')
    tap.equal(policy(), [b'allkeys-lru', b'evict', b'allkeys-lru'], 'evict is a policy, too')
    c.command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction')
    kept = [b'noeviction', b'reject', b'noeviction']
    tap.equal(policy(), kept, 'noeviction takes it back, too, to what was before')
    said = str(c.command('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-mru'))
    tap.ok('must be one of the following' in said, f'another name is refused: {said}')
    tap.equal(policy(), kept, 'and changes nothing')
    c.command('CONFIG', 'SET', 'when-full', 'reject')
    c.command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction')
    tap.equal(policy()[:2], [b'noeviction', b'reject'], 'nor does noeviction where none goes')
    said = c.command('CONFIG', 'SET', 'when-full', 'spill')
    tap.ok(said == 'OK' if has_store else 'spill needs a store' in str(said),
           f'spill needs a store: {said}')
    tap.equal(policy(), first, 'that is told')


def test_policy(tap, policy):
    """Lasting keys, keys with a time to live, prefixes: who goes under this policy."""
    with Kvd('--memory', MEMORY, '--maxmemory-policy', policy, '--persist', 'memory',
             '--evict-never', 'keep: spare:') as kvd:
        c = kvd.connect()
        everything = policy.startswith('allkeys')
        tap.equal(fill(c, 'spare:', 1000) + fill(c, 'last:', 1000), [], f'{policy}: some keys')
        tap.equal(fill(c, 'some:', options=('EX', 10000)), [], f'{policy}: G: no write is refused')
        tap.equal(there(c, 'spare:', 1000), 1000, f'{policy}: prefixes that never go are there')
        lasting = there(c, 'last:', 1000)
        tap.ok(lasting < 1000 if everything else lasting == 1000,
               f'{policy}: {lasting} of 1000 lasting keys are there')
        evicted = int(info(c, 'stats')[b'evicted_keys'])
        tap.equal(c.command('DBSIZE'), MANY + 2000 - evicted, f'{policy}: {evicted} are counted')
        if not everything:
            c.command('CONFIG', 'SET', 'write-wait', '0')
            refused = fill(c, 'more:')
            tap.ok(len(refused) > 0 and all('OOM' in str(r) for r in refused),
                   f'{policy}: lasting keys: {len(refused)} of {MANY} refused')


def test_reads(tap):
    """What is read through the socket again and again stays, whatever is written meanwhile."""
    with Kvd('--memory', MEMORY, '--when-full', 'evict', '--persist', 'memory') as kvd:
        c = kvd.connect()
        fill(c, 'read:', 500)
        for turn in range(100):
            replies = c.pipeline([('GET', f'read:{i}') for i in range(500)])
            found = sum(reply == VALUE for reply in replies)
            if found < 500:
                break
            fill(c, f'written:{turn}:', 400)
        tap.equal((turn, found), (99, 500), 'what is read stays')
        tap.ok(int(info(c, 'stats')[b'evicted_keys']) > 20000, 'though others went')
        memory = info(c, 'memory')
        used = int(memory[b'used_memory'])
        tap.ok(used <= int(memory[b'maxmemory']) < 2 * used and
               float(memory[b'mem_fragmentation_ratio']) > 0 and
               1 <= float(memory[b'allocator_frag_ratio']) < 2,
               f'INFO tells of a full cache: {used}, {memory[b"mem_fragmentation_ratio"]}, '
               f'{memory[b"allocator_frag_ratio"]}')
        c.command('CONFIG', 'RESETSTAT')
        tap.equal(info(c, 'stats')[b'evicted_keys'], b'0', 'and counts anew when told to')


def test_told(tap):
    with Kvd('--memory', MEMORY, '--when-full', 'evict', '--persist', 'memory',
             '--notify-keyspace-events', 'Ee') as kvd:
        c = kvd.connect()
        hears = kvd.connect()
        hears.command('SUBSCRIBE', '__keyevent@0__:evicted')
        tracks = kvd.connect()
        tracks.command('HELLO', '3')
        fill(c, 'first:', 10)
        tracks.command('CLIENT', 'TRACKING', 'ON', 'BCAST', 'PREFIX', 'first:')
        fill(c, 'then:')
        missing = {b'then:%d' % i for i in set(range(MANY)) - left(c, 'then:', MANY)}
        heard = []
        while missing - {h[2] for h in heard} and len(heard) < 2 * MANY:
            heard.append(hears.reply())
        tap.equal(missing - {h[2] for h in heard}, set(), 'each eviction is an event')
        tap.equal({tuple(h[:2]) for h in heard}, {(b'message', b'__keyevent@0__:evicted')},
                  'of that name')
        gone = {int(h[2][5:]) for h in heard if h[2].startswith(b'then:')}
        tap.equal(gone & left(c, 'then:', MANY), set(), 'of a key that is not there any more')
        tap.equal(len(heard), len({h[2] for h in heard}), 'once')
        told = tracks.reply()
        tap.ok(told[0] == b'invalidate' and told[1][0].startswith(b'first:'),
               f'who tracks a key is told: {told}')


def test_watched(tap):
    """A transaction makes room for itself: where what it watches goes for that it does not run."""
    with Kvd('--memory', MEMORY, '--when-full', 'evict', '--persist', 'memory') as kvd:
        c = kvd.connect()
        fill(c, 'key:')
        ran = void = wrong = 0
        for i in range(100):
            keys = [f'key:{k}' for k in range(i % 20, MANY, 20)]
            sets = [('SET', f'other:{i}:{k}', VALUE * 50) for k in range(8 + i % 16)]
            replies = c.pipeline([('WATCH', *keys), ('KEYS', 'key:*'), ('MULTI',),
                                  ('KEYS', 'key:*'), *sets, ('EXEC',)])
            before, result = set(replies[1]), replies[-1]
            ran += result is not None
            void += result is None
            if result is not None:
                watched = {key.encode() for key in keys}
                wrong += len((before & watched) - set(result[0]))
        tap.ok(ran > 10, f'{ran} transactions run, {void} do not, for a key went')
        tap.equal(wrong, 0, 'I: in none of those that run is what it watches gone')


def test_restarts(tap, policy):
    with Kvd('--memory', MEMORY, '--when-full', 'evict', '--persist', policy) as kvd:
        c = kvd.connect()
        tap.equal(fill(c, 'key:'), [], f'{policy}: G: no write is refused')
        before = left(c, 'key:', MANY)
        tap.ok(1000 < len(before) < MANY - 1000, f'{policy}: {len(before)} of {MANY} are there')
        kvd.stop()
        kvd.start()
        tap.equal(left(kvd.connect(), 'key:', MANY) - before, set(),
                  f'{policy}: what was evicted stays gone')
        c = kvd.connect()
        fill(c, 'more:')
        before = left(c, 'key:', MANY)
        c.command('KVD.SYNC')
        kvd.kill()
        kvd.start()
        tap.equal(left(kvd.connect(), 'key:', MANY) - before, set(),
                  f'{policy}: after a crash, too')


def main():
    tap = Tap()
    for policy in ('memory', 'lazy'):
        with Kvd('--memory', MEMORY, '--persist', policy) as kvd:
            test_names(tap, kvd.connect(), policy != 'memory')
    with Kvd('--memory', MEMORY, '--maxmemory-policy', 'noeviction') as kvd, kvd.connect() as c:
        tap.equal(c.command('CONFIG', 'GET', 'when-full')[1], b'spill', 'noeviction at the start')
    for policy in ('allkeys-lru', 'allkeys-lfu', 'allkeys-random', 'volatile-lru', 'volatile-lfu',
                   'volatile-random', 'volatile-ttl'):
        test_policy(tap, policy)
    test_reads(tap)
    test_told(tap)
    test_watched(tap)
    for policy in ('lazy', 'group'):
        test_restarts(tap, policy)
    tap.done()


if __name__ == '__main__':
    main()
