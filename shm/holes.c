// SPDX-License-Identifier: MIT
//
// The kernel tells where the next page is (SEEK_DATA), which costs little however large the hole
// before it. Where the next hole is it would find by looking at every page: that is not asked. What
// has its pages is passed over, and what has not is punched.
#include "shm/holes.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/writers.h"

#define HOLES_PART_BYTES (2u << 20)
#define HOLES_HUGE_PART_BYTES (64u << 20) // of huge pages there are few to look at

// The header and the table of users.
static uint64_t holes_front_bytes(const struct kvs_region *region)
{
	uint64_t bytes = KVS_WRITERS_OFFSET + KVS_WRITERS_BYTES;
	return bytes > region->page_bytes ? bytes : region->page_bytes;
}

uint64_t kvs_holes_expected_bytes(const struct kvs_holes_parts *parts)
{
	const struct kvs_region *region = parts->log->region;
	uint64_t segments = (uint64_t)parts->log->prepared_count << region->segment_shift;
	return holes_front_bytes(region) + region->directory_bytes + region->table_bytes +
	       region->large_bytes + segments;
}

uint64_t kvs_holes_file_bytes(const struct kvs_region *region)
{
	struct stat status;
	return fstat(region->fd, &status) == 0 ? (uint64_t)status.st_blocks * 512 : 0;
}

// A stretch of the file: has it pages, and where does it end?
struct holes_stretch {
	bool used;
	uint64_t end;
};

static struct holes_stretch of_parts(uint64_t offset, uint64_t used_end, uint64_t end)
{
	bool used = offset < used_end;
	return (struct holes_stretch){ used, used ? used_end : end };
}

static struct holes_stretch of_log(const struct kvs_log *log, uint64_t offset)
{
	uint32_t index = kvs_log_segment_of(log, offset);
	const struct kvs_segment *segment = &log->segments[index];
	return (struct holes_stretch){
		.used = segment->state != KVS_SEGMENT_FREE || segment->prepared ||
			segment->preparing,
		.end = kvs_region_segment_offset(log->region, index + 1),
	};
}

// Behind what a range of the table has, and what a helper is populating for it.
static uint64_t table_end(const struct kvs_table *table, unsigned range)
{
	const struct kvs_table_ahead *ahead = &table->ahead;
	uint64_t end = table->region->map.ranges[range].offset + table->populated[range];
	uint64_t coming = 0;
	if (ahead->active && ahead->piece.range == range) {
		coming = ahead->piece.offset + ahead->piece.bytes;
	}
	return coming > end ? coming : end;
}

static struct holes_stretch holes_stretch_at(const struct kvs_holes_parts *parts, uint64_t offset)
{
	const struct kvs_region *region = parts->log->region;
	const struct kvs_range_bounds *ranges = region->map.ranges;
	uint64_t directory = region->header->segment_directory_offset;
	if (offset < directory) {
		return of_parts(offset, holes_front_bytes(region), directory);
	}
	if (offset < ranges[0].offset) {
		return of_parts(offset, directory + region->directory_bytes, ranges[0].offset);
	}
	for (unsigned i = KVS_RANGE_TABLE_0; i <= KVS_RANGE_OVERFLOW_1; i++) {
		if (offset < ranges[i + 1].offset) {
			return of_parts(offset, table_end(parts->table, i), ranges[i + 1].offset);
		}
	}
	if (offset - ranges[KVS_RANGE_LOG].offset < ranges[KVS_RANGE_LOG].bytes_max) {
		return of_log(parts->log, offset);
	}
	struct holes_stretch stretch;
	stretch.used = kvs_large_is_run(parts->large, offset, &stretch.end);
	return stretch;
}

// How many pages of these bytes there are.
static uint64_t holes_resident_bytes(const struct kvs_region *region, uint64_t offset,
				     uint64_t bytes)
{
	unsigned char there[HOLES_PART_BYTES / KVS_PAGE_BYTES];
	uint64_t pages = 0;
	if (mincore(region->base + offset, bytes, there) != 0) {
		return 0;
	}
	for (uint64_t i = 0; i < bytes / KVS_PAGE_BYTES; i++) {
		pages += there[i] & 1;
	}
	return pages * KVS_PAGE_BYTES;
}

// The same where the kernel tells of no page: all that should be a hole is made one.
static uint64_t holes_step_huge(const struct kvs_holes_parts *parts, uint64_t *at)
{
	const struct kvs_region *region = parts->log->region;
	if (*at >= region->bytes) {
		*at = UINT64_MAX;
		return 0;
	}
	uint64_t offset = *at;
	struct holes_stretch stretch = holes_stretch_at(parts, offset);
	*at = stretch.end;
	if (stretch.used) {
		return 0;
	}
	uint64_t bytes = stretch.end - offset;
	bytes = bytes < HOLES_HUGE_PART_BYTES ? bytes : HOLES_HUGE_PART_BYTES;
	*at = offset + bytes;
	uint64_t before = kvs_holes_file_bytes(region);
	bool punched = kvs_region_punch(region, offset, bytes) == 0;
	uint64_t after = kvs_holes_file_bytes(region);
	return punched && before > after ? before - after : 0;
}

uint64_t kvs_holes_step(const struct kvs_holes_parts *parts, uint64_t *at)
{
	const struct kvs_region *region = parts->log->region;
	if (region->page_bytes != KVS_PAGE_BYTES) {
		return holes_step_huge(parts, at);
	}
	off_t found = lseek(region->fd, (off_t)*at, SEEK_DATA);
	if (found < 0 || (uint64_t)found >= region->bytes) {
		*at = UINT64_MAX;
		return 0;
	}
	uint64_t offset = (uint64_t)found & ~(uint64_t)(KVS_PAGE_BYTES - 1);
	struct holes_stretch stretch = holes_stretch_at(parts, offset);
	*at = stretch.end;
	if (stretch.used) {
		return 0;
	}
	uint64_t bytes = stretch.end - offset;
	bytes = bytes < HOLES_PART_BYTES ? bytes : HOLES_PART_BYTES;
	*at = offset + bytes;
	uint64_t there = holes_resident_bytes(region, offset, bytes);
	return kvs_region_punch(region, offset, bytes) == 0 ? there : 0;
}
