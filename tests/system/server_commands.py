#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# Commands about the server and its connections: the same conversations with kvd and, where it is
# installed, with Redis 7.0, byte for byte; and what no Redis can judge, pauses, sleeps, kills, the
# configuration file.
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Connection, Kvd, ReplyError, Tap, wait_until  # noqa: E402
from redistest import Redis, find_redis  # noqa: E402


class Raw(Connection):
    """Replies as the bytes that came."""

    def raw(self):
        line = self._line()
        kind, out = line[:1], line + b'\r\n'
        if kind in b'$=!' and line[1:] != b'-1':
            return out + self._bytes(int(line[1:]) + 2)
        if kind in b'*~>%' and line[1:] != b'-1':
            for _ in range(int(line[1:]) * (2 if kind == b'%' else 1)):
                out += self.raw()
        return out


# Conversations: one command a line, words with single spaces; "2:" before it is a second connection
# and "" an empty word.
CONVERSATIONS = {
    'WATCH': '''
        WATCH|UNWATCH x|UNWATCH|SET a 1|WATCH a|MULTI|WATCH a|GET a|EXEC|WATCH a|SET a 2|MULTI
        GET a|EXEC|MULTI|GET a|EXEC|WATCH nx|SET nx 1|MULTI|GET a|EXEC|WATCH nx|2:DEL nx|MULTI
        GET a|EXEC|WATCH a|2:SET a 3|UNWATCH|MULTI|GET a|EXEC|WATCH a|2:SET a 3|MULTI|DISCARD|MULTI
        GET a|EXEC|WATCH a|2:FLUSHALL|MULTI|PING|EXEC|WATCH a b c|2:SET q 1|MULTI|PING|UNWATCH|EXEC
        WATCH a|SET a 2|MULTI|NOSUCH|EXEC|SET t 1|WATCH t|EXPIRE t 100|MULTI|PING|EXEC|WATCH t
        TOUCH t|MULTI|PING|EXEC|SET t 1|WATCH t|PERSIST t|MULTI|PING|EXEC|WATCH t|APPEND t x|MULTI
        PING|EXEC|EXEC|DISCARD|WATCH t|MULTI|WATCH t|UNWATCH|PING|EXEC''',
    'WATCH of absent keys': '''
        WATCH n|2:SET n 1|2:DEL n|MULTI|PING|EXEC|WATCH n|2:FLUSHALL|MULTI|PING|EXEC|WATCH n
        2:DEL n|MULTI|PING|EXEC|WATCH n|2:MULTI|2:SET n 1|2:DEL n|2:EXEC|MULTI|PING|EXEC|WATCH n m
        2:MSET n 1 m 2|2:RENAME n z|2:DEL m|MULTI|PING|EXEC|WATCH x|2:SET s 1|2:COPY s x|2:DEL x
        MULTI|PING|EXEC|WATCH x|2:INCR x|2:EXPIRE x -1|MULTI|PING|EXEC|WATCH n|SETRANGE n 0 ""
        MULTI|PING|EXEC|WATCH a b c d e f g h i j k l m o p q r t u|2:SETNX u 1|2:GETDEL u|MULTI
        PING|EXEC''',
    'RESET': '''
        RESET x|MULTI|GET a|RESET|GET a|EXEC|CLIENT SETNAME foo|RESET|CLIENT GETNAME|WATCH a|RESET
        2:SET a 1|MULTI|PING|EXEC''',
    'CONFIG SET': '''
        CONFIG SET|CONFIG SET a|CONFIG SET a b|CONFIG SET a b c|CONFIG SET hz 20 nope 3
        CONFIG GET hz|CONFIG SET daemonize yes|CONFIG SET nope 1 daemonize yes
        CONFIG SET daemonize yes nope 1|CONFIG SET hz 20 hz 30|CONFIG SET hz abc|CONFIG SET hz -1
        CONFIG SET hz 20 maxmemory-samples 0|CONFIG GET hz|CONFIG SET HZ 20|CONFIG GET HZ
        CONFIG GET hz HZ hz|CONFIG SET activerehashing x|CONFIG SET lazyfree-lazy-expire YES
        CONFIG GET lazyfree-lazy-expire|CONFIG SET maxmemory-policy foo|CONFIG SET maxmemory foo
        CONFIG SET maxmemory-clients 200%|CONFIG SET slowlog-log-slower-than -2
        CONFIG SET slowlog-log-slower-than -1|CONFIG GET slowlog-log-slower-than
        CONFIG SET slowlog-log-slower-than abc
        CONFIG SET slowlog-max-len 10 latency-monitor-threshold 5|CONFIG GET slowlog-max-len
        CONFIG SET notify-keyspace-events KEAz|CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events q|CONFIG SET notify-keyspace-events ""
        CONFIG SET repl-backlog-size 1mb|CONFIG GET repl-backlog-size
        CONFIG SET repl-backlog-size 1x|CONFIG SET latency-tracking-info-percentiles 101
        CONFIG SET latency-tracking-info-percentiles a
        CONFIG SET latency-tracking-info-percentiles 50
        CONFIG GET latency-tracking-info-percentiles|CONFIG SET loglevel warning
        CONFIG GET loglevel|CONFIG SET maxclients 100|CONFIG GET maxclients
        CONFIG SET appendonly maybe|CONFIG GET key-load-delay|CONFIG GET key-load-dela?
        CONFIG REWRITE|CONFIG SET timeout -1|CONFIG GET timeout|CONFIG HELP x
        CONFIG SET oom-score-adj foo|CONFIG SET hz 10 latency-monitor-threshold -1|CONFIG GET hz
        CONFIG RESETSTAT x
        CONFIG SET latency-monitor-threshold 0''',
    'what others may be part of': '''
        CLUSTER|CLUSTER INFO|CLUSTER NODES|CLUSTER SLOTS x|CLUSTER FOO|CLUSTER HELP|READONLY
        READONLY x|READWRITE|ASKING|MODULE|MODULE LIST|MODULE LIST x|MODULE FOO|REPLICAOF NO ONE
        SLAVEOF no one|REPLICAOF no|SCRIPT|SCRIPT EXISTS|SCRIPT EXISTS a b|SCRIPT FLUSH
        SCRIPT FLUSH async|SCRIPT FLUSH x|SCRIPT FLUSH a b|SCRIPT KILL|SCRIPT FOO
        FUNCTION FLUSH a b|FUNCTION FLUSH x''',
    'ACL': '''
        ACL GETUSER default|ACL GETUSER Default|ACL GETUSER|ACL LOG|ACL LOG 0|ACL LOG x
        ACL LOG RESET|ACL LOG 1 2|ACL DELUSER default x|ACL DELUSER x y|ACL DRYRUN default get a
        ACL DRYRUN default get|ACL DRYRUN nobody get a|ACL DRYRUN default nosuch
        ACL DRYRUN default client id|ACL DRYRUN default client nosuch|ACL GENPASS 0|ACL GENPASS x
        ACL GENPASS 4097|ACL GENPASS 8 8''',
    'CLIENT': '''
        CLIENT KILL|CLIENT KILL x|CLIENT KILL ID|CLIENT KILL ID 0|CLIENT KILL ID abc
        CLIENT KILL ID 10000|CLIENT KILL TYPE foo|CLIENT KILL TYPE master|CLIENT KILL USER nobody
        CLIENT KILL USER default ID 99999|CLIENT KILL SKIPME maybe|CLIENT KILL SKIPME
        CLIENT KILL ADDR x LADDR y|CLIENT KILL ID 1 FOO|CLIENT KILL ID 1 FOO bar
        CLIENT KILL SKIPME yes TYPE pubsub|CLIENT NO-EVICT on|CLIENT NO-EVICT x|CLIENT NO-EVICT off
        CLIENT PAUSE|CLIENT PAUSE a|CLIENT PAUSE -1|CLIENT PAUSE 100 foo|CLIENT PAUSE 0 WRITE
        CLIENT PAUSE 100 WRITE a|CLIENT PAUSE 100000 WRITE|GET a|CLIENT UNPAUSE|SET a b
        CLIENT UNPAUSE x|CLIENT PAUSE 20|GET a|CLIENT PAUSE 20 all|SET a c|CLIENT REPLY foo
        CLIENT REPLY ON|CLIENT UNBLOCK 5|CLIENT UNBLOCK abc|CLIENT UNBLOCK 5 foo
        CLIENT UNBLOCK 5 error|CLIENT UNBLOCK 5 TIMEOUT x''',
    'OBJECT and MEMORY': '''
        SET i 12345|SET e abc|SET n -0|SET p 01|SET big 9223372036854775807
        SET b2 9223372036854775808|SET r 012345678901234567890123456789012345678901234
        OBJECT ENCODING i|OBJECT ENCODING e|OBJECT ENCODING r|OBJECT ENCODING n|OBJECT ENCODING p
        OBJECT ENCODING big|OBJECT ENCODING b2|OBJECT ENCODING no|OBJECT FREQ e|OBJECT FREQ no
        OBJECT IDLETIME e|OBJECT IDLETIME no|OBJECT REFCOUNT e|OBJECT REFCOUNT no|OBJECT|OBJECT FOO
        OBJECT FOO a|OBJECT ENCODING|OBJECT HELP a|MEMORY USAGE|MEMORY USAGE no
        MEMORY USAGE e SAMPLES|MEMORY USAGE e SAMPLES a|MEMORY USAGE e SAMPLES -1
        MEMORY USAGE e FOO 1|MEMORY PURGE|MEMORY FOO|MEMORY PURGE x''',
    'SLOWLOG and LATENCY': '''
        SLOWLOG RESET|SLOWLOG LEN|SLOWLOG GET|SLOWLOG GET -2|SLOWLOG GET 1 2|SLOWLOG GET a|SLOWLOG
        SLOWLOG FOO|LATENCY LATEST|LATENCY HISTORY x|LATENCY RESET|LATENCY RESET x
        LATENCY GRAPH command|LATENCY HELP x|LATENCY HISTOGRAM nosuch''',
    'the server': '''
        ROLE|ROLE x|WAIT 0 0|WAIT a 0|WAIT 0 a|WAIT 0 -1|SWAPDB 0 0|SWAPDB a 0|SWAPDB 0 a
        SWAPDB 0 1|SET e 1|MOVE e 0|MOVE e 1|MOVE e a|MOVE no 0|MOVE no 1|ACL WHOAMI|ACL USERS
        ACL LIST|ACL CAT nope|ACL FOO|BGSAVE foo|LASTSAVE x|FUNCTION FLUSH|FUNCTION FLUSH x
        FUNCTION LIST|FUNCTION KILL|FUNCTION DELETE x|INFO nosuch''',
    'DEBUG': '''
        DEBUG|DEBUG FOO|DEBUG SLEEP 0|DEBUG SLEEP 0.01|DEBUG PROTOCOL string|DEBUG PROTOCOL integer
        DEBUG PROTOCOL double|DEBUG PROTOCOL bignum|DEBUG PROTOCOL null|DEBUG PROTOCOL array
        DEBUG PROTOCOL set|DEBUG PROTOCOL map|DEBUG PROTOCOL push|DEBUG PROTOCOL true
        DEBUG PROTOCOL false|DEBUG PROTOCOL verbatim|DEBUG PROTOCOL x|DEBUG SET-ACTIVE-EXPIRE 0
        DEBUG SET-ACTIVE-EXPIRE 1|DEBUG OBJECT nokey|DEBUG LOG foo''',
    'COMMAND GETKEYS': '''
        COMMAND GETKEYS nosuch a|COMMAND GETKEYS ping a|COMMAND GETKEYS get a b|COMMAND GETKEYS get
        COMMAND GETKEYS mset a 1 b 2|COMMAND GETKEYS mset a 1 b|COMMAND GETKEYS config get a
        COMMAND GETKEYS memory usage a|COMMAND GETKEYS object foo a
        COMMAND GETKEYS object encoding a|COMMAND GETKEYSANDFLAGS set a b get
        COMMAND GETKEYSANDFLAGS set a b|COMMAND GETKEYSANDFLAGS bitfield a get u8 0
        COMMAND GETKEYSANDFLAGS bitfield a set u8 0 1|COMMAND GETKEYSANDFLAGS rename a b
        COMMAND GETKEYSANDFLAGS mset a 1 b 2|COMMAND GETKEYSANDFLAGS del a b
        COMMAND GETKEYSANDFLAGS copy a b|COMMAND GETKEYS lcs a b idx
        COMMAND GETKEYSANDFLAGS append a b|COMMAND GETKEYSANDFLAGS strlen a
        COMMAND GETKEYSANDFLAGS msetnx a 1|COMMAND GETKEYSANDFLAGS bitop and a b c''',
}


