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


def near(milliseconds):
    """Integers that come from two clocks."""
    def rule(mine, theirs):
        if mine[:1] != b':' or theirs[:1] != b':':
            return False
        a, b = int(mine[1:]), int(theirs[1:])
        return min(a, b) >= 0 and abs(a - b) <= milliseconds
    return rule


def any_order(mine, theirs):
    """Flat arrays."""
    return same_kind(mine, theirs, b'*~') and \
        sorted(map(repr, parse(mine))) == sorted(map(repr, parse(theirs)))


def same_kind(mine, theirs, kinds=b'+:$*_%~=,#('):
    """Only the kind of reply; errors must be the same."""
    return mine[:1] in kinds and mine[:1] == theirs[:1]


def cut_error(mine, theirs):
    """The same error as far as it goes."""
    return len(mine) > 128 and mine[:1] == b'-' and theirs.startswith(mine[:-2].rstrip(b"'"))


def null_or_same_kind(mine, theirs):
    """Both null or both a value."""
    nulls = (b'_', b'$-', b'*-')
    return mine.startswith(nulls) == theirs.startswith(nulls) and same_kind(mine, theirs)


def null_or_alike(mine, theirs):
    """Nothing in kvd, or a value of the same kind."""
    return mine.startswith((b'_', b'$-')) or null_or_same_kind(mine, theirs)


def anything(_mine, _theirs):
    """Whatever comes."""
    return True


def any_text(mine, theirs):
    """Arrays of text in our own words."""
    return same_kind(mine, theirs, b'*') and all(isinstance(line, str) for line in parse(mine))


def same_names(mine, theirs):
    """Names with something behind each, in any order."""
    if not same_kind(mine, theirs, b'*%'):
        return False
    a, b = parse(mine), parse(theirs)
    return set(a) == set(b) if isinstance(a, dict) else set(a[::2]) == set(b[::2])


def hello(mine, theirs):
    """The same names in the same order, and the same values but for who answers and its number."""
    if not same_kind(mine, theirs, b'*%'):
        return False
    a, b = parse(mine), parse(theirs)
    if isinstance(a, list):
        a, b = dict(zip(a[::2], a[1::2])), dict(zip(b[::2], b[1::2]))
    own = (b'server', b'version', b'kvd_version')
    return {name: a[name] for name in a if name not in own} == \
        {name: b[name] for name in b if name not in own}


SHARD_CHANNELS = (b'spublish', b'ssubscribe', b'sunsubscribe')
NO_FUNCTIONS = (b'function|delete', b'function|flush')


def facts(entry):
    """Of one command in COMMAND INFO, up to its categories: tips and details of key specifications
    are not kept. Channels of shards are no keys here, and nothing is written without functions."""
    if entry is None:
        return None
    name, arity, flags, *keys, categories = entry[:7]
    if name in SHARD_CHANNELS:
        keys = None
    if name in NO_FUNCTIONS:
        flags, categories = ([word for word in words if not word.endswith('write')]
                             for words in (flags, categories))
    return [name, arity, flags, keys, categories]


def known_about(mine, theirs):
    """COMMAND INFO."""
    return same_kind(mine, theirs, b'*') and \
        list(map(facts, parse(mine))) == list(map(facts, parse(theirs)))


def encoding(mine, theirs):
    """Of strings."""
    names = (b'int', b'embstr', b'raw')
    return parse(mine) in names and parse(theirs) in names


CLIENT_FIELDS = ('id', 'name', 'db', 'sub', 'psub', 'multi', 'cmd', 'resp', 'redir', 'user')


def clients(mine, theirs):
    """Lines about connections: of those that have the same number in both, the fields that kvd
    has and Redis 7.0 knows for certain."""
    if not same_kind(mine, theirs, b'$='):
        return False
    tables = []
    for data in (mine, theirs):
        text = parse(data).decode('latin-1').removeprefix('txt:').rstrip('\n')
        lines = [dict(field.partition('=')[::2] for field in line.split(' '))
                 for line in text.split('\n')]
        tables.append({line.get('id'): line for line in lines})
    for line in [*tables[0].values(), *tables[1].values()]:
        if line.get('multi', '-1') != '-1':
            line['multi'] = 'open'  # Redis queues nothing more once a watched key has changed
    a, b = tables
    return len(a) == len(b) and all(
        a[number].get(field, b[number].get(field)) == b[number].get(field)
        for number in a.keys() & b.keys() for field in CLIENT_FIELDS)


