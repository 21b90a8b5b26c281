#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""kvd --supervise: a child that dies is started again, with what it wanted to outlive it (F).

Most of it with a stand-in for kvd (supervised.c), which the test leads step by step over a socket
and whose clock stands in a file, so that nothing depends on how fast this machine is; the rest with
kvd itself.
"""
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kvdtest import (KVD_PROGRAM, TIMEOUT_S, Kvd, KvdFailed, Tap,  # noqa: E402
                     seed, wait_until)
from supervised import Supervised  # noqa: E402

KILLS = 200
HELD = sum(1 << (number - 1) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP,
                                            signal.SIGUSR1, signal.SIGUSR2))
LAST = 10  # children at most, once the supervisor was asked to stop


def kills(tap):
    """Killed again and again, at one of several moments: nothing that was kept is lost."""
    rng = seed()
    expected = [('region', 'r0'), ('page', 'p0'), ('page', 'p1')]
    with Supervised() as supervised:
        life = supervised.next()
        tap.equal(life.given, [], 'F: the first life is given nothing')
        for name, text in expected:
            life.tell('keep', name, text)
        wrong, pids = None, {life.pid}
        for count in range(KILLS):
            if rng.random() < 0.3:
                life.tell('ready')
            if rng.random() < 0.2:  # the kill comes right behind it
                fresh = ('region', 'r%d' % (count + 1))
                life.tell('drop', 'region')
                life.tell('keep', *fresh)
                expected = [pair for pair in expected if pair[0] != 'region'] + [fresh]
            os.kill(life.pid, rng.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)))
            life = supervised.next()
            pids.add(life.pid)
            if life.given != expected or life.parent != supervised.process.pid:
                wrong = 'after kill %d: %s, not %s' % (count, life.given, expected)
                break
        tap.equal(wrong, None, 'F: %d lives are given what was kept' % KILLS)
        tap.equal(len(pids), KILLS + 1, 'each is another process')
        try:
            with open('/proc/%d/maps' % supervised.process.pid, encoding='ascii') as maps:
                tap.ok('memfd' not in maps.read(), 'the parent maps nothing of it')
        except PermissionError:
            tap.ok(os.getuid() != 0, 'the parent is opaque to its own user')
        life.tell('drop', 'page')
        life.tell('drop', 'region')
        life.end(5)
        tap.equal(supervised.next().given, [], 'what was dropped does not come back')


def last_words(tap):
    with Supervised('late') as supervised:
        life = supervised.next()
        supervised.signal(signal.SIGUSR1)  # it reads messages, and then waits for the child's end
        wait_until(lambda: supervised.log().count('signals are late') == 2, 'the second turn')
        life.tell('keep', 'region', 'x')
        os.kill(life.pid, signal.SIGKILL)
        tap.equal(supervised.next().given, [('region', 'x')],
                  'F: what a child kept right before its end is not lost')


def back_off(tap):
    with Supervised() as supervised:
        for _ in range(14):
            os.kill(supervised.next().pid, signal.SIGKILL)
        life = supervised.next()
        tap.equal(supervised.waits(),
                  [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000, 5000, 5000],
                  'at once, then after 10 ms, twice as long each time, at most 5 s')
        supervised.advance(9999)
        os.kill(life.pid, signal.SIGKILL)
        life = supervised.next()
        tap.equal(supervised.waits()[13:], [5000], 'a life of less than 10 s changes nothing')
        supervised.advance(10000)
        os.kill(life.pid, signal.SIGKILL)
        life = supervised.next()
        os.kill(life.pid, signal.SIGKILL)
        life = supervised.next()
        tap.equal(supervised.waits()[14:], [10], 'after 10 s it begins anew: at once, then 10 ms')
    with Supervised() as supervised:
        for _ in range(4):
            os.kill(supervised.next().pid, signal.SIGKILL)
        life = supervised.next()
        log = supervised.log()
        tap.ok('was killed by signal 9 (Killed) and starts again at once' in log and
               'was killed by signal 9 (Killed) and starts again in 40 ms' in log,
               'the log tells each')
        life.tell('ready')
        life.end(9)
        supervised.next()
        tap.ok('ended with exit code 9 and starts again in 80 ms' in supervised.log(),
               'an exit code too')


def heritage(tap):
    """Nothing of the parent's but what is meant for the child."""
    with Supervised() as supervised:
        life = supervised.next()
        tap.equal(life.facts['open'], ['1'] * 4 + ['0'] * 12,
                  'no descriptor of the parent\'s but the socket to tell it by')
        tap.equal((int(life.facts['SigBlk:'][0], 16), ignores_children(life)),
                  (blocked() | HELD, False),
                  'signals as they were, and those held that it takes when it can')
        tap.equal(life.facts['offered'], ['1'], 'it can keep descriptors')
        life.tell('keep', 'a', '1')
        life.tell('keep', 'b', '2')
        life.end(1)
        life = supervised.next()
        tap.equal(life.facts['open'], ['1'] * 6 + ['0'] * 10, 'what is kept stands from 3 on')
        zombies = [pid for pid in children(supervised.process.pid) if pid != life.pid]
        tap.equal(zombies, [], 'whoever died was waited for')
    with Supervised(prepare=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)) as supervised:
        life = supervised.next()
        tap.ok(ignores_children(life), 'signals as they were, also when that was odd')
        os.kill(life.pid, signal.SIGKILL)
        tap.ok(supervised.next(), 'and the parent still learns of deaths')
    with Supervised(prepare=lambda: os.closerange(0, 3)) as supervised:
        life = supervised.next()
        tap.equal(life.facts['open'], ['1'] * 4 + ['0'] * 12, 'the first three are always there')


