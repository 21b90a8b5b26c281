// SPDX-License-Identifier: MIT
//
// Large values are copied in slices. The run that a write will name is filled between turns, and
// the write is asked again until it is complete; then it is as quick as one of a few bytes. Nobody
// sees the run before, and a write that is not asked again leaves nothing.
#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace_internal.h"
#include "shm/crc32c.h"

#define STAGE_CHUNK_BYTES (128u << 10) // copied between two looks at the clock
#define STAGE_SMALL_BYTES 64u	       // pieces as small as that are kept, whoever owns them
#define STAGE_RESTARTS_MAX 64u // so often its value may change under a write; then in one go

struct keyspace_stage {
	LIST_ENTRY(keyspace_stage) link;
	uint64_t owner;
	struct kvs_piece pieces[KEYSPACE_PIECES_MAX];
	unsigned char small[KEYSPACE_PIECES_MAX][STAGE_SMALL_BYTES];
	uint64_t pins[KEYSPACE_PIECES_MAX]; // runs that are copied from, 0 = none
	uint32_t pieces_count;
	uint32_t crc;
	bool moves;	  // some of what is copied stands in the log
	uint64_t key_seq; // version of the key whose parts are copied
	uint64_t run_offset;
	uint64_t bytes;
	uint64_t done;
	uint64_t populated;
	unsigned restarts;
};

void keyspace_set_slice(struct keyspace *keyspace, const struct keyspace_slice *slice)
{
	keyspace->slice = slice;
}

// Gives back the run and what is pinned; the stage can begin anew.
static void stage_empty(struct keyspace *keyspace, struct keyspace_stage *stage)
{
	for (uint32_t i = 0; i < stage->pieces_count; i++) {
		if (stage->pins[i] != 0) {
			keyspace_unpin(keyspace, stage->pins[i]);
		}
	}
	if (stage->run_offset != 0) {
		keyspace_unpin(keyspace, stage->run_offset); // it is held in the same way
	}
	stage->pieces_count = 0;
	stage->run_offset = 0;
}

static void stage_free(struct keyspace *keyspace, struct keyspace_stage *stage)
{
	stage_empty(keyspace, stage);
	LIST_REMOVE(stage, link);
	free(stage);
}

static struct keyspace_stage *stage_find(struct keyspace *keyspace, uint64_t owner)
{
	struct keyspace_stage *stage;
	LIST_FOREACH (stage, &keyspace->stages, link) {
		if (stage->owner == owner) {
			return stage;
		}
	}
	return NULL;
}

void keyspace_stage_drop(struct keyspace *keyspace, uint64_t owner)
{
	struct keyspace_stage *stage = stage_find(keyspace, owner);
	if (stage != NULL) {
		stage_free(keyspace, stage);
	}
}

void keyspace_stage_fini(struct keyspace *keyspace)
{
	while (!LIST_EMPTY(&keyspace->stages)) {
		struct keyspace_stage *stage = LIST_FIRST(&keyspace->stages);
		LIST_REMOVE(stage, link);
		free(stage); // its runs go with the region
	}
}

// Does this memory stay as it is until the write is asked again, or would that be noticed?
static bool stage_is_stable(const struct keyspace *keyspace, const struct kvs_piece *piece)
{
	const struct keyspace_slice *slice = keyspace->slice;
	uintptr_t at = (uintptr_t)piece->data;
	uintptr_t own = (uintptr_t)*slice->memory;
	uintptr_t scratch = (uintptr_t)slice->scratch;
	uintptr_t region = (uintptr_t)keyspace->region->base;
	return piece->data == NULL || piece->bytes <= STAGE_SMALL_BYTES ||
	       (at >= own && at - own < *slice->memory_bytes) ||
	       (at >= scratch && at - scratch < slice->scratch_bytes) ||
	       (at >= region && at - region < keyspace->region->bytes);
}

static uint32_t stage_pieces(const struct keyspace_op *op,
			     struct kvs_piece pieces[KEYSPACE_PIECES_MAX])
{
	if (op->pieces_count == 0) {
		pieces[0] = (struct kvs_piece){ op->value, op->value_bytes };
		return 1;
	}
	memcpy(pieces, op->pieces, op->pieces_count * sizeof(*pieces));
	return op->pieces_count;
}

