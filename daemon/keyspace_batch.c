// SPDX-License-Identifier: MIT
//
// Atomic batches. Writes are collected with copies of what they point at; reads see them through a
// small overlay; commit reserves space for all of them, appends all records (MORE on all but the
// last), publishes all entries, and only then moves applied_seq. Nothing can fail between the first
// record and the last entry, because everything was vouched for before. Only the last op of each
// key is published: what a get meets in the middle is the value before the batch or the one behind
// it, never one that the batch itself replaces. The others have records, for the store's order.
#include "daemon/keyspace_internal.h"

#include <stdlib.h>
#include <string.h>

#define BATCH_BLOCK_BYTES (64u << 10)
// Ops of one batch that may meet in one bucket beyond what their number explains: a chain was
// looked at before any of them joined it, and each is held against all before it.
#define BATCH_MEET_FEW (8u * KVS_BUCKET_ENTRIES)
#define BATCH_MEET_MAX ((KVS_CHAIN_BUCKETS_MAX - KVS_CHAIN_BUCKETS_WRITE - 1) * KVS_BUCKET_ENTRIES)
#define BATCH_MEET_PLACES 65536u
#define BATCH_KEEP_BYTES (1u << 20) // arena kept for the next batch
#define BATCH_KEEP_OPS 4096u	    // place for so many is kept, too
#define BATCH_AHEAD 8u		    // ops whose memory is asked for before it is their turn

struct keyspace_block {
	struct keyspace_block *next;
	size_t capacity;
	size_t used;
	unsigned char bytes[];
};

static void *batch_alloc(struct keyspace_batch *batch, size_t bytes)
{
	struct keyspace_block *block = batch->arena;
	if (block == NULL || block->capacity - block->used < bytes) {
		size_t capacity = bytes > BATCH_BLOCK_BYTES ? bytes : BATCH_BLOCK_BYTES;
		block = malloc(sizeof(*block) + capacity);
		if (block == NULL) {
			return NULL;
		}
		block->capacity = capacity;
		block->used = 0;
		block->next = batch->arena;
		batch->arena = block;
	}
	void *at = block->bytes + block->used;
	block->used += bytes;
	return at;
}

// Empties the batch; one block of ordinary size is kept.
static void batch_reset(struct keyspace *keyspace)
{
	struct keyspace_batch *batch = &keyspace->batch;
	struct keyspace_block *block = batch->arena;
	batch->arena = NULL;
	while (block != NULL) {
		struct keyspace_block *next = block->next;
		if (batch->arena == NULL && block->capacity <= BATCH_KEEP_BYTES) {
			block->used = 0;
			block->next = NULL;
			batch->arena = block;
		} else {
			free(block);
		}
		block = next;
	}
	if (batch->capacity > BATCH_KEEP_OPS) {
		reclaim_free(&keyspace->reclaim, batch->ops, batch->capacity * sizeof(*batch->ops));
		batch->ops = NULL;
		batch->capacity = 0;
	}
	if (batch->overlay_size > 2 * BATCH_KEEP_OPS) {
		// Or each little batch from here on would clear all of it.
		reclaim_free(&keyspace->reclaim, batch->overlay,
			     batch->overlay_size * sizeof(*batch->overlay));
		batch->overlay = NULL;
		batch->overlay_size = 0;
	} else if (batch->overlay != NULL && batch->count > 0) {
		memset(batch->overlay, 0, batch->overlay_size * sizeof(*batch->overlay));
	}
	batch->count = 0;
	batch->bytes = batch->ended_bytes = 0;
	batch->open = false;
	batch->failed = false;
	batch->flushed = 0;
	batch->removes = false;
	batch->purpose = KEYSPACE_FOR_REMOVAL;
}

void keyspace_batch_fini(struct keyspace *keyspace)
{
	struct keyspace_batch *batch = &keyspace->batch;
	batch_reset(keyspace);
	free(batch->arena);
	free(batch->ops);
	free(batch->overlay);
	memset(batch, 0, sizeof(*batch));
}

void keyspace_batch_begin(struct keyspace *keyspace)
{
	keyspace->batch.open = true;
}

