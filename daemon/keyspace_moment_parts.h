// SPDX-License-Identifier: MIT
//
// A moment from inside, for the two halves that it has: the reader's (keyspace_moment.c) and the
// writer's, which leaves the notes (keyspace_moment_note.c).
#pragma once

#include <assert.h>
#include <string.h>

#include "daemon/keyspace_internal.h"
#include "daemon/keyspace_moment.h"
#include "shm/mapped.h"

#define MOMENT_GROUP 16u // keys whose memory is asked for together
#define MOMENT_BLOCK_BYTES RECLAIM_WHOLE_BYTES
#define MOMENT_SETTLE_BYTES (256u << 10)
#define MOMENT_SETTLE_NOTES 256u
#define MOMENT_WALK_MAX 4096u // notes that are cleared one by one

// A place: the lower bits are the key's index + 1, 0 = free; the upper ones are of its hash.
#define MOMENT_INDEX_BITS 20u
#define MOMENT_INDEX_MASK ((1u << MOMENT_INDEX_BITS) - 1)
static_assert(KVS_COMMAND_ARGS_MAX - 1 <= MOMENT_INDEX_MASK, "every key of a request has an index");

// What a key was. All zero = nobody has changed it.
struct moment_note {
	const unsigned char *value; // NULL = it was absent, if bytes is MOMENT_ABSENT
	uint32_t bytes;
	uint32_t next; // noted behind it: index + 1
};
#define MOMENT_ABSENT UINT32_MAX

struct moment_block {
	struct moment_block *next;
	size_t bytes; // all of it
	size_t used;
};

struct keyspace_moment {
	LIST_ENTRY(keyspace_moment) link; // of those that are open
	struct keyspace *keyspace;
	const struct resp_arg *keys;
	uint32_t count;
	uint32_t entered;
	uint32_t next;	// to be read
	uint32_t ahead; // of which the memory was asked for: from here on
	uint32_t ahead_end;
	uint64_t seed;
	uint64_t now_ms;
	uint32_t *places;
	uint32_t places_mask;
	struct moment_note *notes;
	uint32_t notes_count;
	uint32_t first, last; // noted, in order: index + 1
	uint32_t unsettled;   // the first that may stand in the log
	uint64_t *segments;   // a bit each: of values that stand in the log
	size_t segments_words;
	uint64_t *runs; // pinned
	uint32_t runs_count;
	uint32_t runs_capacity;
	struct moment_block *blocks; // values that were copied
	size_t blocks_bytes;
	uint64_t hashes[MOMENT_GROUP]; // of the group that is being read
	uint32_t user;
	bool values;
	bool is_open;
	bool is_held;	 // bits of segments are set
	bool is_flushed; // at the moment there is what is noted, and nothing else
	bool is_final;	 // and no more is noted
	bool is_anew;	 // the reader has yet to hear of it
	bool is_lost;
	bool is_torn; // a stub that is wanted was replaced
};

// Where a key has its place, or would have it.
static inline uint32_t *moment_place(const struct keyspace_moment *moment, uint64_t hash,
				     const void *key, size_t key_bytes)
{
	uint32_t tag = (uint32_t)(hash >> 32) & ~MOMENT_INDEX_MASK;
	uint32_t at = (uint32_t)hash & moment->places_mask;
	for (;; at = (at + 1) & moment->places_mask) { // half of them are free at least
		uint32_t *place = &moment->places[at];
		if (*place == 0) {
			return place;
		}
		if ((*place & ~MOMENT_INDEX_MASK) == tag) {
			const struct resp_arg *other =
				&moment->keys[(*place & MOMENT_INDEX_MASK) - 1];
			if (other->bytes == key_bytes && memcmp(other->data, key, key_bytes) == 0) {
				return place;
			}
		}
	}
}

static inline bool moment_is_noted(const struct moment_note *note)
{
	return note->value != NULL || note->bytes == MOMENT_ABSENT;
}

/// Lets go of what is pinned: runs and segments.
void keyspace_moment_unpin(struct keyspace_moment *moment);
