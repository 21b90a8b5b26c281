// SPDX-License-Identifier: MIT
//
// FLUSHALL. Its record and one root store empty the table, whatever its size; what is left behind
// is accounted here. What the same batch sets behind it is published with it: on the other side
// before the root leads there, or, where the table is emptied in place, into the entry that the key
// has. So nobody finds a key gone that was there before and is there afterwards.
#include "daemon/keyspace_internal.h"

struct behind {
	struct keyspace *keyspace;
	const struct keyspace_op *flush;
	struct keyspace_op *ops; // behind it in its batch
	uint32_t count;
	uint32_t placed; // into entries that stay
};

static bool is_placed_by_flush(const struct keyspace_op *op)
{
	return op->kind == KEYSPACE_OP_SET && !op->superseded && !op->placed;
}

// Into a table, or a side of it, that has no entry of theirs.
static void insert_behind(void *context)
{
	const struct behind *behind = context;
	struct keyspace *keyspace = behind->keyspace;
	for (uint32_t i = 0; i < behind->count; i++) {
		struct keyspace_op *op = &behind->ops[i];
		if (is_placed_by_flush(op)) {
			// Cannot fail: kvs_table_secure() vouched for it.
			(void)kvs_table_insert(&keyspace->table, op->hash, keyspace_op_entry(op));
			op->placed = true;
		}
	}
}

static void replace_behind(struct behind *behind)
{
	struct keyspace *keyspace = behind->keyspace;
	for (uint32_t i = 0; i < behind->count; i++) {
		struct keyspace_op *op = &behind->ops[i];
		struct kvs_hit hit;
		if (is_placed_by_flush(op) && keyspace_find(keyspace, op->hash, op->key,
							    op->key_bytes, &hit) == KVS_FIND_HIT) {
			kvs_table_replace(&keyspace->table, op->hash, hit.slot,
					  keyspace_op_entry(op));
			op->placed = true;
			behind->placed++;
			SEAM_CRASH(entry_published);
		}
	}
}

// Is it an entry that replace_behind() placed? Its record then stands behind that of the FLUSHALL:
// further on in the same segment, or in one that became the head since.
static bool entry_stays(const void *context, uint64_t entry)
{
	const struct behind *behind = context;
	const struct kvs_log *log = &behind->keyspace->log;
	uint64_t offset = kvs_entry_offset(entry);
	uint32_t segment = kvs_log_segment_of(log, offset);
	return segment == kvs_log_segment_of(log, behind->flush->offset)
		       ? offset > behind->flush->offset
		       : log->segments[segment].first_seq > behind->flush->seq;
}

static void empty_table(struct keyspace *keyspace, struct behind *behind)
{
	struct kvs_table *table = &keyspace->table;
	if (kvs_table_switch_side(table, insert_behind, behind)) {
		keyspace->side_taken_ns = keyspace->seam->monotonic_ns();
		return;
	}
	// It is small, or keyspace_flush_ready() allows this.
	replace_behind(behind);
	kvs_table_clear(table, behind->placed > 0 ? entry_stays : NULL, behind);
}

// Nothing that there was is current any more.
static void forget_all(struct keyspace *keyspace, uint64_t seq)
{
	for (uint32_t i = 0; i < keyspace->region->segments_count_max; i++) {
		keyspace->log.segments[i].live_bytes = 0;
	}
	struct kvs_large_run *run = keyspace->large.sentinel.next;
	for (; run != &keyspace->large.sentinel; run = run->next) {
		if (kvs_large_unname(&keyspace->large, run)) {
			kvs_limbo_push(&keyspace->pending, seq, KEYSPACE_PENDING_RUN, run->offset,
				       0);
		}
	}
	keyspace->live_bytes = 0;
	keyspace_owners_flush(keyspace);
	keyspace->keys = 0;
	keyspace->keys_with_expiry = 0;
	keyspace->stubs = 0;
	keyspace->stubs_value_bytes = 0;
	keyspace->stubs_astray = 0;
	expire_forget(keyspace);
}

void keyspace_publish_flush(struct keyspace *keyspace, struct keyspace_op *flush, uint32_t count)
{
	struct kvs_watermarks *marks = keyspace_marks(keyspace);
	struct behind behind = {
		.keyspace = keyspace, .flush = flush, .ops = flush + 1, .count = count
	};
	keyspace->changes++;
	keyspace_counter_add(keyspace, KVS_COUNTER_writes_applied, 1);
	if (!LIST_EMPTY(&keyspace->guards)) {
		keyspace_guards_see(keyspace, flush);
	}
	keyspace_moments_flush(keyspace);
	keyspace_note_removal(keyspace, flush->seq);
	// Before the root: whoever finds a key gone by it can tell which flush did it (the
	// persister).
	kvs_store_release(&marks->flush_seq, flush->seq);
	keyspace->flush_seq = flush->seq;
	empty_table(keyspace, &behind);
	SEAM_CRASH(flush_published);
	forget_all(keyspace, flush->seq);
}
