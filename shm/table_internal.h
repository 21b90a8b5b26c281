// SPDX-License-Identifier: MIT
//
// What table_write.c and table_resize.c share: addressing buckets, overflow buckets, and filling a
// chain.
#pragma once

#include "shm/table_write.h"

#define KVS_TABLE_OVERFLOW_CHUNK_BYTES (256u << 10)

/// Granularity in which a range of the table takes memory: a huge page, where each get looks; less
/// of overflow buckets, where one get in twenty does: there would be a byte a key in the one that
/// is not full, at a million keys.
static inline uint64_t kvs_table_chunk_bytes(const struct kvs_region *region, unsigned range)
{
	uint64_t most = range >= KVS_RANGE_OVERFLOW_0 ? KVS_TABLE_OVERFLOW_CHUNK_BYTES
						      : KVS_HUGE_PAGE_BYTES;
	most = most > region->page_bytes ? most : region->page_bytes;
	return region->segment_bytes < most ? region->segment_bytes : most;
}

static inline struct kvs_bucket *kvs_table_bucket(const struct kvs_table *table, unsigned range,
						  uint64_t index)
{
	unsigned char *start = table->region->base + table->region->map.ranges[range].offset;
	return (struct kvs_bucket *)(void *)start + index;
}

static inline struct kvs_bucket *kvs_table_primary(const struct kvs_table *table, uint64_t index)
{
	return kvs_table_bucket(table, KVS_RANGE_TABLE_0 + table->side, index);
}

/// The bucket that `bucket` links to, or NULL.
static inline struct kvs_bucket *kvs_table_next(const struct kvs_table *table,
						const struct kvs_bucket *bucket)
{
	uint64_t link = kvs_load_relaxed(&bucket->overflow);
	if (link == 0) {
		return NULL;
	}
	return kvs_table_bucket(table, KVS_RANGE_OVERFLOW_0 + table->side, link - 1);
}

/// Nobody waits for more of a range any more.
static inline void kvs_table_wanted_no_more(struct kvs_table *table, unsigned range)
{
	table->ahead.wanted[range] = 0;
	table->ahead.since_ns[range] = 0;
}

/// Populates a table range up to `bytes` and publishes it; 0, -ENOSPC or -ENOMEM.
int kvs_table_populate(struct kvs_table *table, unsigned range, uint64_t bytes);

/// Gives the last `bytes` of a range back. False, and nothing changed, if the kernel refuses.
bool kvs_table_shorten(struct kvs_table *table, unsigned range, uint64_t bytes);

/// After a merge: whole chunks that the table needs no more wait in limbo from now on.
void kvs_table_tail_look(struct kvs_table *table);

/// Puts an entry into the first empty slot of the chain at `bucket`, linking an overflow bucket if
/// there is none. False if no overflow bucket can be had.
bool kvs_table_chain_put(struct kvs_table *table, struct kvs_bucket *bucket, uint64_t entry);

/// Unlinks overflow buckets of the chain that hold nothing any more.
void kvs_table_chain_trim(struct kvs_table *table, struct kvs_bucket *bucket);

/// Clears every entry of a chain and unlinks all its overflow buckets.
void kvs_table_chain_clear(struct kvs_table *table, struct kvs_bucket *bucket);

/// Gives a side its hash key, while nobody is there: it counts once the side's root is published.
static inline void kvs_table_give_key(const struct kvs_table *table, unsigned side,
				      const uint64_t hash_key[2], uint64_t generation)
{
	struct kvs_hash_side *keyed = &table->region->header->hash_sides[side];
	// Relaxed: partner is the root's release (kvs_table_publish_root()).
	kvs_store_relaxed(&keyed->key[0], hash_key[0]);
	kvs_store_relaxed(&keyed->key[1], hash_key[1]);
	kvs_store_relaxed(&keyed->generation, generation);
}

/// Tells who looks at steps that this one was reached.
static inline void kvs_table_step_reached(const struct kvs_table *table, enum kvs_table_step step)
{
	if (__builtin_expect(table->step_hook != NULL, 0)) {
		table->step_hook(table->step_context, step);
	}
}

/// Publishes the root from table->{turns, side, buckets}.
void kvs_table_publish_root(struct kvs_table *table);
