# SPDX-License-Identifier: MIT
#
# Attacks on what is mapped: the region, the attacker's own reader page, the epochs that it
# announces there, and kvd's process.
import ctypes
import fcntl
import json
import mmap
import os
import resource
import signal
import threading
import time

from attacker import FOREIGN, PAGE, Attachment, ReplyError, attack, call, libc

PTRACE_ATTACH = 16
F_ADD_SEALS, SEALS = 1033, (1, 2, 4, 8, 16)  # seal, shrink, grow, write, future write
FALLOC_KEEP, FALLOC_PUNCH = 1, 2
MADV_REMOVE = 9
FUTEX_WAIT, FUTEX_WAKE, FUTEX_CMP_REQUEUE = 0, 1, 4
SLOTS = 31
BIG = b'x' * (256 << 10)
STRAYS = 8 << 20


def protect(fd):
    """Maps for reading, then asks for more."""
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(PAGE), mmap.PROT_READ, mmap.MAP_SHARED, fd,
                   ctypes.c_size_t(0))
    try:
        return call('mprotect', ctypes.c_void_p(at), ctypes.c_size_t(PAGE),
                    mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(PAGE))


def remove(fd):
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(PAGE), mmap.PROT_READ, mmap.MAP_SHARED, fd,
                   ctypes.c_size_t(0))
    try:
        return call('madvise', ctypes.c_void_p(at), ctypes.c_size_t(PAGE), MADV_REMOVE)
    finally:
        libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(PAGE))


def punch(fd):
    return call('fallocate', fd, FALLOC_KEEP | FALLOC_PUNCH, ctypes.c_long(0), ctypes.c_long(PAGE))


