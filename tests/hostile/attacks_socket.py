# SPDX-License-Identifier: MIT
#
# Attacks on the socket below commands: connections, descriptors, frames, and time.
import os
import socket
import time

from attacker import Attachment, Connection, attack

# One request of each kind: every byte of each is a place to stop at.
SAMPLES = (
    Connection.encode('SET', 'attacker:half', 'value', 'PX', '100'),
    Connection.encode('MULTI') + Connection.encode('SET', 'attacker:half', 'v') +
    Connection.encode('EXEC'),
    Connection.encode('HELLO', '3'),
    Connection.encode('KVD.ATTACH'),
    Connection.encode('SUBSCRIBE', 'attacker:channel'),
    b'SET attacker:half "quoted\\x00 word"\r\n',
    b"*0\r\n*-1\r\n\r\n*1\r\n$4\r\nPING\r\n",
)
LENGTHS = (
    b'*99999999999\r\n', b'*1048577\r\n', b'*-99999999999999999999\r\n', b'*+1\r\n', b'*01\r\n',
    b'* 1\r\n', b'*1x\r\n', b'*1\r\n$536870913\r\n', b'*1\r\n$-1\r\n', b'*1\r\n$2147483648\r\n',
    b'*1\r\n$18446744073709551616\r\n', b'*1\r\n$-0\r\n', b'*1\r\n$+3\r\nGET\r\n', b'*1\r\n*1\r\n',
    b'*1\r\n:5\r\n', b'*1\r\n$3\r\nGETxx', b'*' + b'1' * 70000, b'*1\r\n$' + b'1' * 70000,
    b'"unbalanced\r\n', b'y' * 70000, b'GET / HTTP/1.1\r\n', b'POST / HTTP/1.1\r\n',
)


def connect_many(a, most):
    """Connections until kvd refuses one; how many there are, and what it said."""
    for count in range(most):
        try:
            connection = a.connect()
            try:
                connection.append('PING')
            except BrokenPipeError:
                pass  # it is closed, and has been told why
            reply = connection.reply()
        except (ConnectionError, EOFError) as error:
            return count, str(error)
        a.tried += 1
        if reply != 'PONG':
            return count, str(reply)
    return most, None


@attack('connections without end', counters=('rejected_uid_share',))
def connection_flood(a):
    count, said = connect_many(a, 400)
    if not said or 'maxclients-uid-share' not in said:
        a.fail(f'{count} connections, then {said!r}')
    a.say(f'{count} connections, then: {said}')
    a.hold('all the connections that a user gets')
    while a.going():
        refused = a.connect()
        a.closed('one more', refused, 'maxclients-uid-share')
        a.drop(refused)


@attack('connections without end', counters=('rejected_uid_share',))
def forked_flood(a):
    """A small fork bomb, each process with connections and a page of its own."""
    def hold(number):
        for _ in range(40):
            try:
                connection = a.connect()
                if number % 2:
                    Attachment(connection)
                else:
                    connection.command('PING')
            except (OSError, EOFError):
                pass  # as many as there are
    for number in range(8):
        a.child(hold, number)
        a.tried += 40
    a.say('8 processes with 40 connections each')
    a.hold('the connections of 8 processes')


@attack('connections without end')
def churn(a):
    """Comes and goes, with nothing said, with something, with a page; the queue at the door is full
    of those who do."""
    def come_and_go(most):
        for count in range(most):
            try:
                with Connection(a.target['socket'], 10) as connection:
                    if count % 3 == 1:
                        connection.append('PING')
                    elif count % 3 == 2:
                        connection.append('KVD.ATTACH')
            except OSError:
                pass  # the queue is full, or all its places are taken

    for _ in range(3):
        if os.fork() == 0:
            come_and_go(1 << 62)
    a.hold('the door')
    come_and_go(500)
    a.tried += 500
    a.say(f'{a.tried} connections came and went, and those of three processes')


@attack('send descriptors', counters=('dropped_descriptors',))
def pass_descriptors(a):
    """Descriptors with a whole request, half a one, alone, and as many as a message takes."""
    fd = os.memfd_create('attacker')
    for round_ in range(12):
        for count, data in ((1, SAMPLES[0]), (200, SAMPLES[0][:7]), (253, b'\n'), (1, b'*')):
            connection = a.connect()
            try:
                socket.send_fds(connection.sock, [data], [fd] * count)
                a.closed(f'{count} descriptors with {len(data)} bytes', connection)
            except (BrokenPipeError, ConnectionResetError):
                a.tried += 1
            a.drop(connection)
    os.close(fd)


