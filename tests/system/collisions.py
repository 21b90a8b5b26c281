#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""H: keys that really collide. Whoever may read the region knows its hash key, and XXH3 of a key of
16 bytes can be turned round: any number of keys for one bucket and one tag. kvd spreads them by
another hash key, refuses what collides again too soon, for that chain alone, and nobody else
notices: not who writes other keys, not who reads through the mapping, not a walk.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from collide import colliding, region_seed, region_word  # noqa: E402
from kept import KeptKvd  # noqa: E402
from kvdtest import Kvd, ReplyError, Tap, wait_until  # noqa: E402

PROGRAM = sys.argv[1]
BUCKETS = 32 + 4 + 1  # of a chain, at most: as many more as buckets have entries on average
STEADY = 4000
FULL_GONE = 3000  # keys or values: memory is full


def target(path):
    """Where a descriptor leads; nowhere if it was closed since it was listed."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ''


class Region:
    """The header, as any client can read it."""

    def __init__(self, kvd):
        folder = f'/proc/{kvd.pid}/fd'
        self.fd = next(os.open(f'{folder}/{fd}', os.O_RDONLY) for fd in os.listdir(folder)
                       if 'kvd-region' in target(f'{folder}/{fd}'))

    def seed(self):
        return region_seed(self.fd)

    def close(self):
        os.close(self.fd)


def info(client):
    text = client.command('INFO', 'kvd')
    return dict(line.split(b':', 1) for line in text.split(b'\r\n') if b':' in line)


def number(client, name):
    return int(info(client)[name.encode()])


def write(client, keys, value=b'c'):
    """How many were accepted, and the refusals."""
    refusals = []
    accepted = []
    keys = list(keys)
    for start in range(0, len(keys), 200):
        part = keys[start:start + 200]
        replies = client.pipeline([('SET', key, value) for key in part])
        accepted += [key for key, reply in zip(part, replies) if reply == 'OK']
        refusals += [reply for reply in replies if isinstance(reply, ReplyError)]
    return accepted, refusals


def steady(i):
    return b'steady:%d' % i


def wrong_values(client, keys, value):
    wrong = 0
    for start in range(0, len(keys), 500):
        part = keys[start:start + 500]
        wrong += sum(reply != value for reply in client.command('MGET', *part))
    return wrong


class Mapped:
    """A process that reads through the mapping (reader.c), attached all the time."""

    def __init__(self, kvd):
        self.process = subprocess.Popen([PROGRAM, kvd.socket], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.process.stdout.readline()
        self.tell('open', 'watcher')

    def tell(self, *words):
        self.process.stdin.write(' '.join(words).encode() + b'\n')
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def misses(self):
        """Of the keys that are there, looked for one by one."""
        return sum(self.tell('get', steady(i).decode()) != 0 for i in range(0, STEADY, 7))

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def scan(client, cursor, seen, calls):
    for _ in range(calls):
        cursor, keys = client.command('SCAN', cursor, 'COUNT', 50)
        seen.update(keys)
        if cursor == b'0':
            break
    return cursor


def attack_once(tap, kvd, region, attacker, other, mapped):
    """The first time nobody is refused much: the table is rebuilt at once."""
    seed = region.seed()
    accepted, refusals = write(attacker, colliding(seed, 0, 200))
    wait_until(lambda: number(other, 'table_reseeds') == 1, 'the table is rebuilt')
    tap.ok(region.seed() != seed, 'the table has another hash key')
    tap.equal(refusals, [], 'H: before a chain was full')
    more, refusals = write(attacker, colliding(seed, 200, 600))
    accepted += more
    tap.equal(refusals, [], 'H: what collided under the former one does not any more')
    tap.equal(wrong_values(other, accepted, b'c'), 0, 'A: keys that collided are all there')
    tap.equal(wrong_values(other, [steady(i) for i in range(STEADY)], b's'), 0,
              'A: and so are all others')
    tap.equal((mapped.tell('mapped'), mapped.misses()), (1, 0),
              'A: through the mapping, too, by who was attached before')
    return accepted


def attack_again(tap, kvd, region, attacker, other, mapped):
    """Too soon for another rebuild: the chain fills up, and only new keys of it are refused."""
    more, refusals = write(attacker, colliding(region.seed(), 5000, 1500))
    tap.ok(0 < len(more) <= BUCKETS * 7, f'H: {len(more)} keys found a place in the chain')
    tap.ok(refusals and all(f'uid {os.getuid()}:' in str(refusal) and
                            'too many keys collide' in str(refusal) for refusal in refusals),
           f'H: {len(refusals)} were refused, by a text that says whose they are')
    tap.equal((number(other, 'writes_crowded'), number(other, 'table_reseeds')),
              (len(refusals), 1), 'that is counted, and there was no second rebuild')
    tap.ok(b'too many keys collide' in kvd.log().encode(), 'and logged')
    new, refused = write(other, [b'other:%d' % i for i in range(3000)])
    # One bucket in some thousands is full: a key may happen on it.
    tap.ok(len(new) >= 2985, f"H: others' writes go on: {len(new)} of 3000")
    again, refused = write(attacker, more[:150])
    tap.equal((len(again), refused), (150, []), 'so does who replaces what is there')
    tap.equal(attacker.command('DEL', *more[150:200]), 50, 'or removes it')
    batch = [word for key in colliding(region.seed(), 9000, 300) for word in (key, b'c')]
    tap.ok('too many keys collide' in str(attacker.command('MSET', *batch)),
           'H: no batch goes where its keys could not one by one')
    tap.equal(mapped.misses(), 0, 'A: readers find what is there')
    return more[:150] + more[200:]


def spread(tap, region, attacker, other, mapped, keys):
    """When it is time again, the next write that meets the chain has it rebuilt; a walk goes on."""
    seen = set()
    cursor = scan(other, b'0', seen, 30)
    tap.ok(cursor != b'0', 'a walk is under way')
    other.command('CONFIG', 'SET', 'reseed-interval', '1ms')
    attacker.command('SET', keys[0], b'c')
    wait_until(lambda: number(other, 'table_reseeds') >= 2, 'the table is rebuilt again')
    other.command('CONFIG', 'SET', 'reseed-interval', '1h')
    tap.equal(scan(other, cursor, seen, 100000), b'0', 'it ends')
    tap.equal([i for i in range(STEADY) if steady(i) not in seen], [],
              'A: and has seen every key that was there')
    tap.equal((wrong_values(other, keys, b'c'), mapped.misses()), (0, 0), 'A: all keys are there')
    tap.equal(number(other, 'table_reseeds_abandoned'), 0, 'no rebuild was given up')


def test_attack(tap):
    with Kvd('--memory', '32MiB', '--segment', '256KiB', '--reseed-interval', '1h') as kvd:
        attacker, other = kvd.connect(), kvd.connect()
        for start in range(0, STEADY, 500):
            other.pipeline([('SET', steady(i), b's') for i in range(start, start + 500)])
        region, mapped = Region(kvd), Mapped(kvd)
        keys = attack_once(tap, kvd, region, attacker, other, mapped)
        keys += attack_again(tap, kvd, region, attacker, other, mapped)
        spread(tap, region, attacker, other, mapped, keys)
        other.command('FLUSHALL')
        tap.equal((other.command('DBSIZE'), mapped.tell('get', 'steady:7')), (0, 1),
                  'FLUSHALL ends it all')
        mapped.close()
        region.close()


def test_killed(tap, point):
    """Killed in the middle of a rebuild, or right behind it: the next life goes on."""
    with KeptKvd('--memory', '32MiB', '--segment', '256KiB', '--persist', 'lazy',
                 '--lazy-interval', '1h', '--revoke', '100ms', start=False) as kvd:
        kvd.env['KVD_CRASH_AT'] = point
        kvd.start()
        client, region = kvd.connect(), Region(kvd)
        write(client, [steady(i) for i in range(STEADY)])
        client.command('DEL', *[steady(i) for i in range(100, 200)])  # not durable: tombstones
        acknowledged = []
        try:
            for key in colliding(region.seed(), 0, 5000):
                if client.command('SET', key, b'c') == 'OK':
                    acknowledged.append(key)
        except OSError:
            pass
        kvd.wait()
        del kvd.env['KVD_CRASH_AT']
        kvd.start()
        region.close()
        with kvd.connect() as client:
            tap.ok('took over' in kvd.log(), f'F: {point}: the region is taken over')
            gone = range(100, 200)
            keys = [steady(i) for i in range(STEADY) if i not in gone]
            tap.equal((wrong_values(client, keys, b'c'), wrong_values(client, acknowledged, b'c')),
                      (0, 0), f'F: {point}: everything acknowledged is there')
            tap.equal(client.command('EXISTS', *[steady(i) for i in gone]), 0,
                      f'F: {point}: and nothing that was removed')
            region = Region(kvd)
            before = number(client, 'table_reseeds')
            more, _ = write(client, colliding(region.seed(), 100000, 600))
            wait_until(lambda: number(client, 'table_reseeds') > before, 'the next rebuild')
            tap.equal((wrong_values(client, keys + acknowledged + more, b'c'),
                       client.command('DBSIZE')),
                      (0, len(keys) + len(set(acknowledged + more))),
                      f'F: {point}: the next life rebuilds the table as well')
            client.command('KVD.SYNC')  # the removals are durable: their entries go
            tap.equal(wrong_values(client, keys, b'c'), 0, f'A: {point}: nobody else\'s')
            region.close()


def test_full(tap, when_full):
    """Where memory is full others' keys, or values, go for the second table, as for a write."""
    with Kvd('--memory', '8MiB', '--segment', '256KiB', '--reseed-interval', '1h', '--when-full',
             when_full, '--persist', 'lazy', '--lazy-interval', '20ms') as kvd:
        client, region = kvd.connect(), Region(kvd)
        gone = 'keys_evicted' if when_full == 'evict' else 'values_spilled'
        last, refused = 0, []
        while number(client, gone) < FULL_GONE:
            _, more = write(client, [steady(i) for i in range(last, last + 1000)], b's' * 300)
            last, refused = last + 1000, refused + more
        tap.equal(refused, [], f'{when_full}: G: memory is full of {last} keys')
        before = number(client, gone)
        keys, refused = write(client, colliding(region.seed(), 0, 200))
        tap.equal(refused, [], f'{when_full}: H: before a chain was full')
        wait_until(lambda: number(client, 'table_reseeds') == 1, 'the table is rebuilt')
        _, refused = write(client, [steady(i) for i in range(last)], b's' * 300)
        tap.equal(refused, [], f'{when_full}: G: others write on')
        went = number(client, gone) - before
        tap.ok(went > 0, f'{when_full}: {went} went')
        if when_full == 'spill':
            tap.equal(client.command('DBSIZE'), last + len(set(keys)), 'A: all keys are there')
            tap.equal(wrong_values(client, keys, b'c'), 0, 'A: with what they had')
        tap.equal((number(client, 'table_reseeds_abandoned'), number(client, 'writes_refused')),
                  (0, 0), f'{when_full}: G: for nothing that was given up')
        said = client.command('DEBUG', 'RECOUNT')
        tap.ok(isinstance(said, int), f'{when_full}: G: all is counted: {said}')
        region.close()


