# SPDX-License-Identifier: MIT
#
# Makes up commands from the forms of oracle_grammar.py: keys that collide often, values and numbers
# at the edges of what fits, options right and wrong. Whatever depends on two servers' clocks being
# equal is avoided, not excused.
from oracle_grammar import GRAMMAR

KEYS = [b'k%d' % i for i in range(8)] + [b'key with space', b'\x00\xff\r\n', b'K' * 511]
VALUES = [b'', b'0', b'1', b'-1', b'10', b'9223372036854775807', b'-9223372036854775808',
          b'9223372036854775808', b'-9223372036854775809', b'01', b' 1', b'1 ', b'+1', b'1.0',
          b'-0', b'abc', b'\r\n', b'\x00', b'\xff\xff\xff', b'\x00\xff\xf0', b'x' * 300,
          b'18446744073709551615', b'-', b'9' * 30, b'ohmytext', b'mynewtext', b'3.25', b'x' * 44,
          b'x' * 45, b'y' * 1000]
NUMBERS = [b'0', b'1', b'-1', b'2', b'5', b'10', b'100', b'-100', b'9223372036854775807',
           b'-9223372036854775808', b'9223372036854775808', b'-9223372036854775809', b'abc', b'',
           b'1.5', b'01', b' 3']
INDEXES = [b'0', b'1', b'-1', b'2', b'-2', b'3', b'7', b'8', b'-9', b'100', b'-100', b'299',
           b'2147483648', b'9223372036854775807', b'-9223372036854775808', b'9223372036854775808',
           b'abc', b'', b'1.0']
# Nothing between 1000 and 536870912: what is allowed there takes long and much memory.
OFFSETS = [b'0', b'1', b'2', b'5', b'10', b'300', b'1000', b'-1', b'536870912',
           b'4294967295', b'9223372036854775807', b'abc', b'']
BITS = [b'0', b'1', b'2', b'7', b'8', b'9', b'15', b'100', b'2399', b'2400', b'8000', b'-1',
        b'4294967296', b'9223372036854775807', b'9223372036854775808', b'abc', b'', b'#1']
FLOATS = [b'0', b'1', b'-1', b'0.1', b'-0.1', b'3.0', b'1e5', b'5e-3', b'1.5e100', b'-1.5e100',
          b'inf', b'-inf', b'nan', b'+inf', b'abc', b'', b' 1', b'1 ', b'0x10', b'1e-20',
          b'3.14159265358979', b'1e17', b'9223372036854775807', b'1.', b'.5', b'1e400', b'1e-400',
          b'123456789.123456789', b'0.30000000000000004']
TYPES = [b'u8', b'i8', b'u1', b'i1', b'u63', b'i64', b'i5', b'u16', b'i16', b'u4', b'u64', b'i65',
         b'u0', b'x8', b'i', b'', b'U8']
BAD_TIMES = [b'0', b'-1', b'-9223372036854775808', b'9223372036854775807', b'9223372036854775',
             b'9223372036854776', b'9223372036854775808', b'abc', b'', b'1.0', b'-5000']
PATTERNS = [b'*', b'k*', b'k?', b'k[1-3]', b'k[^1-3]', b'*\\*', b'[', b'k[', b'key*', b'zzz', b'?',
            b'k[5-', b'', b'**k**', b'k1']
CHANNELS = [b'news', b'news.a', b'sport', b'k1', b'', b'\x00\r\n', b'__keyspace@0__:k1',
            b'__keyspace@0__:k2', b'__keyevent@0__:set', b'__keyevent@0__:del',
            b'__keyevent@0__:expire']
CHANNEL_PATTERNS = [b'*', b'news*', b'news.?', b's[a-q]ort', b'__key*', b'__keyspace@0__:*',
                    b'__keyevent@0__:*', b'', b'[']
PREFIXES = [b'k', b'k1', b'k2', b'key', b'', b'zzz']
# No A with n: after a CONFIG SET that fails Redis has forgotten the n.
EVENTS = [b'KEA', b'KEA', b'KEg', b'KE$', b'K$', b'Eg', b'KEx', b'KEn', b'KEm', b'AKE', b'', b'g',
          b'Kgx$', b'KEd', b'KEt', b'K', b'KEg$xmn']
WORDS = [b'NX', b'XX', b'GET', b'KEEPTTL', b'EX', b'PX', b'EXAT', b'PXAT', b'PERSIST', b'GT', b'LT',
         b'nope', b'', b'nx', b'Get', b'*', b'abc', b'0', b'help', b'HELP']
DATABASES = [b'0', b'0', b'0', b'1', b'16', b'-1', b'abc', b'99999999999', b'']
CURSORS = [b'0', b'0', b'x', b'-', b'', b' 0', b'0x', b'99999999999999999999999', b'-1']
KINDS = [b'string', b'STRING', b'list', b'nope', b'']


class Id:
    """Stands for the number of a connection, which is known when the command is sent."""

    def __init__(self, connection):
        self.connection = connection

    def __repr__(self):
        return f'<number of connection {self.connection}>'


