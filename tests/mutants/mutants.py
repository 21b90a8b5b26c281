# SPDX-License-Identifier: MIT
#
# Known mistakes that kvd could have, each in one place, and the tests that notice. What a change
# here costs in tests that no longer fail is what this list is for.


class Mutant:
    """`changes` are pairs of texts, the first of which stands once in the file at `path`, whatever
    white space there is in it; `sources` are recompiled, if that is a header; `tests` are programs
    with arguments, in the build folder."""

    def __init__(self, name, what, path, changes, tests, *, sources=None, quick=False,
                 environment=None):
        self.name = name
        self.what = what
        self.path = path
        self.changes = changes
        self.tests = tests
        self.sources = sources
        self.quick = quick
        self.environment = environment or {}


MUTANTS = [
    Mutant('no-barrier', 'a scan without its membarrier', 'shm/epoch_scan.c',
           [('return epoch_membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED) == 0;', 'return true;')],
           ['tests/shm/test_epoch_scan'], quick=True),
    Mutant('early-free', 'readers of the epoch before the newest are not waited for',
           'shm/epoch_scan.c', [('if (epoch < bound) {', 'if (epoch + 1 < bound) {')],
           ['tests/shm/test_epoch_scan'], quick=True),
    Mutant('scan-forgets', 'a section that a scan has seen once is taken for over',
           'shm/epoch_scan.c',
           [('(word & KVS_NESTING_MASK) != 0 && epoch > entry->revoked[i];',
             '(word & KVS_NESTING_MASK) != 0 && epoch > entry->revoked[i] && '
             'entry->seen_epoch[i] != epoch;')],
           ['tests/shm/test_epoch_scan'], quick=True),
    Mutant('revoke-untold', 'memory of a revoked reader is reused, and he is not told',
           'shm/epoch_scan.c',
           [('kvs_store_release(&entry->page->slot[i].revoked_upto, upto);', '(void)upto;')],
           ['tests/shm/test_epoch_scan'], quick=True),
    Mutant('leave-believes', 'leaving a section does not look whether it was revoked',
           'shm/epoch.h',
           [('bool good = epoch > kvs_load_relaxed(&slot->revoked_upto) && '
             'epoch >= kvs_load_relaxed(&hot->oldest_valid); '
             'kvs_store_release(&slot->word, word - 1); return good;',
             'bool good = epoch != 0 && hot != NULL; '
             'kvs_store_release(&slot->word, word - 1); return good;')],
           ['tests/shm/test_epoch_scan'], sources=['tests/shm/test_epoch_scan.c']),
    Mutant('split-root-first', 'the root counts a bucket that is not filled yet',
           'shm/table_resize.c',
           [('if (!split_fill(table, from, to, small)) {',
             'table->buckets++; kvs_table_publish_root(table); table->buckets--; '
             'if (!split_fill(table, from, to, small)) {')],
           ['tests/shm/step_growth'], quick=True),
    Mutant('split-no-turn', 'growing after shrinking does not turn the root',
           'shm/table_resize.c', [('table->growing = growing; table->turns++;',
                                   'table->growing = growing;')],
           ['tests/shm/step_reader', 'tests/shm/test_table_resize'], quick=True),
    Mutant('believe-miss', 'a miss counts without a second look at the root',
           'shm/table_find.c', [('now == root || (', 'true || (')],
           ['tests/shm/step_reader', 'tests/shm/step_growth'], quick=True),
    Mutant('bucket-at-once', 'an overflow bucket is reused without a grace period',
           'shm/table_write.c',
           [('kvs_limbo_push(table->limbo, kvs_epoch_stamp(table->epochs), KVS_LIMBO_OVERFLOW,',
             'kvs_limbo_push(table->limbo, 0, KVS_LIMBO_OVERFLOW,')],
           ['tests/shm/test_table_write', 'tests/shm/test_table_resize'], quick=True),
    Mutant('clean-undurable', 'a segment is cleaned before it is durable', 'shm/segments.c',
           [('log->segments[segment->next].first_seq <= durable_seq;', 'durable_seq + 1 > 0;')],
           ['tests/shm/test_segments', 'tests/daemon/test_cleaner'], quick=True),
    Mutant('bounds-later', 'a record is written before the bound that says so', 'shm/log.c',
           [('kvs_store_release(&log->region->directory[log->head.segment].used_bytes, '
             'log->head.offset); return record;', 'return record;')],
           ['tests/shm/test_adopt', 'tests/daemon/step_adoption 1']),
    Mutant('batch-halved', 'what is in the log of a batch that was cut is applied',
           'shm/adopt_log.c', [('if ((view.flags & KVS_RECORD_MORE) == 0) {', 'if (true) {')],
           ['tests/shm/test_adopt', 'tests/daemon/step_adoption 1'], quick=True),
    Mutant('compact-memory', 'compaction trusts a newer version that is only in memory',
           'daemon/persist_compact.c',
           [('candidate->current_seq > seq && candidate->current_seq <= target_seq;',
             'candidate->current_seq > seq;')],
           ['tests/daemon/test_persist_model']),
    Mutant('compact-tombstone', 'a removal of an earlier life is dropped at once',
           'daemon/persist_compact.c',
           [('!(candidate->view.flags & KVS_RECORD_TOMBSTONE) || !earlier_life;', 'true;')],
           ['tests/daemon/test_persist', 'tests/daemon/test_persist_model 400']),
    Mutant('compact-flush', 'what a FLUSHALL removes is dropped before the FLUSHALL is durable',
           'daemon/persist_compact.c', [('return flush_seq <= target_seq;', 'return true;')],
           ['tests/daemon/test_persist', 'tests/daemon/test_persist_model 400']),
    Mutant('ack-before-commit', 'durable is said of what the next commit will hold',
           'daemon/persist.c',
           [('kvs_store_release(&persist->marks->durable_seq, persist->durable_seq);',
             'kvs_store_release(&persist->marks->durable_seq, persist->durable_seq + 1);')],
           ['tests/daemon/test_persist', 'tests/daemon/test_renew',
            'tests/daemon/test_persist_model']),
    Mutant('commit-unsynced', 'commits are not waited for by the device',
           'daemon/storage/store_open.c', [('unsigned flags = MDB_NOTLS |',
                                            'unsigned flags = MDB_NOSYNC | MDB_NOTLS |')],
           ['tests/crash/crash_states']),
    Mutant('crc-unseen', 'the checksum of a block is not looked at', 'daemon/storage/block.c',
           [('if (kvs_crc32c(0, from + CRC_START, header.bytes - CRC_START) != header.crc) {',
             'if (false) {')],
           ['tests/daemon/test_store_damage'], quick=True),
    Mutant('hold-nothing', 'replies are not held until they are durable', 'daemon/session_hold.c',
           [('if (seq > keyspace_durable_seq(session->kvd->keyspace) && '
             'seq > session->command_hold_seq) {', 'if (false) {')],
           ['tests/daemon/test_session_hold'], quick=True),
]
