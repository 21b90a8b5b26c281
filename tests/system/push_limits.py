#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# What kvd sends without being asked, where no other server is the measure: bounds, the order of a
# reply and what it causes, keys whose time comes, and connections that end at any moment.
import os
import socket
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'lib'))
from kvdtest import Kvd, Push, Tap, seed, wait_until  # noqa: E402

CUT_OFF = b'-ERR closed: messages were not read fast enough'


def info(c, name):
    for line in c.command('INFO').split(b'\r\n'):
        field, _, value = line.partition(b':')
        if field == name.encode():
            return int(value)
    raise KeyError(name)


def order(tap, policy):
    """A client's own pushes come behind its own reply, also while that waits for its commit."""
    with Kvd('--persist', policy, '--notify-keyspace-events', 'AKE', '--memory', '16MiB',
             '--when-full', 'reject', '--write-wait', '0') as kvd, kvd.connect() as c:
        c.command('HELLO', '3')
        c.command('SUBSCRIBE', 'news', '__keyevent@0__:set')
        c.reply()
        c.append('PUBLISH', 'news', 'x')
        tap.equal([c.reply(), c.reply()], [1, Push([b'message', b'news', b'x'])],
                  f'{policy}: PUBLISH to oneself')
        c.append('SET', 'k', 'v')
        tap.equal([c.reply(), c.reply()],
                  ['OK', Push([b'message', b'__keyevent@0__:set', b'k'])], f'{policy}: SET')
        c.command('CLIENT', 'TRACKING', 'ON')
        c.command('GET', 'k')
        for command in (['MULTI'], ['SET', 'k', 'w'], ['PUBLISH', 'news', 'y'], ['EXEC']):
            c.append(*command)
        heard = [c.reply() for _ in range(7)]
        tap.equal(heard[:4], ['OK', 'QUEUED', 'QUEUED', ['OK', 1]], f'{policy}: EXEC')
        tap.equal(sorted(heard[4:]), sorted([
            Push([b'invalidate', [b'k']]), Push([b'message', b'__keyevent@0__:set', b'k']),
            Push([b'message', b'news', b'y'])]), f'{policy}: what it caused comes behind it')
        for command in (['MULTI'], ['PUBLISH', 'news', 'z'], ['NOSUCH'], ['EXEC']):
            c.append(*command)
        heard = [c.reply() for _ in range(4)]
        tap.ok(str(heard[3]).startswith('EXECABORT') and c.command('PING') == 'PONG',
               f'{policy}: what is not executed is not published')
        c.command('UNSUBSCRIBE', '__keyevent@0__:set')
        reply, count = 'OK', 0
        while reply == 'OK' and count < 1000:
            reply = c.command('SET', f'fill{count}', b'f' * 100000)
            count += 1
        tap.ok(str(reply).startswith('OOM'), f'{policy}: memory is full after {count} values')
        c.command('SUBSCRIBE', '__keyevent@0__:set')
        # With a removal in it only the whole batch tells that there is no room.
        for command in (['MULTI'], ['PUBLISH', 'news', 'lost'], ['DEL', 'nothing'],
                        ['SET', 'k', b'k' * 100000]):
            c.command(*command)
        refused = c.command('EXEC')
        tap.ok('OOM' in str(refused), f'{policy}: an EXEC that finds no room: {refused}')
        tap.equal(c.command('PING'), 'PONG', f'{policy}: tells nobody of its writes and messages')


def slow(tap):
    """A subscriber that does not read is cut off; nobody else notices."""
    with Kvd('--persist', 'memory', '--subscriber-output-max', '1MiB') as kvd, \
            kvd.connect() as publisher, kvd.connect() as reader, kvd.connect() as sleeper:
        reader.command('SUBSCRIBE', 'flood')
        sleeper.command('SUBSCRIBE', 'flood')
        message = b'm' * 10000
        sent = 0
        while publisher.command('PUBLISH', 'flood', message) == 2:
            sent += 1
            assert reader.reply() == [b'message', b'flood', message]
        tap.ok(100 < sent < 1000, f'G: cut off after {sent} messages of 10 kB')
        tap.ok('does not keep up with its subscriptions' in kvd.log(), 'the log says so')
        data = b''
        while True:
            more = sleeper.sock.recv(1 << 20)
            if not more:
                break
            data += more
        tap.ok(CUT_OFF in data[-200:] and data[:data.index(CUT_OFF)].endswith(b'm\r\n'),
               'it reads whole messages, then why, then the end')
        tap.equal(reader.reply(), [b'message', b'flood', message], 'who reads goes on')
        tap.equal(publisher.command('PUBSUB', 'NUMSUB', 'flood'), [b'flood', 1], 'alone')


