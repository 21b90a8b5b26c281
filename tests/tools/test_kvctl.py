# SPDX-License-Identifier: MIT
#
# Every verb of kvctl against a kvd: what it prints, plain and as JSON, its exit status, and what it
# says when something is wrong.
import json
import os
import socket
import subprocess

from bridge import Bridge
from kvdtest import KVCTL_PROGRAM, Kvd, Tap
from terminal import on_terminal, terminal_refused

RESERVED = 8  # KVS_CLIENTS_RESERVED of shm/limits.h: this user is kvd's own, and has them
BINARY = bytes(range(256)) * 3
CLOCK_MS = 10  # mapped reads look at the coarse clock, which runs behind


def run(*args, stdin=b'', env=None):
    return subprocess.run([KVCTL_PROGRAM, *args], input=stdin, capture_output=True, check=False,
                          timeout=60, env={**os.environ, **(env or {})})


def values(tap, kvd):
    tap.equal(kvd.kvctl('set', 'a', 'one').returncode, 0, 'set')
    got = kvd.kvctl('get', 'a')
    tap.equal((got.returncode, got.stdout), (0, b'one'), 'A: get in a pipe adds nothing')
    tap.equal(kvd.kvctl('set', 'bin', '-', stdin=BINARY).returncode, 0, 'set from standard input')
    for via in ('shm', 'socket'):
        got = kvd.kvctl('get', 'bin', '--via', via)
        tap.equal((got.returncode, got.stdout), (0, BINARY), f'binary comes back via {via}')
        got = json.loads(kvd.kvctl('--json', 'get', 'a', '--via', via).stdout)
        version = got.pop('version')
        tap.equal(got, {'key': 'a', 'found': True, 'value': 'one', 'via': via}, f'JSON via {via}')
        tap.ok(version > 0, 'with its version')
    path = os.path.join(kvd.root, 'value')
    tap.equal(kvd.kvctl('get', 'bin', '-o', path).returncode, 0, 'get to a file')
    with open(path, 'rb') as file:
        tap.equal(file.read(), BINARY, 'the file has the bytes')
    tap.equal(kvd.kvctl('set', 'copy', '--file', path).returncode, 0, 'set from a file')
    tap.equal(kvd.kvctl('get', 'copy').stdout, BINARY, 'the value has its bytes')
    tap.equal(kvd.kvctl('set', 'empty', '').returncode, 0, 'set an empty value')
    tap.equal(kvd.kvctl('get', 'empty').stdout, b'', 'get it')
    large = os.urandom(3 << 20)
    tap.equal(kvd.kvctl('set', 'large', '-', stdin=large).returncode, 0, 'set 3 MiB')
    tap.ok(kvd.kvctl('get', 'large').stdout == large, 'get 3 MiB')


def missing(tap, kvd):
    got = kvd.kvctl('get', 'nothing')
    tap.equal((got.returncode, got.stdout), (1, b''), 'get of no key: status 1')
    tap.ok(b"no key 'nothing'" in got.stderr, 'it is said')
    tap.equal(kvd.kvctl('-q', 'get', 'nothing').stderr, b'', 'not with --quiet')
    got = kvd.kvctl('--json', 'get', 'nothing')
    tap.equal((got.returncode, json.loads(got.stdout)), (1, {'key': 'nothing', 'found': False}),
              'JSON of no key')
    got = kvd.kvctl('mget', 'a', 'nothing', 'bin')
    lines = got.stdout.split(b'\n')
    tap.equal((got.returncode, len(lines), lines[0]), (1, 3, b'a\tone'), 'mget: one line a key')
    tap.ok(lines[1].startswith(rb'bin' + b'\t' + rb'\x00\x01') and rb'\t\n\x0b' in lines[1],
           'bytes are escaped')
    got = kvd.kvctl('--json', 'mget', 'a', 'nothing')
    tap.equal([json.loads(line)['found'] for line in got.stdout.splitlines()], [True, False],
              'mget as JSON')
    for verb in (('ttl', 'nothing'), ('expire', 'nothing', '1s'), ('del', 'nothing')):
        tap.equal(kvd.kvctl(*verb).returncode, 1, f'{verb[0]} of no key: status 1')
    got = kvd.kvctl('--json', 'del', 'empty', 'nothing')
    tap.equal((got.returncode, json.loads(got.stdout)), (1, {'deleted': 1, 'absent': 1}),
              'del counts both')
    tap.equal(kvd.kvctl('del', 'copy').returncode, 0, 'del')


