// SPDX-License-Identifier: MIT
//
// Notes stand in an array beside the keys, found through a table of the keys' places. A value in
// the log is noted by its address, and its segment is not given free until the reader has copied
// it, a turn later; a large one keeps its run. A FLUSHALL needs no notes: the moment moves to where
// it is over, together with the rest of its batch, for there every other key is absent.
#include "daemon/keyspace_moment.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace_internal.h"

#define MOMENT_GROUP 16u // keys whose memory is asked for together
#define MOMENT_BLOCK_BYTES RECLAIM_WHOLE_BYTES
#define MOMENT_SETTLE_BYTES (256u << 10)
#define MOMENT_SETTLE_NOTES 256u
#define MOMENT_WALK_MAX 4096u // notes that are cleared one by one

// A place: the lower bits are the key's index + 1, 0 = free; the upper ones are of its hash.
#define MOMENT_INDEX_BITS 20u
#define MOMENT_INDEX_MASK ((1u << MOMENT_INDEX_BITS) - 1)
static_assert(KVS_COMMAND_ARGS_MAX - 1 <= MOMENT_INDEX_MASK, "every key of a request has an index");

// What a key was. All zero = nobody has changed it.
struct moment_note {
	const unsigned char *value; // NULL = it was absent, if bytes is MOMENT_ABSENT
	uint32_t bytes;
	uint32_t next; // noted behind it: index + 1
};
#define MOMENT_ABSENT UINT32_MAX

struct moment_block {
	struct moment_block *next;
	size_t bytes; // all of it
	size_t used;
};

struct keyspace_moment {
	LIST_ENTRY(keyspace_moment) link; // of those that are open
	struct keyspace *keyspace;
	const struct resp_arg *keys;
	uint32_t count;
	uint32_t entered;
	uint32_t next;	// to be read
	uint32_t ahead; // of which the memory was asked for: from here on
	uint32_t ahead_end;
	uint64_t seed;
	uint64_t now_ms;
	uint32_t *places;
	uint32_t places_mask;
	struct moment_note *notes;
	uint32_t notes_count;
	uint32_t first, last; // noted, in order: index + 1
	uint32_t unsettled;   // the first that may stand in the log
	uint64_t *segments;   // a bit each: of values that stand in the log
	size_t segments_words;
	uint64_t *runs; // pinned
	uint32_t runs_count;
	uint32_t runs_capacity;
	struct moment_block *blocks; // values that were copied
	size_t blocks_bytes;
	uint64_t hashes[MOMENT_GROUP]; // of the group that is being read
	uint16_t writer;
	bool values;
	bool is_open;
	bool is_held;	 // bits of segments are set
	bool is_flushed; // at the moment there is what is noted, and nothing else
	bool is_final;	 // and no more is noted
	bool is_lost;
};

static const unsigned char moment_nothing[1]; // stands for a value that is not of interest

struct keyspace_moment *keyspace_moment_create(struct keyspace *keyspace,
					       const struct resp_arg *keys, uint32_t count,
					       bool values, uint64_t seed)
{
	struct keyspace_moment *moment = calloc(1, sizeof(*moment));
	if (moment == NULL) {
		return NULL;
	}
	uint32_t places = 2 * MOMENT_GROUP;
	while (places < 2 * count) {
		places *= 2;
	}
	*moment = (struct keyspace_moment){
		.keyspace = keyspace,
		.keys = keys,
		.count = count,
		.seed = seed,
		.places = calloc(places, sizeof(*moment->places)),
		.places_mask = places - 1,
		.notes = calloc(count, sizeof(*moment->notes)),
		.segments_words = keyspace->region->segments_count_max / 64 + 1,
		.writer = keyspace->writer,
		.values = values,
	};
	moment->segments = calloc(moment->segments_words, sizeof(*moment->segments));
	if (moment->places == NULL || moment->notes == NULL || moment->segments == NULL) {
		keyspace_moment_close(moment);
		return NULL;
	}
	return moment;
}

// Where a key has its place, or would have it.
static uint32_t *moment_place(const struct keyspace_moment *moment, uint64_t hash, const void *key,
			      size_t key_bytes)
{
	uint32_t tag = (uint32_t)(hash >> 32) & ~MOMENT_INDEX_MASK;
	uint32_t at = (uint32_t)hash & moment->places_mask;
	for (;; at = (at + 1) & moment->places_mask) { // half of them are free at least
		uint32_t *place = &moment->places[at];
		if (*place == 0) {
			return place;
		}
		if ((*place & ~MOMENT_INDEX_MASK) == tag) {
			const struct resp_arg *other =
				&moment->keys[(*place & MOMENT_INDEX_MASK) - 1];
			if (other->bytes == key_bytes && memcmp(other->data, key, key_bytes) == 0) {
				return place;
			}
		}
	}
}

