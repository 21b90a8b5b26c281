// SPDX-License-Identifier: MIT
//
// The table's writing half: publish, replace and clear one-word entries, overflow buckets, growth
// and shrinkage by linear hashing in place, and rebuilding under another hash key. The order that
// readers rely on: fill the new chain, publish the root, clear the moved entries in the old place.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/epoch_scan.h"
#include "shm/limbo.h"
#include "shm/region.h"
#include "shm/table.h"

/// Steps at which a test, or a labelled crash point, may want to look: see kvs_table.step_hook.
enum kvs_table_step {
	KVS_TABLE_SPLIT_FILLED, // new chain filled, root not yet published
	KVS_TABLE_SPLIT_PUBLISHED, // root published, moved entries not yet cleared
	KVS_TABLE_COMPACT_FILLED, // overflow entries copied into holes before them
	KVS_TABLE_COMPACT_PUBLISHED, // root with another turn published, copies not yet cleared
	KVS_TABLE_MERGE_FILLED,
	KVS_TABLE_MERGE_PUBLISHED,
	KVS_TABLE_RESEED_FILLED, // the other side has every entry, root not yet published
	KVS_TABLE_RESEED_PUBLISHED,
};

/// Overflow buckets of one side: fresh ones from the range, freed ones from a stack.
struct kvs_overflow {
	uint64_t fresh; // index never used so far
	uint32_t *freed;
	uint32_t freed_count;
	uint32_t freed_capacity;
	uint32_t lost_count; // free, and not in `freed`: there was no memory for it
	uint32_t used_count;
};

/// The table's other side while it is being filled under another hash key; see table_reseed.c.
struct kvs_reseed {
	bool active;
	uint64_t copied; // buckets of the serving side whose entries stand on the other as well
};

#define KVS_TABLE_RANGES 4u // of the region's: KVS_RANGE_TABLE_0 to KVS_RANGE_OVERFLOW_1

/// Memory that a helper thread is to populate for the table.
struct kvs_table_piece {
	unsigned range;
	unsigned place; // among those that may be next
	uint64_t offset; // from the start of the region
	uint64_t bytes;
	bool awaited; // somebody waits for it; otherwise it will be needed soon
};

/// What the table has populated ahead; see table_ahead.c.
struct kvs_table_ahead {
	bool helped; // there is a helper: who needs memory is told to wait for it
	bool active; // the helper has the piece
	bool stale; // its range was made shorter meanwhile
	struct kvs_table_piece piece;
	// Of each range: what one waits for is no other's matter.
	bool refused[KVS_TABLE_RANGES]; // it got none: who needs some tries himself
	uint64_t wanted[KVS_TABLE_RANGES]; // bytes that are waited for, 0 = none
	uint64_t since_ns[KVS_TABLE_RANGES]; // since when, by whoever waits; 0 = he has not said
};

#define KVS_TABLE_TAIL_NONE UINT64_MAX

struct kvs_table {
	struct kvs_region *region;
	struct kvs_epoch_domain *epochs;
	struct kvs_limbo *limbo;
	uint64_t buckets;
	uint64_t buckets_min;
	uint64_t turns;
	uint64_t entries; // entry words in use, tombstones included
	uint64_t populated[KVS_RANGES_COUNT]; // bytes with pages, of the four table ranges
	struct kvs_overflow overflow[2];
	unsigned side;
	bool growing;
	bool other_side_ready; // false while a flushed side waits for its grace period
	bool crowded; // a write met a chain of KVS_CHAIN_BUCKETS_RESEED: keys collide
	struct kvs_reseed reseed;
	struct kvs_table_ahead ahead;
	uint64_t tail_from; // bytes of the serving range: what is behind waits in limbo to go back
	uint64_t splits;
	uint64_t merges;
	void (*step_hook)(void *context, enum kvs_table_step step);
	void *step_context;
};

// Entries a primary bucket, on average, above which the table grows and below which it shrinks.
#define KVS_TABLE_LOAD_GROW_X16 64u // 4
#define KVS_TABLE_LOAD_SHRINK_X16 24u // 1.5