def conditions(tap, kvd):
    tap.equal(kvd.kvctl('set', 'a', 'x', '--if-absent').returncode, 1, 'if-absent of a key: 1')
    tap.equal(kvd.kvctl('get', 'a').stdout, b'one', 'it is untouched')
    tap.equal(kvd.kvctl('set', 'new', 'x', '--if-absent').returncode, 0, 'if-absent of no key')
    tap.equal(kvd.kvctl('set', 'new2', 'x', '--if-present').returncode, 1,
              'if-present of no key: 1')
    tap.equal(kvd.kvctl('set', 'new', 'y', '--if-present').returncode, 0, 'if-present of a key')
    version = json.loads(kvd.kvctl('--json', 'get', 'new').stdout)['version']
    wrong = kvd.kvctl('--json', 'set', 'new', 'z', '--if-version', version + 1)
    tap.equal((wrong.returncode, json.loads(wrong.stdout)), (1, {'key': 'new', 'applied': False}),
              'if-version of another version: 1')
    right = json.loads(kvd.kvctl('--json', 'set', 'new', 'z', '--if-version', version).stdout)
    tap.ok(right['applied'] and right['version'] > version, 'if-version of this version')
    tap.equal(json.loads(kvd.kvctl('--json', 'get', 'new').stdout)['version'], right['version'],
              'the version told is the one got')
    tap.equal(kvd.kvctl('set', 'v0', 'x', '--if-version', 0).returncode, 0, 'version 0 is absent')
    tap.equal(kvd.kvctl('set', 'v0', 'x', '--if-version', 0).returncode, 1, 'but only once')


def times(tap, kvd):
    tap.equal(kvd.kvctl('ttl', 'a').stdout, b'-1\n', 'ttl: none')
    kvd.kvctl('set', 'short', 'x', '--ttl', '90s')
    tap.ok(80000 < int(kvd.kvctl('ttl', 'short').stdout) <= 90000 + CLOCK_MS, 'ttl in ms')
    tap.ok(0 < json.loads(kvd.kvctl('--json', 'ttl', 'short').stdout)['ttl_ms'] <= 90000 + CLOCK_MS,
           'ttl as JSON')
    kvd.kvctl('set', 'short', 'y', '--keep-ttl')
    tap.ok(0 < int(kvd.kvctl('ttl', 'short').stdout) <= 90000 + CLOCK_MS, 'keep-ttl keeps it')
    kvd.kvctl('expire', 'short', 'none')
    tap.equal(kvd.kvctl('ttl', 'short').stdout, b'-1\n', 'expire none takes it away')
    tap.equal(kvd.kvctl('expire', 'short', '2h').returncode, 0, 'expire')
    tap.ok(7100000 < int(kvd.kvctl('ttl', 'short').stdout) <= 7200000 + CLOCK_MS, 'sets it')
    kvd.kvctl('expire', 'short', '0')
    tap.equal(kvd.kvctl('get', 'short').returncode, 1, 'expire 0 removes')
    tap.equal(kvd.kvctl('incr', 'n').stdout, b'1\n', 'incr of no key')
    tap.equal(kvd.kvctl('incr', 'n', '-5').stdout, b'-4\n', 'incr by a negative number')
    tap.equal(json.loads(kvd.kvctl('--json', 'incr', 'n', '10').stdout), {'key': 'n', 'value': 6},
              'incr as JSON')
    got = kvd.kvctl('incr', 'a')
    tap.ok(got.returncode == 1 and b'not an integer' in got.stderr, 'incr of text: status 1')


