#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Users that are not trusted alike: who may do what, how fast, and how much (G, H).

Connections of other users are made by this process, for the kernel notes who connects when it does:
that needs root.
"""
import contextlib
import grp
import json
import os
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import Connection, Kvd, ReplyError, Tap, wait_until  # noqa: E402

ALICE, BOB, CAROL = 4201, 4202, 4203  # users that need no entry anywhere
STAFF = 4300


@contextlib.contextmanager
def acting_as(uid, gid, groups=()):
    before = os.getgroups()
    os.setgroups(list(groups))
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


class Users(Kvd):
    """A kvd to which every user may connect."""

    def __init__(self, *args, **others):
        super().__init__(*args, '--socket-mode', '0666', start=False, **others)
        os.chmod(self.root, 0o711)
        self.open_socket()
        self.start(*self.args)

    def open_socket(self):
        self.args += ['--socket', os.path.join(self.root, 'users.sock')]

    def user(self, uid, gid=None, groups=()):
        with acting_as(uid, uid if gid is None else gid, groups):
            return Connection(self.socket)

    def stats(self):
        with Connection(self.socket) as root:
            return json.loads(root.command('KVD.STATS'))

    def counter(self, name):
        return self.stats()['counters'][name]

    def owned(self, uid):
        """Bytes and keys that a user owns, as kvd tells."""
        for user in self.stats()['users']:
            if user['uid'] == uid:
                return user['stored_bytes'], user['keys']
        return 0, 0


def is_error(reply, *parts):
    return isinstance(reply, ReplyError) and all(part in str(reply) for part in parts)


# ---- rights ----

def writing(tap):
    with Users('--persist', 'memory', '--allow-write', f'user:{ALICE} group:{STAFF}') as kvd:
        with kvd.user(ALICE) as alice, kvd.user(BOB) as bob, \
                kvd.user(CAROL, groups=[STAFF]) as carol, kvd.connect() as root:
            tap.equal(alice.command('SET', 'a', '1'), 'OK', 'H: who is named may write')
            tap.equal(carol.command('SET', 'c', '1'), 'OK',
                      'H: so may who is in a group that is named, a supplementary one')
            tap.equal(root.command('SET', 'r', '1'), 'OK', 'H: so may root, unnamed')
            said = bob.command('SET', 'b', '1')
            tap.ok(is_error(said, 'NOPERM', "'set'", str(BOB), 'allow-write'),
                   f'H: others learn what they lack, and what to change: {said}')
            for command in (['DEL', 'a'], ['PUBLISH', 'x', 'y'], ['EXPIRE', 'a', '1'],
                            ['FLUSHALL'], ['KVD.SET', 'a', '2']):
                tap.ok(is_error(bob.command(*command), 'NOPERM'), f'H: {command[0]} too')
            tap.equal(bob.command('GET', 'a'), b'1', 'H: they read all the same')
            replies = bob.pipeline([('MULTI',), ('SET', 'a', '3'), ('EXEC',)])
            tap.ok(is_error(replies[1], 'NOPERM') and is_error(replies[2], 'EXECABORT'),
                   'H: nor do they write by a transaction')
            tap.equal(alice.pipeline([('MULTI',), ('SET', 'a', '4')]), ['OK', 'QUEUED'],
                      'a transaction that is begun')
            tap.equal(root.command('CONFIG', 'SET', 'allow-write', f'user:{BOB}'), 'OK',
                      'CONFIG SET allow-write')
            tap.ok(is_error(alice.command('EXEC'), 'NOPERM'),
                   'H: is over when the right is taken away')
            tap.equal(bob.command('SET', 'b', '2'), 'OK', 'H: and who has got it writes')
            tap.equal(root.command('GET', 'a'), b'1', 'nothing else was written')
        tap.ok(kvd.counter('refused_rights') >= 8, 'refusals are counted')
        log = kvd.log()
        tap.ok(f'uid {BOB}' in log and 'allow-write' in log and f'pid {os.getpid()}' in log,
               'the log names user, process and option')


def lines_of_others(tap):
    """Who is refused without end hides from the log nobody else who is, whatever his number."""
    with Users('--persist', 'memory', '--allow-write', 'none') as kvd, kvd.user(BOB) as bob:
        for _ in range(50):
            bob.command('SET', 'b', '1')
        silent = []
        for uid in (BOB + 1, BOB + 16, BOB + 1600):
            with kvd.user(uid) as other:
                other.command('SET', 'c', '1')
            if f'uid {uid})' not in kvd.log():
                silent.append(uid)
        tap.equal(silent, [], 'G: the log has the lines of other users all the same')


def attaching(tap):
    with Users('--persist', 'memory', '--allow-attach', f'user:{ALICE}') as kvd:
        with kvd.user(ALICE) as alice, kvd.user(BOB) as bob:
            tap.ok(not isinstance(alice.command('KVD.ATTACH'), ReplyError), 'H: who may attaches')
            said = bob.command('KVD.ATTACH')
            tap.ok(is_error(said, 'NOPERM', 'allow-attach', str(BOB)), f'H: others not: {said}')
            tap.equal(bob.command('SET', 'k', 'v'), 'OK', 'H: but they write by the socket')
            tap.equal(bob.command('GET', 'k'), b'v', 'H: and read by it')
        tap.equal(kvd.counter('refused_attach_right'), 1, 'and it is counted')


def administering(tap):
    with Users('--persist', 'memory', '--allow-admin', f'user:{ALICE}') as kvd:
        with kvd.user(ALICE) as alice, kvd.user(BOB) as bob, kvd.user(BOB) as bob2, \
                kvd.connect() as root:
            root.command('PING')
            for command in (['CONFIG', 'SET', 'maxclients', '10'], ['CONFIG', 'RESETSTAT'],
                            ['CONFIG', 'REWRITE'], ['DEBUG', 'SLEEP', '0'],
                            ['CLIENT', 'PAUSE', '1'], ['CLIENT', 'UNPAUSE'],
                            ['SLOWLOG', 'RESET'], ['LATENCY', 'RESET']):
                tap.ok(is_error(bob.command(*command), 'NOPERM', 'allow-admin'),
                       f'H: {" ".join(command[:2])} is for who administers')
            tap.equal(alice.command('CONFIG', 'SET', 'maxclients', '10'), 'OK',
                      'H: who is named does')
            tap.ok(not is_error(bob.command('CONFIG', 'GET', 'maxclients')), 'H: reading is free')
            number = alice.command('CLIENT', 'ID')
            said = bob.command('CLIENT', 'KILL', 'ID', number)
            tap.ok(is_error(said, 'NOPERM', 'CLIENT KILL', 'allow-admin'),
                   f'H: nobody closes connections of others: {said}')
            tap.equal(alice.command('PING'), 'PONG', 'H: they go on')
            tap.equal(bob.command('CLIENT', 'KILL', 'ID', bob2.command('CLIENT', 'ID')), 1,
                      'H: but those of the same user')
            alice.command('KVD.ATTACH')
            said = bob.command('KVD.READERS', 'KICK', 'ID', number)
            tap.ok(is_error(said, 'NOPERM', 'allow-admin'), f'H: nor readers of others: {said}')
            tap.equal(root.command('KVD.READERS', 'KICK', 'ID', number)[0], 1, 'H: root does')


def rights_told(connection):
    """Name, right and number of arguments of each command that needs a right, as kvd tells."""
    arities = {}
    for row in connection.command('COMMAND', 'INFO'):
        for one in [row, *row[9]]:
            arities[one[0]] = abs(one[1])

    def rights(docs):
        for name, doc in zip(docs[::2], docs[1::2]):
            doc = dict(zip(doc[::2], doc[1::2]))
            if b'right' in doc:
                yield name.decode(), doc[b'right'].decode(), arities[name]
            yield from rights(doc.get(b'subcommands', []))
    return list(rights(connection.command('COMMAND', 'DOCS')))


def as_told(tap):
    """What COMMAND DOCS says of rights is what holds."""
    options = ('--allow-attach', 'none', '--allow-write', 'none')
    with Users('--persist', 'memory', *options) as kvd, kvd.user(BOB) as bob:
        told = rights_told(bob)
        for verb, option, least in (('attach', 'allow-attach', 1), ('write', 'allow-write', 30),
                                    ('administer', 'allow-admin', 10)):
            named = [(name, count) for name, right, count in told if right == verb]
            allowed = []
            for name, count in named:
                words = name.split('|')
                said = bob.command(*words, *['x'] * (count - len(words)))
                if not is_error(said, 'NOPERM', option, str(BOB)):
                    allowed.append(name)
            tap.ok(len(named) >= least and not allowed,
                   f'H: {len(named)} commands need the right to {verb}, and nobody runs them '
                   f'without: {allowed}')
        tap.equal([name for name, right, _ in told if right.startswith('administer,')],
                  ['client|kill', 'kvd.readers'], 'two ask for it only for what is another user\'s')


def jobs(tap):
    with Users('--persist', 'memory', '--allow-admin', f'user:{ALICE}') as kvd:
        with kvd.user(ALICE) as alice, kvd.user(BOB) as bob:
            for job in ('KVD.BACKUP', 'KVD.VERIFY'):
                for what in ('START', 'STATUS', 'CANCEL'):
                    said = bob.command(job, what)
                    tap.ok(is_error(said, 'NOPERM', 'allow-admin'), f'H: {job} {what}: {said}')
                tap.equal(alice.command(job, 'START'), 'OK', f'H: who administers may: {job}')
                wait_until(lambda j=job: json.loads(alice.command(j, 'STATUS'))['state'] == 'done',
                           'the end of it')


def wrong_lists(tap):
    with Users('--persist', 'memory') as kvd, kvd.connect() as root:
        for text, part in (('user:', 'none of'), ('bob', 'none of'),
                           ('user:no-such-user-here', 'no user'),
                           ('group:no-such-group-here', 'no group'),
                           ('user:4294967295', 'no user'), ('none *', 'stands alone'),
                           ('', 'empty')):
            said = root.command('CONFIG', 'SET', 'allow-write', text)
            tap.ok(is_error(said, part, 'allow-write'), f'{text}: {said}')
        tap.equal(root.command('CONFIG', 'GET', 'allow-write'), [b'allow-write', b'*'],
                  'and nothing has changed')
        name = grp.getgrgid(0).gr_name
        tap.equal(root.command('CONFIG', 'SET', 'allow-write', f'group:{name}, user:0'), 'OK',
                  'names and numbers, with blanks or commas')


# ---- how fast ----

def answered(client, count):
    start = time.monotonic()
    replies = [client.reply() for _ in range(count)]
    return replies, time.monotonic() - start


def rates(tap):
    # 4 s worth of writes beyond the burst: a tenth of that at least, whatever the machine does.
    options = ('--persist', 'memory', '--quota-writes', '1000', '--quota-burst', '100ms')
    with Users(*options) as kvd:
        with kvd.user(ALICE) as alice, kvd.user(ALICE) as second, kvd.user(BOB) as bob, \
                kvd.connect() as root:
            count = 1100
            alice.send(b''.join(alice.encode('SET', f'a{i}', 'v') for i in range(count)))
            replies, took_s = answered(alice, count)
            tap.ok(replies == ['OK'] * count, f'G: {count} writes are all answered')
            tap.ok(took_s > 0.5, f'G: but not faster than 1000 a second: {took_s:.2f} s')
            begin = time.monotonic()
            bob.command('SET', 'b', 'v')
            tap.ok(time.monotonic() - begin < 20, 'G: another user is not held up')
            alice.send(b''.join(alice.encode('SET', f'a{i}', 'v') for i in range(500)))
            wait_until(lambda: kvd.counter('writes_throttled') > 1, 'a writer that waits')
            tap.equal(second.command('GET', 'a1'), b'v', 'G: the same user reads on')
            tap.equal(second.command('DEL', 'a1'), 1, 'G: and removes')
            turns = kvd.stats()['counters']['turn_longest_us']
            tap.ok(turns >= 0, f'the longest turn took {turns} us')
            tap.equal(root.command('CONFIG', 'SET', 'quota-writes', '0'), 'OK', 'without a quota')
            replies, _ = answered(alice, 500)
            tap.ok(replies == ['OK'] * 500, 'G: who waits goes on at once')
            root.pipeline([('SET', f'r{i}', 'v') for i in range(3000)])
        tap.ok('quota-writes' in kvd.log() and f'uid {ALICE}' in kvd.log(),
               'the log tells whom it lets wait, and why')


def rate_of_bytes(tap):
    options = ('--persist', 'memory', '--quota-write-bytes', '1MiB', '--quota-burst', '100ms')
    with Users(*options) as kvd:
        with kvd.user(ALICE) as alice:
            begin = time.monotonic()
            for i in range(5):
                alice.command('SET', f'k{i}', 'x' * 200000)
            took_s = time.monotonic() - begin
            tap.ok(took_s > 0.4, f'G: a million bytes at 1 MiB a second took {took_s:.2f} s')
        begin = time.monotonic()
        for _ in range(2):  # who comes again owes what he owed
            with kvd.user(ALICE) as alice:
                alice.command('SET', 'again', 'x' * 400000)
        took_s = time.monotonic() - begin
        tap.ok(took_s > 0.2, f'G: a new connection is no new burst: {took_s:.2f} s')
        alice = kvd.user(ALICE)
        alice.send(alice.encode('SET', 'big', 'x' * 400000) + alice.encode('SET', 'last', 'v'))
        alice.sock.shutdown(socket.SHUT_WR)
        tap.equal([alice.reply(), alice.reply()], ['OK', 'OK'],
                  'G: what came before the end is written, however late')
        alice.close()


def exempt(tap):
    options = ('--persist', 'memory', '--quota-writes', '10', '--quota-exempt', f'user:{ALICE}')
    with Users(*options) as kvd, kvd.user(ALICE) as alice:
        alice.pipeline([('SET', f'k{i}', 'v') for i in range(2000)])
        tap.equal(kvd.counter('writes_throttled'), 0, 'G: quota-exempt')


# ---- how much ----

def stored(tap):
    with Users('--persist', 'memory', '--quota-stored-bytes', '64KiB') as kvd:
        with kvd.user(ALICE) as alice, kvd.user(BOB) as bob, kvd.connect() as root:
            kept = 0
            while not isinstance(said := alice.command('SET', f'k{kept}', 'x' * 1000), ReplyError):
                kept += 1
            tap.ok(is_error(said, 'OOM', str(ALICE), 'quota-stored-bytes'),
                   f'G: a user may own so much: {said}')
            tap.ok(55 < kept < 65, f'G: which are {kept} keys of 1000 bytes')
            tap.equal(kvd.owned(ALICE)[1], kept, 'kvd knows whose they are')
            tap.equal(alice.command('SET', 'k0', 'y' * 1000), 'OK', 'G: a value may be replaced')
            tap.equal(alice.command('EXPIRE', 'k0', '1000'), 1, 'G: or given a time to live')
            tap.ok(is_error(alice.command('APPEND', 'k0', 'z' * 2000), 'OOM'), 'G: not grown')
            tap.ok(is_error(alice.command('MSET', 'm1', 'v' * 900, 'm2', 'v' * 900), 'OOM'),
                   'G: nor is a batch')
            replies = alice.pipeline([('MULTI',), ('SET', 'n', 'v' * 900), ('EXEC',)])
            tap.ok(is_error(replies[2], 'quota-stored-bytes'), f'G: a transaction: {replies[2]}')
            replies = alice.pipeline([('MULTI',), ('DEL', 'k1'), ('SET', 'n', 'v' * 900),
                                      ('EXEC',)])
            tap.equal(replies[3], [1, 'OK'], 'G: unless it makes the room it needs')
            tap.ok(is_error(alice.command('SET', 'large', 'v' * 2000000), 'OOM'), 'G: large ones')
            tap.equal(bob.command('SET', 'b', 'x' * 1000), 'OK', 'G: another user has his own')
            tap.equal(root.command('SET', 'r', 'x' * 100000), 'OK', 'G: root has none')
            tap.equal(alice.command('DEL', 'k2', 'k3'), 2, 'G: removals always go')
            tap.equal(alice.command('SET', 'o', 'x' * 1000), 'OK', 'G: and make room')
            tap.equal(bob.command('SET', 'o', 'x' * 1000), 'OK', 'who wrote last owns it')
            tap.equal(alice.command('SET', 'p', 'x' * 1000), 'OK', 'and the other has room')
            alice.command('FLUSHALL')
            tap.equal((kvd.owned(ALICE), kvd.owned(BOB)), ((0, 0), (0, 0)),
                      'after FLUSHALL nobody owns anything')
        tap.ok(kvd.counter('refused_stored') >= 5, 'refusals are counted')
        tap.ok('quota-stored-bytes' in kvd.log(), 'and told')


def fill(kvd):
    """Ways in which keys come to their owners."""
    with kvd.user(ALICE) as alice, kvd.user(BOB) as bob, kvd.connect() as root:
        for i in range(200):
            alice.command('SET', f'a{i}', 'x' * (i * 10))
        bob.pipeline([('SET', f'b{i}', 'y' * 100) for i in range(100)])
        bob.command('SET', 'large', 'z' * 900000)
        alice.command('COPY', 'b1', 'copied')
        bob.command('RENAME', 'a1', 'renamed')  # it stays alice's
        bob.command('EXPIRE', 'a2', '10000')    # this too
        bob.command('APPEND', 'a3', 'q')        # this becomes bob's
        alice.command('DEL', 'b2')
        alice.command('SET', 'gone', 'v', 'PX', '1')
        alice.command('SET', 'large2', 'z' * 700000)
        bob.command('PERSIST', 'large2')
        wait_until(lambda: alice.command('EXISTS', 'gone') == 0, 'the end of a key')
        root.command('SET', 'r', 'v')  # when this is durable so is that end
    return kvd.owned(ALICE), kvd.owned(BOB), kvd.owned(0)


def restarts(tap):
    options = ('--persist', 'group', '--quota-stored-bytes', '2MiB')
    with Users(*options) as kvd:
        before = fill(kvd)
        tap.equal([keys for _, keys in before], [201, 101, 1], 'whose the keys are')
        everything = sum(stored_bytes for stored_bytes, _ in before)
        tap.ok(everything <= kvd.counter('memory_live_bytes') < everything + 4096,
               f'all owners together have {everything} bytes, and that is what there is')
        kvd.kill()
        kvd.start()
        tap.equal((kvd.owned(ALICE), kvd.owned(BOB), kvd.owned(0)), before,
                  'E: after a kill and a start from the store as well')
        with kvd.user(ALICE) as alice:
            said = alice.command('SET', 'more', 'x' * 1500000)
            tap.ok(is_error(said, 'quota-stored-bytes'), f'E: and the quota holds: {said}')
        with kvd.user(CAROL) as carol:
            carol.command('SET', 'c', 'v')
        tap.equal(kvd.owned(CAROL)[1], 1, 'a user who comes later')
        kvd.stop()
        kvd.start()
        tap.equal((kvd.owned(ALICE), kvd.owned(BOB), kvd.owned(CAROL)[1]), (*before[:2], 1),
                  'E: after an end in order')


def warm_restart(tap):
    with Users('--persist', 'memory', '--supervise') as kvd:
        before = fill(kvd)
        with kvd.connect() as root:
            served = kvd.stats()['pid']
            os.kill(served, 9)
            root.close()

        def again():
            try:
                return kvd.stats()['pid'] != served
            except (OSError, EOFError):
                return False
        wait_until(again, 'the next kvd')
        tap.equal((kvd.owned(ALICE), kvd.owned(BOB), kvd.owned(0)), before,
                  'F: a region that is taken over says whose its keys are')


def backups(tap):
    for policy in ('memory', 'group'):
        with Users('--persist', policy) as kvd:
            before = fill(kvd)
            with kvd.user(CAROL) as carol:
                carol.command('SET', 'c', 'v')  # a user who comes last
            backup, folder = (os.path.join(kvd.root, name) for name in ('backup', 'restored'))
            tap.equal([kvd.kvctl('backup', backup).returncode,
                       kvd.kvctl('restore', backup, folder).returncode], [0, 0],
                      f'{policy}: a backup, restored')
            options = ('--persist', 'group', '--quota-stored-bytes', '2MiB')
            with Users(*options, directory=folder) as again:
                tap.equal((again.owned(ALICE), again.owned(BOB), again.owned(0)), before,
                          f'G: {policy}: it says whose its keys are')
                tap.equal(again.owned(CAROL)[1], 1, f'G: {policy}: the last one\'s, too')
                with again.user(ALICE) as alice:
                    said = alice.command('SET', 'more', 'x' * 1500000)
                    tap.ok(is_error(said, 'quota-stored-bytes'), f'G: {policy}: the quota holds')


# ---- pages and descriptors ----

def pages(tap):
    options = ('--persist', 'memory', '--reader-pages-max', '8', '--reader-pages-uid-share', '50')
    with Users(*options) as kvd, contextlib.ExitStack() as stack:
        alice = stack.enter_context(kvd.user(ALICE))
        tap.ok(not isinstance(alice.command('KVD.ATTACH'), ReplyError), 'a page')
        for _ in range(3):
            alice.command('KVD.ATTACH', 'PAGE')
        said = alice.command('KVD.ATTACH', 'PAGE')
        tap.ok(is_error(said, 'reader-pages-uid-share'), f'G: a user has its share: {said}')
        more = stack.enter_context(kvd.user(ALICE))
        tap.ok(is_error(more.command('KVD.ATTACH'), 'reader-pages-uid-share'),
               'G: of all its connections together')
        bob = stack.enter_context(kvd.user(BOB))
        tap.ok(not isinstance(bob.command('KVD.ATTACH'), ReplyError), 'G: others have theirs')
        root = stack.enter_context(kvd.connect())
        root.command('KVD.ATTACH')
        said = [root.command('KVD.ATTACH', 'PAGE') for _ in range(4)][-1]
        tap.ok(is_error(said, 'reader-pages-max'), f'G: all pages together, root too: {said}')
        tap.equal(kvd.counter('refused_pages'), 4, 'refusals are counted')
        tap.ok('reader-pages-uid-share' in kvd.log(), 'and told')


def descriptors(tap):
    with Users('--persist', 'memory') as kvd, kvd.user(ALICE) as alice, kvd.user(ALICE) as other:
        alice.command('PING')
        socket.send_fds(alice.sock, [alice.encode('SET', 'a', '1')], [0, 1])
        try:
            said = alice.reply()
        except (EOFError, OSError):
            said = None
        tap.equal(said, None, 'H: who sends descriptors is closed')
        tap.equal(other.command('EXISTS', 'a'), 0, 'H: and not heard')
        tap.equal(kvd.counter('dropped_descriptors'), 1, 'that is counted')
        tap.ok(f'uid {ALICE}' in kvd.log() and 'descriptors' in kvd.log(), 'and told')


def main():
    if os.geteuid() != 0:
        Tap.skip_all('only root can be other users')
    tap = Tap()
    for part in (writing, lines_of_others, attaching, administering, as_told, jobs, wrong_lists,
                 rates, rate_of_bytes, exempt, stored, restarts, warm_restart, backups, pages,
                 descriptors):
        part(tap)
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
