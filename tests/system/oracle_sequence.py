# SPDX-License-Identifier: MIT
#
# One sequence of the oracle: what up to four connections send, in which order and in which pieces.
# A sequence is its seed: the same number makes the same one.
import random

from oracle_exceptions import NOT_QUEUED
from oracle_words import KEYS, Words

# Few connections listen, for one that does may do little else (in RESP2).
LISTENING = {'subscribe': 0.03, 'psubscribe': 0.03, 'ssubscribe': 0.03, 'client|tracking': 0.2,
             'client|reply': 0.3, 'quit': 0.3}
LISTENING_MORE = 8
# Who listens hears of keys whose time is over, at moments that differ: in a sequence there are
# either listeners or such keys.
LISTENERS = ('subscribe', 'psubscribe', 'ssubscribe', 'client|tracking')
# Redis does not tell WATCH when BITFIELD made a value longer and all its operations failed; kvd
# compares versions. In a sequence there is either WATCH or OVERFLOW FAIL; oracle_edges.py has both.
TRANSACTION = 0.07
PAST = 0.015
ODD = 0.06
INLINE = 0.04


TIMED = (b'set', b'setex', b'psetex', b'getex', b'expire', b'pexpire', b'expireat', b'pexpireat')


class Command:
    """Words, and whether they go as a line of text instead of an array."""

    def __init__(self, words, inline=False):
        self.words = words
        self.inline = inline

    def name(self):
        return self.words[0].upper() if isinstance(self.words[0], bytes) else b''

    def starts(self, *words):
        """Does it begin so, in whatever case?"""
        return [word.lower() for word in self.words[:len(words)]
                if isinstance(word, bytes)] == list(words)

    def encode(self, ids):
        words = [word if isinstance(word, bytes) else b'%d' % ids[word.connection]
                 for word in self.words]
        if self.inline:
            return b' '.join(quoted(word) for word in words) + b'\r\n'
        return b'*%d\r\n' % len(words) + b''.join(b'$%d\r\n%b\r\n' % (len(word), word)
                                                   for word in words)

    def __str__(self):
        def short(word):
            if not isinstance(word, bytes):
                return repr(word)
            text = word.decode('latin-1')
            if text and all(c.isalnum() or c in '-_.:*?+[]<>^ #!|' for c in text) and \
                    ' ' not in text and len(text) < 60:
                return text
            return repr(word)[1:] if len(word) < 60 else f'{word[:20]!r}... ({len(word)} bytes)'
        return ' '.join(short(word) for word in self.words) + ('  (inline)' if self.inline else '')


def quoted(word):
    """A word as inline commands have it."""
    return b'"' + b''.join(b'\\x%02x' % c if c < 32 or c > 126 or c in b'"\\' else bytes([c])
                           for c in word) + b'"'


class Step:
    """What one connection sends at once."""

    def __init__(self, connection, commands):
        self.connection = connection
        self.commands = commands

    def __str__(self):
        return '\n'.join(f'connection {self.connection}: {command}' for command in self.commands)


