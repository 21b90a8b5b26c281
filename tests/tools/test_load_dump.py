# SPDX-License-Identifier: MIT
#
# load and dump against a kvd: both formats, bad records with their line numbers, a dump that load
# takes back byte for byte, files that appear whole or not at all.
import base64
import json
import os
import subprocess

from bridge import Bridge
from kvdtest import KVCTL_PROGRAM, Kvd, Tap, seed


def b64(data):
    return base64.b64encode(data).decode()


def jsonl(tap, kvd):
    text = ('{"key":"a","value":"1"}\n\n{"key":"b","value":"\\u0000\\u00e9","ttl_ms":60000}\r\n'
            f'{{"key_b64":"{b64(bytes([0, 255]))}","value_b64":"{b64(bytes(range(256)))}"}}')
    got = kvd.kvctl('load', '-', stdin=text.encode())
    tap.ok(got.returncode == 0 and got.stdout.startswith(b'loaded 3 records'), 'three records')
    with kvd.connect() as c:
        tap.equal(c.command('GET', 'a'), b'1', 'text')
        tap.equal(c.command('GET', 'b'), '\0é'.encode(), 'escapes')
        tap.ok(0 < c.command('PTTL', 'b') <= 60000, 'time to live')
        tap.equal(c.command('GET', b'\0\xff'), bytes(range(256)), 'base64')
    got = kvd.kvctl('--json', 'load', stdin=b'{"key":"a","value":"2"}\n{"key":"a","value":"3"}\n')
    summary = json.loads(got.stdout)
    tap.equal((summary['records'], summary['bytes'], summary['errors']), (2, 4, 0), 'JSON summary')
    tap.equal(kvd.kvctl('get', 'a').stdout, b'3', 'the last one of a key wins')
    tap.equal(kvd.kvctl('load', '/dev/null').returncode, 0, 'an empty file')


def bad_records(tap, kvd):
    lines = [b'{"key":"g%d","value":"x"}' % i for i in range(30)]
    for i in range(3, 28, 2):
        lines[i] = b'{"key":"g%d","value":%d}' % (i, i)
    lines[5] = b'{"key":"g5","value":"trunc'
    lines[7] = b'{"key":"g7","value":"\xff"}'
    lines[9] = b'\x1b]0;steal the title\x07'
    got = kvd.kvctl('load', stdin=b'\n'.join(lines))
    errors = got.stderr.split(b'\n')[:-1]
    tap.equal((got.returncode, len(errors)), (1, 11), 'thirteen bad lines: ten are said')
    tap.ok(errors[0].startswith(b'kvctl: standard input:4: "value" is a number'), 'with the line')
    tap.ok(b':6: not JSON' in errors[1] and b':8: the line is not UTF-8' in errors[2],
           'each its own')
    tap.ok(b'\x1b' not in got.stderr, 'no byte steers the terminal')
    tap.ok(b'loaded 17 records' in got.stdout and b'13 not loaded' in got.stdout, 'and counted')
    tap.equal(kvd.kvctl('scan', 'g*', '-c').stdout, b'17\n', 'the good ones are there')
    kvd.kvctl('flush', '-y')
    got = kvd.kvctl('load', '--strict', stdin=b'\n'.join(lines))
    tap.equal((got.returncode, len(got.stderr.split(b'\n')) - 1), (1, 1), 'strict: one is said')
    tap.equal(kvd.kvctl('scan', '-c').stdout, b'3\n', 'strict: those before it are there')


def refused_records(tap, kvd):
    """What only kvd can refuse is told with its line too."""
    limit = int(kvd.connect().command('CONFIG', 'GET', 'value-max')[1] or 0) or 8 << 20
    lines = [b'{"key":"s1","value":"x"}', b'{"key":"huge","value":"' + b'x' * (limit + 1) + b'"}',
             b'{"key":"s2","value":"x"}']
    got = kvd.kvctl('load', stdin=b'\n'.join(lines))
    tap.ok(got.returncode == 1 and b'standard input:2: ' in got.stderr, 'a value over the limit')
    tap.equal((kvd.kvctl('get', 's1').stdout, kvd.kvctl('get', 's2').stdout), (b'x', b'x'),
              'the records around it are there')


def full(tap):
    """G: memory that is full stops the load with the remedy; what was acknowledged stays."""
    with Kvd('--persist', 'memory', '--memory', '8MiB') as kvd:
        lines = [b'{"key":"k%d","value":"%s"}' % (i, b'x' * 1000) for i in range(20000)]
        got = kvd.kvctl('load', stdin=b'\n'.join(lines))
        errors = got.stderr.split(b'\n')
        tap.equal((got.returncode, len(errors)), (1, 3), 'G: a full memory stops the load')
        tap.ok(b': OOM ' in errors[0] and b'--memory' in errors[1], 'with cause and remedy')
        loaded = int(got.stdout.split()[1])
        tap.ok(0 < loaded <= kvd.connect().command('DBSIZE') < len(lines), 'what was told is there')
        tap.equal(kvd.kvctl('get', f'k{loaded - 1}').stdout, b'x' * 1000, 'to the last of them')


