// SPDX-License-Identifier: MIT
//
// Values that come back into memory. That is no write: a value takes its stub's place with the
// version that it had, if the key still has that. A large one is copied in slices into a run that
// nobody sees before all of it is there, while its stub goes on standing for it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/keyspace_cold.h"

struct kvs_hit;

/// What the store has of a version.
struct keyspace_loaded {
	const void *key;
	size_t key_bytes;
	uint64_t seq;
	const void *value;
	size_t value_bytes;
};

/// A large value on its way back. All zero: none of it is copied.
struct keyspace_promotion {
	uint64_t run_offset; // of the run, which is held; 0 = none
	uint64_t done;	     // bytes of the value that are in it
	uint64_t populated;  // bytes of it that have pages
	uint32_t crc;	     // of what is in it
};

/// Puts a value back where its stub is, if the key still has the stub of this version. Takes no
/// room that writes are waiting for. DONE, OTHER or NO_ROOM; of a large value MORE if `until_ns` by
/// the seam's clock was reached first (UINT64_MAX = never), though a chunk is copied in any case:
/// then it is called again with the same, or keyspace_promote_drop() is.
/// Call with: no batch open. Thread must: be the writer. Orders: as a write's entry.
enum keyspace_cold_result keyspace_promote(struct keyspace *keyspace,
					   const struct keyspace_loaded *loaded,
					   struct keyspace_promotion *promotion, uint64_t until_ns);

/// What was copied so far is given back. Nothing if that is nothing.
void keyspace_promote_drop(struct keyspace *keyspace, struct keyspace_promotion *promotion);

// ---- keyspace_cold.c, for keyspace_promote.c ----

/// The entry of a key that has the stub of this version.
bool keyspace_find_stub(struct keyspace *keyspace, const void *key, size_t key_bytes, uint64_t seq,
			uint64_t *hash, struct kvs_hit *hit);
/// Not the copy of the record in `hit` counts from now on, but the one at `offset`.
void keyspace_count_copy(struct keyspace *keyspace, const struct kvs_hit *hit, uint64_t offset,
			 uint32_t record_bytes);
