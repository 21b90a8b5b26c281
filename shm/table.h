// SPDX-License-Identifier: MIT
//
// The one walk over the mapped table, used by clients, by kvd and by the persister alike: bucket by
// linear hashing, tags, the key's bytes, and the rule for a miss (a hit is valid as found; a miss
// only if the key's bucket did not move meanwhile). Everything loaded is bounded before it is used,
// so any bytes in the region give an answer, never a crash or an endless loop.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "shm/map.h"
#include "shm/record.h"

enum kvs_find_result {
	KVS_FIND_HIT,	   // a record for this key: value, stub, or (see `kind`) a tombstone
	KVS_FIND_ABSENT,   // no entry: removed and durable, or never there
	KVS_FIND_UNMAPPED, // published but not yet mapped here: kvs_map_extend(), then again
	KVS_FIND_MOVING,   // the table moved under the search KVS_FIND_RETRIES_MAX times
	KVS_FIND_DAMAGED,  // an offset, a length or a chain that cannot be
};

struct kvs_hit {
	struct kvs_record_view view;
	// the value's bytes, inline or in the large range; NULL for stubs
	const unsigned char *value;
	uint64_t entry; // the entry word as found
	uint64_t *slot; // where it stood; for the writer
	enum kvs_entry_kind kind;
};

/// Bucket index of `hash` in a table of `buckets` buckets (at least 1), by linear hashing.
static inline uint64_t kvs_bucket_index(uint64_t hash, uint64_t buckets)
{
	unsigned level = 63u - (unsigned)__builtin_clzll(buckets); // 2^level <= buckets
	uint64_t index = hash & ((UINT64_C(2) << level) - 1);
	// No branch: which side a hash falls on cannot be predicted.
	return index - ((uint64_t)(index >= buckets) << level);
}

/// Hash of a key on one side of the table.
/// Call with: side 0 or 1. Thread must: as kvs_table_find(), or else the key of the side may change
/// meanwhile; then it is the hash of nothing. Orders: none.
uint64_t kvs_map_hash_on(const struct kvs_map *map, unsigned side, const void *key,
			 size_t key_bytes);

/// The same on the side that serves now.
uint64_t kvs_map_hash(const struct kvs_map *map, const void *key, size_t key_bytes);

/// Finds `key`. Tombstones are returned as hits of that kind: a reader counts them as a miss.
/// Expiry is not looked at.
/// Call with: hash = kvs_map_hash(map, key), which may be out of date: no miss is believed but by
/// the hash that the key has on the side that was searched. Thread must: be inside a read section
/// (the writer: be the writer). Orders: entry words are load-acquired, pairing with the writer's
/// release stores; a miss is confirmed by an acquire fence and a reload of the root.
enum kvs_find_result kvs_table_find(const struct kvs_map *map, uint64_t hash, const void *key,
				    size_t key_bytes, struct kvs_hit *hit);

/// Reads the record and value that `entry` names, with every bound checked. Returns KVS_FIND_HIT,
/// KVS_FIND_UNMAPPED or KVS_FIND_DAMAGED. The key is not compared.
/// Call with: an entry word loaded inside this section. Thread must: as kvs_table_find(). Orders:
/// none.
enum kvs_find_result kvs_table_load(const struct kvs_map *map, uint64_t entry, struct kvs_hit *hit);

/// Prefetches the bucket of `hash`, and, in a second pass, the records its tags point at.
/// Call with: any hash. Thread must: as kvs_table_find(). Orders: nothing, hints only.
void kvs_table_prefetch_bucket(const struct kvs_map *map, uint64_t hash);
void kvs_table_prefetch_record(const struct kvs_map *map, uint64_t hash);

/// The cursor of a position under the hash key of now: for walks that choose their own positions.
uint64_t kvs_table_cursor(const struct kvs_map *map, uint64_t position);

/// Generation of the hash key of the side that `root` leads to, 16 bits. It never comes again but
/// after 65535 others.
uint64_t kvs_table_generation(const struct kvs_map *map, uint64_t root);

/// The first cursor position from `position` on, in plain order and over the table's end, of whose
/// buckets one is not empty; or the last position of the table, or the one `limit` further, if that
/// comes first. For walks through tables that are nearly empty.
/// Call with: any position. Thread must: be the writer. Orders: none.
uint64_t kvs_table_skip(const struct kvs_map *map, uint64_t position, uint64_t limit);

/// Walks the table in reverse-binary order, so that a key that is there throughout is seen at least
/// once although the table grows or shrinks between calls. Visits all entries of one cursor
/// position (of every bucket that could hold them) and returns the next cursor, 0 when the walk is
/// complete. A walk over a change of the hash key begins anew by itself, for nothing is where it
/// was: the cursor tells by its upper bits under which key it was made. `visit` gets entry words,
/// tombstones and stubs included.
/// Call with: cursor 0 to begin. Thread must: as kvs_table_find(). Orders: as kvs_table_find().
uint64_t kvs_table_scan(const struct kvs_map *map, uint64_t cursor,
			void (*visit)(void *context, uint64_t entry), void *context);
