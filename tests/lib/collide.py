# SPDX-License-Identifier: MIT
"""Keys that really collide: XXH3 of a key of 16 bytes can be turned round, and the hash key is in
the region's header, which all may read."""
import array
import os
import socket
import struct

MASK = (1 << 64) - 1
PRIME = 0x165667919e3779f9
PRIME_INVERSE = pow(PRIME, -1, 1 << 64)
SECRET_LOW, SECRET_HIGH = 0x6782737bea4239b9, 0xaf56bc3b0996523a


def region_word(fd, offset):
    return struct.unpack('=Q', os.pread(fd, 8, offset))[0]


def attached_file(connection):
    """The descriptor of the region, as any reader gets it."""
    connection.append('KVD.ATTACH')
    data, control, _, _ = connection.sock.recvmsg(1 << 16, socket.CMSG_SPACE(16 * 4))
    connection.buffer, connection.at = data, 0
    connection.reply()
    fds = array.array('i')
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
    region = None
    for fd in fds:
        if region is None and 'kvd-region' in os.readlink(f'/proc/self/fd/{fd}'):
            region = fd
        else:
            os.close(fd)
    return region


def region_seed(fd):
    """What XXH3 of the side that the root names begins with."""
    side = region_word(fd, 88) >> 34 & 1
    return region_word(fd, 512 + 32 * side)


def colliding(seed, first, count):
    """Keys whose hashes have 24 low and 16 high bits in common: one bucket, one tag."""
    for i in range(first, first + count):
        hashed = 0xabcd << 48 | i << 24 | 0x123457
        word = hashed ^ hashed >> 32
        word = word * PRIME_INVERSE & MASK
        word ^= word >> 37
        # The first 8 bytes are such that XXH3's product is 0: what is left of it is a sum.
        low = (SECRET_LOW + seed) & MASK
        high = (word - 16) & MASK ^ (SECRET_HIGH - seed) & MASK
        yield struct.pack('<QQ', low, high)