static bool op_is_of(const struct keyspace_op *op, uint64_t hash, const void *key, size_t key_bytes)
{
	return op->hash == hash && op->key_bytes == key_bytes &&
	       memcmp(op->key, key, key_bytes) == 0;
}

// Gives the overlay another size, and enters anew the ops that may be looked for.
static bool overlay_resize(struct keyspace_batch *batch, uint32_t size)
{
	uint32_t *overlay = calloc(size, sizeof(*overlay));
	if (overlay == NULL) {
		return false;
	}
	free(batch->overlay);
	batch->overlay = overlay;
	batch->overlay_size = size;
	for (uint32_t i = 0; i < batch->count; i++) {
		if (!batch->ops[i].superseded) {
			uint32_t *bucket = &overlay[batch->ops[i].hash & (size - 1)];
			batch->ops[i].overlay_next = *bucket;
			*bucket = i + 1;
		}
	}
	return true;
}

// Enters the op that comes next. An earlier one of its key is void, and makes room there: however
// often a batch comes back to its keys, each of them stands in the overlay once.
static void overlay_enter(struct keyspace_batch *batch, struct keyspace_op *op)
{
	uint32_t *bucket = &batch->overlay[op->hash & (batch->overlay_size - 1)];
	for (uint32_t *link = bucket; *link != 0; link = &batch->ops[*link - 1].overlay_next) {
		struct keyspace_op *former = &batch->ops[*link - 1];
		if (op_is_of(former, op->hash, op->key, op->key_bytes)) {
			former->superseded = true;
			*link = former->overlay_next;
			break;
		}
	}
	op->overlay_next = *bucket;
	*bucket = batch->count + 1;
}

// The op that comes next is a FLUSHALL: all before it is void. Each op is marked once.
static void batch_flushed(struct keyspace_batch *batch)
{
	for (uint32_t i = batch->flushed; i < batch->count; i++) {
		struct keyspace_op *op = &batch->ops[i];
		op->voided = batch->flushed == 0 && !op->superseded;
		op->superseded = true;
	}
	batch->flushed = batch->count + 1;
}

// Grows the overlay so that it stays at most half full.
static bool overlay_grow(struct keyspace_batch *batch)
{
	return overlay_resize(batch, batch->overlay_size ? batch->overlay_size * 2 : 256);
}

void keyspace_batch_expect(struct keyspace *keyspace, uint32_t count)
{
	struct keyspace_batch *batch = &keyspace->batch;
	uint32_t size = batch->overlay_size ? batch->overlay_size : 256;
	while (size / 2 < (uint64_t)batch->count + count && size <= UINT32_MAX / 4) {
		size *= 2;
	}
	if (size > batch->overlay_size) {
		(void)overlay_resize(batch, size); // without it it grows as it goes
	}
}

void keyspace_batch_prefetch(const struct keyspace *keyspace, uint64_t hash, int pass)
{
	const struct keyspace_batch *batch = &keyspace->batch;
	if (batch->overlay_size == 0) {
		return;
	}
	const uint32_t *bucket = &batch->overlay[hash & (batch->overlay_size - 1)];
	if (pass == 0) {
		__builtin_prefetch(bucket);
	} else if (*bucket != 0) {
		__builtin_prefetch(&batch->ops[*bucket - 1].hash);
	}
}

static bool ops_grow(struct keyspace_batch *batch)
{
	uint32_t capacity = batch->capacity ? batch->capacity * 2 : 64;
	struct keyspace_op *ops = realloc(batch->ops, capacity * sizeof(*ops));
	if (ops == NULL) {
		return false;
	}
	batch->ops = ops;
	batch->capacity = capacity;
	return true;
}

// Copies key and value of `op` into the arena.
static bool batch_copy(struct keyspace *keyspace, struct keyspace_op *op)
{
	struct keyspace_batch *batch = &keyspace->batch;
	bool copy_value = op->kind == KEYSPACE_OP_SET && op->run_offset == 0;
	size_t value_bytes = copy_value ? op->value_bytes : 0;
	unsigned char *at = batch_alloc(batch, op->key_bytes + value_bytes + 1);
	if (at == NULL) {
		return false;
	}
	if (op->key_bytes > 0) {
		memcpy(at, op->key, op->key_bytes);
	}
	op->key = at;
	if (copy_value) {
		unsigned char *value = at + op->key_bytes;
		keyspace_op_copy_value(op, value);
		op->value = value;
		op->pieces_count = 0;
	}
	return true;
}

