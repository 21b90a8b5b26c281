// SPDX-License-Identifier: MIT
//
// Rebuilding the table under another hash key. Whoever may read the region can compute its hash and
// make keys that meet in one chain; a chain has a bound, and before writes are refused for it the
// keys are spread anew. The table has two sides, each with a hash key of its own. The one that does
// not serve is filled bucket by bucket, in slices, while the other serves and changes: a change of
// a bucket that was copied is made on both. One root store publishes the new side, with another
// turn, so that whoever misses a key by the old root looks again; the old side is given back after
// its grace period, as after a FLUSHALL. The key of a side is written only while the side is
// nobody's, so whoever got there by a root of his own section finds the key that belongs to it.
//
// Nobody but the writer knows of the new side before it is published. A writer that dies before
// leaves a side that no root leads to: adoption lets it wait in limbo and goes on with the old one.
#include <errno.h>
#include <string.h>

#include "shm/table_internal.h"

#define RESEED_AT_ONCE_CHUNKS 2u // of a rebuild that is given up

// What functions that look at the serving side see while this is turned over: the other.
static void reseed_turn_over(struct kvs_table *table)
{
	table->side ^= 1u;
}

static uint64_t reseed_retag(uint64_t entry, uint64_t hash)
{
	const uint64_t tag = UINT64_C(0xffff) << 48;
	return (entry & ~tag) | (hash & tag);
}

// Hash, on the other side, of the key behind an entry; false if the record cannot be read.
static bool reseed_hash(const struct kvs_table *table, uint64_t entry, uint64_t *hash)
{
	struct kvs_hit hit;
	if (kvs_table_load(&table->region->map, entry, &hit) == KVS_FIND_DAMAGED) {
		return false;
	}
	*hash = kvs_map_hash_on(&table->region->map, table->side ^ 1u, hit.view.key,
				hit.view.key_bytes);
	return true;
}

// Puts an entry where it belongs on the other side. 0, -EUCLEAN if even there too many keys
// collide, or -ENOMEM.
static int reseed_put(struct kvs_table *table, uint64_t hash, uint64_t entry)
{
	bool crowded = table->crowded;
	reseed_turn_over(table);
	uint64_t index = kvs_bucket_index(hash, table->buckets);
	int result = kvs_table_chain_has_room(table, hash) ? 0 : -EUCLEAN;
	if (result == 0 && !kvs_table_chain_put(table, kvs_table_primary(table, index),
						reseed_retag(entry, hash))) {
		result = -ENOMEM;
	}
	reseed_turn_over(table);
	table->crowded = crowded;
	return result;
}

// Replaces an entry on the other side; 0 takes it away. False if it is not there. Its overflow
// bucket stays, even if that was its last: trimming would send it through limbo, which an
// abandoned side does not wait for.
static bool reseed_change(struct kvs_table *table, uint64_t hash, uint64_t before, uint64_t after)
{
	reseed_turn_over(table);
	uint64_t *slot = kvs_table_slot_of(table, hash, kvs_entry_offset(before));
	reseed_turn_over(table);
	if (slot != NULL) {
		// Relaxed: no reader is there before the root is published (partner: its release).
		kvs_store_relaxed(slot, after != 0 ? reseed_retag(after, hash) : 0);
	}
	return slot != NULL;
}

void kvs_table_mirror(struct kvs_table *table, uint64_t hash, uint64_t before, uint64_t after)
{
	uint64_t there;
	if (kvs_bucket_index(hash, table->buckets) >= table->reseed.copied) {
		return; // it will be copied as it is by then
	}
	bool good = reseed_hash(table, after != 0 ? after : before, &there);
	if (good && before == 0) {
		good = reseed_put(table, there, after) == 0;
	} else if (good) {
		good = reseed_change(table, there, before, after);
	}
	if (!good) {
		kvs_table_reseed_abandon(table);
	}
}

