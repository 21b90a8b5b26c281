#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# Commands by which kvd tells of itself: how long commands took, in words, pictures and numbers;
# what DEBUG tells a client's author; and messages so long that they are told in many turns.
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, ReplyError, Tap  # noqa: E402

LONG = 3 << 20
SLEEPS_MS = (40, 5, 20, 60, 10)


def refused(c, *words):
    reply = c.command(*words)
    return str(reply) if isinstance(reply, ReplyError) else ''


def doctor(c):
    return c.command('LATENCY', 'DOCTOR').decode()


def latency(tap, kvd):
    c = kvd.connect()
    tap.ok('Nothing is watched' in doctor(c), 'nothing is watched: that is said')
    tap.ok('No samples' in refused(c, 'LATENCY', 'GRAPH', 'nosuch'), 'no picture of nothing')
    c.command('CONFIG', 'SET', 'latency-monitor-threshold', 3)
    tap.ok('Nothing took 3 ms' in doctor(c), 'nor has anything been slow')
    for sleep_ms in SLEEPS_MS:
        c.command('DEBUG', 'SLEEP', str(sleep_ms / 1000))
    [[name, when, last_ms, worst_ms]] = c.command('LATENCY', 'LATEST')
    tap.ok(name == b'command' and when > 0 and worst_ms >= 60 and last_ms >= 10,
           'the latest and the worst')
    told = [ms for _, ms in c.command('LATENCY', 'HISTORY', 'command')]
    tap.ok(told and max(told) == worst_ms, 'the worst of each second is in the history')
    tap.ok(f'command: worst {worst_ms} ms' in doctor(c), 'and in words')
    picture = c.command('LATENCY', 'GRAPH', 'command').decode()
    tap.ok(f'high {worst_ms} ms' in picture and any(sign in picture for sign in '_o#|'),
           'the picture shows it: ' + picture.splitlines()[0])
    tap.equal(c.command('LATENCY', 'RESET', 'nosuch'), 0, 'nothing else can be forgotten')
    tap.equal(c.command('LATENCY', 'RESET', 'command'), 1, 'that can')
    tap.equal(c.command('LATENCY', 'LATEST'), [], 'and then it is')


def histogram(tap, kvd):
    c = kvd.connect()
    c.command('CONFIG', 'SET', 'slowlog-log-slower-than', 0)  # every call is timed
    c.command('CONFIG', 'RESETSTAT')
    for i in range(50):
        c.command('SET', f'h{i}', i)
    c.command('DEBUG', 'SLEEP', '0.02')
    told = c.command('LATENCY', 'HISTOGRAM', 'set', 'nosuch', 'debug')
    tap.equal(told[::2], [b'set', b'debug'], 'of the commands that were run')
    numbers = dict(zip(told[1][::2], told[1][1::2]))
    below = numbers[b'histogram_usec'][1::2]
    tap.equal((numbers[b'calls'], below[-1]), (50, 50), 'every call is in it')
    tap.equal(below, sorted(below), 'each step counts those before it')
    slow = dict(zip(told[3][::2], told[3][1::2]))[b'histogram_usec']
    tap.ok(slow[-2] >= 16384 and slow[-1] == 1, 'what was slow is where it belongs')
    tap.ok(b'set' in c.command('LATENCY', 'HISTOGRAM')[::2], 'without names all are told')
    c.command('CONFIG', 'GET', 'port')
    tap.ok(b'config|get' in c.command('LATENCY', 'HISTOGRAM', 'config')[::2],
           'and of a family each')
    c.command('CONFIG', 'SET', 'slowlog-log-slower-than', 10000)


def debug(tap, kvd):
    c = kvd.connect()
    tap.equal(c.command('DEBUG', 'PROTOCOL', 'attrib'),
              b'Some real reply following the attribute', 'RESP2 has no attributes')
    tap.equal(c.command('DEBUG', 'STRINGMATCH-LEN', 1000, 'a*'), 1, 'so many letters match')
    tap.equal(c.command('DEBUG', 'STRINGMATCH-LEN', 1000, 'a*b'), 0, 'or not')
    tap.ok('length must be between' in refused(c, 'DEBUG', 'STRINGMATCH-LEN', -1, 'a*'),
           'not fewer than none')
    tap.ok('length must be between' in refused(c, 'DEBUG', 'STRINGMATCH-LEN', 1 << 40, 'a*'),
           'nor more than memory has')
    tap.ok('not an integer' in refused(c, 'DEBUG', 'STRINGMATCH-LEN', 'x', 'a*'), 'nor no number')
    tap.ok(len(c.command('DEBUG', 'HELP')) >= 8, 'HELP lists them')
    tap.ok(c.command('DEBUG', 'RECOUNT') > 1000, 'all that is counted is what there is')
    tap.equal(c.pipeline([('MULTI',), ('SET', 'a', 1), ('DEBUG', 'RECOUNT'), ('EXEC',)])[3][1],
              ReplyError('ERR cannot recount: Device or resource busy'), 'not within EXEC')
    tap.ok('no such key' in refused(c, 'DEBUG', 'OBJECT', 'nosuch'), 'no key, nothing to tell')
    tap.ok(refused(c, 'DEBUG', 'OBJECT', 'k' * 600) != '', 'nor of a key that cannot be')


def messages(tap, kvd):
    """Long messages to many, in order, between others, in a transaction, to some who leave."""
    subscribers = [kvd.connect() for _ in range(6)]
    got = [[] for _ in subscribers]
    for s in subscribers[:3]:
        s.command('SUBSCRIBE', 'news')
    for s in subscribers[3:]:
        s.command('PSUBSCRIBE', 'n*')

    def listen(i):
        try:
            while len(got[i]) < 4:
                got[i].append(subscribers[i].reply()[-1])
        except (OSError, EOFError):
            pass
    threads = [threading.Thread(target=listen, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    a, b = kvd.connect(), kvd.connect()
    a.append('PUBLISH', 'news', 'x' * LONG)
    a.append('PUBLISH', 'news', 'short')
    b.append('PUBLISH', 'nobody', 'y' * LONG)
    a.append('MULTI')
    a.append('PUBLISH', 'news', 'z' * LONG)
    a.append('EXEC')
    a.append('PUBLISH', 'news', 'last')
    subscribers[5].close()  # one leaves in the midst of it
    replies = [a.reply() for _ in range(6)]
    tap.ok(replies[0] in (5, 6) and replies[1] in (5, 6), 'each publisher is told how many')
    tap.equal(replies[2:4], ['OK', 'QUEUED'], 'a long message may be in a transaction')
    tap.ok(b.reply() in (2, 3), 'a pattern matches what nobody else asked for')
    for thread in threads:
        thread.join(60)
    lengths = [[len(text) for text in mine if not text.startswith(b'y')][:4] for mine in got[:3]]
    tap.equal(lengths, [[LONG, 5, LONG, 4]] * 3, 'all get all of them, whole and in order')
    tap.ok(all(len(mine) == 4 and len(mine[0]) == LONG for mine in got[3:5]),
           'so do those who asked by a pattern')
    for c in subscribers[:5] + [a, b]:
        c.close()


def main():
    tap = Tap()
    with Kvd('--persist', 'memory', '--memory', '64MiB', '--value-max', '8MiB') as kvd:
        for part in (latency, histogram, debug, messages):
            part(tap, kvd)
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
