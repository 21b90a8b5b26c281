#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# What kvd's commands do where no Redis can be the judge: its own verbs, its limits, full memory,
# statistics, durability policies of a connection.
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Kvd, Refused, ReplyError, Tap, seed, wait_until  # noqa: E402

OOM = Refused("OOM command not allowed when used memory > 'maxmemory'. ")


def error(text):
    return ReplyError('ERR ' + text)


def test_versions(tap, c):
    c.command('FLUSHALL')
    first = c.command('KVD.SET', 'k', 'one')
    tap.ok(isinstance(first, int) and first > 0, 'KVD.SET returns a version')
    value, version, pttl, time_ms = c.command('KVD.GETV', 'k')
    tap.equal((value, version, pttl), (b'one', first, -1), 'KVD.GETV: value, version, no expiry')
    now_s = int(c.command('TIME')[0])
    tap.ok(abs(time_ms / 1000 - now_s) < 100, 'KVD.GETV: time of writing')
    tap.equal(c.command('KVD.GETV', 'none'), None, 'KVD.GETV of an absent key is null')
    second = c.command('KVD.CAS', 'k', first, 'two')
    tap.ok(second > first, 'KVD.CAS with the right version: a newer one')
    tap.equal(c.command('KVD.CAS', 'k', first, 'three'), None, 'KVD.CAS with an old version: null')
    tap.equal(c.command('GET', 'k'), b'two', 'and nothing changed')
    tap.equal(c.command('KVD.CAS', 'k', 0, 'x'), None, 'KVD.CAS 0 of a key that exists: null')
    tap.ok(c.command('KVD.CAS', 'new', 0, 'x', 'PX', 100000) > second, 'KVD.CAS 0 of an absent key')
    tap.ok(0 < c.command('KVD.GETV', 'new')[2] <= 100000, 'with its time to live')
    tap.equal(c.command('KVD.CAS', 'none', 7, 'x'), None, 'KVD.CAS 7 of an absent key: null')
    for bad in ('-1', 'abc', ''):
        tap.equal(c.command('KVD.CAS', 'k', bad, 'x'),
                  error('version is not a number, or negative'),
                  f'KVD.CAS: version {bad!r}')


def test_conditions(tap, c):
    c.command('FLUSHALL')
    tap.equal(c.command('KVD.SET', 'k', 'v', 'XX'), None, 'KVD.SET XX of an absent key: null')
    version = c.command('KVD.SET', 'k', 'v', 'NX', 'PX', 100000)
    tap.ok(version > 0, 'KVD.SET NX PX')
    tap.equal(c.command('KVD.SET', 'k', 'w', 'NX'), None, 'KVD.SET NX of a key that exists: null')
    version = c.command('KVD.SET', 'k', 'w', 'IFVERSION', version, 'KEEPTTL')
    tap.ok(version > 0 and c.command('PTTL', 'k') > 0, 'KVD.SET IFVERSION KEEPTTL')
    tap.equal(c.command('KVD.SET', 'k', 'x', 'IFVERSION', version + 1), None,
              'another version: null')
    tap.ok(c.command('KVD.SET', 'k', 'x') > version and c.command('PTTL', 'k') == -1,
           'KVD.SET without KEEPTTL takes the expiry away')
    for bad in (['NX', 'XX'], ['NX', 'IFVERSION', 1], ['IFVERSION'], ['PX'], ['PX', 5, 'KEEPTTL'],
                ['KEEPTTL', 'PX', 5], ['nope'], ['PX', 5, 'PX', 6]):
        tap.equal(c.command('KVD.SET', 'k', 'v', *bad), error('syntax error'), f'KVD.SET {bad}')
    tap.equal(c.command('KVD.SET', 'k', 'v', 'PX', 0),
              error("invalid expire time in 'kvd.set' command"), 'KVD.SET PX 0')
    tap.equal(c.command('KVD.CAS', 'k', 1, 'v', 'NX'), error('syntax error'),
              'KVD.CAS takes PX only')
    c.pipeline([('MULTI',), ('KVD.SET', 'a', 1), ('KVD.SET', 'b', 1), ('KVD.GETV', 'a')])
    a, b, got = c.command('EXEC')
    tap.equal((got[1], c.command('KVD.GETV', 'a')[1], c.command('KVD.GETV', 'b')[1]), (a, a, b),
              'I: versions told inside a batch are those of the keys afterwards')


