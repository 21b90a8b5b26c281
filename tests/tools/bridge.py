# SPDX-License-Identifier: MIT
#
# A bridge between a client and kvd's socket that passes bytes but no descriptors, as a container
# proxy or an ssh tunnel would: what is behind it must work through the socket alone.
import contextlib
import socket
import threading


def _copy(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Bridge:
    """Listens at `path` and connects every client to `target` until it is closed."""

    def __init__(self, path, target):
        self.path = path
        self.target = target
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.target)
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=_copy, args=ends, daemon=True).start()

    def close(self):
        # Closing alone would leave the thread in accept().
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
