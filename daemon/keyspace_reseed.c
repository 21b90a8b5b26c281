// SPDX-License-Identifier: MIT
//
// When to rebuild the table under another hash key (shm/table_reseed.c). Readers hash keys
// themselves, so the hash key is no secret from whoever is let in, and he can make keys that meet
// in one chain. Long before such a chain is full the table is rebuilt, in slices beside everything
// else, but not more often than the interval says, for it costs as much as all keys together. Who
// makes keys collide again meanwhile fills chains up to their bound, and is refused from there on.
//
// A second table takes as much memory as the first, and keys are made to collide in a memory that
// is full as well. Then room is made for it, as for a write: the cleaner empties segments, keys or
// values go where they may; and what has come is taken at once, a chunk at a time, so writes cannot
// use it up in between. But no write is refused for it: where nothing more comes, a write that
// finds no room has the memory of the second table, which is given up.
//
// Published is the new side between two commands: no hash outlasts a turn, and no batch is open.
// KEYS must see no key twice, so it is waited for.
#include <errno.h>
#include <stdio.h>

#include "daemon/keyspace_internal.h"
#include "daemon/log.h"
#include "daemon/prepare.h"

#define RESEED_SLICE_NS 200000u
#define RESEED_STEP_BUCKETS 16u	 // between two looks at the clock
#define RESEED_POLL_NS 1000000u	 // while a walk is under way, or memory is
#define RESEED_SIDE_NS 10000000u // while readers of former days are on the other side
#define RESEED_TEXT_BYTES 256u
#define RESEED_LIVE_PERCENT 95u		    // fuller segments are not emptied for it
#define RESEED_ROOM_NS UINT64_C(2000000000) // so long nothing came, beyond what readers may take

void keyspace_set_reseed(struct keyspace *keyspace, uint64_t interval_ms)
{
	keyspace->reseed.interval_ns = interval_ms * UINT64_C(1000000);
}

// Are so many bytes to be had without touching what writes leave to others?
static bool reseed_has_memory(const struct keyspace *keyspace, uint64_t bytes)
{
	uint64_t segment_bytes = keyspace->region->segment_bytes;
	uint64_t segments = (bytes + segment_bytes - 1) / segment_bytes;
	return bytes == 0 || kvs_log_segments_free(&keyspace->log) >
				     segments + keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE);
}

static uint64_t side_bytes(const struct kvs_table *table, unsigned side)
{
	return table->populated[KVS_RANGE_TABLE_0 + side] +
	       table->populated[KVS_RANGE_OVERFLOW_0 + side];
}

uint32_t reseed_wants(const struct keyspace *keyspace)
{
	const struct kvs_table *table = &keyspace->table;
	if (__builtin_expect(!table->reseed.active, 1)) {
		return 0;
	}
	uint64_t next = kvs_table_reseed_next_bytes(table);
	uint64_t serving = side_bytes(table, table->side);
	uint64_t have = side_bytes(table, table->side ^ 1u);
	uint64_t missing = serving > have && serving - have > next ? serving - have : next;
	uint32_t shift = keyspace->region->segment_shift;
	return (uint32_t)((missing + keyspace->region->segment_bytes - 1) >> shift);
}

// Would it fit if all that can be packed, or go, were? Then `*bound_bytes` is what it takes.
static bool reseed_may_fit(const struct keyspace *keyspace, uint64_t bytes, uint64_t *bound_bytes)
{
	const struct evict_state *evict = &keyspace->evict;
	*bound_bytes = keyspace_memory_least(keyspace, evict->spills) + bytes;
	bool keys_go = evict->on && !evict->spills &&
		       (!evict->volatile_only || keyspace->keys_with_expiry > 0);
	return keys_go || *bound_bytes <= keyspace->memory_bytes ||
	       reseed_has_memory(keyspace, bytes);
}

static void reseed_given_up(struct keyspace *keyspace, const char *why)
{
	keyspace_counter_add(keyspace, KVS_COUNTER_table_reseeds_abandoned, 1);
	log_warning("keys collide in the table, and it is not rebuilt under another hash key: %s; "
		    "new keys that meet in a crowded chain are refused",
		    why);
}

static void reseed_no_memory(struct keyspace *keyspace, uint64_t bytes, uint64_t bound_bytes)
{
	char why[RESEED_TEXT_BYTES];
	(void)snprintf(
		why, sizeof(why),
		"a second table takes %llu bytes, for which memory is too full: remove keys, "
		"or raise maxmemory to %llu (CONFIG SET maxmemory, or memory at the start)",
		(unsigned long long)bytes, (unsigned long long)bound_bytes);
	reseed_given_up(keyspace, why);
}

