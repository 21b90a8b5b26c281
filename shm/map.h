// SPDX-License-Identifier: MIT
//
// One process's view of the region: a base address, the geometry copied out of the header once and
// checked, and how far each growing range is mapped here. A client reserves the whole region as
// PROT_NONE and opens up only what kvd has published, because even a read that touches a hole of
// the file would allocate a page of it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/atomics.h"
#include "shm/layout.h"

struct kvs_map {
	unsigned char *base; // start of the region in this process
	uint64_t region_bytes;
	uint64_t instance_id;
	uint64_t segment_bytes; // power of two
	uint64_t page_bytes;	// of the file: less cannot be opened up
	struct kvs_range_bounds ranges[KVS_RANGES_COUNT];
	uint64_t ready[KVS_RANGES_COUNT]; // bytes readable here; relaxed, only rise
	void *reservation; // what to unmap
	size_t reservation_bytes;
	enum kvs_hash_kind hash_kind;
	uint32_t chain_buckets_max; // a longer chain is damage; kvd's own map has no such bound
	bool readers_fence; // the region demands fenced readers
};

enum kvs_map_error {
	KVS_MAP_OK = 0,
	KVS_MAP_SYSTEM, // errno says why
	KVS_MAP_FOREIGN, // not a kvd region
	KVS_MAP_LAYOUT, // a kvd region of another layout
	KVS_MAP_HASH, // one whose keys are hashed in a way that is not known here
	KVS_MAP_DAMAGED, // header contradicts itself or the file
	KVS_MAP_NOT_ALIVE, // still starting, or retired
};

/// Maps the region behind `fd` read-only. Nothing in the file is trusted: it must be sealed against
/// shrinking, and every offset and size is checked against its size. On success the caller owns
/// `map` until kvs_map_close(). Returns an enum kvs_map_error.
int kvs_map_open(struct kvs_map *map, int fd);

/// Copies and checks geometry of a region already mapped at `base` (tests, the writer,
/// ThreadSanitizer builds): the same checks as kvs_map_open(), no mapping made, every published
/// byte counted ready.
int kvs_map_adopt(struct kvs_map *map, void *base, uint64_t region_bytes);

/// Opens up what kvd has published since. Returns 0 or -errno.
/// Call with: an open map. Thread must: hold the owner's lock against other callers of this
/// function; readers may go on meanwhile. Orders: load-acquire of header.ready pairs with
/// kvs_region_publish().
int kvs_map_extend(struct kvs_map *map);

/// Unmaps. No view may be open.
void kvs_map_close(struct kvs_map *map);

static inline const struct kvs_region_header *kvs_map_header(const struct kvs_map *map)
{
	return (const struct kvs_region_header *)(const void *)map->base;
}
