// SPDX-License-Identifier: MIT
//
// Creating the region and moving its pages. The file is far larger than the memory it will ever
// hold: offsets are cheap and never move, pages are counted, populated before they are used and
// punched when they are not.
#include "shm/region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/newer_linux.h"
#include "shm/page_size.h"
#include "shm/region_internal.h"

#define REGION_LARGE_FACTOR 2u // offsets for large values per byte of memory-max
#define REGION_LOG_FACTOR 2u   // offsets for records per byte of memory, memory-max apart

static uint64_t region_round(uint64_t bytes, uint64_t unit)
{
	return (bytes + unit - 1) / unit * unit;
}

uint64_t kvs_region_geometry(const struct kvs_region_options *options,
			     struct kvs_region_header *header)
{
	uint64_t most = region_round(options->memory_bytes_max, KVS_HUGE_PAGE_BYTES);
	// Recovery may need more segments than the life before did for the same records
	// (ARCHITECTURE.md, "What was accepted is loaded").
	uint64_t records = options->memory_bytes * REGION_LOG_FACTOR +
			   REGION_SEGMENTS_MIN * (uint64_t)options->segment_bytes;
	uint64_t log_bytes = region_round(most > records ? most : records, options->segment_bytes);
	uint64_t segments = log_bytes / options->segment_bytes;
	uint64_t at = KVS_HUGE_PAGE_BYTES;

	header->segment_bytes = options->segment_bytes;
	header->segments_count_max = (uint32_t)segments;
	header->segment_directory_offset = at;
	at += region_round(segments * sizeof(struct kvs_segment_entry), KVS_HUGE_PAGE_BYTES);
	uint64_t unit = KVS_HUGE_PAGE_BYTES;
	if (options->segment_bytes > unit) {
		unit = options->segment_bytes;
	}
	const uint64_t bytes[KVS_RANGES_COUNT] = {
		[KVS_RANGE_TABLE_0] = region_round(most / 2, unit),
		[KVS_RANGE_TABLE_1] = region_round(most / 2, unit),
		[KVS_RANGE_OVERFLOW_0] = region_round(most / 4, unit),
		[KVS_RANGE_OVERFLOW_1] = region_round(most / 4, unit),
		[KVS_RANGE_LOG] = log_bytes,
		[KVS_RANGE_LARGE] = region_round(most * REGION_LARGE_FACTOR, unit),
	};
	for (int i = 0; i < KVS_RANGES_COUNT; i++) {
		at = region_round(at, unit);
		header->ranges[i].offset = at;
		header->ranges[i].bytes_max = bytes[i];
		at += bytes[i];
	}
	return region_round(at, KVS_HUGE_PAGE_BYTES);
}