static uint64_t reseed_begin(struct keyspace *keyspace, uint64_t now_ns)
{
	struct reseed_state *state = &keyspace->reseed;
	struct kvs_table *table = &keyspace->table;
	uint64_t due_ns = state->begun_ns + state->interval_ns;
	uint64_t bound_bytes;
	if (state->begun_ns != 0 && now_ns < due_ns) {
		return due_ns;
	}
	if (!table->other_side_ready) {
		// A FLUSHALL has just been, the last rebuild, or readers of a former kvd are there.
		keyspace_want_side(keyspace, now_ns);
		return now_ns + RESEED_SIDE_NS;
	}
	state->begun_ns = now_ns;
	uint64_t bytes = side_bytes(table, table->side); // as much as the side that serves has
	if (!reseed_may_fit(keyspace, bytes, &bound_bytes)) {
		reseed_no_memory(keyspace, bytes, bound_bytes);
		return now_ns + state->interval_ns;
	}
	uint64_t hash_key[2];
	keyspace->seam->random_bytes(hash_key, sizeof(hash_key));
	state->running = kvs_table_reseed_begin(table, hash_key);
	state->short_ns = state->refused_ns = 0;
	return now_ns;
}

static void reseed_publish(struct keyspace *keyspace, uint64_t now_ns)
{
	kvs_table_reseed_publish(&keyspace->table);
	keyspace->side_taken_ns = now_ns;
	keyspace->reseed.running = false;
	SEAM_CRASH(reseed_published);
	keyspace_counter_add(keyspace, KVS_COUNTER_table_reseeds, 1);
	log_notice("keys collided in the table: it was rebuilt under another hash key, %llu "
		   "entries in %llu ms",
		   (unsigned long long)keyspace->table.entries,
		   (unsigned long long)((now_ns - keyspace->reseed.begun_ns) / 1000000));
}

// Makes room for the next piece of the second table; gives it up if none has come for long. False
// if it was. What the cleaner is to bring is what readers have to leave, so both are hurried.
static bool reseed_room(struct keyspace *keyspace, uint64_t now_ns)
{
	struct reseed_state *state = &keyspace->reseed;
	uint64_t needed = keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE);
	needed += reseed_wants(keyspace);
	state->short_ns = state->short_ns == 0 ? now_ns : state->short_ns;
	if (now_ns - state->short_ns > RESEED_ROOM_NS + 2 * keyspace->revoke_ns) {
		kvs_table_reseed_abandon(&keyspace->table);
		return false;
	}
	keyspace_want_side(keyspace, now_ns); // the same limbo
	state->cleans = cleaner_segments_coming(keyspace) <= needed &&
			cleaner_go(keyspace, RESEED_LIVE_PERCENT);
	return true;
}

bool reseed_gives_way(struct keyspace *keyspace, uint64_t percent)
{
	struct reseed_state *state = &keyspace->reseed;
	struct kvs_table *table = &keyspace->table;
	if (__builtin_expect(!table->reseed.active, 1)) {
		return false;
	}
	uint64_t now_ns = keyspace->seam->monotonic_ns();
	state->refused_ns = state->refused_ns == 0 ? now_ns : state->refused_ns;
	bool comes = evict_may_help(keyspace) || cleaner_finds(keyspace, percent);
	if (comes && now_ns - state->refused_ns <= state->patience_ns) {
		return false;
	}
	kvs_table_reseed_abandon(table);
	return true;
}

// A step of it: as kvs_table_reseed_step(), or -EAGAIN while room is made or the helper populates
// what it needs.
static int reseed_step(struct keyspace *keyspace, uint64_t now_ns)
{
	struct kvs_table *table = &keyspace->table;
	if (!reseed_has_memory(keyspace, kvs_table_reseed_next_bytes(table))) {
		return reseed_room(keyspace, now_ns) ? -EAGAIN : -ENOMEM;
	}
	keyspace->reseed.short_ns = 0;
	int result = kvs_table_await_reseed(table);
	if (result == -EAGAIN) {
		prepare_turn(keyspace);
		if (keyspace_table_waits(keyspace, keyspace_table_other_side(keyspace))) {
			return result;
		}
	}
	return kvs_table_reseed_step(table, RESEED_STEP_BUCKETS);
}

static uint64_t reseed_slice(struct keyspace *keyspace, uint64_t now_ns)
{
	uint64_t until_ns = keyspace->seam->monotonic_ns() + RESEED_SLICE_NS;
	int result;
	keyspace->reseed.cleans = false;
	do {
		result = reseed_step(keyspace, now_ns);
		SEAM_CRASH(reseed_step);
	} while (result == 0 && keyspace->seam->monotonic_ns() < until_ns);
	if (result == -EAGAIN) {
		return now_ns + (keyspace->reseed.cleans ? 0 : RESEED_POLL_NS);
	}
	if (result <= 0) {
		return now_ns;
	}
	if (keyspace->scans > 0) {
		return now_ns + RESEED_POLL_NS;
	}
	reseed_publish(keyspace, now_ns);
	return UINT64_MAX;
}

uint64_t reseed_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct kvs_table *table = &keyspace->table;
	if (__builtin_expect(!keyspace->reseed.running && !table->crowded, 1)) {
		return UINT64_MAX;
	}
	if (keyspace->batch.open) {
		return now_ns;
	}
	if (table->reseed.active) {
		return reseed_slice(keyspace, now_ns);
	}
	if (keyspace->reseed.running) {
		keyspace->reseed.running = false;
		keyspace->side_taken_ns = now_ns; // by what there was of it
		if (!table->crowded) {
			return UINT64_MAX; // a FLUSHALL has seen to it
		}
		reseed_given_up(keyspace, "memory became short, or keys collided in that one, too");
	}
	return table->crowded ? reseed_begin(keyspace, now_ns) : UINT64_MAX;
}
