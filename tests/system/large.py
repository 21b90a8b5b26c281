#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Large values come and go without a second copy in kvd (A, G).

They are received where they will stand: by whatever command, in whatever pieces. What was announced
and does not come, because its client died, stopped or was refused, keeps no memory.
"""
import contextlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import Kvd, ReplyError, Tap, seed, wait_until  # noqa: E402

MIB = 1 << 20
OPTIONS = ('--persist', 'memory', '--memory', '64MiB', '--memory-max', '64MiB', '--segment',
           '256KiB', '--value-max', '16MiB')
ONE_BUFFER = 256 << 10  # what may come with a request's beginning, and is copied


def counters(client, *names):
    text = client.command('INFO', 'everything').decode()
    rows = dict(line.split(':', 1) for line in text.splitlines() if ':' in line)
    return [int(rows[name]) for name in names]


def value(rng, size):
    return rng.randbytes(4099) * (size // 4099) + b'e' * (size % 4099)


def one_copy(tap, rng):
    """The largest value of all, in pieces."""
    size = 16 * MIB
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client, kvd.connect() as other:
        sent = value(rng, size)
        request = client.encode('SET', 'key', sent)
        client.send(request[:size // 2])
        wait_until(lambda: counters(other, 'input_bytes')[0] >= size // 2, 'half of the value')
        taken, used = counters(other, 'memory_large_bytes', 'mem_clients_normal')
        tap.equal(taken, size, 'G: half of a value has the memory of the whole')
        tap.ok(used >= size, f'G: which counts as its client\'s: {used}')
        tap.equal(other.command('EXISTS', 'key'), 0, 'A: nobody sees it before it is whole')
        client.send(request[size // 2:])
        tap.equal(client.reply(), 'OK', 'A: it is written')
        tap.ok(other.command('GET', 'key') == sent, 'A: and read, byte by byte')
        copied, received = counters(other, 'large_copied_bytes', 'large_received_bytes')
        tap.equal(copied + received, size, 'G: each byte came to its place once')
        tap.ok(copied <= ONE_BUFFER, f'G: {copied} of them by way of a buffer')
        anonymous = [int(line.split()[1]) for line in open(f'/proc/{kvd.pid}/status')
                     if line.startswith('RssAnon')]
        tap.diag(f'memory beside the region: {anonymous[0]} KiB')


def commands(tap, rng):
    """Whatever stores its argument, with what stands before and behind it in the pipeline."""
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        for number, size in enumerate((65537, 100003, 3 * MIB)):
            sent = value(rng, size)
            rows = [(('SET', 'a', sent), 'OK'), (('GETSET', 'a', sent), sent),
                    (('SETEX', 'b', 100, sent), 'OK'), (('PSETEX', 'c', 100000, sent), 'OK'),
                    (('SETNX', 'a', sent), 0), (('SET', 'a', sent, 'NX'), None),
                    (('SET', 'a', sent, 'XX', 'GET'), sent), (('SETNX', f'd{number}', sent), 1),
                    (('MSET', 'e', sent, 'f', sent), 'OK'),
                    (('MSETNX', 'e', sent, 'g', sent), 0),
                    (('KVD.SET', 'h', sent, 'IFVERSION', 5), None),
                    (('KVD.CAS', 'i', 7, sent), None), (('APPEND', f'j{number}', sent), size),
                    (('SET', 'k', sent, 'EX', 'x'), None), (('SET', 'l', sent, 'EX', 100), 'OK')]
            wrong = []
            for words, answer in rows:
                got = client.pipeline([('PING',), words, ('STRLEN', words[1])])
                good = got[0] == 'PONG' and isinstance(got[2], int)
                if words[-1] == 'x':
                    good = good and isinstance(got[1], ReplyError)
                else:
                    good = good and got[1] == answer
                wrong += [] if good else [words[0]]
            tap.equal(wrong, [], f'A: commands with {size} bytes are answered as ever')
            names = ['a', 'b', 'c', f'd{number}', 'e', 'f', f'j{number}', 'l']
            tap.ok(all(client.command('GET', name) == sent for name in names),
                   f'A: and {size} bytes are there under each key')
        said = client.pipeline([('MULTI',), ('SET', 'm', sent), ('MSET', 'n', sent, 'o', '1'),
                                ('EXEC',)])
        tap.equal(said[-1], ['OK', 'OK'], 'I: so they are in a transaction')
        tap.ok(client.command('GET', 'n') == sent, 'I: which applies them')
        client.command('FLUSHALL')
        wait_until(lambda: counters(client, 'memory_large_bytes') == [0], 'all memory back')
        tap.ok(True, 'G: and nothing of what was refused is left')


def copied(tap, rng):
    """What is sent together with a value that is received where it stands: a copy is a copy."""
    with Kvd('--memory', '64MiB') as kvd:
        client = kvd.connect()
        big = value(rng, MIB)
        replies = client.pipeline([('SET', 'one', big), ('COPY', 'one', 'two'),
                                   ('GET', 'two'), ('DEL', 'one')])
        tap.equal(replies, ['OK', 1, big, 1], 'a value and its copy, in one go')
        tap.equal(client.command('GET', 'two'), big, 'the copy stays')
        for name in ('three', 'four'):
            client.pipeline([('SET', name, big), ('COPY', name, name + 's')])
        wait_until(lambda: counters(client, 'memory_large_bytes') == [5 * MIB],
                   'each has memory of its own')
        tap.ok(client.command('DEBUG', 'RECOUNT') > 0, 'all that is counted is what there is')


def stopped(tap):
    """Whoever dies midway, says nothing more, or only announces."""
    with Kvd(*OPTIONS) as kvd, kvd.connect() as client:
        room = fill(client)
    with Kvd(*OPTIONS, '--write-wait', '5s') as kvd, kvd.connect() as client, \
            contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as dying:
            for _ in range(20):
                one = dying.enter_context(kvd.connect())
                one.send(b'*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8388608\r\n' + b'x' * 70000)
            wait_until(lambda: counters(client, 'memory_large_bytes')[0] > 0, 'some of them')
            most = counters(client, 'memory_large_bytes')[0]
            tap.ok(most <= 32 * MIB, f'H: half of the memory at most is announced: {most}')
        wait_until(lambda: counters(client, 'memory_large_bytes') == [0], 'none of them')
        tap.ok(True, 'G: who dies midway keeps nothing')
        for number in range(20):
            one = stack.enter_context(kvd.connect())
            one.send(b'*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8388608\r\n' + b'x' * 7000 * number)
        wait_until(lambda: counters(client, 'memory_large_bytes')[0] > 0, 'some of them')
        tap.equal(fill(client), room, 'H: who stops midway keeps no memory that is wanted')
        dropped = counters(client, 'dropped_intakes', 'memory_large_bytes')
        tap.ok(dropped[0] > 0, f'and is closed: {dropped}')
        tap.ok('the rest hardly does' in kvd.log() and f'pid {os.getpid()}' in kvd.log(),
               'the log names the process and what to do')
    return room


def killed(tap, room):
    """kvd dies while a value comes: the next life has its memory for others."""
    with KeptKvd(*OPTIONS, '--write-wait', '5s', env={'KVD_CRASH_AT': 'value_arriving:5'}) as kvd:
        with kvd.connect() as client:
            with contextlib.suppress(OSError):
                client.send(b'*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$16777216\r\n' + b'x' * (15 * MIB))
            kvd.wait()
        del kvd.env['KVD_CRASH_AT']
        kvd.start()
        with kvd.connect() as client:
            tap.equal((client.command('EXISTS', 'k'), 'took over' in kvd.log()), (0, True),
                      'F: a value that was coming when kvd was killed is nobody\'s')
            tap.equal(fill(client), room, 'F: and its memory is everybody\'s')


def fill(client):
    """Sets values of 1 MiB until one is refused; how many were set."""
    for number in range(64):
        if isinstance(client.command('SET', f'fill{number}', b'f' * MIB), ReplyError):
            return number
    return 64


def main():
    tap = Tap()
    rng = seed()
    one_copy(tap, rng)
    commands(tap, rng)
    copied(tap, rng)
    killed(tap, stopped(tap))
    tap.done()


if __name__ == '__main__':
    main()
