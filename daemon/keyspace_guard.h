// SPDX-License-Identifier: MIT
//
// For writes that are made from many keys in several turns (BITOP): was one of the keys changed
// since it was read? The writer looks whatever it publishes up in the guards that are open; while
// none is, that is one branch. Everything belongs to the writer's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "daemon/keyspace.h"

/// So many may be open at once, for each costs every write a look; and so many of one writer's uid.
#define KEYSPACE_GUARDS_MAX 16u
#define KEYSPACE_GUARDS_WRITER_MAX 4u

/// All zero = not open.
struct keyspace_guard {
	LIST_ENTRY(keyspace_guard) link;
	uint64_t *places; // hashes of the keys, 0 = free
	uint32_t places_count;
	uint32_t user; // who asks
	bool open;
	bool broken; // a key was changed: the owner says when that counts no more
};

/// Opens a guard without keys. `places` are zeroes, a power of two of them and twice as many as
/// there will be keys, and stay until it is closed; so does the guard. False if no more may be open
/// at present: ask again later.
bool keyspace_guard_open(struct keyspace *keyspace, struct keyspace_guard *guard, uint64_t *places,
			 uint32_t places_count);
/// From now on a change of this key breaks it, as a FLUSHALL does. Again is fine.
void keyspace_guard_add(struct keyspace *keyspace, struct keyspace_guard *guard, const void *key,
			size_t key_bytes);
/// Closes it; one that is not open is fine.
void keyspace_guard_close(struct keyspace_guard *guard);
