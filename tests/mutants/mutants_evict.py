# SPDX-License-Identifier: MIT
#
# Mistakes in what goes when memory is full.
from mutant import Mutant

EVICT = [
    Mutant('evict-read', 'what is read is evicted like the rest', 'daemon/keyspace_evict.c',
           [('heat_of(&evict->heat, offset) >= least ||', 'false ||')],
           ['tests/daemon/test_keyspace_evict'], quick=True),
    Mutant('evict-kept', 'prefixes that stay are evicted', 'daemon/keyspace_evict.c',
           [('&& !is_never_evicted(evict, view);', '&& (true || !is_never_evicted(evict, view));')],
           ['tests/daemon/test_keyspace_evict'], quick=True),
    Mutant('evict-unlogged', 'evictions that the store has to learn of are not in the log',
           'daemon/keyspace_evict.c',
           [('return keyspace->persisted || keyspace->follower != NULL ||', 'return')],
           ['tests/daemon/test_keyspace_evict'], quick=True),
    Mutant('sample-flood', 'who reads fast has more of a say', 'daemon/readers_sample.c',
           [('taken = taken < most ? taken : most;', '(void)most;')],
           ['tests/daemon/test_readers_sample'], quick=True),
]