def soft(tap):
    with Kvd('--persist', 'memory', '--subscriber-output-soft', '64KiB',
             '--subscriber-output-soft-time', '300ms') as kvd, \
            kvd.connect() as publisher, kvd.connect() as sleeper:
        sleeper.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sleeper.command('SUBSCRIBE', 'flood')
        for _ in range(100):
            publisher.command('PUBLISH', 'flood', b'm' * 10000)
        wait_until(lambda: publisher.command('PUBLISH', 'flood', 'm') == 0, 'it is cut off')
        tap.ok('subscriber-output-soft' in kvd.log(), 'G: too much for too long is cut off, too')


def expiry(tap, rng):
    """Each key whose time comes is told once: by itself, when looked at, or when replaced."""
    keys = 600
    with Kvd('--persist', 'memory', '--notify-keyspace-events', 'Ex') as kvd, \
            kvd.connect() as c, kvd.connect() as listener:
        listener.command('SUBSCRIBE', '__keyevent@0__:expired')
        c.pipeline([('SET', f'e{n}', 'v', 'PX', rng.randrange(1, 30)) for n in range(keys)])
        c.pipeline([rng.choice([('GET', f'e{n}'), ('DEL', f'e{n}', f'f{n}'), ('EXISTS', f'e{n}'),
                                ('SET', f'e{n}', 'w', 'PX', '20'), ('PING',)])
                    for n in range(keys) for _ in range(2)])
        wait_until(lambda: c.command('DBSIZE') == 0, 'all keys are gone')
        listener.append('PING', 'end')
        heard = []
        while True:
            frame = listener.reply()
            if frame == [b'pong', b'end']:
                break
            heard.append(frame[2])
        tap.equal(len(heard), info(c, 'expired_keys'), 'as many events as keys expired')
        c.pipeline([('SET', f'p{n // 2}', 'v', *(('PXAT', 1) if n % 2 == 0 else ()))
                    for n in range(100)])
        ended = [listener.reply()[2] for _ in range(50)]
        tap.equal(sorted(ended), sorted(f'p{n}'.encode() for n in range(50)),
                  'keys that had ended when they were replaced')
        lives = {key: heard.count(key) for key in heard}
        tap.ok(len(lives) > 100 and max(lives.values()) <= 3,
               f'{len(heard)} ends of {len(lives)} keys, each life once')


def table(tap):
    """tracking-table-max-keys: what does not fit is reported as changed."""
    with Kvd('--persist', 'memory', '--tracking-table-max-keys', '100') as kvd, \
            kvd.connect() as c, kvd.connect() as other:
        c.command('HELLO', '3')
        c.command('CLIENT', 'TRACKING', 'ON')
        known = set()
        replies = 0
        c.send(b''.join(c.encode('GET', f'k{n}') for n in range(1000)))
        while replies < 1000 or len(known) > 100:
            frame = c.reply()
            if isinstance(frame, Push):
                known -= set(frame[1])
            else:
                known.add(f'k{replies}'.encode())
                replies += 1
        tap.equal(len(known), info(other, 'tracking_total_keys'), 'G: kvd knows what the client '
                  'believes that it knows')
        for key in sorted(known):
            other.command('SET', key, 'v')
        gone = set()
        while gone != known:
            gone |= set(c.reply()[1])
        tap.equal(info(other, 'tracking_total_items'), 0, 'and forgets it with the change')
        c.send(b''.join(c.encode('GET', f'k{n}') for n in range(90)))
        other.command('SET', 'last', 'v')
        other.command('FLUSHALL')
        frames = [c.reply() for _ in range(91)]
        tap.equal(frames[-1], Push([b'invalidate', None]), 'a flush is told as one null')
        tap.equal(info(other, 'tracking_total_keys'), 0, 'and nothing is remembered')


def many_keys(tap):
    """A large table is dropped without anybody waiting, and without a trace."""
    with Kvd('--persist', 'memory', '--tracking-table-max-keys', '0') as kvd, \
            kvd.connect() as c, kvd.connect() as other:
        c.command('CLIENT', 'TRACKING', 'ON')
        for start in range(0, 50000, 1000):
            c.command('MGET', *[f'k{n}' for n in range(start, start + 1000)])
        tap.equal(info(other, 'tracking_total_keys'), 50000, '50000 keys are remembered')
        other.command('FLUSHALL')
        tap.equal(info(other, 'tracking_total_keys'), 0, 'none after a flush')
        c.command('MGET', *[f'k{n}' for n in range(1000)])
        c.command('CLIENT', 'TRACKING', 'OFF')
        tap.equal([info(other, 'tracking_total_keys'), info(other, 'tracking_clients')], [0, 0],
                  'none when nobody tracks')