/// Makes an empty table of the region: populates the first chunk and publishes the first root. 0 or
/// -ENOMEM.
int kvs_table_init(struct kvs_table *table, struct kvs_region *region,
		   struct kvs_epoch_domain *epochs, struct kvs_limbo *limbo);
void kvs_table_fini(struct kvs_table *table);

/// Makes sure that the next `count` inserts cannot fail for lack of overflow buckets. 0, -ENOSPC
/// (the range is full), -ENOMEM, or -EAGAIN as kvs_table_await().
int kvs_table_secure(struct kvs_table *table, uint64_t count);

/// May another entry join the chain of `hash`? False beyond KVS_CHAIN_BUCKETS_WRITE overflow
/// buckets, and one more for each entry that a bucket has on average, which only keys made to
/// collide reach. Before that table->crowded is set.
bool kvs_table_chain_has_room(struct kvs_table *table, uint64_t hash);

/// Adds an entry for a key that has none. Returns false if no overflow bucket can be had.
/// Call with: a complete record behind `entry`. Thread must: be the writer. Orders: release;
/// partner find_in_chain()'s acquire.
bool kvs_table_insert(struct kvs_table *table, uint64_t hash, uint64_t entry);

/// What is under way on the other side follows: the entry `before` (0 = none) of a key that hashes
/// to `hash` on the serving side gave way to `after` (0 = none). For the three around it.
void kvs_table_mirror(struct kvs_table *table, uint64_t hash, uint64_t before, uint64_t after);

/// Replaces the entry in `slot` (from kvs_table_find() on this thread, no other change since).
/// Call with, thread, orders: as kvs_table_insert().
static inline void kvs_table_replace(struct kvs_table *table, uint64_t hash, uint64_t *slot,
				     uint64_t entry)
{
	uint64_t before = kvs_load_relaxed(slot);
	kvs_store_release(slot, entry);
	if (__builtin_expect(table->reseed.active, 0)) {
		kvs_table_mirror(table, hash, before, entry);
	}
}

/// Clears the entry in `slot`; its overflow bucket is freed if that was its last.
/// Call with: a slot as for replace. Thread must: be the writer. Orders: release.
void kvs_table_remove(struct kvs_table *table, uint64_t hash, uint64_t *slot);

/// The slot of the chain of `hash` that holds exactly `entry_offset` as its location, or NULL.
/// Compares no key and touches no record.
uint64_t *kvs_table_slot_of(const struct kvs_table *table, uint64_t hash, uint64_t entry_offset);

/// The first slot of that chain whose entry has the hash's tag, or NULL: its key is likely to be
/// the one with this hash. Compares no key and touches no record.
uint64_t *kvs_table_slot_by_tag(const struct kvs_table *table, uint64_t hash);

/// Would kvs_table_step() split a bucket now?
bool kvs_table_wants_growth(const struct kvs_table *table);

/// One step towards the right size, if one is due: splits or merges one bucket. Returns true if it
/// did.
/// Call with: slots from earlier finds forgotten. Thread must: be the writer. Orders: root is
/// store-released; partner kvs_table_find().
bool kvs_table_step(struct kvs_table *table);

/// Empties the table by switching to the other side. Before it serves, `fill` (NULL = nobody) may
/// insert what it has from the first moment on. Returns false if that side is not free yet: then
/// nothing was done, and kvs_table_clear() is the slow way.
/// Call with: any time. Thread must: be the writer. Orders: root is store-released.
bool kvs_table_switch_side(struct kvs_table *table, void (*fill)(void *context), void *context);

/// Empties the table in place, bucket by bucket, but for the entries of which `stays` (NULL = none)
/// says so.
/// Call with: slots forgotten. Thread must: be the writer. Orders: release.
void kvs_table_clear(struct kvs_table *table, bool (*stays)(const void *context, uint64_t entry),
		     const void *context);