def server(tap, kvd):
    odd = b'k\t\xff'
    kvd.connect().command('SET', odd, 'x')
    keys = kvd.kvctl('scan').stdout.split(b'\n')[:-1]
    tap.ok(rb'k\t\xff' in keys and b'a' in keys, 'scan lists keys, escaped')
    tap.equal(len(keys), kvd.connect().command('DBSIZE'), 'all of them')
    tap.equal(int(kvd.kvctl('scan', '--count').stdout), len(keys), 'scan --count')
    tap.equal(sorted(kvd.kvctl('scan', 'n*').stdout.split()), [b'n', b'new'], 'scan of a pattern')
    tap.equal(json.loads(kvd.kvctl('--json', 'scan', 'n*', '-c').stdout), {'count': 2}, 'and count')
    raw = [json.loads(line) for line in kvd.kvctl('--json', 'scan').stdout.splitlines()]
    tap.ok({'key_b64': 'awn/'} in raw and {'key': 'a'} in raw, 'scan as JSON lines')
    rows = dict(line.split(b'\t') for line in kvd.kvctl('stats').stdout.splitlines())
    tap.ok(any(name.split(b'.')[-1] == b'keys' and value == str(len(keys)).encode()
               for name, value in rows.items()), 'stats: names and values, keys too')
    some = dict(line.split(b'\t') for line in kvd.kvctl('stats', '*memory_*').stdout.splitlines())
    tap.ok(some and set(some) < set(rows) and all(b'memory_' in name for name in some),
           'stats of a pattern')
    for pattern in ('memory_*', 'counters.memory_*'):
        got = dict(line.split(b'\t') for line in kvd.kvctl('stats', pattern).stdout.splitlines())
        tap.ok(b'counters.memory_used_bytes' in got and
               all(name.startswith(b'counters.memory_') for name in got),
               f'stats of {pattern}, a counter\'s name with or without what is in front')
    tap.ok(isinstance(json.loads(kvd.kvctl('--json', 'stats').stdout), dict), 'stats as JSON')
    rows = dict(line.split(b'\t') for line in kvd.kvctl('memory').stdout.splitlines())
    told = json.loads(kvd.kvctl('--json', 'memory').stdout)
    tap.equal(rows[b'segments.allowed'], b'%d' % told['segments']['allowed'],
              'memory: segments by state, as rows and as JSON')
    tap.ok(told['records']['live_bytes'] > 0 and told['own_bytes'] > 0 and
           told['in_the_way'] == 'nothing' and
           told['write_amplification_percent'] >= 100, 'memory: what is live, and what is not')
    clients = kvd.kvctl('clients').stdout.splitlines()
    header = clients[0].split(b'\t')
    tap.ok(b'id' in header and len(clients) >= 2, 'clients: a header and a row each')
    tap.ok(any(b'kvctl' in row.split(b'\t') for row in clients[1:]), 'kvctl is there by name')
    rows = [json.loads(line) for line in kvd.kvctl('--json', 'clients').stdout.splitlines()]
    tap.ok(any(row.get('name') == 'kvctl' for row in rows), 'clients as JSON')
    tap.ok(kvd.kvctl('ping').stdout.startswith(b'PONG '), 'ping')
    tap.ok(json.loads(kvd.kvctl('--json', 'ping').stdout)['ok'], 'ping as JSON')
    got = kvd.kvctl('flush')
    tap.ok(got.returncode == 2 and b'--yes' in got.stderr, 'flush in a pipe wants --yes')
    tap.equal(kvd.kvctl('flush', '--yes').returncode, 0, 'flush --yes')
    tap.equal(kvd.kvctl('scan', '--count').stdout, b'0\n', 'nothing is left')


def terminal(tap, kvd):
    why = terminal_refused()
    if why:
        tap.skip('kvctl on a terminal', why)
        return

    def run(*args, **options):
        return on_terminal(KVCTL_PROGRAM, '--socket', kvd.socket, *args, **options)
    kvd.kvctl('set', 'a', 'one')
    tap.equal(run('get', 'a'), (b'one\n', 0), 'get on a terminal ends the line')
    kvd.kvctl('set', 'line', 'one\n')
    tap.equal(run('get', 'line'), (b'one\n', 0), 'a value that ends it is left alone')
    tap.equal(run('ttl', 'a'), (b'no expiry\n', 0), 'ttl in words')
    stats, _ = run('stats')
    tap.ok(b'\t' not in stats and b'keys that exist' in stats, 'stats in columns, explained')
    output, status = run('flush', answer=b'n\n')
    tap.ok(status == 1 and b'Remove all 2 keys' in output, 'flush asks, no is no')
    tap.equal(kvd.kvctl('scan', '-c').stdout, b'2\n', 'and nothing was removed')
    tap.equal(run('flush', answer=b'y\n')[1], 0, 'yes is yes')
    tap.equal(kvd.kvctl('scan', '-c').stdout, b'0\n', 'and all is gone')