def blocked():
    """The signals that are blocked in this process, whoever started it."""
    with open('/proc/self/status', encoding='ascii') as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith('SigBlk:'))


def ignores_children(life):
    return int(life.facts['SigIgn:'][0], 16) & 1 << (signal.SIGCHLD - 1) != 0


def children(pid):
    with open('/proc/%d/task/%d/children' % (pid, pid), encoding='ascii') as file:
        return [int(child) for child in file.read().split()]


def signals(tap):
    for number in (signal.SIGTERM, signal.SIGINT):
        with Supervised() as supervised:
            life = supervised.next()
            for other in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                supervised.signal(other)
                tap.equal(life.read(), ['signal', '%02d' % other], '%s is passed on' % other.name)
            supervised.signal(number)
            tap.equal(life.read(), ['signal', '%02d' % number], '%s is passed on' % number.name)
            life.tell('ready')
            life.end(74)
            tap.equal(supervised.wait(), 74, 'then its exit code is the parent\'s')
            tap.ok(not supervised.has_next(), 'and nothing is started')
    with Supervised() as supervised:
        life = supervised.next()
        supervised.signal(signal.SIGTERM)
        life.read()
        os.kill(life.pid, signal.SIGKILL)
        tap.equal(supervised.wait(), 137, 'a child that is killed while it stops: 128 + 9')
    with Supervised() as supervised:
        life = supervised.next()
        supervised.process.kill()
        tap.equal(life.read(), ['signal', '15'], 'a parent that is killed leaves no child behind')
    with Supervised('stay') as supervised:
        for _ in range(2):
            os.kill(supervised.next().pid, signal.SIGABRT)
        wait_until(lambda: 'starts again in 10 ms' in supervised.log(), 'the pause')
        supervised.signal(signal.SIGHUP)
        supervised.signal(signal.SIGTERM)
        tap.equal(supervised.wait(), 134, 'told to stop while there is no child, it ends')
        tap.ok('nothing is kept' in supervised.log(), 'if nothing is kept')


