// SPDX-License-Identifier: MIT
//
// The keyspace's public face: reads, and the single writes, each of which becomes one op that is
// either applied at once or, inside a batch, collected.
#include "daemon/keyspace.h"

#include <assert.h>
#include <string.h>

#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"

#define ENDED_BYTES_MAX (32u << 10) // of the ends of keys that a batch has read

void keyspace_listen(struct keyspace *keyspace, keyspace_ended *ended, void *context)
{
	keyspace->ended = ended;
	keyspace->ended_context = context;
}

void keyspace_tell_damage(struct keyspace *keyspace, struct keyspace_damage *damage)
{
	keyspace->damage = damage;
}

static struct keyspace_op make_op(enum keyspace_op_kind kind, enum keyspace_purpose purpose,
				  uint64_t hash, const void *key, size_t key_bytes)
{
	return (struct keyspace_op){
		.kind = kind,
		.purpose = purpose,
		.key = key,
		.key_bytes = (uint32_t)key_bytes,
		.hash = hash,
	};
}

bool keyspace_expire_now(struct keyspace *keyspace, uint64_t hash, const void *key,
			 size_t key_bytes)
{
	struct keyspace_op op =
		make_op(KEYSPACE_OP_DELETE, KEYSPACE_FOR_REMOVAL, hash, key, key_bytes);
	op.record_flags = KVS_RECORD_EXPIRED;
	if (keyspace->batch.open) { // it ends with the batch, which tells of it
		(void)keyspace_batch_add(keyspace, &op, NULL);
		return false;
	}
	if (keyspace_write_op(keyspace, &op) != KEYSPACE_OK) {
		return false;
	}
	SEAM_CRASH(key_ended);
	keyspace_note_expired(keyspace, key, key_bytes);
	return true;
}

static void value_from_op(const struct keyspace *keyspace, const struct keyspace_op *op,
			  struct keyspace_value *value)
{
	value->value = op->value;
	if (op->run_offset != 0) {
		value->value = keyspace->region->base + op->run_offset;
	}
	value->value_bytes = op->value_bytes;
	value->expiry_ms = op->expiry_ms;
	value->time_ms = keyspace->now_ms;
	value->seq = keyspace->log.next_seq + (uint64_t)(op - keyspace->batch.ops);
}

struct found {
	uint64_t hash;
	struct keyspace_value value;
	struct kvs_hit hit; // filled only if it came from the table
	bool from_table;
	uint16_t writer; // index of the user that owns it
};

// May the batch log this, too? It neither waits nor is refused for what it has only read, so there
// is a bound on that, beside its own; the rest ends later.
static bool batch_takes_end(const struct keyspace *keyspace, uint64_t record_bytes)
{
	const struct keyspace_batch *batch = &keyspace->batch;
	uint64_t bytes = batch->ended_bytes + record_bytes;
	return bytes <= ENDED_BYTES_MAX && keyspace_has_versions(keyspace, batch->count + 1) &&
	       !keyspace_queue_is_full(keyspace, batch->bytes + bytes);
}

// Logs the end of a key that somebody has met, unless keys would have to go for it: they may be
// those that the same command has just looked at.
static void met_expired(struct keyspace *keyspace, uint64_t hash, const void *key, size_t key_bytes)
{
	uint64_t bytes = kvs_record_bytes(key_bytes, 0, false);
	bool in_batch = keyspace->batch.open;
	if (in_batch && !batch_takes_end(keyspace, bytes)) {
		return;
	}
	bytes += in_batch ? keyspace->batch.ended_bytes : 0;
	if ((!keyspace->evict.on && !in_batch) ||
	    keyspace_room_now(keyspace, bytes, KEYSPACE_FOR_REMOVAL) == KEYSPACE_OK) {
		(void)keyspace_expire_now(keyspace, hash, key, key_bytes);
	}
}

