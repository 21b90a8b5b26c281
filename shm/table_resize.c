// SPDX-License-Identifier: MIT
//
// Growth and shrinkage, one bucket at a time, and the two ways of emptying the table. A split
// copies the entries that belong to the new bucket, publishes the root that counts it, then clears
// them in the old one; a merge is the mirror image. Readers with the old root find a key in the one
// place or, after a miss and a look at the new root, in the other.
#include <string.h>

#include "shm/table_internal.h"

// Hash of the key behind an entry; false if the record cannot be read, which only damage explains.
static bool entry_hash(const struct kvs_table *table, uint64_t entry, uint64_t *hash)
{
	struct kvs_hit hit;
	if (kvs_table_load(&table->region->map, entry, &hit) == KVS_FIND_DAMAGED) {
		return false;
	}
	*hash = kvs_map_hash_on(&table->region->map, table->side, hit.view.key, hit.view.key_bytes);
	return true;
}

// Buckets are split in order, so what the next splits will touch is known.
static void prefetch_coming_splits(const struct kvs_table *table, uint64_t from)
{
	__builtin_prefetch(kvs_table_primary(table, from + 2), 1);
	const struct kvs_bucket *next = kvs_table_primary(table, from + 1);
	for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
		uint64_t entry = kvs_load_relaxed(&next->entry[i]);
		if (entry != 0) {
			__builtin_prefetch(table->region->base + kvs_entry_offset(entry));
		}
	}
}

// Copies the entries of chain `from` whose hash has `bit` into the chain at `to`. False if memory
// for an overflow bucket is lacking.
static bool split_fill(struct kvs_table *table, const struct kvs_bucket *from,
		       struct kvs_bucket *to, uint64_t bit)
{
	for (; from != NULL; from = kvs_table_next(table, from)) {
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			uint64_t entry = kvs_load_relaxed(&from->entry[i]);
			uint64_t hash;
			if (entry == 0 || !entry_hash(table, entry, &hash) || (hash & bit) == 0) {
				continue;
			}
			if (!kvs_table_chain_put(table, to, entry)) {
				return false;
			}
		}
	}
	return true;
}

// Clears in chain `from` what split_fill() copied.
static void split_clear(struct kvs_table *table, struct kvs_bucket *from, uint64_t bit)
{
	for (struct kvs_bucket *at = from; at != NULL; at = kvs_table_next(table, at)) {
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			uint64_t entry = kvs_load_relaxed(&at->entry[i]);
			uint64_t hash;
			if (entry != 0 && entry_hash(table, entry, &hash) && (hash & bit) != 0) {
				// Release: after the root (partner: the fence on a miss).
				kvs_store_release(&at->entry[i], 0);
			}
		}
	}
	kvs_table_chain_trim(table, from);
}

// The last overflow bucket of a chain, and how many slots before it are empty; NULL if there is
// none.
static struct kvs_bucket *chain_tail(const struct kvs_table *table, struct kvs_bucket *bucket,
				     unsigned *holes)
{
	struct kvs_bucket *tail = NULL;
	unsigned empty = 0;
	*holes = 0;
	for (; bucket != NULL; bucket = kvs_table_next(table, bucket)) {
		*holes += empty;
		empty = KVS_BUCKET_ENTRIES;
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			empty -= kvs_load_relaxed(&bucket->entry[i]) != 0;
		}
		tail = bucket;
	}
	return tail;
}

// A split leaves holes in front of overflow buckets. If all entries of the last one fit into them
// they move there, by the rule of every move: fill, publish a root that differs (a turn), clear.
static void chain_compact(struct kvs_table *table, struct kvs_bucket *first)
{
	unsigned holes;
	struct kvs_bucket *tail = chain_tail(table, first, &holes);
	if (tail == first) {
		return;
	}
	unsigned used = 0;
	for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
		used += kvs_load_relaxed(&tail->entry[i]) != 0;
	}
	if (used > holes) {
		return;
	}
	for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
		uint64_t entry = kvs_load_relaxed(&tail->entry[i]);
		if (entry != 0) {
			(void)kvs_table_chain_put(table, first,
						  entry); // a hole before it, as counted
		}
	}
	kvs_table_step_reached(table, KVS_TABLE_COMPACT_FILLED);
	table->turns++;
	kvs_table_publish_root(table);
	kvs_table_step_reached(table, KVS_TABLE_COMPACT_PUBLISHED);
	for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
		// Release: after the root (partner: the fence on a miss).
		kvs_store_release(&tail->entry[i], 0);
	}
	kvs_table_chain_trim(table, first);
}

