#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# What kvd sends without being asked: messages, keyspace notifications, invalidations. Generated
# conversations over several connections go to kvd and to Redis 7.0 side by side, and after every
# step every connection must have heard the same. Environment: KVD_PUSH_STEPS (how many),
# KVD_PUSH_HISTORY (steps shown before one that differs), KVD_TEST_SEED, KVD_REDIS_SERVER.
#
# Known differences, all of order only: what a client causes to be pushed to itself comes behind its
# own reply; several names, patterns or keys of one step come in the order in which kvd met them.
# So within a step replies are compared in their order, pushes as a set.
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'lib'))
from kvdtest import Connection, Kvd, Push, ReplyError, Tap, seed  # noqa: E402
from redistest import Redis, redis_or_skip  # noqa: E402

STEPS = int(os.environ.get('KVD_PUSH_STEPS', '3000'))
ROUND = 150
HISTORY = int(os.environ.get('KVD_PUSH_HISTORY', '12'))
ACTORS = 'abcd'
CHANNELS = ['c1', 'c2', 'news.a', 'news.b', '__keyevent@0__:set', '__redis__:invalidate']
PATTERNS = ['news.*', 'c?', '__key*', '*']
KEYS = ['k1', 'k2', 'user:1', 'user:2', 'item:1']
PREFIXES = ['user:', 'item:', 'u', 'k1', 'k']


def frozen(value):
    """A reply as something that can be compared and sorted, types included."""
    if isinstance(value, dict):
        return ('map', tuple((frozen(k), frozen(v)) for k, v in value.items()))
    if isinstance(value, list):
        return (type(value).__name__, tuple(frozen(item) for item in value))
    return (type(value).__name__, str(value))


class Side:
    """One server and its connections, by the letter of who speaks."""

    def __init__(self, path):
        self.path = path
        self.connections = {}
        self.ids = {}
        self.everyone = {}  # id -> whose it is or was
        for letter in ACTORS:
            self.open(letter)

    def open(self, letter):
        c = Connection(self.path)
        self.connections[letter] = c
        self.ids[letter] = c.command('CLIENT', 'ID')
        self.everyone[self.ids[letter]] = f'{letter}, {len(self.everyone)}'
        c.command('CLIENT', 'SETNAME', 'barrier-' + letter)

    def close(self):
        for c in self.connections.values():
            c.close()

    def filled_in(self, command):
        return [str(self.ids[word[3:]]) if word.startswith('id:') else word for word in command]

    def hear(self, letter):
        """All that has come, up to the answer of a question that changes nothing."""
        c = self.connections[letter]
        c.append('CLIENT', 'GETNAME')
        frames = []
        while True:
            frame = c.reply()
            if frame == ('barrier-' + letter).encode():
                return frames
            if isinstance(frame, ReplyError) and "'client|getname'" in str(frame):
                return frames
            frames.append(frame)

    def step(self, letter, commands):
        if commands[0] == ['close']:
            self.connections[letter].close()
            gone = self.ids[letter]
            other = next(other for other in ACTORS if other != letter)
            # Both servers notice an end in their own time.
            while any(f'id={gone} '.encode() in line for line in
                      self.clients(other).splitlines()):
                pass
            self.open(letter)
            commands = commands[1:]
        data = [Connection.encode(*self.filled_in(command)) for command in commands]
        self.connections[letter].send(b''.join(data))
        heard = {letter: self.hear(letter)}
        # What broadcasting collects is sent behind the replies of the turn: once more.
        heard[letter] += self.hear(letter)
        for other in ACTORS:
            if other != letter:
                heard[other] = self.hear(other)
        return heard

    def clients(self, _):
        with Connection(self.path) as c:
            return c.command('CLIENT', 'LIST')


IS_PUSH = {b'message', b'pmessage', b'smessage', b'invalidate', b'tracking-redir-broken',
           b'unsubscribe', b'punsubscribe', b'sunsubscribe'}


def normal(frames, ids):
    """Replies in order, and what was pushed, sorted; ids by who they are."""
    replies, pushes = [], []
    for frame in frames:
        unasked = isinstance(frame, list) and bool(frame) and isinstance(frame[0], bytes) and \
            frame[0] in IS_PUSH
        if unasked and frame[0].endswith(b'unsubscribe') and len(frame) == 3:
            frame = type(frame)(frame[:2])  # how many are left depends on the order
        if unasked and frame[0] == b'invalidate' and isinstance(frame[1], list):
            frame = Push([frame[0], sorted(frame[1])])
        if unasked and frame[0] == b'tracking-redir-broken':
            frame = Push([frame[0], ids.get(frame[1])])
        if isinstance(frame, list) and frame and not unasked and not isinstance(frame, Push) and \
                all(isinstance(item, bytes) for item in frame):
            frame = sorted(frame)  # names in no order
        if isinstance(frame, dict) and b'redirect' in frame:
            frame = {**frame, b'redirect': ids.get(frame[b'redirect'], frame[b'redirect'])}
        elif isinstance(frame, list) and b'redirect' in frame:
            frame[3] = ids.get(frame[3], frame[3])
        (pushes if unasked else replies).append(frozen(frame))
    return replies, sorted(pushes)