def test_limits(tap, c):
    c.command('FLUSHALL')
    tap.equal(c.command('SET', 'k' * 511, 'v'), 'OK', 'G: a key of 511 bytes')
    tap.equal(c.command('SET', 'k' * 512, 'v'),
              error('key is too long: 512 bytes, the limit is 511'), 'G: a key of 512 bytes')
    empty = error('an empty key is not allowed in kvd: keys have 1..511 bytes')
    tap.equal(c.command('GET', ''), empty, 'G: an empty key')
    tap.equal(c.command('MGET', 'a', '', 'b'), empty, 'G: an empty key among others')
    tap.equal(c.command('MSET', 'a', '1', '', '2'), empty, 'G: MSET with an empty key')
    tap.equal(c.command('EXISTS', 'a'), 0, 'sets nothing')
    limit = int(c.command('CONFIG', 'GET', 'proto-max-bulk-len')[1])
    tap.equal(c.command('SET', 'big', b'x' * limit), 'OK', f'a value of {limit} bytes, the limit')
    reply = c.command('APPEND', 'big', 'x')
    tap.equal(reply, error('string exceeds maximum allowed size (proto-max-bulk-len)'),
              'G: APPEND over the limit')
    tap.equal(c.command('STRLEN', 'big'), limit, 'changes nothing')
    c.command('DEL', 'big')
    reply = c.command('SET', 'big', b'x' * (limit + 1))
    tap.ok(isinstance(reply, ReplyError) and str(limit) in str(reply),
           'G: SET over the limit names it')
    tap.equal(c.command('MULTI'), 'OK', 'MULTI')
    tap.ok(isinstance(c.command('SET', 'k' * 600, 'v'), ReplyError), 'G: a bad key while queueing')
    tap.equal(c.command('EXEC'),
              ReplyError('EXECABORT Transaction discarded because of previous errors.'),
              'spoils EXEC')
    tap.equal(c.command('KEYS', '*' * 5000),
              error('pattern is too long: 5000 bytes, the limit is 4096'),
              'G: a pattern of 5000 bytes')


def test_big_batch(tap, c):
    """I, G: a batch over 64 MiB is refused whole."""
    c.command('FLUSHALL')
    c.command('SET', 'before', '1')
    c.command('MULTI')
    value = b'x' * (7 << 20)
    queued = [c.command('SET', f'part:{i}', value) for i in range(10)]
    queued.append(c.command('INCR', 'before'))
    reply = c.command('EXEC')
    tap.ok(isinstance(reply, ReplyError), f'I: EXEC of 70 MiB is refused: {str(reply)[:90]}')
    tap.ok('QUEUED' in queued, 'commands were queued')
    tap.equal(c.command('GET', 'before'), b'1', 'I: and nothing of it was applied')
    tap.equal(c.command('DBSIZE'), 1, 'no part of it')


