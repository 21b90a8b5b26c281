#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# Unchanged clients on kvd's socket: redis-cli, redis-benchmark, python3-redis. Each is skipped,
# with the reason, where it is not installed.
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, Tap  # noqa: E402

try:
    import redis
except ImportError:
    redis = None


def run(*args, stdin=b''):
    done = subprocess.run([str(a) for a in args], input=stdin, capture_output=True, timeout=120)
    return re.sub('\x1b\\[[0-9;]*m', '', (done.stdout + done.stderr).decode('utf-8', 'replace'))


def test_cli(tap, kvd):
    cli = shutil.which('redis-cli')
    if not cli:
        tap.skip('redis-cli', 'redis-tools is not installed')
        return

    def ask(*args, **more):
        return run(cli, '-s', kvd.socket, *args, **more)

    tap.equal(ask('set', 'greeting', 'hello world'), 'OK\n', 'redis-cli: set')
    tap.equal(ask('get', 'greeting'), 'hello world\n', 'redis-cli: get')
    tap.equal(ask('-3', 'config', 'get', 'maxmemory-policy'), 'maxmemory-policy noeviction\n',
              'redis-cli -3: a map')
    tap.equal(ask('nosuch', 'a'),
              "ERR unknown command 'nosuch', with args beginning with: 'a' \n\n",
              'redis-cli: an error')
    tap.equal(ask(stdin=b'set piped 1\nincr piped\nget piped\n'), 'OK\n2\n2\n',
              'redis-cli: commands from standard input')
    tap.ok('SET key value [NX|XX] [GET]' in ask('help', 'set'),
           'redis-cli: help comes from COMMAND DOCS')
    tap.ok('KVD.CAS key version value' in ask('help', 'kvd.cas'), "redis-cli: help knows kvd's own")
    tap.ok('redis_version:7.0.15' in ask('info', 'server'), 'redis-cli: info')
    ask(stdin=b''.join(b'set many:%d %d\n' % (i, i) for i in range(500)))
    tap.equal(len(ask('--scan', '--pattern', 'many:*').split()), 500, 'redis-cli --scan')
    sizes = ask('--bigkeys')
    tap.ok('502 strings with' in sizes, 'redis-cli --bigkeys')
    mass = b''.join(b'*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$1\r\nx\r\n' % (len(b'm%d' % i), b'm%d' % i)
                    for i in range(1000))
    tap.ok('errors: 0, replies: 1000' in ask('--pipe', stdin=mass), 'redis-cli --pipe')
    with subprocess.Popen([cli, '-s', kvd.socket, '--stat', '-i', '0.01'],
                          stdout=subprocess.PIPE) as stat:
        lines = [stat.stdout.readline().decode() for _ in range(4)]
        stat.kill()
    tap.ok(re.match(r'\d+ +[\d.]+M +1 ', lines[2]), 'redis-cli --stat')
    tap.equal(ask('ping'), 'PONG\n', 'redis-cli: kvd is well after all that')


def test_benchmark(tap, kvd):
    benchmark = shutil.which('redis-benchmark')
    if not benchmark:
        tap.skip('redis-benchmark', 'redis-tools is not installed')
        return
    for pipeline in (1, 16):
        out = run(benchmark, '-s', kvd.socket, '-t', 'get,set,incr,mset', '-n', 5000, '-c', 10,
                  '-P', pipeline, '--csv')
        rows = [line for line in out.splitlines() if line.startswith('"')]
        names = [row.split(',')[0].strip('"').split(' ')[0] for row in rows]
        tap.equal(names, ['test', 'SET', 'GET', 'INCR', 'MSET'], f'redis-benchmark -P {pipeline}')
        tap.ok('error' not in out.lower(), f'redis-benchmark -P {pipeline}: no errors')
        if len(names) != 5:
            tap.diag(out)