# Beginning of the command (a regular expression, case counts not), what is compared, why.
EXCEPTIONS = [
    (r'PTTL |PEXPIRETIME ', near(5000), 'two servers, two moments'),
    (r'TTL |EXPIRETIME ', near(5), 'two servers, two moments'),
    (r'TIME $|SLOWLOG (GET|LEN)', same_kind, 'two servers, two moments'),
    (r'KEYS |PUBSUB (SHARD)?CHANNELS', any_order, 'tables differ, and so their order'),
    (r'DBSIZE $', near(8), 'keys whose time is over leave at other moments'),
    (r'RANDOMKEY $', null_or_same_kind, 'random'),
    (r'CONFIG SET \S+ [^ ]*\x00', anything, 'Redis reads a value up to its first zero byte'),
    (r'SCAN \x00', anything, 'Redis reads a cursor up to its first zero byte'),
    (r'SCAN ', same_kind, 'tables differ; oracle_edges.py follows scans to their end'),
    (r'HELLO', hello, 'kvd names itself and its version'),
    (r'CLIENT (INFO|LIST)', clients, 'addresses, ages, sizes'),
    (r'COMMAND INFO ', known_about, 'as facts() tells'),
    (r'OBJECT (REFCOUNT|IDLETIME) ', same_kind, 'small numbers are one shared value in Redis'),
    (r'OBJECT ENCODING ', encoding, 'kvd tells how Redis keeps a value that is SET'),
    (r'ACL (CAT|LIST) |LOLWUT|LASTSAVE|ROLE|MEMORY STATS ', same_kind,
     'other facts'),
    (r'ACL LOG ', same_kind, 'kvd keeps no list of failed AUTHs'),
    (r'FUNCTION (STATS|DUMP) $', same_kind, 'kvd has no engine for functions'),
    (r'P?EXPIRE|CONFIG SET ', cut_error, 'a long word in an error text is cut'),
    (r'COMMAND DOCS \S', same_names, 'help is in words of our own'),
    (r'COMMAND (COUNT |LIST |DOCS $|INFO $|$)', same_kind, 'Redis has more commands'),
    (r'\w+ HELP $', any_text, 'help is in words of our own'),
    (r'(MEMORY|LATENCY) DOCTOR|LATENCY GRAPH', same_kind, 'advice is in words of our own'),
    (r'INFO', null_or_same_kind, 'other facts'),
    (r'MEMORY USAGE ', null_or_alike, 'other facts, and Redis tells of keys whose time is over'),
    (r'CONFIG GET ', same_kind, 'kvd has options of its own'),
]

BROKEN = 'Redis breaks the array that it announced'
CHANGES = BROKEN + ': pushes of any number stand in it, and the mode of the connection changes'
# What is not sent between MULTI and EXEC, so that nothing of it is compared there, and why.
NOT_QUEUED = {
    'client|reply': BROKEN + ': what CLIENT REPLY silences has no element, so the replies behind '
                    'EXEC are taken for elements; in kvd it has one (PROTOCOL.md, "No replies")',
    'client|kill': BROKEN + ' if it is of its own connection',
    'client|tracking': 'a change is told after the whole transaction in kvd',
    'hello': BROKEN + ' in one protocol and goes on in the other',
    **dict.fromkeys(('subscribe', 'psubscribe', 'ssubscribe', 'unsubscribe', 'punsubscribe',
                     'sunsubscribe'), CHANGES),
}
# The order in which UNSUBSCRIBE and its kin without names leave the channels is that of a hash
# table in Redis, another one at each start, and that of subscribing in kvd: settled() in
# oracle_run.py sorts the names and compares the counts, which fall by one, where they stand.


RULES = [(re.compile(pattern, re.IGNORECASE), rule) for pattern, rule, _ in EXCEPTIONS]


def allows(rule, mine, theirs):
    """A rule that was not made for such replies does not allow them."""
    try:
        return rule(mine, theirs)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return False


def alike(commands, mine, theirs):
    """Whether two different replies to one of these commands are among the exceptions."""
    for words in commands:
        text = b' '.join(word for word in words if isinstance(word, bytes)).decode('latin-1') + ' '
        for pattern, rule in RULES:
            if pattern.match(text) and allows(rule, mine, theirs):
                return True
    return False