def test_full(tap):
    with Kvd('--persist', 'memory', '--memory', '8MiB', '--write-wait', '0') as kvd:
        c = kvd.connect()
        value = b'v' * 1000
        written = 0
        reply = 'OK'
        while reply == 'OK' and written < 20000:
            reply = c.command('SET', f'key:{written}', value)
            written += reply == 'OK'
        tap.equal(reply, OOM, f'G: memory is full after {written} values, and SET says so')
        tap.equal(c.command('GET', 'key:0'), value, 'G: reading goes on')
        tap.equal(c.command('MSET', 'a', value, 'b', value * 100), OOM, 'G: MSET is refused whole')
        c.pipeline([('MULTI',), ('SET', 'c', value * 100), ('GET', 'key:0')])
        tap.equal(c.command('EXEC'), Refused('EXECABORT Transaction discarded because of: '
                                                + str(OOM)), 'G: EXEC is refused whole')
        tap.equal(c.command('EXISTS', 'a', 'b', 'c'), 0, 'I: nothing of either was applied')
        tap.equal(c.command('GET', 'key:1'), value, 'the connection is in order')
        tap.equal(c.command('DEL', *(f'key:{i}' for i in range(written // 2))), written // 2,
                  'G: removing works when memory is full')
        c.sock.settimeout(10)
        for _ in range(1000):
            reply = c.command('SET', 'again', value)
            if reply == 'OK':
                break
        tap.equal(reply, 'OK', 'G: and makes room')
        stats = json.loads(c.command('KVD.STATS'))
        tap.ok(stats['counters']['writes_refused'] >= 3, 'refusals are counted')
        tap.equal(c.command('FLUSHALL'), 'OK', 'FLUSHALL works')
        tap.equal(c.command('DBSIZE'), 0, 'and empties')


def test_scan(tap, c, rng):
    """SCAN returns every key that is there throughout, also while the table grows."""
    c.command('FLUSHALL')
    c.pipeline([('SET', f'stay:{i}', i) for i in range(5000)])
    seen, cursor, extra = set(), b'0', 0
    while True:
        cursor, keys = c.command('SCAN', cursor, 'COUNT', rng.randrange(1, 200), 'MATCH', 'stay:*')
        seen |= set(keys)
        if cursor == b'0':
            break
        c.pipeline([('SET', f'more:{extra + i}', i) for i in range(300)])
        extra += 300
    tap.equal(len(seen), 5000, f'SCAN sees all 5000 keys while {extra} others are added')


def test_expiry(tap, c):
    """Keys end by themselves: for those who ask, and in the counts although nobody asks."""
    c.command('FLUSHALL')
    c.pipeline([('SET', f'brief:{i}', i, 'PX', 20 + i % 30) for i in range(500)])
    c.command('SET', 'long', 1, 'EX', 1000)
    wait_until(lambda: c.command('DBSIZE') == 1, 'expired keys leave the count')
    tap.equal(c.command('KEYS', '*'), [b'long'], 'expired keys are gone, the other stays')
    tap.equal(c.command('SET', 'a', 1, 'PX', 1), 'OK', 'a key of one millisecond')
    wait_until(lambda: c.command('GET', 'a') is None, 'a key ends')
    tap.equal(c.pipeline([('EXISTS', 'a'), ('TTL', 'a'), ('TYPE', 'a'), ('DEL', 'a'), ('PERSIST',
                                                                                       'a')]),
              [0, -2, 'none', 0, 0], 'an expired key is absent for every command')
    tap.equal(c.command('INCR', 'a'), 1, 'and a new one starts anew')
    tap.equal(c.command('PTTL', 'a'), -1, 'without the old time to live')
    tap.ok(int(info(c, 'stats')[0]['expired_keys']) >= 501, 'INFO counts them')


def test_stats(tap, c):
    c.command('FLUSHALL')
    before = json.loads(c.command('KVD.STATS'))
    c.pipeline([('SET', 'a', 1), ('GET', 'a'), ('GET', 'none'), ('nosuch',), ('INCR', 'a', 'x'),
                ('MSET', 'b', 1, 'c', 2)])
    after = json.loads(c.command('KVD.STATS'))
    grown = {name: after['counters'][name] - before['counters'][name] for name in after['counters']}
    tap.equal((grown['socket_hits'], grown['socket_misses']), (1, 1), 'KVD.STATS: a hit and a miss')
    tap.equal((grown['commands_processed'], grown['commands_failed']), (5, 2),
              'KVD.STATS: commands that ran, commands that failed')
    tap.equal((grown['writes_applied'], grown['batches_applied'], grown['keys']), (3, 1, 3),
              'KVD.STATS: writes, batches, keys')
    calls = after['commands']['get']['calls'] - before['commands'].get('get', {'calls': 0})['calls']
    tap.equal(calls, 2, 'KVD.STATS: calls of a command')
    tap.equal(after['commands']['incr']['rejected'], 1, 'KVD.STATS: a wrong arity is a rejection')
    for name in ('version', 'pid', 'uptime_ms', 'policy', 'state', 'applied_seq', 'durable_seq',
                 'instance_id', 'run_id', 'clients'):
        tap.ok(name in after, f'KVD.STATS has {name}')
    applied, durable = c.command('KVD.WATERMARKS')
    tap.ok(applied >= after['applied_seq'] and durable == applied,
           'KVD.WATERMARKS: under the memory policy all that is applied counts')


INFO_FIELDS = (
    'redis_version redis_mode os arch_bits process_id run_id tcp_port uptime_in_seconds '
    'connected_clients maxclients blocked_clients used_memory used_memory_human used_memory_rss '
    'used_memory_peak maxmemory maxmemory_policy mem_fragmentation_ratio loading '
    'rdb_changes_since_last_save rdb_last_save_time rdb_last_bgsave_status aof_enabled '
    'total_connections_received total_commands_processed instantaneous_ops_per_sec '
    'total_net_input_bytes total_net_output_bytes rejected_connections expired_keys evicted_keys '
    'keyspace_hits keyspace_misses pubsub_channels latest_fork_usec role connected_slaves '
    'master_repl_offset used_cpu_sys used_cpu_user cluster_enabled db0 kvd_version applied_seq '
    'durable_seq persist_policy').split()


def info(c, *sections):
    text = c.command('INFO', *sections).decode()
    lines = [line for line in text.split('\r\n') if line and not line.startswith('#')]
    return dict(line.split(':', 1) for line in lines), [
        line[2:] for line in text.split('\r\n') if line.startswith('# ')]


def test_info(tap, c):
    c.pipeline([('SET', 'a', 1), ('SET', 'b', 1, 'EX', 100)])
    fields, titles = info(c)
    tap.equal([name for name in INFO_FIELDS if name not in fields], [],
              'INFO has all fields probed for')
    tap.equal(titles, ['Server', 'Clients', 'Memory', 'Persistence', 'Stats', 'Replication', 'CPU',
                       'Modules', 'Errorstats', 'Cluster', 'Keyspace', 'Kvd'],
              'INFO: its default sections')
    tap.ok(fields['db0'].startswith(f"keys={c.command('DBSIZE')},expires=1"), 'INFO: db0')
    tap.equal(info(c, 'memory', 'CPU')[1], ['Memory', 'CPU'], 'INFO: sections asked for')
    tap.equal(info(c, 'nosuch'), ({}, []), 'INFO: no such section')
    for word in ('all', 'everything'):
        tap.ok('Commandstats' in info(c, word)[1], f'INFO {word}')
    tap.ok('cmdstat_set' in info(c, 'commandstats')[0], 'INFO commandstats')
    tap.equal(c.command('CONFIG', 'RESETSTAT'), 'OK', 'CONFIG RESETSTAT')
    tap.equal(info(c, 'stats')[0]['keyspace_hits'], '0', 'INFO counts from zero then')


def test_connection(tap, kvd):
    c, other = kvd.connect(), kvd.connect()
    hello = c.command('HELLO', '3', 'SETNAME', 'first')
    tap.equal((hello[b'server'], hello[b'proto'], hello[b'role'], hello[b'modules']),
              (b'kvd', 3, b'master', []), 'HELLO 3 answers with a map')
    tap.equal(c.command('CLIENT', 'GETNAME'), b'first', 'HELLO SETNAME')
    tap.equal(c.command('CLIENT', 'SETINFO', 'LIB-NAME', 'mylib'), 'OK', 'CLIENT SETINFO')
    tap.equal(c.command('CLIENT', 'SETINFO', 'LIB-VER', '1.0'), 'OK', 'CLIENT SETINFO')
    tap.equal(c.command('CLIENT', 'SETINFO', 'nope', '1'), error("Unrecognized option 'nope'"),
              'CLIENT SETINFO: unknown')
    tap.ok(isinstance(c.command('CLIENT', 'SETNAME', 'n' * 500), ReplyError),
           'G: a name of 500 bytes')
    lines = other.command('CLIENT', 'LIST').decode().splitlines()
    mine = [dict(part.split('=', 1) for part in line.split(' '))
            for line in lines if 'name=first' in line]
    tap.equal([(m['lib-name'], m['lib-ver'], m['resp'], m['pid'], m['cmd']) for m in mine],
              [('mylib', '1.0', '3', str(os.getpid()), 'client|setname')],
              'CLIENT LIST shows all that')
    ids = c.command('CLIENT', 'ID'), other.command('CLIENT', 'ID')
    found = other.command('CLIENT', 'LIST', 'ID', ids[1], 999999).decode().splitlines()
    tap.equal([line.split(' ')[0] for line in found], [f'id={ids[1]}'], 'CLIENT LIST ID')
    tap.equal(other.command('CLIENT', 'LIST', 'TYPE', 'pubsub'), b'',
              'CLIENT LIST TYPE pubsub: none')
    tap.equal(c.command('QUIT'), 'OK', 'QUIT')
    tap.ok(c.at_end(), 'closes the connection')


def test_policy(tap):
    with Kvd('--persist', 'memory') as kvd:
        c = kvd.connect()
        tap.equal(c.command('KVD.POLICY'), b'memory', 'E: the policy is told')
        tap.equal(c.command('KVD.POLICY', 'memory'), 'OK', 'E: the same policy')
        tap.equal(c.command('KVD.POLICY', 'group'),
                  error('this kvd keeps nothing on disk (--persist memory): '
                        "it cannot honour 'group'"),
                  'E: what cannot be honoured is refused')
        tap.equal(c.command('KVD.POLICY', 'x'), error('syntax error'), 'no such policy')
        c.command('SET', 'a', 1)
        tap.equal(c.command('KVD.SYNC'), 'OK', 'E: KVD.SYNC answers at once')
    with Kvd('--persist', 'lazy', '--lazy-interval', '3600s') as kvd:
        c, other = kvd.connect(), kvd.connect()
        c.command('SET', 'lazy', 1)
        applied, durable = c.command('KVD.WATERMARKS')
        tap.ok(durable < applied, 'E: lazy: acknowledged before it is durable')
        tap.equal(c.command('KVD.SYNC'), 'OK', 'E: KVD.SYNC')
        durable = c.command('KVD.WATERMARKS')[1]
        tap.ok(durable >= applied, 'E: after KVD.SYNC it is durable')
        tap.equal(other.command('KVD.SYNC'), 'OK', 'E: KVD.SYNC of one that wrote nothing')
        tap.equal(c.command('KVD.POLICY', 'group'), 'OK',
                  'E: a later acknowledgement may be asked for')
        tap.equal(c.command('SET', 'grouped', 1), 'OK', 'E: then a write waits for its commit')
        applied, durable = c.command('KVD.WATERMARKS')
        tap.equal(applied, durable, 'E: and is durable when it is acknowledged')
        c.command('SET', 'killed', 1)
        kvd.kill()
        kvd.restart()
        c = kvd.connect()
        tap.equal(c.command('MGET', 'lazy', 'grouped', 'killed'), [b'1', b'1', b'1'],
                  'E: all of it is there after kill -9')
    with Kvd('--persist', 'group') as kvd:
        c = kvd.connect()
        tap.equal(c.command('KVD.POLICY', 'lazy'),
                  error("this kvd runs with --persist group: a connection may ask for a later "
                        "acknowledgement, not for 'lazy'"), 'E: nobody may weaken the policy')
        tap.equal(c.command('KVD.POLICY', 'sync'), 'OK', 'E: group to sync')
        tap.equal(c.command('KVD.POLICY'), b'sync', 'E: is remembered')


def main():
    tap = Tap()
    rng = seed(1)
    with Kvd('--persist', 'memory', '--memory', '128MiB', '--value-max', '8MiB') as kvd:
        c = kvd.connect()
        test_versions(tap, c)
        test_conditions(tap, c)
        test_limits(tap, c)
        test_big_batch(tap, c)
        test_scan(tap, c, rng)
        test_expiry(tap, c)
        test_stats(tap, c)
        test_info(tap, c)
        test_connection(tap, kvd)
    test_full(tap)
    test_policy(tap)
    tap.done()


if __name__ == '__main__':
    main()