def try_to_write(a, name, fd):
    """Every way to a writable file, or to its bytes, from a descriptor for reading."""
    for flags, what in ((os.O_RDWR, 'O_RDWR'), (os.O_WRONLY, 'O_WRONLY'),
                        (os.O_RDONLY | os.O_TRUNC, 'O_TRUNC')):
        a.refused(f'{name}: open /proc/self/fd with {what}', os.open, f'/proc/self/fd/{fd}', flags)
    a.refused(f'{name}: map it writable', mmap.mmap, fd, PAGE, mmap.MAP_SHARED,
              mmap.PROT_READ | mmap.PROT_WRITE)
    a.refused(f'{name}: mprotect a map of it', protect, fd)
    a.refused(f'{name}: MADV_REMOVE in a map of it', remove, fd)
    a.refused(f'{name}: pwrite', os.pwrite, fd, b'x', 0)
    a.refused(f'{name}: truncate', os.ftruncate, fd, 0)
    a.refused(f'{name}: enlarge', os.ftruncate, fd, 1 << 44)
    a.refused(f'{name}: punch a hole', punch, fd)
    a.refused(f'{name}: sendfile into it', os.sendfile, fd, fd, 0, 1)
    a.refused(f'{name}: copy_file_range into it', os.copy_file_range, fd, fd, 1, 0, PAGE)
    a.refused(f'{name}: chmod', os.fchmod, fd, 0o777)
    a.refused(f'{name}: chown', os.fchown, fd, os.getuid(), os.getgid())
    a.refused(f'{name}: a lease on it', fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_RDLCK,
              errors=(*FOREIGN, 11))
    a.refused(f'{name}: a write lock', fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for seal in SEALS:
        a.refused(f'{name}: seal {seal}', fcntl.fcntl, fd, F_ADD_SEALS, seal)
    a.refused(f'{name}: execute it', os.execve, f'/proc/self/fd/{fd}', ['x'], {})


@attack('write, re-seal or execute the region')
def write_region(a):
    attachment = a.attach()
    try_to_write(a, 'region', attachment.region)
    try_to_write(a, 'kvd.gen', attachment.gen)
    folder = a.target['dir']
    for name in ('kvd.gen', 'kvd.lock', 'store/data.mdb', ''):
        path = os.path.join(folder, name)
        a.refused(f'open DIR/{name}', os.open, path, os.O_RDWR, errors=(*FOREIGN, 21))
        a.refused(f'rename DIR/{name}', os.rename, path, path + '.mine')
    a.refused('remove the socket', os.unlink, a.target['socket'])
    attachment.close()


def strays(connection):
    return json.loads(connection.command('KVD.STATS'))['counters']['memory_strays_bytes']


@attack('fill the region by reading its holes', counters=('memory_strays_bytes',))
def fill_holes(a):
    """The kernel puts an empty page where a map is read and the file has none. kvd counts pages."""
    attachment = a.attach()
    client = a.connect()
    size = os.fstat(attachment.region).st_size
    at, filled, before = 0, 0, strays(client)
    with mmap.mmap(attachment.region, size, mmap.MAP_SHARED, mmap.PROT_READ) as region:
        while filled < STRAYS and at < size:
            at = os.lseek(attachment.region, at, os.SEEK_HOLE)
            for page in range(at, min(at + (1 << 20), size), PAGE):
                filled += PAGE * (region[page] == 0)
                a.tried += 1
            at += 3 << 20
    a.say(f'{filled} bytes filled')
    for _ in range(1200):  # kvd looks each ten seconds
        if strays(client) >= before + filled // 2:
            break
        time.sleep(0.05)
    attachment.close()


@attack('shrink or grow its page')
def truncate_page(a):
    attachment = a.attach()
    page = attachment.page_fd
    for what, function, *arguments in (
            ('truncate it', os.ftruncate, page, 0), ('enlarge it', os.ftruncate, page, 2 * PAGE),
            ('chmod it', os.fchmod, page, 0o777),
            *((f'seal {seal}', fcntl.fcntl, page, F_ADD_SEALS, seal) for seal in SEALS)):
        a.refused('its page: ' + what, function, *arguments)
    while a.going(400):
        a.harmless('its page: punch it out under kvd', punch, page)
        attachment.slot(a.tried % SLOTS, a.random.randrange(1 << 40))
        attachment.connection.command('KVD.READERS')
    a.hold('a page with a hole')


@attack('garbage in its page, slots that flip')
def garbage_pages(a):
    """All of a page at random, header included, again and again while kvd looks at it."""
    attachment = a.attach()
    writer = a.connect()
    over = threading.Event()

    def flip():
        generator = a.random
        while not over.is_set():
            attachment.page[:] = generator.randbytes(PAGE)
            a.tried += 1

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for epoch in (0, 1, (1 << 48) - 1, 1 << 47):
            for index in range(SLOTS):
                attachment.slot(index, epoch, nesting=a.random.randrange(1 << 16))
        while a.going():
            writer.command('SET', 'attacker:garbage', BIG)
            a.connections[0].command('KVD.READERS')
            a.tried += 1
    finally:
        over.set()
        thread.join()
    a.say(f'its page: {a.tried} times garbage, kvd looking at it')
    a.hold('garbage')


@attack('garbage in its page, slots that flip')
def flipping_epochs(a):
    """Announces sections of the epochs about now and takes them back, in all slots, for ever."""
    attachment = a.attach()
    now = int(dict(zip(*[iter(a.connect().command('KVD.READERS'))] * 2))[b'epoch'])
    while a.going():
        for index in range(SLOTS):
            attachment.slot(index, now + a.random.randrange(-2, 1000), a.random.randrange(2))
        if a.tried % 64 == 0:
            a.connections[1].command('SET', 'attacker:flip', BIG)
        a.tried += 1
    a.hold('flipping epochs')


@attack('pin the oldest epoch', counters=('readers_revoked',))
def pin_epoch(a):
    """Holds what was the oldest epoch, in more slots as soon as one was taken back."""
    attachment = a.attach()
    writer = a.connect()
    refused = 0
    for index in range(3 * SLOTS):
        now = int(dict(zip(*[iter(writer.command('KVD.READERS'))] * 2))[b'epoch'])
        attachment.slot(index % SLOTS, now)
        attachment.slot((index + 1) % SLOTS, 1)
        refused += isinstance(writer.command('SET', 'attacker:pinned', BIG * 3), ReplyError)
        a.tried += 1
    a.say(f'{a.tried} sections that never end, {refused} own writes refused')
    a.hold('sections that never end')


def hold_section(a, ready):
    """For a child: a section of the present epoch in an attachment of its own."""
    connection = a.connect()
    attachment = Attachment(connection)
    now = int(dict(zip(*[iter(connection.command('KVD.READERS'))] * 2))[b'epoch'])
    for index in range(SLOTS):
        attachment.slot(index, now)
    if ready:
        ready(connection)


@attack('pin the oldest epoch')
def stopped_readers(a):
    """Processes that are stopped in the middle of a section, of a request and of a reply."""
    halves = (lambda c: c.send(b'*3\r\n$3\r\nSET\r\n$5\r\nhalf'),
              lambda c: c.send(b'*2\r\n$3\r\nGET\r\n$13\r\nattacker:big1\r\n' * 64), None)
    for ready in halves * 3:
        os.kill(a.child(hold_section, a, ready), signal.SIGSTOP)
        a.tried += 1
    writer = a.connect()
    for _ in range(8):
        writer.command('SET', 'attacker:stopped', BIG)
    a.say(f'{a.tried} processes stopped inside a section')
    a.hold('stopped processes')


@attack('pin the oldest epoch')
def detached_readers(a):
    """The connection goes, the process and what it has announced stay."""
    pages = []
    for _ in range(8):
        attachment = a.attach()
        for index in range(SLOTS):
            attachment.slot(index, 1 + index)
        pages.append(attachment)
        a.drop(attachment.connection)
        a.tried += 1
    writer = a.connect()
    for _ in range(8):
        writer.command('SET', 'attacker:detached', BIG)
    a.say(f'{a.tried} attachments left with their sections open')
    a.hold('detached readers')


@attack('slots and pages without end', needs='--reader-pages-max')
def page_flood(a):
    """Pages up to what is allowed one connection, and all connections of a user."""
    most = refusals = 0
    while a.tried < 640 and refusals < 3:
        try:
            attachment = a.attach()
        except (PermissionError, ConnectionError, EOFError) as error:
            a.say(f'after {a.tried} pages KVD.ATTACH: {error}')
            refusals += 1
            continue
        a.tried += 1
        attachment.close()
        for _ in range(40):
            try:
                Attachment(attachment.connection, 'PAGE').close()
                a.tried += 1
            except PermissionError as error:
                most = max(most, a.tried)
                a.say(f'after {a.tried} pages KVD.ATTACH PAGE: {error}')
                break
        else:
            a.fail('a connection got 40 pages')
    if refusals == 0:
        a.fail(f'{a.tried} pages, and no end of them')
    a.hold('all the pages that a user gets')


@attack('slots and pages without end')
def dying_readers(a):
    """Processes that attach, open sections and are killed, one after the other."""
    while a.going(200):
        os.kill(a.child(hold_section, a, None), signal.SIGKILL)
        os.waitpid(-1, 0)
        a.tried += 1
    a.say(f'{a.tried} processes killed inside a section')


@attack('wake or steal futex waiters')
def futexes(a):
    """Wakes and requeues whoever waits on any of the words of the header, through its own map."""
    attachment = a.attach()
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(PAGE), mmap.PROT_READ, mmap.MAP_SHARED, attachment.region,
                   ctypes.c_size_t(0))
    for offset in range(0, PAGE, 4):
        for operation in (FUTEX_WAKE, FUTEX_CMP_REQUEUE):
            libc.syscall(202, ctypes.c_void_p(at + offset), operation, 1 << 30,
                         ctypes.c_void_p(1 << 30), ctypes.c_void_p(at), 0)
            a.tried += 1
    a.say(f'{a.tried} futexes of the region woken and requeued')