bool keyspace_moment_enter(struct keyspace_moment *moment)
{
	uint64_t hashes[MOMENT_GROUP];
	uint32_t start = moment->entered;
	uint32_t most = moment->count - start < MOMENT_GROUP ? moment->count - start : MOMENT_GROUP;
	for (uint32_t i = 0; i < most; i++) {
		const struct resp_arg *key = &moment->keys[start + i];
		hashes[i] = kvs_hash(moment->seed, key->data, key->bytes);
		__builtin_prefetch(&moment->places[(uint32_t)hashes[i] & moment->places_mask]);
	}
	for (uint32_t i = 0; i < most; i++) {
		const struct resp_arg *key = &moment->keys[start + i];
		// Of a key that is wanted several times the last place counts: until then it is
		// noted.
		*moment_place(moment, hashes[i], key->data, key->bytes) =
			((uint32_t)(hashes[i] >> 32) & ~MOMENT_INDEX_MASK) | (start + i + 1);
	}
	moment->entered += most;
	return moment->entered == moment->count;
}

bool keyspace_moment_open(struct keyspace_moment *moment)
{
	struct keyspace *keyspace = moment->keyspace;
	const struct keyspace_moment *other;
	unsigned all = 0;
	unsigned own = 0;
	LIST_FOREACH (other, &keyspace->moments, link) {
		all++;
		own += other->writer == moment->writer;
	}
	if (all >= KEYSPACE_MOMENTS_MAX || own >= KEYSPACE_MOMENTS_WRITER_MAX) {
		return false;
	}
	moment->now_ms = keyspace->now_ms;
	moment->is_open = true;
	LIST_INSERT_HEAD(&keyspace->moments, moment, link);
	return true;
}

// ---- noting ----

static bool moment_is_noted(const struct moment_note *note)
{
	return note->value != NULL || note->bytes == MOMENT_ABSENT;
}

static bool moment_in_log(const struct keyspace_moment *moment, const unsigned char *value)
{
	const struct kvs_region *region = moment->keyspace->region;
	const struct kvs_range_bounds *log = &region->map.ranges[KVS_RANGE_LOG];
	uint64_t offset = (uintptr_t)value - (uintptr_t)region->base;
	return offset >= log->offset && offset - log->offset < log->bytes_max;
}

static bool moment_pin_run(struct keyspace_moment *moment, uint64_t run)
{
	if (moment->runs_count == moment->runs_capacity) {
		uint32_t capacity = moment->runs_capacity ? moment->runs_capacity * 2 : 16;
		uint64_t *runs = reallocarray(moment->runs, capacity, sizeof(*runs));
		if (runs == NULL) {
			return false;
		}
		moment->runs = runs;
		moment->runs_capacity = capacity;
	}
	kvs_large_hold(&moment->keyspace->large, run);
	moment->runs[moment->runs_count++] = run;
	return true;
}

// Notes a value, which stays where it is; NULL = absent. `run` is where a large one stands, 0 = in
// the log.
static void moment_note(struct keyspace_moment *moment, uint32_t index, const unsigned char *value,
			uint32_t bytes, uint64_t run)
{
	struct moment_note *note = &moment->notes[index];
	if (!moment_is_noted(note)) {
		uint32_t *link =
			moment->last ? &moment->notes[moment->last - 1].next : &moment->first;
		*link = moment->last = index + 1;
		moment->notes_count++;
	}
	if (value == NULL) {
		note->value = NULL;
		note->bytes = MOMENT_ABSENT;
		return;
	}
	note->value = moment->values ? value : moment_nothing;
	note->bytes = moment->values ? bytes : 0;
	if (!moment->values) {
		return;
	}
	if (run != 0) {
		moment->is_lost = moment->is_lost || !moment_pin_run(moment, run);
		return;
	}
	const struct keyspace *keyspace = moment->keyspace;
	uint64_t offset = (uintptr_t)value - (uintptr_t)keyspace->region->base;
	uint32_t segment = kvs_log_segment_of(&keyspace->log, offset - 1); // it may be empty
	moment->segments[segment / 64] |= UINT64_C(1) << (segment % 64);
	moment->is_held = true;
	// Behind a FLUSHALL a note may be made anew, wherever it stands: from the first on.
	uint32_t from = moment->is_flushed ? moment->first : index + 1;
	moment->unsettled = moment->unsettled ? moment->unsettled : from;
}

static void moment_note_old(struct keyspace_moment *moment, uint32_t index,
			    const struct keyspace_op *op, const struct kvs_hit *hit)
{
	bool there = hit != NULL && hit->kind != KVS_ENTRY_TOMBSTONE &&
		     (hit->view.expiry_ms == 0 || hit->view.expiry_ms > moment->now_ms);
	if (moment_is_noted(&moment->notes[index]) || (!there && op->kind != KEYSPACE_OP_SET)) {
		return;
	}
	bool large = there && (hit->view.flags & KVS_RECORD_LARGE) != 0;
	moment_note(moment, index, there ? hit->value : NULL, there ? hit->view.value_bytes : 0,
		    large ? kvs_record_run(&hit->view).offset : 0);
}