int keyspace_batch_add(struct keyspace *keyspace, const struct keyspace_op *source, uint64_t *seq)
{
	struct keyspace_batch *batch = &keyspace->batch;
	struct keyspace_op op = *source;
	if (seq != NULL) {
		*seq = keyspace->log.next_seq + batch->count;
	}
	keyspace_op_measure(keyspace, &op);
	bool is_end = (op.record_flags & KVS_RECORD_EXPIRED) != 0;
	*(is_end ? &batch->ended_bytes : &batch->bytes) += op.record_bytes;
	if (op.kind == KEYSPACE_OP_SET && keyspace_is_large(keyspace, op.value_bytes)) {
		batch->bytes += op.value_bytes; // in the store each record stands with its value
	}
	bool good = !batch->failed && batch->bytes <= KVS_BATCH_BYTES_MAX &&
		    (batch->count < batch->capacity || ops_grow(batch)) &&
		    (batch->count * 2 < batch->overlay_size || overlay_grow(batch)) &&
		    batch_copy(keyspace, &op);
	if (!good) {
		batch->failed |= !is_end; // what was only read may end later
		keyspace_op_drop(keyspace, &op);
		return KEYSPACE_OK;
	}
	overlay_enter(batch, &op); // a FLUSHALL has no key: it takes the place of one before
	if (op.kind == KEYSPACE_OP_FLUSH) {
		batch_flushed(batch);
	}
	batch->removes |= op.kind != KEYSPACE_OP_SET;
	batch->purpose = op.purpose > batch->purpose ? op.purpose : batch->purpose;
	batch->ops[batch->count++] = op;
	return KEYSPACE_OK;
}

const struct keyspace_op *keyspace_batch_find(const struct keyspace *keyspace, uint64_t hash,
					      const void *key, size_t key_bytes)
{
	const struct keyspace_batch *batch = &keyspace->batch;
	if (batch->count == 0) {
		return NULL;
	}
	uint32_t index = batch->overlay[hash & (batch->overlay_size - 1)];
	const struct keyspace_op *found = NULL;
	for (; index != 0 && found == NULL; index = batch->ops[index - 1].overlay_next) {
		const struct keyspace_op *op = &batch->ops[index - 1];
		found = op_is_of(op, hash, key, key_bytes) ? op : NULL;
	}
	if (batch->flushed == 0) {
		return found;
	}
	// The newest FLUSHALL hides what came before it, in the batch and in the table.
	const struct keyspace_op *flush = &batch->ops[batch->flushed - 1];
	return found != NULL && found > flush ? found : flush;
}

void keyspace_batch_abort(struct keyspace *keyspace)
{
	struct keyspace_batch *batch = &keyspace->batch;
	for (uint32_t i = 0; i < batch->count; i++) {
		keyspace_op_drop(keyspace, &batch->ops[i]);
	}
	batch_reset(keyspace);
}

// Does a batch with removals in it leave no more behind than it finds? Then it may use their
// reserve, whatever else it writes: after its grace periods there is more room than before.
static bool batch_leaves_no_more(struct keyspace *keyspace)
{
	const struct keyspace_batch *batch = &keyspace->batch;
	uint64_t found = batch->flushed != 0 ? keyspace->live_bytes : 0;
	uint64_t left = 0;
	for (uint32_t i = 0; i < batch->count && batch->removes; i++) {
		const struct keyspace_op *op = &batch->ops[i];
		if (op->superseded) {
			continue;
		}
		struct kvs_hit hit;
		if (batch->flushed == 0 && keyspace_find(keyspace, op->hash, op->key, op->key_bytes,
							 &hit) == KVS_FIND_HIT) {
			found += hit.view.record_bytes;
			// Beyond the bound what came by changed times to live must not be
			// filled with values, for the next restart has to hold both.
			bool added = hit.view.expiry_ms != 0 && keyspace_is_over_bound(keyspace);
			found -= added ? sizeof(uint64_t) : 0u;
			found += hit.kind == KVS_ENTRY_LARGE ? hit.view.value_bytes : 0u;
		}
		if (op->kind == KEYSPACE_OP_SET) {
			bool large = keyspace_is_large(keyspace, op->value_bytes);
			left += op->record_bytes + (large ? op->value_bytes : 0u);
		}
	}
	return batch->removes && left <= found;
}

