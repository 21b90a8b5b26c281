// SPDX-License-Identifier: MIT
//
// shm/region.c: what is refused, how the file is sealed and who may open it how, and that pages are
// only taken when they are populated.
#include "shm/region.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tap/tap.h"

static int create(struct kvs_region *region, uint64_t memory_bytes, uint64_t most, uint32_t segment)
{
	const struct kvs_region_options options = { .memory_bytes = memory_bytes,
						    .memory_bytes_max = most,
						    .segment_bytes = segment,
						    .instance_id = 42,
						    .hash_key = { 43 } };
	return kvs_region_create(region, &options);
}

static uint64_t file_bytes(const struct kvs_region *region)
{
	struct stat status;
	return fstat(region->fd, &status) == 0 ? (uint64_t)status.st_blocks * 512 : UINT64_MAX;
}

static void test_refusals(void)
{
	struct kvs_region region;
	ok_int(create(&region, KVS_MEMORY_BYTES_MIN / 2, KVS_MEMORY_BYTES_MIN,
		      KVS_SEGMENT_BYTES_MIN),
	       KVS_REGION_TOO_SMALL, "too little memory is refused");
	ok_int(create(&region, 4u << 20, 4u << 20, 4u << 20), KVS_REGION_TOO_SMALL,
	       "a handful of segments is the least");
	ok_int(create(&region, 4u << 20, KVS_REGION_BYTES_MAX, KVS_SEGMENT_BYTES_MIN),
	       KVS_REGION_TOO_LARGE, "more than an entry can name is refused");
	kvs_region_close(&region);
	ok(region.fd == -1, "closing what was never opened is fine");
}

static void test_file(const struct kvs_region *region)
{
	struct stat status;
	ok(fstat(region->fd, &status) == 0 && (status.st_mode & 07777) == 0600,
	   "H: the file has mode 0600");
	ok(ftruncate(region->fd, 0) != 0 && ftruncate(region->fd, (off_t)region->bytes * 2) != 0,
	   "H: it cannot shrink or grow");
	int seals = fcntl(region->fd, F_GET_SEALS);
	ok((seals & F_SEAL_SHRINK) && (seals & F_SEAL_GROW) && (seals & F_SEAL_SEAL),
	   "H: nor can its seals be changed");
	ok(write(region->fd_readonly, "x", 1) < 0, "H: what clients get cannot be written");
	ok((fcntl(region->fd, F_GETFD) & FD_CLOEXEC) &&
		   (fcntl(region->fd_readonly, F_GETFD) & FD_CLOEXEC),
	   "H: both descriptors close on exec");
	ok((uintptr_t)region->base % KVS_HUGE_PAGE_BYTES == 0, "mapped at a huge-page boundary");
	ok(region->map.ranges[KVS_RANGE_LOG].offset % region->segment_bytes == 0,
	   "segments are aligned in the file");
	for (int i = 0; i + 1 < KVS_RANGES_COUNT; i++) {
		const struct kvs_range_bounds *range = &region->map.ranges[i];
		ok(range->offset + range->bytes_max <= range[1].offset,
		   "range %d ends before the next", i);
	}
}

static void test_pages(struct kvs_region *region)
{
	uint64_t at = region->map.ranges[KVS_RANGE_LOG].offset;
	uint64_t before = file_bytes(region);
	ok(before <= KVS_PAGE_BYTES && region->bytes > (16u << 20),
	   "G: the file is sparse, whatever it may grow to");
	ok_int(kvs_region_populate(region, at, KVS_SEGMENT_BYTES_MIN), 0, "populate");
	if (getenv("KVD_TEST_EMULATED")) {
		tap_skip("takes exactly those pages: the emulator ignores MADV_POPULATE_WRITE");
	} else {
		ok_u64(file_bytes(region), before + KVS_SEGMENT_BYTES_MIN,
		       "takes exactly those pages");
	}
	region->base[at] = 1;
	ok_int(kvs_region_punch(region, at, KVS_SEGMENT_BYTES_MIN), 0, "punch");
	ok_u64(file_bytes(region), before, "gives them back");
	ok_u64(region->base[at], 0, "and they read as zero");
}

static void test_life(struct kvs_region *region)
{
	struct kvs_map map;
	ok_int(kvs_map_open(&map, region->fd_readonly), KVS_MAP_NOT_ALIVE,
	       "a starting region is refused");
	kvs_region_go_alive(region);
	ok_int(kvs_map_open(&map, region->fd_readonly), KVS_MAP_OK, "an alive one is mapped");
	ok(map.instance_id == 42 && map.hash_kind == KVS_HASH_XXH3 &&
		   map.segment_bytes == KVS_SEGMENT_BYTES_MIN,
	   "with identity, seed and segment size");
	kvs_map_close(&map);
}

int main(void)
{
	struct kvs_region region;
	test_refusals();
	ok_int(create(&region, 4u << 20, 4u << 20, KVS_SEGMENT_BYTES_MIN), KVS_REGION_OK, "create");
	test_file(&region);
	test_pages(&region);
	test_life(&region);
	kvs_region_close(&region);
	return tap_done();
}
