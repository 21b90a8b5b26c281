// SPDX-License-Identifier: MIT
//
// Memory that goes back to the system while kvd serves: pages of free segments that nothing needed
// for a while, and pages that readers' faults have put where none should be.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct keyspace;

struct memory_return {
	uint64_t after_ns;  // 0 = never
	uint64_t since_ns;  // of the stretch that is looked at
	uint32_t least;	    // free segments with pages at any time of it
	uint32_t surplus;   // as many were not needed in the stretch before: they go
	uint64_t looked_ns; // when the file was compared with the count
	uint64_t holes_at;  // how far the walk for stray pages is; UINT64_MAX = none is under way
	uint64_t strays_bytes; // that it has found
};

/// A slice, in each turn of the cleaner. Returns when to come again, UINT64_MAX = not for its own
/// sake.
uint64_t memory_return_turn(struct keyspace *keyspace, uint64_t now_ns);

/// Gives all stray pages back at once: for a start.
void memory_return_strays(struct keyspace *keyspace);

/// What the region's file should have in pages, and what it has.
struct memory_pages {
	uint64_t expected_bytes;
	uint64_t file_bytes; // 0 = not known
	bool exact;	     // nothing is being populated: the two must be the same
};
struct memory_pages memory_pages(struct keyspace *keyspace);
