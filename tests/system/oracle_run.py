# SPDX-License-Identifier: MIT
#
# Runs a sequence against kvd and Redis in step, and holds every byte that any connection got after
# each step against the other's. Redis leads: when it has answered two PINGs on a connection of its
# own, all that a step caused has been sent (one turn of its loop may run it, the next has written
# it), and kvd owes as many frames on the same connections.
import re
import select
import socket
import time

from kvdtest import TIMEOUT_S
from oracle_exceptions import alike, parse

CLOSED = b'<closed>'
CLOSING = (b'QUIT', b'CLIENT', b'RESET')
LARGE = 60000
ENDLESS_S = 0.3
QUIET_TURNS = 50
FLUSHED = b'>2\r\n$10\r\ninvalidate\r\n'


def frame_end(data, at):
    """Where the frame at `at` ends, -1 if that is still to come. Redis puts what EXEC pushes to its
    own connection between the elements of EXEC's array, where it counts for nothing."""
    pending, start = 1, at
    while pending:
        end = data.find(b'\r\n', at)
        if end < 0:
            return -1
        kind, count = data[at:at + 1], 0
        inserted = kind == b'>' and at > start
        if kind in b'$=!*~>%':
            count = int(data[at + 1:end])
        at = end + 2
        if kind in b'$=!' and count >= 0:
            at += count + 2
            if at > len(data):
                return -1
        elif kind in b'*~>%':
            pending += max(count, 0) * (2 if kind == b'%' else 1)
        pending -= 0 if inserted else 1
    return at