def room(tap):
    """Subscriptions and prefixes are charged; one too many is refused."""
    with Kvd('--persist', 'memory', '--memory', '16MiB', '--value-max', '64KiB') as kvd, \
            kvd.connect() as c, kvd.connect() as other:
        count, reply = 0, []
        while isinstance(reply, list) and count < 100000:
            reply = c.command('SUBSCRIBE', str(count) + 'c' * 900)
            count += isinstance(reply, list)
        tap.ok('no room for another subscription' in str(reply), f'G: {count} fit: {reply}')
        tap.equal(other.command('PUBLISH', '7' + 'c' * 900, 'x'), 1, 'those that fit are there')
        tap.equal(info(other, 'pubsub_channels'), count, 'all of them')


def many(tap):
    """Thousands of names in one command, long messages to many, and what is too much of either."""
    with Kvd('--persist', 'memory', '--subscriber-patterns-max', '3') as kvd, \
            kvd.connect() as c, kvd.connect() as other, kvd.connect() as third:
        names = [f'n{n}' for n in range(20000)]
        c.append('SUBSCRIBE', *names)
        third.append('HELLO', '3')
        third.reply()
        third.command('SUBSCRIBE', 'n7')
        tap.equal([c.reply() for _ in names], [[b'subscribe', name.encode(), n + 1]
                                               for n, name in enumerate(names)],
                  '20000 confirmations, in order')
        long = bytes(range(256)) * 8192
        tap.equal(other.command('PUBLISH', 'n7', long), 2, 'a message of 2 MiB')
        tap.equal([c.reply()[2] == long, third.reply()[2] == long], [True, True], 'whole, to both')
        c.append('UNSUBSCRIBE')
        ended = [c.reply() for _ in names]
        tap.equal([ended[0], ended[-1]], [[b'unsubscribe', b'n0', 19999],
                                          [b'unsubscribe', b'n19999', 0]], 'and 20000 ends')
        tap.equal(other.command('PUBLISH', 'n7', 'x'), 1, 'the other one is still there')
        tap.ok('channel name is too long: 1025 bytes' in str(other.command('PUBLISH', 'c' * 1025,
                                                                           'x')), 'G: a long name')
        c.append('PSUBSCRIBE', 'a', 'b', 'a', 'c', 'd')
        replies = [c.reply() for _ in range(5)]
        tap.equal([r[2] for r in replies[:4]], [1, 2, 2, 3], 'three patterns, one of them twice')
        tap.ok('(subscriber-patterns-max)' in str(replies[4]), f'G: a fourth: {replies[4]}')


def prefixes(tap, rng):
    """Many prefixes at once; none overlap, and the pair that is told is the one Redis tells."""
    def ask(c, *names):
        options = [word for name in names for word in ('PREFIX', name)]
        return str(c.command('CLIENT', 'TRACKING', 'ON', 'BCAST', *options))

    def redis(names, old):
        for n, name in enumerate(names):
            for kind, others in (('an existing', sorted(old)), ('another provided', names[n + 1:])):
                for other in others:
                    if name.startswith(other) or other.startswith(name):
                        return (f"ERR Prefix '{name}' overlaps with {kind} prefix '{other}'. "
                                'Prefixes for a single client must not overlap.')
        return 'OK'

    with Kvd('--persist', 'memory') as kvd, kvd.connect() as c, kvd.connect() as other:
        c.command('HELLO', '3')
        names = [f'p{n:04}' for n in range(4097)]
        rng.shuffle(names)
        tap.equal(ask(c, *names), 'ERR A client can have at most 4096 prefixes', 'G: 4097 at once')
        tap.equal([ask(c, *names[:4000]), ask(c, *names[4000:4096])], ['OK', 'OK'], '4096')
        tap.equal(ask(c, names[4096]), 'ERR A client can have at most 4096 prefixes', 'G: one more')
        tap.equal(info(other, 'tracking_total_prefixes'), 4096, 'all of them are there')
        other.command('SET', names[4095] + 'x', 'v')
        tap.equal(c.reply(), Push([b'invalidate', [(names[4095] + 'x').encode()]]), 'each is heard')
        c.command('CLIENT', 'TRACKING', 'OFF')
        tap.equal(ask(c, *names[:4096]), 'OK', '4096 at once')
        wrong = []
        refused = 0
        for _ in range(600):
            c.command('CLIENT', 'TRACKING', 'OFF')
            old = set()
            if rng.random() < 0.1:
                ask(c)
                old.add('')
            for _ in range(4):
                given = [''.join(rng.choices('ab', k=rng.choice((0, 1, 2, 3, 4, 5, 6, 6, 6, 6))))
                         for _ in range(rng.randrange(1, 6))]
                expected = redis(given, old)
                reply = ask(c, *given)
                old |= set(given) if expected == 'OK' else set()
                refused += expected != 'OK'
                if reply != expected:
                    wrong.append((given, sorted(old), reply, expected))
            kept = c.command('CLIENT', 'TRACKINGINFO')
            kept = kept[b'prefixes'] if isinstance(kept, dict) else kept[-1]
            if kept != [name.encode() for name in sorted(old)]:
                wrong.append((kept, sorted(old)))
        tap.equal(wrong[:3], [], f'{refused} of 2400 overlap, as in Redis')
        tap.ok(200 < refused < 2200, 'both happen')


