// SPDX-License-Identifier: MIT
//
// Sets of hashes with open addressing. Two keys of one hash are taken for one, which only lets a
// command begin anew without need; the seed is kvd's own, so nobody can make that happen.
#include "daemon/keyspace_guard.h"

#include "daemon/keyspace_internal.h"

/// Where the hash stands, or the place where it would.
static uint64_t *guard_place(const struct keyspace_guard *guard, uint64_t hash)
{
	uint32_t mask = guard->places_count - 1;
	uint32_t i = (uint32_t)(hash >> 32) & mask;
	while (guard->places[i] != 0 && guard->places[i] != hash) {
		i = (i + 1) & mask;
	}
	return &guard->places[i];
}

static uint64_t guard_hash(uint64_t hash)
{
	return hash != 0 ? hash : 1;
}

bool keyspace_guard_open(struct keyspace *keyspace, struct keyspace_guard *guard, uint64_t *places,
			 uint32_t places_count)
{
	const struct keyspace_guard *other;
	unsigned all = 0;
	unsigned same = 0;
	LIST_FOREACH (other, &keyspace->guards, link) {
		all++;
		same += other->user == keyspace->writer->uid;
	}
	if (all >= KEYSPACE_GUARDS_MAX || same >= KEYSPACE_GUARDS_WRITER_MAX) {
		return false;
	}
	guard->places = places;
	guard->places_count = places_count;
	guard->user = keyspace->writer->uid;
	guard->broken = false;
	guard->open = true;
	LIST_INSERT_HEAD(&keyspace->guards, guard, link);
	return true;
}

void keyspace_guard_add(struct keyspace *keyspace, struct keyspace_guard *guard, const void *key,
			size_t key_bytes)
{
	uint64_t hash = guard_hash(kvs_hash(keyspace->lookup_seed, key, key_bytes));
	*guard_place(guard, hash) = hash;
}

void keyspace_guard_close(struct keyspace_guard *guard)
{
	if (guard->open) {
		LIST_REMOVE(guard, link);
		guard->open = false;
	}
}

void keyspace_guards_see(struct keyspace *keyspace, const struct keyspace_op *op)
{
	struct keyspace_guard *guard;
	uint64_t hash =
		op->kind != KEYSPACE_OP_FLUSH
			? guard_hash(kvs_hash(keyspace->lookup_seed, op->key, op->key_bytes))
			: 0;
	LIST_FOREACH (guard, &keyspace->guards, link) {
		guard->broken = guard->broken || op->kind == KEYSPACE_OP_FLUSH ||
				*guard_place(guard, hash) == hash;
	}
}