def deb822(tap, kvd):
    kvd.kvctl('flush', '-y')
    first = b'Package: one\nVersion: 1\nDescription: x\n y\n .\n z\n'
    second = b'Version: 2\r\nPACKAGE:  two \r\n'
    third = b'Package: one\nVersion: 3'
    text = b'\n\n' + first + b'\nVersion: lost\n\n' + second + b'\r\n' + third
    path = os.path.join(kvd.root, 'packages')
    with open(path, 'wb') as file:
        file.write(text)
    got = kvd.kvctl('load', '--format', 'deb822', '--key', 'Package', path)
    tap.equal(got.returncode, 1, 'a record without the field')
    tap.equal(got.stderr, f"kvctl: {path}:10: record has no field 'Package'\n".encode(), 'its line')
    tap.ok(b'loaded 3 records' in got.stdout and b'1 not loaded' in got.stdout, 'the summary')
    tap.equal(kvd.kvctl('get', 'one').stdout, third,
              'the last one wins, without a newline at the end')
    tap.equal(kvd.kvctl('get', 'two').stdout, second, 'CR LF stays')
    tap.equal(kvd.kvctl('scan', '-c').stdout, b'2\n', 'nothing else')
    with open(path, 'wb') as file:
        file.write(first + b'\n')
    tap.equal(kvd.kvctl('load', '--format', 'deb822', '-k', 'package', path).returncode, 0, 'again')
    tap.equal(kvd.kvctl('get', 'one').stdout, first, 'the bytes between blank lines')


def contents(kvd):
    with kvd.connect() as c:
        keys = c.command('KEYS', '*')
        return {key: (c.command('GET', key), c.command('PTTL', key) >= 0) for key in keys}


def fill(kvd, random):
    """Keys and values of all kinds; returns what is there."""
    with kvd.connect() as c:
        for i in range(3000):
            key = random.randbytes(random.randint(1, 511)) if i % 3 == 0 else f'key-{i}-é'.encode()
            value = (random.randbytes(random.randint(0, 2000)) if i % 2 else
                     ''.join(random.choices('aä"\\\n\t\0\x7f', k=random.randint(0, 400))).encode())
            c.command('SET', key, value, *(('PX', 3600000) if i % 5 == 0 else ()))
        c.command('SET', 'control', b'\1' * 100000)
        c.command('SET', 'huge', random.randbytes(3 << 20))
        c.command('SET', 'empty', b'')
    return contents(kvd)


def round_trip(tap, kvd, random):
    kvd.kvctl('flush', '-y')
    expected = fill(kvd, random)
    path = os.path.join(kvd.root, 'dump.jsonl')
    got = kvd.kvctl('--json', 'dump', path)
    tap.equal((got.returncode, json.loads(got.stdout)['records']), (0, len(expected)), 'dump')
    with open(path, 'rb') as file:
        lines = file.read().split(b'\n')[:-1]
    tap.equal(len(lines), len(expected), 'one line a key')
    parsed = [json.loads(line.decode('utf-8')) for line in lines]
    tap.ok(all(('value' in p) == is_text(expected, p) or len(expected[key_of(p)][0]) > 4096
               for p in parsed), 'UTF-8 is text, everything else base64')
    piped = kvd.kvctl('dump')
    tap.equal(sorted(strip_ttl(piped.stdout)), sorted(strip_ttl(b'\n'.join(lines))),
              'dump to standard output is the same')
    bridged(tap, kvd, lines)
    kvd.kvctl('flush', '-y')
    got = kvd.kvctl('load', path)
    tap.equal((got.returncode, got.stderr), (0, b''), 'load takes it back')
    tap.ok(contents(kvd) == expected, 'every key, value and expiry is as before')
    got = kvd.kvctl('dump', '--match', 'key-1*')
    keys = {json.loads(line)['key'] for line in got.stdout.splitlines()}
    tap.equal(keys, {k.decode() for k in expected if k.startswith(b'key-1')}, 'dump --match')
    tap.equal([name for name in os.listdir(kvd.root) if name.startswith('dump.jsonl.')], [],
              'no temporary file is left')


def bridged(tap, kvd, lines):
    """Without the mapping, dump asks for each value through the socket."""
    path = os.path.join(kvd.root, 'bridge.sock')
    bridge = Bridge(path, kvd.socket)
    got = subprocess.run([KVCTL_PROGRAM, '--socket', path, 'dump'], capture_output=True,
                         check=False, timeout=60)
    bridge.close()
    tap.equal(got.returncode, 0, 'dump without the mapping')
    tap.ok(sorted(strip_ttl(got.stdout)) == sorted(strip_ttl(b'\n'.join(lines))), 'is the same')


def key_of(record):
    return record['key'].encode() if 'key' in record else base64.b64decode(record['key_b64'])


def is_text(expected, record):
    try:
        expected[key_of(record)][0].decode('utf-8')
    except UnicodeDecodeError:
        return False
    return True


def strip_ttl(data):
    for line in data.splitlines():
        record = json.loads(line)
        record.pop('ttl_ms', None)
        yield json.dumps(record, sort_keys=True)


def failing_dump(tap, kvd):
    path = os.path.join(kvd.root, 'kept')
    with open(path, 'w', encoding='utf-8') as file:
        file.write('older')
    kvd.stop()
    tap.equal(kvd.kvctl('dump', path).returncode, 3, 'dump of a kvd that is gone: status 3')
    with open(path, encoding='utf-8') as file:
        tap.equal(file.read(), 'older', 'the older file stays')
    tap.equal(kvd.kvctl('load', stdin=b'{"key":"a","value":"b"}').returncode, 3,
              'load into a kvd that is gone: status 3')


def main():
    tap = Tap()
    random = seed()
    with Kvd('--persist', 'memory') as kvd:
        jsonl(tap, kvd)
        bad_records(tap, kvd)
        refused_records(tap, kvd)
        deb822(tap, kvd)
        round_trip(tap, kvd, random)
        failing_dump(tap, kvd)
    full(tap)
    tap.done()


main()
