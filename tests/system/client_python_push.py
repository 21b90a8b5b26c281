#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# python3-redis, unchanged, on kvd's socket and on Redis's: what is pushed. Channels and patterns,
# handlers and threads, keyspace notifications, caching with a redirected connection, and the
# library's asyncio half.
import asyncio
import os
import queue
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import TIMEOUT_S, Tap, wait_until  # noqa: E402
from redispy import PROTOCOLS, Connect, redis  # noqa: E402
from transcript import main, noted  # noqa: E402

try:
    import redis.asyncio  # noqa: E402
except ImportError:
    redis.asyncio = None


def following(p, count):
    """So many messages; None stands for one that did not come."""
    return [p.get_message(timeout=TIMEOUT_S) for _ in range(count)]


def short(messages):
    return [m and (m['type'], m['pattern'], m['channel'], m['data']) for m in messages]


def channels(say, connect):
    r = connect()
    p = r.pubsub()
    p.subscribe('news', 'sport')
    say('subscribed', short(following(p, 2)))
    say('publish', (r.publish('news', 'hello'), r.publish('none', 'hello')))
    say('a message', short(following(p, 1)))
    p.psubscribe('n*', 's?ort')
    say('subscribed to patterns', short(following(p, 2)))
    say('publish to both', r.publish('sport', b'\x00\r\n'))
    say('twice', short(following(p, 2)))
    say('pubsub numsub', r.pubsub_numsub('news', 'sport', 'none'))
    say('pubsub channels', sorted(r.pubsub_channels()))
    say('pubsub channels of a pattern', r.pubsub_channels('n*'))
    say('pubsub numpat', r.pubsub_numpat())
    p.unsubscribe('news', 'none')
    say('unsubscribed', short(following(p, 2)))
    p.punsubscribe()
    say('unsubscribed from patterns', sorted(short(following(p, 2)), key=str)[0][0])
    p.ping('are you there')
    say('ping', short(following(p, 1)))
    p.unsubscribe()
    say('unsubscribed from all', short(following(p, 1)))
    say('subscribed no more', p.subscribed)
    say('nobody listens', r.publish('news', 'hello'))
    p.close()


def handlers(say, connect):
    r = connect(decode_responses=True)
    p = r.pubsub(ignore_subscribe_messages=True)
    seen = queue.Queue()
    p.subscribe(**{'handled': lambda message: seen.put(('channel', message['data']))})
    p.psubscribe(**{'hand*': lambda message: seen.put(('pattern', message['channel'],
                                                       message['data']))})
    thread = p.run_in_thread(sleep_time=0.01, daemon=True)
    wait_until(lambda: r.publish('handled', '') == 2, 'both subscriptions have been made')
    while seen.get(timeout=TIMEOUT_S) != ('pattern', 'handled', ''):
        pass
    for i in range(200):
        r.publish('handled', i)
    got = [seen.get(timeout=TIMEOUT_S) for _ in range(400)]
    say('channel and pattern in turn, all in order',
        got == [event for i in range(200) for event in
                (('channel', str(i)), ('pattern', 'handled', str(i)))])
    thread.stop()
    thread.join(TIMEOUT_S)
    say('the thread ends', thread.is_alive())


def restrictions(say, connect):
    """In RESP2 a connection that listens may do little else."""
    r = connect()
    p = r.pubsub()
    p.subscribe('news')
    say('subscribed', short(following(p, 1)))
    for command in (['GET', 'a'], ['SET', 'a', 'b'], ['NOSUCH'], ['MULTI'],
                    ['PUBLISH', 'news', 'x'], ['HELLO', '2']):
        p.execute_command(*command)
        say.error(f'while it listens: {command[0]}', p.parse_response)
    p.execute_command('QUIT')
    say('quit', p.parse_response())
    say.error('and that was all', p.connection.read_response)


def again(say, connect):
    """Subscriptions that the library makes anew after its connection was cut."""
    r = connect()
    p = r.pubsub(ignore_subscribe_messages=True)

    def read():
        """What there is; a cut connection is mended by the next call."""
        try:
            return p.get_message(timeout=0.02)
        except redis.ConnectionError:
            return None

    def messages(count):
        got = []
        wait_until(lambda: len(got) >= count or got.extend(m for m in [read()] if m), 'messages')
        return short(got)

    def both_subscribed():
        while read():
            pass
        return r.pubsub_numsub('news') == [(b'news', 1)] and r.pubsub_numpat() == 1

    p.subscribe('news')
    p.psubscribe('s*')
    wait_until(both_subscribed, 'subscribed')
    say('publish', (r.publish('news', 'first'), r.publish('sport', 'second')))
    say('before', messages(2))
    say('killed', r.execute_command('CLIENT', 'KILL', 'TYPE', 'pubsub'))
    wait_until(both_subscribed, 'subscribed again')
    say('publish', (r.publish('news', 'third'), r.publish('sport', 'fourth')))
    say('after', messages(2))
    p.close()


