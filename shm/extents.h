// SPDX-License-Identifier: MIT
//
// Which bytes of a region's file have pages. The kernel finds the next hole by looking at every
// page before it, so whoever asks it once for each segment has it look at most pages hundreds of
// times. A walk asks for each stretch of pages once, whatever is wanted of it.
//
// Of huge pages of the system's pool each is asked for by itself (shm/page_there.h). Where that
// cannot be found out a page counts as one if a byte of it is not zero: what counts as none has
// nothing that could be lost, but a reader of zeroes would see what is written there next.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct kvs_region;

struct kvs_extents {
	int fd;
	int pagemap_fd;
	uint32_t page_bytes; // huge pages of the system's pool: see below
	uint64_t offset; // of the stretch found last
	uint64_t end;	 // behind it
};

/// Begins a walk over the file of `region`, which stays the caller's.
void kvs_extents_begin(struct kvs_extents *walk, const struct kvs_region *region);

/// Finds the first bytes in [offset, limit) that have pages, all up to the next hole; false if
/// there are none. Offsets must not go down during a walk: what lies before the last is forgotten.
/// Call with: offset <= limit. Thread must: own the walk. Orders: nothing; what others populate or
/// punch meanwhile may be missed.
bool kvs_extents_next(struct kvs_extents *walk, uint64_t offset, uint64_t limit, uint64_t *start,
		      uint64_t *end);

/// How many bytes of [offset, offset + bytes_max) have pages, from its start to the first hole. As
/// kvs_extents_next() otherwise.
uint64_t kvs_extents_populated(struct kvs_extents *walk, uint64_t offset, uint64_t bytes_max);

/// The same of bytes that are populated from their start on, without a hole up to their end.
uint64_t kvs_extents_reach(struct kvs_extents *walk, uint64_t offset, uint64_t bytes_max);
