// SPDX-License-Identifier: MIT
//
// Notes stand in an array beside the keys, found through a table of the keys' places. A value in
// the log is noted by its address, and its segment is not given free until the reader has copied
// it, a turn later; a large one keeps its run. A FLUSHALL needs no notes: the moment moves to where
// it is over, together with the rest of its batch, for there every other key is absent; what was
// read before is read again, which happens once.
#include "daemon/keyspace_moment.h"

#include <stdlib.h>

#include "daemon/keyspace_moment_parts.h"

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
		.places = kvs_mapped_alloc(places * sizeof(*moment->places)),
		.places_mask = places - 1,
		.notes = kvs_mapped_alloc(count * sizeof(*moment->notes)),
		.segments_words = keyspace->region->segments_count_max / 64 + 1,
		.user = keyspace->writer->uid,
		.values = values,
	};
	moment->segments = calloc(moment->segments_words, sizeof(*moment->segments));
	if (moment->places == NULL || moment->notes == NULL || moment->segments == NULL) {
		keyspace_moment_close(moment);
		return NULL;
	}
	return moment;
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
		own += other->user == moment->user;
	}
	if (all >= KEYSPACE_MOMENTS_MAX || own >= KEYSPACE_MOMENTS_WRITER_MAX) {
		return false;
	}
	moment->now_ms = keyspace->now_ms;
	moment->is_open = true;
	LIST_INSERT_HEAD(&keyspace->moments, moment, link);
	return true;
}

static bool moment_in_log(const struct keyspace_moment *moment, const unsigned char *value)
{
	const struct kvs_region *region = moment->keyspace->region;
	const struct kvs_range_bounds *log = &region->map.ranges[KVS_RANGE_LOG];
	uint64_t offset = (uintptr_t)value - (uintptr_t)region->base;
	return offset >= log->offset && offset - log->offset < log->bytes_max;
}

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

bool keyspace_moment_begins_anew(struct keyspace_moment *moment)
{
	bool anew = moment->is_anew;
	moment->is_anew = false;
	return anew;
}

void keyspace_moment_skip(struct keyspace_moment *moment, uint32_t count)
{
	moment->next = count;
}

bool keyspace_moment_is_torn(const struct keyspace_moment *moment)
{
	return moment->is_torn && keyspace_met_cold(moment->keyspace) == KEYSPACE_COLD;
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
		(void)keyspace_stat(keyspace, key->data, key->bytes, value); // logs its end
		return KEYSPACE_ABSENT;
	}
	value->value = hit.value;
	value->value_bytes = hit.view.value_bytes;
	if (__builtin_expect(hit.kind == KVS_ENTRY_STUB && moment->values, 0)) {
		return keyspace_fetch_value(keyspace, &hit.view, value);
	}
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
	keyspace_moment_unpin(moment);
	while (moment->blocks != NULL) {
		struct moment_block *block = moment->blocks;
		moment->blocks = block->next;
		reclaim_free(reclaim, block, block->bytes);
	}
	reclaim_free_mapped(reclaim, moment->places,
			    (moment->places_mask + 1) * sizeof(*moment->places));
	reclaim_free_mapped(reclaim, moment->notes, moment->count * sizeof(*moment->notes));
	free(moment->segments);
	free(moment->runs);
	free(moment);
}