// The version that parts of the value are taken from; 0 = it comes from the request alone, and
// whatever else becomes of the key meanwhile does not matter.
static uint64_t stage_key_seq(struct keyspace *keyspace, const struct keyspace_op *op,
			      const struct kvs_piece *pieces, uint32_t count)
{
	struct kvs_hit hit;
	uintptr_t region = (uintptr_t)keyspace->region->base;
	bool inside = false;
	for (uint32_t i = 0; i < count; i++) {
		inside = inside || (uintptr_t)pieces[i].data - region < keyspace->region->bytes;
	}
	if (!inside) {
		return 0;
	}
	bool found =
		keyspace_find(keyspace, op->hash, op->key, op->key_bytes, &hit) == KVS_FIND_HIT;
	return found ? hit.view.seq : 0;
}

// Is it the write that the stage was begun for, of the same bytes? What is pinned is the same for
// as long as it stands at the same place: a changed time to live (EXPIRE) does not begin it anew.
static bool stage_is_for(struct keyspace *keyspace, const struct keyspace_stage *stage,
			 const struct keyspace_op *op)
{
	struct kvs_piece pieces[KEYSPACE_PIECES_MAX];
	uint32_t count = stage_pieces(op, pieces);
	bool same = stage->run_offset != 0 && count == stage->pieces_count &&
		    (!stage->moves || stage->key_seq == stage_key_seq(keyspace, op, pieces, count));
	for (uint32_t i = 0; same && i < count; i++) {
		bool is_small = pieces[i].data != NULL && pieces[i].bytes <= STAGE_SMALL_BYTES;
		same = pieces[i].bytes == stage->pieces[i].bytes &&
		       (is_small ? memcmp(pieces[i].data, stage->small[i], pieces[i].bytes) == 0
				 : pieces[i].data == stage->pieces[i].data);
	}
	return same;
}

// Does what is copied from stand where it stood before room was made? The cleaner may have moved
// it, and its segment be free by now. What moves is of the op's own key.
static bool stage_stands(struct keyspace *keyspace, const struct keyspace_stage *stage,
			 const struct keyspace_op *op)
{
	struct kvs_hit hit;
	if (!stage->moves) {
		return true;
	}
	bool stands =
		keyspace_find(keyspace, op->hash, op->key, op->key_bytes, &hit) == KVS_FIND_HIT &&
		hit.value != NULL;
	for (uint32_t i = 0; i < stage->pieces_count && stands; i++) {
		uintptr_t at = (uintptr_t)stage->pieces[i].data;
		bool moves = stage->pins[i] == 0 &&
			     at - (uintptr_t)keyspace->region->base < keyspace->region->bytes;
		stands = !moves || at - (uintptr_t)hit.value < hit.view.value_bytes;
	}
	return stands;
}

// Makes room, takes a run without pages, and remembers what is to be copied. OK, WAIT, FULL, or
// AGAIN where that is elsewhere by now.
static int stage_begin(struct keyspace *keyspace, struct keyspace_stage *stage,
		       const struct keyspace_op *op)
{
	uint64_t bytes = kvs_large_bytes(keyspace->region, op->value_bytes);
	uint64_t record_bytes =
		kvs_record_bytes(op->key_bytes, sizeof(struct kvs_run), op->expiry_ms != 0);
	stage->pieces_count = stage_pieces(op, stage->pieces);
	stage->key_seq = stage_key_seq(keyspace, op, stage->pieces, stage->pieces_count);
	stage->moves = false;
	for (uint32_t i = 0; i < stage->pieces_count; i++) {
		struct kvs_piece *piece = &stage->pieces[i];
		stage->pins[i] = 0;
		if (piece->data != NULL && piece->bytes <= STAGE_SMALL_BYTES) {
			memcpy(stage->small[i], piece->data, piece->bytes);
			piece->data = stage->small[i];
		} else if (piece->data != NULL) {
			uintptr_t offset =
				(uintptr_t)piece->data - (uintptr_t)keyspace->region->base;
			bool pinned = keyspace_pin(keyspace, piece->data, &stage->pins[i]);
			stage->moves =
				stage->moves || (!pinned && offset < keyspace->region->bytes);
		}
	}
	keyspace->evict.spared = op;
	int result = keyspace_make_room(keyspace, record_bytes, record_bytes, bytes, op->purpose);
	keyspace->evict.spared = NULL;
	if (result == KEYSPACE_OK && !stage_stands(keyspace, stage, op)) {
		result = KEYSPACE_AGAIN;
	}
	if (result == KEYSPACE_OK) {
		result = mover_reserve(keyspace, op->value_bytes, &stage->run_offset);
	}
	stage->bytes = op->value_bytes;
	stage->done = 0;
	stage->populated = 0;
	stage->crc = 0;
	return result;
}