def last_child(tap):
    """What is kept may be what only memory has: a stop is no end before a child obeyed it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        with Supervised('stay') as supervised:
            supervised.next().tell('keep', 'region', 'x')
            os.kill(supervised.life.pid, signal.SIGABRT)
            os.kill(supervised.next().pid, signal.SIGABRT)
            wait_until(lambda: 'starts again in 10 ms' in supervised.log(), 'the pause')
            supervised.signal(number)
            life = supervised.next()
            tap.equal(life.given, [('region', 'x')],
                      f'F: {number.name} while there is no child: one is started')
            tap.equal(life.read(), ['signal', '15'], 'and asked to stop')
            life.tell('stopping')
            life.end(0)
            tap.equal((supervised.wait(), supervised.has_next()), (0, False), 'then both end')
    with Supervised() as supervised:
        life = supervised.next()
        life.tell('keep', 'region', 'x')
        supervised.signal(signal.SIGTERM)
        life.read()
        os.kill(life.pid, signal.SIGKILL)
        life = supervised.next()
        tap.equal((life.given, life.read()), ([('region', 'x')], ['signal', '15']),
                  'F: one that dies before it stopped is followed by another')
        life.end(71)
        life = supervised.next()
        tap.equal((life.given, life.read()), ([('region', 'x')], ['signal', '15']),
                  'F: so is one that fails at its start')
        life.tell('stopping')
        life.end(74)
        tap.equal((supervised.wait(), supervised.has_next()), (74, False),
                  'one that stopped, as well as it could, is the last')
    with Supervised() as supervised:
        life = supervised.next()
        life.tell('keep', 'region', 'x')
        supervised.signal(signal.SIGTERM)
        for _ in range(LAST):
            os.kill(life.pid, signal.SIGKILL)
            life = supervised.next()
        os.kill(life.pid, signal.SIGKILL)
        tap.equal((supervised.wait(), supervised.has_next()), (137, False),
                  f'{LAST} that die are the end')
        tap.ok('what only memory had is lost' in supervised.log(), 'which is said')
        tap.equal(supervised.waits(), [10, 20, 40, 80, 160, 320, 640, 1280, 2560][:LAST - 1],
                  'they come further and further apart')


def terminal(tap):
    """Keys of a terminal are signals to parent and child; nobody gets one twice."""
    master, slave = os.openpty()

    def prepare():
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    with Supervised(prepare=prepare) as supervised:
        os.close(slave)
        life = supervised.next()
        os.write(master, b'\x03')
        tap.equal(life.read(), ['signal', '02'], 'a key of the terminal reaches the child')
        supervised.signal(signal.SIGUSR1)  # is taken later
        tap.equal(life.read(), ['signal', '10'], 'once')
        os.close(master)
        tap.equal(life.read(), ['signal', '15'], 'a terminal that goes away is a stop')
        life.end(0)
        tap.equal(supervised.wait(), 0, 'and both end')


def exit_codes(tap):
    for code in (0, 64, 65, 73, 75, 77, 78):
        with Supervised() as supervised:
            supervised.next().end(code)
            tap.equal((supervised.wait(), supervised.has_next()), (code, False),
                      'exit code %d at the start is the end' % code)
    for code in (1, 70, 71, 74):
        with Supervised() as supervised:
            supervised.next().end(code)
            tap.ok(supervised.next(), 'exit code %d at the start is not' % code)
    with Supervised() as supervised:
        life = supervised.next()
        life.tell('ready')
        life.end(78)
        life = supervised.next()
        tap.ok(life, 'nor is any, of a life that served')
        life.end(78)
        tap.equal(supervised.wait(), 78, 'but what a life said is not the next one\'s')
    with Supervised() as supervised:
        life = supervised.next()
        life.tell('ready')
        life.tell('stopping')
        life.end(74)
        tap.equal((supervised.wait(), supervised.has_next()), (74, False),
                  'a stop in order is the end, whatever its code')


def orphans(tap):
    with Supervised() as supervised:
        life = supervised.next()
        (word, pid, parent), = life.tell('orphan')
        tap.equal((word, int(parent)), ('orphan', supervised.process.pid),
                  'a process that lost its parent becomes the supervisor\'s')
        wait_until(lambda: not os.path.exists('/proc/' + pid), 'the orphan to be waited for')
        tap.ok(life.tell('ready') == [], 'and is waited for, while the child lives on')


def outer(tap):
    """Under a service manager."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    manager.settimeout(TIMEOUT_S)
    manager.bind('')  # the kernel finds a name
    name = '@' + manager.getsockname()[1:].decode()

    def heard():
        text, control, _, _ = manager.recvmsg(4096, 4096, socket.MSG_CMSG_CLOEXEC)
        pid = None
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                pid = struct.unpack('=3i', data[:12])[0]
            elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                for fd in struct.unpack('=%di' % (len(data) // 4), data):
                    os.close(fd)
        return pid, text.decode().strip()

    with Supervised(env={'NOTIFY_SOCKET': name}) as supervised:
        pid = supervised.process.pid
        life = supervised.next()
        life.tell('ready')
        tap.equal(heard(), (pid, 'READY=1'), 'READY=1 comes from the main process')
        life.tell('keep', 'region', 'x')
        tap.equal(heard(), (pid, 'FDSTORE=1\nFDPOLL=0\nFDNAME=region'),
                  'descriptors, for when the parent itself dies')
        os.kill(life.pid, signal.SIGKILL)
        tap.equal(heard(), (pid, 'STATUS=kvd was killed by signal 9 (Killed) and starts again at '
                                 'once'), 'a death is told')
        supervised.next().tell('stopping')
        tap.equal(heard(), (pid, 'STOPPING=1'), 'and the end')
    manager.close()


def process_one(tap):
    prefix = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child']
    if subprocess.run(prefix + ['true'], check=False, capture_output=True).returncode != 0:
        prefix.insert(1, '--map-root-user')
        tried = subprocess.run(prefix + ['true'], check=False, capture_output=True)
        if tried.returncode != 0:
            tap.skip('process 1 of a pid namespace', tried.stderr.decode().strip())
            return
    with Supervised(prefix=prefix) as supervised:
        life = supervised.next()
        tap.equal((life.pid, life.parent), (2, 1), 'process 1 of a pid namespace')
        one, = children(supervised.process.pid)
        life.tell('keep', 'region', 'x')
        (_, pid, parent), = life.tell('orphan')
        tap.equal(parent, '1', 'orphans are its own')
        wait_until(lambda: len(children(one)) == 1, 'the orphan to be waited for')
        tap.ok(pid != '2', 'and are waited for')
        os.kill(one, signal.SIGUSR1)
        tap.equal(life.read(), ['signal', '10'], 'signals reach it from outside')
        os.kill(children(one)[0], signal.SIGKILL)
        life = supervised.next()
        tap.equal(life.given, [('region', 'x')], 'F: the next child is given what was kept')
        os.kill(one, signal.SIGTERM)
        tap.equal(life.read(), ['signal', '15'], 'SIGTERM, which process 1 need not get')
        life.tell('stopping')
        life.end(7)
        tap.equal(supervised.wait(), 7, 'and the exit code comes out')


def info(kvd, name):
    with kvd.connect() as connection:
        for line in connection.command('INFO', 'server').decode().split('\r\n'):
            if line.startswith(name + ':'):
                return line[len(name) + 1:]
    return None


def arguments_of(pid):
    with open('/proc/%d/cmdline' % pid, 'rb') as file:
        return file.read().split(b'\0')[:-1]


def kvd_itself(tap):
    with Kvd('--supervise', '--persist', 'group', '--memory', '16MiB') as kvd:
        pids = set()
        for count in range(6):
            with kvd.connect() as connection:
                tap.equal(connection.command('SET', 'k%d' % count, 'v'), 'OK', 'kvd serves')
                tap.ok(b'supervise' not in connection.command('CONFIG', 'GET', 'super*'),
                       'an option that is not its own is not told')
            pid = int(info(kvd, 'process_id'))
            pids.add(pid)
            os.kill(pid, signal.SIGKILL)
            kvd.wait_ready()
        with kvd.connect() as connection:
            tap.equal(connection.command('DBSIZE'), 6, 'E, F: six kills, nothing acknowledged lost')
        tap.ok(len(pids) == 6 and kvd.pid not in pids, 'six processes, none of them the parent')
        pid = int(info(kvd, 'process_id'))
        tap.equal(arguments_of(pid)[1:], [argument.encode() for argument in (
            '--dir', kvd.dir, '--persist', 'group', '--memory', '16MiB')],
                  'the child has the arguments, but one')
        with open('/proc/%d/comm' % pid, encoding='ascii') as comm:
            tap.equal(comm.read().strip(), os.path.basename(KVD_PROGRAM)[:15], 'and the name')
        os.kill(pid, signal.SIGTERM)  # both of them, as killall does
        tap.equal(kvd.stop(), 0, 'a stop in order')
        wait_until(lambda: not os.path.exists('/proc/%d' % pid), 'the child to be gone')
        tap.ok('kvd stops, everything up to version' in kvd.log(), 'of kvd itself')


def kvd_refusals(tap):
    with Kvd('--supervise', '--memory', '16MiB') as kvd:
        with Kvd('--supervise', '--memory', '16MiB', start=False, directory=kvd.dir) as second:
            try:
                second.start('--supervise', '--socket', os.path.join(second.root, 's'))
                tap.ok(False, 'a folder in use is refused')
            except KvdFailed as failed:
                tap.equal(failed.status, 73, 'a folder in use is refused, once')
                tap.equal(failed.log.count('is in use by another kvd'), 1, 'and that is said once')
        with kvd.connect() as connection:
            tap.equal(connection.command('PING'), 'PONG', 'the first serves on')
    with Kvd(start=False) as kvd:
        path = os.path.join(kvd.root, 'kvd.conf')
        with open(path, 'w', encoding='ascii') as config:
            config.write('supervise = yes\n')
        for options, text in ((('--config', path), 'supervise stands on the command line only'),
                              (('--supervise', '--memory', 'x'), "memory: 'x' is not a size"),
                              (('--supervise=maybe',), "supervise: 'maybe' is none of no|yes")):
            kvd.spawn(*options)
            tap.equal(kvd.wait(), 64, ' '.join(options[-1:]).replace(kvd.root, '') + ' is refused')
            tap.ok(text in kvd.log(), 'with the reason')
        tap.ok('supervise: kvd' not in kvd.log(), 'and no child was needed for that')


def main():
    tap = Tap()
    kills(tap)
    last_words(tap)
    back_off(tap)
    heritage(tap)
    signals(tap)
    last_child(tap)
    terminal(tap)
    exit_codes(tap)
    orphans(tap)
    outer(tap)
    process_one(tap)
    kvd_itself(tap)
    kvd_refusals(tap)
    tap.done()


main()