def lines(text):
    for line in text.split('\n'):
        for part in line.strip().split('|'):
            if part:
                who, _, command = part.rpartition(':') if part[1:2] == ':' else ('', '', part)
                yield who, ['' if word == '""' else word for word in command.split(' ')]


def converse(path, text, protocol):
    """Every reply, with the command it belongs to."""
    connections, out = {}, []
    for who, command in lines(text):
        if who not in connections:
            connections[who] = Raw(path)
            connections[who].command('HELLO', protocol)
        connections[who].append(*command)
        out.append((' '.join([who] + command), connections[who].raw()))
    for connection in connections.values():
        connection.close()
    return out


def test_alike(tap, program):
    options = ('--enable-debug-command', 'yes')
    with Redis(program, *options) as redis, \
            Kvd('--persist', 'memory', '--memory', '64MiB') as kvd:
        for protocol in (2, 3):
            for name, text in CONVERSATIONS.items():
                for path in (kvd.socket, redis.socket):
                    with Connection(path) as c:
                        c.command('FLUSHALL')
                mine = converse(kvd.socket, text, protocol)
                theirs = converse(redis.socket, text, protocol)
                wrong = [pair for pair in zip(mine, theirs) if pair[0] != pair[1]]
                tap.equal(wrong, [], f'RESP{protocol} {name}: {len(mine)} answers are alike')