// Copies the next bytes, at most up to the end of a piece. False if the machine is full.
static bool stage_step(struct keyspace *keyspace, struct keyspace_stage *stage)
{
	uint64_t all = kvs_large_bytes(keyspace->region, stage->bytes);
	if (stage->populated < all && stage->populated < stage->done + STAGE_CHUNK_BYTES) {
		if (!keyspace_run_populate(keyspace, stage->run_offset, stage->bytes,
					   &stage->populated)) {
			return false;
		}
		if (stage->populated < stage->done + STAGE_CHUNK_BYTES && stage->populated < all) {
			return true; // the rest of the chunk needs the next ones, too
		}
	}
	uint64_t at = stage->done;
	uint32_t i = 0;
	while (at >= stage->pieces[i].bytes) {
		at -= stage->pieces[i++].bytes;
	}
	uint64_t bytes = stage->pieces[i].bytes - at;
	bytes = bytes < STAGE_CHUNK_BYTES ? bytes : STAGE_CHUNK_BYTES;
	unsigned char *to = keyspace->region->base + stage->run_offset + stage->done;
	if (stage->pieces[i].data != NULL) {
		memcpy(to, (const unsigned char *)stage->pieces[i].data + at, bytes);
	} else {
		memset(to, 0, bytes);
	}
	stage->crc = kvs_crc32c(stage->crc, to, bytes);
	stage->done += bytes;
	keyspace_counter_add(keyspace, KVS_COUNTER_large_copied_bytes, bytes);
	return true;
}

// The stage for this op, begun if need be; *result tells what came of it, NULL with OK = in one go.
static struct keyspace_stage *stage_of(struct keyspace *keyspace, const struct keyspace_op *op,
				       int *result)
{
	struct kvs_piece pieces[KEYSPACE_PIECES_MAX];
	uint32_t count = stage_pieces(op, pieces);
	struct keyspace_stage *stage = stage_find(keyspace, keyspace->slice->owner);
	bool stable = true;
	for (uint32_t i = 0; i < count; i++) {
		stable = stable && stage_is_stable(keyspace, &pieces[i]);
	}
	*result = KEYSPACE_OK;
	if (stage != NULL && stage_is_for(keyspace, stage, op)) {
		return stage;
	}
	if (stage == NULL && stable) {
		stage = calloc(1, sizeof(*stage));
		if (stage == NULL) {
			return NULL;
		}
		stage->owner = keyspace->slice->owner;
		LIST_INSERT_HEAD(&keyspace->stages, stage, link);
	} else if (stage != NULL) {
		stage_empty(keyspace, stage);
	}
	if (!stable || stage->restarts++ == STAGE_RESTARTS_MAX) {
		return NULL;
	}
	*result = stage_begin(keyspace, stage, op);
	return stage;
}

int keyspace_stage_op(struct keyspace *keyspace, struct keyspace_op *op)
{
	int result;
	struct keyspace_stage *stage = stage_of(keyspace, op, &result);
	if (stage == NULL || result != KEYSPACE_OK) {
		keyspace_stage_drop(keyspace, keyspace->slice->owner);
		return result;
	}
	while (stage->done < stage->bytes) {
		if (!stage_step(keyspace, stage)) {
			stage_free(keyspace, stage);
			return KEYSPACE_FULL;
		}
		if (stage->done < stage->bytes &&
		    keyspace->seam->monotonic_ns() >= *keyspace->slice->until_ns) {
			return KEYSPACE_AGAIN;
		}
	}
	op->run_offset = stage->run_offset; // the op has the hold from here
	op->run_crc = stage->crc;
	op->value = NULL;
	op->pieces_count = 0;
	stage->run_offset = 0;
	stage_free(keyspace, stage);
	return KEYSPACE_OK;
}
