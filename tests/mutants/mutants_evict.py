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
    Mutant('evict-open', 'large values whose records stand in an open segment never go',
           'daemon/keyspace_evict_choice.c',
           [('in_place = open != KVS_SEGMENT_NONE;', 'in_place = false && open;')],
           ['tests/daemon/test_keyspace_evict_large'], quick=True),
    Mutant('evict-overshoot', 'what is on its way out is not counted', 'daemon/cleaner_pay.c',
           [('(uint32_t)runs;', '0 * (uint32_t)runs;')],
           ['tests/daemon/test_keyspace_evict_large'], quick=True),
    Mutant('evict-hold', 'what a write copies from is evicted under it', 'daemon/keyspace_hold.c',
           [('if (keyspace->evict.on) {', 'if (false) {')],
           ['tests/daemon/test_keyspace_evict_large'], quick=True),
    Mutant('evict-batch', 'a batch is refused though keys may go when it waits',
           'daemon/keyspace_room.c',
           [('bool later = keyspace->batch.open &&', 'bool later = false &&')],
           ['tests/daemon/test_keyspace_evict_large'], quick=True),
    Mutant('evict-wanted', 'keys go for a segment, however much is wanted',
           'daemon/keyspace_room.c',
           [('keyspace->cleaner.wanted_segments = segments > before ? segments : before;',
             '(void)segments;')],
           ['tests/daemon/test_keyspace_evict_large'], quick=True),
]
