// SPDX-License-Identifier: MIT
//
// A walk begins when the time of the soonest key has come, and learns which is the soonest of those
// that it leaves. It uses SCAN's cursor, so growth of the table between slices loses no key.
// Expired keys are copied out of a visit and removed after it, because removing changes the chain
// that is being walked.
#include "daemon/expire.h"

#include <string.h>

#include "daemon/keyspace_internal.h"

#define EXPIRE_INTERVAL_NS 1000000000u // a look at the clock, which may be set: 20 us a second
#define EXPIRE_SLICE_NS 200000u
#define EXPIRE_WALK_INTERVAL_NS 10000000u
#define EXPIRE_BUSY_INTERVAL_NS 2000000u // while a quarter of what is seen has expired
#define EXPIRE_KEYS_MAX 64u		 // collected in one visit of a cursor position

struct expire_slice {
	struct keyspace *keyspace;
	uint32_t seen;	// keys with an expiry
	uint32_t found; // of them expired
	uint32_t count;
	uint16_t key_bytes[EXPIRE_KEYS_MAX];
	unsigned char key[EXPIRE_KEYS_MAX][KVS_KEY_BYTES_MAX];
};

static void expire_visit(void *context, uint64_t entry)
{
	struct expire_slice *slice = context;
	struct kvs_hit hit;
	if (kvs_table_load(&slice->keyspace->region->map, entry, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE || hit.view.expiry_ms == 0) {
		return;
	}
	slice->seen++;
	if (hit.view.expiry_ms > slice->keyspace->now_ms || slice->count == EXPIRE_KEYS_MAX) {
		expire_expect(slice->keyspace, hit.view.expiry_ms);
		return;
	}
	slice->found++;
	memcpy(slice->key[slice->count], hit.view.key, hit.view.key_bytes);
	slice->key_bytes[slice->count++] = (uint16_t)hit.view.key_bytes;
}

void expire_expect(struct keyspace *keyspace, uint64_t expiry_ms)
{
	struct cleaner_state *state = &keyspace->cleaner;
	if (expiry_ms < state->expire_soonest_ms) {
		state->expire_soonest_ms = expiry_ms;
		if (state->expire_cursor == 0) {
			state->expire_due_ns = 0; // the turn that wrote it looks when that is
		}
	}
	if (expiry_ms < state->expire_walk_ms) {
		state->expire_walk_ms = expiry_ms;
	}
}

static void expire_step(struct keyspace *keyspace, struct expire_slice *slice)
{
	struct cleaner_state *state = &keyspace->cleaner;
	slice->count = 0;
	state->expire_cursor =
		kvs_table_scan(&keyspace->region->map, state->expire_cursor, expire_visit, slice);
	for (uint32_t i = 0; i < slice->count; i++) {
		// A look is enough: it finds the key expired, and logs that.
		struct keyspace_value value;
		uint64_t before = keyspace->keys_with_expiry;
		(void)keyspace_get(keyspace, slice->key[i], slice->key_bytes[i], &value);
		if (keyspace->keys_with_expiry == before) {
			expire_expect(keyspace, keyspace->now_ms); // no room to log it: later
		}
	}
	if (state->expire_cursor == 0) {
		state->expire_soonest_ms = state->expire_walk_ms;
	}
}

// When a walk is to begin: at the time of the soonest key, as far as can be foreseen.
static uint64_t expire_begin_ns(const struct keyspace *keyspace, uint64_t now_ns)
{
	const struct cleaner_state *state = &keyspace->cleaner;
	uint64_t wait_ms = state->expire_soonest_ms > keyspace->now_ms
				   ? state->expire_soonest_ms - keyspace->now_ms
				   : 0;
	return wait_ms < EXPIRE_INTERVAL_NS / 1000000 ? now_ns + wait_ms * 1000000
						      : now_ns + EXPIRE_INTERVAL_NS;
}

uint64_t expire_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct cleaner_state *state = &keyspace->cleaner;
	if (keyspace->keys_with_expiry == 0) {
		state->expire_cursor = 0;
		state->expire_soonest_ms = UINT64_MAX;
		return UINT64_MAX;
	}
	if (state->expire_off) {
		return UINT64_MAX;
	}
	if (state->expire_held) {
		return now_ns + EXPIRE_WALK_INTERVAL_NS;
	}
	if (now_ns < state->expire_due_ns) {
		return state->expire_due_ns;
	}
	keyspace_tick(keyspace);
	if (state->expire_cursor == 0) {
		state->expire_due_ns = expire_begin_ns(keyspace, now_ns);
		if (state->expire_due_ns > now_ns) {
			return state->expire_due_ns;
		}
		state->expire_walk_ms = UINT64_MAX;
	}
	struct expire_slice slice = { .keyspace = keyspace };
	do {
		expire_step(keyspace, &slice);
	} while (state->expire_cursor != 0 && keyspace->keys_with_expiry > 0 &&
		 keyspace->seam->monotonic_ns() - now_ns < EXPIRE_SLICE_NS);
	bool busy = slice.found * 4 > slice.seen;
	state->expire_due_ns = now_ns + (busy ? EXPIRE_BUSY_INTERVAL_NS : EXPIRE_WALK_INTERVAL_NS);
	return state->expire_due_ns;
}
