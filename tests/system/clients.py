#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# Redis's own programs, unchanged, on kvd's socket: redis-cli and redis-benchmark. Each is skipped,
# with the reason, where it is not installed. Client libraries: client_*.py.
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, Tap  # noqa: E402


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
    tap.ok('SET key value [NX|XX' in ask('help', 'set'),
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


def main():
    tap = Tap()
    with Kvd('--persist', 'memory', '--memory', '64MiB') as kvd:
        test_cli(tap, kvd)
        test_benchmark(tap, kvd)
    tap.done()


if __name__ == '__main__':
    main()