// Current state of a key, batch included. OK or ABSENT; the hash is filled in either case.
static int lookup(struct keyspace *keyspace, const void *key, size_t key_bytes, struct found *found)
{
	uint64_t hash = keyspace_hash(keyspace, key, key_bytes);
	struct kvs_hit *hit = &found->hit;
	const struct keyspace_op *op = NULL;
	found->hash = hash;
	found->from_table = false;
	if (keyspace->batch.open) {
		op = keyspace_batch_find(keyspace, hash, key, key_bytes);
	}
	if (op != NULL) {
		if (op->kind != KEYSPACE_OP_SET || keyspace_is_expired(keyspace, op->expiry_ms)) {
			return KEYSPACE_ABSENT;
		}
		value_from_op(keyspace, op, &found->value);
		found->writer = op->writer;
		return KEYSPACE_OK;
	}
	if (keyspace_find(keyspace, hash, key, key_bytes, hit) != KVS_FIND_HIT ||
	    hit->kind == KVS_ENTRY_TOMBSTONE) {
		return KEYSPACE_ABSENT;
	}
	if (keyspace_is_expired(keyspace, hit->view.expiry_ms)) {
		met_expired(keyspace, hash, key, key_bytes);
		return KEYSPACE_ABSENT;
	}
	found->from_table = true;
	found->writer = kvs_record_writer(hit->view.record);
	keyspace_value_from_hit(hit, &found->value);
	return KEYSPACE_OK;
}

int keyspace_stat(struct keyspace *keyspace, const void *key, size_t key_bytes,
		  struct keyspace_value *value)
{
	struct found found;
	int result = lookup(keyspace, key, key_bytes, &found);
	if (result == KEYSPACE_OK) {
		*value = found.value;
	}
	return result;
}

// As lookup(), with the value.
static int lookup_value(struct keyspace *keyspace, const void *key, size_t key_bytes,
			struct found *found)
{
	int result = lookup(keyspace, key, key_bytes, found);
	if (__builtin_expect(result == KEYSPACE_OK && found->value.value == NULL, 0)) {
		return keyspace_fetch_value(keyspace, &found->hit.view, &found->value);
	}
	return result;
}

int keyspace_get(struct keyspace *keyspace, const void *key, size_t key_bytes,
		 struct keyspace_value *value)
{
	struct found found;
	int result = lookup_value(keyspace, key, key_bytes, &found);
	if (result == KEYSPACE_OK) {
		*value = found.value;
	}
	return result;
}

static bool replaces_damage(struct keyspace *keyspace, const struct keyspace_op *op)
{
	struct keyspace_damage *damage = keyspace->damage;
	struct kvs_hit hit;
	if (damage == NULL || op->kind == KEYSPACE_OP_FLUSH) {
		return false;
	}
	damage->met &= (uint8_t)~KEYSPACE_MET_DAMAGE;
	(void)keyspace_find(keyspace, op->hash, op->key, op->key_bytes, &hit);
	return (damage->met & KEYSPACE_MET_DAMAGE) != 0;
}

static __attribute__((noinline, cold)) int submit_look(struct keyspace *keyspace,
						       const struct keyspace_op *op)
{
	if ((keyspace->looks & KEYSPACE_MET_COLD) != 0) {
		return KEYSPACE_COLD;
	}
	return replaces_damage(keyspace, op) ? KEYSPACE_DAMAGED : KEYSPACE_OK;
}

static int submit(struct keyspace *keyspace, struct keyspace_op *op, uint64_t *seq)
{
	if (__builtin_expect(keyspace->looks != 0, 0)) {
		int look = submit_look(keyspace, op);
		if (look != KEYSPACE_OK) {
			keyspace_op_drop(keyspace, op);
			return look;
		}
	}
	if (keyspace->batch.open) {
		return keyspace_batch_add(keyspace, op, seq);
	}
	int result = keyspace_write_op(keyspace, op);
	if (result == KEYSPACE_OK && seq != NULL) {
		*seq = op->seq;
	}
	return result;
}

// The same for a new value, which may be large.
static int submit_value(struct keyspace *keyspace, struct keyspace_op *op, uint64_t *seq)
{
	op->writer = keyspace->writer->index;
	if (__builtin_expect(keyspace->writer->quota_bytes != 0, 0) && !keyspace->batch.open) {
		int result = keyspace_owner_admit(keyspace, op);
		if (result != KEYSPACE_OK) {
			return result;
		}
	}
	if (__builtin_expect(keyspace_is_large(keyspace, op->value_bytes), 0) &&
	    keyspace->slice != NULL && (keyspace->looks & KEYSPACE_MET_COLD) == 0 &&
	    !keyspace_intake_takes(keyspace, op) && !keyspace->batch.open) {
		int result = keyspace_stage_op(keyspace, op);
		if (result != KEYSPACE_OK) {
			return result;
		}
	}
	return submit(keyspace, op, seq);
}

