// SPDX-License-Identifier: MIT
//
// Finding a key. The loop is written for the usual case, one bucket and one record, and for any
// bytes: every offset is compared with what is mapped before it is followed, chains are capped, and
// a miss is believed only after the root has been looked at again.
#include "shm/table.h"

#include <string.h>

#include "shm/hash.h"
#include "shm/table_quick.h"

static const struct kvs_hot *find_hot(const struct kvs_map *map)
{
	return &kvs_map_header(map)->hot;
}

uint64_t kvs_map_hash_on(const struct kvs_map *map, unsigned side, const void *key,
			 size_t key_bytes)
{
	const struct kvs_hash_side *keyed = &kvs_map_header(map)->hash_sides[side & 1u];
	// Relaxed: written before the root that led here (partner: kvs_table_publish_root()).
	const uint64_t words[2] = { kvs_load_relaxed(&keyed->key[0]),
				    kvs_load_relaxed(&keyed->key[1]) };
	return kvs_hash_keyed(map->hash_kind, words, key, key_bytes);
}

uint64_t kvs_map_hash(const struct kvs_map *map, const void *key, size_t key_bytes)
{
	// Acquire: the side's hash key is written (partner: the writer's root store).
	uint64_t root = kvs_load_acquire(&find_hot(map)->table_root);
	return kvs_map_hash_on(map, kvs_root_side(root), key, key_bytes);
}

// The bucket at `index` of a side, or NULL if this process has not mapped it.
static const struct kvs_bucket *find_bucket(const struct kvs_map *map, unsigned range,
					    uint64_t index)
{
	// Acquire: partner kvs_map_extend(), possibly on another thread of this process.
	uint64_t ready = kvs_load_acquire(&map->ready[range]);
	if (__builtin_expect(index >= ready / sizeof(struct kvs_bucket), 0)) {
		return NULL;
	}
	const unsigned char *start = map->base + map->ranges[range].offset;
	return (const struct kvs_bucket *)(const void *)start + index;
}

static enum kvs_find_result load_large(const struct kvs_map *map, struct kvs_hit *hit)
{
	struct kvs_run run = kvs_record_run(&hit->view);
	const struct kvs_range_bounds *range = &map->ranges[KVS_RANGE_LARGE];
	uint64_t start = run.offset - range->offset;
	if (run.offset < range->offset || start > range->bytes_max ||
	    hit->view.value_bytes > range->bytes_max - start) {
		return KVS_FIND_DAMAGED;
	}
	if (start + hit->view.value_bytes > kvs_load_acquire(&map->ready[KVS_RANGE_LARGE])) {
		return KVS_FIND_UNMAPPED;
	}
	hit->value = map->base + run.offset;
	return KVS_FIND_HIT;
}

enum kvs_find_result kvs_table_load(const struct kvs_map *map, uint64_t entry, struct kvs_hit *hit)
{
	uint64_t offset = kvs_entry_offset(entry);
	uint64_t start = offset - map->ranges[KVS_RANGE_LOG].offset; // wraps to huge if below
	if (__builtin_expect(start >= kvs_load_acquire(&map->ready[KVS_RANGE_LOG]), 0)) {
		return start < map->ranges[KVS_RANGE_LOG].bytes_max ? KVS_FIND_UNMAPPED
								    : KVS_FIND_DAMAGED;
	}
	uint64_t limit = map->segment_bytes - (start & (map->segment_bytes - 1));
	hit->entry = entry;
	hit->kind = (enum kvs_entry_kind)kvs_entry_kind(entry);
	if (kvs_record_parse(map->base + offset, limit, &hit->view) != 0) {
		return KVS_FIND_DAMAGED;
	}
	if (__builtin_expect((hit->view.flags & (KVS_RECORD_LARGE | KVS_RECORD_STUB)) == 0, 1)) {
		hit->value = hit->view.payload;
		return KVS_FIND_HIT;
	}
	hit->value = NULL;
	return hit->view.flags & KVS_RECORD_LARGE ? load_large(map, hit) : KVS_FIND_HIT;
}

