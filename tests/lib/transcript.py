# SPDX-License-Identifier: MIT
#
# Conversations of client libraries, held with kvd and with Redis: the same script notes what it
# got from each, and the two transcripts must be the same.
import traceback

from kvdtest import Connection, Kvd, Tap
from redistest import Redis, find_redis

OVER = ('over', None)


class Transcript:
    """What was noted, in order; call it with what it is and what came."""

    def __init__(self):
        self.entries = []

    def __call__(self, what, value):
        self.entries.append((what, value))

    def error(self, what, function, *args, **named):
        """Notes the exception that the call must raise."""
        try:
            value = ('no error but', function(*args, **named))
        except Exception as error:  # whatever the library makes of an error reply
            value = (type(error).__name__, str(error))
        self(what, value)


def compare(tap, name, mine, theirs):
    """One result for each entry."""
    for number in range(max(len(mine), len(theirs))):
        a = mine[number] if number < len(mine) else ('nothing more from kvd', None)
        b = theirs[number] if number < len(theirs) else ('nothing more from Redis', None)
        tap.equal(a, b, f'{name}: {b[0]}')


class Both:
    """A kvd and a Redis, or a kvd alone with the reason."""

    def __init__(self, *kvd_options):
        self.kvd = Kvd('--persist', 'memory', '--memory', '64MiB', *kvd_options)
        program, self.why = find_redis()
        self.redis = Redis(program) if program else None

    def __enter__(self):
        try:
            if self.redis:
                self.redis.__enter__()
        except BaseException:
            self.kvd.cleanup()
            raise
        return self

    def __exit__(self, *error):
        if self.redis:
            self.redis.stop()
        self.kvd.__exit__(*error)

    def converse(self, tap, name, conversation):
        """Holds conversation(path of a socket) with both; it returns the entries it noted."""
        with self.kvd.connect() as c:
            c.command('FLUSHALL')
        mine = conversation(self.kvd.socket)
        tap.equal(mine[-1], OVER, f'{name}: comes to its end with kvd')
        if self.redis:
            with Connection(self.redis.socket) as c:
                c.command('FLUSHALL')
            theirs = conversation(self.redis.socket)
            tap.equal(theirs[-1], OVER, f'{name}: comes to its end with Redis')
            compare(tap, name, mine[:-1], theirs[:-1])
        else:
            tap.skip(f'{name}: the same with Redis', self.why)


def noted(function):
    """Makes function(say, path) a conversation. An exception is its last entry, or OVER."""
    def conversation(path):
        say = Transcript()
        try:
            function(say, path)
            say.entries.append(OVER)
        except Exception as error:  # an error reply in the library's own words
            where = traceback.extract_tb(error.__traceback__)
            line = where[min(2, len(where) - 1)].lineno
            say.entries.append(('ended', f'{error!r} at line {line}'))
        return say.entries
    return conversation


def main(tap_function):
    tap = Tap()
    with Both() as both:
        tap_function(tap, both)
    tap.done()