class Talk:
    """Generated steps. Remembers who listens, to stay clear of what Redis 7.0 mixes up."""

    def __init__(self, rng):
        self.rng = rng
        self.listens = set()

    def names(self, pool, least=1):
        return self.rng.sample(pool, self.rng.randint(least, 2))

    def read(self):
        return self.rng.choice([['GET', self.key()], ['MGET', self.key(), self.key()],
                                ['STRLEN', self.key()], ['EXISTS', self.key()]])

    def key(self):
        return self.rng.choice(KEYS)

    def write(self):
        value = str(self.rng.randrange(100))
        return self.rng.choice([
            ['SET', self.key(), value], ['SET', self.key(), value, 'EX', '1000'],
            ['DEL', self.key()], ['MSET', 'k1', value, 'user:1', value], ['INCR', self.key()],
            ['APPEND', self.key(), '1'], ['EXPIRE', self.key(), '1000'], ['PERSIST', self.key()],
            ['GETDEL', self.key()], ['SETNX', self.key(), value], ['FLUSHALL'],
            ['SETRANGE', self.key(), '1', 'x'], ['EXPIRE', self.key(), '-1']])

    def subscription(self, letter):
        kind = self.rng.choice(['', '', 'P', 'S'])
        pool = PATTERNS if kind == 'P' else CHANNELS
        if self.rng.random() < 0.6:
            self.listens.add(letter)
            return [kind + 'SUBSCRIBE', *self.names(pool)]
        if self.rng.random() < 0.3:
            return [kind + 'UNSUBSCRIBE']
        return [kind + 'UNSUBSCRIBE', *self.names(pool)]

    def tracking(self):
        words = ['CLIENT', 'TRACKING', self.rng.choice(['ON', 'ON', 'ON', 'OFF'])]
        for word, chance in (('BCAST', 0.4), ('OPTIN', 0.15), ('OPTOUT', 0.15), ('NOLOOP', 0.3)):
            if self.rng.random() < chance:
                words.append(word)
        if 'BCAST' in words or self.rng.random() < 0.05:
            for prefix in self.names(PREFIXES, 0):
                words += ['PREFIX', prefix]
        if self.rng.random() < 0.3:
            words += ['REDIRECT', 'id:' + self.rng.choice('cd')]
        return words

    def first_steps(self):
        """Two speak RESP3 and may do anything; two RESP2, one of which only listens. It tracks all
        the time: when nobody does, kvd forgets what was read, and Redis does not."""
        self.listens.add('d')
        return [('a', [['HELLO', '3']]), ('b', [['HELLO', '3']]),
                ('d', [['CLIENT', 'TRACKING', 'ON'], ['SUBSCRIBE', '__redis__:invalidate']])]

    def step(self):
        letter = self.rng.choice('aaabbbccd')
        kind = self.rng.random()
        if kind < 0.2:
            return letter, [self.read()]
        if kind < 0.37:
            return letter, [self.write()]
        if kind < 0.4:
            key = self.key()
            return letter, [['CLIENT', 'TRACKING', 'ON', *self.rng.choice([[], ['NOLOOP']])],
                            ['GET', key], ['SET', key, '1']]
        if kind < 0.5:
            return letter, [['PUBLISH', self.rng.choice(CHANNELS[:4]), 'm']]
        if kind < 0.53:
            return letter, [['SPUBLISH', self.rng.choice(CHANNELS[:4]), 's']]
        if kind < 0.65 and (letter != 'c' or kind < 0.54):
            return letter, [self.subscription(letter)]
        if kind < 0.78:
            return letter, [self.tracking()]
        if kind < 0.82:
            return letter, [['CLIENT', 'CACHING', self.rng.choice(['YES', 'NO'])], self.read()]
        if kind < 0.85:
            return letter, [['HELLO', self.rng.choice('2333')]]
        if kind < 0.88 and letter in 'ab' and letter not in self.listens:
            # Redis 7.0 would put messages and what is redirected to the client itself among the
            # replies of its EXEC.
            inside = [self.rng.choice([self.write, self.read])()
                      for _ in range(self.rng.randrange(5))]
            return letter, [['MULTI'], *inside, ['EXEC']]
        if kind < 0.9 and letter != 'd':
            self.listens.discard(letter)
            return letter, [['close'], ['HELLO', self.rng.choice('2333')]]
        return letter, [self.rng.choice([
            ['PING'], ['PING', 'x'], ['PUBSUB', 'CHANNELS'], ['PUBSUB', 'CHANNELS', 'news*'],
            ['PUBSUB', 'NUMSUB', *CHANNELS], ['PUBSUB', 'NUMPAT'], ['PUBSUB', 'SHARDCHANNELS'],
            ['PUBSUB', 'SHARDNUMSUB', 'c1'], ['CLIENT', 'TRACKINGINFO'], ['CLIENT', 'GETREDIR'],
            ['PUBSUB', 'CHANNELS', 'a', 'b'], ['PUBSUB', 'NOTHING'], ['CLIENT', 'TRACKING', 'ON'],
            ['SUBSCRIBE'], ['CLIENT', 'TRACKING', 'MAYBE'], ['CLIENT', 'CACHING', 'MAYBE']])]


