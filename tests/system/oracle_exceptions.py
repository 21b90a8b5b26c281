# SPDX-License-Identifier: MIT
#
# In what kvd may answer otherwise than Redis 7.0, and why: the one table of exceptions. All that it
# does not name must be the same bytes. A rule sees both replies as they came.
import re

from kvdtest import Connection


class Bytes(Connection):
    """Parses bytes that are here already."""

    def __init__(self, data):
        self.buffer, self.at = data, 0

    def _more(self):
        raise EOFError


def parse(data):
    return Bytes(data).reply()


def bulks(data):
    reply = parse(data)
    return reply if isinstance(reply, list) else [reply]


def near(milliseconds):
    """Integers that come from two clocks."""
    def rule(mine, theirs):
        if mine[:1] != b':' or theirs[:1] != b':':
            return False
        a, b = int(mine[1:]), int(theirs[1:])
        return min(a, b) >= 0 and abs(a - b) <= milliseconds
    return rule


def any_order(mine, theirs):
    """Flat arrays of bulk strings."""
    return mine[:1] == theirs[:1] and mine[:1] in b'*~' and sorted(bulks(mine)) == \
        sorted(bulks(theirs))


def pairs_any_order(mine, theirs):
    """Flat arrays and maps of name and number."""
    if mine[:1] != theirs[:1] or mine[:1] not in b'*%':
        return False
    a, b = parse(mine), parse(theirs)
    if isinstance(a, dict):
        return a == b
    return sorted(zip(a[::2], a[1::2])) == sorted(zip(b[::2], b[1::2]))


def same_kind(mine, theirs):
    """Only the kind of reply; errors must be the same."""
    return b'-' not in (mine[:1], theirs[:1]) and mine[:1] == theirs[:1]


def null_or_same_kind(mine, theirs):
    """Both null or both a value."""
    nulls = (b'_', b'$-', b'*-')
    return mine.startswith(nulls) == theirs.startswith(nulls) and same_kind(mine, theirs)


def any_text(mine, theirs):
    """Arrays of text in our own words."""
    return same_kind(mine, theirs) and all(isinstance(line, str) for line in parse(mine))


def hello(mine, theirs):
    """The same names in the same order, and the same values but for who answers and its number."""
    if not same_kind(mine, theirs):
        return False
    a, b = parse(mine), parse(theirs)
    if isinstance(a, list):
        a, b = dict(zip(a[::2], a[1::2])), dict(zip(b[::2], b[1::2]))
    own = (b'server', b'version', b'kvd_version')
    return {name: a[name] for name in a if name not in own} == \
        {name: b[name] for name in b if name not in own}


def known_about(mine, theirs):
    """COMMAND INFO of commands up to their categories."""
    if not same_kind(mine, theirs):
        return False
    a, b = parse(mine), parse(theirs)
    return len(a) == len(b) and all(x == y if None in (x, y) else x[:7] == y[:7]
                                    for x, y in zip(a, b))


CLIENT_FIELDS = ('id', 'name', 'db', 'sub', 'psub', 'multi', 'cmd', 'resp', 'redir', 'user')


def clients(mine, theirs):
    """Lines about connections: of those that have the same number in both, the fields that kvd
    has and Redis 7.0 knows for certain."""
    if not same_kind(mine, theirs):
        return False
    tables = []
    for data in (mine, theirs):
        lines = [dict(field.partition('=')[::2] for field in line.split(' '))
                 for line in parse(data).decode('latin-1').removeprefix('txt:').rstrip('\n').split('\n')]
        tables.append({line.get('id'): line for line in lines})
    a, b = tables
    return len(a) == len(b) and all(
        a[number].get(field, b[number].get(field)) == b[number].get(field)
        for number in a.keys() & b.keys() for field in CLIENT_FIELDS)


# Beginning of the command (a regular expression, case counts not), what is compared, why.
EXCEPTIONS = [
    (r'PTTL |PEXPIRETIME ', near(5000), 'two servers, two moments'),
    (r'TTL |EXPIRETIME |OBJECT IDLETIME', near(5), 'two servers, two moments'),
    (r'TIME $|SLOWLOG (GET|LEN)', same_kind, 'two servers, two moments'),
    (r'KEYS |PUBSUB (SHARD)?CHANNELS', any_order, 'tables differ, and so their order'),
    (r'RANDOMKEY $', null_or_same_kind, 'random'),
    (r'SCAN ', same_kind, 'tables differ; oracle_edges.py follows scans to their end'),
    (r'HELLO', hello, 'kvd names itself and its version'),
    (r'CLIENT (INFO|LIST)', clients, 'addresses, ages, sizes'),
    (r'COMMAND INFO ', known_about, 'tips and details of key specifications are not kept'),
    (r'COMMAND (COUNT |LIST |$)', same_kind, 'Redis has more commands'),
    (r'\w+ HELP $', any_text, 'help is in words of our own'),
    (r'(MEMORY|LATENCY) DOCTOR|LATENCY GRAPH', same_kind, 'advice is in words of our own'),
    (r'INFO|MEMORY USAGE ', null_or_same_kind, 'other facts'),
    (r'CONFIG GET ', same_kind, 'kvd has options of its own'),
]
RULES = [(re.compile(pattern, re.IGNORECASE), rule) for pattern, rule, _ in EXCEPTIONS]


def rules_for(words):
    text = b' '.join(word for word in words if isinstance(word, bytes)).decode('latin-1') + ' '
    return [rule for pattern, rule in RULES if pattern.match(text)]


def alike(commands, mine, theirs):
    """Whether two different replies to one of these commands are among the exceptions."""
    return any(rule(mine, theirs) for words in commands for rule in rules_for(words))
