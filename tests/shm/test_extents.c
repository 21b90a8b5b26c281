// SPDX-License-Identifier: MIT
//
// Stretches of pages are found as they are, and each is looked for once: the kernel looks at every
// page between where a search begins and where it ends, so all that is searched during an adoption
// is to be no more than the file has pages, however many segments there are.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/adopt.h"
#include "shm/extents.h"
#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (16u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define PAGE UINT64_C(4096)

static uint64_t searched_bytes; // with pages: what the kernel looks at one by one
static unsigned searches;

off_t __real_lseek64(int fd, off_t offset, int whence);
off_t __wrap_lseek64(int fd, off_t offset, int whence);

off_t __wrap_lseek64(int fd, off_t offset, int whence)
{
	off_t found = __real_lseek64(fd, offset, whence);
	searches++;
	if (whence == SEEK_HOLE && found > offset) {
		searched_bytes += (uint64_t)(found - offset);
	}
	return found;
}

static void populate(const struct kvs_region *region, uint64_t offset, uint64_t bytes)
{
	if (kvs_region_populate(region, offset, bytes) != 0) {
		printf("Bail out! no memory\n");
		exit(99);
	}
}

static void test_stretches(void)
{
	struct fixture f;
	struct kvs_extents walk;
	uint64_t start = 0;
	uint64_t end = 0;
	fixture_open(&f, MEMORY, SEGMENT);
	uint64_t large = f.region.map.ranges[KVS_RANGE_LARGE].offset;
	uint64_t behind = large + f.region.map.ranges[KVS_RANGE_LARGE].bytes_max;
	populate(&f.region, large + 2 * PAGE, 3 * PAGE);
	populate(&f.region, large + 8 * PAGE, PAGE);
	kvs_extents_begin(&walk, &f.region);
	ok(!kvs_extents_next(&walk, large, large, &start, &end), "nothing is in no bytes");
	ok(!kvs_extents_next(&walk, large, large + 2 * PAGE, &start, &end), "nor in a hole");
	ok_u64(kvs_extents_populated(&walk, large, 9 * PAGE), 0, "a hole has no pages");
	ok(kvs_extents_next(&walk, large, behind, &start, &end) && start == large + 2 * PAGE &&
		   end == large + 5 * PAGE,
	   "the first stretch is found from the hole before it");
	ok(kvs_extents_next(&walk, large + 3 * PAGE, large + 4 * PAGE, &start, &end) &&
		   start == large + 3 * PAGE && end == large + 4 * PAGE,
	   "and as much of it as is asked for");
	ok_u64(kvs_extents_populated(&walk, large + 3 * PAGE, 9 * PAGE), 2 * PAGE,
	       "it has pages up to the hole");
	ok_u64(kvs_extents_populated(&walk, large + 5 * PAGE, 4 * PAGE), 0, "which has none");
	ok_u64(kvs_extents_populated(&walk, large + 8 * PAGE, PAGE), PAGE, "the next has its own");
	ok(!kvs_extents_next(&walk, large + 9 * PAGE, behind, &start, &end), "and then comes none");
	unsigned before = searches;
	ok(!kvs_extents_next(&walk, large + 10 * PAGE, behind, &start, &end) && searches == before,
	   "which is not asked again");
	fixture_close(&f);
}

// Every segment has pages, and one in the middle lacks its last, where it has no records.
static void fill(struct fixture *f, unsigned segments, unsigned cut)
{
	static const char value[12000] = "value";
	char key[16];
	fixture_open(f, MEMORY, SEGMENT);
	f->step_after_write = true;
	for (unsigned i = 0; f->log.touched_count < segments; i++) {
		int bytes = snprintf(key, sizeof(key), "key:%u", i);
		(void)fixture_set(f, key, (size_t)bytes, value, sizeof(value));
	}
	f->region.header->marks.applied_seq = f->log.next_seq - 1;
	kvs_log_publish(&f->log);
	uint64_t last = kvs_region_segment_offset(&f->region, cut + 1) - PAGE;
	(void)kvs_region_punch(&f->region, last, PAGE);
	// Strays between the runs of large values: none of them is named.
	uint64_t large = f->region.map.ranges[KVS_RANGE_LARGE].offset;
	populate(&f->region, large, 64 * PAGE);
}

static uint64_t pages_bytes(const struct kvs_region *region)
{
	uint64_t bytes = 0;
	off_t at = 0;
	while ((at = __real_lseek64(region->fd, at, SEEK_DATA)) >= 0) {
		off_t hole = __real_lseek64(region->fd, at, SEEK_HOLE);
		bytes += (uint64_t)(hole - at);
		at = hole;
	}
	return bytes;
}

static void test_adoption(void)
{
	struct fixture f;
	struct kvs_adopt plan;
	struct kvs_limbo limbo;
	struct kvs_log log;
	struct kvs_table table;
	struct kvs_large large;
	struct kvs_epoch_domain epochs;
	const unsigned segments = 120;
	const unsigned cut = 57;
	fill(&f, segments, cut);
	kvs_epoch_init(&epochs, &f.region.header->hot, true);
	(void)kvs_limbo_init(&limbo);
	struct kvs_adopt_parts parts = {
		.log = &log, .table = &table, .large = &large, .limbo = &limbo, .epochs = &epochs
	};
	searched_bytes = 0;
	ok_int(kvs_adopt_plan(&plan, &f.region, 0), 0, "a region of %u segments is looked at",
	       segments);
	ok_int(kvs_adopt_apply(&plan, &parts), 0, "and taken over");
	uint64_t most = pages_bytes(&f.region);
	ok(searched_bytes > 0 && searched_bytes <= most,
	   "each page is searched once: %llu of %llu bytes", (unsigned long long)searched_bytes,
	   (unsigned long long)most);
	ok_u64(log.prepared_count, segments - 1, "all segments but one have their pages");
	ok(log.segments[0].prepared && !log.segments[cut].prepared &&
		   log.segments[cut + 1].prepared,
	   "and it is that one");
	kvs_adopt_fini(&plan);
	kvs_limbo_fini(&limbo);
	kvs_log_fini(&log);
	kvs_table_fini(&table);
	kvs_large_fini(&large);
	kvs_epoch_fini(&epochs);
	fixture_close(&f);
}

int main(void)
{
	const char *emulated = getenv("KVD_TEST_EMULATED");
	if (emulated != NULL && strcmp(emulated, "valgrind") != 0) {
		printf("1..0 # SKIP the emulator populates nothing\n");
		return 0;
	}
	test_stretches();
	test_adoption();
	return tap_done();
}
