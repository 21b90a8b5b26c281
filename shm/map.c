// SPDX-License-Identifier: MIT
//
// Mapping the region and believing nothing in it: the header is copied once, checked against the
// size of the file, and only the copy is used afterwards. Growing ranges are opened by mprotect,
// page by page of what kvd has published.
#include "shm/map.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/page_size.h"

static bool map_range_fits(const struct kvs_range_bounds *range, uint64_t page_bytes,
			   uint64_t region_bytes)
{
	return range->offset % page_bytes == 0 && range->bytes_max % page_bytes == 0 &&
	       range->offset >= page_bytes && range->offset <= region_bytes &&
	       range->bytes_max <= region_bytes - range->offset;
}

// Fills the geometry of `map` from a header that may be anything.
static int map_read_header(struct kvs_map *map, const struct kvs_region_header *shared,
			   uint64_t region_bytes)
{
	if (memcmp(shared->marker, KVS_REGION_MARKER, sizeof(shared->marker)) != 0) {
		return KVS_MAP_FOREIGN;
	}
	if (kvs_load_relaxed_32(&shared->layout_version) != KVS_LAYOUT_VERSION ||
	    kvs_load_relaxed_32(&shared->fingerprint) != kvs_layout_fingerprint()) {
		return KVS_MAP_LAYOUT;
	}
	// Acquire: everything in the header was written before ALIVE (partner: the writer's going
	// alive).
	uint64_t lifecycle = kvs_load_acquire(&shared->lifecycle);
	map->region_bytes = region_bytes;
	map->chain_buckets_max = KVS_CHAIN_BUCKETS_MAX;
	map->instance_id = shared->instance_id;
	map->segment_bytes = kvs_load_relaxed_32(&shared->segment_bytes);
	map->readers_fence = (kvs_load_relaxed(&shared->flags) & KVS_HEADER_READERS_FENCE) != 0;
	uint64_t hash_kind = kvs_load_relaxed(&shared->hash_kind);
	if (hash_kind >= KVS_HASH_KINDS_COUNT) {
		return KVS_MAP_HASH;
	}
	map->hash_kind = (enum kvs_hash_kind)hash_kind;
	if (shared->region_bytes != region_bytes || region_bytes > KVS_REGION_BYTES_MAX ||
	    map->segment_bytes < KVS_SEGMENT_BYTES_MIN ||
	    map->segment_bytes > KVS_SEGMENT_BYTES_MAX ||
	    (map->segment_bytes & (map->segment_bytes - 1)) != 0) {
		return KVS_MAP_DAMAGED;
	}
	for (int i = 0; i < KVS_RANGES_COUNT; i++) {
		map->ranges[i].offset = kvs_load_relaxed(&shared->ranges[i].offset);
		map->ranges[i].bytes_max = kvs_load_relaxed(&shared->ranges[i].bytes_max);
		if (!map_range_fits(&map->ranges[i], map->page_bytes, region_bytes)) {
			return KVS_MAP_DAMAGED;
		}
	}
	if (map->segment_bytes % map->page_bytes != 0 ||
	    map->ranges[KVS_RANGE_LOG].offset % map->segment_bytes != 0 ||
	    map->ranges[KVS_RANGE_LOG].bytes_max % map->segment_bytes != 0) {
		return KVS_MAP_DAMAGED;
	}
	return lifecycle == KVS_REGION_ALIVE ? KVS_MAP_OK : KVS_MAP_NOT_ALIVE;
}

// What kvd has published of a range, bounded by the range; of the log whole segments, because
// records are bounded by the end of their segment.
static uint64_t map_published(const struct kvs_map *map, int range)
{
	// Acquire: the pages are populated (partner: kvs_region_publish()).
	uint64_t ready = kvs_load_acquire(&kvs_map_header(map)->ready[range]);
	uint64_t most = map->ranges[range].bytes_max;
	uint64_t unit = range == KVS_RANGE_LOG ? map->segment_bytes : map->page_bytes;
	return (ready < most ? ready : most) & ~(unit - 1);
}