def test_python_values(tap, r):
    tap.equal(r.set('py', b'\x00\xff', px=100000), True, 'redis-py: set')
    tap.equal(r.get('py'), b'\x00\xff', 'redis-py: get')
    tap.ok(99000 < r.pttl('py') <= 100000, 'redis-py: pttl')
    tap.equal(r.set('py', 'x', nx=True), None, 'redis-py: set nx')
    tap.equal(r.set('py', 'y', xx=True, get=True), b'\x00\xff', 'redis-py: set xx get')
    tap.equal(r.getex('py', persist=True), b'y', 'redis-py: getex')
    tap.equal(r.ttl('py'), -1, 'redis-py: ttl')
    tap.equal(r.incrby('count', 41), 41, 'redis-py: incrby')
    tap.equal(r.incr('count'), 42, 'redis-py: incr')
    tap.equal(r.mset({'a': 1, 'b': 2}), True, 'redis-py: mset')
    tap.equal(r.mget('a', 'none', 'b'), [b'1', None, b'2'], 'redis-py: mget')
    tap.equal(r.exists('a', 'a', 'none'), 2, 'redis-py: exists')
    tap.equal(r.delete('a', 'none'), 1, 'redis-py: delete')
    tap.equal(r.append('b', 'x'), 2, 'redis-py: append')
    tap.equal(r.type('b'), b'string', 'redis-py: type')
    tap.equal(r.expire('b', 100, gt=True), False, 'redis-py: expire gt')
    tap.equal(sorted(r.scan_iter('[bp]*', count=2)), [b'b', b'py'], 'redis-py: scan_iter')
    tap.equal(sorted(r.keys()), [b'b', b'count', b'py'], 'redis-py: keys')
    try:
        r.incr('py')
        tap.ok(False, 'redis-py: an error is raised')
    except redis.ResponseError as error:
        tap.equal(str(error), 'value is not an integer or out of range',
                  'redis-py: an error is raised')


def test_python_connection(tap, r, kvd):
    with r.pipeline(transaction=True) as p:
        p.set('t', 1).incr('t').get('t')
        tap.equal(p.execute(), [True, 2, b'2'], 'redis-py: a transaction')
    with r.pipeline(transaction=False) as p:
        for i in range(1000):
            p.set(f'p{i}', i)
        tap.equal(p.execute(), [True] * 1000, 'redis-py: a pipeline')
    info = r.info()
    tap.equal((info['redis_mode'], info['loading'], info['role']), ('standalone', 0, 'master'),
              'redis-py: info')
    tap.equal(info['db0']['keys'], r.dbsize(), 'redis-py: info keyspace')
    tap.equal(r.client_setname('me'), True, 'redis-py: client setname')
    mine = [c for c in r.client_list() if c['name'] == 'me']
    tap.equal([(c['cmd'], c['resp']) for c in mine], [('client|list', '2')],
              'redis-py: client list')
    tap.equal(r.client_info()['name'], 'me', 'redis-py: client info')
    tap.equal(r.config_get('max*policy'), {'maxmemory-policy': 'noeviction'},
              'redis-py: config get')
    tap.equal(r.config_get('persist'), {'persist': 'memory'}, "redis-py: kvd's own options")
    tap.equal(len(r.time()), 2, 'redis-py: time')
    tap.ok(r.command_count() > 50, 'redis-py: command count')
    tap.equal(r.command()['get']['arity'], 2, 'redis-py: command')
    tap.equal(r.flushall(), True, 'redis-py: flushall')
    tap.equal(r.dbsize(), 0, 'redis-py: dbsize')


def test_locks(tap, r):
    """The usual patterns on top: a lock by SET NX PX, a counter in a loop of retries."""
    lock = r.set('lock', 'me', nx=True, px=10000)
    other = r.set('lock', 'you', nx=True, px=10000)
    tap.equal((lock, other), (True, None), 'a lock is taken once')
    tap.equal(r.delete('lock'), 1, 'and given back')


def main():
    tap = Tap()
    with Kvd('--persist', 'memory', '--memory', '64MiB') as kvd:
        test_cli(tap, kvd)
        test_benchmark(tap, kvd)
        if redis is None:
            tap.skip('redis-py', 'python3-redis is not installed')
        else:
            r = redis.Redis(unix_socket_path=kvd.socket)
            r.flushall()
            test_python_values(tap, r)
            test_python_connection(tap, r, kvd)
            test_locks(tap, r)
    tap.done()


if __name__ == '__main__':
    main()
