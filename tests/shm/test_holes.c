// SPDX-License-Identifier: MIT
//
// shm/holes.c: the count of pages is what the file has, whatever was written, and what a hostile
// process adds to it by reading all that it can map is found and given back, and nothing else is.
#include "shm/holes.h"

#include <sys/mman.h>

#include "shm/writers.h"
#include "tests/shm/holes_fixture.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define KEYS 3000u
#define LARGE_BYTES 300000u

// Maps the file as whoever has its descriptor can, and reads each page of it.
static unsigned read_everything(const struct fixture *f)
{
	unsigned char *map =
		mmap(NULL, f->region.bytes, PROT_READ, MAP_SHARED, f->region.fd_readonly, 0);
	unsigned sum = 0;
	if (map == MAP_FAILED) {
		return 0;
	}
	for (uint64_t at = 0; at < f->region.bytes; at += KVS_PAGE_BYTES) {
		sum += *(volatile unsigned char *)(map + at);
	}
	(void)munmap(map, f->region.bytes);
	return sum + 1;
}

static uint64_t walk(struct fixture *f, uint64_t *most)
{
	struct kvs_holes_parts parts = parts_of(f);
	uint64_t given = 0;
	unsigned steps = 0;
	*most = 0;
	for (uint64_t at = 0; at != UINT64_MAX && steps < 100000; steps++) {
		uint64_t part = kvs_holes_step(&parts, &at);
		given += part;
		*most = part > *most ? part : *most;
	}
	ok(steps < 100000, "the walk ends, after %u steps", steps);
	return given;
}

static void fill(struct fixture *f)
{
	static unsigned char value[500];
	unsigned failed = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];
		int n = snprintf(key, sizeof(key), "key:%u", i);
		failed += fixture_set(f, key, (size_t)n, value, sizeof(value)) == 0;
	}
	ok_u64(failed, 0, "keys");
}

// Large runs with a gap between two of them.
static void fill_large(struct fixture *f, uint64_t *first, uint64_t *last)
{
	uint64_t middle = 0;
	int result = kvs_large_take(&f->large, LARGE_BYTES, first);
	result += kvs_large_take(&f->large, LARGE_BYTES, &middle);
	result += kvs_large_take(&f->large, LARGE_BYTES, last);
	ok_int(result, 0, "large values");
	memset(f->region.base + *first, 1, LARGE_BYTES);
	memset(f->region.base + *last, 2, LARGE_BYTES);
	ok(kvs_large_drop(&f->large, middle), "one goes");
	kvs_large_free(&f->large, middle);
}

static void test_is_run(struct fixture *f, uint64_t first, uint64_t last)
{
	uint64_t end;
	uint64_t bytes = kvs_large_bytes(&f->region, LARGE_BYTES);
	ok(kvs_large_is_run(&f->large, last, &end) && end == last + bytes, "in the last run");
	ok(kvs_large_is_run(&f->large, first + bytes - 1, &end) && end == first + bytes,
	   "in the first, asked for afterwards");
	ok(!kvs_large_is_run(&f->large, first + bytes, &end) && end == last, "in the gap");
	ok(!kvs_large_is_run(&f->large, last + bytes, &end) && end > last + bytes, "behind all");
}

int main(void)
{
	struct fixture f;
	uint64_t first, last, most;
	fixture_open(&f, MEMORY, SEGMENT);
	f.step_after_write = true;
	ok_int(kvs_region_populate(&f.region, KVS_WRITERS_OFFSET, KVS_WRITERS_BYTES), 0,
	       "the table of users has its pages");
	equal(&f, "at the start");
	fill(&f);
	fill_large(&f, &first, &last);
	equal(&f, "with small and large values");
	test_is_run(&f, first, last);
	ok_u64(walk(&f, &most), 0, "nothing is to be given back");
	ok_u64(fixture_keys(&f.region.map, KEYS), KEYS, "A: every key is there");

	uint64_t before = kvs_holes_file_bytes(&f.region);
	uint32_t preparing = kvs_log_prepare_begin(&f.log, 100);
	ok(preparing != KVS_SEGMENT_NONE &&
		   kvs_region_populate(&f.region, kvs_region_segment_offset(&f.region, preparing),
				       SEGMENT) == 0,
	   "a helper populates a segment");
	ok(read_everything(&f) > 0 && kvs_holes_file_bytes(&f.region) > 4 * before,
	   "H: who reads all of the file fills its holes, %" PRIu64 " bytes",
	   kvs_holes_file_bytes(&f.region));
	uint64_t given = walk(&f, &most);
	ok(given > 3 * before && most <= 2u << 20, "they are found, %" PRIu64 " bytes at a time",
	   most);
	kvs_log_prepare_end(&f.log, preparing, true);
	equal(&f, "again, and the helper's segment kept its pages");
	ok_u64(fixture_keys(&f.region.map, KEYS), KEYS, "A: every key is there");
	ok(f.region.base[first + LARGE_BYTES - 1] == 1 && f.region.base[last] == 2,
	   "A: and every large value");
	uint32_t spare = kvs_log_spare_count(&f.log);
	uint32_t lent = kvs_log_prepare_begin(&f.log, 100);
	ok(kvs_region_populate(&f.region, kvs_region_segment_offset(&f.region, lent), SEGMENT) == 0,
	   "it populates another");
	ok_u64(kvs_log_give_back(&f.log, UINT32_MAX), spare, "all that is spare is given back");
	kvs_log_prepare_end(&f.log, lent, true);
	equal(&f, "then, and what was on its way to the helper was left alone");
	fixture_close(&f);
	return tap_done();
}