def test_waiting(tap, kvd):
    a, b = kvd.connect(), kvd.connect()
    a.command('CLIENT', 'PAUSE', 100000, 'WRITE')
    b.append('SET', 'paused', 1)
    b.append('GET', 'paused')
    tap.equal(a.command('GET', 'paused'), None, 'a pause of writes: reads go on')
    wait_until(lambda: b'blocked_clients:1\r\n' in a.command('INFO', 'clients'),
               'who waits is counted')
    a.command('CLIENT', 'UNPAUSE')
    tap.equal([b.reply(), b.reply()], ['OK', b'1'], 'then what waited is done, in order')
    a.command('CLIENT', 'PAUSE', 100000, 'ALL')
    b.append('PING')
    tap.equal(a.command('CLIENT', 'UNPAUSE'), 'OK', 'a pause of everything can be ended')
    tap.equal(b.reply(), 'PONG', 'and everything goes on')
    with kvd.connect() as sleeper:
        sleeper.append('DEBUG', 'SLEEP', '1000')
        wait_until(lambda: b'cmd=debug' in b.command('CLIENT', 'LIST'), 'it sleeps')
        tap.equal(b.command('PING'), 'PONG', 'while one connection sleeps another is answered')
    start = time.monotonic()
    a.append('DEBUG', 'SLEEP', '0.3')
    a.append('ECHO', 'behind')
    tap.equal([a.reply(), a.reply()], ['OK', b'behind'], 'it is answered when it has slept')
    tap.ok(time.monotonic() - start >= 0.3, 'and not before')
    b.command('CONFIG', 'SET', 'slowlog-log-slower-than', 100000)
    b.command('CONFIG', 'SET', 'latency-monitor-threshold', 100)
    a.command('DEBUG', 'SLEEP', '0.2')
    # On a machine that stands still anything may have taken long.
    entry = next((entry for entry in b.command('SLOWLOG', 'GET', -1)
                  if entry[3] == [b'DEBUG', b'SLEEP', b'0.2']), None)
    tap.ok(entry, 'SLOWLOG keeps what took long')
    tap.ok(entry[2] >= 200000, 'and how long')
    tap.ok(max(ms for _, ms in b.command('LATENCY', 'HISTORY', 'command')) >= 200,
           'LATENCY, too')
    b.command('CONFIG', 'SET', 'latency-monitor-threshold', 0)
    tap.ok(b.command('LATENCY', 'RESET') >= 1, 'until it is reset')
    tap.equal(b.command('LATENCY', 'HISTORY', 'command'), [], 'then it is not there any more')