class Line:
    """A connection whose replies are kept as the bytes that came."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)
        self.data = b''
        self.closed = self.told = False
        self.id = int(self.ask(b'CLIENT ID\r\n')[1:])
        self.queued = []  # of MULTI, for the exceptions
        self.muted = False  # CLIENT REPLY was said here

    def close(self):
        self.sock.close()

    def send(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # reading tells

    def receive(self, timeout=0):
        """One piece; False if none comes."""
        try:
            if timeout and not select.select([self.sock], [], [], timeout)[0]:
                return False
            data = self.sock.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b''
        self.data += data
        self.closed = not data
        return not self.closed

    def ask(self, data):
        self.send(data)
        return self.wait(1, TIMEOUT_S)[0]

    def frames(self, limit=None):
        out, at = [], 0
        while at < len(self.data) and (limit is None or len(out) < limit):
            end = frame_end(self.data, at)
            if end < 0:
                break
            out += lifted(self.data[at:end])
            at = end
        self.data = self.data[at:]
        if self.closed and not self.told and len(out) != limit:
            out.append(CLOSED + self.data)
            self.data, self.told = b'', True
        return out

    def take(self):
        """All that is here, and the rest of a frame that has begun. One that does not go on is no
        frame, but what SUBSCRIBE in EXEC answers in RESP3: an array with pushes for elements."""
        while not self.closed and self.receive():
            pass
        out = self.frames()
        while self.data and self.receive(ENDLESS_S):
            out += self.frames()
        if self.data:
            out.append(self.data)
            self.data = b''
        return out

    def wait(self, count, timeout, last=b''):
        """So many frames, or fewer if they do not come; the last may be as long as `last` and no
        frame at all."""
        out = self.frames(count)
        deadline = time.monotonic() + timeout
        while len(out) < count and CLOSED not in out[-1:]:
            more = self.receive(max(0, deadline - time.monotonic()))
            out += self.frames(count - len(out))
            if len(out) == count - 1 and self.data[:len(last)] == last != b'':
                out.append(last)
                self.data = self.data[len(last):]
            elif not more:
                break
        return out


class Side:
    """One server with a connection to control it and those of the sequence."""

    def __init__(self, path):
        self.path = path
        self.control = Line(path)
        self.lines = {}

    def open(self, number):
        line = self.lines[number] = Line(self.path)
        return line

    def reset(self):
        for line in self.lines.values():
            line.close()
        self.lines = {}
        for text in (b'CLIENT UNPAUSE\r\n', b'CONFIG SET notify-keyspace-events ""\r\n',
                     b'SLOWLOG RESET\r\n', b'FLUSHALL\r\n'):
            self.control.ask(text)

    def settle(self, turns):
        for _ in range(turns):
            self.control.ask(b'PING\r\n')

    def close(self):
        self.reset()
        self.control.close()


def align(kvd, redis):
    """Connections get the same numbers from here on, so that they can be compared."""
    kvd.reset()
    redis.reset()
    a, b = kvd.open(0), redis.open(0)
    while a.id != b.id:
        behind = kvd if a.id < b.id else redis
        line = behind.open(0)
        a, b = (line, b) if behind is kvd else (a, line)
    kvd.reset()
    redis.reset()


def apart(frame):
    """The pushes inside an array, and the array without them."""
    if frame[:1] not in b'*~%' or b'\r\n>' not in frame:
        return [], frame
    pushes, left = [], frame[:frame.find(b'\r\n') + 2]
    for part in pieces(frame):
        if part[:1] == b'>':
            pushes.append(part)
        else:
            inner, part = apart(part)  # Redis tells of a key that MGET missed in MGET's own array
            pushes, left = pushes + inner, left + part
    return pushes, left


def lifted(frame):
    """What a command pushed to its own connection comes before its array."""
    pushes, left = apart(frame)
    return [*pushes, left]


MESSAGE = re.compile(rb'>[234]\r\n\$\d+\r\n([ps]?message|invalidate)\r\n')
INVALIDATED = re.compile(rb'>2\r\n\$10\r\ninvalidate\r\n\*|'
                         rb'[*>]3\r\n\$7\r\nmessage\r\n\$20\r\n__redis__:invalidate\r\n\*')
PUSHED = re.compile(rb'[*>][34]\r\n\$\d+\r\n(pmessage|[ps]?unsubscribe)\r\n', re.S)


def settled(frames):
    """Without an order that is by chance: of the patterns which one message matches, of the
    channels that are left all at once (the counts stay where they are), of keys that are told as
    changed to one who caches them."""
    # To a redirected connection Redis says null in the protocol of the one that is redirected.
    frames = [FLUSHED + b'_\r\n' if frame == FLUSHED + b'$-1\r\n' else frame for frame in frames]
    told = [frame for frame in frames if INVALIDATED.match(frame)]
    frames = [frame for frame in frames if not INVALIDATED.match(frame)]
    if told:
        keys = sorted({key for frame in told for key in parse(frame)[-1]})
        frames.append(repr([b'invalidate', *keys]).encode())
    out, run, same = [], [], None
    for frame in [*frames, b'']:
        match = PUSHED.match(frame)
        words = parse(frame) if match else None
        kind = words and (words[0], *(words[2:] if words[0] == b'pmessage' else []))
        if run and kind != same:
            words_sorted = sorted(word[1] or b'' for word in run)
            out += [repr([name, *word[:1], *word[2:]]).encode()
                    for name, word in zip(words_sorted, run)]
            run = []
        if match:
            run.append(words)
            same = kind
        else:
            out.append(frame)
    return out[:-1]


class Difference(Exception):
    """What differed; .signature is what it is known by."""

    def __init__(self, step, connection, mine, theirs, why, command=None):
        super().__init__(why)
        self.step, self.connection, self.command = step, connection, command
        self.mine, self.theirs = mine, theirs
        names = command or (step.commands[-1] if step else None)
        self.signature = (names.name() if names else b'', *(
            re.sub(rb'[0-9]+', b'0', data[:24] if data[:1] in b'-+' else data[:1])
            for data in (b''.join(mine), b''.join(theirs))))


class Run:
    """A sequence in progress."""

    def __init__(self, kvd, redis, patience):
        self.kvd, self.redis, self.patience = kvd, redis, patience
        self.forgot = False  # somebody has switched tracking off

    def sequence(self, steps):
        """Raises Difference."""
        align(self.kvd, self.redis)
        for step in steps:
            self.step(step)
        self.kvd.settle(2)
        for number, line in self.kvd.lines.items():
            rest = line.take()
            # With replies off Redis forgets to close after QUIT.
            if rest and rest != [CLOSED] and not self.redis.lines[number].closed:
                raise Difference(steps[-1], number, rest, [], 'kvd says more than Redis')

    def step(self, step):
        number = step.connection
        line = self.redis.lines.get(number)
        if line is None or line.closed:
            for side in (self.kvd, self.redis):
                side.open(number)
        ids = {i: line.id for i, line in self.redis.lines.items()}
        for i in range(4):
            ids.setdefault(i, 999999 + i)
        mine, theirs = self.kvd.lines[number], self.redis.lines[number]
        data = b''.join(command.encode(ids) for command in step.commands)
        self.forgot = self.forgot or any(
            command.starts(b'client', b'tracking', b'off') or command.starts(b'reset')
            for command in step.commands)
        theirs.send(data)
        mine.send(data)
        frames = self.lead(step)
        for i, expected in sorted(frames.items(), key=lambda pair: pair[0] != number):
            if expected:
                got = self.kvd.lines[i].wait(len(expected), self.patience, expected[-1])
                if any(map(INVALIDATED.match, expected)):
                    self.kvd.settle(2)  # kvd's turns are shorter, so it may tell fewer keys a time
                    got += self.kvd.lines[i].take()
                if got != expected:
                    self.differ(step, i, got, expected)
        theirs.muted = theirs.muted or any(command.starts(b'client', b'reply')
                                           for command in step.commands)
        if theirs.muted or len(frames[number]) < len(step.commands):
            self.kvd.settle(QUIET_TURNS)  # nothing tells when the last command is done
        self.remember(step, theirs)

    def lead(self, step):
        """Frames that each of Redis's connections got because of this step."""
        closing = any(command.name() in CLOSING for command in step.commands)
        self.redis.settle(4 if closing else 2)
        frames = {i: line.take() for i, line in self.redis.lines.items()}
        own = frames[step.connection]
        for _ in range(3):
            if len(own) >= len(step.commands) and sum(map(len, own)) < LARGE or CLOSED in own[-1:]:
                break
            self.redis.settle(2)
            for i, line in self.redis.lines.items():
                frames[i] += line.take()
        return frames

    @staticmethod
    def remember(step, line):
        for command in step.commands:
            line.queued = line.queued[-200:] + [command.words]
            if command.name() in (b'EXEC', b'DISCARD', b'RESET'):
                line.queued = []

    def differ(self, step, i, mine, theirs):
        """Replies and messages apart: what a command sends to its own connection comes behind its
        reply, for it is told when nothing can take it back any more; in Redis it comes before. And
        Redis remembers what was read before tracking was switched off, and tells it once more."""
        for message in (False, True):
            a, b = ([frame for frame in frames if bool(MESSAGE.match(frame)) == message and not (
                     self.forgot and INVALIDATED.match(frame))]
                    for frames in (mine, theirs))
            if a != b:
                self.compare(step, i, settled(a), settled(b))

    def compare(self, step, i, mine, theirs):
        if len(mine) != len(theirs):
            raise Difference(step, i, mine, theirs, f'{len(mine)} frames, Redis {len(theirs)}')
        paired = i == step.connection and len(theirs) == len(step.commands)
        queued = list(self.redis.lines[i].queued)
        for n, (a, b) in enumerate(zip(mine, theirs)):
            command = step.commands[n] if paired else None
            words = [command.words] if paired else [c.words for c in step.commands]
            before = queued + [c.words for c in step.commands[:n if paired else None]]
            if a != b and not (alike(words, a, b) or (
                    any(w[:1] and w[0].upper() == b'EXEC' for w in words) and
                    executed_alike(before, a, b))):
                raise Difference(step, i, [a], [b], 'another answer', command)


def pieces(data):
    """Elements of an array as bytes."""
    at, out = data.find(b'\r\n') + 2, []
    while at < len(data):
        end = frame_end(data, at)
        out.append(data[at:end])
        at = end
    return out


def executed_alike(queued, mine, theirs):
    """EXEC: each element may differ as its command may."""
    if mine[:1] != b'*' or mine.split(b'\r\n')[0] != theirs.split(b'\r\n')[0]:
        return False
    return all(a == b or alike(queued, a, b) for a, b in zip(pieces(mine), pieces(theirs)))


def shown(frames):
    text = b' '.join(frames)
    return repr(text if len(text) < 400 else text[:400] + b'...')[1:]