// Looks through one chain. HIT, ABSENT (not in this chain), UNMAPPED or DAMAGED.
static enum kvs_find_result find_in_chain(const struct kvs_map *map,
					  const struct kvs_bucket *bucket, unsigned overflow_range,
					  uint64_t hash, const void *key, size_t key_bytes,
					  struct kvs_hit *hit)
{
	for (unsigned steps = 0; steps < map->chain_buckets_max; steps++) {
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
			uint64_t entry = kvs_load_relaxed(&bucket->entry[i]);
			if (!kvs_entry_tag_matches(entry, hash) || entry == 0) {
				continue;
			}
			// Acquire: the record behind it is complete (partner: the writer's
			// publishing store).
			entry = kvs_load_acquire(&bucket->entry[i]);
			// unreached: the writer clears the entry between the two loads.
			if (entry == 0) {
				continue;
			}
			enum kvs_find_result result = kvs_table_load(map, entry, hit);
			if (result != KVS_FIND_HIT) {
				return result;
			}
			if (hit->view.key_bytes == key_bytes &&
			    memcmp(hit->view.key, key, key_bytes) == 0) {
				hit->slot = (uint64_t *)(uintptr_t)&bucket->entry[i];
				return KVS_FIND_HIT;
			}
		}
		// Acquire: the overflow bucket is filled (partner: the writer's linking store).
		uint64_t link = kvs_load_acquire(&bucket->overflow);
		if (__builtin_expect(link == 0, 1)) {
			return KVS_FIND_ABSENT;
		}
		bucket = find_bucket(map, overflow_range, link - 1);
		if (bucket == NULL) {
			return KVS_FIND_UNMAPPED;
		}
	}
	return KVS_FIND_DAMAGED;
}

enum kvs_find_result kvs_table_find(const struct kvs_map *map, uint64_t hash, const void *key,
				    size_t key_bytes, struct kvs_hit *hit)
{
	// Acquire: the buckets it counts are filled (partner: the writer's root store).
	uint64_t root = kvs_load_acquire(&find_hot(map)->table_root);
	for (unsigned tries = 0; tries < KVS_FIND_RETRIES_MAX; tries++) {
		uint64_t buckets = kvs_root_buckets(root);
		if (__builtin_expect(buckets == 0, 0)) {
			return KVS_FIND_DAMAGED;
		}
		unsigned side = kvs_root_side(root);
		uint64_t index = kvs_bucket_index(hash, buckets);
		const struct kvs_bucket *bucket = find_bucket(map, KVS_RANGE_TABLE_0 + side, index);
		if (__builtin_expect(bucket == NULL, 0)) {
			return KVS_FIND_UNMAPPED;
		}
		enum kvs_find_result result = find_in_chain(
			map, bucket, KVS_RANGE_OVERFLOW_0 + side, hash, key, key_bytes, hit);
		if (result != KVS_FIND_ABSENT) {
			return result;
		}
		// A miss counts only if the key's bucket is still the one searched: entries are
		// cleared in their old bucket after the root that moves them is published.
		kvs_fence_acquire();
		uint64_t now = kvs_load_acquire(&find_hot(map)->table_root);
		bool still =
			now == root || (kvs_root_turns(now) == kvs_root_turns(root) &&
				    kvs_root_buckets(now) != 0 &&
					kvs_bucket_index(hash, kvs_root_buckets(now)) == index);
		// And only if it is the key's: the hash may be one of before the hash key changed.
		uint64_t searched = hash;
		hash = kvs_map_hash_on(map, still ? side : kvs_root_side(now), key, key_bytes);
		if (still && hash == searched) {
			return KVS_FIND_ABSENT;
		}
		root = now;
	}
	return KVS_FIND_MOVING;
}