int kvs_map_adopt(struct kvs_map *map, void *base, uint64_t region_bytes)
{
	memset(map, 0, sizeof(*map));
	if (region_bytes < KVS_PAGE_BYTES) {
		return KVS_MAP_DAMAGED;
	}
	map->base = base;
	map->page_bytes = KVS_PAGE_BYTES;
	int result = map_read_header(map, base, region_bytes);
	if (result != KVS_MAP_OK) {
		return result;
	}
	for (int i = 0; i < KVS_RANGES_COUNT; i++) {
		kvs_store_relaxed(&map->ready[i], map_published(map, i));
	}
	return KVS_MAP_OK;
}

// Reserves address space for the whole region at a huge-page boundary, so that file and addresses
// are congruent and huge pages of the file can be mapped as such.
static int map_reserve(struct kvs_map *map, int fd, uint64_t region_bytes)
{
	size_t bytes = region_bytes + KVS_HUGE_PAGE_BYTES;
	void *space =
		mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (space == MAP_FAILED) {
		return -1;
	}
	uintptr_t aligned = ((uintptr_t)space + KVS_HUGE_PAGE_BYTES - 1) &
			    ~(uintptr_t)(KVS_HUGE_PAGE_BYTES - 1);
	map->reservation = space;
	map->reservation_bytes = bytes;
	map->base = (unsigned char *)space + (aligned - (uintptr_t)space);
	void *region = mmap(map->base, region_bytes, PROT_NONE,
			    MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0);
	if (region == MAP_FAILED || mprotect(map->base, map->page_bytes, PROT_READ) != 0) {
		int error = errno;
		munmap(space, bytes);
		errno = error;
		return -1;
	}
	return 0;
}

int kvs_map_open(struct kvs_map *map, int fd)
{
	memset(map, 0, sizeof(*map));
	struct stat status;
	if (fstat(fd, &status) != 0) {
		return KVS_MAP_SYSTEM;
	}
	uint64_t region_bytes = (uint64_t)status.st_size;
	if (status.st_size < (off_t)KVS_PAGE_BYTES || region_bytes > KVS_REGION_BYTES_MAX ||
	    region_bytes % KVS_PAGE_BYTES != 0) {
		return KVS_MAP_FOREIGN;
	}
	map->page_bytes = kvs_page_size(fd);
	if (map->page_bytes > KVS_HUGE_PAGE_BYTES) {
		return KVS_MAP_FOREIGN; // addresses would not fit
	}
	// Whoever could shrink the file could end every reader by SIGBUS.
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
		return KVS_MAP_FOREIGN;
	}
	if (map_reserve(map, fd, region_bytes) != 0) {
		return KVS_MAP_SYSTEM;
	}
	int result = map_read_header(map, (const void *)map->base, region_bytes);
	if (result == KVS_MAP_OK && kvs_map_extend(map) != 0) {
		result = KVS_MAP_SYSTEM;
	}
	if (result != KVS_MAP_OK) {
		int error = errno;
		kvs_map_close(map);
		errno = error;
	}
	return result;
}

int kvs_map_extend(struct kvs_map *map)
{
	for (int i = 0; i < KVS_RANGES_COUNT; i++) {
		uint64_t have = kvs_load_relaxed(&map->ready[i]);
		uint64_t ready = map_published(map, i);
		if (ready <= have) {
			continue;
		}
		unsigned char *start = map->base + map->ranges[i].offset;
		if (map->reservation != NULL &&
		    mprotect(start + have, ready - have, PROT_READ) != 0) {
			return -errno;
		}
		// Release: whoever sees the new bound may read up to it (partner:
		// kvs_table_load()).
		kvs_store_release(&map->ready[i], ready);
	}
	return 0;
}

void kvs_map_close(struct kvs_map *map)
{
	if (map->reservation != NULL) {
		(void)munmap(map->reservation, map->reservation_bytes);
	}
	memset(map, 0, sizeof(*map));
}
