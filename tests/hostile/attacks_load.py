# SPDX-License-Identifier: MIT
#
# Attacks by what commands cost: writes, memory, processor time, and keys that collide.
import os
import select
import subprocess

from attacker import Connection, ReplyError, attack

VALUE = b'v' * 1000


def pump(a, connections, request, replies):
    """Keeps `request`, of so many replies, on its way on all connections while the attack lasts.
    Returns how many replies were errors."""
    poll = select.poll()
    state = {}
    for connection in connections:
        connection.sock.setblocking(False)
        state[connection.sock.fileno()] = [connection, memoryview(request), 0]
        poll.register(connection.sock, select.POLLIN | select.POLLOUT)
    errors = 0
    while a.going() and state:
        for fd, events in poll.poll(100):
            entry = state[fd]
            try:
                if events & select.POLLOUT:
                    entry[1] = entry[1][entry[0].sock.send(entry[1]):]
                    if not entry[1]:
                        poll.modify(fd, select.POLLIN)
                if events & select.POLLIN:
                    data = entry[0].sock.recv(1 << 18)
                    if not data:
                        raise ConnectionResetError
                    errors += data.count(b'-OOM') + data.count(b'-ERR') + data.count(b'-QUOTA')
                    entry[2] += data.count(b'\r\n')
            except BlockingIOError:
                continue
            except OSError:
                poll.unregister(fd)
                del state[fd]
                continue
            if not entry[1] and entry[2] >= replies:
                a.tried += replies
                entry[1:] = [memoryview(request), 0]
                poll.modify(fd, select.POLLIN | select.POLLOUT)
    if not state:
        a.say('all its connections were closed')
    return errors


@attack('write flood')
def write_flood(a):
    """The same few keys, as fast as kvd takes them."""
    request = b''.join(Connection.encode('SET', f'attacker:w{i}', VALUE) for i in range(100))
    errors = pump(a, [a.connect() for _ in range(16)], request, 100)
    a.say(f'{a.tried} writes, {errors} refused')


@attack('fill the memory', counters=('refused_stored',), needs='--quota-stored-bytes')
def fill_memory(a):
    """New keys until kvd takes no more of them from this user."""
    connection = a.connect()
    for block in range(400):
        replies = connection.pipeline([('SET', f'attacker:fill{block * 100 + i}', VALUE)
                                       for i in range(100)])
        a.tried += len(replies)
        refusals = [str(reply) for reply in replies if isinstance(reply, ReplyError)]
        if refusals:
            a.say(f'after {a.tried} keys: {refusals[0]}')
            break
    else:
        a.fail(f'{a.tried} keys of {len(VALUE)} bytes, and no end')
    a.hold('all that a user may store')
    for block in range(400):
        connection.pipeline([('DEL', f'attacker:fill{block * 100 + i}') for i in range(100)])


@attack('write flood')
def large_values(a):
    """Large values over each other: runs of pages, written in slices."""
    connection = a.connect()
    value = b'L' * (900 << 10)
    while a.going(200):
        for key in 'abc':
            connection.command('SET', 'attacker:large' + key, value)
            connection.command('APPEND', 'attacker:large' + key, 'x')
            a.tried += 2
    connection.command('DEL', *('attacker:large' + key for key in 'abc'))
    a.say(f'{a.tried} large values')


def queue(a, connection, request, most):
    """Sends until `most` bytes or until kvd closes it; True in the second case."""
    connection.sock.settimeout(5)
    sent = 0
    try:
        while sent < most:
            connection.send(request)
            sent += len(request)
            a.tried += 1
    except OSError:
        return True
    return False


@attack('fill the memory', counters=('dropped_buffers',))
def transactions(a):
    """Transactions that are queued and never run, on as many connections as it takes."""
    request = Connection.encode('SET', 'attacker:queued', b'q' * 60000) * 8
    for _ in range(6):
        connection = a.connect()
        connection.command('MULTI')
        queue(a, connection, request, 24 << 20)
    # A command that has no room is refused and its transaction kept; a request that has begun has
    # to have room, however little those leave.
    last = a.connect()
    begun = b'*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000000\r\n' + b'q' * 10000
    queue(a, last, begun, len(begun))
    queue(a, last, b'q' * 10000, 900000)
    a.say('6 transactions of up to 24 MiB: the largest are closed')
    a.hold('transactions')


@attack('fill the memory')
def many_arguments(a):
    """Requests of nearly a million tiny arguments, unfinished."""
    closed = 0
    for _ in range(6):
        connection = a.connect()
        connection.send(b'*1048576\r\n$6\r\nEXISTS\r\n')
        closed += queue(a, connection, b'$1\r\na\r\n' * 10000, 6 << 20)
    a.say(f'6 requests of {a.tried * 10000 // 6} arguments: {closed} connections closed')
    a.hold('long requests')


@attack('write flood')
def long_requests(a):
    """Requests with as many arguments as there may be, all at once."""
    connections = [a.connect() for _ in range(3)]
    for connection in connections:
        connection.append('EXISTS', *('a' for _ in range((1 << 20) - 1)))
        a.tried += 1
    a.say(f'EXISTS of 1048575 keys, at once: {[connection.reply() for connection in connections]}')


