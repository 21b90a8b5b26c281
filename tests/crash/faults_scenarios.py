# SPDX-License-Identifier: MIT
#
# What kvd is asked to do while calls fail, for faults.py, and what must hold in the end. A client
# here expects nothing of a single reply: it may be an error, or the connection may be gone. But
# what was acknowledged it remembers, and looks for it to the end.
import array
import mmap
import os
import shutil
import signal
import socket
import struct
import time

from kvdtest import Connection, Kvd, KvdFailed, ReplyError

TIMEOUT_S = 60
EXIT_CODES = (0, 71, 73, 74, 77, 78)  # of kvd(8), those that a refusing system may lead to
FIELDS = ('armed', 'calls', 'fail_at', 'fail_count', 'seed', 'failed', 'error', 'where',
          'syncs_fail', 'blocks')
LARGE = b'L' * 300000


class Broken(Exception):
    """Something that must hold does not."""


class Page:
    """What faults.c and the test share: struct faults."""

    def __init__(self, path):
        self.path = path
        with open(path, 'w+b') as file:
            file.truncate(4096)
            self.bytes = mmap.mmap(file.fileno(), 4096)

    def close(self):
        self.bytes.close()

    def set(self, **values):
        for name, value in values.items():
            struct.pack_into('<q', self.bytes, FIELDS.index(name) * 8, value)

    def get(self, name):
        return struct.unpack_from('<q', self.bytes, FIELDS.index(name) * 8)[0]

    def text(self, name):
        at = len(FIELDS) * 8 + {'name': 0, 'module': 32}[name]
        return self.bytes[at:at + 32].split(b'\0')[0].decode()


class Client:
    """A client that comes again when it is cut off, and remembers what may be in which key."""

    def __init__(self, path, ledger):
        self.path = path
        self.ledger = ledger
        self.connection = None

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def ask(self, *args):
        """The reply, or None if there is none."""
        try:
            if self.connection is None:
                self.connection = Connection(self.path, TIMEOUT_S)
            return self.connection.command(*args)
        except socket.timeout:
            raise Broken(f'no reply to {args[0]} in {TIMEOUT_S} s') from None
        except (OSError, EOFError):
            self.close()
            return None

    def write(self, effects, *args):
        """A command after which keys have these values (None: absent), if it is carried out."""
        reply = self.ask(*args)
        for key, value in effects.items():
            may_be = self.ledger.setdefault(key, {None})
            if reply is None or isinstance(reply, ReplyError):
                may_be.add(value)
            else:
                self.ledger[key] = {value}
        return reply

    def look(self, *keys):
        for key in keys:
            reply = self.ask('GET', key)
            if isinstance(reply, (bytes, str)) and reply not in self.ledger[key]:
                raise Broken(f'{key} is {reply[:40]!r}, not one of {brief(self.ledger[key])}')


def brief(values):
    return [value if value is None else value[:40] for value in values]