def test_slowlog(tap, kvd):
    c = kvd.connect()
    c.command('CONFIG', 'SET', 'slowlog-log-slower-than', 0, 'slowlog-max-len', 3)
    c.command('SLOWLOG', 'RESET')
    c.command('MGET', *map(str, range(40)))
    c.command('SET', 'k', 'v' * 200)
    c.command('AUTH', 'default', 'secret')
    got = [entry[3] for entry in c.command('SLOWLOG', 'GET', -1)]
    tap.equal(got[0], [b'AUTH', b'(redacted)', b'(redacted)'], 'SLOWLOG keeps no passwords')
    tap.equal(got[1][2], b'v' * 128 + b'... (72 more bytes)', 'nor long arguments')
    tap.equal((len(got[2]), got[2][-1]), (32, b'... (10 more arguments)'), 'nor many')
    tap.equal(c.command('SLOWLOG', 'LEN'), 3, 'nor more than slowlog-max-len')
    c.command('CONFIG', 'SET', 'slowlog-log-slower-than', 10000)


def test_replies(tap, kvd):
    c = kvd.connect()
    c.send(b''.join(Connection.encode(*words) for words in (
        ['CLIENT', 'REPLY', 'OFF'], ['PING'], ['NOSUCH'], ['CLIENT', 'REPLY', 'ON'],
        ['ECHO', 'a'])))
    tap.equal([c.reply(), c.reply()], ['OK', b'a'], 'CLIENT REPLY OFF and ON')
    c.send(b''.join(Connection.encode(*words) for words in (
        ['CLIENT', 'REPLY', 'SKIP'], ['PING'], ['ECHO', 'b'], ['MULTI'],
        ['CLIENT', 'REPLY', 'SKIP'], ['PING'], ['EXEC'], ['ECHO', 'skipped'], ['ECHO', 'c'])))
    tap.equal([c.reply() for _ in range(6)], [b'b', 'OK', 'QUEUED', 'QUEUED', ['OK', 'PONG'], b'c'],
              'CLIENT REPLY SKIP, outside and inside a transaction')


