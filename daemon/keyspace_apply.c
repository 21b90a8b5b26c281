// SPDX-License-Identifier: MIT
//
// One write from its description to its publication. The order is the contract: the record is
// complete in the log, then one release store makes it the key's entry, then applied_seq moves;
// what the old version leaves behind (live bytes, a large run, a tombstone's entry) is accounted
// here too.
#include "daemon/keyspace_cold.h"
#include "daemon/keyspace_internal.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace_hold.h"
#include "daemon/keyspace_pages.h"
#include "daemon/log.h"
#include "shm/crc32c.h"

static __attribute__((noinline, cold)) void find_met_damage(struct keyspace *keyspace, int result,
							    const void *key, size_t key_bytes)
{
	struct keyspace_damage *damage = keyspace->damage;
	keyspace_counter_add(keyspace, KVS_COUNTER_damage_met, 1);
	log_error("the table is damaged, the search for '%.*s' ended with %d: kvctl verify tells "
		  "more; restart kvd to rebuild it from the store",
		  (int)key_bytes, (const char *)key, result);
	keyspace->looks |= KEYSPACE_MET_DAMAGE;
	if (damage != NULL && key_bytes <= sizeof(damage->key)) {
		damage->met |= KEYSPACE_MET_DAMAGE;
		damage->key_bytes = (uint32_t)key_bytes;
		memcpy(damage->key, key, key_bytes);
	}
}

enum kvs_find_result keyspace_find(struct keyspace *keyspace, uint64_t hash, const void *key,
				   size_t key_bytes, struct kvs_hit *hit)
{
	enum kvs_find_result result =
		kvs_table_find(&keyspace->region->map, hash, key, key_bytes, hit);
	if (result != KVS_FIND_HIT && result != KVS_FIND_ABSENT) {
		find_met_damage(keyspace, (int)result, key, key_bytes);
		return KVS_FIND_ABSENT;
	}
	return result;
}

bool keyspace_is_large(const struct keyspace *keyspace, size_t value_bytes)
{
	return value_bytes > keyspace->region->segment_bytes / 4;
}

void keyspace_op_measure(struct keyspace *keyspace, struct keyspace_op *op)
{
	uint64_t payload = op->value_bytes;
	if (op->kind != KEYSPACE_OP_SET) {
		payload = 0;
	} else if (op->run_offset != 0 || keyspace_is_large(keyspace, op->value_bytes)) {
		payload = sizeof(struct kvs_run);
	}
	op->record_bytes = (uint32_t)kvs_record_bytes(op->key_bytes, payload, op->expiry_ms != 0);
}

void keyspace_op_copy_value(const struct keyspace_op *op, unsigned char *at)
{
	if (op->pieces_count > 0) {
		kvs_pieces_join(at, op->pieces, op->pieces_count);
	} else if (op->value_bytes > 0) {
		memcpy(at, op->value, op->value_bytes);
	}
}

int keyspace_op_take_run(struct keyspace *keyspace, struct keyspace_op *op)
{
	if (op->kind != KEYSPACE_OP_SET || op->run_offset != 0 ||
	    !keyspace_is_large(keyspace, op->value_bytes)) {
		return KEYSPACE_OK;
	}
	uint64_t offset;
	if (!keyspace_take_run(keyspace, op->value_bytes, &offset)) {
		return mover_asks(keyspace, op->value_bytes);
	}
	unsigned char *at = keyspace->region->base + offset;
	keyspace_op_copy_value(op, at);
	op->run_offset = offset;
	op->run_crc = kvs_crc32c(0, at, op->value_bytes);
	keyspace_counter_add(keyspace, KVS_COUNTER_large_copied_bytes, op->value_bytes);
	return KEYSPACE_OK;
}

void keyspace_op_drop(struct keyspace *keyspace, struct keyspace_op *op)
{
	if (op->run_offset != 0 && kvs_large_drop(&keyspace->large, op->run_offset)) {
		// Either never published, or its last record went meanwhile: readers may still be
		// there.
		keyspace_limbo_run(keyspace, op->run_offset);
	}
	op->run_offset = 0;
}

