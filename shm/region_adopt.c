// SPDX-License-Identifier: MIT
//
// Mapping a region that outlived its writer: to go on in it, or only to read it out. Nothing in it
// is believed before it is checked. What is read out is mapped privately: its readers go on reading
// the file, which nobody writes any more, while this process makes of its copy what it likes.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/layouts.h"
#include "shm/region_internal.h"

#define REGION_COPY_BYTES (64u << 10)
#define REGION_FLAGS_KNOWN (KVS_HEADER_READERS_FENCE | KVS_HEADER_STORELESS)

// The geometry, of a header whose identity is checked, agrees with itself.
static int region_check_geometry(const struct kvs_region_header *header, const struct kvs_map *map)
{
	uint64_t count = header->segments_count_max;
	uint64_t directory = header->segment_directory_offset;
	for (int i = 0; i + 1 < KVS_RANGES_COUNT; i++) {
		if (map->ranges[i].bytes_max == 0 ||
		    map->ranges[i].offset + map->ranges[i].bytes_max > map->ranges[i + 1].offset) {
			return KVS_REGION_DAMAGED;
		}
	}
	if (count << __builtin_ctzll(map->segment_bytes) != map->ranges[KVS_RANGE_LOG].bytes_max ||
	    directory % KVS_PAGE_BYTES != 0 || directory < KVS_PAGE_BYTES ||
	    directory + count * sizeof(struct kvs_segment_entry) > map->ranges[0].offset) {
		return KVS_REGION_DAMAGED;
	}
	return KVS_REGION_OK;
}

static int region_check_header(struct kvs_region *region)
{
	struct kvs_map map;
	const struct kvs_region_header *header = region->header;
	switch (kvs_map_adopt(&map, region->base, region->bytes)) {
	case KVS_MAP_OK:
		break;
	case KVS_MAP_NOT_ALIVE:
		if (kvs_load_relaxed(&header->lifecycle) != KVS_REGION_RETIRED) {
			return KVS_REGION_UNFILLED;
		}
		break;
	case KVS_MAP_FOREIGN:
		return KVS_REGION_FOREIGN;
	case KVS_MAP_LAYOUT:
	case KVS_MAP_HASH:
		return KVS_REGION_LAYOUT;
	default:
		return KVS_REGION_DAMAGED;
	}
	// A flag that this build does not know may change what anything else means.
	if ((kvs_load_relaxed(&header->flags) & ~(uint64_t)REGION_FLAGS_KNOWN) != 0) {
		return KVS_REGION_LAYOUT;
	}
	region->segment_bytes = (uint32_t)map.segment_bytes;
	region->segment_shift = (uint32_t)__builtin_ctzll(map.segment_bytes);
	return region->segment_bytes % region->page_bytes == 0 ? region_check_geometry(header, &map)
							       : KVS_REGION_DAMAGED;
}

// Is it laid out so that it can serve with these options? What is larger than they need is fine.
static bool region_is_alike(const struct kvs_region *region,
			    const struct kvs_region_options *options)
{
	const struct kvs_region_header *header = region->header;
	struct kvs_region_header wanted = { 0 };
	(void)kvs_region_geometry(options, &wanted);
	bool has_huge = region->page_bytes != KVS_PAGE_BYTES;
	// Of the log only what `memory` itself takes is wanted: nothing is loaded into it.
	bool alike = region->segment_bytes == options->segment_bytes &&
		     has_huge == (options->pages == KVS_PAGES_HUGETLB) &&
		     header->hash_kind == (uint64_t)options->hash_kind &&
		     options->memory_bytes <= header->ranges[KVS_RANGE_LOG].bytes_max &&
		     options->memory_bytes / options->segment_bytes >= REGION_SEGMENTS_MIN;
	for (int i = 0; i < KVS_RANGES_COUNT && alike; i++) {
		alike = i == KVS_RANGE_LOG ||
			wanted.ranges[i].bytes_max <= header->ranges[i].bytes_max;
	}
	return alike;
}

// Sets the size. False if this cannot be a region, or is one that others could still resize.
static bool region_is_sealed(struct kvs_region *region, int fd)
{
	struct stat status;
	int seals = fcntl(fd, F_GET_SEALS);
	if (fstat(fd, &status) != 0 || seals < 0 ||
	    (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW) ||
	    status.st_size < (off_t)KVS_HUGE_PAGE_BYTES ||
	    (uint64_t)status.st_size > KVS_REGION_BYTES_MAX) {
		return false;
	}
	region->bytes = (uint64_t)status.st_size;
	return true;
}

static void region_clear(struct kvs_region *region)
{
	memset(region, 0, sizeof(*region));
	region->fd = -1;
	region->fd_readonly = -1;
}

