// SPDX-License-Identifier: MIT
//
// Where the region's memory is, for KVD.MEMORY.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct keyspace;

/// What writes of values have to wait for, if anything.
enum keyspace_shortage {
	KEYSPACE_SHORT_OF_NOTHING,
	KEYSPACE_SHORT_READERS,	 // memory came free that somebody may still look at
	KEYSPACE_SHORT_STORE,	 // too much waits for its commit
	KEYSPACE_SHORT_CLEANING, // enough is dead, in segments that have yet to be emptied
	KEYSPACE_SHORT_MEMORY,	 // what is there is live
};

/// What a bound that was lowered waits for, if it is not reached.
enum keyspace_bound {
	KEYSPACE_BOUND_HOLDS,
	KEYSPACE_BOUND_CLEANING, // it comes down
	KEYSPACE_BOUND_READERS,	 // what came free waits for them
	KEYSPACE_BOUND_STORE,	 // for a commit
	KEYSPACE_BOUND_STORED,	 // what has to stay has become more since it was set
};

struct keyspace_memory {
	uint64_t bound_bytes;
	uint64_t used_bytes;
	uint64_t segment_bytes;
	uint64_t page_bytes; // in which memory comes and goes
	uint32_t allowed;    // segments that the bound leaves for records
	uint32_t reserved;   // of them never left to writes of values
	uint32_t free_populated, free_unpopulated, preparing;
	uint32_t written; // by the writer, the one that is being written apart
	uint32_t copied;  // by the cleaner, likewise
	uint32_t open;
	uint32_t retired;
	uint64_t live_bytes;  // of records in segments
	uint64_t dead_bytes;  // of records that are not current any more
	uint64_t tails_bytes; // at segments' ends, too short for the record that came
	uint64_t table_bytes, overflow_bytes, directory_bytes;
	uint64_t large_bytes, orphaned_bytes;
	uint64_t cold_values, cold_bytes; // in the store alone
	uint64_t limbo_items, limbo_bytes, unpersisted_bytes;
	uint64_t file_bytes, expected_bytes;
	bool exact; // nothing is being populated: the two must be the same
	enum keyspace_shortage shortage;
	uint64_t wanted_bytes; // what the bound is to be
	enum keyspace_bound bound;
};

/// Looks at all segments: 32 768 of them take a fraction of a millisecond.
/// Call with: no batch open. Thread must: be the writer. Orders: nothing.
void keyspace_memory(struct keyspace *keyspace, struct keyspace_memory *memory);

/// Why the bound is not yet what it was set to.
/// Call with: no batch open. Thread must: be the writer. Orders: nothing.
enum keyspace_bound keyspace_bound(struct keyspace *keyspace);
/// The same in a word, and with what that means.
const char *keyspace_bound_name(enum keyspace_bound bound);
const char *keyspace_bound_text(enum keyspace_bound bound);

/// Of what segments with records take, so much holds nothing live: dead records and ends.
static inline double keyspace_fragmentation(const struct keyspace_memory *memory)
{
	uint64_t lost = memory->dead_bytes + memory->tails_bytes;
	uint64_t all = lost + memory->live_bytes;
	return all > 0 ? 100.0 * (double)lost / (double)all : 0.0;
}