class Run:
    """One run of a scenario: kvd's folder, its arguments, and what was acknowledged."""

    def __init__(self, library, base, folder, page):
        self.base = base
        self.folder = folder
        self.page = page
        self.ledger = {}
        self.env = {'LD_PRELOAD': library, 'KVD_FAULTS': page.path}
        self.kvd = None

    def with_template(self):
        """Begins with the store that prepare() made."""
        shutil.copytree(os.path.join(self.base, 'template'), os.path.join(self.folder, 'data'))
        self.ledger = template_ledger()

    def spawn(self, *args):
        args = ('--memory', '16MiB', '--segment', '64KiB', '--compact-floor', '0',
                '--compact-ratio', '110') + args
        self.kvd = Kvd(*args, start=False, directory=os.path.join(self.folder, 'data'),
                       env=self.env)
        self.kvd.spawn()

    def ready(self):
        """Waits until kvd serves. False if it ended instead."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if self.kvd.process.poll() is not None:
                return False
            try:
                with Connection(self.kvd.socket, TIMEOUT_S) as c:
                    if c.command('PING') == 'PONG':
                        return True
            except (OSError, EOFError):
                pass
            time.sleep(0.002)
        raise Broken(f'kvd does not serve within {TIMEOUT_S} s: {self.kvd.log()[-500:]}')

    def client(self):
        return Client(self.kvd.socket, self.ledger)

    def finish(self, stop=True):
        """Stops kvd and judges how it ended; then the next one must have all of it."""
        self.page.set(armed=self.page.get('armed') if stop else 0)
        if self.kvd.process.poll() is None:
            self.kvd.process.send_signal(signal.SIGTERM)
        try:
            code = self.kvd.wait()
        except Exception as error:
            raise Broken(f'it does not stop: {self.kvd.log()[-500:]}') from error
        self.page.set(armed=0)
        log = self.kvd.log()
        self.kvd.cleanup()
        if code not in EXIT_CODES:
            raise Broken(f'kvd ended with {code}: {log[-700:]}')
        if code != 0 and not log.strip().split('\n')[-1]:
            raise Broken(f'kvd ended with {code} and said nothing')
        self.look_again(log)

    def look_again(self, log):
        kvd = Kvd('--memory', '16MiB', '--segment', '64KiB', '--persist', 'group', start=False,
                  directory=os.path.join(self.folder, 'data'))
        try:
            try:
                kvd.start()
            except KvdFailed as error:
                raise Broken(f'the next kvd does not start: {error}; before: '
                             f'{log[-700:]}') from error
            with kvd.connect(TIMEOUT_S) as c:
                for key, may_be in self.ledger.items():
                    value = c.command('GET', key)
                    if value not in may_be:
                        raise Broken(f'{key} is {brief([value])} in the next life, not one of '
                                     f'{brief(may_be)}: {log[-700:]}')
                if c.command('SET', 'after', '1') != 'OK':
                    raise Broken('the next life cannot be written to')
            if kvd.stop() != 0:
                raise Broken(f'the next life does not stop: {kvd.log()[-500:]}')
        finally:
            kvd.cleanup()


def descriptors(pid):
    return len(os.listdir(f'/proc/{pid}/fd'))


def template_ledger():
    ledger = {f't:{i}': {b'%d' % i * 20} for i in range(60)}
    ledger['t:large'] = {LARGE}
    return ledger


def prepare(base):
    """A store to begin with, and the next lives' data folder."""
    kvd = Kvd('--memory', '16MiB', '--segment', '64KiB', '--persist', 'group')
    with kvd.connect() as c:
        for key, values in template_ledger().items():
            c.command('SET', key, next(iter(values)))
        c.command('SET', 'gone', 'x')
        c.command('DEL', 'gone')
    kvd.stop()
    shutil.copytree(kvd.dir, os.path.join(base, 'template'),
                    ignore=lambda _, names: [n for n in names if n.endswith('.sock')])
    kvd.cleanup()