def keyspace(say, connect):
    r = connect()
    say('notifications on', r.config_set('notify-keyspace-events', 'KEA'))
    p = r.pubsub(ignore_subscribe_messages=True)
    p.psubscribe('__key*__:*')
    wait_until(lambda: p.subscribed and (p.get_message(timeout=1) or True), 'subscribed')
    r.set('k', 1)
    r.incr('k')
    r.append('k', 'x')
    r.expire('k', 100)
    r.persist('k')
    r.rename('k', 'l')
    r.copy('l', 'm')
    r.delete('l', 'm', 'none')
    with r.pipeline() as t:
        t.set('in', 'multi').setex('timed', 100, 'v').getdel('in').execute()
    r.set('gone', 1, px=1)
    wait_until(lambda: r.get('gone') is None, 'a key ends')
    r.publish('__keyend__:', 'end')
    events = []
    while not events or events[-1][1] != b'end':
        events += [m['data'] and (m['channel'], m['data']) for m in following(p, 1)]
    for event in events:
        say('event', event)
    say('notifications off', r.config_set('notify-keyspace-events', ''))
    p.close()


def caching(say, connect):
    """Invalidations for one connection are told to another one, which listens."""
    r = connect(single_connection_client=True)
    writer = connect()
    p = connect().pubsub(ignore_subscribe_messages=True)
    p.execute_command('CLIENT', 'ID')
    listener = p.parse_response()
    p.subscribe('__redis__:invalidate')
    p.get_message(timeout=TIMEOUT_S)

    def told():
        message = p.get_message(timeout=TIMEOUT_S)
        return message and message['data']

    say('tracking on', r.execute_command('CLIENT', 'TRACKING', 'on', 'REDIRECT', listener))
    say('redirected', r.execute_command('CLIENT', 'GETREDIR') == listener)
    r.get('cached')
    writer.set('cached', 1)
    say('a key that was read', told())
    writer.set('cached', 2)
    writer.set('other', 2)
    r.mget('other', 'cached')
    writer.mset({'cached': 3, 'unread': 3})
    say('only that one', told())
    writer.delete('other')
    say('deleted', told())
    r.get('cached')
    writer.flushall()
    say('flushed', told())
    say('tracking off', r.execute_command('CLIENT', 'TRACKING', 'off'))
    say('prefixes', r.execute_command('CLIENT', 'TRACKING', 'on', 'REDIRECT', listener, 'BCAST',
                                      'PREFIX', 'user:', 'PREFIX', 'object:'))
    writer.set('nothing:1', 1)
    writer.set('user:1', 1)
    say('of a prefix', told())
    writer.set('object:1', 1)
    say('of the other', told())
    info = r.execute_command('CLIENT', 'TRACKINGINFO')
    say('tracking info', sorted(info[1]) + [info[3] == listener] + sorted(info[5]))
    p.close()


def asynchronous(say, connect):
    if redis.asyncio is None:
        say('no asyncio here', True)
        return

    async def talk():
        r = redis.asyncio.Redis(unix_socket_path=connect.path, **connect.protocol)
        say('set', await r.set('a', 1))
        say('gather', await asyncio.gather(*(r.incr('a') for _ in range(50))) and
            await r.get('a'))
        async with r.pipeline(transaction=True) as pipe:
            say('a transaction', await pipe.set('b', 1).incr('b').execute())
        say('scan_iter', sorted([key async for key in r.scan_iter()]))

        async def double(pipe):
            value = int(await pipe.get('a'))
            pipe.multi()
            pipe.set('a', value * 2)

        say('transaction()', await r.transaction(double, 'a'))
        try:
            await r.incrby('b', 'x')
        except redis.ResponseError as error:
            say('an error', str(error))
        async with r.pubsub() as p:
            await p.subscribe('news')
            await p.psubscribe('n*')
            say('publish', await until(lambda: r.publish('news', 'x'), 2))
            kinds = []
            while 'pmessage' not in kinds:
                message = await p.get_message(timeout=TIMEOUT_S)
                kinds += [message['type']] if message else []
            say('messages', kinds[-2:])
        await r.close()
        await r.connection_pool.disconnect()

    async def until(make, wanted):
        for _ in range(1000):
            got = await make()
            if got == wanted:
                break
        return got

    asyncio.run(talk())


PARTS = (channels, handlers, restrictions, again, keyspace, caching, asynchronous)


def run(tap, both):
    Tap.diag(f'redis-py {redis.__version__}')
    for protocol in PROTOCOLS:
        for part in PARTS:
            if protocol == 3 and part is restrictions:
                continue
            both.converse(tap, f'redis-py RESP{protocol} {part.__name__}', noted(
                lambda say, path, part=part, protocol=protocol: part(say, Connect(path, protocol))))


if __name__ == '__main__':
    main(run)
