# SPDX-License-Identifier: MIT
"""A program on a terminal of its own, as a person runs it."""
import os
import pty


def terminal_refused():
    """None, or why no terminal can be made here."""
    try:
        for fd in os.openpty():
            os.close(fd)
    except OSError as error:
        return f'no terminal can be made here: {error}'
    return None


def on_terminal(*command, answer=b''):
    """What it prints and its exit status; `answer` is typed beforehand."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(command[0], [str(word) for word in command])
    if answer:
        os.write(fd, answer)
    output = b''
    try:
        while data := os.read(fd, 65536):
            output += data
    except OSError:
        pass  # it has ended, and nobody has the other side any more
    os.close(fd)
    return output.replace(b'\r\n', b'\n'), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
