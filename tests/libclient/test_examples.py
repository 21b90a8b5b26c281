# SPDX-License-Identifier: MIT
#
# The examples of the manual, run as a reader of it would: against a kvd, one after the other.
import os
import signal
import subprocess

from kvdtest import BUILD_ROOT, Kvd, Tap

EXAMPLES = os.path.join(BUILD_ROOT, 'libclient')


def run(kvd, name, *args, text=''):
    done = subprocess.run([os.path.join(EXAMPLES, 'example_' + name), *args], timeout=60,
                          env={**os.environ, 'KVD_SOCKET': kvd.socket}, capture_output=True,
                          text=True, check=False, input=text)
    return done.returncode, done.stdout, done.stderr


def check_epoll(tap, kvd):
    tap.equal(run(kvd, 'async_epoll', text='a 1\nb 2 3\nc'), (0, '3 stored, 0 failed\n', ''),
              'async_epoll: three lines')
    many = ''.join(f'key{i} value{i}\n' for i in range(20000))
    tap.equal(run(kvd, 'async_epoll', text=many)[:2], (0, '20000 stored, 0 failed\n'),
              'async_epoll: more than fit into the queue')
    with kvd.connect() as connection:
        tap.equal(connection.command('MGET', 'a', 'b', 'c', 'key19999'),
                  [b'1', b'2 3', b'', b'value19999'], 'async_epoll: all are there')
        path = os.path.join(kvd.root, 'lines')
        with open(path, 'w', encoding='utf-8') as file:
            file.write(many)
        with open(path, encoding='utf-8') as file:
            done = subprocess.run([os.path.join(EXAMPLES, 'example_async_epoll')], stdin=file,
                                  env={**os.environ, 'KVD_SOCKET': kvd.socket}, timeout=60,
                                  capture_output=True, text=True, check=False)
        tap.equal((done.returncode, done.stdout), (0, '20000 stored, 0 failed\n'),
                  'async_epoll: from a file')
    status, output, notes = run(kvd, 'async_epoll', text=' no key\n')
    tap.equal((status, output), (1, '0 stored, 1 failed\n'), f'async_epoll: {notes}')


def check_watch(tap, kvd):
    """The watcher's lines, each waited for after what causes it."""
    program = os.path.join(EXAMPLES, 'example_watch_sdevent')
    if not os.path.exists(program):
        tap.skip('watch_sdevent', 'libsystemd was not found when this was built')
        return
    with subprocess.Popen([program, 'session:'], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, 'KVD_SOCKET': kvd.socket}) as watcher:
        tap.equal(watcher.stdout.readline(), 'watching\n', 'watch_sdevent: ready')
        with kvd.connect() as connection:
            connection.command('SET', 'elsewhere', '1')
            connection.command('SET', 'session:1', '1')
            tap.equal(watcher.stdout.readline(), 'changed session:1\n', 'watch_sdevent: a change')
            connection.command('FLUSHALL')
            tap.equal(watcher.stdout.readline(), 'flushed\n', 'watch_sdevent: all gone')
        kvd.kill()
        tap.ok(watcher.stdout.readline().startswith('lost: '), 'watch_sdevent: kvd died')
        kvd.restart()
        tap.equal(watcher.stdout.readline(), 'watching\n', 'watch_sdevent: ready again')
        watcher.send_signal(signal.SIGTERM)
        tap.equal(watcher.wait(60), 0, 'watch_sdevent: ends')


tap = Tap()
with Kvd() as kvd:
    tap.equal(run(kvd, 'get', 'greeting'), (1, '', 'get: no such key\n'), 'get: nothing there')
    tap.equal(run(kvd, 'set', 'greeting', 'hello world'), (0, '', ''), 'set')
    tap.equal(run(kvd, 'set', 'greeting', 'and again'), (0, '', ''), 'set: another line')
    status, output, notes = run(kvd, 'get', 'greeting')
    tap.equal((status, output), (0, 'hello world\nand again\n\n'), 'get: both lines')
    tap.ok('by mapping' in notes and '4 words' in notes, f'get: {notes}')
    with kvd.connect() as connection:
        connection.command('SET', 'alice', '100')
        tap.equal(run(kvd, 'batch', 'alice', 'bob', '30'), (0, 'alice 70\nbob 30\n', ''), 'batch')
        connection.command('SET', 'alice', 'nothing')
    status, output, notes = run(kvd, 'batch', 'alice', 'bob', '30')
    tap.equal((status, output), (1, ''), f'batch: not a number: {notes}')
    check_epoll(tap, kvd)
    check_watch(tap, kvd)
    for name in ('get', 'set', 'batch'):
        tap.equal(run(kvd, name)[0], 2, f'{name}: usage')
    kvd.stop()
    status, output, notes = run(kvd, 'get', 'greeting')
    tap.equal((status, output), (1, ''), f'get: no kvd: {notes}')
tap.done()