def simplified(command, frames, ids):
    """Answers that name kvd, or sessions by number, say the same in other words."""
    if command[:2] == ['CLIENT', 'GETREDIR']:
        frames = [ids.get(f, f) if isinstance(f, int) else f for f in frames]
    if command[0] in ('HELLO', 'close'):
        frames = ['greeted' if isinstance(f, (dict, list)) and not isinstance(f, Push) and
                  len(f) > 3 and b'server' in f else f for f in frames]
    return frames


def heard(side, letter, commands):
    got = side.step(letter, commands)
    got[letter] = simplified(commands[0], got[letter], side.everyone)
    return {who: normal(frames, side.everyone) for who, frames in got.items()}


def compare(tap, rng, kvd, redis):
    """Rounds of steps; each begins with fresh connections and an empty keyspace."""
    steps = 0
    while steps < STEPS:
        with Connection(kvd) as a, Connection(redis) as b:
            for c in (a, b):
                c.command('FLUSHALL')
        sides = Side(kvd), Side(redis)
        talk = Talk(rng)
        history = []
        first = talk.first_steps()
        for _ in range(ROUND):
            letter, commands = first.pop(0) if first else talk.step()
            history.append((letter, commands))
            ours, theirs = (heard(side, letter, commands) for side in sides)
            steps += 1
            if ours != theirs:
                break
        if not tap.ok(ours == theirs, f'{len(history)} steps heard alike'):
            for step in history[-HISTORY:]:
                tap.diag(step)
            for who in ACTORS:
                if ours[who] != theirs[who]:
                    tap.diag(f'{who}: kvd   {ours[who]}')
                    tap.diag(f'{who}: redis {theirs[who]}')
            return
        for side in sides:
            side.close()


def letters(tap, rng, kvd, redis):
    """The option notify-keyspace-events is read and shown as Redis does it."""
    with Connection(kvd) as a, Connection(redis) as b:
        same = True
        for _ in range(200):
            text = ''.join(rng.choice('KEg$lshzxetmdnAq' if rng.random() < 0.1 else
                                      'KEg$lshzxetmdn') for _ in range(rng.randrange(12)))
            set_both = [c.command('CONFIG', 'SET', 'notify-keyspace-events', text) for c in (a, b)]
            got = [c.command('CONFIG', 'GET', 'notify-keyspace-events') for c in (a, b)]
            if 'n' in text and b'A' in got[0][1]:
                continue  # Redis 7.0 forgets to show that n is on beside A; 7.2 and kvd show it
            if got[0] != got[1] or set_both[0] != set_both[1]:
                same = False
                tap.diag(f'{text!r}: {set_both} {got}')
        tap.ok(same, 'letters of notify-keyspace-events')
        for c in (a, b):
            c.command('CONFIG', 'SET', 'notify-keyspace-events', 'AKE')


def main():
    program = redis_or_skip()
    tap = Tap()
    rng = seed()
    with Kvd('--persist', 'memory') as kvd, Redis(program) as redis:
        letters(tap, rng, kvd.socket, redis.socket)
        compare(tap, rng, kvd.socket, redis.socket)
        with kvd.connect() as c:
            left = {name: value for name, _, value in (
                line.partition(b':') for line in c.command('INFO').split(b'\r\n'))}
            tap.equal([left[name] for name in (
                b'pubsub_channels', b'pubsub_patterns', b'pubsubshard_channels',
                b'tracking_clients', b'tracking_total_items', b'tracking_total_prefixes')],
                [b'0'] * 6, 'nothing is left when everybody is gone')
        tap.equal(kvd.stop(), 0, 'kvd ends well')
    tap.done()


main()
