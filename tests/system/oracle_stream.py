# SPDX-License-Identifier: MIT
#
# Generated command streams for oracle.py: weighted towards what clients send, with every option,
# every mistake in options, and values at the edges of what fits a number.
KEYS = [b'k%d' % i for i in range(10)] + [b'key with space', b'\x00\xff\r\n', b'K' * 511]
VALUES = [b'', b'0', b'1', b'-1', b'10', b'9223372036854775807', b'-9223372036854775808',
          b'9223372036854775808', b'-9223372036854775809', b'01', b' 1', b'1 ', b'+1', b'1.0',
          b'-0',
          b'abc', b'\r\n', b'\x00', b'x' * 300, b'18446744073709551615', b'-', b'9' * 30]
NUMBERS = [b'0', b'1', b'-1', b'5', b'100', b'-100', b'9223372036854775807',
           b'-9223372036854775808',
           b'9223372036854775808', b'abc', b'', b'1.5', b'01', b' 3']
BAD_TIMES = [b'0', b'-1', b'-9223372036854775808', b'9223372036854775807', b'9223372036854775',
             b'9223372036854776', b'9223372036854775808', b'abc', b'', b'1.0', b'-5000']
PATTERNS = [b'*', b'k*', b'k?', b'k[1-3]', b'k[^1-3]', b'*\\*', b'[', b'k[', b'key*', b'zzz', b'?',
            b'k[5-', b'', b'**k**']
WORDS = [b'NX', b'XX', b'GET', b'KEEPTTL', b'EX', b'PX', b'EXAT', b'PXAT', b'PERSIST', b'GT', b'LT',
         b'nope', b'', b'nx', b'Get']

ARITY_NAMES = [name.encode() for name in (
    'append auth client|id client|list client|setname command command|count command|docs '
    'command|info command|list config|get dbsize decr decrby del discard echo exists expire '
    'expireat flushall flushdb get getdel getex hello incr incrby keys mget mset msetnx persist '
    'pexpire pexpireat ping psetex pttl quit scan select set setex setnx strlen time ttl type '
    'unlink info').split()]

# Not called with invented arguments: they close the connection, or run and answer what two servers
# cannot have in common.
ARITY_UNSAFE = {b'quit', b'command', b'command|count', b'command|docs', b'command|info',
                b'command|list', b'client|id', b'client|list', b'hello', b'info',
                b'time'}
ARITY_SAFE = [name for name in ARITY_NAMES if name not in ARITY_UNSAFE]


