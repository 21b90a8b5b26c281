// SPDX-License-Identifier: MIT
//
// A region with table, log and one reader page, put together without the daemon, so that the tests
// of shm/ can drive single steps of it. It writes as the keyspace does: secure, append, publish the
// entry.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/adopt.h"
#include "shm/epoch.h"
#include "shm/epoch_scan.h"
#include "shm/hash.h"
#include "shm/large.h"
#include "shm/limbo.h"
#include "shm/log.h"
#include "shm/region.h"
#include "shm/table_write.h"

struct fixture {
	struct kvs_region region;
	struct kvs_epoch_domain epochs;
	struct kvs_limbo limbo;
	struct kvs_table table;
	struct kvs_log log;
	struct kvs_large large;
	struct kvs_reader_page *page;
	struct kvs_epoch_page *epoch_page;
	bool step_after_write; // let the table grow and shrink by itself
	uint64_t now_ns;
};

/// Opens a region of `memory_bytes` in segments of `segment_bytes`, ALIVE, with an empty table.
/// Bails out if the machine cannot give it.
void fixture_open(struct fixture *f, uint64_t memory_bytes, uint32_t segment_bytes);
void fixture_close(struct fixture *f);

/// Stores key = value (as a record with the next seq) and returns its seq, or 0 if there was no
/// room.
uint64_t fixture_set(struct fixture *f, const void *key, size_t key_bytes, const void *value,
		     size_t value_bytes);

/// Clears the key's entry. False if it has none.
bool fixture_remove(struct fixture *f, const void *key, size_t key_bytes);

/// Looks a key up in any map of the region.
enum kvs_find_result fixture_find(const struct kvs_map *map, const void *key, size_t key_bytes,
				  struct kvs_hit *hit);

/// How many of the keys `key:0` and on are there, whole.
unsigned fixture_keys(const struct kvs_map *map, unsigned keys);

/// One epoch scan, and whatever it lets out of limbo goes back to its allocator. Returns how many
/// items.
size_t fixture_reclaim(struct fixture *f);

/// Whoever takes the region of a fixture over, as if its writer were dead: a second mapping of the
/// file, and parts of its own but for the reader page and the epochs, which stay the fixture's.
struct fixture_successor {
	struct fixture f;
	struct kvs_adopt plan; // as it was before it was applied, but for what it handed over
};
/// Plans and applies. Bails out if that is not possible.
void fixture_adopt(struct fixture_successor *after, struct fixture *f);
/// All that waits in its limbo is free. Returns how many items that were.
size_t fixture_adopt_reclaim(struct fixture_successor *after);
void fixture_adopt_close(struct fixture_successor *after);

/// The cleaner in small: copies what is current in `segment` to survivors and retires it.
bool fixture_clean(struct fixture *f, uint32_t segment);

/// Maps the region as a client does: read-only, PROT_NONE beyond what is published. Bails out on
/// failure.
void fixture_map_reader(struct fixture *f, struct kvs_map *map);