// Room for the batch: as for the most demanding of its ops, or as for removals where it is one.
static int batch_make_room(struct keyspace *keyspace, uint64_t bytes, uint64_t largest,
			   uint64_t large_bytes)
{
	enum keyspace_purpose purpose = keyspace->batch.purpose;
	int result = keyspace_make_room(keyspace, bytes, largest, large_bytes, purpose);
	if (result != KEYSPACE_OK && purpose != KEYSPACE_FOR_REMOVAL &&
	    batch_leaves_no_more(keyspace)) {
		result = keyspace_make_room(keyspace, bytes, largest, large_bytes,
					    KEYSPACE_FOR_REMOVAL);
	}
	return result;
}

struct batch_place {
	uint64_t hash; // of the key that came last
	uint32_t count;
};

// Do the keys spread, so that no chain becomes longer than readers follow? Only a large batch of
// keys made to collide does not. A key that comes again and again takes one place.
static bool batch_spreads(const struct keyspace *keyspace)
{
	const struct keyspace_batch *batch = &keyspace->batch;
	if (batch->count <= BATCH_MEET_FEW) {
		return true;
	}
	uint64_t count = BATCH_MEET_FEW;
	while (count < BATCH_MEET_PLACES && count < 4 * (uint64_t)batch->count) {
		count *= 2;
	}
	uint64_t buckets = keyspace->table.buckets;
	uint64_t most = BATCH_MEET_FEW + 2 * (batch->count / (buckets < count ? buckets : count));
	most = most < BATCH_MEET_MAX ? most : BATCH_MEET_MAX;
	struct batch_place *places = calloc(count, sizeof(*places));
	bool spreads = places != NULL;
	for (uint32_t i = 0; i < batch->count && spreads; i++) {
		if (batch->ops[i].superseded || batch->ops[i].kind != KEYSPACE_OP_SET) {
			continue; // removals need no place
		}
		uint64_t hash = batch->ops[i].hash;
		uint64_t index = kvs_bucket_index(hash, buckets);
		struct batch_place *place = &places[index % count];
		place->count += place->count == 0 || place->hash != hash;
		place->hash = hash;
		spreads = place->count <= most;
	}
	free(places);
	return spreads;
}

// Asks for the bucket, and later for the record, of ops that come soon.
static void batch_look_ahead(const struct keyspace *keyspace, uint32_t i)
{
	const struct kvs_map *map = &keyspace->region->map;
	const struct keyspace_batch *batch = &keyspace->batch;
	if (i + 2 * BATCH_AHEAD < batch->count) {
		kvs_table_prefetch_bucket(map, batch->ops[i + 2 * BATCH_AHEAD].hash);
	}
	if (i + BATCH_AHEAD < batch->count) {
		kvs_table_prefetch_record(map, batch->ops[i + BATCH_AHEAD].hash);
	}
}

