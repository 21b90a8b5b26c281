#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# python3-redis, unchanged, on kvd's socket and on Redis's: what its own helpers for pipelines,
# transactions, retries, pools, decoding and scans make of the replies must be the same. RESP3 too,
# where the library knows it (from 5.0 on). Publish and subscribe: client_python_push.py.
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Tap  # noqa: E402
from redispy import PROTOCOLS, Connect, redis  # noqa: E402
from transcript import main, noted  # noqa: E402

from redis.backoff import ConstantBackoff  # noqa: E402
from redis.retry import Retry  # noqa: E402


def values(say, connect):
    r = connect()
    say('set', r.set('py', b'\x00\xff', px=100000))
    say('get', r.get('py'))
    say('pttl', 99000 < r.pttl('py') <= 100000)
    say('set nx', r.set('py', 'x', nx=True))
    say('set xx get', r.set('py', 'y', xx=True, get=True))
    say('getex', r.getex('py', persist=True))
    say('ttl', r.ttl('py'))
    say('incrby', r.incrby('count', 41))
    say('incr', r.incr('count'))
    say('decr', r.decr('count', 2))
    say('incrbyfloat', r.incrbyfloat('float', 2.5))
    say('mset', r.mset({'a': 1, 'b': 2}))
    say('msetnx', r.msetnx({'a': 1, 'new': 2}))
    say('mget', r.mget('a', 'none', 'b'))
    say('exists', r.exists('a', 'a', 'none'))
    say('delete', r.delete('a', 'none'))
    say('append', r.append('b', 'xyz'))
    say('getrange', r.getrange('b', 1, -1))
    say('setrange', r.setrange('b', 6, 'end'))
    say('substr', r.substr('b', 0, 1))
    say('strlen', r.strlen('b'))
    say('getset', r.getset('b', 'old'))
    say('getdel', r.getdel('b'))
    say('setex', r.setex('timed', 100, 'v'))
    say('psetex', r.psetex('timed', 100000, 'v'))
    say('expire gt', r.expire('timed', 1, gt=True))
    say('expireat', r.expireat('timed', 2000000000))
    say('expiretime', r.expiretime('timed'))
    say('persist', r.persist('timed'))
    say('type', (r.type('timed'), r.type('none')))
    say('touch', r.touch('timed', 'none'))
    say('rename', r.rename('timed', 'renamed'))
    say('renamenx', r.renamenx('renamed', 'py'))
    say('copy', r.copy('renamed', 'copied'))
    say('randomkey', r.randomkey() in r.keys())
    say('keys', sorted(r.keys('[cpr]*')))
    say('dbsize', r.dbsize())
    say('flushdb', r.flushdb())


def bits(say, connect):
    r = connect()
    say('setbit', [r.setbit('bits', at, 1) for at in (1, 7, 7, 100)])
    say('getbit', [r.getbit('bits', at) for at in (0, 1, 7, 100, 101)])
    say('bitcount', (r.bitcount('bits'), r.bitcount('bits', 0, 0), r.bitcount('bits', 1, -1)))
    say('bitpos', (r.bitpos('bits', 1), r.bitpos('bits', 0), r.bitpos('bits', 1, 2)))
    say('lcs', r.mset({'one': 'ohmytext', 'two': 'mynewtext'}) and
        r.execute_command('LCS', 'one', 'two'))
    say('lcs idx', r.execute_command('LCS', 'one', 'two', 'IDX', 'WITHMATCHLEN'))


def scans(say, connect):
    r = connect()
    r.flushall()
    r.mset({f'scan:{i}': i for i in range(700)})
    r.mset({f'other:{i}': i for i in range(300)})
    say('scan_iter', len(set(r.scan_iter())))
    say('scan_iter match', sorted(set(r.scan_iter('scan:1*')))[:20])
    say('scan_iter count', len(set(r.scan_iter(count=3))))
    say('scan_iter type', (len(set(r.scan_iter(_type='string'))), list(r.scan_iter(_type='LIST'))))
    say('scan', type(r.scan(0)[0]))
    r.flushall()


