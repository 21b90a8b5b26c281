// SPDX-License-Identifier: MIT
//
// The reverse-binary walk: the cursor counts in the bits of the smaller mask from the top down, so
// that the buckets a key can be in after growth or shrinkage are exactly those that one cursor
// position covers. A key that is there throughout is visited at least once; some may come twice. A
// position means nothing under another hash key, so a cursor carries the generation of its own.
#include "shm/table.h"

#define SCAN_GENERATION_SHIFT 48 // above any position: KVS_ROOT_BUCKETS_BITS and one more
static_assert(KVS_ROOT_BUCKETS_BITS < SCAN_GENERATION_SHIFT, "positions lie below");

static uint64_t scan_reverse(uint64_t word)
{
	uint64_t bits = UINT64_C(0x5555555555555555);
	uint64_t pairs = UINT64_C(0x3333333333333333);
	uint64_t nibbles = UINT64_C(0x0f0f0f0f0f0f0f0f);
	word = (word >> 1 & bits) | (word & bits) << 1;
	word = (word >> 2 & pairs) | (word & pairs) << 2;
	word = (word >> 4 & nibbles) | (word & nibbles) << 4;
	return __builtin_bswap64(word);
}

static void scan_chain(const struct kvs_map *map, unsigned side, uint64_t index,
		       void (*visit)(void *context, uint64_t entry), void *context)
{
	unsigned range = KVS_RANGE_TABLE_0 + side;
	for (unsigned steps = 0; steps < map->chain_buckets_max; steps++) {
		if (index >= kvs_load_acquire(&map->ready[range]) / sizeof(struct kvs_bucket)) {
			return;
		}
		const unsigned char *start = map->base + map->ranges[range].offset;
		const struct kvs_bucket *bucket =
			(const struct kvs_bucket *)(const void *)start + index;
		// Acquire on each: partner the writer's publishing and linking stores. The link is
		// loaded first, because a visitor that removes entries may have the bucket
		// unlinked.
		uint64_t link = kvs_load_acquire(&bucket->overflow);
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			uint64_t entry = kvs_load_acquire(&bucket->entry[i]);
			if (entry != 0) {
				visit(context, entry);
			}
		}
		if (link == 0) {
			return;
		}
		range = KVS_RANGE_OVERFLOW_0 + side;
		index = link - 1;
	}
}

uint64_t kvs_table_scan(const struct kvs_map *map, uint64_t cursor,
			void (*visit)(void *context, uint64_t entry), void *context)
{
	const struct kvs_hot *hot = &kvs_map_header(map)->hot;
	uint64_t root = kvs_load_acquire(&hot->table_root);
	uint64_t position = 0;
	uint64_t generation = 0;
	uint64_t mask = 0;
	for (unsigned tries = 0; tries < KVS_FIND_RETRIES_MAX; tries++) {
		uint64_t buckets = kvs_root_buckets(root);
		if (buckets == 0) {
			return 0;
		}
		unsigned level = 63u - (unsigned)__builtin_clzll(buckets);
		uint64_t small = UINT64_C(1) << level;
		mask = small - 1;
		generation = kvs_table_generation(map, root);
		bool same = cursor >> SCAN_GENERATION_SHIFT == generation;
		position = same ? cursor & ((UINT64_C(1) << SCAN_GENERATION_SHIFT) - 1) : 0;
		uint64_t base = position & mask;
		scan_chain(map, kvs_root_side(root), base, visit, context);
		if (base + small < buckets) {
			scan_chain(map, kvs_root_side(root), base + small, visit, context);
		}
		// If the root moved meanwhile (only for walkers that are not the writer), look
		// again.
		kvs_fence_acquire();
		uint64_t now = kvs_load_acquire(&hot->table_root);
		if (now == root) {
			break;
		}
		root = now;
	}
	position |= ~mask;
	position = scan_reverse(position);
	position++;
	position = scan_reverse(position);
	return position != 0 ? generation << SCAN_GENERATION_SHIFT | position : 0;
}

uint64_t kvs_table_generation(const struct kvs_map *map, uint64_t root)
{
	const struct kvs_hash_side *keyed = &kvs_map_header(map)->hash_sides[kvs_root_side(root)];
	return kvs_load_relaxed(&keyed->generation) & 0xffff;
}

uint64_t kvs_table_cursor(const struct kvs_map *map, uint64_t position)
{
	uint64_t root = kvs_load_acquire(&kvs_map_header(map)->hot.table_root);
	position &= (UINT64_C(1) << SCAN_GENERATION_SHIFT) - 1;
	return kvs_table_generation(map, root) << SCAN_GENERATION_SHIFT | position;
}

static bool skip_is_empty(const struct kvs_bucket *bucket)
{
	uint64_t any = kvs_load_relaxed(&bucket->overflow);
	for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
		any |= kvs_load_relaxed(&bucket->entry[i]);
	}
	return any == 0;
}

uint64_t kvs_table_skip(const struct kvs_map *map, uint64_t position, uint64_t limit)
{
	uint64_t root = kvs_load_relaxed(&kvs_map_header(map)->hot.table_root);
	uint64_t buckets = kvs_root_buckets(root);
	unsigned range = KVS_RANGE_TABLE_0 + kvs_root_side(root);
	uint64_t ready = kvs_load_relaxed(&map->ready[range]) / sizeof(struct kvs_bucket);
	const void *start = map->base + map->ranges[range].offset;
	const struct kvs_bucket *bucket = start;
	uint64_t small = buckets > 0 ? UINT64_C(1) << (63 - __builtin_clzll(buckets)) : 1;
	for (uint64_t i = 0; i < limit; i++, position++) {
		uint64_t base = position & (small - 1);
		uint64_t high = base + small < buckets ? base + small : base;
		if (base == small - 1 || high >= ready || !skip_is_empty(bucket + base) ||
		    !skip_is_empty(bucket + high)) {
			return position;
		}
	}
	return position;
}
