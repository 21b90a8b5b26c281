// SPDX-License-Identifier: MIT
//
// Entries and chains. Every change that a reader can see is one release store of one word; a chain
// only loses an overflow bucket when the bucket is empty, and the bucket waits in limbo with its
// link intact, so that a reader that stands in it still finds the rest of its chain.
#include "shm/table_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm/table_internal.h"

int kvs_table_populate(struct kvs_table *table, unsigned range, uint64_t bytes)
{
	struct kvs_region *region = table->region;
	uint64_t chunk = kvs_table_chunk_bytes(region, range);
	uint64_t target = (bytes + chunk - 1) / chunk * chunk;
	uint64_t have = table->populated[range];
	if (target <= have) {
		return 0;
	}
	if (target > region->map.ranges[range].bytes_max) {
		return -ENOSPC;
	}
	int result =
		kvs_region_populate(region, region->map.ranges[range].offset + have, target - have);
	if (result != 0) {
		return result;
	}
	table->populated[range] = target;
	region->table_bytes += target - have;
	if (table->ahead.wanted[range] <= target) {
		kvs_table_wanted_no_more(table, range);
	}
	kvs_region_publish(region, (enum kvs_range)range, target);
	return 0;
}

void kvs_table_publish_root(struct kvs_table *table)
{
	uint64_t root = kvs_root_make(table->turns, table->side, table->buckets);
	// Release: every bucket it counts is filled (partner: kvs_table_find()).
	kvs_store_release(&table->region->header->hot.table_root, root);
}

int kvs_table_init(struct kvs_table *table, struct kvs_region *region,
		   struct kvs_epoch_domain *epochs, struct kvs_limbo *limbo)
{
	memset(table, 0, sizeof(*table));
	table->region = region;
	table->epochs = epochs;
	table->limbo = limbo;
	table->growing = true;
	table->tail_from = KVS_TABLE_TAIL_NONE;
	table->other_side_ready = true;
	uint64_t chunk = kvs_table_chunk_bytes(region, KVS_RANGE_TABLE_0);
	table->buckets_min = chunk / sizeof(struct kvs_bucket);
	table->buckets = table->buckets_min;
	int result = kvs_table_populate(table, KVS_RANGE_TABLE_0, chunk);
	if (result == 0) {
		kvs_table_publish_root(table);
	}
	return result;
}

void kvs_table_fini(struct kvs_table *table)
{
	free(table->overflow[0].freed);
	free(table->overflow[1].freed);
	memset(table, 0, sizeof(*table));
}

int kvs_table_secure(struct kvs_table *table, uint64_t count)
{
	struct kvs_overflow *overflow = &table->overflow[table->side];
	if (count <= overflow->freed_count) {
		return 0;
	}
	uint64_t fresh = count - overflow->freed_count;
	return kvs_table_await(table, KVS_RANGE_OVERFLOW_0 + table->side,
			       (overflow->fresh + fresh) * sizeof(struct kvs_bucket));
}

// Clears a bucket that no reader can be looking at.
static void overflow_empty(struct kvs_table *table, unsigned side, uint64_t index)
{
	struct kvs_bucket *bucket = kvs_table_bucket(table, KVS_RANGE_OVERFLOW_0 + side, index);
	for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
		kvs_store_relaxed(&bucket->entry[i], 0);
	}
	kvs_store_relaxed(&bucket->overflow, 0);
}

// Takes an empty overflow bucket; false if there is none.
static bool overflow_take(struct kvs_table *table, uint64_t *index)
{
	struct kvs_overflow *overflow = &table->overflow[table->side];
	if (overflow->freed_count > 0) {
		*index = overflow->freed[--overflow->freed_count];
		overflow_empty(table, table->side, *index); // of poison
	} else if (kvs_table_populate(table, KVS_RANGE_OVERFLOW_0 + table->side,
				      (overflow->fresh + 1) * sizeof(struct kvs_bucket)) == 0) {
		*index = overflow->fresh++;
		overflow_empty(table, table->side, *index); // of a former life's stray bytes
		// Relaxed: before the bucket is linked, in this order for who adopts the region.
		kvs_store_relaxed(&table->region->header->overflow_fresh[table->side],
				  overflow->fresh);
	} else {
		return false;
	}
	overflow->used_count++;
	return true;
}

