# SPDX-License-Identifier: MIT
#
# Mistakes about what the table and the index of expiry wait for, and forget.
from mutant import Mutant

TABLE = [
    Mutant('tail-forgotten', 'who takes over a table that shrank keeps what is behind it',
           'shm/adopt.c', [('kvs_table_tail_look(table); }', '}')],
           ['tests/shm/test_table_ahead'], quick=True),
    Mutant('one-wait-for-all', 'who needs memory of the table has waited since anybody has',
           'daemon/keyspace_table.c', [('(ranges >> range & 1u) == 0 ||', '')],
           ['tests/daemon/test_keyspace_table'], quick=True),
    Mutant('flush-at-once', 'FLUSHALL clears in place what a rebuild that was given up left beside',
           'daemon/keyspace_room.c',
           [('if (keyspace->reseed.running) {', 'if (table->reseed.active) {')],
           ['tests/daemon/test_keyspace_table'], quick=True),
    Mutant('rebuild-unnoticed', 'the same when the rebuild has noticed', 'daemon/keyspace_reseed.c',
           [('keyspace->side_taken_ns = now_ns; // by what there was of it', '')],
           ['tests/daemon/test_keyspace_table']),
    Mutant('walk-forgets', 'what a walk finds no room to remove is in no index',
           'daemon/expire_walk.c',
           [('slice->blocked = slice->blocked || !walk_remove(keyspace, key);',
             'slice->blocked = slice->blocked || walk_remove(keyspace, key) > 1;')],
           ['tests/daemon/test_expire'], quick=True),
    Mutant('still-unswept', 'while expiry is off its index grows with every write',
           'daemon/expire.c',
           [('expire->due_ns = still_turn(keyspace, now_ns);', 'expire->due_ns = UINT64_MAX;')],
           ['tests/daemon/test_expire'], quick=True),
]
