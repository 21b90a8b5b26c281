# SPDX-License-Identifier: MIT
#
# What the conversations of python3-redis begin with: the library, or the reason to skip, the
# protocols that this version of it speaks, and clients of one server after the other.
from kvdtest import Tap

try:
    import redis
except ImportError:
    Tap.skip_all('python3-redis is not installed')

PROTOCOLS = (2, 3) if int(redis.__version__.split('.')[0]) >= 5 else (2,)


class Connect:
    """Makes clients of one server."""

    def __init__(self, path, protocol):
        self.path = path
        self.protocol = {'protocol': protocol} if protocol != 2 else {}

    def __call__(self, **options):
        return redis.Redis(unix_socket_path=self.path, **self.protocol, **options)
