// SPDX-License-Identifier: MIT
//
// The region as its one writer sees it: the memfd, its writable map, the geometry, and how much of
// each range exists as memory. Creating, growing and giving back pages is here; what stands in them
// is the business of log, table and large.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "shm/layout.h"
#include "shm/map.h"

struct kvs_layout;

/// What a region's memory is made of.
enum kvs_region_pages {
	KVS_PAGES_SMALL,
	KVS_PAGES_TRANSPARENT, // small ones, joined to huge ones where the kernel does that
	KVS_PAGES_HUGETLB,     // huge ones of the system's pool; segments must be as large at least
};

struct kvs_region_options {
	uint64_t memory_bytes; // bound on what is in use; may change later up to memory_bytes_max
	uint64_t memory_bytes_max; // sizes the offset ranges
	uint32_t segment_bytes; // power of two, KVS_SEGMENT_BYTES_MIN..MAX
	uint64_t instance_id;
	enum kvs_hash_kind hash_kind;
	uint64_t hash_key[2]; // random; XXH3 takes the first word
	bool fenced; // readers must fence
	enum kvs_region_pages pages; // what the memory is made of
	int pagemap_fd; // /proc/self/pagemap, to find huge pages of the pool by; 0 = none
	bool poison; // tests: overwrite what comes free
};

struct kvs_region {
	int fd; // memfd, writable, mode 0600, sealed against shrinking and growing
	int fd_readonly; // the same file reopened read-only: what clients get
	unsigned char *base;
	uint64_t bytes; // of the file, sparse
	struct kvs_region_header *header;
	struct kvs_segment_entry *directory;
	struct kvs_map map; // this process's view, writable underneath
	uint64_t memory_bytes; // accounting bound
	uint64_t table_bytes; // populated: both sides and their overflow buckets
	uint64_t large_bytes; // populated large runs
	uint64_t directory_bytes; // populated: entries of segments that were used
	uint32_t segment_bytes;
	uint32_t segment_shift;
	uint32_t segments_count_max;
	uint32_t page_bytes; // in which memory comes and goes: KVS_PAGE_BYTES, or a huge page's
	int pagemap_fd;	     // as in the options; the caller's
	bool huge_pages;     // ask for them; with page_bytes of one there are no others
	bool poison; // kvs_region_poison() does something
};

/// What stands in reclaimed memory, in every byte, where a test asked for it.
#define KVS_POISON_BYTE 0xdb

/// Why creation failed, for the message; errno has the detail for SYSTEM.
enum kvs_region_error {
	KVS_REGION_OK = 0,
	KVS_REGION_SYSTEM,
	KVS_REGION_TOO_SMALL, // memory below what the segments need
	KVS_REGION_TOO_LARGE, // ranges do not fit the 40-bit location
	KVS_REGION_NO_PROC, // /proc is not mounted: no read-only descriptor can be made
	KVS_REGION_FOREIGN, // adopting: not a region, or one that others could have resized
	KVS_REGION_LAYOUT, // adopting: a region of another layout, or with flags of another build
	KVS_REGION_DAMAGED, // adopting: its header contradicts itself or the file
	KVS_REGION_UNFILLED, // adopting: its first writer never finished filling it
	KVS_REGION_UNLIKE, // adopting: made for other segments, hash or pages, or less memory
	KVS_REGION_UNFENCED, // adopting: its readers rely on membarrier, which is refused now
};

/// Creates an empty region in state STARTING. Returns an enum kvs_region_error; on success the
/// caller owns `region` until kvs_region_close().
int kvs_region_create(struct kvs_region *region, const struct kvs_region_options *options);
void kvs_region_close(struct kvs_region *region);

/// Maps the region behind `fd`, whose writer is gone, for a new one. Nothing but the header is
/// looked at, and nothing is written: kvs_adopt_plan() is next. Of the options memory_bytes,
/// memory_bytes_max, segment_bytes, hash_kind, fenced (only what cannot be helped: the header
/// decides), pages, pagemap_fd and poison count; it may be laid out for more than they ask for.
/// Returns an enum kvs_region_error; on success `region` owns `fd`, otherwise the caller does.
int kvs_region_adopt(struct kvs_region *region, int fd, const struct kvs_region_options *options);

/// Maps it only to be read out, however it is laid out, if its layout is today's or one of
/// `layouts` (shm/layouts.h). The map is private: a plan may be made and applied, and none of it
/// reaches the file. Errors as kvs_region_adopt(), but never UNLIKE or UNFENCED; `fd` stays the
/// caller's and may be closed.
int kvs_region_read_out(struct kvs_region *region, int fd, const struct kvs_layout *layouts);

/// Ends STARTING: clients may attach from now on.
/// Call with: table initialised. Thread must: be the writer. Orders: release; partner
/// map_read_header().
void kvs_region_go_alive(struct kvs_region *region);

/// Populates [offset, offset + bytes) of the file with memory, huge pages where granted. Returns 0,
/// or -ENOMEM / -errno when the machine is full: an error instead of a SIGBUS later.
/// Call with: page-aligned bounds inside one range. Thread must: any. Orders: none.
int kvs_region_populate(const struct kvs_region *region, uint64_t offset, uint64_t bytes);

/// Gives the pages of [offset, offset + bytes) back; they read as zero afterwards. Returns 0 or
/// -errno.
int kvs_region_punch(const struct kvs_region *region, uint64_t offset, uint64_t bytes);

/// Memory that nobody may be reading any more comes free: for tests that look for readers who do.
/// Call with: populated bytes, about to be reused or given back. Thread must: be the writer.
/// Orders: none; whoever sees the bytes has read what was reclaimed.
static inline void kvs_region_poison(const struct kvs_region *region, uint64_t offset,
				     uint64_t bytes)
{
	if (__builtin_expect(region->poison, 0)) {
		memset(region->base + offset, KVS_POISON_BYTE, bytes);
	}
}

/// Raises the published bound of a range: clients may map up to `ready` bytes of it.
/// Call with: memory populated. Thread must: be the writer. Orders: release; partner
/// kvs_map_extend().
void kvs_region_publish(struct kvs_region *region, enum kvs_range range, uint64_t ready);

static inline uint64_t kvs_region_segment_offset(const struct kvs_region *region, uint32_t segment)
{
	return region->map.ranges[KVS_RANGE_LOG].offset +
	       ((uint64_t)segment << region->segment_shift);
}
