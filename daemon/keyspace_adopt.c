// SPDX-License-Identifier: MIT
//
// A keyspace from a region that outlived its kvd. The plan (shm/adopt.h) has looked at everything;
// here its counts become this life's, what was in the log but not yet in the table is applied as
// any write is, and what waited for its commit waits again.
#include <stdlib.h>

#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"
#include "daemon/seam.h"
#include "shm/adopt.h"

static int by_seq(const void *a, const void *b)
{
	const struct kvs_adopt_tombstone *tombstone_a = a;
	const struct kvs_adopt_tombstone *tombstone_b = b;
	return (tombstone_a->seq > tombstone_b->seq) - (tombstone_a->seq < tombstone_b->seq);
}

// Entries of removals leave the table when they are durable, as if this life had made them.
static void await_tombstones(struct keyspace *keyspace, struct kvs_adopt *plan)
{
	if (plan->tombstones_count == 0) {
		return;
	}
	qsort(plan->tombstones, plan->tombstones_count, sizeof(*plan->tombstones), by_seq);
	for (size_t i = 0; i < plan->tombstones_count; i++) {
		const struct kvs_adopt_tombstone *tombstone = &plan->tombstones[i];
		kvs_limbo_push(&keyspace->pending, tombstone->seq, KEYSPACE_PENDING_TOMBSTONE,
			       tombstone->offset, tombstone->hash);
	}
}

// Large values that are superseded and not durable are needed until everything is.
static void await_runs(struct keyspace *keyspace, const struct kvs_adopt *plan)
{
	for (size_t i = 0; i < plan->runs_count; i++) {
		if (plan->runs[i].references == 0 && plan->runs[i].seq <= plan->applied_seq) {
			kvs_limbo_push(&keyspace->pending, plan->last_seq, KEYSPACE_PENDING_RUN,
				       plan->runs[i].offset, 0);
		}
	}
	if (plan->unpersisted_large_bytes > 0) {
		keyspace->unpersisted_large_bytes += plan->unpersisted_large_bytes;
		kvs_limbo_push(&keyspace->pending, plan->last_seq, KEYSPACE_PENDING_LARGE,
			       plan->unpersisted_large_bytes, 0);
	}
}

// Applies a record that stands in the log, unless its entry points at it already.
static int redo(struct keyspace *keyspace, const struct kvs_record_view *view, uint64_t offset)
{
	struct keyspace_op op = {
		.kind = KEYSPACE_OP_SET,
		.key = view->key,
		.key_bytes = view->key_bytes,
		.hash = keyspace_hash(keyspace, view->key, view->key_bytes),
		.value_bytes = view->value_bytes,
		.expiry_ms = view->expiry_ms,
		.record_bytes = view->record_bytes,
		.seq = view->seq,
		.offset = offset,
	};
	if ((view->flags & KVS_RECORD_FLUSH) != 0) {
		op.kind = KEYSPACE_OP_FLUSH;
	} else if (kvs_table_slot_of(&keyspace->table, op.hash, offset) != NULL) {
		return 0;
	} else if ((view->flags & KVS_RECORD_TOMBSTONE) != 0) {
		op.kind = KEYSPACE_OP_DELETE;
	} else if (kvs_table_secure(&keyspace->table, 1) != 0) {
		return -1;
	} else if ((view->flags & KVS_RECORD_LARGE) != 0) {
		op.run_offset = kvs_record_run(view).offset;
		kvs_large_hold(&keyspace->large, op.run_offset); // until it is published
	}
	keyspace_op_publish(keyspace, &op);
	return 0;
}

// What the life before had appended, whole, and not wholly published. It was acknowledged to
// nobody; but some of it may have been seen.
static int redo_all(struct keyspace *keyspace, struct kvs_log_position at)
{
	const struct kvs_log *log = &keyspace->log;
	struct kvs_log_position end = kvs_log_published(log);
	struct kvs_record_view view;
	while (kvs_log_follow(log, &at, end, &view)) {
		uint64_t offset =
			(uint64_t)((const unsigned char *)view.record - keyspace->region->base);
		if (redo(keyspace, &view, offset) != 0) {
			return -1;
		}
	}
	return 0;
}

struct keyspace *keyspace_adopt(const struct keyspace_options *options, struct kvs_adopt *plan)
{
	struct keyspace *keyspace = keyspace_new(options);
	if (keyspace == NULL) {
		return NULL;
	}
	struct kvs_adopt_parts parts = {
		.log = &keyspace->log,
		.table = &keyspace->table,
		.large = &keyspace->large,
		.limbo = &keyspace->limbo,
		.epochs = keyspace->epochs,
	};
	if (kvs_adopt_apply(plan, &parts) != 0) {
		keyspace_destroy(keyspace);
		return NULL;
	}
	SEAM_CRASH(adoption_applied);
	struct kvs_watermarks *marks = keyspace_marks(keyspace);
	keyspace->adopted = true;
	keyspace->adopted_position = plan->unpersisted;
	keyspace->oldest_head = plan->heads[plan->first_unpersisted_head];
	keyspace->keys = plan->keys;
	keyspace->keys_with_expiry = plan->keys_with_expiry;
	keyspace->live_bytes = plan->live_bytes;
	keyspace->flush_seq = kvs_load_relaxed(&marks->flush_seq);
	keyspace->durable_seen =
		plan->durable_seq < plan->last_seq ? plan->durable_seq : plan->last_seq;
	// Release: partner whoever acts on durable_seq.
	kvs_store_release(&marks->durable_seq, keyspace->durable_seen);
	await_tombstones(keyspace, plan);
	if (redo_all(keyspace, plan->unapplied) != 0) {
		keyspace_destroy(keyspace);
		return NULL;
	}
	await_runs(keyspace, plan);
	keyspace_publish_applied(keyspace);
	SEAM_CRASH(adoption_redone);
	return keyspace;
}

uint64_t keyspace_unpersisted_position(const struct keyspace *keyspace)
{
	if (keyspace->adopted) {
		return (uint64_t)keyspace->adopted_position.segment << 32 |
		       keyspace->adopted_position.offset;
	}
	return kvs_load_acquire(&keyspace->log.published); // partner: kvs_log_publish()
}
