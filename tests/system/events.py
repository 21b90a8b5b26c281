#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# Keyspace events: the same generated conversation goes to kvd and to Redis 7.0, each with every
# class of events switched on, and whoever listens to everything must hear the same, in the same
# order, after every single command. Between two commands a message of our own is published, so that
# each event is laid to the command that caused it. Environment: KVD_EVENTS_COMMANDS (how many),
# KVD_TEST_SEED, KVD_REDIS_SERVER.
#
# Apart from the order stands "expired" alone, for a key may end by itself between two commands, or,
# inside EXEC, be noticed only behind it: of those each round must have the same.
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'lib'))
from kvdtest import Connection, Kvd, Tap, seed  # noqa: E402
from redistest import Redis, redis_or_skip  # noqa: E402
from oracle_words import KEYS, Words  # noqa: E402

COMMANDS = int(os.environ.get('KVD_EVENTS_COMMANDS', '12000'))
ROUND = 100
SHOWN = 5
CLASSES = ('AKEnm', 'AKE', 'Kg$x')  # without n and m, fewer keys are looked at
NAMES = [name for name in (
    'append bitcount bitfield bitfield_ro bitop bitpos copy decr decrby del exists expire expireat '
    'expiretime get getbit getdel getex getrange getset incr incrby incrbyfloat lcs mget '
    'mset msetnx persist pexpire pexpireat pexpiretime psetex pttl rename renamenx set setbit '
    'setex setnx setrange strlen substr touch ttl type unlink').split()]


def conversation(rng, words, count):
    """Commands in an order that makes sense: transactions whole, keys that end in the past, and
    in the end a look at every key, so that both servers have noticed."""
    def some(number):
        made = [words.command() for _ in range(number)]
        # BITOP with nothing to store calls it "del" if its key had ended: Redis looks not.
        return [part for command in made for part in
                ([[b'GET', command[2]], command] if command[0] == b'bitop' else [command])]

    out = []
    while len(out) < count:
        choice = rng.random()
        if choice < 0.85:
            out += some(1)
        elif choice < 0.95:
            inside = some(rng.randrange(6))
            out += [[b'MULTI'], *inside, rng.choice([[b'EXEC'], [b'EXEC'], [b'DISCARD']])]
        else:
            out.append([b'SET', words.key(), b'v', b'PXAT', b'1'])
    return out + [[b'GET', key] for key in KEYS]


class Side:
    """One server: a connection that speaks, one that listens to everything."""

    def __init__(self, path):
        self.speaker, self.listener = Connection(path), Connection(path)
        self.listener.command('PSUBSCRIBE', '*')
        self.serial = 0

    def tell(self, commands):
        """Sends them, a mark behind each; a list of what was heard after each."""
        data = b''
        for n, command in enumerate(commands):
            data += Connection.encode(*command) + Connection.encode('PUBLISH', 'mark', str(n))
        self.speaker.send(data)
        return data

    def heard(self, commands):
        out = []
        inside = False
        for command in commands:
            self.speaker.reply()
            self.speaker.reply()
            inside = command[0] == b'MULTI' or inside and command[0] not in (b'EXEC', b'DISCARD')
            if inside:
                continue  # the mark was queued as well, and comes with EXEC
        want = len(commands) - 1
        now = []
        while True:
            _, _, channel, text = self.listener.reply()
            if channel == b'mark':
                out.append((int(text), now))
                now = []
                if int(text) == want:
                    return out
            else:
                now.append((channel, text))
        return out


def split(heard):
    """What was heard, less "expired", and those."""
    plain, expired = [], []
    for mark, events in heard:
        rest = []
        for channel, text in events:
            if text == b'expired' or channel.endswith(b':expired'):
                expired.append((channel, text))
            else:
                rest.append((channel, text))
        plain.append((mark, rest))
    return plain, sorted(expired)


def show(commands, mine, theirs):
    for a, b in zip(mine, theirs):
        if a != b:
            start = max(0, a[0] - 3)
            for command in commands[start:a[0] + 1]:
                Tap.diag('  ' + b' '.join(command).decode('latin-1')[:200])
            Tap.diag(f'    kvd   {a[1]}')
            Tap.diag(f'    redis {b[1]}')
            return
    Tap.diag(f'  marks differ: {[m for m, _ in mine]} and {[m for m, _ in theirs]}')