// Vouches for everything the batch needs: log space, overflow buckets, large runs.
static int batch_reserve(struct keyspace *keyspace)
{
	struct keyspace_batch *batch = &keyspace->batch;
	uint64_t bytes = 0;
	uint64_t largest = 0;
	uint64_t large_bytes = 0;
	uint32_t sets = 0;
	if (!keyspace_has_versions(keyspace, batch->count)) {
		return KEYSPACE_SPENT;
	}
	if (keyspace->writer->quota_bytes != 0 &&
	    keyspace_owner_admit_batch(keyspace) != KEYSPACE_OK) {
		return KEYSPACE_QUOTA;
	}
	if (batch->bytes > 0 && keyspace_queue_is_full(keyspace, batch->bytes)) {
		return KEYSPACE_WAIT;
	}
	if (batch->flushed != 0 && keyspace_flush_ready(keyspace) != KEYSPACE_OK) {
		return KEYSPACE_WAIT;
	}
	for (uint32_t i = 0; i < batch->count; i++) {
		const struct keyspace_op *op = &batch->ops[i];
		uint32_t record_bytes = op->record_bytes;
		if (i + BATCH_AHEAD < batch->count) {
			kvs_table_prefetch_bucket(&keyspace->region->map,
						  batch->ops[i + BATCH_AHEAD].hash);
		}
		bytes += record_bytes;
		sets += op->kind == KEYSPACE_OP_SET;
		largest = record_bytes > largest ? record_bytes : largest;
		if (op->kind == KEYSPACE_OP_SET && op->run_offset == 0 &&
		    keyspace_is_large(keyspace, op->value_bytes)) {
			large_bytes += kvs_large_bytes(keyspace->region, op->value_bytes);
		}
		if (op->kind != KEYSPACE_OP_FLUSH && !op->superseded &&
		    !keyspace_finds_place(keyspace, op)) {
			return KEYSPACE_CROWDED;
		}
	}
	// Overflow buckets first: they may take memory that the check below must not count on.
	if (!batch_spreads(keyspace)) {
		keyspace->table.crowded = true;
		return KEYSPACE_CROWDED;
	}
	int secured = keyspace_table_secure(keyspace, sets);
	if (secured != KEYSPACE_OK) {
		return secured;
	}
	int result = batch_make_room(keyspace, bytes, largest, large_bytes);
	if (result == KEYSPACE_OK && large_bytes > 0) {
		result = mover_clears(keyspace, large_bytes);
	}
	for (uint32_t i = 0; i < batch->count && result == KEYSPACE_OK; i++) {
		result = keyspace_op_take_run(keyspace, &batch->ops[i]);
	}
	return result;
}

int keyspace_batch_commit(struct keyspace *keyspace)
{
	struct keyspace_batch *batch = &keyspace->batch;
	if (batch->count == 0 && !batch->failed) {
		batch_reset(keyspace);
		return KEYSPACE_OK;
	}
	int result = KEYSPACE_TOO_LARGE;
	if ((keyspace->looks & KEYSPACE_MET_COLD) != 0) {
		result = KEYSPACE_COLD; // it is of what was not true
	} else if (!batch->failed) {
		result = batch_reserve(keyspace);
	} else if (batch->bytes <= KVS_BATCH_BYTES_MAX) {
		result = KEYSPACE_FULL;
	}
	if (result != KEYSPACE_OK) {
		keyspace_batch_abort(keyspace);
		return result;
	}
	uint64_t removal_seq = 0;
	for (uint32_t i = 0; i < batch->count; i++) {
		struct keyspace_op *op = &batch->ops[i];
		keyspace_op_append(keyspace, op, i + 1 < batch->count);
		bool removes = op->kind != KEYSPACE_OP_SET && !op->superseded;
		removal_seq = removes ? op->seq : removal_seq;
	}
	if (removal_seq != 0) {
		// Before any entry: a consistent multi-get that sees one removal must see them all
		// coming.
		keyspace_note_removal(keyspace, removal_seq);
	}
	for (uint32_t i = 0; i < batch->count; i++) {
		batch_look_ahead(keyspace, i);
		struct keyspace_op *op = &batch->ops[i];
		if (op->superseded) {
			keyspace_op_pass_over(keyspace, op);
		} else if (op->placed) {
			keyspace_op_settle(keyspace, op);
		} else if (op->kind == KEYSPACE_OP_FLUSH) {
			keyspace_publish_flush(keyspace, op, batch->count - i - 1);
		} else {
			keyspace_op_publish(keyspace, op);
		}
		SEAM_CRASH(batch_half_published);
	}
	SEAM_CRASH(batch_published);
	keyspace_moments_batch_over(keyspace);
	keyspace_publish_applied(keyspace);
	uint32_t count = batch->count;
	if (count > 1) {
		keyspace_counter_add(keyspace, KVS_COUNTER_batches_applied, 1);
	}
	batch_reset(keyspace);
	keyspace_table_steps(keyspace, count + 1 < 4096 ? count + 1 : 4096);
	return KEYSPACE_OK;
}
