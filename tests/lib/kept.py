# SPDX-License-Identifier: MIT
#
# A kvd whose descriptors are kept, as systemd's store of descriptors does: they come by
# NOTIFY_SOCKET and go back to the next life by LISTEN_FDS, so that kvd can be killed and its region
# cannot.
import array
import os
import socket
import subprocess
import threading

from kvdtest import KVD_PROGRAM, TIMEOUT_S, Kvd, _die_with_parent

FIRST = 3  # SD_LISTEN_FDS_START


class KeptKvd(Kvd):
    """As Kvd; .kept has the descriptors by name, .ready and .stopping are set by READY=1 and
    STOPPING=1."""

    def __init__(self, *args, start=True, **others):
        super().__init__(*args, start=False, **others)
        self.kept = {}
        self.ready = threading.Event()
        self.stopping = threading.Event()
        self.drained = threading.Event()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(os.path.join(self.root, 'notify'))
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        if start:
            self.start()

    def _listen(self):
        while True:
            try:
                data, control, _, _ = self.notify.recvmsg(4096, socket.CMSG_SPACE(16 * 4))
            except OSError:
                return
            if not data:
                return  # shut down
            fds = array.array('i')
            for level, kind, payload in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
            fields = dict(line.split('=', 1) for line in data.decode().splitlines() if '=' in line)
            if 'DRAINED' in fields:
                self.drained.set()
            name = fields.get('FDNAME', 'stored')
            if 'FDSTOREREMOVE' in fields:
                for fd in self.kept.pop(name, []):
                    os.close(fd)
            for fd in fds:
                held = self.kept.setdefault(name, [])
                if any(os.path.sameopenfile(fd, other) for other in held):
                    os.close(fd)
                else:
                    held.append(fd)
            if fields.get('READY') == '1':
                self.ready.set()
            if fields.get('STOPPING') == '1':
                self.stopping.set()

    def _drain(self):
        """All that the dead kvd had given is kept, however busy the machine is."""
        self.drained.clear()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b'DRAINED=1', os.path.join(self.root, 'notify'))
        self.drained.wait(TIMEOUT_S)

    def kill(self):
        if self.process:
            super().kill()
            self._drain()

    def wait(self):
        status = super().wait()
        self._drain()
        return status

    def spawn(self, *args):
        assert self.process is None, 'kvd is running already'
        if args:
            self.args = [str(a) for a in args]
        self.ready.clear()
        self.stopping.clear()
        names = [name for name, fds in self.kept.items() for _ in fds]
        held = [fd for fds in self.kept.values() for fd in fds]
        # Out of the way of the numbers that they get in the child.
        copies = [os.dup(fd) for fd in held]
        while copies and min(copies) < FIRST + len(copies):
            copies = [os.dup(fd) for fd in copies]

        def arrange():
            _die_with_parent()
            for i, fd in enumerate(copies):
                os.dup2(fd, FIRST + i)

        env = {**os.environ, **self.env, 'NOTIFY_SOCKET': os.path.join(self.root, 'notify')}
        command = ['/bin/sh', '-c', 'LISTEN_PID=$$ exec "$@"', 'kept']
        command += os.environ.get('KVD_WRAPPER', '').split()
        command += [KVD_PROGRAM, '--dir', self.dir] + self.args
        if copies:
            env.update(LISTEN_FDS=str(len(copies)), LISTEN_FDNAMES=':'.join(names), LISTEN_PID='')
        with open(self.log_path, 'ab') as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                pass_fds=range(FIRST, FIRST + len(copies)), preexec_fn=arrange)
        for fd in copies:
            os.close(fd)

    def drop_kept(self):
        """The region dies with the kvd that was killed."""
        for fds in self.kept.values():
            for fd in fds:
                os.close(fd)
        self.kept.clear()

    def cleanup(self):
        if os.getpid() != self.owner:
            return
        super().cleanup()
        if self.notify.fileno() >= 0:  # this may be the second time
            # Closed under the listener, its number could be the next one's, and the listener take
            # what is sent there.
            self.notify.shutdown(socket.SHUT_RDWR)
            self.listener.join()
            self.notify.close()