@attack('connections without end')
def pages_in_flight(a):
    """Attaches again and again and never receives the descriptors: they stay in kvd's account."""
    for _ in range(60):
        try:
            connection = a.connect()
            connection.append('KVD.ATTACH')
            for _ in range(31):
                connection.append('KVD.ATTACH', 'PAGE')
                a.tried += 1
        except OSError as error:
            a.say(f'after {a.tried} requests: {error}')
            break
    a.hold('descriptors on their way that nobody fetches')


@attack('bad lengths, half frames')
def half_frames(a):
    """Every request stopped at every byte: closed there, or shut for sending."""
    for sample in SAMPLES:
        for end in range(1, len(sample)):
            for shut in (False, True):
                with Connection(a.target['socket'], 10) as connection:
                    connection.send(sample[:end])
                    if shut:
                        connection.sock.shutdown(socket.SHUT_WR)
                        while connection.sock.recv(65536):
                            pass
                a.tried += 1
    a.say(f'{a.tried} requests broken off, at every byte')


@attack('bad lengths, half frames', counters=('dropped_frames', 'dropped_web'))
def bad_lengths(a):
    for data in LENGTHS:
        connection = a.connect()
        try:
            connection.send(data)
            connection.sock.shutdown(socket.SHUT_WR)
            a.closed(repr(data[:32]), connection)
        except (BrokenPipeError, OSError) as error:
            a.tried += 1
            a.say(f'{data[:32]!r}: {error}')
        a.drop(connection)


@attack('bad lengths, half frames')
def random_frames(a):
    """Requests with bytes changed, and bytes at random."""
    while a.going(2000):
        data = bytearray(b''.join(a.random.choices(SAMPLES, k=3)))
        for _ in range(a.random.randrange(1, 6)):
            data[a.random.randrange(len(data))] = a.random.randrange(256)
        if a.tried % 4 == 0:
            data = a.random.randbytes(a.random.randrange(1, 300))
        with Connection(a.target['socket'], 10) as connection:
            try:
                connection.send(bytes(data))
                connection.sock.shutdown(socket.SHUT_WR)
                while connection.sock.recv(65536):
                    pass
            except OSError:
                pass  # closed before it had read all
        a.tried += 1
    a.say(f'{a.tried} streams of garbage')


@attack('bad lengths, half frames')
def huge_announcements(a):
    """What is announced must cost nothing."""
    for data in (b'*1048576\r\n', b'*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\n',
                 b'*2\r\n$536870912\r\n') * 10:
        connection = a.connect()
        connection.send(data)
        a.tried += 1
    a.say(f'{a.tried} connections announced up to 512 MiB each')
    a.hold('announcements')


@attack('replies that are not read', counters=('clients_dropped_output',))
def unread_replies(a):
    """Asks for large values without reading them, up to what kvd keeps for one connection."""
    writer = a.connect()
    writer.command('SET', 'attacker:big', b'x' * 500000)
    for _ in range(4):
        connection = a.connect()
        connection.sock.setblocking(False)
        request = connection.encode('GET', 'attacker:big') * 200
        sent = 0
        deadline = time.monotonic() + 60
        closed = False
        while not closed and time.monotonic() < deadline:
            try:
                sent += connection.sock.send(request)
            except BlockingIOError:
                time.sleep(0.001)  # kvd reads no further: is it closed?
            except OSError:
                closed = True
        a.tried += 1
        if not closed:
            a.fail('unread replies: the connection goes on')
    a.say(f'{a.tried} connections closed that did not read')


@attack('replies that are not read')
def unread_subscriptions(a):
    """Subscribers that do not read, and messages for them."""
    publisher = a.connect()
    for _ in range(8):
        subscriber = a.connect()
        subscriber.command('SUBSCRIBE', 'attacker:channel')
    told = [publisher.command('PUBLISH', 'attacker:channel', b'm' * 60000) for _ in range(100)]
    a.tried += len(told)
    if told[-1] != 0:
        a.fail(f'{told[-1]} subscribers are still kept after {told} messages')
    a.say(f'{told[0]} subscribers, {told[-1]} after {len(told)} messages that they left unread')


@attack('bad lengths, half frames', counters=('dropped_frame_timeout',))
def half_requests(a):
    """Begins requests and says no more."""
    for end in (1, 5, 12, 25):
        for _ in range(10):
            a.connect().send(SAMPLES[0][:end])
    a.hold('unfinished requests')
    for connection in list(a.connections):
        a.closed('half a request', connection, 'frame-timeout')


@attack('bad lengths, half frames')
def drip(a):
    """A byte now and then, for ever: allowed, and bounded by what one may hold."""
    connections = [a.connect() for _ in range(30)]
    data = Connection.encode('SET', 'attacker:drip', 'x' * 200)
    for at in range(len(data) - 1):
        if not a.going():
            break
        for connection in connections:
            connection.send(data[at:at + 1])
            a.tried += 1
    a.say(f'{a.tried} bytes, each by itself')
    a.hold('requests that drip')
