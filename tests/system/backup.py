#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""kvctl verify, backup and restore: what was acknowledged before a backup is in it, of one moment
and under every policy, while writes go on; what is damaged is found and named; nothing half done is
taken for whole (E).
"""
import json
import os
import stat
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import (KVCTL_PROGRAM, TIMEOUT_S, Kvd, KvdFailed, ReplyError, Tap,  # noqa: E402
                     seed, wait_until)

KEYS = 4000
LARGE = 900000


def kvctl(*args):
    return subprocess.run([KVCTL_PROGRAM, *[str(a) for a in args]], capture_output=True, text=True,
                          check=False, timeout=TIMEOUT_S * 4)


def ask(kvd, *args):
    return kvctl('--socket', kvd.socket, *args)


def fill(connection, keys=KEYS):
    for at in range(0, keys, 1000):
        connection.pipeline([('SET', b'key:%d' % i, b'%d:' % i + b'x' * (i % 300))
                             for i in range(at, at + 1000)])
    connection.command('SET', 'large', b'L' * LARGE)
    connection.command('DEL', 'key:3', 'key:4')
    connection.command('SET', 'key:5', 'new')


def holds(connection):
    """Is it what fill() left?"""
    values = connection.pipeline([('GET', b'key:%d' % i) for i in range(KEYS)])
    expected = [b'%d:' % i + b'x' * (i % 300) for i in range(KEYS)]
    expected[3] = expected[4] = None
    expected[5] = b'new'
    return values == expected and connection.command('GET', 'large') == b'L' * LARGE and \
        connection.command('DBSIZE') == KEYS - 1


class Pairs(threading.Thread):
    """Writes the same number to two keys in one transaction, and counts it up; removes a third."""

    def __init__(self, kvd):
        super().__init__(daemon=True)
        self.connection = kvd.connect()
        self.done = 0
        self.over = False

    def run(self):
        while not self.over:
            value = b'%d' % (self.done + 1)
            self.connection.pipeline([
                ('MULTI',), ('SET', 'pair:a', value), ('SET', b'big:%d' % (self.done % 50), value),
                ('SET', 'pair:b', value), ('DEL', b'big:%d' % ((self.done + 25) % 50)), ('EXEC',)])
            self.done += 1

    def stop(self):
        self.over = True
        self.join()
        self.connection.close()


def restored(tap, kvd, backup, name):
    """A kvd on what the backup gives; the caller stops it."""
    folder = os.path.join(kvd.root, name)
    tap.equal(kvctl('restore', backup, folder).returncode, 0, f'{name}: it is restored')
    modes = [stat.S_IMODE(os.stat(os.path.join(folder, path)).st_mode)
             for path in ('', 'store', 'store/data.mdb')]
    tap.equal(modes, [0o700, 0o700, 0o600], 'for kvd alone')
    return Kvd('--persist', 'group', directory=folder)


def policies(tap):
    for policy in ('memory', 'lazy', 'group', 'sync'):
        with Kvd('--persist', policy) as kvd:
            backup = os.path.join(kvd.root, 'file.backup')
            with kvd.connect() as connection:
                fill(connection)
                said = ask(kvd, 'verify')
                tap.ok(said.returncode == 0 and 'no damage' in said.stdout,
                       f'{policy}: a kvd verifies itself: {said.stderr}')
                pairs = Pairs(kvd)
                pairs.start()
                wait_until(lambda: pairs.done > 25, 'writes, and as many removals as there are')
                before = pairs.done
                said = ask(kvd, 'backup', backup)
                after = pairs.done + 1
                said_verify = ask(kvd, 'verify', '--json')
                pairs.stop()
            tap.equal(said.returncode, 0, f'{policy}: a backup while writes go on: {said.stderr}')
            told = json.loads(said_verify.stdout)
            tap.equal((said_verify.returncode, told['damaged'], told['store']),
                      (0, 0, 'none' if policy == 'memory' else 'checked'),
                      f'{policy}: and a verification')
            tap.equal(os.listdir(os.path.join(kvd.dir, 'backup')), [], 'nothing is left with kvd')
            tap.equal(stat.S_IMODE(os.stat(backup).st_mode), 0o600, 'it is nobody else\'s to read')
            tap.equal(kvctl('verify', backup).returncode, 0, 'it verifies')
            with restored(tap, kvd, backup, 'again') as again, again.connect() as connection:
                a, b = connection.command('MGET', 'pair:a', 'pair:b')
                tap.ok(a == b and before <= int(a or 0) <= after,
                       f'E: one moment: {before} <= {a} == {b} <= {after}')
                big = [i for i in range(50) if connection.command('EXISTS', b'big:%d' % i)]
                tap.equal(sorted((int(a or 0) - 1 - n) % 50 for n in big), list(range(25)),
                          'E: with the removals up to there, and no later ones')
                connection.command('DEL', 'pair:a', 'pair:b', *[b'big:%d' % i for i in big])
                tap.ok(holds(connection), 'E: and everything that was written before')


def generation(kvd):
    with open(os.path.join(kvd.dir, 'kvd.gen'), 'rb') as file:
        return int.from_bytes(file.read(8), sys.byteorder)


def find_bytes(path, what):
    with open(path, 'rb') as file:
        at = file.read().find(what)
    assert at >= 0, what
    return at


def turn_bit(path, at):
    with open(path, 'r+b') as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def found_and_mended(tap, kvd, said, blocking):
    """What a verification found is not left so."""
    tap.ok('remedy: memory is whole: kvd writes the store anew' in said, 'and says what is done')
    tap.equal(kvd.kvctl('health').returncode, 5, 'E: the store is not trusted any more')
    tap.ok('damaged places in the store, 0 in memory' in kvd.log(), 'which the log says')
    with kvd.connect() as connection:
        counters = json.loads(bytes(connection.command('KVD.STATS')))['counters']
        tap.ok(counters['verify_damaged_store'] >= 2, 'and a counter')
        tap.ok(isinstance(connection.command('SET', 'late', '1'), ReplyError),
               'E: nothing is called durable')
        connection.command('DEL', 'late')
        os.unlink(blocking)
        wait_until(lambda: kvd.kvctl('health').returncode == 0, 'a store that is written anew')
        tap.equal(connection.command('KVD.SYNC'), 'OK', 'E: until it is written anew')
    tap.equal(kvd.kvctl('verify').returncode, 0, 'in which there is no damage')


def damage(tap):
    random = seed()
    with Kvd('--persist', 'group') as kvd:
        data = os.path.join(kvd.dir, 'store/data.mdb')
        backup = os.path.join(kvd.root, 'good.backup')
        with kvd.connect() as connection:
            fill(connection)
        tap.equal(ask(kvd, 'backup', backup).returncode, 0, 'a backup')
        key = b'key:%d' % (random.randrange(100, KEYS) // 300 * 300 + 299)
        at = find_bytes(data, key + key[4:] + b':xxxx') + len(key) + 20
        large = find_bytes(data, b'L' * 5000) + 3000
        turn_bit(data, at)
        turn_bit(data, large)
        blocking = os.path.join(kvd.dir, 'store.new')
        with open(blocking, 'wb'):
            pass  # in the place of the new store
        said = ask(kvd, 'verify')
        tap.equal(said.returncode, 5, 'a running kvd finds damage in its store')
        tap.ok(f"key '{key.decode()}'" in said.stdout and "key 'large'" in said.stdout,
               f'and names both keys: {said.stdout}')
        found_and_mended(tap, kvd, said.stdout, blocking)
        turn_bit(data, find_bytes(data, key + key[4:] + b':xxxx') + len(key) + 20)
        turn_bit(data, find_bytes(data, b'L' * 5000) + 3000)
        with open(blocking, 'wb'):
            pass
        told = json.loads(ask(kvd, 'verify', '--json').stdout)
        tap.ok(told['damaged'] >= 2 and bytes.fromhex(
            next(one['key_hex'] for one in told['damage'] if 'block' in one and
                 one.get('key_hex') == key.hex())) == key, 'as JSON, too, with the block')
        kvd.kill()
        os.unlink(blocking)
        said = kvctl('verify', kvd.dir)
        tap.ok(said.returncode == 5 and f"key '{key.decode()}'" in said.stdout and
               "key 'large'" in said.stdout, f'so does kvctl without it: {said.stdout}')
        try:
            kvd.start()
            tap.ok(False, 'kvd does not start with it')
        except KvdFailed as failed:
            tap.equal(failed.status, 65, 'kvd does not start with it')
        tap.equal(kvctl('restore', backup, kvd.dir).returncode, 1, 'data are not replaced unasked')
        before = generation(kvd)
        said = kvctl('restore', '--force', backup, kvd.dir)
        tap.equal(said.returncode, 0, f'unless they are to be: {said.stderr}')
        kept = [name for name in os.listdir(kvd.dir) if name.startswith('store.replaced-')]
        tap.equal(len(kept), 1, 'they are kept')
        tap.equal(generation(kvd), before + 1, 'F: a region that was kept is not taken over')
        kvd.start()
        with kvd.connect() as connection:
            tap.ok(holds(connection), 'E: what was in the backup is served')
        refusals(tap, kvd, backup, random)


def region_of(kvd):
    """kvd's memory as a file, which root may open."""
    folder = f'/proc/{kvd.pid}/fd'
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            if os.readlink(path).startswith('/memfd:') and os.stat(path).st_size > 1 << 28:
                return open(path, 'r+b', buffering=0)
        except FileNotFoundError:
            continue  # it was closed since it was listed
    raise AssertionError('kvd has no memory')