def test_kill(tap, kvd):
    a, b, c = kvd.connect(), kvd.connect(), kvd.connect()
    number = b.command('CLIENT', 'ID')
    tap.equal(a.command('CLIENT', 'KILL', 'ID', number), 1, 'CLIENT KILL ID')
    tap.ok(b.at_end(), 'it is gone')
    tap.equal(c.command('CLIENT', 'KILL', 'ADDR', kvd.socket + ':0', 'SKIPME', 'yes'), 1,
              'CLIENT KILL ADDR, but not me')
    tap.ok(a.at_end(), 'the other is gone')
    tap.equal(c.command('CLIENT', 'KILL', kvd.socket + ':0'), 'OK', 'the old form kills me, too')
    tap.ok(c.at_end(), 'behind the answer')


def test_timeout(tap, kvd):
    a, b, subscriber = kvd.connect(), kvd.connect(), kvd.connect()
    subscriber.command('SUBSCRIBE', 'news')
    a.command('CONFIG', 'SET', 'timeout', 1)
    tap.ok(b.at_end(), 'who says nothing for `timeout` is closed')
    def once():
        with kvd.connect() as c:
            heard = c.command('PUBLISH', 'news', 'x')
            c.command('CONFIG', 'SET', 'timeout', 0)
            return heard

    for tries in range(20):  # a second may pass by itself
        try:
            tap.equal(once(), 1, 'a subscriber is not')
            break
        except (OSError, EOFError):
            tap.ok(tries < 19, 'nor is anybody who has just come')