static void table_turn(struct kvs_table *table, bool growing)
{
	if (table->growing != growing) {
		table->growing = growing;
		table->turns++;
	}
}

static bool table_split(struct kvs_table *table)
{
	uint64_t to_index = table->buckets;
	uint64_t small = UINT64_C(1) << (63 - __builtin_clzll(table->buckets));
	struct kvs_bucket *from = kvs_table_primary(table, to_index - small);
	unsigned range = KVS_RANGE_TABLE_0 + table->side;
	uint64_t bytes = (to_index + 1) * sizeof(struct kvs_bucket);
	if (kvs_table_populate(table, range, bytes) != 0) {
		return false;
	}
	if (bytes > table->tail_from) {
		// Needed again: it stays.
		table->tail_from += kvs_table_chunk_bytes(table->region, range);
	}
	struct kvs_bucket *to = kvs_table_primary(table, to_index);
	if (!split_fill(table, from, to, small)) {
		kvs_table_chain_clear(table, to);
		return false;
	}
	kvs_table_step_reached(table, KVS_TABLE_SPLIT_FILLED);
	table_turn(table, true);
	table->buckets++;
	kvs_table_publish_root(table);
	kvs_table_step_reached(table, KVS_TABLE_SPLIT_PUBLISHED);
	split_clear(table, from, small);
	chain_compact(table, from);
	table->splits++;
	prefetch_coming_splits(table, to_index - small);
	return true;
}

// Entries of a chain, and its buckets added to *buckets.
static uint64_t chain_count(const struct kvs_table *table, const struct kvs_bucket *bucket,
			    uint64_t *buckets)
{
	uint64_t count = 0;
	for (; bucket != NULL; bucket = kvs_table_next(table, bucket)) {
		(*buckets)++;
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			count += kvs_load_relaxed(&bucket->entry[i]) != 0;
		}
	}
	return count;
}

static bool table_merge(struct kvs_table *table)
{
	uint64_t last_index = table->buckets - 1;
	uint64_t small = UINT64_C(1) << (63 - __builtin_clzll(last_index));
	struct kvs_bucket *last = kvs_table_primary(table, last_index);
	struct kvs_bucket *base = kvs_table_primary(table, last_index - small);
	uint64_t chains = 0;
	uint64_t moving = chain_count(table, last, &chains);
	(void)chain_count(table, base, &chains);
	if (chains > KVS_CHAIN_BUCKETS_WRITE) {
		return false; // keys made to collide: no chain becomes longer than a write makes it
	}
	if (kvs_table_secure(table, moving / KVS_BUCKET_ENTRIES + 1) != 0) {
		return false;
	}
	for (const struct kvs_bucket *at = last; at != NULL; at = kvs_table_next(table, at)) {
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			uint64_t entry = kvs_load_relaxed(&at->entry[i]);
			if (entry != 0 && !kvs_table_chain_put(table, base, entry)) {
				return false; // excluded by kvs_table_secure()
			}
		}
	}
	kvs_table_step_reached(table, KVS_TABLE_MERGE_FILLED);
	table_turn(table, false);
	table->buckets--;
	kvs_table_publish_root(table);
	kvs_table_step_reached(table, KVS_TABLE_MERGE_PUBLISHED);
	kvs_table_chain_clear(table, last);
	kvs_table_tail_look(table);
	table->merges++;
	return true;
}

bool kvs_table_wants_growth(const struct kvs_table *table)
{
	return table->entries * 16 > table->buckets * KVS_TABLE_LOAD_GROW_X16;
}

bool kvs_table_step(struct kvs_table *table)
{
	if (table->reseed.active) {
		return false; // what is copied must not move
	}
	if (kvs_table_wants_growth(table)) {
		return table_split(table);
	}
	if (table->buckets > table->buckets_min &&
	    table->entries * 16 < table->buckets * KVS_TABLE_LOAD_SHRINK_X16) {
		return table_merge(table);
	}
	return false;
}

