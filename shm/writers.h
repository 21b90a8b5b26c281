// SPDX-License-Identifier: MIT
//
// Who wrote a record: it has 12 bits for that, an index into a table of users which stands in the
// region behind its first page, and, as of each commit, in the store. kvd alone reads and writes
// it; a region or a store without one is of a kvd that gave indices of its own to each life.
#pragma once

#include <assert.h>
#include <stdint.h>

#include "shm/limits.h"
#include "shm/record.h"

#define KVS_WRITERS_OFFSET KVS_PAGE_BYTES // from the start of the region
#define KVS_WRITERS_BYTES (5u * KVS_PAGE_BYTES)
#define KVS_WRITERS_MARKER "kvd-wri1" // eight bytes, version in the text
#define KVS_WRITERS_FORMER 1024u // indices that are left to records of a kvd without such a table
#define KVS_WRITER_NOBODY UINT32_MAX // no user has this number

struct kvs_writers {
	char marker[8];			   // KVS_WRITERS_MARKER
	uint64_t count;			   // indices 1 to count are given, for good; release
	uint32_t uid[KVS_WRITERS_MAX - 1]; // of index i at i - 1
	uint32_t reserved;
};
static_assert(sizeof(struct kvs_writers) <= KVS_WRITERS_BYTES, "fits its pages");
static_assert(KVS_WRITERS_OFFSET + KVS_WRITERS_BYTES <= KVS_HUGE_PAGE_BYTES,
	      "in front of the segment directory");

static inline struct kvs_writers *kvs_writers_of(void *region_base)
{
	return (struct kvs_writers *)(void *)((unsigned char *)region_base + KVS_WRITERS_OFFSET);
}