/// Begins to rebuild the table under `hash_key`, on the side that does not serve. Until that is
/// published or abandoned the table neither grows nor shrinks. False if the other side still waits
/// for its grace period, or if a rebuild is under way.
/// Call with: random words. Thread must: be the writer. Orders: nothing that a reader sees.
bool kvs_table_reseed_begin(struct kvs_table *table, const uint64_t hash_key[2]);

/// Goes on with it: takes a chunk of memory, or copies up to `buckets` buckets. 1: everything is
/// copied, kvs_table_reseed_publish() may follow at any time; 0: more to do; -ENOMEM, -ENOSPC or
/// -EUCLEAN (a record that cannot be read, or keys that collide under the new key, too): it was
/// abandoned and nothing has changed.
int kvs_table_reseed_step(struct kvs_table *table, unsigned buckets);

/// Bytes of primary buckets that the next step will populate.
uint64_t kvs_table_reseed_bytes(const struct kvs_table *table);

/// Makes the other side the one that serves, by one store; the former waits in limbo.
/// Call with: everything copied; slots and hashes from earlier forgotten. Thread must: be the
/// writer. Orders: root is store-released; partner kvs_table_find().
void kvs_table_reseed_publish(struct kvs_table *table);

/// Gives up. No reader has ever been on the other side, so a small one is free at once; a large one
/// goes through limbo all the same, for it is given back in parts there.
void kvs_table_reseed_abandon(struct kvs_table *table);

// ---- table_ahead.c ----

/// Are so many bytes of a range populated? 0, or -EAGAIN: a helper is to populate them; where there
/// is none, or it got no memory, they are populated now: 0, -ENOSPC or -ENOMEM. All that is not
/// called await populates by itself what it needs: who has a helper asks first.
/// Call with: one of the table's ranges. Thread must: be the writer. Orders: as
/// kvs_region_publish().
int kvs_table_await(struct kvs_table *table, unsigned range, uint64_t bytes);
/// The same of what growing by one bucket needs,
int kvs_table_await_growth(struct kvs_table *table);
/// of the first chunks of the other side,
int kvs_table_await_side(struct kvs_table *table);
/// and of what the next slice of a rebuild needs.
int kvs_table_await_reseed(struct kvs_table *table);
/// Bytes that this one will have populated, of both ranges; 0 if all is there.
uint64_t kvs_table_reseed_next_bytes(const struct kvs_table *table);

/// What to populate next: false if nothing is wanted, or a piece is on its way. Those whose place
/// is a bit of `passed` are passed over: there is no memory for them.
bool kvs_table_ahead_next(const struct kvs_table *table, unsigned passed,
			  struct kvs_table_piece *piece);
/// It was given to the helper, and counts as taken.
/// Call with: what kvs_table_ahead_next() told. Thread must: be the writer. Orders: none.
void kvs_table_ahead_begin(struct kvs_table *table, const struct kvs_table_piece *piece);
/// It came back, with its pages or without; only now the bound of its range is raised.
/// Call with: the helper out of it. Thread must: be the writer. Orders: as kvs_region_publish().
void kvs_table_ahead_end(struct kvs_table *table, bool populated);

/// Of what came out of limbo behind a table that shrank: up to `bytes_max`, but a chunk in any
/// case. True when nothing of it is left.
bool kvs_table_free_tail_part(struct kvs_table *table, unsigned side, uint64_t bytes_max);

// ---- table_resize.c ----

/// Gives back what came out of limbo.
void kvs_table_free_overflow(struct kvs_table *table, unsigned side, uint64_t index);
void kvs_table_free_side(struct kvs_table *table, unsigned side);
/// The same little by little: up to `bytes_max` of it, but a chunk (2 MiB at most) in any case.
/// True when nothing of it is left.
bool kvs_table_free_side_part(struct kvs_table *table, unsigned side, uint64_t bytes_max);

/// Bytes that growing by one bucket would have to populate now (0 or a chunk), for the memory
/// bound.
uint64_t kvs_table_growth_bytes(const struct kvs_table *table);