def parse(words):
    """A form as nested lists: ['all', ...], ['maybe', ...], ['one', ...], ['some', ...], words."""
    stack, closing = [['all']], {')': '(', ']': '[', '}': '{'}
    kinds = {'(': 'one', '[': 'maybe', '{': 'some'}
    for word in words:
        if word in kinds:
            stack.append([kinds[word]] + ([['all']] if word == '(' else []))
        elif word == '|':
            stack[-1].append(['all'])
        elif word in closing:
            done = stack.pop()
            if done[0] != kinds[closing[word]]:
                raise ValueError(f'{word} closes nothing in: {" ".join(words)}')
            (stack[-1][-1] if stack[-1][0] == 'one' else stack[-1]).append(done)
        else:
            into = stack[-1][-1] if stack[-1][0] == 'one' else stack[-1]
            if word == '+':
                into[-1] = ['many', into[-1]]
            else:
                into.append(word)
    if len(stack) != 1:
        raise ValueError(f'something stays open in: {" ".join(words)}')
    return stack[0]


class Words:
    """Makes up commands with one generator of random numbers. `names` are what may be made up, a
    subset of the grammar; `connections` how many there are to speak about; `factors` change
    weights of the grammar. While .fails is set, BITFIELD has OVERFLOW FAIL."""

    def __init__(self, rng, names, connections, factors):
        self.rng = rng
        self.connections = connections
        self.fails = False
        self.far = 2_000_000_000  # seconds; rises, so that no two expiries tie by accident
        self.names = sorted(names)
        self.weights = [GRAMMAR[name][0] * factors.get(name, 1) for name in self.names]
        self.forms = {name: parse(GRAMMAR[name][1].split()) for name in self.names}

    def command(self, without=()):
        name = self.rng.choices(self.names, self.weights)[0]
        while name in without:
            name = self.rng.choices(self.names, self.weights)[0]
        return [part.encode() for part in name.split('|')] + self.fill(self.forms[name])

    def fill(self, form):
        rng = self.rng
        if isinstance(form, str):
            if form[0] == '<' and form[-1] == '>':
                made = getattr(self, form[1:-1])()
                return made if isinstance(made, list) else [made]
            return [b'' if form == '""' else form.encode()]
        kind, parts = form[0], form[1:]
        if kind == 'one':
            return self.fill(rng.choice(parts))
        if kind == 'maybe' and rng.random() < 0.5:
            return []
        if kind == 'many':
            return [word for _ in range(rng.choice([1, 1, 2, 3, 5])) for word in
                    self.fill(parts[0])]
        if kind == 'some':
            parts = [part for part in parts if rng.random() < 0.35]
            rng.shuffle(parts)
        return [word for part in parts for word in self.fill(part)]

    def key(self):
        return self.rng.choice(KEYS)

    def value(self):
        if self.rng.random() < 0.4:
            return b'%d' % self.rng.randrange(-1000, 1000)
        return self.rng.choice(VALUES)

    def seconds(self, absolute=False):
        """A time far ahead, or a bad one."""
        if self.rng.random() < 0.2:
            return self.rng.choice(BAD_TIMES)
        if absolute:
            self.far += 1000
            return b'%d' % self.far
        return b'%d' % self.rng.randrange(10**4, 10**9)

    def milliseconds(self, absolute=False):
        value = self.seconds(absolute)
        return value + b'000' if value[:1] in b'123456789' and len(value) < 13 else value

    def unix(self):
        return self.seconds(True)

    def unix_ms(self):
        return self.milliseconds(True)

    def expiry(self):
        word = self.rng.choice([b'EX', b'PX', b'EXAT', b'PXAT'])
        absolute = word.endswith(b'AT')
        return [word, (self.seconds if word[:1] == b'E' else self.milliseconds)(absolute)]

    def field(self):
        """One operation of BITFIELD."""
        rng = self.rng
        kind, at = rng.choice(TYPES), rng.choice(BITS[:11] + [b'#0', b'#1', b'#7', b'-1', b'abc'])
        return rng.choice([[b'GET', kind, at], [b'SET', kind, at, rng.choice(NUMBERS)],
                           [b'INCRBY', kind, at, rng.choice(NUMBERS)],
                           [b'OVERFLOW', rng.choice([b'WRAP', b'SAT', b'sat', b'x'] +
                                                    [b'FAIL'] * self.fails)]])

    def id(self):
        return Id(self.rng.randrange(self.connections))


    def name(self):
        return self.rng.choice([name.encode() for name in self.names] + [b'nosuch', b'GET', b''])


def _choice(values):
    return lambda self: self.rng.choice(values)


for _name, _values in (
        ('number', NUMBERS), ('index', INDEXES), ('offset', OFFSETS), ('bit', BITS),
        ('float', FLOATS), ('type', TYPES), ('pattern', PATTERNS), ('channel', CHANNELS),
        ('channels', CHANNEL_PATTERNS), ('prefix', PREFIXES), ('events', EVENTS), ('word', WORDS),
        ('database', DATABASES), ('cursor', CURSORS), ('kind', KINDS)):
    setattr(Words, _name, _choice(_values))
