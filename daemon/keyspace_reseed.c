// SPDX-License-Identifier: MIT
//
// When to rebuild the table under another hash key (shm/table_reseed.c). Readers hash keys
// themselves, so the hash key is no secret from whoever is let in, and he can make keys that meet
// in one chain. Long before such a chain is full the table is rebuilt, in slices beside everything
// else, but not more often than the interval says, for it costs as much as all keys together. Who
// makes keys collide again meanwhile fills chains up to their bound, and is refused from there on.
//
// Published is the new side between two commands: no hash outlasts a turn, and no batch is open.
// KEYS must see no key twice, so it is waited for.
#include <errno.h>

#include "daemon/keyspace_internal.h"
#include "daemon/log.h"
#include "daemon/prepare.h"

#define RESEED_SLICE_NS 200000u
#define RESEED_STEP_BUCKETS 16u	 // between two looks at the clock
#define RESEED_POLL_NS 1000000u	 // while a walk is under way, or memory is
#define RESEED_SIDE_NS 10000000u // while readers of former days are on the other side

void keyspace_set_reseed(struct keyspace *keyspace, uint64_t interval_ms)
{
	keyspace->reseed.interval_ns = interval_ms * UINT64_C(1000000);
}

// Are so many bytes to be had without touching what writes leave to others?
static bool reseed_has_memory(const struct keyspace *keyspace, uint64_t bytes)
{
	uint64_t segments = (bytes >> keyspace->region->segment_shift) + (bytes > 0);
	return kvs_log_segments_free(&keyspace->log) >
	       segments + keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE);
}

// As much as the side that serves has.
static uint64_t reseed_bytes(const struct kvs_table *table)
{
	return table->populated[KVS_RANGE_TABLE_0 + table->side] +
	       table->populated[KVS_RANGE_OVERFLOW_0 + table->side];
}

static void reseed_given_up(struct keyspace *keyspace, const char *why)
{
	keyspace_counter_add(keyspace, KVS_COUNTER_table_reseeds_abandoned, 1);
	log_warning("keys collide in the table, and it is not rebuilt under another hash key: %s; "
		    "writes to the crowded chains are refused",
		    why);
}

static uint64_t reseed_begin(struct keyspace *keyspace, uint64_t now_ns)
{
	struct reseed_state *state = &keyspace->reseed;
	struct kvs_table *table = &keyspace->table;
	uint64_t due_ns = state->begun_ns + state->interval_ns;
	if (state->begun_ns != 0 && now_ns < due_ns) {
		return due_ns;
	}
	if (!table->other_side_ready) {
		// A FLUSHALL has just been, the last rebuild, or readers of a former kvd are there.
		keyspace_want_side(keyspace, now_ns);
		return now_ns + RESEED_SIDE_NS;
	}
	state->begun_ns = now_ns;
	if (!reseed_has_memory(keyspace, reseed_bytes(table))) {
		reseed_given_up(keyspace, "there is no memory for a second table");
		return now_ns + state->interval_ns;
	}
	uint64_t hash_key[2];
	keyspace->seam->random_bytes(hash_key, sizeof(hash_key));
	state->running = kvs_table_reseed_begin(table, hash_key);
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

// A step of it: as kvs_table_reseed_step(), or -EAGAIN while the helper populates what it needs.
static int reseed_step(struct keyspace *keyspace)
{
	struct kvs_table *table = &keyspace->table;
	if (!reseed_has_memory(keyspace, kvs_table_reseed_bytes(table))) {
		kvs_table_reseed_abandon(table);
		return -ENOMEM;
	}
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
	do {
		result = reseed_step(keyspace);
		SEAM_CRASH(reseed_step);
	} while (result == 0 && keyspace->seam->monotonic_ns() < until_ns);
	if (result == -EAGAIN) {
		return now_ns + RESEED_POLL_NS;
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