void kvs_table_free_overflow(struct kvs_table *table, unsigned side, uint64_t index)
{
	struct kvs_overflow *overflow = &table->overflow[side];
	const struct kvs_region *region = table->region;
	overflow_empty(table, side, index);
	kvs_region_poison(region,
			  region->map.ranges[KVS_RANGE_OVERFLOW_0 + side].offset +
				  index * sizeof(struct kvs_bucket),
			  sizeof(struct kvs_bucket));
	overflow->used_count--;
	if (overflow->freed_count == overflow->freed_capacity) {
		uint32_t capacity = overflow->freed_capacity ? overflow->freed_capacity * 2 : 256;
		uint32_t *freed = realloc(overflow->freed, capacity * sizeof(*freed));
		if (freed == NULL) {
			overflow->lost_count++;
			return; // leaked until the side is emptied
		}
		overflow->freed = freed;
		overflow->freed_capacity = capacity;
	}
	overflow->freed[overflow->freed_count++] = (uint32_t)index;
}

bool kvs_table_chain_put(struct kvs_table *table, struct kvs_bucket *bucket, uint64_t entry)
{
	struct kvs_bucket *last = bucket;
	for (; bucket != NULL; bucket = kvs_table_next(table, bucket)) {
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			if (kvs_load_relaxed(&bucket->entry[i]) == 0) {
				// Release: the record is complete (partner: find_in_chain()).
				kvs_store_release(&bucket->entry[i], entry);
				return true;
			}
		}
		last = bucket;
	}
	uint64_t index;
	if (!overflow_take(table, &index)) {
		return false;
	}
	bucket = kvs_table_bucket(table, KVS_RANGE_OVERFLOW_0 + table->side, index);
	kvs_store_relaxed(&bucket->entry[0], entry);
	// Release: the bucket behind the link is filled (partner: find_in_chain()).
	kvs_store_release(&last->overflow, index + 1);
	return true;
}

static bool bucket_is_empty(const struct kvs_bucket *bucket)
{
	uint64_t any = 0;
	for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
		any |= kvs_load_relaxed(&bucket->entry[i]);
	}
	return any == 0;
}

// Takes `bucket`, which follows `before`, out of its chain.
static void chain_unlink(struct kvs_table *table, struct kvs_bucket *before,
			 struct kvs_bucket *bucket)
{
	uint64_t index = kvs_load_relaxed(&before->overflow) - 1;
	kvs_store_release(&before->overflow, kvs_load_relaxed(&bucket->overflow));
	kvs_limbo_push(table->limbo, kvs_epoch_stamp(table->epochs), KVS_LIMBO_OVERFLOW, index,
		       table->side);
}

void kvs_table_chain_trim(struct kvs_table *table, struct kvs_bucket *bucket)
{
	struct kvs_bucket *before = bucket;
	struct kvs_bucket *next;
	while ((next = kvs_table_next(table, before)) != NULL) {
		if (bucket_is_empty(next)) {
			chain_unlink(table, before, next);
		} else {
			before = next;
		}
	}
}

void kvs_table_chain_clear(struct kvs_table *table, struct kvs_bucket *bucket)
{
	for (struct kvs_bucket *at = bucket; at != NULL; at = kvs_table_next(table, at)) {
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			if (kvs_load_relaxed(&at->entry[i]) != 0) {
				// Release: after the root that moved it (partner: the fence on a
				// miss).
				kvs_store_release(&at->entry[i], 0);
			}
		}
	}
	kvs_table_chain_trim(table, bucket);
}

