# SPDX-License-Identifier: MIT
#
# Attacks by asking: for what only an administrator may, in somebody else's name.
import os
import socket
import struct

from attacker import Attachment, Connection, attack

REFUSED = ('NOPERM', 'unknown command')


@attack('stop or change kvd, or close others', counters=('refused_rights',),
        needs='--allow-admin')
def administer(a):
    """Everything that changes kvd or other users' connections."""
    connection = a.connect()
    other = a.target['polite_id']
    for words in (
            ('SHUTDOWN',), ('SHUTDOWN', 'NOSAVE'), ('CONFIG', 'SET', 'maxmemory', '1mb'),
            ('CONFIG', 'SET', 'client-output-max', '0'), ('CONFIG', 'SET', 'allow-admin', '*'),
            ('CONFIG', 'REWRITE'), ('CONFIG', 'RESETSTAT'), ('CLIENT', 'PAUSE', '10000'),
            ('CLIENT', 'UNPAUSE'), ('DEBUG', 'SEGFAULT'), ('DEBUG', 'SLEEP', '10'),
            ('KVD.READERS', 'KICK', 'ID', other), ('KVD.READERS', 'KICK', 'PID',
                                                  a.target['polite_pid']),
            ('SLOWLOG', 'RESET'), ('LATENCY', 'RESET')):
        a.answered(' '.join(str(word) for word in words), connection.command(*words), *REFUSED)


@attack('stop or change kvd, or close others',
        needs='--allow-admin')
def kill_others(a):
    """CLIENT KILL in all its forms: only one's own connections are there to be killed."""
    own = a.connect()
    for words in (('ID', a.target['polite_id']), ('TYPE', 'normal'), ('SKIPME', 'yes'),
                  ('USER', 'default'), ('TYPE', 'pubsub')):
        reply = own.command('CLIENT', 'KILL', *words)
        a.tried += 1
        a.say(f'CLIENT KILL {words}: {reply}')
    own.command('CLIENT', 'UNBLOCK', a.target['polite_id'])
    a.tried += 1


@attack('call itself somebody else',
        needs='--allow-admin')
def other_names(a):
    """Says that it is somebody else."""
    connection = a.connect()
    for words in (('AUTH', 'root', 'x'), ('AUTH', 'default', ''),
                  ('HELLO', '3', 'AUTH', 'root', 'x'), ('CLIENT', 'SETNAME', 'polite'),
                  ('CLIENT', 'SETINFO', 'LIB-NAME', 'kvd')):
        connection.command(*words)
        a.tried += 1
    listed = connection.command('CLIENT', 'INFO')
    if f'uid={os.getuid()}'.encode() not in listed and b'uid=' in listed:
        a.fail(f'CLIENT INFO: {listed!r}')
    reply = connection.command('CONFIG', 'SET', 'timeout', '1')
    a.answered('CONFIG SET as root, it says', reply, *REFUSED)


@attack('call itself somebody else')
def false_credentials(a):
    """Credentials of root with its bytes: the kernel refuses them, and kvd looks at none."""
    for uid in (0, a.target['polite_uid'], os.getuid()):
        connection = a.connect()
        credentials = struct.pack('iII', os.getpid(), uid, os.getgid())
        try:
            connection.sock.sendmsg([connection.encode('PING')], [
                (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])
            if uid != os.getuid():
                a.fail(f'the kernel took uid {uid}')
        except OSError as error:
            a.say(f'SCM_CREDENTIALS of uid {uid}: {error.strerror}')
        a.tried += 1


@attack('call itself somebody else')
def inherited_connection(a):
    """Children attach by their parent's connection: the parent is meant, the page dies with it."""
    connection = a.connect()
    for _ in range(4):
        a.child(lambda: connection.append('KVD.ATTACH'))
        a.tried += 1
    try:
        Attachment(connection)
    except (PermissionError, ValueError, IndexError):
        pass  # who fetches which reply is up to them
    a.hold('a connection of several processes')


@attack('call itself somebody else')
def other_socket(a):
    """A socket of its own in the place of kvd's."""
    mine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    a.refused('bind beside it', mine.bind, a.target['socket'] + '.mine')
    a.refused('bind in its place', mine.bind, a.target['socket'], errors=(13, 98))
    a.refused('rename it', os.rename, a.target['socket'], '/tmp/kvd.sock.mine')
    a.refused('chmod it', os.chmod, a.target['socket'], 0o777)
    mine.close()


@attack('stop or change kvd, or close others', counters=('refused_rights', 'refused_attach_right'),
        fresh=('--allow-write', 'user:64002', '--allow-attach', 'user:64002'),
        needs='--allow-admin')
def no_rights(a):
    """A user who may only read, by the socket."""
    connection = a.connect()
    for words in (('SET', 'polite:stable:0', 'x'), ('FLUSHALL',), ('DEL', 'polite:stable:0'),
                  ('PUBLISH', 'c', 'm'), ('EXPIRE', 'polite:stable:0', '1'), ('MSET', 'a', 'b'),
                  ('GETDEL', 'polite:stable:0'), ('RENAME', 'polite:stable:0', 'x')):
        a.answered(' '.join(words), connection.command(*words), *REFUSED)
    connection.command('MULTI')
    a.answered('SET within MULTI', connection.command('SET', 'polite:stable:0', 'x'), *REFUSED)
    a.answered('EXEC', connection.command('EXEC'), 'EXECABORT', *REFUSED)
    a.refused('KVD.ATTACH', Attachment, a.connect())


@attack('fill the disk with log lines', counters=('refused_rights', 'dropped_frames'),
        needs='--allow-admin')
def refusals_without_end(a):
    """The same refusals, each of which is worth a line, a thousand times."""
    connection = a.connect()
    for _ in range(40):
        connection.pipeline([('CONFIG', 'SET', 'timeout', '1'), ('CLIENT', 'PAUSE', '1')] * 25)
        a.tried += 50
    for _ in range(300):
        with Connection(a.target['socket'], 10) as other:
            other.send(b'*1\r\n$-5\r\n')
        a.tried += 1
    a.say(f'{a.tried} refusals')
