#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A stop that comes while kvd starts, or is down, is obeyed in order: nothing is lost (E, F).

Under lazy with a long interval what was acknowledged stands in the kept region alone. kvd is killed
and asked to stop at each labelled point of the next start, or while its supervisor pauses; it must
end with what was acknowledged in the store, in order, and leave no process and no region behind.
"""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from kept import KeptKvd  # noqa: E402
from kvdtest import TIMEOUT_S, Kvd, Tap, seed, wait_until  # noqa: E402

LAZY = ('--memory', '16MiB', '--persist', 'lazy', '--lazy-interval', '3600s')
SUPERVISED = ('--supervise',) + LAZY
POINTS = ('start_locked', 'start_looked', 'adoption_applied', 'adoption_redone', 'region_kept',
          'adoption_begun')
NOT_FIRST = ('start_looked', 'adoption_applied', 'adoption_redone')  # only with a region
KEYS = 300


def children(pid):
    try:
        with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return []


def state(pid):
    """As /proc tells it: T for halted; None for gone."""
    try:
        with open(f'/proc/{pid}/stat', encoding='ascii', errors='replace') as file:
            return file.read().rpartition(')')[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def waits(pid, number):
    """Does the signal wait in that process?"""
    with open(f'/proc/{pid}/status', encoding='ascii', errors='replace') as file:
        for line in file:
            if line.startswith('ShdPnd:'):
                return int(line.split()[1], 16) & 1 << (number - 1) != 0
    return False


def halted_child(parent, but=None):
    """The child of `parent` that stands at its point; not `but`, which may not be reaped yet."""
    found = []

    def look():
        found[:] = [pid for pid in children(parent) if pid != but and state(pid) == 'T']
        return found
    wait_until(look, 'a child at its point')
    return found[0]


def write(kvd, stamp):
    with kvd.connect() as connection:
        commands = [('SET', f'key:{i}', f'{stamp}:{i}') for i in range(KEYS)]
        commands += [('SET', 'large', 'l' * 2000000), ('DEL', 'key:7')]
        assert connection.pipeline(commands)[-1] == 1


def acknowledged(stamp):
    found = {b'key:%d' % i: b'%s:%d' % (stamp.encode(), i) for i in range(KEYS) if i != 7}
    found[b'large'] = b'l' * 2000000
    return found


def whole(tap, kvd, stamp, name):
    """Another kvd, which is given nothing, has it all."""
    with Kvd(*LAZY, directory=kvd.dir) as other:
        with other.connect() as connection:
            wanted = acknowledged(stamp)
            got = connection.command('MGET', *wanted)
            lost = [key for key, value in zip(wanted, got) if value != wanted[key]]
            tap.equal(lost, [], f'E, F: {name}: nothing acknowledged is lost')
            tap.equal(connection.command('EXISTS', 'key:7'), 0, f'{name}: nor any removal')
        tap.equal(other.stop(), 0, f'{name}: and the folder is free')


def at_point(tap, point, number):
    """Under --supervise: killed, and told to stop while the next child stands at `point`."""
    name = f'{number.name} at {point}'
    with Kvd(*SUPERVISED, start=False, env={'KVD_HALT_AT': point + ':1'}) as kvd:
        kvd.spawn()
        if point not in NOT_FIRST:
            os.kill(halted_child(kvd.pid), signal.SIGCONT)
        kvd.wait_ready()
        write(kvd, name)
        child, = children(kvd.pid)
        os.kill(child, signal.SIGKILL)
        child = halted_child(kvd.pid, child)
        kvd.process.send_signal(number)
        wait_until(lambda: waits(child, number), 'the signal to be passed on')
        os.kill(child, signal.SIGCONT)
        if number == signal.SIGHUP:
            kvd.wait_ready()
            kvd.process.send_signal(signal.SIGTERM)
        tap.equal(kvd.wait(), 0, f'{name}: kvd and its supervisor end in order')
        tap.equal(state(child), None, f'{name}: nobody is left')
        whole(tap, kvd, name, name)


def killed_there(tap, point):
    """The child that was told dies as well: another one does what is left."""
    name = f'killed at {point} when told'
    with Kvd(*SUPERVISED, start=False, env={'KVD_HALT_AT': point + ':1'}) as kvd:
        kvd.spawn()
        kvd.wait_ready()
        write(kvd, name)
        last, = children(kvd.pid)
        os.kill(last, signal.SIGKILL)
        for count in range(4):
            last = halted_child(kvd.pid, last)
            if count == 0:
                kvd.process.send_signal(signal.SIGTERM)
            wait_until(lambda: waits(last, signal.SIGTERM), 'the signal to be passed on')
            os.kill(last, signal.SIGKILL if count < 3 else signal.SIGCONT)
        tap.equal(kvd.wait(), 0, f'{name}: the last child ends in order')
        whole(tap, kvd, name, name)


def while_down(tap, number):
    """The supervisor pauses. Should it be over before the signal comes, a child is told."""
    name = f'{number.name} while kvd is down'
    with Kvd(*SUPERVISED) as kvd:
        write(kvd, name)
        for _ in range(30):  # on a machine that is slow enough it never pauses for long
            if 'starts again in 320 ms' in kvd.log():
                break
            kvd.wait_ready()
            for child in children(kvd.pid):
                os.kill(child, signal.SIGKILL)
                wait_until(lambda pid=child: pid not in children(kvd.pid), 'its end to be seen')
        kvd.process.send_signal(number)
        tap.equal(kvd.wait(), 0, f'{name}: kvd and its supervisor end in order')
        whole(tap, kvd, name, name)


def never(tap):
    """A kvd that cannot start any more is no reason to wait for ever."""
    with Kvd(*SUPERVISED, start=False) as kvd:
        kvd.env['KVD_CRASH_AT'] = 'adoption_redone:1'
        kvd.start()
        write(kvd, 'never')
        child, = children(kvd.pid)
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: 'starts again in 40 ms' in kvd.log(), 'some pauses')
        kvd.process.send_signal(signal.SIGTERM)
        tap.equal(kvd.wait(), 137, 'a kvd that dies at each start: its supervisor ends')
        tap.ok('what only memory had is lost' in kvd.log(), 'and says what that means')


def without_supervisor(tap, point, number):
    """A service manager keeps the region, and asks kvd itself."""
    name = f'{number.name} at {point}, region kept by another'
    with KeptKvd(*LAZY) as kvd:
        write(kvd, name)
        kvd.kill()
        kvd.env['KVD_HALT_AT'] = point + ':1'
        kvd.spawn()
        wait_until(lambda: state(kvd.pid) == 'T', 'its point')
        kvd.process.send_signal(number)
        kvd.process.send_signal(signal.SIGCONT)
        if number == signal.SIGHUP:
            kvd.wait_ready()
            kvd.process.terminate()
        tap.equal(kvd.wait(), 0, f'{name}: kvd ends in order')
        whole(tap, kvd, name, name)


def beside(tap):
    """Started again at once: the next kvd waits for one that is still stopping."""
    name = 'a kvd beside one that stops'
    for kept in (True, False):
        with KeptKvd(*LAZY, env={'KVD_HALT_AT': 'commit_before:1'}) as kvd:
            write(kvd, name)
            old = kvd.process
            old.terminate()
            wait_until(lambda: state(old.pid) == 'T', 'its last commit')
            kvd.process, kvd.env = None, {}
            if not kept:
                kvd.drop_kept()
            impatient(tap, kvd)
            kvd.spawn()
            wait_until(lambda: f'waiting for the kvd that is stopping here (pid {old.pid})' in
                       kvd.log(), 'the next one to wait')
            os.kill(old.pid, signal.SIGCONT)
            kvd.wait_ready()
            tap.equal(old.wait(TIMEOUT_S), 0, f'{name}: the one stops in order')
            with kvd.connect() as connection:
                tap.equal(connection.command('DBSIZE'), KEYS,
                          f'E, F: {name}: then the other has it all')
            tap.equal(kvd.stop(), 0, f'{name}: and stops in order')
            whole(tap, kvd, name, name)


def impatient(tap, kvd):
    """One that has nothing to lose, and is asked to stop while it waits."""
    with Kvd(*LAZY, start=False, directory=kvd.dir) as third:
        third.spawn()
        wait_until(lambda: 'waiting for the kvd' in third.log(), 'the third to wait')
        third.process.terminate()
        tap.equal(third.wait(), 75, 'who is asked to stop waits no longer')


def main():
    tap = Tap()
    rng = seed()
    for point in POINTS:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            at_point(tap, point, number)
        without_supervisor(tap, point, rng.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP)))
    for point in NOT_FIRST:
        killed_there(tap, point)
    while_down(tap, signal.SIGTERM)
    while_down(tap, signal.SIGINT)
    never(tap)
    beside(tap)
    tap.done()


main()
