// SPDX-License-Identifier: MIT
//
// A stretch is remembered until an offset behind it is asked for.
#include "shm/extents.h"

#include <sys/types.h>
#include <unistd.h>

#include "shm/region.h"

void kvs_extents_begin(struct kvs_extents *walk, const struct kvs_region *region)
{
	*walk = (struct kvs_extents){ .fd = region->fd };
}

// The first stretch that ends behind `offset`. One that begins at the limit or later is not looked
// at: where it ends is found when it is asked for. Where the file has none it begins nowhere.
static void extents_find(struct kvs_extents *walk, uint64_t offset, uint64_t limit)
{
	off_t data = lseek(walk->fd, (off_t)offset, SEEK_DATA);
	walk->offset = walk->end = data < 0 ? UINT64_MAX : (uint64_t)data;
	if (walk->offset < limit) {
		off_t hole = lseek(walk->fd, data, SEEK_HOLE);
		walk->end = hole > data ? (uint64_t)hole : walk->offset;
	}
}

bool kvs_extents_next(struct kvs_extents *walk, uint64_t offset, uint64_t limit, uint64_t *start,
		      uint64_t *end)
{
	if (offset >= limit) {
		return false;
	}
	bool has_end = walk->end > walk->offset;
	if (offset >= walk->end || (!has_end && walk->offset < limit)) {
		extents_find(walk, offset, limit);
	}
	*start = offset > walk->offset ? offset : walk->offset;
	*end = walk->end < limit ? walk->end : limit;
	return *start < *end;
}

uint64_t kvs_extents_populated(struct kvs_extents *walk, uint64_t offset, uint64_t bytes_max)
{
	uint64_t start, end;
	bool found = kvs_extents_next(walk, offset, offset + bytes_max, &start, &end);
	return found && start == offset ? end - start : 0;
}