// The rest of a batch with a FLUSHALL: what it leaves behind.
static void moment_note_new(struct keyspace_moment *moment, uint32_t index,
			    const struct keyspace_op *op)
{
	const struct keyspace *keyspace = moment->keyspace;
	const unsigned char *base = keyspace->region->base;
	struct kvs_record_view view;
	bool there = op->kind == KEYSPACE_OP_SET &&
		     (op->expiry_ms == 0 || op->expiry_ms > keyspace->now_ms) &&
		     kvs_record_parse(base + op->offset, op->record_bytes, &view) == 0;
	const unsigned char *value = NULL;
	if (there) {
		value = op->run_offset != 0 ? base + op->run_offset : view.payload;
	}
	moment_note(moment, index, value, op->value_bytes, op->run_offset);
}

void keyspace_moments_see(struct keyspace *keyspace, const struct keyspace_op *op,
			  const struct kvs_hit *hit)
{
	struct keyspace_moment *moment;
	LIST_FOREACH (moment, &keyspace->moments, link) {
		if (moment->is_final || moment->is_lost) {
			continue;
		}
		uint64_t hash = kvs_hash(moment->seed, op->key, op->key_bytes);
		uint32_t place = *moment_place(moment, hash, op->key, op->key_bytes);
		uint32_t index = (place & MOMENT_INDEX_MASK) - 1;
		if (place == 0 || index < moment->next) {
			continue; // nobody wants it, or nobody any more
		}
		if (moment->is_flushed) {
			moment_note_new(moment, index, op);
		} else {
			moment_note_old(moment, index, op, hit);
		}
	}
}

static void moment_unpin(struct keyspace_moment *moment)
{
	for (uint32_t i = 0; i < moment->runs_count; i++) {
		keyspace_unpin(moment->keyspace, moment->runs[i]);
	}
	moment->runs_count = 0;
	if (moment->is_held) {
		memset(moment->segments, 0, moment->segments_words * sizeof(*moment->segments));
	}
	moment->is_held = false;
}

// Forgets all notes. What it takes is in proportion to what was noted, and never long.
static void moment_clear(struct keyspace_moment *moment)
{
	size_t bytes = moment->count * sizeof(*moment->notes);
	moment_unpin(moment);
	if (moment->notes_count > MOMENT_WALK_MAX) {
		struct moment_note *notes = calloc(moment->count, sizeof(*notes));
		moment->is_lost = moment->is_lost || notes == NULL;
		if (notes != NULL) {
			reclaim_free(&moment->keyspace->reclaim, moment->notes, bytes);
			moment->notes = notes;
		}
	} else {
		for (uint32_t at = moment->first; at != 0;) {
			struct moment_note *note = &moment->notes[at - 1];
			at = note->next;
			*note = (struct moment_note){ 0 };
		}
	}
	moment->notes_count = moment->first = moment->last = moment->unsettled = 0;
}

void keyspace_moments_flush(struct keyspace *keyspace)
{
	struct keyspace_moment *moment;
	LIST_FOREACH (moment, &keyspace->moments, link) {
		if (!moment->is_final) {
			moment_clear(moment);
			moment->is_flushed = true;
			moment->is_final = !keyspace->batch.open;
		}
	}
}

void keyspace_moments_batch_over(struct keyspace *keyspace)
{
	struct keyspace_moment *moment;
	LIST_FOREACH (moment, &keyspace->moments, link) {
		moment->is_final = moment->is_flushed;
	}
}

bool keyspace_moments_hold(const struct keyspace *keyspace, uint32_t segment)
{
	const struct keyspace_moment *moment;
	LIST_FOREACH (moment, &keyspace->moments, link) {
		if (moment->segments[segment / 64] >> (segment % 64) & 1) {
			return true;
		}
	}
	return false;
}

// ---- reading ----

static unsigned char *moment_alloc(struct keyspace_moment *moment, size_t bytes)
{
	struct moment_block *block = moment->blocks;
	if (block == NULL || block->bytes - block->used < bytes) {
		size_t all = sizeof(*block) + bytes;
		all = all > MOMENT_BLOCK_BYTES ? all : MOMENT_BLOCK_BYTES;
		block = malloc(all);
		if (block == NULL) {
			return NULL;
		}
		*block = (struct moment_block){ moment->blocks, all, sizeof(*block) };
		moment->blocks = block;
		moment->blocks_bytes += all;
	}
	unsigned char *at = (unsigned char *)block + block->used;
	block->used += bytes;
	return at;
}

