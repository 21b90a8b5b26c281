// SPDX-License-Identifier: MIT
//
// A keyspace from a region that outlived its kvd. The plan (shm/adopt.h) has looked at everything;
// here its counts become this life's, what was in the log but not yet in the table is applied as
// any write is, and what waited for its commit waits again.
#include <stdlib.h>
#include <string.h>

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
		keyspace_await_tombstone(keyspace, tombstone->seq, tombstone->offset, 0);
	}
}

// Large values that are superseded and not durable are needed until everything is. Those that
// redo() named have been followed up as any write's.
static void await_runs(struct keyspace *keyspace, const struct kvs_adopt *plan)
{
	for (size_t i = 0; i < plan->runs_count; i++) {
		if (plan->runs[i].references == 0) {
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

static int by_offset(const void *offset, const void *run)
{
	uint64_t a = *(const uint64_t *)offset;
	uint64_t b = ((const struct kvs_adopt_run *)run)->offset;
	return (a > b) - (a < b);
}

// The run of a large value that is about to be published is held until then.
static void hold_run(struct keyspace *keyspace, struct kvs_adopt *plan, uint64_t offset)
{
	struct kvs_adopt_run *run =
		bsearch(&offset, plan->runs, plan->runs_count, sizeof(*run), by_offset);
	if (run != NULL) {
		run->references++;
	}
	kvs_large_hold(&keyspace->large, offset);
}

struct older {
	struct keyspace *keyspace;
	uint64_t seq;
};

static void remove_older(void *context, uint64_t entry)
{
	const struct older *older = context;
	struct keyspace *keyspace = older->keyspace;
	struct kvs_hit hit;
	if (kvs_table_load(&keyspace->region->map, entry, &hit) != KVS_FIND_HIT ||
	    hit.view.seq >= older->seq) {
		return;
	}
	uint64_t hash = keyspace_hash(keyspace, hit.view.key, hit.view.key_bytes);
	uint64_t *slot = kvs_table_slot_of(&keyspace->table, hash, kvs_entry_offset(entry));
	if (slot != NULL) {
		uint64_t run = keyspace_version_gone(keyspace, &hit);
		kvs_table_remove(&keyspace->table, hash, slot);
		if (run != 0) {
			kvs_limbo_push(&keyspace->pending, older->seq, KEYSPACE_PENDING_RUN, run,
				       0);
		}
	}
}

// A FLUSHALL may have switched sides already, and what followed it been seen: only what is older
// goes.
static void redo_flush(struct keyspace *keyspace, uint64_t seq)
{
	struct older older = { .keyspace = keyspace, .seq = seq };
	uint64_t cursor = 0;
	keyspace_note_removal(keyspace, seq);
	kvs_store_release(&keyspace_marks(keyspace)->flush_seq, seq); // as publish_flush()
	keyspace->flush_seq = seq;
	do {
		cursor = kvs_table_scan(&keyspace->region->map, cursor, remove_older, &older);
	} while (cursor != 0);
}

// A record of the tail: appended, whole, and not wholly published.
struct tail_record {
	uint64_t hash;
	uint64_t seq;
	uint64_t offset; // from the start of the region
};

struct tail {
	struct tail_record *records; // by hash, newest first
	size_t count, capacity;
	uint64_t flush_seq; // of the newest FLUSHALL in it, 0 = none
};

static bool parse_at(const struct keyspace *keyspace, uint64_t offset, struct kvs_record_view *view)
{
	const struct kvs_region *region = keyspace->region;
	uint64_t start = offset - region->map.ranges[KVS_RANGE_LOG].offset;
	uint64_t limit = region->segment_bytes - (start & (region->segment_bytes - 1));
	return kvs_record_parse(region->base + offset, limit, view) == 0;
}

static int by_hash_newest(const void *a, const void *b)
{
	const struct tail_record *record_a = a;
	const struct tail_record *record_b = b;
	if (record_a->hash != record_b->hash) {
		return record_a->hash > record_b->hash ? 1 : -1;
	}
	return (record_a->seq < record_b->seq) - (record_a->seq > record_b->seq);
}

static int collect_tail(struct keyspace *keyspace, const struct kvs_adopt *plan, struct tail *tail)
{
	const struct kvs_log *log = &keyspace->log;
	struct kvs_log_position at = plan->unapplied;
	struct kvs_record_view view;
	while (kvs_log_follow(log, &at, kvs_log_published(log), &view)) {
		if ((view.flags & KVS_RECORD_FLUSH) != 0) {
			tail->flush_seq = view.seq;
			continue;
		}
		if (!kvs_adopt_grow(&tail->records, tail->count, &tail->capacity,
				    sizeof(*tail->records))) {
			return -1;
		}
		tail->records[tail->count++] = (struct tail_record){
			.hash = keyspace_hash(keyspace, view.key, view.key_bytes),
			.seq = view.seq,
			.offset = (uint64_t)((const unsigned char *)view.record -
					     keyspace->region->base),
		};
	}
	if (tail->count > 0) {
		qsort(tail->records, tail->count, sizeof(*tail->records), by_hash_newest);
	}
	return 0;
}

// Has a later record of the tail, or of the table, taken its place? Whoever looked may have seen
// that one: this one must not come back, not even for a moment.
static bool is_superseded(struct keyspace *keyspace, const struct tail *tail, size_t index,
			  const struct kvs_record_view *view)
{
	const struct tail_record *record = &tail->records[index];
	if (record->seq < tail->flush_seq) {
		return true;
	}
	while (index > 0 && tail->records[index - 1].hash == record->hash) {
		struct kvs_record_view newer;
		index--;
		if (parse_at(keyspace, tail->records[index].offset, &newer) &&
		    newer.key_bytes == view->key_bytes &&
		    memcmp(newer.key, view->key, view->key_bytes) == 0) {
			return true;
		}
	}
	struct kvs_hit hit;
	return keyspace_find(keyspace, record->hash, view->key, view->key_bytes, &hit) ==
		       KVS_FIND_HIT &&
	       hit.view.seq >= view->seq;
}

// Applies a record of the tail as its writer would have.
static int redo(struct keyspace *keyspace, struct kvs_adopt *plan, const struct tail_record *record,
		const struct kvs_record_view *view)
{
	struct keyspace_op op = {
		.kind = KEYSPACE_OP_SET,
		.writer = kvs_record_writer(view->record),
		.key = view->key,
		.key_bytes = view->key_bytes,
		.hash = record->hash,
		.value_bytes = view->value_bytes,
		.expiry_ms = view->expiry_ms,
		.record_bytes = view->record_bytes,
		.seq = view->seq,
		.offset = record->offset,
	};
	if ((view->flags & KVS_RECORD_TOMBSTONE) != 0) {
		op.kind = KEYSPACE_OP_DELETE;
	} else if (kvs_table_secure(&keyspace->table, 1) != 0) {
		return -1;
	} else if ((view->flags & KVS_RECORD_LARGE) != 0) {
		op.run_offset = kvs_record_run(view).offset;
		hold_run(keyspace, plan, op.run_offset);
	}
	keyspace_op_publish(keyspace, &op);
	return 0;
}

// ---- places that mean nothing ----

struct beyond {
	const struct keyspace *keyspace;
	uint64_t next_block; // of the store
};

static void forget_beyond(const struct beyond *beyond, const struct kvs_record_view *view)
{
	if (kvs_place_block(kvs_load_relaxed(&view->record->place)) >= beyond->next_block) {
		// Relaxed: this thread's, which alone reads it (partner: persist_append()).
		kvs_store_relaxed((uint64_t *)(uintptr_t)&view->record->place, 0);
	}
}

static void visit_beyond(void *context, uint64_t entry)
{
	const struct beyond *beyond = context;
	struct kvs_hit hit;
	if (kvs_table_load(&beyond->keyspace->region->map, entry, &hit) == KVS_FIND_HIT &&
	    (hit.kind == KVS_ENTRY_VALUE || hit.kind == KVS_ENTRY_LARGE)) {
		forget_beyond(beyond, &hit.view);
	}
}

// Values that are durable say where they were to stand by a commit that failed. The store will have
// such a block one day, with other records: a value that left memory by then would be lost. Their
// true places are looked for, as those of all that compaction has moved (persist_places.c). What is
// not durable is told its place anew.
static void forget_all_beyond(struct keyspace *keyspace, const struct kvs_adopt *plan)
{
	struct beyond beyond = { keyspace, plan->next_block };
	uint64_t cursor = 0;
	if (plan->values_beyond == 0) {
		return;
	}
	do {
		cursor = kvs_table_scan(&keyspace->region->map, cursor, visit_beyond, &beyond);
	} while (cursor != 0);
}

// What the life before had appended and not wholly published. It was acknowledged to nobody; but
// some of it may have been seen, so each key gets its newest version at once.
static int redo_all(struct keyspace *keyspace, struct kvs_adopt *plan)
{
	const struct beyond beyond = { keyspace, plan->next_block };
	struct tail tail = { 0 };
	int result = collect_tail(keyspace, plan, &tail);
	if (result == 0 && tail.flush_seq > 0) {
		redo_flush(keyspace, tail.flush_seq);
	}
	for (size_t i = 0; i < tail.count && result == 0; i++) {
		struct kvs_record_view view;
		if (!parse_at(keyspace, tail.records[i].offset, &view)) {
			continue;
		}
		forget_beyond(&beyond, &view);
		if (!is_superseded(keyspace, &tail, i, &view)) {
			result = redo(keyspace, plan, &tail.records[i], &view);
		}
	}
	free(tail.records);
	return result;
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
	if (!keyspace_owner_open(keyspace, true) || kvs_adopt_apply(plan, &parts) != 0) {
		keyspace_destroy(keyspace);
		return NULL;
	}
	keyspace_table_label(keyspace);
	SEAM_CRASH(adoption_applied);
	forget_all_beyond(keyspace, plan);
	struct kvs_watermarks *marks = keyspace_marks(keyspace);
	keyspace->adopted = true;
	// What the life before appended it has counted.
	keyspace->cleaner.counted_bytes = kvs_log_appended_bytes(&keyspace->log);
	keyspace->adopted_position = plan->unpersisted;
	keyspace->oldest_head = plan->heads[plan->first_unpersisted_head];
	keyspace->keys = plan->keys;
	keyspace->keys_with_expiry = plan->keys_with_expiry;
	if (keyspace->keys_with_expiry > 0) {
		expire_lose(keyspace);
	}
	keyspace->stubs = plan->stubs;
	keyspace->stubs_value_bytes = plan->stubs_value_bytes;
	keyspace->stubs_astray = plan->stubs_astray;
	keyspace->first_block = plan->first_block;
	keyspace->live_bytes = plan->live_bytes;
	for (uint32_t i = 0; i < KVS_WRITERS_MAX; i++) {
		keyspace->owners[i] =
			(struct keyspace_owned){ plan->owners[i].bytes, plan->owners[i].keys };
	}
	keyspace->flush_seq = kvs_load_relaxed(&marks->flush_seq);
	keyspace->durable_seen =
		plan->durable_seq < plan->last_seq ? plan->durable_seq : plan->last_seq;
	// Release: partner whoever acts on durable_seq.
	kvs_store_release(&marks->durable_seq, keyspace->durable_seen);
	await_tombstones(keyspace, plan);
	const struct kvs_limbo_item *first =
		kvs_limbo_peek(&keyspace->pending, keyspace->durable_seen + 1);
	if (first != NULL) {
		// Durable removals whose entries are still there: they are followed up first, and
		// their records stay where they stand until then.
		keyspace->durable_seen = first->stamp - 1;
	}
	if (redo_all(keyspace, plan) != 0) {
		keyspace_destroy(keyspace);
		return NULL;
	}
	await_runs(keyspace, plan);
	keyspace_publish_applied(keyspace);
	keyspace_counter_set(keyspace, KVS_COUNTER_clients_connected, 0);
	keyspace_counter_set(keyspace, KVS_COUNTER_clients_attached, 0);
	keyspace_adopt_settle(keyspace);
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