bool kvs_table_reseed_begin(struct kvs_table *table, const uint64_t hash_key[2])
{
	const struct kvs_hash_side *keyed = table->region->header->hash_sides;
	unsigned other = table->side ^ 1u;
	if (table->reseed.active || !table->other_side_ready) {
		return false;
	}
	uint64_t generation = (keyed[table->side].generation + 1) & 0xffff;
	kvs_table_give_key(table, other, hash_key, generation != 0 ? generation : 1);
	table->reseed = (struct kvs_reseed){ .active = true };
	return true;
}

uint64_t kvs_table_reseed_bytes(const struct kvs_table *table)
{
	unsigned range = KVS_RANGE_TABLE_0 + (table->side ^ 1u);
	uint64_t have = table->populated[range];
	bool more = table->reseed.active && have < table->buckets * sizeof(struct kvs_bucket);
	return more ? kvs_table_chunk_bytes(table->region, range) : 0;
}

// Copies one chain of the serving side.
static int reseed_copy(struct kvs_table *table, const struct kvs_bucket *bucket)
{
	int result = 0;
	for (; bucket != NULL && result == 0; bucket = kvs_table_next(table, bucket)) {
		for (unsigned i = 0; i < KVS_BUCKET_ENTRIES && result == 0; i++) {
			uint64_t entry = kvs_load_relaxed(&bucket->entry[i]);
			uint64_t hash;
			if (entry == 0) {
				continue;
			}
			result = reseed_hash(table, entry, &hash) ? reseed_put(table, hash, entry)
								  : -EUCLEAN;
		}
	}
	return result;
}

int kvs_table_reseed_step(struct kvs_table *table, unsigned buckets)
{
	struct kvs_reseed *reseed = &table->reseed;
	unsigned range = KVS_RANGE_TABLE_0 + (table->side ^ 1u);
	int result = 0;
	if (kvs_table_reseed_bytes(table) > 0) {
		result = kvs_table_populate(table, range, table->populated[range] + 1);
		buckets = 0;
	}
	for (; buckets > 0 && result == 0 && reseed->copied < table->buckets; buckets--) {
		result = reseed_copy(table, kvs_table_primary(table, reseed->copied));
		// Counted when all of it is there: from now on its changes are made on both sides.
		reseed->copied += result == 0;
	}
	if (result != 0) {
		kvs_table_reseed_abandon(table);
		return result;
	}
	return reseed->copied == table->buckets;
}

void kvs_table_reseed_publish(struct kvs_table *table)
{
	unsigned old = table->side;
	kvs_table_step_reached(table, KVS_TABLE_RESEED_FILLED);
	kvs_limbo_push(table->limbo, kvs_epoch_stamp(table->epochs), KVS_LIMBO_SIDE, old,
		       table->populated[KVS_RANGE_TABLE_0 + old] +
			       table->populated[KVS_RANGE_OVERFLOW_0 + old]);
	table->other_side_ready = false;
	table->reseed.active = false;
	table->crowded = false;
	table->side = old ^ 1u;
	table->turns++;
	kvs_table_publish_root(table);
	kvs_table_step_reached(table, KVS_TABLE_RESEED_PUBLISHED);
}

void kvs_table_reseed_abandon(struct kvs_table *table)
{
	unsigned other = table->side ^ 1u;
	if (!table->reseed.active) {
		return;
	}
	table->reseed.active = false;
	uint64_t bytes = table->populated[KVS_RANGE_TABLE_0 + other] +
			 table->populated[KVS_RANGE_OVERFLOW_0 + other];
	uint64_t chunk = kvs_table_chunk_bytes(table->region, KVS_RANGE_TABLE_0 + other);
	if (bytes <= RESEED_AT_ONCE_CHUNKS * chunk) {
		kvs_table_free_side(table, other);
		return;
	}
	table->other_side_ready = false;
	kvs_limbo_push(table->limbo, kvs_epoch_stamp(table->epochs), KVS_LIMBO_SIDE, other, bytes);
}