class Script:
    """What one connection sends, in order."""

    def __init__(self, rng, names, connections, listening, quiet, fails):
        weights = {name: factor if not listening else LISTENING_MORE
                   for name, factor in LISTENING.items()}
        if quiet:
            weights.update((name, 0) for name in LISTENERS)
        if fails:
            weights['watch'] = 0
        self.rng = rng
        self.quiet = quiet
        self.words = Words(rng, names, connections, weights)
        self.words.fails = fails
        self.queueing = self.muted = False
        self.has_transactions = {'multi', 'exec', 'watch'} <= set(names)

    def odd(self, words):
        """The same with a mistake in it."""
        rng, words = self.rng, list(words)
        what = rng.randrange(7)
        if words[0] in TIMED and what in (2, 3):
            what = 1  # a time so short that two servers' clocks would decide
        if what == 0 and len(words) > 1:
            words.pop()
        elif what == 1:
            words.append(self.words.word())
        elif what == 2 and len(words) > 1:
            words[rng.randrange(1, len(words))] = self.words.value()
        elif what == 3 and len(words) > 2:
            a, b = rng.sample(range(1, len(words)), 2)
            words[a], words[b] = words[b], words[a]
        elif what == 4 and len(words) > 1:
            words.insert(rng.randrange(1, len(words) + 1), rng.choice(words[1:]))
        elif what == 5:
            words[0] = bytes(c ^ 32 if rng.random() < 0.5 and 65 <= c & 95 <= 90 else c
                             for c in words[0])
        else:
            words = [rng.choice([b'nosuch', b'', b'x' * 200, b'get|', b'NoSuch\r\nx'])] + words[1:]
        # kvd has no empty and no longer keys, and no long names of connections.
        longest = 100 if words[0].lower() in (b'client', b'hello') else 511
        return words[:1] + [(word or b'-')[:longest] if isinstance(word, bytes) else word
                            for word in words[1:]]

    def one(self):
        without = NOT_QUEUED if self.queueing else ()
        words = self.words.command([*without, 'quit'] if self.muted else without)
        # CLIENT KILL with a word too few ends connections that are not ours.
        if self.rng.random() < ODD and words[1:2] != [b'kill']:
            words = self.odd(words)
        self.queueing = words[0].upper() == b'MULTI' or (
            self.queueing and words[0].upper() not in (b'EXEC', b'DISCARD', b'RESET', b'QUIT'))
        inline = self.rng.random() < INLINE and len(b''.join(
            word for word in words if isinstance(word, bytes))) < 1000
        command = Command(words, inline)
        # With replies off Redis forgets to close after QUIT.
        self.muted = self.muted or command.starts(b'client', b'reply')
        return command

    def transaction(self):
        rng = self.rng
        out = []
        if rng.random() < 0.5 and not self.words.fails:
            out.append(Command([b'WATCH', *rng.sample(KEYS, rng.choice([1, 1, 2, 4]))]))
            out += [self.one() for _ in range(rng.choice([0, 0, 1, 3]))]
        out.append(Command([b'MULTI']))
        self.queueing = True
        out += [self.one() for _ in range(rng.choice([0, 1, 2, 3, 5, 8]))]
        out.append(Command([rng.choice([b'EXEC'] * 6 + [b'DISCARD'])]))
        self.queueing = False
        return out

    def past(self):
        """A key that ends in the past, looked at at once so that both have noticed."""
        key = self.words.key()
        last = self.rng.choice([[b'GET', key], [b'EXISTS', key, key], [b'STRLEN', key]])
        return [Command(words) for words in self.rng.choice([
            [[b'SET', key, b'v'], [b'GETEX', key, b'PXAT', b'1'], last],
            [[b'SET', key, b'v', b'PXAT', b'1'], last], [[b'SET', key, b'v', b'EXAT', b'1'], last],
            [[b'SET', key, b'v'], [b'PEXPIREAT', key, b'1'], last]])]

    def commands(self, count):
        out = []
        if self.rng.random() < 0.5:
            out.append(Command([b'HELLO', b'3']))
        while len(out) < count:
            chance = self.rng.random()
            if chance < TRANSACTION and self.has_transactions:
                out += self.transaction()
            elif chance < TRANSACTION + PAST and self.quiet and not self.queueing:
                out += self.past()
            else:
                out.append(self.one())
        return out


def sequence(seed, names, length=80):
    """Steps of the sequence `seed`."""
    rng = random.Random(seed)
    connections = rng.choice([1, 1, 2, 3, 4])
    scripts, quiet, fails = {}, rng.random() < 0.5, rng.random() < 0.3
    for i in range(connections):
        listening = i > 0 and not quiet and rng.random() < 0.6
        script = Script(rng, names, connections, listening, quiet, fails)
        scripts[i] = script.commands(rng.randrange(5, length) // (2 if listening else 1))
    largest = rng.choice([1, 1, 4, 40])
    steps = []
    while scripts:
        i = rng.choice(sorted(scripts))
        count = rng.randrange(1, largest + 1)
        steps.append(Step(i, scripts[i][:count]))
        del scripts[i][:count]
        if not scripts[i]:
            del scripts[i]
    return steps