void keyspace_op_append(struct keyspace *keyspace, struct keyspace_op *op, bool more)
{
	struct kvs_run run = { .offset = op->run_offset, .crc = op->run_crc };
	struct kvs_record_spec spec = {
		.key = op->key,
		.key_bytes = op->key_bytes,
		.payload = op->value,
		.pieces = op->pieces,
		.pieces_count = op->pieces_count,
		.value_bytes = op->value_bytes,
		.payload_bytes = op->value_bytes,
		.seq = keyspace->log.next_seq,
		.time_ms = keyspace->now_ms,
		.expiry_ms = op->expiry_ms,
		.writer = op->writer,
		.flags = (uint16_t)(op->record_flags | (more ? KVS_RECORD_MORE : 0)),
	};
	if (op->kind == KEYSPACE_OP_DELETE) {
		spec.flags |= KVS_RECORD_TOMBSTONE;
	} else if (op->kind == KEYSPACE_OP_FLUSH) {
		spec.flags |= KVS_RECORD_FLUSH;
	} else if (op->run_offset != 0) {
		spec.flags |= KVS_RECORD_LARGE;
		spec.payload = &run;
		spec.payload_bytes = sizeof(run);
		spec.pieces_count = 0;
	}
	op->seq = spec.seq;
	void *at = kvs_log_append(&keyspace->log, op->record_bytes, &op->offset);
	(void)kvs_record_write(at, &spec);
	SEAM_CRASH(record_written);
}

uint64_t keyspace_version_gone(struct keyspace *keyspace, const struct kvs_hit *hit)
{
	kvs_log_live_sub(&keyspace->log, kvs_entry_offset(hit->entry), hit->view.record_bytes);
	uint64_t stored_bytes = keyspace_stored_bytes(keyspace, &hit->view);
	keyspace->live_bytes -= stored_bytes;
	if (hit->kind == KVS_ENTRY_TOMBSTONE) {
		return 0;
	}
	keyspace->keys--;
	keyspace->keys_with_expiry -= hit->view.expiry_ms != 0;
	uint16_t writer = kvs_record_writer(hit->view.record);
	keyspace_owner_sub(keyspace, writer, stored_bytes);
	if ((hit->view.flags & (KVS_RECORD_LARGE | KVS_RECORD_STUB)) == 0) {
		return 0;
	}
	if ((hit->view.flags & KVS_RECORD_STUB) != 0) {
		keyspace->stubs--;
		keyspace->stubs_value_bytes -= hit->view.value_bytes;
		keyspace_stub_leaves(keyspace, &hit->view);
		return 0;
	}
	uint64_t run = kvs_record_run(&hit->view).offset;
	return kvs_large_unref(&keyspace->large, run) ? run : 0;
}

// The version in `hit` gave way to the one with `seq`. The persister may still need its large
// value: that waits until what supersedes it is durable.
static void retire_version(struct keyspace *keyspace, const struct kvs_hit *hit, uint64_t seq)
{
	uint64_t run = keyspace_version_gone(keyspace, hit);
	if (run != 0) {
		kvs_limbo_push(&keyspace->pending, seq, KEYSPACE_PENDING_RUN, run, 0);
	}
}

static uint64_t op_stored_bytes(const struct keyspace_op *op)
{
	return op->record_bytes + (op->run_offset != 0 ? op->value_bytes : UINT64_C(0));
}

static void note_written(struct keyspace *keyspace, uint64_t bytes)
{
	keyspace->written.bytes += bytes;
	keyspace->written.keys++;
}

// The persister reads the large value behind the op's record, whatever the table says by then.
static void await_large(struct keyspace *keyspace, const struct keyspace_op *op)
{
	if (keyspace->persisted || keyspace->follower != NULL) {
		keyspace->unpersisted_large_bytes += op->value_bytes;
		kvs_limbo_push(&keyspace->pending, op->seq, KEYSPACE_PENDING_LARGE, op->value_bytes,
			       0);
	}
}

// The op's version is current from now on. In line: it is a part of every SET.
static inline __attribute__((always_inline)) void account_set(struct keyspace *keyspace,
							      struct keyspace_op *op)
{
	kvs_log_live_add(&keyspace->log, op->offset, op->record_bytes);
	uint64_t bytes = op_stored_bytes(op);
	keyspace->live_bytes += bytes;
	keyspace->keys++;
	keyspace_owner_add(keyspace, op->writer, bytes);
	note_written(keyspace, bytes);
	if (op->expiry_ms != 0) {
		keyspace->keys_with_expiry++;
		expire_add(keyspace, op->offset, op->expiry_ms);
	}
	if (op->run_offset != 0) {
		await_large(keyspace, op);
		op->run_offset = 0;
	}
}

