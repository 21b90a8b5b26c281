// SPDX-License-Identifier: MIT
//
// The walk that fills the wheel, and serves in its place where there is no memory for one. It uses
// SCAN's cursor, so growth of the table between slices loses no key. Expired keys are copied out of
// a visit and removed after it, because removing changes the chain that is being walked. Without a
// wheel, a walk begins when the time of the soonest key has come, and learns which is the soonest
// of those that it leaves.
#include <string.h>

#include "daemon/expire_parts.h"
#include "daemon/keyspace_internal.h"

#define WALK_INTERVAL_NS 2000000u
#define WALK_REFILL_NS UINT64_C(10000000000) // then memory is asked for again
#define WALK_KEYS_MAX 64u		     // collected in one visit of a cursor position

struct walk_key {
	uint64_t offset;
	uint64_t expiry_ms;
	uint16_t bytes;
	unsigned char key[KVS_KEY_BYTES_MAX];
};

struct walk_slice {
	struct keyspace *keyspace;
	bool blocked; // there was no room for a removal: to ask again takes as long as a slice
	uint32_t count;
	struct walk_key keys[WALK_KEYS_MAX];
};

// It stays for now: some other turn has to find it.
static void walk_leave(struct keyspace *keyspace, uint64_t offset, uint64_t expiry_ms)
{
	struct expire *expire = &keyspace->expire;
	if (expire->filling) {
		expire_add(keyspace, offset, expiry_ms);
	} else if (expiry_ms < expire->walk_seen_ms) {
		expire->walk_seen_ms = expiry_ms;
	}
}

static void walk_visit(void *context, uint64_t entry)
{
	struct walk_slice *slice = context;
	struct keyspace *keyspace = slice->keyspace;
	struct kvs_hit hit;
	if (kvs_table_load(&keyspace->region->map, entry, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE || hit.view.expiry_ms == 0) {
		return;
	}
	uint64_t offset = kvs_entry_offset(entry);
	if (hit.view.expiry_ms > keyspace->now_ms || slice->count == WALK_KEYS_MAX ||
	    hit.view.key_bytes > KVS_KEY_BYTES_MAX) {
		walk_leave(keyspace, offset, hit.view.expiry_ms);
		return;
	}
	struct walk_key *key = &slice->keys[slice->count++];
	key->offset = offset;
	key->expiry_ms = hit.view.expiry_ms;
	key->bytes = (uint16_t)hit.view.key_bytes;
	memcpy(key->key, hit.view.key, hit.view.key_bytes);
}

// False if there was no room to log that the key's time has come.
static bool walk_remove(struct keyspace *keyspace, const struct walk_key *key)
{
	struct kvs_hit hit;
	uint64_t hash = keyspace_hash(keyspace, key->key, key->bytes);
	if (keyspace_find(keyspace, hash, key->key, key->bytes, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE || hit.view.expiry_ms != key->expiry_ms) {
		return true; // making room for one before it has evicted it
	}
	return keyspace_expire_now(keyspace, hash, key->key, key->bytes);
}

static void walk_step(struct keyspace *keyspace, struct walk_slice *slice)
{
	struct expire *expire = &keyspace->expire;
	slice->count = 0;
	expire->cursor = kvs_table_scan(&keyspace->region->map, expire->cursor, walk_visit, slice);
	for (uint32_t i = 0; i < slice->count; i++) {
		const struct walk_key *key = &slice->keys[i];
		slice->blocked = slice->blocked || !walk_remove(keyspace, key);
		if (slice->blocked) {
			walk_leave(keyspace, key->offset, key->expiry_ms);
		}
	}
}

static void walk_begin(struct keyspace *keyspace, uint64_t now_ns)
{
	struct expire *expire = &keyspace->expire;
	wheel_clear(&expire->wheel, &keyspace->reclaim);
	expire->filling = now_ns >= expire->refill_due_ns;
	expire->walk_seen_ms = UINT64_MAX;
	keyspace_counter_add(keyspace, KVS_COUNTER_expiry_walks, 1);
}

static void walk_end(struct keyspace *keyspace, uint64_t now_ns)
{
	struct expire *expire = &keyspace->expire;
	if (expire->filling) {
		expire->filling = false;
		expire->partial = false;
		return;
	}
	// What it holds may be anything: the memory is better used elsewhere.
	wheel_clear(&expire->wheel, &keyspace->reclaim);
	expire->walk_soonest_ms = expire->walk_seen_ms;
	if (expire->refused) {
		expire->refused = false;
		expire->refill_due_ns = now_ns + WALK_REFILL_NS;
	}
}

uint64_t expire_walk_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct expire *expire = &keyspace->expire;
	if (expire->cursor == 0) {
		uint64_t begin_ns = now_ns + expire_wait_ns(keyspace, expire->walk_soonest_ms);
		begin_ns = begin_ns < expire->refill_due_ns ? begin_ns : expire->refill_due_ns;
		if (begin_ns > now_ns) {
			return begin_ns;
		}
		walk_begin(keyspace, now_ns);
	}
	struct walk_slice slice = { .keyspace = keyspace };
	do {
		walk_step(keyspace, &slice);
	} while (expire->cursor != 0 && keyspace->keys_with_expiry > 0 &&
		 keyspace->seam->monotonic_ns() - now_ns < EXPIRE_SLICE_NS);
	if (expire->cursor == 0) {
		walk_end(keyspace, now_ns);
	}
	return expire->partial ? now_ns + WALK_INTERVAL_NS : UINT64_MAX;
}
