# SPDX-License-Identifier: MIT
#
# Who may include whom. The arrows are those of ARCHITECTURE.md: a client cannot contain code that
# writes the table, and every foreign library has one border.
import re

from tree import includes_c

# Foreign headers, by pattern: the paths that may include them (tests and bench may include all).
FOREIGN = (
    (r'lmdb\.h', ('daemon/storage/',)),
    (r'(cjson/)?cJSON\.h', ('tools/',)),
    (r'urcu(/.*|\.h|-.*)', ('daemon/', 'shm/')),
    (r'bsd/.*', ('daemon/',)),
    (r'ini\.h', ('daemon/config.c',)),
    (r'xxhash\.h', ('shm/',)),
    (r'systemd/.*', ('libclient/examples/',)),
)
LIBC = re.compile(
    r'(arpa/inet|assert|ctype|dirent|endian|errno|fcntl|float|ftw|fnmatch|getopt|glob|grp|inttypes|'
    r'libgen|limits|linux/.*|locale|malloc|math|netinet/.*|poll|pthread|pwd|sched|semaphore|setjmp|'
    r'signal|spawn|stdalign|stdarg|stdbool|stddef|stdint|stdio|stdlib|string|strings|sys/.*|'
    r'sysexits|syslog|termios|threads|time|ucontext|uchar|unistd|wait|wchar|[a-z]mmintrin|arm_acle|'
    r'arm_neon|cpuid|sanitizer/.*|valgrind/.*)\.h')


# What kvctl needs of the store's format to verify, back up and restore without a kvd, and of the
# system's limits to say what they mean for one: one reader of each, linked into both.
SHARED_HEADERS = {'daemon/storage/dirlock', 'daemon/storage/restored', 'daemon/storage/seal',
                  'daemon/storage/verify', 'daemon/hugetlb', 'daemon/memory_limit'}

# Contract headers that happen to be used by writers only, as far as sources of shm go.
READ_HEADERS = {'shm/limits', 'shm/layout', 'shm/atomics', 'shm/epoch', 'shm/hash',
                'shm/newer_linux'}


def write_half(tree):
    """Stems of shm's writing half: the sources of the kvs_write library, the headers beside them,
    and headers that nothing but those sources includes."""
    match = re.search(r"static_library\('kvs_write',(.*?)\binclude_directories",
                      tree.files.get('shm/meson.build', ''), re.S)
    sources = re.findall(r"'([a-z_0-9]+)\.c'", match.group(1)) if match else []
    writers = {f'shm/{source}' for source in sources}
    users = {}
    for path, text in tree.select('.c', folders=('shm',)):
        for _, _, name in includes_c(text):
            users.setdefault(name[:-2], set()).add(path[:-2])
    return writers | {stem for stem, by in users.items()
                      if stem.startswith('shm/') and by <= writers
                      and f'{stem}.c' not in tree.files and stem not in READ_HEADERS}


def project_error(path, name, writers):
    """Why `path` may not include the project's header `name`, or None."""
    top = path.split('/')[0]
    layer = name.split('/')[0]
    stem = name[:-2]
    if '/' not in name:
        return f'"{name}": write it from the root, as "folder/{name}"'
    if top == 'shm':
        if layer != 'shm':
            return f'"{name}": shm stands below {layer}'
        if stem in writers and path[:-2] not in writers:
            return f'"{name}": the reading half of shm must not use the writing half'
    elif top == 'libclient':
        if path.startswith('libclient/examples/'):
            public = name == 'libclient/kvclient.h'
            return None if public else f'"{name}": examples use kvclient.h only'
        if layer not in ('libclient', 'shm'):
            return f'"{name}": libclient never uses {layer}'
        if stem in writers:
            return f'"{name}": a client must not contain code that writes the table'
    elif top == 'daemon':
        if layer not in ('daemon', 'shm'):
            return f'"{name}": the daemon never uses {layer}'
    elif top == 'tools':
        if layer == 'libclient' and name != 'libclient/kvclient.h':
            return f'"{name}": tools use the public header libclient/kvclient.h only'
        if layer not in ('tools', 'libclient', 'shm') and stem not in SHARED_HEADERS:
            return f'"{name}": tools never use {layer}'
        if stem in writers:
            return f'"{name}": tools use the contract and the reading half of shm only'
    return None


def foreign_error(path, name):
    if path.split('/')[0] in ('tests', 'bench'):
        return None
    for pattern, borders in FOREIGN:
        if re.fullmatch(pattern, name):
            if any(path.startswith(border) for border in borders):
                return None
            return f'<{name}>: only {", ".join(borders)} may include it'
    if LIBC.fullmatch(name) or (path.startswith('libclient/examples/') and name == 'kvclient.h'):
        return None
    return f'<{name}>: unknown header; name its border in tests/tidy/includes.py'


def include_arrows(tree):
    writers = write_half(tree)
    for path, text in tree.select('.c', '.h'):
        for number, kind, name in includes_c(text):
            if kind == '<':
                error = foreign_error(path, name)
            else:
                error = project_error(path, name, writers)
            if error:
                yield f'{path}:{number}: {error}'