def errors(say, connect):
    r = connect()
    r.set('text', 'abc')
    say.error('incr of text', r.incr, 'text')
    say.error('incrbyfloat of text', r.incrbyfloat, 'text', 1.5)
    say.error('wrong number of arguments', r.execute_command, 'GET')
    say.error('unknown command', r.execute_command, 'NOSUCH', 'a b', 'c')
    say.error('a list', r.execute_command, 'HSETS', 'k', 'f', 'v')
    say.error('syntax', r.execute_command, 'SET', 'a', 'b', 'NOPE')
    say.error('invalid expire', r.setex, 'a', 0, 'b')
    say.error('rename of nothing', r.rename, 'none', 'x')
    say.error('bit out of range', r.setbit, 'bits', 2**32, 1)
    say.error('setrange out of range', r.setrange, 'bits', 2**29, 'x')
    say.error('select', r.execute_command, 'SELECT', 99)
    say.error('exec without multi', r.execute_command, 'EXEC')


def pipelines(say, connect):
    r = connect()
    with r.pipeline(transaction=True) as p:
        p.set('t', 1).incr('t').get('t')
        say('a transaction', p.execute())
    with r.pipeline(transaction=False) as p:
        for i in range(1000):
            p.set(f'p{i}', i)
        say('a pipeline', p.execute() == [True] * 1000)
    with r.pipeline() as p:
        p.set('text', 'abc').incr('text').set('after', 1)
        say.error('an error inside a transaction', p.execute)
        p.set('text', 'abc').incr('text').set('after', 2)
        say('errors as results', [str(reply) for reply in p.execute(raise_on_error=False)])
    with r.pipeline() as p:
        p.set('kept', 1).execute_command('SET', 'kept')
        say.error('refused when queued', p.execute)
    say('nothing of it happened', r.get('kept'))
    with r.pipeline(transaction=False) as p:
        p.set('text', 'abc').incr('text').get('text')
        say('errors in a pipeline', [str(reply) for reply in p.execute(raise_on_error=False)])


def watches(say, connect):
    r, other = connect(), connect()
    r.set('balance', 10)

    def double(p):
        attempts.append(1)
        value = int(p.get('balance'))
        if len(attempts) < 3:
            other.incr('balance')  # in between: the transaction has to be tried again
        p.multi()
        p.set('balance', value * 2)

    attempts = []
    say('transaction() with two conflicts', r.transaction(double, 'balance'))
    say('attempts', len(attempts))
    say('balance', r.get('balance'))
    with r.pipeline() as p:
        p.watch('balance', 'none')
        other.set('none', 1)
        p.multi()
        p.get('balance')
        say.error('a watched key that appears', p.execute)
    with r.pipeline() as p:
        p.watch('balance')
        other.delete('balance')
        p.multi()
        p.set('balance', 0)
        say.error('a watched key that goes', p.execute)
    with r.pipeline() as p:
        p.watch('balance')
        p.unwatch()
        other.set('balance', 5)
        p.multi()
        p.incr('balance')
        say('after unwatch', p.execute())
    with r.pipeline() as p:
        p.watch('balance')
        other.set('unrelated', 5)
        p.multi()
        p.incr('balance')
        say('another key changes nothing', p.execute())


def decoding(say, connect):
    r = connect(decode_responses=True)
    r.set('word', 'grün')
    say('decoded', (r.get('word'), r.mget('word', 'none'), r.type('word')))
    say('keys decoded', sorted(r.scan_iter('w*')))
    latin = connect(decode_responses=True, encoding='latin-1')
    say('in latin-1', latin.get('word'))
    latin.set('word', 'grün')
    say('bytes of latin-1', connect().get('word'))
    say.error('bytes that are none', r.get, 'word')
    r.flushall()


def locks(say, connect):
    """The lock helper gives back with a script, which kvd has not: all up to that."""
    r = connect()
    mine, yours = r.lock('lock', timeout=100), r.lock('lock', timeout=100)
    say('a lock is taken', mine.acquire(blocking=False))
    say('once', yours.acquire(blocking=False))
    say('it knows', (mine.locked(), mine.owned(), yours.owned()))
    say('with an end', 0 < r.pttl('lock') <= 100000)
    say('given back', r.delete('lock'))
    say('and taken again', yours.acquire(blocking=False))
    r.delete('lock')