def mortality(tap, rng):
    """Connections end in the middle of everything; in the end nothing is left of them."""
    with Kvd('--persist', 'memory', '--notify-keyspace-events', 'AKE',
             '--tracking-table-max-keys', '50') as kvd:
        living = []
        for _ in range(1500):
            if len(living) < 30 or rng.random() < 0.4:
                living.append(kvd.connect())
                if rng.random() < 0.7:
                    living[-1].append('HELLO', '3')
            c = rng.choice(living)
            key = f'k{rng.randrange(80)}'
            command = rng.choice([
                ['SUBSCRIBE', 'a', 'b', '__keyevent@0__:set'], ['PSUBSCRIBE', '*', 'a*'],
                ['SSUBSCRIBE', 's'], ['UNSUBSCRIBE'], ['PUNSUBSCRIBE', 'a*'], ['GET', key],
                ['SET', key, 'v', 'PX', '5'], ['PUBLISH', 'a', 'm'], ['SPUBLISH', 's', 'm'],
                ['CLIENT', 'TRACKING', 'ON'], ['CLIENT', 'TRACKING', 'OFF'], ['MULTI'], ['EXEC'],
                ['CLIENT', 'TRACKING', 'ON', 'BCAST', 'PREFIX', 'k1', 'PREFIX', 'k2'], ['FLUSHALL'],
                ['CLIENT', 'TRACKING', 'ON', 'BCAST', 'REDIRECT', str(rng.randrange(1, 1500))]])
            c.append(*command)
            if rng.random() < 0.35:
                living.remove(c)
                c.close()
        for c in living:
            c.close()
        with kvd.connect() as c:
            wait_until(lambda: info(c, 'connected_clients') == 1, 'all of them are gone')
            c.command('SET', 'k', 'v')
            tap.equal([info(c, name) for name in (
                'pubsub_channels', 'pubsub_patterns', 'pubsubshard_channels', 'tracking_clients',
                'tracking_total_items', 'tracking_total_prefixes')], [0] * 6, 'nothing is left')
        tap.equal(kvd.stop(), 0, 'kvd ends well')


def before_the_answer(tap):
    """What many have read is told in slices: who wrote is answered when all of it was told."""
    with Kvd() as kvd:
        clients = [kvd.connect() for _ in range(400)]
        for c in clients:
            c.pipeline([('HELLO', '3'), ('CLIENT', 'TRACKING', 'ON'), ('GET', 'k')])
        for what in (('SET', 'k', 'x'), ('FLUSHALL',)):
            early = 0
            for c in clients[:10]:
                for other in clients:
                    other.append('GET', 'k')
                for other in clients:
                    while isinstance(other.reply(), Push):
                        pass
                c.append(*what)
                c.append('PING')
                early += [c.reply() for _ in range(3)][2] != 'PONG'
            tap.equal(early, 0, f'A: {what[0]}: nothing is answered before its invalidation')
        for c in clients:
            c.close()


def main():
    tap = Tap()
    rng = seed()
    order(tap, 'memory')
    order(tap, 'group')
    slow(tap)
    soft(tap)
    expiry(tap, rng)
    table(tap)
    many_keys(tap)
    room(tap)
    many(tap)
    before_the_answer(tap)
    prefixes(tap, rng)
    mortality(tap, rng)
    tap.done()


main()
