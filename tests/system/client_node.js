// SPDX-License-Identifier: MIT
//
// What node-redis says to a server and makes of its answers: node client_node.js SOCKET RESP. The
// lines of standard output are what was noted, as JSON [what, value]; client_node.py runs this with
// kvd and with Redis. For node-redis 4 (RESP2 only) and later.
'use strict';

const redis = require('redis');
const [path, resp] = process.argv.slice(2);
const options = { socket: { path }, ...(resp === '3' ? { RESP: 3 } : {}) };
const LIMIT_MS = 20000;

function say(what, value) {
  process.stdout.write(JSON.stringify([what, value === undefined ? null : value]) + '\n');
}

async function sayError(what, promise) {
  try {
    say(what, ['no error but', await promise]);
  } catch (error) {
    say(what, [error.constructor.name, error.message]);
  }
}

async function connect(more) {
  const client = redis.createClient({ ...options, ...more });
  client.on('error', () => {});
  await client.connect();
  return client;
}

async function until(condition, what) {
  const deadline = Date.now() + LIMIT_MS;
  while (!await condition()) {
    if (Date.now() > deadline)
      throw new Error(`waited in vain for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

async function values(c) {
  say('set', await c.set('key', 'grün'));
  say('get', await c.get('key'));
  say('get of nothing', await c.get('none'));
  say('set nx', await c.set('key', 'x', { NX: true }));
  say('set xx get', await c.set('key', 'y', { XX: true, GET: true }));
  say('set px', await c.set('timed', 'v', { PX: 100000 }));
  const left = await c.pTTL('timed');
  say('pttl', left > 90000 && left <= 100000);
  say('getex persist', await c.getEx('timed', { PERSIST: true }));
  say('ttl', await c.ttl('timed'));
  say('counters', [await c.incr('n'), await c.incrBy('n', 41), await c.decr('n')]);
  say('incrbyfloat', await c.incrByFloat('f', 2.5));
  say('mset', await c.mSet({ a: '1', b: '2' }));
  say('mget', await c.mGet(['a', 'none', 'b']));
  say('msetnx', await c.mSetNX({ a: '1', c: '3' }));
  say('exists', await c.exists(['a', 'a', 'none']));
  say('append', await c.append('a', 'bc'));
  say('getrange', await c.getRange('a', 0, -2));
  say('setrange', await c.setRange('a', 5, 'x'));
  say('strlen', await c.strLen('a'));
  say('setbit', [await c.setBit('bits', 7, 1), await c.getBit('bits', 7)]);
  say('bitcount', await c.bitCount('bits'));
  say('rename', await c.rename('a', 'z'));
  say('renamenx', await c.renameNX('z', 'b'));
  say('copy', await c.copy('z', 'copy'));
  say('getdel', await c.getDel('copy'));
  say('type', [await c.type('z'), await c.type('none')]);
  say('expire', await c.expire('z', 100));
  say('expireat', await c.expireAt('z', 2000000000));
  say('persist', await c.persist('z'));
  say('del', await c.del(['z', 'none']));
  say('dbsize', await c.dbSize());
  say('keys', (await c.keys('*')).sort());
  say('flushall', await c.flushAll());
}

async function pipelined(c) {
  // Calls of one turn go out together; their answers come in order.
  const sets = [];
  for (let i = 0; i < 1000; i++)
    sets.push(c.set(`p${i}`, String(i)));
  say('1000 sets at once', (await Promise.all(sets)).every((reply) => reply === 'OK'));
  const mixed = await Promise.allSettled([c.get('p7'), c.sendCommand(['INCR', 'p7', 'x']),
    c.incr('p7'), c.sendCommand(['NOSUCH']), c.get('p7'), c.ping()]);
  say('errors between answers', mixed.map((one) => one.value || one.reason.message));
  const big = 'x'.repeat(1 << 20);
  await c.set('big', big);
  say('a large value', (await c.get('big')) === big);
  await c.flushAll();
}

async function scans(c) {
  await c.mSet(Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`scan:${i}`, 'v'])));
  await c.set('other', 'v');
  for (const how of [undefined, { COUNT: 7 }, { MATCH: 'scan:1*' }, { TYPE: 'string', COUNT: 100 },
    { TYPE: 'list' }]) {
    const found = new Set();
    for await (const some of c.scanIterator(how))
      for (const key of [].concat(some))
        found.add(key);
    say(`scanIterator ${JSON.stringify(how)}`, found.size);
  }
  await c.flushAll();
}

async function transactions(c) {
  say('multi', await c.multi().set('t', '1').incr('t').get('t').exec());
  say('an empty one', await c.multi().exec());
  const before = await c.sendCommand(['DBSIZE']);
  await sayError('refused when queued', c.multi().addCommand(['SET', 'only']).set('u', '1').exec());
  say('nothing of it happened', before === await c.sendCommand(['DBSIZE']));
  let failed = 'no error';
  try {
    const replies = await c.multi().set('text', 'abc').incr('text').get('text').exec();
    failed = replies.map((reply) => reply instanceof Error ? reply.message : reply);
  } catch (error) {
    failed = error.message.replace(/^\d+/, 'some'); // later versions throw all of them at once
  }
  say('an error inside', failed);
  const other = await connect();
  const watching = await connect();
  await watching.watch('t');
  await other.set('t', 'changed');
  await sayError('a watched key that changed', watching.multi().get('t').exec());
  await watching.watch('t');
  await other.set('unrelated', '1');
  say('another key changed', await watching.multi().get('t').exec());
  await watching.watch('t');
  await watching.unwatch();
  await other.set('t', 'again');
  say('after unwatch', await watching.multi().get('t').exec());
  say('quit', [await watching.quit(), await other.quit()].length);
}

async function errors(c) {
  await c.set('text', 'abc');
  await sayError('incr of text', c.incr('text'));
  await sayError('unknown command', c.sendCommand(['LPUSH2', 'k', 'v']));
  await sayError('wrong number of arguments', c.sendCommand(['GET']));
  await sayError('syntax', c.sendCommand(['SET', 'a', 'b', 'NOPE']));
  await sayError('expiry', c.setEx('a', 0, 'b'));
  await sayError('database', c.sendCommand(['SELECT', '99']));
  await sayError('rename of nothing', c.rename('none', 'x'));
}

async function pubsub(c) {
  const listener = await connect();
  const seen = [];
  await listener.subscribe('news', (message, channel) => seen.push(['channel', channel, message]));
  await listener.pSubscribe('n?ws', (message, channel) => seen.push(['pattern', channel, message]));
  say('publish', await c.publish('news', 'hello'));
  say('nobody', await c.publish('none', 'hello'));
  await until(() => seen.length === 2, 'both messages');
  say('seen', seen);
  for (let i = 0; i < 300; i++)
    c.publish('news', String(i));
  await until(() => seen.length === 602, '300 messages twice');
  say('in order', seen.slice(2).every((one, i) => one[2] === String(i >> 1)));
  say('channels', await c.pubSubChannels());
  await listener.unsubscribe('news');
  say('without the channel', await c.publish('news', 'last'));
  await until(() => seen.length === 603, 'the pattern\'s message');
  await listener.pUnsubscribe();
  say('without anything', await c.publish('news', 'nobody'));
  say('then commands again', await listener.set('after', '1'));
  await c.configSet('notify-keyspace-events', 'KEA');
  const events = [];
  await listener.pSubscribe('__key*', (message, channel) => events.push([channel, message]));
  await c.multi().set('k', '1').expire('k', 100).del('k').exec();
  await until(() => events.length === 6, 'six events');
  say('events', events);
  await c.configSet('notify-keyspace-events', '');
  await listener.quit();
}

async function server(c) {
  const info = await c.info();
  say('info', ['redis_version', 'loading', 'role', 'connected_clients', 'used_memory'].map((name) =>
    info.includes(`\r\n${name}:`) || info.startsWith(`${name}:`)));
  say('name', [await c.clientSetName('me'), await c.clientGetName()]);
  say('id', await c.clientId() > 0);
  say('config get', await c.configGet('maxmemory-policy'));
  say('time', (await c.time()) !== null);
  say('echo', await c.echo('hello'));
  const named = await connect({ name: 'named' });
  say('a name from the options', await named.clientGetName());
  const killed = await named.clientId();
  say('killed', await c.sendCommand(['CLIENT', 'KILL', 'ID', String(killed)]));
  await until(async () => named.isReady && await named.clientId().catch(() => killed) !== killed,
    'it connects again');
  say('and connects again, with its name', await named.clientGetName());
  await named.quit();
}

async function main() {
  const c = await connect();
  let failed = 0;
  const parts = { values, pipelined, scans, transactions, errors, pubsub, server };
  for (const [name, part] of Object.entries(parts)) {
    say(`${name} begin`, true);
    try {
      await part(c);
    } catch (error) {
      say(`${name} ended with`, `${error.constructor.name}: ${error.message}`);
      failed = 1;
    }
  }
  await c.quit();
  say('over', null);
  return failed;
}

main().then((failed) => process.exit(failed), (error) => {
  say('ended with', String(error));
  process.exit(1);
});