def test_watch_bound(tap, kvd):
    c = kvd.connect()
    for i in range(8):
        c.command('WATCH', *(f'w{i}-{n}' for n in range(512)))
    tap.equal(c.command('WATCH', 'one-more'),
              ReplyError('ERR too many watched keys: a connection may watch 4096'),
              'G: keys that are watched are bounded')
    tap.equal(c.command('WATCH', 'w0-0'), 'OK', 'one that is watched already is no more')
    c.command('UNWATCH')
    tap.equal(c.command('WATCH', 'one-more'), 'OK', 'UNWATCH makes room')


def test_rewrite(tap):
    with Kvd(start=False) as kvd:
        path = os.path.join(kvd.root, 'kvd.conf')
        with open(path, 'w', encoding='utf-8') as file:
            file.write('# mine\npersist = memory   \n\n# patience\nwrite-wait = 2s\nmemory=64MiB')
        os.chmod(path, 0o640)
        kvd.start('--config', path)
        c = kvd.connect()
        tap.equal(c.command('CONFIG', 'REWRITE'), 'OK', 'CONFIG REWRITE without a change')
        c.command('CONFIG', 'SET', 'write-wait', '3s', 'slowlog-max-len', 7,
                  'notify-keyspace-events', 'KEA')
        tap.equal(c.command('CONFIG', 'REWRITE'), 'OK', 'CONFIG REWRITE')
        c.command('CONFIG', 'SET', 'slowlog-max-len', 8)
        c.command('CONFIG', 'REWRITE')
        with open(path, encoding='utf-8') as file:
            tap.equal(file.read(), '# mine\npersist = memory   \n\n# patience\nwrite-wait = 3s\n'
                      'memory=64MiB\n# Set while kvd ran, by CONFIG REWRITE\n'
                      'notify-keyspace-events = AKE\nslowlog-max-len = 8\n',
                      'values are replaced, everything else stays')
        tap.equal((os.stat(path).st_mode & 0o777, len(os.listdir(kvd.root))), (0o640, 3),
                  'with its mode, and nothing is left beside it')
        kvd.stop()
        kvd.restart()
        c = kvd.connect()
        tap.equal(c.command('CONFIG', 'GET', 'write-wait', 'slowlog-max-len'),
                  [b'write-wait', b'3000', b'slowlog-max-len', b'8'], 'kvd starts with it')
        c.command('CONFIG', 'SET', 'write-wait', '4s')
        os.unlink(path)
        tap.ok(str(c.command('CONFIG', 'REWRITE')).startswith('ERR Rewriting config file: '),
               'a file that is gone is an error')


def test_output_limits(tap):
    name = 'client-output-buffer-limit'
    with Kvd() as kvd:
        c = kvd.connect()

        def set_limits(text):
            got = c.command('CONFIG', 'SET', name, text)
            return str(got).rpartition(' - ')[2], c.command('CONFIG', 'GET', name)[1].decode()

        limits = 'normal 1048576 0 0 slave 0 0 0 pubsub 16777216 4194304 30'
        tap.equal(set_limits('normal 1mb 0 0  pubsub 16mb 4mb 30'), ('OK', limits),
                  f'{name} can be set')
        tap.equal(c.command('CONFIG', 'GET', 'client-output-max', 'subscriber-output-*'),
                  [b'client-output-max', b'1048576', b'subscriber-output-max', b'16777216',
                   b'subscriber-output-soft', b'4194304', b'subscriber-output-soft-time',
                   b'30000'], "and stands for options of kvd's own")
        for text, error in (
                ('normal 0 0 0 normal 1mb 1 0', 'kvd has a soft limit for pubsub clients only'),
                ('pubsub 0 0 0 replica 1 0 0', 'kvd has no replicas'),
                ('normal 5 0 0', 'argument must be between 65536 and 18446744073709551615 '
                                 'inclusive'),
                ('pubsub 1 2', 'Wrong number of arguments in buffer limit configuration.'),
                ('pubsub 1 2 3x', 'Error in hard, soft or soft_seconds setting in buffer limit '
                                  'configuration.'),
                ('foo 1 2 3', 'Invalid client class specified in buffer limit configuration.')):
            tap.equal(set_limits(text), (error, limits), f'{name} {text}')
        tap.equal(set_limits('Normal 0 0 0 replica 0 0 0'),
                  ('OK', limits.replace('1048576', '0')), 'no bound but that of all buffers')