@attack('fill the memory')
def tracking(a):
    """CLIENT TRACKING of more keys than the table has, and prefixes without number."""
    connection = a.connect()
    connection.command('HELLO', 3)
    connection.command('CLIENT', 'TRACKING', 'ON')
    for block in range(30):
        connection.command('EXISTS', *(f'attacker:tracked{block}.{i}' for i in range(1000)))
        a.tried += 1000
    other = a.connect()
    for block in range(20):
        words = [word for i in range(500) for word in ('PREFIX', f'attacker{block:03d}.{i:05d}:')]
        reply = other.command('CLIENT', 'TRACKING', 'ON', 'BCAST', *words)
        a.tried += 500
        if isinstance(reply, ReplyError):
            a.say(f'prefixes: {reply}')
            break
    a.hold('a full tracking table')


@attack('fill the memory')
def subscriptions(a):
    """Channels with long names, and patterns, until it is told to stop."""
    for verb, most in (('SUBSCRIBE', 40000), ('PSUBSCRIBE', 4000)):
        connection = a.connect()
        count = 0
        said = None
        while said is None and count < most:
            names = [f'{count + i}' + 'n' * 400 for i in range(200)]
            connection.append(verb, *names)
            for _ in names:
                reply = connection.reply()
                if isinstance(reply, ReplyError):
                    said = str(reply)
                    break
            count += len(names)
            a.tried += len(names)
        a.say(f'{verb} of {count} names: {said}')
        if verb == 'PSUBSCRIBE' and said is None:
            a.fail(f'{count} patterns')
    a.hold('subscriptions')


@attack('fill the memory')
def leave_with_subscriptions(a):
    """Comes as the only one of its user, subscribes to much, and goes: kvd tidies up behind it."""
    for count in (257, 320, 384, 512, 1000, 4096):
        connection = a.connect()
        connection.append('SUBSCRIBE', *(f'attacker:{i}' for i in range(count)))
        for _ in range(count):
            connection.reply()
        a.drop(connection)
        a.tried += count
        a.hold(f'nothing, {count} subscriptions are being forgotten')


@attack('fill the memory')
def watched_keys(a):
    connection = a.connect()
    for block in range(10):
        reply = connection.command('WATCH', *(f'attacker:watched{block}.{i}' for i in range(500)))
        a.tried += 500
    a.answered('WATCH of 5000 keys', reply, 'watch')


@attack('write flood')
def heavy_commands(a):
    """What takes longest for the fewest bytes, from many connections."""
    setup = a.connect()
    setup.command('SET', 'attacker:heavy', b'a' * 16000)
    setup.command('SET', 'attacker:heavy2', b'b' * 16000)
    setup.command('SETBIT', 'attacker:bits', 4000000, 1)
    requests = (
        ('KEYS', '*a*a*a*a*a*b'), ('LCS', 'attacker:heavy', 'attacker:heavy2'),
        ('BITCOUNT', 'attacker:bits'), ('BITPOS', 'attacker:bits', '0', '-1'),
        ('EXISTS', *('attacker:none' for _ in range(5000))), ('CONFIG', 'GET', '*'),
        ('COMMAND', 'COUNT'), ('PUBLISH', 'a' * 200, 'm'), ('RANDOMKEY',), ('DBSIZE',),
        ('SCAN', '0', 'COUNT', '10000'))
    poll = select.poll()
    by_fd = {}
    for number in range(24):
        connection = a.connect()
        connection.sock.setblocking(False)
        by_fd[connection.sock.fileno()] = (connection, requests[number % len(requests)])
        connection.append(*requests[number % len(requests)])
        poll.register(connection.sock, select.POLLIN)
    while a.going():
        for fd, _ in poll.poll(50):
            connection, request = by_fd[fd]
            try:
                data = connection.sock.recv(1 << 18)
                if data.endswith(b'\r\n'):
                    connection.append(*request)
                    a.tried += 1
            except BlockingIOError:
                pass
    a.say(f'{a.tried} commands of the dear kind')


@attack('colliding keys')
def colliding_keys(a):
    """Keys of one bucket, found with the region's own hash key, as every reader could."""
    attachment = a.attach()
    found = subprocess.run([a.target['collide'], str(attachment.region), '6000'],
                           pass_fds=[attachment.region], capture_output=True, check=True)
    keys = found.stdout.split()
    connection = a.connect()
    replies = []
    for start in range(0, len(keys), 500):
        replies += connection.pipeline([('SET', key, 'v') for key in keys[start:start + 500]])
        a.tried += len(replies[start:])
    refused = [str(reply) for reply in replies if isinstance(reply, ReplyError)]
    a.say(f'{len(keys)} keys of one bucket, {len(refused)} refused: {refused[:1]}')
    a.hold('keys that collide')
    for start in range(0, len(keys), 500):
        connection.command('DEL', *keys[start:start + 500])
    os.close(attachment.gen)