def pidfd(pid):
    return os.pidfd_open(pid)


def ptrace(request, pid):
    return call('ptrace', request, pid, None, None)


def steal(pid):
    """kvd's descriptors by pidfd_getfd."""
    return call('syscall', 438, os.pidfd_open(pid), 5, 0)


def read_memory(pid):
    buffer = ctypes.create_string_buffer(64)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 64)
    return call('process_vm_readv', pid, vector, 1, vector, 1, 0)


@attack("the same user's ptrace")
def kvds_process(a):
    """kvd's process, from another uid: nothing of it may be reached."""
    pid = a.target['pid']
    a.refused('SIGKILL to kvd', os.kill, pid, signal.SIGKILL)
    a.refused('SIGSTOP to kvd', os.kill, pid, signal.SIGSTOP)
    a.refused('SIGKILL by pidfd', lambda: signal.pidfd_send_signal(pidfd(pid), signal.SIGKILL))
    a.refused('ptrace', ptrace, PTRACE_ATTACH, pid)
    a.refused('pidfd_getfd', steal, pid)
    a.refused('process_vm_readv', read_memory, pid)
    for name in ('mem', 'maps', 'environ', 'fd/5', 'map_files'):
        a.refused(f'/proc/PID/{name}', lambda path: os.listdir(path) if path.endswith('map_files')
                  else os.open(path, os.O_RDONLY), f'/proc/{pid}/{name}')
    for name in ('oom_score_adj', 'coredump_filter', 'clear_refs'):
        a.refused(f'/proc/PID/{name}', os.open, f'/proc/{pid}/{name}', os.O_WRONLY)
    a.refused('prlimit', resource.prlimit, pid, resource.RLIMIT_NOFILE, (8, 8))
    a.refused('priority', os.setpriority, os.PRIO_PROCESS, pid, 19)
    a.refused('affinity', os.sched_setaffinity, pid, {0})
    a.refused('scheduler', os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0))