static void publish_set(struct keyspace *keyspace, struct keyspace_op *op,
			const struct kvs_hit *hit, bool found)
{
	uint64_t entry = keyspace_op_entry(op);
	if (keyspace->evict.on) {
		bool had = found && hit->kind != KVS_ENTRY_TOMBSTONE;
		if (had || keyspace->evict.heat.has_ghosts) {
			evict_written(keyspace, op->hash, op->offset,
				      had ? kvs_entry_offset(hit->entry) : 0);
		}
	}
	if (op->run_offset != 0) {
		// The record names it now.
		kvs_large_settle(&keyspace->large, op->run_offset, op->offset);
	}
	if (found) {
		kvs_table_replace(&keyspace->table, op->hash, hit->slot, entry);
		if (__builtin_expect(hit->view.expiry_ms != 0, 0) &&
		    hit->kind != KVS_ENTRY_TOMBSTONE && hit->view.expiry_ms <= keyspace->now_ms) {
			keyspace_note_expired(keyspace, op->key, op->key_bytes);
		}
		retire_version(keyspace, hit, op->seq);
	} else {
		// Cannot fail: kvs_table_secure() vouched for it.
		(void)kvs_table_insert(&keyspace->table, op->hash, entry);
	}
	account_set(keyspace, op);
}

void keyspace_note_removal(struct keyspace *keyspace, uint64_t seq)
{
	uint64_t *mark = &keyspace_marks(keyspace)->last_removal_seq;
	if (seq > kvs_load_relaxed(mark)) {
		kvs_store_release(mark, seq); // partner: a consistent multi-get, after its reads
	}
}

static void publish_delete(struct keyspace *keyspace, const struct keyspace_op *op,
			   const struct kvs_hit *hit, bool found)
{
	if (!found) {
		return;
	}
	// In a batch: what had expired was set before, which nobody will see.
	if (__builtin_expect(hit->view.expiry_ms != 0, 0) && keyspace->batch.open &&
	    hit->kind != KVS_ENTRY_TOMBSTONE && hit->view.expiry_ms <= keyspace->now_ms) {
		keyspace_note_expired(keyspace, op->key, op->key_bytes);
	}
	// Before the entry: a consistent multi-get that sees the removal sees this too.
	keyspace_note_removal(keyspace, op->seq);
	if (!keyspace->persisted) {
		struct kvs_hit old = *hit;
		kvs_table_remove(&keyspace->table, op->hash, hit->slot);
		retire_version(keyspace, &old, op->seq);
		return;
	}
	kvs_table_replace(
		&keyspace->table, op->hash, hit->slot,
		kvs_entry_make(op->hash, KVS_ENTRY_TOMBSTONE, op->record_bytes, op->offset));
	retire_version(keyspace, hit, op->seq);
	kvs_log_live_add(&keyspace->log, op->offset, op->record_bytes);
	keyspace->live_bytes += op->record_bytes;
	keyspace_await_tombstone(keyspace, op->seq, op->offset, op->record_bytes);
}

void keyspace_op_publish(struct keyspace *keyspace, struct keyspace_op *op)
{
	if (__builtin_expect(op->kind == KEYSPACE_OP_FLUSH, 0)) {
		keyspace_publish_flush(keyspace, op, 0);
		return;
	}
	keyspace->changes++;
	keyspace_counter_add(keyspace, KVS_COUNTER_writes_applied, 1);
	if (__builtin_expect(!LIST_EMPTY(&keyspace->guards), 0)) {
		keyspace_guards_see(keyspace, op);
	}
	struct kvs_hit hit;
	bool found =
		keyspace_find(keyspace, op->hash, op->key, op->key_bytes, &hit) == KVS_FIND_HIT;
	if (__builtin_expect(!LIST_EMPTY(&keyspace->moments), 0)) {
		keyspace_moments_see(keyspace, op, found ? &hit : NULL);
	}
	if (op->kind == KEYSPACE_OP_SET) {
		publish_set(keyspace, op, &hit, found);
	} else {
		publish_delete(keyspace, op, &hit, found);
	}
	SEAM_CRASH(entry_published);
}

void keyspace_op_settle(struct keyspace *keyspace, struct keyspace_op *op)
{
	keyspace->changes++;
	keyspace_counter_add(keyspace, KVS_COUNTER_writes_applied, 1);
	keyspace_moments_see(keyspace, op, NULL);
	if (op->run_offset != 0) {
		kvs_large_settle(&keyspace->large, op->run_offset, op->offset);
	}
	account_set(keyspace, op);
}

/// A key whose time had come was written, and then a FLUSHALL of the same batch: its end is told as
/// if the write had been seen.
static void note_voided(struct keyspace *keyspace, const struct keyspace_op *op)
{
	struct kvs_hit hit;
	if (keyspace_find(keyspace, op->hash, op->key, op->key_bytes, &hit) == KVS_FIND_HIT &&
	    hit.kind != KVS_ENTRY_TOMBSTONE && hit.view.expiry_ms != 0 &&
	    hit.view.expiry_ms <= keyspace->now_ms) {
		keyspace_note_expired(keyspace, op->key, op->key_bytes);
	}
}