static int region_memfd(uint64_t bytes, enum kvs_region_pages pages)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	if (pages == KVS_PAGES_HUGETLB) {
		flags |= MFD_HUGETLB | (unsigned)__builtin_ctz(KVS_HUGE_PAGE_BYTES)
					       << MFD_HUGE_SHIFT;
	}
	int fd = memfd_create("kvd-region", flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL) {
		fd = memfd_create("kvd-region", flags);
	}
	if (fd < 0) {
		return -1;
	}
	// The mode is what keeps another uid from reopening the file for writing through /proc.
	if (fchmod(fd, 0600) != 0 || ftruncate(fd, (off_t)bytes) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

int kvs_region_reopen_readonly(int fd)
{
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

// Maps the whole file writable at a huge-page boundary; `sharing` is MAP_SHARED or MAP_PRIVATE.
static int region_map(struct kvs_region *region, int sharing)
{
	size_t bytes = region->bytes + KVS_HUGE_PAGE_BYTES;
	void *space =
		mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (space == MAP_FAILED) {
		return -1;
	}
	uintptr_t address = (uintptr_t)space;
	uintptr_t skip = region_round(address, KVS_HUGE_PAGE_BYTES) - address;
	region->base = (unsigned char *)space + skip;
	if (mmap(region->base, region->bytes, PROT_READ | PROT_WRITE,
		 sharing | MAP_FIXED | MAP_NORESERVE, region->fd, 0) == MAP_FAILED) {
		int error = errno;
		munmap(space, bytes);
		errno = error;
		return -1;
	}
	region->map.reservation = space;
	region->map.reservation_bytes = bytes;
	// A child that kvd forks (the store's probe) must not inherit writable memory of the
	// region.
	(void)madvise(region->base, region->bytes, MADV_DONTFORK);
	(void)madvise(region->base, region->bytes, MADV_DONTDUMP);
	return 0;
}

void kvs_region_advise(const struct kvs_region *region)
{
	const int ranges[] = { KVS_RANGE_TABLE_0, KVS_RANGE_TABLE_1, KVS_RANGE_OVERFLOW_0,
			       KVS_RANGE_OVERFLOW_1, KVS_RANGE_LOG };
	bool advised = region->huge_pages && region->page_bytes == KVS_PAGE_BYTES;
	for (unsigned i = 0; advised && i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		const struct kvs_range_bounds *range = &region->map.ranges[ranges[i]];
		// Advice only: without it the region works with small pages.
		(void)madvise(region->base + range->offset, range->bytes_max, MADV_HUGEPAGE);
	}
}

static int region_fill_header(struct kvs_region *region, const struct kvs_region_options *options,
			      const struct kvs_region_header *geometry)
{
	if (kvs_region_populate(region, 0, KVS_PAGE_BYTES) != 0) {
		return -1;
	}
	struct kvs_region_header *header = region->header;
	*header = *geometry;
	header->layout_version = KVS_LAYOUT_VERSION;
	header->fingerprint = kvs_layout_fingerprint();
	header->lifecycle = KVS_REGION_STARTING;
	header->flags = options->fenced ? KVS_HEADER_READERS_FENCE : 0;
	header->instance_id = options->instance_id;
	header->region_bytes = region->bytes;
	header->hash_kind = options->hash_kind;
	header->hash_sides[0] = (struct kvs_hash_side){
		.key = { options->hash_key[0], options->hash_key[1] },
	};
	header->hot.epoch_word = UINT64_C(1) << KVS_EPOCH_SHIFT | 1;
	header->hot.incarnation = 1;
	header->hot.oldest_valid = 1;
	header->adoptions.epoch[1] = 1;
	memcpy(header->marker, KVS_REGION_MARKER, sizeof(header->marker));
	return 0;
}

void kvs_region_fill_map(struct kvs_region *region)
{
	struct kvs_map *map = &region->map;
	const struct kvs_region_header *header = region->header;
	map->base = region->base;
	map->region_bytes = region->bytes;
	map->chain_buckets_max = UINT32_MAX; // its own memory: a long chain is slow, not damage
	map->hash_kind = (enum kvs_hash_kind)header->hash_kind;
	map->instance_id = header->instance_id;
	map->segment_bytes = header->segment_bytes;
	map->page_bytes = region->page_bytes;
	map->readers_fence = (header->flags & KVS_HEADER_READERS_FENCE) != 0;
	for (int i = 0; i < KVS_RANGES_COUNT; i++) {
		map->ranges[i] = header->ranges[i];
		map->ready[i] = header->ranges[i].bytes_max; // the writer's map needs no opening up
	}
}

int kvs_region_open_file(struct kvs_region *region, const struct kvs_region_options *options,
			 int sharing)
{
	region->fd_readonly = kvs_region_reopen_readonly(region->fd);
	if (region->fd_readonly < 0) {
		return errno == ENOENT ? KVS_REGION_NO_PROC : KVS_REGION_SYSTEM;
	}
	if (region_map(region, sharing) != 0) {
		return KVS_REGION_SYSTEM;
	}
	region->memory_bytes = options->memory_bytes;
	region->segment_bytes = options->segment_bytes;
	region->segment_shift = (uint32_t)__builtin_ctz(options->segment_bytes);
	region->page_bytes = kvs_page_size(region->fd);
	region->huge_pages = options->pages != KVS_PAGES_SMALL;
	region->poison = options->poison;
	region->header = (struct kvs_region_header *)(void *)region->base;
	return KVS_REGION_OK;
}

void kvs_region_place_directory(struct kvs_region *region, const struct kvs_region_header *geometry)
{
	region->segments_count_max = geometry->segments_count_max;
	void *directory = region->base + geometry->segment_directory_offset;
	region->directory = directory;
}

int kvs_region_create(struct kvs_region *region, const struct kvs_region_options *options)
{
	struct kvs_region_header geometry = { 0 };
	memset(region, 0, sizeof(*region));
	region->fd = -1;
	region->fd_readonly = -1;
	if (options->memory_bytes / options->segment_bytes < REGION_SEGMENTS_MIN ||
	    options->memory_bytes < KVS_MEMORY_BYTES_MIN ||
	    (options->pages == KVS_PAGES_HUGETLB && options->segment_bytes < KVS_HUGE_PAGE_BYTES)) {
		return KVS_REGION_TOO_SMALL;
	}
	region->bytes = kvs_region_geometry(options, &geometry);
	if (region->bytes > KVS_REGION_BYTES_MAX) {
		return KVS_REGION_TOO_LARGE;
	}
	region->fd = region_memfd(region->bytes, options->pages);
	if (region->fd < 0) {
		return KVS_REGION_SYSTEM;
	}
	int result = kvs_region_open_file(region, options, MAP_SHARED);
	if (result != KVS_REGION_OK) {
		kvs_region_close(region);
		return result;
	}
	kvs_region_place_directory(region, &geometry);
	if (region_fill_header(region, options, &geometry) != 0) {
		kvs_region_close(region);
		return KVS_REGION_SYSTEM;
	}
	kvs_region_fill_map(region);
	kvs_region_advise(region);
	return KVS_REGION_OK;
}

void kvs_region_go_alive(struct kvs_region *region)
{
	// Release: the header and the table are complete (partner: map_read_header()).
	kvs_store_release(&region->header->lifecycle, KVS_REGION_ALIVE);
}

void kvs_region_close(struct kvs_region *region)
{
	int error = errno;
	if (region->map.reservation != NULL) {
		(void)munmap(region->map.reservation, region->map.reservation_bytes);
	}
	if (region->fd >= 0) {
		close(region->fd);
	}
	if (region->fd_readonly >= 0) {
		close(region->fd_readonly);
	}
	memset(region, 0, sizeof(*region));
	region->fd = -1;
	region->fd_readonly = -1;
	errno = error;
}

// Makes each whole huge page of [offset, offset + bytes) one before anything is in it: one small
// page of it is populated and the hole around it collapsed, which is a tenth of the cost of
// populating small pages, and works where huge pages for shared memory are otherwise switched off.
// Advice only.
static void region_collapse(const struct kvs_region *region, uint64_t offset, uint64_t bytes)
{
	uint64_t at = region_round(offset, KVS_HUGE_PAGE_BYTES);
	bool joined = region->huge_pages && region->page_bytes == KVS_PAGE_BYTES;
	for (; joined && at + KVS_HUGE_PAGE_BYTES <= offset + bytes; at += KVS_HUGE_PAGE_BYTES) {
		if (madvise(region->base + at, KVS_PAGE_BYTES, MADV_POPULATE_WRITE) != 0 ||
		    madvise(region->base + at, KVS_HUGE_PAGE_BYTES, MADV_COLLAPSE) != 0) {
			return;
		}
	}
}

int kvs_region_populate(const struct kvs_region *region, uint64_t offset, uint64_t bytes)
{
	region_collapse(region, offset, bytes);
	int result;
	do {
		result = madvise(region->base + offset, bytes, MADV_POPULATE_WRITE);
	} while (result != 0 && errno == EINTR);
	if (result == 0) {
		return 0;
	}
	if (errno == EINVAL) {
		// An older kernel or an emulator: allocate without mapping; small pages then.
		return fallocate(region->fd, 0, (off_t)offset, (off_t)bytes) == 0 ? 0 : -errno;
	}
	return -(errno == EFAULT || errno == EHWPOISON ? ENOMEM : errno);
}

int kvs_region_punch(const struct kvs_region *region, uint64_t offset, uint64_t bytes)
{
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	return fallocate(region->fd, mode, (off_t)offset, (off_t)bytes) == 0 ? 0 : -errno;
}

void kvs_region_publish(struct kvs_region *region, enum kvs_range range, uint64_t ready)
{
	if (ready > region->header->ready[range]) {
		// Release: the pages are populated (partner: map_published()).
		kvs_store_release(&region->header->ready[range], ready);
	}
}