def test_rewrite_of_a_slow_disk(tap):
    """The file is a FIFO: whoever reads it waits for this test."""
    with Kvd(start=False) as kvd:
        path = os.path.join(kvd.root, 'kvd.conf')
        with open(path, 'w', encoding='utf-8') as file:
            file.write('memory = 64MiB\n')
        kvd.start('--config', path)
        first, second, gone, other = (kvd.connect() for _ in range(4))
        other.command('CONFIG', 'SET', 'write-wait', '3s')
        os.unlink(path)
        os.mkfifo(path)
        first.send(first.encode('PING') + first.encode('CONFIG', 'REWRITE') +
                   first.encode('PING'))
        tap.equal(first.reply(), 'PONG', 'what came before CONFIG REWRITE is answered')
        gone.send(gone.encode('CONFIG', 'REWRITE'))
        second.send(second.encode('CONFIG', 'REWRITE'))
        tap.equal(other.command('PING'), 'PONG', 'while a file is written others are served')
        gone.close()
        other.command('CONFIG', 'SET', 'write-wait', '4s')
        with open(path, 'w', encoding='utf-8') as file:
            file.write('memory = 64MiB\nwrite-wait = 1s\n')
        tap.equal([first.reply(), first.reply()], ['OK', 'PONG'], 'its client is answered then')
        tap.equal(second.reply(), 'OK', 'the next begins when it is over')
        with open(path, encoding='utf-8') as file:
            tap.equal(file.read(), 'memory = 64MiB\nwrite-wait = 4s\n', 'and has what is new')
        os.unlink(path)
        os.mkfifo(path)
        first.send(first.encode('CONFIG', 'REWRITE'))
        tap.equal(other.command('PING'), 'PONG', 'its client goes')
        first.close()
        with open(path, 'w', encoding='utf-8') as file:
            file.write('memory = 64MiB\n')
        tap.equal(second.command('CONFIG', 'REWRITE'), 'OK', 'and nobody waits for him')
        tap.equal([second.command('MULTI'), second.command('CONFIG', 'REWRITE'),
                   second.command('EXEC')],
                  ['OK', 'QUEUED', [ReplyError('ERR CONFIG REWRITE waits for the disk, a '
                                               'transaction cannot')]],
                  'a transaction does not wait for the disk')


def test_save(tap):
    with Kvd('--persist', 'lazy', '--lazy-interval', '1h', '--memory', '64MiB') as kvd:
        c = kvd.connect()
        c.command('SET', 'a', 1)
        tap.equal(c.command('SAVE'), 'OK', 'E: SAVE answers when all is durable')
        c.command('SET', 'b', 1)
        before = c.command('LASTSAVE')
        tap.equal(c.command('BGSAVE'), 'Background saving started', 'BGSAVE')
        c.command('KVD.SYNC')
        tap.ok(c.command('LASTSAVE') >= before > 0, 'LASTSAVE tells when')
        kvd.kill()
        kvd.restart()
        c = kvd.connect()
        tap.equal(c.command('MGET', 'a', 'b'), [b'1', b'1'], 'E: after kill -9 both are there')


def main():
    tap = Tap()
    program, why = find_redis()
    if program:
        test_alike(tap, program)
    else:
        tap.skip('answers are alike', why)
    with Kvd('--persist', 'memory', '--memory', '64MiB') as kvd:
        test_waiting(tap, kvd)
        test_slowlog(tap, kvd)
        test_replies(tap, kvd)
        test_kill(tap, kvd)
        test_watch_bound(tap, kvd)
        test_timeout(tap, kvd)
    test_rewrite(tap)
    test_rewrite_of_a_slow_disk(tap)
    test_output_limits(tap)
    test_save(tap)
    tap.done()


if __name__ == '__main__':
    main()