def turn_in_memory(region, what, beyond):
    """Turns a bit so far behind these bytes, wherever they stand. How often that was."""
    at, count = 0, 0
    while True:
        try:
            at = os.lseek(region.fileno(), at, os.SEEK_DATA)
        except OSError:
            return count
        end = os.lseek(region.fileno(), at, os.SEEK_HOLE)
        data = os.pread(region.fileno(), end - at, at)
        found = data.find(what)
        while found >= 0:
            byte = bytes([data[found + beyond] ^ 1])
            count += os.pwrite(region.fileno(), byte, at + found + beyond)
            found = data.find(what, found + len(what) + beyond)
        at = end


def memory(tap):
    if os.geteuid() != 0:
        tap.skip('damage in memory', 'needs root')
        return
    for policy in ('memory', 'group'):
        with Kvd('--persist', policy) as kvd:
            with kvd.connect() as connection:
                fill(connection)
            tap.equal(ask(kvd, 'verify').returncode, 0, f'{policy}: nothing is found')
            with region_of(kvd) as region:
                turned = [turn_in_memory(region, b'key:299299:xx', 50),
                          turn_in_memory(region, b'L' * (LARGE // 2), 1000)]
            said = ask(kvd, 'verify')
            tap.ok(min(turned) > 0 and said.returncode == 5 and
                   "memory: key 'key:299'" in said.stdout and
                   "memory: key 'large'" in said.stdout,
                   f'{policy}: bits turned in memory are found: {said.stdout}')
            said = ask(kvd, 'backup', os.path.join(kvd.root, 'x.backup'))
            tap.ok(said.returncode == 1 and 'x.backup' not in os.listdir(kvd.root),
                   f'no backup is made of that: {said.stderr}')


def refusals(tap, kvd, backup, random):
    """No backup that is not as it was written is taken for one."""
    with open(backup, 'rb') as file:
        whole = file.read()
    bad = os.path.join(kvd.root, 'bad.backup')
    fresh = os.path.join(kvd.root, 'fresh')
    wrong = []
    for i in range(40):
        body = bytearray(whole)
        if i % 4 == 0:
            body = body[:random.randrange(len(body))]
        elif i % 4 == 1:
            body += bytes(random.randrange(1, 9000))
        elif i % 4 == 2:
            body[len(body) - 4096 + random.randrange(88)] ^= 1 << random.randrange(8)
        else:
            body[random.randrange(len(body) - 4096)] ^= 1 << random.randrange(8)
        with open(bad, 'wb') as file:
            file.write(body)
        codes = (kvctl('verify', bad).returncode, kvctl('restore', bad, fresh).returncode)
        if codes != (5, 5) or os.path.exists(fresh):
            wrong.append((i, codes))
    tap.equal(wrong, [], 'backups that are cut, longer, or have a bit turned are refused')
    tap.equal(kvctl('restore', backup, kvd.dir).returncode, 1, 'so is a folder that kvd uses')
    tap.equal(kvctl('verify', kvd.dir).returncode, 1, 'also for verify')
    tap.equal(kvctl('verify', os.path.join(kvd.root, 'nothing')).returncode, 2, 'no such folder')
    os.mkdir(fresh)
    tap.equal(kvctl('verify', fresh).returncode, 2, 'a folder without a store')
    tap.equal(ask(kvd, 'backup', os.path.join(kvd.root, 'no/such/folder')).returncode, 2,
              'a place that is not there')
    tap.equal(os.listdir(os.path.join(kvd.dir, 'backup')), [], 'leaves nothing behind')
    limit = 'ulimit -f 100; exec "$@"'
    full = subprocess.run(['sh', '-c', limit, '-', KVCTL_PROGRAM, 'restore', backup, fresh],
                          capture_output=True, text=True, check=False)
    tap.ok(full.returncode not in (0, 5) and not os.path.exists(os.path.join(fresh, 'store')),
           f'a restore without room leaves no store: {full.returncode} {full.stderr}')
    tap.equal([name for name in os.listdir(fresh) if name.startswith('store')], [], 'nor a part')


def read_only(tap):
    """A data folder, and a backup, on a file system that cannot be written."""
    wrapper = ['unshare', '--map-root-user', '--mount', 'sh', '-c',
               'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && "$@"']
    with Kvd('--persist', 'group') as kvd:
        if subprocess.run([*wrapper, kvd.root, 'true'], capture_output=True,
                          check=False).returncode != 0:
            tap.skip('a file system mounted read-only', 'no mount namespace of our own here')
            return
        backup = os.path.join(kvd.root, 'file.backup')
        with kvd.connect() as connection:
            fill(connection)
        ask(kvd, 'backup', backup)

        def there(*args):
            return subprocess.run([*wrapper, kvd.root, KVCTL_PROGRAM, *args], capture_output=True,
                                  text=True, check=False)
        said = there('verify', kvd.dir)
        tap.ok(said.returncode == 1 and 'in use by another kvd' in said.stderr,
               f'mounted read-only, a folder may be in use all the same: {said.stderr}')
        kvd.kill()
        for name in ('', 'kvd.lock', 'store/lock.mdb'):
            if name:
                os.unlink(os.path.join(kvd.dir, name))
            said = there('verify', kvd.dir)
            tap.equal(said.returncode, 0,
                      f'its store is verified{name and " without "}{name}: {said.stderr}')
        tap.equal(there('verify', backup).returncode, 0, 'so is a backup')
        said = there('restore', '--force', backup, kvd.dir)
        tap.ok(said.returncode != 0 and 'Read-only' in said.stderr,
               f'nothing is restored there: {said.stderr}')


def strangers(tap):
    if os.geteuid() != 0:
        tap.skip('other users', 'needs root')
        return
    with Kvd('--persist', 'group', '--socket-mode', '0666') as kvd:
        os.chmod(kvd.root, 0o755)
        os.chmod(kvd.dir, 0o755)
        code = ('import os, sys; sys.path.insert(0, sys.argv[2]); '
                'from kvdtest import Connection; os.setgid(65534); os.setuid(65534); '
                'c = Connection(sys.argv[1]); '
                'print([str(c.command(*w)) for w in (("KVD.BACKUP", "START"), '
                '("KVD.VERIFY", "START"), ("KVD.BACKUP", "STATUS"))])')
        lib = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib')
        said = subprocess.run([sys.executable, '-c', code, kvd.socket, lib], capture_output=True,
                              text=True, check=False)
        tap.ok(said.stdout.count('NOPERM') == 3,
               f'H: neither is for others: {said.stdout} {said.stderr}')
        with kvd.connect() as connection:
            names = ['../x', '.x', 'a/b', 'x.new', '', 'y' * 101, 'a b']
            replies = [str(connection.command('KVD.BACKUP', 'START', name)) for name in names]
            tap.ok(all("ERR a backup's name" in reply for reply in replies),
                   'H: a name is no path')


def main():
    tap = Tap()
    policies(tap)
    damage(tap)
    memory(tap)
    read_only(tap)
    strangers(tap)
    tap.done()


main()