def attach(client):
    """KVD.ATTACH, with the descriptors that come with it."""
    if client.ask('PING') is None:
        return
    try:
        client.connection.append('KVD.ATTACH')
        data, control, _, _ = client.connection.sock.recvmsg(65536, socket.CMSG_SPACE(64))
        for level, kind, bytes_ in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array('i')
                fds.frombytes(bytes_[:len(bytes_) // 4 * 4])
                for fd in fds:
                    os.close(fd)
        client.connection.buffer = data
        client.connection.at = 0
        client.connection.reply()
    except socket.timeout:
        raise Broken('no reply to KVD.ATTACH') from None
    except (OSError, EOFError):
        client.close()


def messages(run, client):
    """One client subscribes and tracks, the other publishes and writes."""
    listener = run.client()
    if isinstance(listener.ask('HELLO', '3'), dict):
        listener.ask('SUBSCRIBE', 'channel')
        listener.ask('CLIENT', 'TRACKING', 'ON')
        client.ask('PUBLISH', 'channel', 'hello')
        listener.ask('GET', 't:1')
        client.write({'t:1': b'changed'}, 'SET', 't:1', 'changed')
        listener.ask('PSUBSCRIBE', 'c*')
        client.ask('PUBLISH', 'channel', 'y' * 20000)
        listener.ask('UNSUBSCRIBE')
    listener.close()


def use(run):
    """Some of everything."""
    client = run.client()
    client.write({'a': b'1'}, 'SET', 'a', '1')
    client.write({'m:1': b'x', 'm:2': b'y'}, 'MSET', 'm:1', 'x', 'm:2', 'y')
    client.write({'large': LARGE}, 'SET', 'large', LARGE)
    client.look('a', 'large', 't:1', 't:large')
    client.write({'t:2': None}, 'DEL', 't:2')
    attach(client)
    if client.ask('MULTI') == 'OK':
        for key in ('e:1', 'e:2'):
            client.ask('SET', key, 'exec')
        client.write({'e:1': b'exec', 'e:2': b'exec'}, 'EXEC')
    messages(run, client)
    for command in (('INFO',), ('KVD.READERS',), ('KEYS', '*'), ('SCAN', '0'), ('CLIENT', 'LIST'),
                    ('CONFIG', 'SET', 'revoke', '4s'), ('MGET', 't:1', 't:large', 'a')):
        client.ask(*command)
    longer = {(value or b'') + b'more' for value in client.ledger['a']}
    if isinstance(client.ask('APPEND', 'a', 'more'), int):
        client.ledger['a'] = longer
    else:
        client.ledger['a'] = client.ledger['a'] | longer
    for i in range(30):  # enough for compaction
        client.write({f't:{i}': b'%d' % i * 500}, 'SET', f't:{i}', b'%d' % i * 500)
    client.look('t:3', 't:2', 'a')
    attach(client)
    client.close()


def whole_life(run):
    run.with_template()
    run.page.set(armed=1)
    run.spawn('--persist', 'group')
    if run.ready():
        use(run)
    run.finish()


def first_life(run):
    run.page.set(armed=1)
    run.spawn('--persist', 'sync')
    if run.ready():
        client = run.client()
        client.write({'a': b'1'}, 'SET', 'a', '1')
        client.look('a')
        client.close()
    run.finish()


def descriptors_kept(run):
    """Clients come and go while calls fail: none leaves a descriptor behind."""
    run.spawn('--persist', 'group')
    if not run.ready():
        raise Broken(f'kvd does not start: {run.kvd.log()}')
    client = run.client()
    attach(client)
    client.ask('PING')
    client.close()
    time.sleep(0.02)
    before = descriptors(run.kvd.pid)
    run.page.set(armed=1)
    for _ in range(2):
        client = run.client()
        attach(client)
        client.write({'a': b'1'}, 'SET', 'a', '1')
        client.close()
    run.page.set(armed=0)
    deadline = time.monotonic() + TIMEOUT_S
    while run.kvd.process.poll() is None and descriptors(run.kvd.pid) > before:
        if time.monotonic() > deadline:
            raise Broken(f'{descriptors(run.kvd.pid)} descriptors, {before} before')
        time.sleep(0.005)
    run.finish(stop=False)


def renewal(run):
    """The device failed: the store is written anew from memory."""
    run.with_template()
    run.spawn('--persist', 'group')
    if not run.ready():
        raise Broken(f'kvd does not start: {run.kvd.log()}')
    run.page.set(armed=1, syncs_fail=1)
    client = run.client()
    client.write({'a': b'1'}, 'SET', 'a', '1')
    deadline = time.monotonic() + TIMEOUT_S
    while run.kvd.process.poll() is None:
        reply = client.write({'b': b'2'}, 'SET', 'b', '2')
        if reply == 'OK':
            break
        if time.monotonic() > deadline:
            raise Broken(f'nothing is durable again: {run.kvd.log()[-700:]}')
        time.sleep(0.02)
    client.look('a', 'b', 't:4')
    client.close()
    run.finish()


def adoption(run):
    """kvd is killed under its supervisor, and the next one takes the region over."""
    run.with_template()
    run.spawn('--persist', 'group', '--supervise')
    if not run.ready():
        raise Broken(f'kvd does not start: {run.kvd.log()}')
    client = run.client()
    client.write({'a': b'1', 't:2': None}, 'MSET', 'a', '1', 't:2', 'x')
    run.ledger['t:2'] = {b'x'}
    client.write({'t:2': None}, 'DEL', 't:2')
    info = client.ask('INFO', 'server').decode()
    child = int(info.split('process_id:')[1].split()[0])
    run.page.set(armed=1)
    os.kill(child, signal.SIGKILL)
    client.close()
    deadline = time.monotonic() + 2
    while os.path.exists(f'/proc/{child}') and time.monotonic() < deadline:
        time.sleep(0.001)
    if run.ready():
        client.write({'b': b'2'}, 'SET', 'b', '2')
        client.look('a', 't:5', 't:large')
    client.close()
    run.finish()


SCENARIOS = {
    'a life': whole_life,
    'a first life': first_life,
    'clients': descriptors_kept,
    'a renewal': renewal,
    'an adoption': adoption,
}
