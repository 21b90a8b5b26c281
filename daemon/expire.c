// SPDX-License-Identifier: MIT
//
// The walk uses SCAN's cursor, so growth of the table between slices loses no key. Expired keys are
// copied out of a visit and removed after it, because removing changes the chain that is being
// walked.
#include "daemon/expire.h"

#include <string.h>

#include "daemon/keyspace_internal.h"

#define EXPIRE_INTERVAL_NS 100000000u
#define EXPIRE_SLICE_NS 200000u
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
		return;
	}
	slice->found++;
	memcpy(slice->key[slice->count], hit.view.key, hit.view.key_bytes);
	slice->key_bytes[slice->count++] = (uint16_t)hit.view.key_bytes;
}

uint64_t expire_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct cleaner_state *state = &keyspace->cleaner;
	if (keyspace->keys_with_expiry == 0) {
		return UINT64_MAX;
	}
	if (now_ns < state->expire_due_ns) {
		return state->expire_due_ns;
	}
	keyspace_tick(keyspace);
	struct expire_slice slice = { .keyspace = keyspace };
	do {
		slice.count = 0;
		state->expire_cursor = kvs_table_scan(&keyspace->region->map, state->expire_cursor,
						      expire_visit, &slice);
		for (uint32_t i = 0; i < slice.count; i++) {
			// A look is enough: it finds the key expired, and logs that.
			struct keyspace_value value;
			(void)keyspace_get(keyspace, slice.key[i], slice.key_bytes[i], &value);
		}
	} while (state->expire_cursor != 0 && keyspace->keys_with_expiry > 0 &&
		 keyspace->seam->monotonic_ns() - now_ns < EXPIRE_SLICE_NS);
	bool busy = slice.found * 4 > slice.seen;
	state->expire_due_ns = now_ns + (busy ? EXPIRE_BUSY_INTERVAL_NS : EXPIRE_INTERVAL_NS);
	return state->expire_due_ns;
}