void kvs_quick_aim_clear(struct kvs_quick_aim *aim)
{
	static const struct kvs_bucket nothing __attribute__((aligned(KVS_CACHE_LINE_BYTES)));
	// An empty entry must lie below the log.
	*aim = (struct kvs_quick_aim){ .bucket = &nothing, .log_offset = KVS_CACHE_LINE_BYTES };
}

bool kvs_quick_aim(const struct kvs_map *map, struct kvs_quick_aim *aim)
{
	// Acquire: the buckets it counts are filled (partner: the writer's root store).
	uint64_t root = kvs_load_acquire(&find_hot(map)->table_root);
	uint64_t buckets = kvs_root_buckets(root);
	uint64_t log_ready = kvs_load_acquire(&map->ready[KVS_RANGE_LOG]);
	unsigned range = KVS_RANGE_TABLE_0 + kvs_root_side(root);
	kvs_quick_aim_clear(aim);
	if (map->hash_kind != KVS_HASH_XXH3) {
		return false; // the quick way knows no other
	}
	if (buckets == 0 || find_bucket(map, range, buckets - 1) == NULL ||
	    log_ready < sizeof(struct kvs_record)) {
		return false;
	}
	aim->bucket = find_bucket(map, range, 0);
	aim->last = buckets - 1;
	aim->unsplit = UINT64_C(1) << (63u - (unsigned)__builtin_clzll(buckets));
	aim->mask = 2 * aim->unsplit - 1;
	aim->log_offset = map->ranges[KVS_RANGE_LOG].offset / 8;
	aim->log_last = (log_ready - sizeof(struct kvs_record)) / 8;
	aim->log = map->base + map->ranges[KVS_RANGE_LOG].offset;
	aim->log_last_at = aim->log + log_ready - sizeof(struct kvs_record);
	// Relaxed: as in kvs_map_hash_on().
	const struct kvs_hash_side *keyed = &kvs_map_header(map)->hash_sides[kvs_root_side(root)];
	aim->hash_seed = kvs_load_relaxed(&keyed->key[0]);
	aim->flips = kvs_hash_flips(aim->hash_seed);
	aim->root = root;
	return true;
}

void kvs_table_prefetch_bucket(const struct kvs_map *map, uint64_t hash)
{
	uint64_t root = kvs_load_relaxed(&find_hot(map)->table_root);
	if (kvs_root_buckets(root) != 0) {
		uint64_t index = kvs_bucket_index(hash, kvs_root_buckets(root));
		const struct kvs_bucket *bucket =
			find_bucket(map, KVS_RANGE_TABLE_0 + kvs_root_side(root), index);
		if (bucket != NULL) {
			__builtin_prefetch(bucket);
		}
	}
}

void kvs_table_prefetch_record(const struct kvs_map *map, uint64_t hash)
{
	uint64_t root = kvs_load_relaxed(&find_hot(map)->table_root);
	if (kvs_root_buckets(root) == 0) {
		return;
	}
	const struct kvs_bucket *bucket =
		find_bucket(map, KVS_RANGE_TABLE_0 + kvs_root_side(root),
			    kvs_bucket_index(hash, kvs_root_buckets(root)));
	if (bucket == NULL) {
		return;
	}
	for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
		uint64_t entry = kvs_load_relaxed(&bucket->entry[i]);
		if (entry != 0 && kvs_entry_tag_matches(entry, hash)) {
			// An address that is not mapped is no fault for a prefetch.
			const unsigned char *at = map->base + kvs_entry_offset(entry);
			__builtin_prefetch(at);
			if (kvs_entry_lines(entry) > 1) {
				__builtin_prefetch(at + KVS_CACHE_LINE_BYTES);
			}
		}
	}
	uint64_t link = kvs_load_relaxed(&bucket->overflow);
	if (link != 0) {
		const struct kvs_bucket *next =
			find_bucket(map, KVS_RANGE_OVERFLOW_0 + kvs_root_side(root), link - 1);
		if (next != NULL) {
			__builtin_prefetch(next);
		}
	}
}