def usage(tap, kvd):
    for args, words in (
            (('get',), b'not enough arguments'), (('gte', 'a'), b"did you mean 'get'"),
            (('get', 'a', '--via', 'air'), b'shm or socket'), (('get', ''), b'has 0 bytes'),
            (('get', 'k' * 512), b'has 512 bytes'), (('set', 'a'), b'from one place'),
            (('set', 'a', 'b', '--file', 'c'), b'from one place'),
            (('set', 'a', '--file', '/nonexistent/x'), b'cannot open /nonexistent/x'),
            (('set', 'a', 'b', '--ttl', '30'), b'30s'), (('set', 'a', 'b', '--ttl', '0s'), b'0s'),
            (('set', 'a', 'b', '--if-version', '-1'), b'no whole number'),
            (('set', 'a', 'b', '--if-absent', '--if-present'), b'only one'),
            (('set', 'a', 'b', '--ttl', '3s', '--keep-ttl'), b'exclude'),
            (('expire', 'a', 'soon'), b'no duration'), (('incr', 'a', 'x'), b'no integer'),
            (('incr', 'a', '9223372036854775808'), b'no integer'),
            (('--timeout', 'x', 'ping'), b'is no time'), (('load', '/nonexistent'), b'cannot open'),
            (('load', '--format', 'xml', '/dev/null'), b'jsonl or deb822'),
            (('load', '--format', 'deb822', '/dev/null'), b'needs --key'),
            (('load', '--key', 'X', '/dev/null'), b'deb822 only'),
            (('dump', '/nonexistent/x'), b'cannot write /nonexistent/x'),
            (('get', 'a', '-o', '/nonexistent/x'), b'cannot write /nonexistent/x'),
            (('--socket', '', 'ping'), b"--socket '' is no path"), (('clients', 'x'), b'clients\n'),
            (('get', '--ttl'), b'--ttl does not go with get'), (('ping', '--socket'), b'needs a'),
            (('--socket', '/x' * 60, 'ping'), b'107 bytes'),
            ((), b'no verb given'), (('help', 'nonsense'), b'no verb')):
        if args[:1] == ('get',) and '-o' in args:
            kvd.kvctl('set', 'a', 'b')
        got = kvd.kvctl(*args)
        tap.ok(got.returncode == 2 and words in got.stderr and got.stderr.count(b'\n') == 1,
               f'status 2 and {words.decode()}: {" ".join(args)[:60]}')


def full(tap, kvd):
    """kvd's own words say whether it is full or the user has too much."""
    with kvd.connect() as connection:
        connection.command('CONFIG', 'SET', 'maxmemory', '1')
        got = kvd.kvctl('set', 'a', 'b')
        tap.ok(got.returncode == 1 and b': OOM command not allowed' in got.stderr and
               b'this process' not in got.stderr, f'a full kvd: {got.stderr}')
        connection.command('CONFIG', 'SET', 'maxmemory', '0')


def unreachable(tap, kvd):
    missing_path = os.path.join(kvd.root, 'none.sock')
    plain = os.path.join(kvd.root, 'plain')
    with open(plain, 'w', encoding='utf-8'):
        pass
    for path, words in ((missing_path, b'no such socket'), (plain, b'not a socket')):
        for verb in (('get', 'a'), ('set', 'a', 'b'), ('ping',), ('load', '/dev/null'), ('dump',)):
            got = run('--socket', path, *verb)
            tap.ok(got.returncode == 3 and words in got.stderr and path.encode() in got.stderr,
                   f'{verb[0]}: status 3 and {words.decode()}')
    got = run('ping', env={'KVD_SOCKET': missing_path})
    tap.ok(got.returncode == 3 and missing_path.encode() in got.stderr, 'KVD_SOCKET is used')
    tap.ok(b'(from KVD_SOCKET)' in got.stderr and b'DIR/kvd.sock' in got.stderr, 'and named')
    got = run('--json', '--socket', missing_path, 'del', 'a')
    tap.equal((got.returncode, got.stdout), (3, b''), 'nothing was deleted, and nothing counted')
    got = run('ping', env={'KVD_SOCKET': kvd.socket})
    tap.equal(got.returncode, 0, 'KVD_SOCKET of a kvd')


def silent_peer(tap, kvd):
    """A listener that never answers is a timeout. Only of a write may it be left open whether it
    was applied."""
    path = os.path.join(kvd.root, 'silent.sock')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        for verb in (('ping',), ('get', 'a', '--via', 'socket'), ('scan',), ('ttl', 'a'),
                     ('mget', 'a'), ('stats',), ('clients',), ('dump',)):
            got = run('--socket', path, '--timeout', '50', *verb)
            tap.ok(got.returncode == 4 and b'--timeout' in got.stderr and
                   path.encode() in got.stderr, f'{verb[0]}: no answer: status 4')
            tap.ok(b'applied' not in got.stderr, f'{verb[0]}: nothing that could be applied')
        for verb in (('set', 'a', 'b'), ('del', 'a'), ('incr', 'a'), ('expire', 'a', '1s'),
                     ('flush', '--yes'), ('load',)):
            got = run('--socket', path, '--timeout', '50', *verb,
                      stdin=b'{"key":"a","value":"b"}\n')
            tap.ok(got.returncode == 4 and b'may have been applied' in got.stderr,
                   f'{verb[0]}: no answer: status 4, and it is left open')