// A long chain, followed to `bucket`, its KVS_CHAIN_BUCKETS_RESEEDth overflow bucket. Where memory
// is too short for the table to grow, chains are as much longer as it is fuller: by less than a
// bucket for each entry that a primary bucket has on average.
static __attribute__((noinline)) bool chain_may_grow(struct kvs_table *table,
						     const struct kvs_bucket *bucket)
{
	uint64_t load = table->entries / table->buckets;
	uint64_t most = KVS_CHAIN_BUCKETS_WRITE + load;
	uint64_t length = KVS_CHAIN_BUCKETS_RESEED;
	most = most < KVS_CHAIN_BUCKETS_MAX / 2 ? most : KVS_CHAIN_BUCKETS_MAX / 2;
	while (length < most && (bucket = kvs_table_next(table, bucket)) != NULL) {
		length++;
	}
	if (length >= KVS_CHAIN_BUCKETS_RESEED + load) {
		table->crowded = true;
	}
	return length < most;
}

bool kvs_table_chain_has_room(struct kvs_table *table, uint64_t hash)
{
	uint64_t index = kvs_bucket_index(hash, table->buckets);
	const struct kvs_bucket *bucket = kvs_table_primary(table, index);
	for (unsigned length = 0; length < KVS_CHAIN_BUCKETS_RESEED; length++) {
		bucket = kvs_table_next(table, bucket);
		if (__builtin_expect(bucket == NULL, 1)) {
			return true;
		}
	}
	return chain_may_grow(table, bucket);
}

bool kvs_table_insert(struct kvs_table *table, uint64_t hash, uint64_t entry)
{
	uint64_t index = kvs_bucket_index(hash, table->buckets);
	if (!kvs_table_chain_put(table, kvs_table_primary(table, index), entry)) {
		return false;
	}
	table->entries++;
	if (__builtin_expect(table->reseed.active, 0)) {
		kvs_table_mirror(table, hash, 0, entry);
	}
	return true;
}

// Does the slot stand in an overflow bucket of the current side?
static bool slot_in_overflow(const struct kvs_table *table, const uint64_t *slot)
{
	unsigned range = KVS_RANGE_OVERFLOW_0 + table->side;
	uint64_t offset = (uint64_t)((const unsigned char *)slot - table->region->base);
	uint64_t start = table->region->map.ranges[range].offset;
	return offset >= start && offset < start + table->region->map.ranges[range].bytes_max;
}

void kvs_table_remove(struct kvs_table *table, uint64_t hash, uint64_t *slot)
{
	uint64_t before = kvs_load_relaxed(slot);
	kvs_store_release(slot, 0); // partner: find_in_chain()
	if (__builtin_expect(table->reseed.active, 0)) {
		kvs_table_mirror(table, hash, before, 0);
	}
	table->entries--;
	if (slot_in_overflow(table, slot)) {
		uint64_t index = kvs_bucket_index(hash, table->buckets);
		kvs_table_chain_trim(table, kvs_table_primary(table, index));
	}
}

uint64_t *kvs_table_slot_of(const struct kvs_table *table, uint64_t hash, uint64_t entry_offset)
{
	uint64_t index = kvs_bucket_index(hash, table->buckets);
	struct kvs_bucket *bucket = kvs_table_primary(table, index);
	for (; bucket != NULL; bucket = kvs_table_next(table, bucket)) {
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			uint64_t entry = kvs_load_relaxed(&bucket->entry[i]);
			if (entry != 0 && kvs_entry_offset(entry) == entry_offset) {
				return &bucket->entry[i];
			}
		}
	}
	return NULL;
}

uint64_t *kvs_table_slot_by_tag(const struct kvs_table *table, uint64_t hash)
{
	uint64_t index = kvs_bucket_index(hash, table->buckets);
	struct kvs_bucket *bucket = kvs_table_primary(table, index);
	for (; bucket != NULL; bucket = kvs_table_next(table, bucket)) {
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			uint64_t entry = kvs_load_relaxed(&bucket->entry[i]);
			if (entry != 0 && kvs_entry_tag_matches(entry, hash)) {
				return &bucket->entry[i];
			}
		}
	}
	return NULL;
}