def compare(tap, kvd, redis, classes, rng):
    words = Words(rng, NAMES, 1, {})
    mine, theirs = Side(kvd.socket), Side(redis.socket)
    different, events, kinds = 0, 0, set()
    for side in (mine, theirs):
        side.speaker.command('FLUSHALL')
        side.speaker.command('CONFIG', 'SET', 'notify-keyspace-events', classes)
    for _ in range(0, COMMANDS // len(CLASSES), ROUND):
        commands = conversation(rng, words, ROUND)
        mine.tell(commands)
        theirs.tell(commands)
        a, a_expired = split(mine.heard(commands))
        b, b_expired = split(theirs.heard(commands))
        events += sum(len(part) for _, part in b)
        kinds |= {text for _, part in b for channel, text in part if b'keyspace@' in channel}
        if a != b or a_expired != b_expired:
            different += 1
            if different <= SHOWN:
                Tap.diag(f'expired: {a_expired} and {b_expired}' if a == b else 'a round differs:')
                show(commands, a, b)
        events += len(b_expired)
    tap.equal(different, 0, f'{classes}: the same {events} events in the same order')
    if classes != CLASSES[0]:
        return
    wanted = {b'set', b'expire', b'del', b'incrby', b'incrbyfloat', b'append', b'setrange', b'new',
              b'setbit', b'rename_from', b'rename_to', b'copy_to', b'persist', b'keymiss'}
    tap.equal(wanted - kinds, set(), 'of every name')


def own(tap, kvd):
    """What Redis has no words for: kvd's own commands and Valkey's."""
    side = Side(kvd.socket)
    side.speaker.command('FLUSHALL')
    for command, wanted in (
            ('KVD.SET own 1', ['new', 'set']), ('KVD.SET own 2 PX 100000', ['set', 'expire']),
            ('KVD.SET own 3 NX', []), ('KVD.CAS other 0 x', ['new', 'set']),
            ('KVD.CAS other 0 x', []), ('SET own 4 IFEQ 2', ['set']), ('SET own 4 IFEQ 3', []),
            ('DELIFEQ own 3', []), ('DELIFEQ own 4', ['del']), ('DELIFEQ own 4', [])):
        commands = [[word.encode() for word in command.split()]]
        side.tell(commands)
        heard = [text.decode() for _, part in side.heard(commands) for channel, text in part
                 if b'keyspace@' in channel]
        tap.equal(heard, wanted, f'{command}: {wanted or "nothing"}')


def refused(tap, kvd):
    """A write that is taken back is not told."""
    side = Side(kvd.socket)
    limit = int(side.speaker.command('CONFIG', 'GET', 'proto-max-bulk-len')[1])
    side.speaker.command('SET', 'large', b'x' * limit)
    side.listener.reply(), side.listener.reply()
    while side.listener.reply()[2] != b'__keyevent@0__:set':
        pass
    for command in ([b'APPEND', b'large', b'x'], [b'SETRANGE', b'none', b'%d' % limit, b'x'],
                    [b'INCR', b'large'], [b'RENAME', b'none', b'x']):
        side.tell([command])
        heard = side.heard([command])
        tap.equal(heard, [(0, [])], f'{command[0].decode()} that failed: no event')


def ended_in_exec(tap, kvd, redis, met, how):
    """A key whose time has come is met by a command and flushed by the same EXEC."""
    told = []
    for program in (kvd, redis):
        side = Side(program.socket)
        speaker = side.speaker
        speaker.command('CONFIG', 'SET', 'notify-keyspace-events', CLASSES[0])
        speaker.command('DEBUG', 'SET-ACTIVE-EXPIRE', '0')  # where it is allowed
        commands = [[b'SET', b'brief', b'1', b'PX', b'1']]
        side.tell(commands)
        side.heard(commands)
        second, micros = map(int, speaker.command('TIME'))
        until = second * 1000000 + micros + 3000
        while second * 1000000 + micros < until:
            second, micros = map(int, speaker.command('TIME'))
        commands = [[b'MULTI'], met, [b'FLUSHALL'], [b'EXEC']]
        side.tell(commands)
        told.append(split(side.heard(commands)))
        speaker.command('DEBUG', 'SET-ACTIVE-EXPIRE', '1')
    tap.equal(told[0][1], told[1][1], f'an EXEC that {how} an ended key and flushes: "expired"')
    tap.ok(len(told[0][1]) > 0, f'is told: {told[0][1]}')


def main():
    tap = Tap()
    rng = seed(1)
    program = redis_or_skip()
    with Redis(program) as redis, Kvd('--persist', 'memory', '--memory', '64MiB') as kvd:
        for classes in CLASSES:
            compare(tap, kvd, redis, classes, rng)
        with Connection(kvd.socket) as c:
            c.command('CONFIG', 'SET', 'notify-keyspace-events', CLASSES[0])
        ended_in_exec(tap, kvd, redis, [b'SET', b'brief', b'2'], 'writes')
        ended_in_exec(tap, kvd, redis, [b'GET', b'brief'], 'reads')
        own(tap, kvd)
        refused(tap, kvd)
    tap.done()


if __name__ == '__main__':
    main()