def turned_away(tap):
    """A kvd that has as many clients as it may have."""
    with Kvd('--persist', 'memory', '--maxclients', '1') as kvd:
        # kvd may not have seen yet that the connection which waited for it is gone.
        first = None
        while first is None:
            first = kvd.connect()
            try:
                assert first.command('PING') == 'PONG'
            except (AssertionError, OSError, EOFError):
                first.close()
                first = None
        reserved = [kvd.connect() for _ in range(RESERVED)]
        for verb in (('get', 'a'), ('set', 'a', 'b'), ('ping',)):
            got = kvd.kvctl(*verb)
            tap.ok(got.returncode == 3 and b'turned this connection away' in got.stderr and
                   b'max number of clients' in got.stderr, f'{verb[0]}: status 3, and by whom')
        for client in [first, *reserved]:
            client.close()


def no_mapping(tap, kvd):
    """Behind a bridge no descriptors arrive: get uses the socket, --via shm says why not."""
    path = os.path.join(kvd.root, 'bridge.sock')
    bridge = Bridge(path, kvd.socket)
    kvd.kvctl('set', 'a', 'one')
    got = json.loads(run('--socket', path, '--json', 'get', 'a').stdout)
    tap.equal((got['value'], got['via']), ('one', 'socket'), 'get falls back to the socket')
    got = run('--socket', path, 'get', 'a', '--via', 'shm')
    tap.ok(got.returncode == 3 and b'no mapping' in got.stderr, '--via shm: status 3, and why')
    tap.equal(run('--socket', path, 'mget', 'a').stdout, b'a\tone\n', 'mget too')
    tap.equal(run('--socket', path, 'ttl', 'a').stdout, b'-1\n', 'ttl too')
    bridge.close()


def local_trouble(tap, kvd):
    kvd.kvctl('set', 'a', 'b' * 100000)
    with open('/dev/full', 'wb') as full:
        got = subprocess.run([KVCTL_PROGRAM, '--socket', kvd.socket, 'get', 'a'], stdout=full,
                             stderr=subprocess.PIPE, check=False, timeout=60)
    tap.ok(got.returncode == 2 and got.stderr.count(b'No space left') == 1,
           'a full disk is an error, said once')
    for verb in (('get', 'a', '-o', '/dev/full'), ('dump', '/dev/full')):
        got = kvd.kvctl(*verb)
        tap.ok(got.returncode == 2 and got.stderr.count(b'/dev/full: No space left') == 1,
               f'{verb[0]} to a full disk')
    # A socket must not take the number of a stream that is closed.
    for verb in ('scan', 'get a', 'ping', 'dump', 'version'):
        got = subprocess.run(['/bin/sh', '-c', f'exec "$0" --socket "$1" {verb} >&-',
                              KVCTL_PROGRAM, kvd.socket], stderr=subprocess.PIPE, check=False,
                             stdin=subprocess.DEVNULL, timeout=60)
        tap.ok(got.returncode == 2 and b'Bad file descriptor' in got.stderr,
               f'{verb}: standard output is closed')
    got = subprocess.run(['/bin/sh', '-c', 'exec "$0" --socket "$1" set a - <&-', KVCTL_PROGRAM,
                          kvd.socket], stderr=subprocess.PIPE, check=False, timeout=60)
    tap.ok(got.returncode == 2 and b'cannot read standard input' in got.stderr,
           'standard input is closed')
    tap.equal(kvd.kvctl('set', 'a', '-').returncode, 0, 'standard input that ends at once')
    tap.equal(kvd.kvctl('get', 'a').stdout, b'', 'is an empty value')
    reader, writer = os.pipe()
    os.close(reader)
    got = subprocess.run([KVCTL_PROGRAM, '--socket', kvd.socket, 'scan'], stdout=writer,
                         stderr=subprocess.PIPE, check=False, timeout=60, restore_signals=False)
    os.close(writer)
    tap.ok(got.returncode == 2 and b'Broken pipe' in got.stderr, 'nobody reads')


def main():
    tap = Tap()
    with Kvd('--persist', 'memory') as kvd:
        for part in (values, missing, conditions, times, server, terminal, usage, full, unreachable,
                     silent_peer, no_mapping, local_trouble):
            part(tap, kvd)
    turned_away(tap)
    tap.done()


main()
