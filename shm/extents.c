// SPDX-License-Identifier: MIT
//
// A stretch is remembered until an offset behind it is asked for.
#include "shm/extents.h"

#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "shm/page_there.h"
#include "shm/region.h"

#define EXTENTS_READ_BYTES (64u << 10)

void kvs_extents_begin(struct kvs_extents *walk, const struct kvs_region *region)
{
	*walk = (struct kvs_extents){ .fd = region->fd,
				      .pagemap_fd = region->pagemap_fd,
				      .page_bytes = region->page_bytes };
}

static bool extents_asks_kernel(const struct kvs_extents *walk)
{
	return walk->page_bytes == KVS_PAGE_BYTES;
}

// Has a huge page something in it? Reading by a call populates none.
static bool extents_has_content(const struct kvs_extents *walk, uint64_t offset)
{
	unsigned char part[EXTENTS_READ_BYTES];
	static const unsigned char zeroes[EXTENTS_READ_BYTES];
	for (uint64_t at = 0; at < walk->page_bytes; at += sizeof(part)) {
		ssize_t read = pread(walk->fd, part, sizeof(part), (off_t)(offset + at));
		if (read <= 0) {
			return false;
		}
		if (memcmp(part, zeroes, (size_t)read) != 0) {
			return true;
		}
	}
	return false;
}

static bool extents_page(const struct kvs_extents *walk, uint64_t offset)
{
	int there = kvs_page_is_there(walk->fd, walk->pagemap_fd, offset, walk->page_bytes);
	return there >= 0 ? there > 0 : extents_has_content(walk, offset);
}

// As extents_find(), of huge pages, of which none lies on the limit.
static void extents_find_huge(struct kvs_extents *walk, uint64_t offset, uint64_t limit)
{
	uint64_t at = offset;
	while (at < limit && !extents_page(walk, at)) {
		at += walk->page_bytes;
	}
	walk->offset = walk->end = at;
	while (walk->end < limit && extents_page(walk, walk->end)) {
		walk->end += walk->page_bytes;
	}
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
	if (!extents_asks_kernel(walk)) {
		extents_find_huge(walk, offset, limit);
	} else if (offset >= walk->end || (!has_end && walk->offset < limit)) {
		extents_find(walk, offset, limit);
	}
	*start = offset > walk->offset ? offset : walk->offset;
	*end = walk->end < limit ? walk->end : limit;
	return *start < *end;
}

// To ask for a hole of huge pages makes a page and throws it away (60 us; 10 where there is one):
// nothing behind the first is asked for.
static uint64_t extents_populated_huge(const struct kvs_extents *walk, uint64_t offset,
				       uint64_t bytes_max)
{
	uint64_t bytes = 0;
	while (bytes < bytes_max && extents_page(walk, offset + bytes)) {
		bytes += walk->page_bytes;
	}
	return bytes < bytes_max ? bytes : bytes_max;
}

uint64_t kvs_extents_populated(struct kvs_extents *walk, uint64_t offset, uint64_t bytes_max)
{
	uint64_t start, end;
	if (!extents_asks_kernel(walk)) {
		return extents_populated_huge(walk, offset, bytes_max);
	}
	bool found = kvs_extents_next(walk, offset, offset + bytes_max, &start, &end);
	return found && start == offset ? end - start : 0;
}

uint64_t kvs_extents_reach(struct kvs_extents *walk, uint64_t offset, uint64_t bytes_max)
{
	if (extents_asks_kernel(walk)) {
		return kvs_extents_populated(walk, offset, bytes_max);
	}
	uint64_t bytes = bytes_max & ~(uint64_t)(walk->page_bytes - 1);
	while (bytes > 0 && !extents_page(walk, offset + bytes - walk->page_bytes)) {
		bytes -= walk->page_bytes;
	}
	return bytes;
}