def pools(say, connect):
    path = connect.path
    pool = redis.BlockingConnectionPool(connection_class=redis.UnixDomainSocketConnection,
                                        path=path, max_connections=3, timeout=20)
    r = redis.Redis(connection_pool=pool)
    r.delete('shared')

    def work():
        for _ in range(200):
            r.incr('shared')

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say('six threads over three connections', r.get('shared'))
    pool.disconnect()
    say('a pool that was disconnected', r.get('shared'))
    few = redis.ConnectionPool(connection_class=redis.UnixDomainSocketConnection, path=path,
                               max_connections=1)
    held = few.get_connection('PING')
    say.error('a pool that is empty', redis.Redis(connection_pool=few).ping)
    few.release(held)
    say('and no longer', redis.Redis(connection_pool=few).ping())
    few.disconnect()
    url = redis.Redis.from_url(f'unix://{path}?db=0&client_name=url')
    say('from_url', (url.ping(), url.client_getname()))
    url.close()
    say('a fresh connection on an old client', url.ping())


def retries(say, connect):
    """The connection is cut; the client connects again and repeats the command by itself."""
    r = connect(single_connection_client=True, client_name='cut',
                retry=Retry(ConstantBackoff(0), 3), retry_on_error=[redis.ConnectionError])
    other = connect()
    r.set('retried', 1)
    for how in ('ID', 'id'):
        say('killed', other.execute_command('CLIENT', 'KILL', how, r.client_id()))
        say('the client did not notice', r.incr('retried'))
        say('and has its name again', r.client_getname())
    plain = connect(single_connection_client=True)
    other.client_kill_filter(_id=plain.client_id())
    try:
        say('without retrying on errors', plain.get('retried'))
    except redis.ConnectionError:
        say('without retrying on errors', 'a ConnectionError')
    say('and then connected again', plain.get('retried'))
    r.close()


def server(say, connect):
    r = connect()
    info = r.info()
    say('info', (info['redis_mode'], info['loading'], info['role'], type(info['used_memory'])))
    r.set('a', 1)
    say('info keyspace', r.info('keyspace')['db0']['keys'] == r.dbsize())
    say('info names', info.keys() >= {'redis_version', 'uptime_in_seconds', 'connected_clients',
                                         'total_commands_processed', 'keyspace_hits'})
    say('client setname', r.client_setname('me'))
    mine = [c for c in r.client_list() if c['name'] == 'me']
    say('client list', [(c['cmd'], c['db'], c['sub'], c['user']) for c in mine])
    say('client info', r.client_info()['name'])
    say('config get', r.config_get('max*policy'))
    say('config set', (r.config_set('notify-keyspace-events', 'KEA'),
                       r.config_get('notify-keyspace-events'),
                       r.config_set('notify-keyspace-events', '')))
    say('config resetstat', r.config_resetstat())
    say('time', [type(part) for part in r.time()])
    say('command', r.command()['get'])
    say('command count', r.command_count() > 50)
    say('command getkeys', r.command_getkeys('MSET', 'a', '1', 'b', '2'))
    say('object', (r.object('encoding', 'a'), r.object('refcount', 'none')))
    say('memory usage', (r.memory_usage('a') > 10, r.memory_usage('none')))
    say('slowlog', (r.slowlog_reset(), r.slowlog_len(), r.slowlog_get()))
    say('echo and ping', (r.echo('hello'), r.ping()))
    say('client pause and unpause', (r.client_pause(1), r.client_unpause()))
    say('client no-evict', r.client_no_evict('on') if hasattr(r, 'client_no_evict') else b'OK')
    say('reset', r.reset())
    say('flushall', r.flushall(asynchronous=True))


PARTS = (values, bits, scans, errors, pipelines, watches, decoding, locks, pools, retries, server)


def run(tap, both):
    Tap.diag(f'redis-py {redis.__version__}')
    for protocol in PROTOCOLS:
        for part in PARTS:
            both.converse(tap, f'redis-py RESP{protocol} {part.__name__}', noted(
                lambda say, path, part=part, protocol=protocol: part(say, Connect(path, protocol))))
    if 3 not in PROTOCOLS:
        tap.skip('redis-py RESP3', f'redis-py {redis.__version__} speaks RESP2 only')


if __name__ == '__main__':
    main(run)