int keyspace_set(struct keyspace *keyspace, const void *key, size_t key_bytes, const void *value,
		 size_t value_bytes, uint64_t expiry_ms, uint64_t *seq)
{
	if (value_bytes > keyspace->value_bytes_max) {
		return KEYSPACE_TOO_LARGE;
	}
	struct keyspace_op op = make_op(KEYSPACE_OP_SET, KEYSPACE_FOR_WRITE,
					keyspace_hash(keyspace, key, key_bytes), key, key_bytes);
	op.value = value;
	op.value_bytes = (uint32_t)value_bytes;
	op.expiry_ms = expiry_ms;
	return submit_value(keyspace, &op, seq);
}

int keyspace_set_pieces(struct keyspace *keyspace, const void *key, size_t key_bytes,
			const struct kvs_piece *pieces, uint32_t count, uint64_t expiry_ms,
			uint64_t *seq)
{
	uint64_t bytes = 0;
	assert(count <= KEYSPACE_PIECES_MAX);
	for (uint32_t i = 0; i < count; i++) {
		if (pieces[i].bytes > keyspace->value_bytes_max - bytes) {
			return KEYSPACE_TOO_LARGE;
		}
		bytes += pieces[i].bytes;
	}
	struct keyspace_op op = make_op(KEYSPACE_OP_SET, KEYSPACE_FOR_WRITE,
					keyspace_hash(keyspace, key, key_bytes), key, key_bytes);
	op.pieces = pieces;
	op.pieces_count = count;
	op.value_bytes = (uint32_t)bytes;
	op.expiry_ms = expiry_ms;
	return submit_value(keyspace, &op, seq);
}

int keyspace_delete(struct keyspace *keyspace, const void *key, size_t key_bytes)
{
	struct found found;
	if (lookup(keyspace, key, key_bytes, &found) != KEYSPACE_OK) {
		return KEYSPACE_ABSENT;
	}
	struct keyspace_op op =
		make_op(KEYSPACE_OP_DELETE, KEYSPACE_FOR_REMOVAL, found.hash, key, key_bytes);
	return submit(keyspace, &op, NULL);
}

// The new record names the run that the old one names: no byte of the value moves.
static void share_run(struct keyspace *keyspace, struct keyspace_op *op, uint64_t run_offset,
		      uint32_t run_crc)
{
	op->run_offset = run_offset;
	op->run_crc = run_crc;
	op->value = NULL;
	kvs_large_hold(&keyspace->large, run_offset);
}

// Lets `op` have the value that was found under `key`.
static void take_value(struct keyspace *keyspace, struct keyspace_op *op, const struct found *found,
		       const void *key, size_t key_bytes)
{
	op->value = found->value.value;
	op->value_bytes = (uint32_t)found->value.value_bytes;
	// Whose it is it stays.
	op->writer = found->writer;
	if (found->from_table && (found->hit.view.flags & KVS_RECORD_LARGE) != 0) {
		struct kvs_run run = kvs_record_run(&found->hit.view);
		share_run(keyspace, op, run.offset, run.crc);
	} else if (!found->from_table && op->value != NULL) {
		const struct keyspace_op *former =
			keyspace_batch_find(keyspace, found->hash, key, key_bytes);
		if (former != NULL && former->run_offset != 0) {
			share_run(keyspace, op, former->run_offset, former->run_crc);
		}
	}
}

int keyspace_expire(struct keyspace *keyspace, const void *key, size_t key_bytes,
		    uint64_t expiry_ms)
{
	struct found found;
	int result = lookup_value(keyspace, key, key_bytes, &found);
	if (result != KEYSPACE_OK) {
		return result;
	}
	struct keyspace_op op =
		make_op(KEYSPACE_OP_SET, KEYSPACE_FOR_EXPIRY, found.hash, key, key_bytes);
	take_value(keyspace, &op, &found, key, key_bytes);
	op.expiry_ms = expiry_ms;
	return submit(keyspace, &op, NULL);
}