uint64_t kvs_table_growth_bytes(const struct kvs_table *table)
{
	unsigned range = KVS_RANGE_TABLE_0 + table->side;
	uint64_t needed = (table->buckets + 1) * sizeof(struct kvs_bucket);
	return needed > table->populated[range] ? kvs_table_chunk_bytes(table->region, range) : 0;
}

bool kvs_table_switch_side(struct kvs_table *table, void (*fill)(void *context), void *context)
{
	const struct kvs_hash_side *keyed = &table->region->header->hash_sides[table->side];
	unsigned other = table->side ^ 1u;
	kvs_table_reseed_abandon(table);
	table->crowded = false;
	if (!table->other_side_ready ||
	    kvs_table_populate(table, KVS_RANGE_TABLE_0 + other,
			       table->buckets_min * sizeof(struct kvs_bucket)) != 0) {
		return false;
	}
	kvs_limbo_push(table->limbo, kvs_epoch_stamp(table->epochs), KVS_LIMBO_SIDE, table->side,
		       table->populated[KVS_RANGE_TABLE_0 + table->side] +
			       table->populated[KVS_RANGE_OVERFLOW_0 + table->side]);
	// The same hash key: positions of a walk stay what they are.
	kvs_table_give_key(table, other, keyed->key, keyed->generation);
	table->other_side_ready = false;
	table->side = other;
	table->buckets = table->buckets_min;
	table->entries = 0;
	table->turns++;
	if (fill != NULL) {
		fill(context);
	}
	kvs_table_publish_root(table);
	return true;
}

// Clears the entries of a chain but those that stay. Returns how many those are.
static uint64_t chain_sift(struct kvs_table *table, struct kvs_bucket *bucket,
			   bool (*stays)(const void *context, uint64_t entry), const void *context)
{
	uint64_t left = 0;
	for (struct kvs_bucket *at = bucket; at != NULL; at = kvs_table_next(table, at)) {
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			uint64_t entry = kvs_load_relaxed(&at->entry[i]);
			if (entry != 0 && stays(context, entry)) {
				left++;
			} else if (entry != 0) {
				// Release: as in kvs_table_chain_clear().
				kvs_store_release(&at->entry[i], 0);
			}
		}
	}
	kvs_table_chain_trim(table, bucket);
	return left;
}

void kvs_table_clear(struct kvs_table *table, bool (*stays)(const void *context, uint64_t entry),
		     const void *context)
{
	kvs_table_reseed_abandon(table);
	table->crowded = false;
	table->entries = 0;
	for (uint64_t i = 0; i < table->buckets; i++) {
		struct kvs_bucket *bucket = kvs_table_primary(table, i);
		if (stays == NULL) {
			kvs_table_chain_clear(table, bucket);
		} else {
			table->entries += chain_sift(table, bucket, stays, context);
		}
	}
}

bool kvs_table_free_side_part(struct kvs_table *table, unsigned side, uint64_t bytes_max)
{
	struct kvs_region *region = table->region;
	const unsigned ranges[] = { KVS_RANGE_OVERFLOW_0 + side, KVS_RANGE_TABLE_0 + side };
	uint64_t least = kvs_table_chunk_bytes(region, KVS_RANGE_TABLE_0 + side);
	uint64_t left = bytes_max > least ? bytes_max : least;
	for (unsigned i = 0; i < 2; i++) {
		// Whole chunks: who adopts the region counts these, and must find what is below one
		// empty.
		uint64_t chunk = kvs_table_chunk_bytes(region, ranges[i]);
		uint64_t have = table->populated[ranges[i]];
		uint64_t bytes = have < left ? have : left - left % chunk;
		if (have > 0 && bytes > 0 && !kvs_table_shorten(table, ranges[i], bytes)) {
			// The pages stay: then they must at least read as empty.
			memset(region->base + region->map.ranges[ranges[i]].offset, 0, have);
			continue;
		}
		left -= bytes;
		if (table->populated[ranges[i]] > 0) {
			return false;
		}
	}
	table->overflow[side].fresh = 0;
	kvs_store_relaxed(&region->header->overflow_fresh[side], 0);
	table->overflow[side].freed_count = 0;
	table->overflow[side].lost_count = 0;
	table->overflow[side].used_count = 0;
	table->other_side_ready = true;
	return true;
}

void kvs_table_free_side(struct kvs_table *table, unsigned side)
{
	(void)kvs_table_free_side_part(table, side, UINT64_MAX);
}
