# SPDX-License-Identifier: MIT
"""A control group that limits memory, for a test, below the group that the test runs in.

A child removes it when the test ends, however it does. Where groups cannot be made (no root, a
container, no controller for memory) the reason comes back, for a skip.
"""
import contextlib
import os
import tempfile
import time

MOUNT = '/sys/fs/cgroup'
TRIES = 500  # a tenth of a second each: what is in the group may be ending


def _own(controller):
    """Path of our group of that controller; of version 2 the controller is ''."""
    with open('/proc/self/cgroup', encoding='ascii') as file:
        for line in file.read().splitlines():
            _, controllers, path = line.split(':', 2)
            if controller in controllers.split(','):
                return path
    return None


def _parents():
    """Where one could be made: (folder, name of the file with the limit)."""
    for mount, controller, limit in ((MOUNT + '/memory', 'memory', 'memory.limit_in_bytes'),
                                     (MOUNT, '', 'memory.max')):
        own = _own(controller)
        if own is not None and os.path.isdir(mount):
            for path in dict.fromkeys((own.rstrip('/'), '')):
                yield mount + path, limit


def _make(limit_bytes):
    """(folder, file with the limit) or (None, why not)."""
    why = 'no control groups are mounted'
    for parent, limit in _parents():
        try:
            folder = tempfile.mkdtemp(prefix='kvd-test-', dir=parent)
        except OSError as error:
            why = f'{parent}: {error.strerror}'
            continue
        path = os.path.join(folder, limit)
        try:
            with open(path, 'r+', encoding='ascii') as file:
                file.write(str(limit_bytes))
            return folder, path
        except OSError as error:
            why = f'{path}: {error.strerror}'
            os.rmdir(folder)
    return None, why


def _guard(folder, end):
    """Removes the group when nobody has the other end of the pipe any more."""
    os.setsid()
    os.read(end, 1)
    for _ in range(TRIES):
        try:
            os.rmdir(folder)
            break
        except FileNotFoundError:
            break
        except OSError:
            time.sleep(0.1)
    os._exit(0)


@contextlib.contextmanager
def memory(limit_bytes):
    """(a command that runs what follows in the group, the file with its limit), or (None, why)."""
    folder, limit = _make(limit_bytes)
    if folder is None:
        yield None, limit
        return
    end, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        _guard(folder, end)
    os.close(end)
    script = tempfile.NamedTemporaryFile('w', prefix='kvd-test-', suffix='.sh')
    script.write(f'echo $$ > {folder}/cgroup.procs && exec "$@"\n')
    script.flush()
    try:
        yield f'/bin/sh {script.name}', limit
    finally:
        script.close()
        os.close(held)
        os.waitpid(child, 0)