int kvs_region_adopt(struct kvs_region *region, int fd, const struct kvs_region_options *options)
{
	region_clear(region);
	region->fd = fd;
	int result = KVS_REGION_FOREIGN;
	if (region_is_sealed(region, fd)) {
		result = kvs_region_open_file(region, options, MAP_SHARED);
	}
	if (result == KVS_REGION_OK) {
		result = region_check_header(region);
	}
	if (result == KVS_REGION_OK && !region_is_alike(region, options)) {
		result = KVS_REGION_UNLIKE;
	}
	if (result == KVS_REGION_OK && options->fenced &&
	    (region->header->flags & KVS_HEADER_READERS_FENCE) == 0) {
		result = KVS_REGION_UNFENCED;
	}
	if (result != KVS_REGION_OK) {
		region->fd = -1; // stays the caller's
		kvs_region_close(region);
		return result;
	}
	kvs_region_place_directory(region, region->header);
	kvs_region_fill_map(region);
	kvs_region_advise(region);
	region->pagemap_fd = options->pagemap_fd;
	return KVS_REGION_OK;
}

// Makes today's header of a former one, in the private copy.
static bool region_lift(struct kvs_region *region, const struct kvs_layout *layouts)
{
	struct kvs_region_header *header = region->header;
	if (memcmp(header->marker, KVS_REGION_MARKER, sizeof(header->marker)) != 0) {
		return false;
	}
	const struct kvs_layout *layout =
		kvs_layout_find(layouts, header->layout_version, header->fingerprint);
	if (layout == NULL || !layout->lift(region->base, region->bytes)) {
		return false;
	}
	header->layout_version = KVS_LAYOUT_VERSION;
	header->fingerprint = kvs_layout_fingerprint();
	return true;
}

// Puts memory of its own in the place of [offset, offset + bytes), and into it what the file has in
// the first `filled` of them. A private map of huge pages would take one of the pool's for each
// that is written, and end kvd where the pool has none.
static bool region_own(const struct kvs_region *region, uint64_t offset, uint64_t bytes,
		       uint64_t filled)
{
	static unsigned char part[REGION_COPY_BYTES]; // kvd reads out one region, on one thread
	static const unsigned char zeroes[REGION_COPY_BYTES];
	if (mmap(region->base + offset, bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
		return false;
	}
	for (uint64_t at = 0; at < filled && at < bytes; at += sizeof(part)) {
		if (pread(region->fd, part, sizeof(part), (off_t)(offset + at)) !=
		    (ssize_t)sizeof(part)) {
			return false;
		}
		if (memcmp(part, zeroes, sizeof(part)) != 0) {
			memcpy(region->base + offset + at, part, sizeof(part));
		}
	}
	return true;
}

// All that a plan may change when it is applied: the directory and the table. Records and large
// values are read alone.
static bool region_own_all(const struct kvs_region *region)
{
	const struct kvs_region_header *header = region->header;
	uint64_t directory = header->segment_directory_offset;
	uint64_t directory_bytes = header->ranges[0].offset - directory;
	bool good = region_own(region, directory, directory_bytes, directory_bytes);
	for (int i = KVS_RANGE_TABLE_0; i <= KVS_RANGE_OVERFLOW_1 && good; i++) {
		good = region_own(region, header->ranges[i].offset, header->ranges[i].bytes_max,
				  kvs_load_acquire(&header->ready[i]));
	}
	return good;
}

int kvs_region_read_out(struct kvs_region *region, int fd, const struct kvs_layout *layouts)
{
	region_clear(region);
	if (!region_is_sealed(region, fd)) {
		return KVS_REGION_FOREIGN;
	}
	// Not even by mistake can anything be written or punched through it.
	region->fd = kvs_region_reopen_readonly(fd);
	if (region->fd < 0) {
		return errno == ENOENT ? KVS_REGION_NO_PROC : KVS_REGION_SYSTEM;
	}
	const struct kvs_region_options options = {
		.memory_bytes = region->bytes,		// whatever is in it, it is not too much
		.segment_bytes = KVS_SEGMENT_BYTES_MIN, // until the header tells
	};
	int result = kvs_region_open_file(region, &options, MAP_PRIVATE);
	bool has_huge = result == KVS_REGION_OK && region->page_bytes != KVS_PAGE_BYTES;
	if (has_huge && !region_own(region, 0, KVS_HUGE_PAGE_BYTES, KVS_HUGE_PAGE_BYTES)) {
		result = KVS_REGION_SYSTEM;
	}
	if (result == KVS_REGION_OK) {
		result = region_check_header(region);
	}
	if (result == KVS_REGION_LAYOUT && region_lift(region, layouts)) {
		result = region_check_header(region);
	}
	if (result == KVS_REGION_OK && has_huge && !region_own_all(region)) {
		result = KVS_REGION_SYSTEM;
	}
	if (result != KVS_REGION_OK) {
		kvs_region_close(region);
		return result;
	}
	kvs_region_place_directory(region, region->header);
	kvs_region_fill_map(region);
	return KVS_REGION_OK;
}