void keyspace_op_pass_over(struct keyspace *keyspace, struct keyspace_op *op)
{
	keyspace->changes++;
	keyspace_counter_add(keyspace, KVS_COUNTER_writes_applied, 1);
	if (op->voided && op->kind != KEYSPACE_OP_FLUSH && keyspace->keys_with_expiry > 0) {
		note_voided(keyspace, op);
	}
	if (op->kind != KEYSPACE_OP_SET) {
		return;
	}
	note_written(keyspace, op_stored_bytes(op));
	if (op->run_offset == 0) {
		return;
	}
	await_large(keyspace, op);
	if (kvs_large_drop(&keyspace->large, op->run_offset)) {
		kvs_limbo_push(&keyspace->pending, op->seq, KEYSPACE_PENDING_RUN, op->run_offset,
			       0);
	}
	op->run_offset = 0;
}

void keyspace_publish_applied(struct keyspace *keyspace)
{
	// Release: every entry up to it is published (partner: a consistent multi-get, the
	// persister).
	kvs_store_release(&keyspace_marks(keyspace)->applied_seq, keyspace->log.next_seq - 1);
	kvs_log_publish(&keyspace->log);
}

static uint64_t op_large_bytes(const struct keyspace *keyspace, const struct keyspace_op *op)
{
	bool takes_run = op->kind == KEYSPACE_OP_SET && op->run_offset == 0 &&
			 keyspace_is_large(keyspace, op->value_bytes);
	return takes_run ? kvs_large_bytes(keyspace->region, op->value_bytes) : 0;
}

bool keyspace_finds_place(struct keyspace *keyspace, const struct keyspace_op *op)
{
	struct kvs_hit hit;
	// What has an entry gets no other, and no removal needs one.
	return kvs_table_chain_has_room(&keyspace->table, op->hash) ||
	       op->kind != KEYSPACE_OP_SET ||
	       keyspace_find(keyspace, op->hash, op->key, op->key_bytes, &hit) == KVS_FIND_HIT;
}

// Room for the op's record and its value. Only where there is none now does anything move or go for
// it: then what is copied from is kept still.
static int write_op_room(struct keyspace *keyspace, struct keyspace_op *op,
			 struct keyspace_hold *hold)
{
	uint64_t large_bytes = op_large_bytes(keyspace, op);
	if (__builtin_expect(large_bytes == 0, 1)) {
		int room = keyspace_room_now(keyspace, op->record_bytes, op->purpose);
		if (__builtin_expect(room != KEYSPACE_FULL, 1)) {
			return room;
		}
	}
	if (!keyspace_hold_still(keyspace, op, hold)) {
		return KEYSPACE_FULL;
	}
	int room = keyspace_make_room(keyspace, op->record_bytes, op->record_bytes, large_bytes,
				      op->purpose);
	return room == KEYSPACE_OK ? keyspace_op_take_run(keyspace, op) : room;
}

static int write_op_reserve(struct keyspace *keyspace, struct keyspace_op *op,
			    struct keyspace_hold *hold)
{
	if (!keyspace_has_versions(keyspace, 1)) {
		return KEYSPACE_SPENT;
	}
	// What names a run goes to the store with all its bytes: the queue's bound holds for it
	// too.
	if (op->run_offset != 0 && keyspace_queue_is_full(keyspace, op->value_bytes)) {
		return KEYSPACE_WAIT;
	}
	if (op->kind == KEYSPACE_OP_FLUSH && keyspace_flush_ready(keyspace) != KEYSPACE_OK) {
		return KEYSPACE_WAIT;
	}
	// Overflow buckets first: they may take memory that the check behind must not count on.
	if (__builtin_expect(kvs_table_secure(&keyspace->table, 1) != 0, 0)) {
		int secured = keyspace_table_secure(keyspace, 1);
		if (secured != KEYSPACE_OK) {
			return secured;
		}
	}
	if (op->kind != KEYSPACE_OP_FLUSH && !keyspace_finds_place(keyspace, op)) {
		return KEYSPACE_CROWDED;
	}
	return write_op_room(keyspace, op, hold);
}

int keyspace_write_op(struct keyspace *keyspace, struct keyspace_op *op)
{
	struct keyspace_hold hold;
	hold.is_on = false;
	keyspace_op_measure(keyspace, op);
	int result = write_op_reserve(keyspace, op, &hold);
	if (result == KEYSPACE_OK) {
		keyspace_op_append(keyspace, op, false);
		keyspace_op_publish(keyspace, op);
		keyspace_publish_applied(keyspace);
		keyspace_table_steps(keyspace, 2);
	} else {
		keyspace_op_drop(keyspace, op);
	}
	if (__builtin_expect(hold.is_on, 0)) {
		keyspace_hold_over(keyspace, &hold);
	}
	return result;
}