class Stream:
    """Generates commands. Whatever depends on two clocks being equal is avoided, not excused."""

    def __init__(self, rng):
        self.rng = rng
        self.far = 2_000_000_000  # seconds; rises, so that no two expiries tie by accident

    def key(self):
        return self.rng.choice(KEYS)

    def value(self):
        if self.rng.random() < 0.5:
            return b'%d' % self.rng.randrange(-1000, 1000)
        return self.rng.choice(VALUES)

    def seconds(self, absolute):
        """A time far ahead, or a bad one."""
        if self.rng.random() < 0.2:
            return self.rng.choice(BAD_TIMES)
        if absolute:
            self.far += 1000
            return b'%d' % self.far
        return b'%d' % self.rng.randrange(10**4, 10**9)

    def milliseconds(self, absolute):
        value = self.seconds(absolute)
        return value + b'000' if value[:1] in b'123456789' and len(value) < 13 else value

    def expiry(self):
        word = self.rng.choice([b'EX', b'PX', b'EXAT', b'PXAT'])
        absolute = word.endswith(b'AT')
        value = (self.seconds if word[:1] == b'E' else self.milliseconds)(absolute)
        if absolute and value.isdigit() and int(value) < 10**10:
            value = b'%d' % (self.far * (1 if word[:1] == b'E' else 1000))
        return [word, value]

    def options(self):
        out = []
        for _ in range(self.rng.randrange(4)):
            if self.rng.random() < 0.4:
                out += self.expiry()
            else:
                out.append(self.rng.choice(WORDS))
        return out

    def set(self):
        rng = self.rng
        if rng.random() < 0.3:
            return [[b'SET', self.key(), self.value()] + self.options()]
        out = [b'SET', self.key(), self.value()]
        parts = []
        if rng.random() < 0.4:
            parts.append([rng.choice([b'NX', b'XX'])])
        if rng.random() < 0.4:
            parts.append([b'GET'])
        if rng.random() < 0.6:
            parts.append(rng.choice([[b'KEEPTTL'], self.expiry(), self.expiry()]))
        rng.shuffle(parts)
        return [out + [word for part in parts for word in part]]

    def expire(self):
        word = self.rng.choice([b'EXPIRE', b'PEXPIRE', b'EXPIREAT', b'PEXPIREAT'])
        value = (self.milliseconds if word[:1] == b'P' else self.seconds)(word.endswith(b'AT'))
        out = [word, self.key(), value]
        for _ in range(self.rng.choice([0, 0, 0, 1, 1, 2, 3])):
            out.append(self.rng.choice([b'NX', b'XX', b'GT', b'LT', b'gt', b'nope']))
        return [out]

    def getex(self):
        out = [b'GETEX', self.key()]
        choice = self.rng.random()
        if choice < 0.4:
            out += self.expiry()
        elif choice < 0.6:
            out.append(b'PERSIST')
        elif choice < 0.8:
            out += self.options()
        return [out]

    def setex(self):
        if self.rng.random() < 0.5:
            return [[b'SETEX', self.key(), self.seconds(False), self.value()]]
        return [[b'PSETEX', self.key(), self.milliseconds(False), self.value()]]

    def counter(self):
        word = self.rng.choice([b'INCR', b'DECR', b'INCRBY', b'DECRBY'])
        out = [word, self.key()]
        return [out + [self.rng.choice(NUMBERS)] if word.endswith(b'BY') else out]

    def one(self):
        """Commands of a key alone."""
        return [[self.rng.choice([b'GET', b'GET', b'GETDEL', b'STRLEN', b'TYPE', b'PERSIST']),
                 self.key()]]

    def several(self):
        word = self.rng.choice([b'DEL', b'UNLINK', b'EXISTS', b'MGET', b'MSET', b'MSETNX'])
        out = [word]
        for _ in range(self.rng.randrange(1, 6)):
            out += [self.key(), self.value()] if word[:2] == b'MS' else [self.key()]
        return [out[:-1] if self.rng.random() < 0.05 and len(out) > 2 else out]

    def write(self):
        return self.rng.choice([
            lambda: [[b'SETNX', self.key(), self.value()]],
            lambda: [[b'APPEND', self.key(), self.value()]],
            lambda: [[b'SET', self.key(), self.value()]]])()

    def plain(self):
        """Everything that also runs inside MULTI and answers the same on both."""
        return self.rng.choices(
            [self.set, self.expire, self.getex, self.setex, self.counter, self.one, self.several,
             self.write, self.talk, self.wrong],
            [12, 8, 5, 3, 8, 12, 8, 8, 2, 3])[0]()

    def ttl(self):
        return [[self.rng.choice([b'TTL', b'PTTL']), self.key()]]

    def all_keys(self):
        out = [b'KEYS', self.rng.choice(PATTERNS)]
        return [self.rng.choice([out, [b'DBSIZE']])]

    def talk(self):
        rng = self.rng
        return [rng.choice([
            [b'PING'], [b'ping', self.value()], [b'PING', b'a', b'b'], [b'ECHO', self.value()],
            [b'SELECT', rng.choice([b'0', b'1', b'16', b'-1', b'abc', b'99999999999', b''])],
            [b'AUTH', b'secret'], [b'AUTH', b'default', b'x'], [b'AUTH', b'me', b'x'],
            [b'AUTH', b'a', b'b', b'c'], [b'CLIENT', b'GETNAME'],
            [b'CLIENT', b'SETNAME', rng.choice([b'me', b'', b'a b', b'x\n', b'n-1'])],
            [b'HELLO', rng.choice([b'1', b'4', b'abc', b''])],
            [b'HELLO', b'2', b'AUTH', b'nobody', b'x'], [b'HELLO', b'2', b'SETNAME', b'a b'],
            [b'HELLO', b'3', b'NOPE'], [b'HELLO', b'3', b'AUTH', b'default']])]

    def wrong(self):
        """Unknown names, wrong numbers of arguments, unknown subcommands."""
        rng = self.rng
        if rng.random() < 0.5:
            return [rng.choice(ARITY_SAFE).split(b'|') + [b'x'] * rng.randrange(0, 6)]
        return [rng.choice([
            [b'nosuch'], [b'NoSuch', b'a', b'b\r\nc'], [b'x' * 200, b'y' * 200, b'z'],
            [b'nosuch', b'a' * 60, b'b' * 60, b'c' * 60], [b''], [b'client|id'],
            [b'nosuch', b''], [b'CLIENT', b'NoSuch'], [b'config', b'nope', b'x'], [b'CLIENT'],
            [b'CLIENT', b'ID', b'x'], [b'CLIENT', b'SETNAME'], [b'CONFIG', b'GET'], [b'COMMAND',
                                                                                     b'x'],
            [b'COMMAND', b'COUNT', b'x'], [b'CLIENT', b'LIST', b'x'], [b'CLIENT', b'LIST', b'TYPE',
                                                                       b'x'],
            [b'CLIENT', b'LIST', b'ID', b'x'], [b'COMMAND', b'LIST', b'x'],
            [b'FLUSHALL', b'nope'], [b'FLUSHDB', b'ASYNC', b'x'], [b'SCAN', b'x'], [b'SCAN', b'-'],
            [b'SCAN', b'0', b'COUNT'], [b'SCAN', b'0', b'COUNT', b'0'], [b'SCAN', b'0', b'COUNT',
                                                                         b'x'],
            [b'SCAN', b'0', b'NOPE', b'x'], [b'SCAN', b'99999999999999999999999'],
            [b'SCAN', b' 0'], [b'SCAN', b'0x']])]

    def facts(self):
        return [self.rng.choice([
            [b'TIME'], [b'INFO'], [b'INFO', b'server'], [b'CLIENT', b'ID'], [b'CLIENT', b'INFO'],
            [b'CLIENT', b'LIST'], [b'COMMAND', b'INFO', self.rng.choice(ARITY_NAMES)],
            [b'COMMAND', b'INFO', b'nosuch'], [b'COMMAND', b'DOCS', b'nosuch'],
            [b'HELLO'], [b'TIME', b'x'], [b'HELLO', b'x', b'y'], [b'CONFIG', b'GET', b'appendonly'],
            [b'CONFIG', b'GET', b'save'],
            [b'CONFIG', b'GET', b'MaxMemory-Policy'], [b'CONFIG', b'GET', b'nosuch*', b'timeout']])]

    def flush(self):
        return [[self.rng.choice([b'FLUSHALL', b'FLUSHDB']),
                 *self.rng.choice([[], [b'SYNC'], [b'async']])]]

    def multi(self):
        out = [[b'MULTI']]
        for _ in range(self.rng.randrange(0, 8)):
            out += [[b'DBSIZE']] if self.rng.random() < 0.1 else self.plain()
        if self.rng.random() < 0.05:
            out.append([b'MULTI'])
        if self.rng.random() < 0.05:
            out += self.flush()
        last = self.rng.choice([[b'EXEC']] * 8 + [[b'DISCARD'], [b'EXEC', b'x']])
        out.append(last)
        if self.rng.random() < 0.1:
            out.append(self.rng.choice([[b'EXEC'], [b'DISCARD']]))
        return out

    def past(self):
        """A key that ends in the past, read at once so that both have noticed."""
        key = self.key()
        if self.rng.random() < 0.5:
            return [[b'SET', key, b'v'], [b'GETEX', key, b'PXAT', b'1'], [b'GET', key]]
        return [[b'SET', key, b'v', self.rng.choice([b'PXAT', b'EXAT']), b'1'], [b'GET', key]]

    def commands(self, count):
        out = []
        while len(out) < count:
            out += self.rng.choices(
                [self.plain, self.ttl, self.all_keys, self.facts, self.flush, self.multi,
                 self.past],
                [60, 6, 4, 2, 0.3, 6, 1])[0]()
        return out