int keyspace_rename_copy(struct keyspace *keyspace, const void *from, size_t from_bytes,
			 const void *to, size_t to_bytes)
{
	struct found found;
	int result = lookup_value(keyspace, from, from_bytes, &found);
	if (result != KEYSPACE_OK) {
		return result;
	}
	// A longer name is growth.
	enum keyspace_purpose purpose =
		keyspace_is_over_bound(keyspace) ? KEYSPACE_FOR_WRITE : KEYSPACE_FOR_EXPIRY;
	struct keyspace_op op = make_op(KEYSPACE_OP_SET, purpose,
					keyspace_hash(keyspace, to, to_bytes), to, to_bytes);
	take_value(keyspace, &op, &found, from, from_bytes);
	op.expiry_ms = found.value.expiry_ms;
	return submit(keyspace, &op, NULL);
}

int keyspace_flush(struct keyspace *keyspace)
{
	struct keyspace_op op = { .kind = KEYSPACE_OP_FLUSH, .purpose = KEYSPACE_FOR_REMOVAL };
	return submit(keyspace, &op, NULL);
}

uint64_t keyspace_used_bytes(const struct keyspace *keyspace)
{
	const struct kvs_log *log = &keyspace->log;
	const struct kvs_region *region = keyspace->region;
	uint64_t segments = (uint64_t)(log->full_count + log->retired_count)
			    << region->segment_shift;
	return segments + region->table_bytes + region->large_bytes;
}

uint64_t keyspace_count(const struct keyspace *keyspace)
{
	return keyspace->keys;
}

uint64_t keyspace_count_with_expiry(const struct keyspace *keyspace)
{
	return keyspace->keys_with_expiry;
}

void keyspace_prefetch(struct keyspace *keyspace, const void *key, size_t key_bytes, int pass)
{
	uint64_t hash = keyspace_hash(keyspace, key, key_bytes);
	if (__builtin_expect(keyspace->batch.open, 0)) {
		keyspace_batch_prefetch(keyspace, hash, pass);
	}
	if (pass == 0) {
		kvs_table_prefetch_bucket(&keyspace->region->map, hash);
	} else {
		kvs_table_prefetch_record(&keyspace->region->map, hash);
	}
}

void keyspace_set_writer(struct keyspace *keyspace, const struct keyspace_writer *writer)
{
	static const struct keyspace_writer nobody;
	keyspace->writer = writer != NULL ? writer : &nobody;
}

void keyspace_set_revoke(struct keyspace *keyspace, uint64_t revoke_ms, uint64_t revoke_min_ms,
			 bool block_on_stuck)
{
	keyspace->revoke_ns = revoke_ms * UINT64_C(1000000);
	keyspace->revoke_min_ns = revoke_min_ms * UINT64_C(1000000);
	keyspace->block_on_stuck = block_on_stuck;
}

uint64_t keyspace_last_seq(const struct keyspace *keyspace)
{
	return keyspace->log.next_seq - 1;
}

uint64_t keyspace_durable_seq(const struct keyspace *keyspace)
{
	if (!keyspace->persisted) {
		return keyspace_last_seq(keyspace);
	}
	// Acquire: partner the persister's release after its commit.
	return kvs_load_acquire(&keyspace_marks(keyspace)->durable_seq);
}

uint64_t keyspace_changes(const struct keyspace *keyspace)
{
	return keyspace->changes;
}

uint64_t keyspace_now_ms(struct keyspace *keyspace)
{
	return keyspace->now_ms;
}

void keyspace_tick(struct keyspace *keyspace)
{
	keyspace->now_ms = keyspace->seam->wall_ms();
	keyspace->stirred++;
}

size_t keyspace_value_bytes_max(const struct keyspace *keyspace)
{
	return keyspace->value_bytes_max;
}

const struct kvs_map *keyspace_map(const struct keyspace *keyspace)
{
	return &keyspace->region->map;
}

const struct kvs_log *keyspace_log(const struct keyspace *keyspace)
{
	return &keyspace->log;
}

uint64_t keyspace_live_bytes(const struct keyspace *keyspace)
{
	return keyspace->live_bytes;
}
