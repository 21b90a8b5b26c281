// SPDX-License-Identifier: MIT
//
// The usual case of kvs_table_find(), inline: the key's entry stands in its first bucket and names
// a plain record whose value is in it. A get that takes this way is about 150 instructions in all,
// so that the cache misses of several gets in a row overlap; what costs there is not work but the
// length of the instruction stream between two misses, and a branch whose outcome hangs on the
// bucket's bytes. Hence no loop that ends at the match. Everything else (overflow, stubs, large
// values, two entries with one tag, a miss, damage) is "no answer", and kvs_table_find() decides.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "shm/map.h"
#include "shm/record.h"
#include "shm/table.h"

struct kvs_quick {
	const struct kvs_record *record;
	const unsigned char *value;
	uint64_t seq;
	uint64_t expiry_ms; // wall clock, 0 = never
	uint32_t value_bytes;
};

static inline bool kvs_quick_key_is(const unsigned char *at, const unsigned char *key,
				    size_t key_bytes)
{
	if (key_bytes - 8 <= 8) { // 8..16: two words that may overlap
		uint64_t a, b, c, d;
		memcpy(&a, at, 8);
		memcpy(&b, key, 8);
		memcpy(&c, at + key_bytes - 8, 8);
		memcpy(&d, key + key_bytes - 8, 8);
		return ((a ^ b) | (c ^ d)) == 0;
	}
	return memcmp(at, key, key_bytes) == 0;
}

/// Finds `key` if that is easy. False says nothing about whether it is there.
/// Call with: as kvs_table_find(), key_bytes at least 1. Thread must: as kvs_table_find(). Orders:
/// the entry word is load-acquired, pairing with the writer's release store.
static inline __attribute__((always_inline)) bool kvs_table_quick(const struct kvs_map *map,
								  uint64_t hash, const void *key,
								  size_t key_bytes,
								  struct kvs_quick *out)
{
	// Acquire: the buckets it counts are filled (partner: the writer's root store).
	uint64_t root = kvs_load_acquire(&kvs_map_header(map)->hot.table_root);
	unsigned range = KVS_RANGE_TABLE_0 + kvs_root_side(root);
	uint64_t buckets = kvs_root_buckets(root);
	uint64_t index = kvs_bucket_index(hash, buckets | (buckets == 0));
	// Acquire: partner kvs_map_extend(), possibly on another thread of this process.
	if (__builtin_expect(
		    index >= kvs_load_acquire(&map->ready[range]) / sizeof(struct kvs_bucket), 0)) {
		return false;
	}
	const unsigned char *table = map->base + map->ranges[range].offset;
	const struct kvs_bucket *bucket = (const struct kvs_bucket *)(const void *)table + index;
	uint64_t wanted = hash >> 48 << 3 | KVS_ENTRY_VALUE;
	unsigned place = 0;
#pragma GCC unroll 8
	for (unsigned i = KVS_BUCKET_ENTRIES - 1; i > 0; i--) {
		place = kvs_load_relaxed(&bucket->entry[i]) >> 45 == wanted ? i : place;
	}
	// Acquire: the record behind it is complete (partner: the writer's publishing store).
	uint64_t entry = kvs_load_acquire(&bucket->entry[place]);
	uint64_t start = kvs_entry_offset(entry) - map->ranges[KVS_RANGE_LOG].offset;
	uint64_t ready = kvs_load_acquire(&map->ready[KVS_RANGE_LOG]);
	if (__builtin_expect(entry >> 45 != wanted || start >= ready ||
				     ready - start < sizeof(struct kvs_record),
			     0)) {
		return false;
	}
	const unsigned char *at = map->base + kvs_entry_offset(entry);
	const struct kvs_record *record = (const struct kvs_record *)(const void *)at;
	// Relaxed, not for order but so that each word is loaded exactly once.
	uint64_t seq_flags = kvs_load_relaxed(&record->seq_flags);
	uint64_t time_key = kvs_load_relaxed(&record->time_key);
	uint32_t value_bytes = kvs_load_relaxed_32(&record->value_bytes);
	uint64_t limit = map->segment_bytes - (start & (map->segment_bytes - 1));
	uint64_t expiry = seq_flags >> KVS_SEQ_BITS & KVS_RECORD_EXPIRY;
	uint64_t head_bytes = sizeof(*record);
	if (expiry != 0) {
		// A branch, not arithmetic: predicted, it lets the key be loaded beside the header.
		head_bytes += 8;
		__asm__("" : "+r"(head_bytes));
	}
	const uint64_t plain = (uint64_t)(KVS_RECORD_MORE | KVS_RECORD_EXPIRY) << KVS_SEQ_BITS;
	if (__builtin_expect((seq_flags & ~plain) - 1 >= KVS_SEQ_MAX || // 0, or other flags
				     ((time_key >> KVS_TIME_BITS) & 0xfffu) != key_bytes ||
				     head_bytes + key_bytes + value_bytes > limit ||
				     !kvs_quick_key_is(at + head_bytes, key, key_bytes),
			     0)) {
		return false;
	}
	out->record = record;
	out->value = at + head_bytes + key_bytes;
	out->seq = seq_flags & KVS_SEQ_MAX;
	out->value_bytes = value_bytes;
	out->expiry_ms =
		expiry ? kvs_load_relaxed((const uint64_t *)(const void *)(record + 1)) : 0;
	return true;
}