def test_rejects(tap):
    """Where nothing goes the log says what would help."""
    with Kvd('--memory', '8MiB', '--segment', '256KiB', '--reseed-interval', '1h', '--when-full',
             'reject', '--write-wait', '100ms') as kvd:
        client, region = kvd.connect(), Region(kvd)
        last, refused = 0, []
        while not refused:
            _, refused = write(client, [steady(i) for i in range(last, last + 1000)])
            last += 1000
        client.command('DEL', *[steady(i) for i in range(400)])
        write(client, colliding(region.seed(), 0, 200))
        wait_until(lambda: 'raise maxmemory to' in kvd.log(), 'the log')
        tap.equal(number(client, 'table_reseeds'), 0, 'reject: there is no second table')
        client.command('CONFIG', 'SET', 'reseed-interval', '1ms')
        client.command('DEL', *[steady(i) for i in range(last)])
        write(client, colliding(region.seed(), 0, 200))
        wait_until(lambda: number(client, 'table_reseeds') > 0, 'the table is rebuilt')
        tap.ok(True, 'reject: there is when keys are removed')
        region.close()


def test_siphash(tap):
    """The other hash: clients read it through the mapping as well."""
    with Kvd('--hash', 'siphash') as kvd:
        client, region, mapped = kvd.connect(), Region(kvd), Mapped(kvd)
        tap.equal((region_word(region.fd, 48), client.command('CONFIG', 'GET', 'hash')),
                  (1, [b'hash', b'siphash']), 'a region with SipHash')
        write(client, [steady(i) for i in range(STEADY)])
        tap.equal((mapped.tell('mapped'), mapped.misses()), (1, 0), 'A: is read by clients')
        accepted, refusals = write(client, colliding(region.seed(), 0, 2000))
        tap.equal((len(accepted), refusals, number(client, 'table_reseeds')), (2000, [], 0),
                  'H: keys that collide under XXH3 do not')
        mapped.close()
        region.close()


def main():
    tap = Tap()
    test_attack(tap)
    test_killed(tap, 'reseed_step:7')
    test_killed(tap, 'reseed_published')
    test_full(tap, 'evict')
    test_full(tap, 'spill')
    test_rejects(tap)
    test_siphash(tap)
    tap.done()


main()