bool keyspace_moment_settle(struct keyspace_moment *moment)
{
	size_t bytes = 0;
	for (unsigned i = 0; i < MOMENT_SETTLE_NOTES && bytes < MOMENT_SETTLE_BYTES; i++) {
		uint32_t index = moment->unsettled - 1;
		if (moment->unsettled == 0 || moment->is_lost) {
			break;
		}
		struct moment_note *note = &moment->notes[index];
		moment->unsettled = note->next;
		if (index >= moment->next && moment_in_log(moment, note->value)) {
			unsigned char *copy = moment_alloc(moment, note->bytes);
			if (copy == NULL) {
				moment->is_lost = true;
				break;
			}
			memcpy(copy, note->value, note->bytes);
			note->value = copy;
			bytes += note->bytes;
		}
	}
	if (moment->unsettled == 0 && moment->is_held) {
		memset(moment->segments, 0, moment->segments_words * sizeof(*moment->segments));
		moment->is_held = false;
	}
	return moment->unsettled == 0 || moment->is_lost;
}

bool keyspace_moment_is_lost(const struct keyspace_moment *moment)
{
	return moment->is_lost;
}

// Asks for the memory of the next keys.
static void moment_look_ahead(struct keyspace_moment *moment)
{
	const struct kvs_map *map = &moment->keyspace->region->map;
	uint32_t start = moment->next - 1;
	uint32_t most = moment->count - start < MOMENT_GROUP ? moment->count - start : MOMENT_GROUP;
	moment->ahead = start;
	moment->ahead_end = start + most;
	for (uint32_t i = 0; i < most; i++) {
		const struct resp_arg *key = &moment->keys[start + i];
		moment->hashes[i] = keyspace_hash(moment->keyspace, key->data, key->bytes);
		kvs_table_prefetch_bucket(map, moment->hashes[i]);
	}
	for (uint32_t i = 0; i < most; i++) {
		kvs_table_prefetch_record(map, moment->hashes[i]);
	}
}

int keyspace_moment_next(struct keyspace_moment *moment, struct keyspace_value *value,
			 bool *changed)
{
	struct keyspace *keyspace = moment->keyspace;
	uint32_t index = moment->next++;
	const struct resp_arg *key = &moment->keys[index];
	*changed = false;
	if (moment->notes_count > 0) {
		uint64_t hash = kvs_hash(moment->seed, key->data, key->bytes);
		uint32_t place = *moment_place(moment, hash, key->data, key->bytes);
		const struct moment_note *note = &moment->notes[(place & MOMENT_INDEX_MASK) - 1];
		if (moment_is_noted(note)) {
			*changed = !moment->is_flushed; // a flush is told to everybody
			value->value = note->value;
			value->value_bytes = note->bytes;
			return note->value != NULL ? KEYSPACE_OK : KEYSPACE_ABSENT;
		}
	}
	if (moment->is_flushed) {
		return KEYSPACE_ABSENT;
	}
	if (index >= moment->ahead_end) {
		moment_look_ahead(moment);
	}
	struct kvs_hit hit;
	uint64_t hash = moment->hashes[index - moment->ahead];
	if (keyspace_find(keyspace, hash, key->data, key->bytes, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE) {
		return KEYSPACE_ABSENT;
	}
	if (hit.view.expiry_ms != 0 && hit.view.expiry_ms <= moment->now_ms) {
		(void)keyspace_get(keyspace, key->data, key->bytes, value); // logs its end
		return KEYSPACE_ABSENT;
	}
	value->value = hit.value;
	value->value_bytes = hit.view.value_bytes;
	return KEYSPACE_OK;
}

size_t keyspace_moment_bytes(const struct keyspace_moment *moment)
{
	size_t notes = moment->count * sizeof(*moment->notes);
	size_t touched = (size_t)moment->notes_count * KVS_PAGE_BYTES;
	return sizeof(*moment) + (moment->places_mask + 1) * sizeof(*moment->places) +
	       (notes < touched ? notes : touched) + moment->blocks_bytes +
	       moment->segments_words * sizeof(*moment->segments);
}

void keyspace_moment_close(struct keyspace_moment *moment)
{
	if (moment == NULL) {
		return;
	}
	struct reclaim *reclaim = &moment->keyspace->reclaim;
	if (moment->is_open) {
		LIST_REMOVE(moment, link);
	}
	moment_unpin(moment);
	while (moment->blocks != NULL) {
		struct moment_block *block = moment->blocks;
		moment->blocks = block->next;
		reclaim_free(reclaim, block, block->bytes);
	}
	reclaim_free(reclaim, moment->places, (moment->places_mask + 1) * sizeof(*moment->places));
	reclaim_free(reclaim, moment->notes, moment->count * sizeof(*moment->notes));
	free(moment->segments);
	free(moment->runs);
	free(moment);
}
