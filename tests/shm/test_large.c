// SPDX-License-Identifier: MIT
//
// shm/large.c: runs never overlap, keep their bytes until nothing names them, and give their pages
// back.
#include "shm/large.h"

#include <errno.h>
#include <sys/stat.h>

#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (64u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define RUNS 300u
#define FULL_BYTES (2u << 20) // of runs without pages that fill the range

struct run {
	uint64_t offset;
	uint64_t bytes;
	unsigned char fill;
};

static uint64_t file_bytes(const struct fixture *f)
{
	struct stat status;
	return fstat(f->region.fd, &status) == 0 ? (uint64_t)status.st_blocks * 512 : 0;
}

static unsigned damaged(const struct fixture *f, const struct run *run)
{
	unsigned wrong = 0;
	for (uint64_t i = 0; i < run->bytes; i += 511) {
		wrong += f->region.base[run->offset + i] != run->fill;
	}
	return wrong + (f->region.base[run->offset + run->bytes - 1] != run->fill);
}

static void test_runs(struct fixture *f, uint64_t *random)
{
	static struct run runs[RUNS];
	unsigned wrong = 0, refused = 0;
	uint64_t taken = 0, before = file_bytes(f);
	for (unsigned round = 0; round < 6000; round++) {
		struct run *run = &runs[tap_random(random) % RUNS];
		if (run->bytes != 0) {
			wrong += damaged(f, run);
			wrong += !kvs_large_unref(&f->large, run->offset);
			kvs_large_free(&f->large, run->offset);
			taken -= kvs_large_bytes(&f->region, run->bytes);
			run->bytes = 0;
			continue;
		}
		uint64_t bytes = 1 + tap_random(random) % 60000;
		if (kvs_large_take(&f->large, bytes, &run->offset) != 0) {
			refused++;
			continue;
		}
		kvs_large_settle(&f->large, run->offset, 8);
		run->bytes = bytes;
		run->fill = (unsigned char)tap_random(random);
		memset(f->region.base + run->offset, run->fill, bytes);
		taken += kvs_large_bytes(&f->region, bytes);
		wrong += f->region.large_bytes != taken;
	}
	ok_u64(wrong, 0, "runs do not overlap, keep their bytes, and are counted");
	ok_u64(refused, 0, "none was refused");
	for (unsigned i = 0; i < RUNS; i++) {
		if (runs[i].bytes != 0) {
			wrong += !kvs_large_unref(&f->large, runs[i].offset);
			kvs_large_free(&f->large, runs[i].offset);
		}
	}
	ok(f->large.runs_count == 0 && f->region.large_bytes == 0, "all given back");
	ok(file_bytes(f) <= before + KVS_HUGE_PAGE_BYTES, "G: and so are their pages");
}

static void test_references(struct fixture *f)
{
	uint64_t offset;
	ok_int(kvs_large_take(&f->large, 70000, &offset), 0, "take");
	ok(kvs_large_drop(&f->large, offset), "a write that is given up leaves nothing");
	kvs_large_free(&f->large, offset);
	ok_int(kvs_large_take(&f->large, 70000, &offset), 0, "take again");
	kvs_large_settle(&f->large, offset, 8);
	kvs_large_hold(&f->large, offset);
	ok_u64(f->large.orphaned_bytes, 0, "what a record names is no orphan");
	ok(!kvs_large_unref(&f->large, offset), "B: a write on its way keeps the run");
	ok(f->large.orphaned_bytes == kvs_large_bytes(&f->region, 70000) &&
		   kvs_large_orphaned_bytes(&f->large, offset) ==
			   kvs_large_bytes(&f->region, 70000),
	   "G: and nothing else does, which is counted");
	kvs_large_settle(&f->large, offset, 8);
	ok(f->large.orphaned_bytes == 0 && kvs_large_orphaned_bytes(&f->large, offset) == 0,
	   "until it is named again");
	kvs_large_hold(&f->large, offset);
	kvs_large_hold(&f->large, offset);
	ok(!kvs_large_unref(&f->large, offset) && !kvs_large_drop(&f->large, offset) &&
		   f->large.orphaned_bytes == kvs_large_bytes(&f->region, 70000),
	   "G: once for all holds");
	kvs_large_settle(&f->large, offset, 8);
	kvs_large_hold(&f->large, offset);
	ok(!kvs_large_drop(&f->large, offset), "B: so does a current record");
	kvs_large_free(&f->large, offset);
	ok_u64(f->large.runs_count, 1, "and it cannot be freed by mistake");
	kvs_large_hold(&f->large, offset);
	ok(!kvs_large_unname(&f->large, f->large.sentinel.next) && f->large.orphaned_bytes > 0,
	   "G: nor does it when all are forgotten at once");
	kvs_large_settle(&f->large, offset, 8);
	ok_u64(f->large.leaving_bytes, 0, "what is kept does not leave");
	ok(kvs_large_unref(&f->large, offset), "the last one says so");
	ok_u64(f->large.leaving_bytes, kvs_large_bytes(&f->region, 70000),
	       "G: what nothing keeps does");
	kvs_large_hold(&f->large, offset);
	ok(f->large.leaving_bytes == 0 && kvs_large_drop(&f->large, offset) &&
		   f->large.leaving_bytes == kvs_large_bytes(&f->region, 70000),
	   "G: unless somebody holds it meanwhile");
	ok(!kvs_large_free_part(&f->large, offset, KVS_PAGE_BYTES) &&
		   f->large.leaving_bytes == kvs_large_bytes(&f->region, 70000) - KVS_PAGE_BYTES,
	   "G: as far as it has not gone");
	kvs_large_free(&f->large, offset);
	ok(f->large.runs_count == 0 && f->large.leaving_bytes == 0, "then it is free");
	ok(!kvs_large_unref(&f->large, offset), "a run that is not there is not counted down");
	uint64_t range = f->region.map.ranges[KVS_RANGE_LARGE].bytes_max;
	ok_int(kvs_large_take(&f->large, range + 1, &offset), -ENOSPC,
	       "G: more than the range is refused");
}

static void forget(struct fixture *f, uint64_t offset)
{
	ok(kvs_large_unref(&f->large, offset), "one goes");
	kvs_large_free(&f->large, offset);
}

static void test_clear(struct fixture *f)
{
	const struct kvs_range_bounds *range = &f->region.map.ranges[KVS_RANGE_LARGE];
	struct kvs_large_search search = { .run_bytes_max = FULL_BYTES };
	uint64_t offset;
	unsigned runs = 0;
	for (; kvs_large_reserve(&f->large, FULL_BYTES, &offset) == 0; runs++) {
		kvs_large_settle(&f->large, offset, 8);
	}
	ok_u64(runs, range->bytes_max / FULL_BYTES, "the range is full");
	ok(!kvs_large_has_place(&f->large, FULL_BYTES), "there is no place");
	uint64_t gone = range->offset + 5 * (uint64_t)FULL_BYTES;
	forget(f, gone);
	ok(kvs_large_has_place(&f->large, FULL_BYTES) &&
		   !kvs_large_has_place(&f->large, 2 * FULL_BYTES),
	   "then there is one as long");
	uint64_t held = gone - FULL_BYTES;
	kvs_large_hold(&f->large, held);
	kvs_large_want(&f->large, 2 * FULL_BYTES, &search);
	while (!kvs_large_search(&f->large, &search)) {
	}
	ok(search.cost == FULL_BYTES && search.from == gone && !search.held,
	   "the stretch that is cheapest has one that nobody holds");
	kvs_large_keep_clear(&f->large, search.from);
	ok_int(kvs_large_reserve(&f->large, FULL_BYTES, &offset), -ENOSPC,
	       "nobody else finds place there");
	ok_int(kvs_large_reserve_low(&f->large, FULL_BYTES, &offset), -ENOSPC,
	       "nor what is to be moved");
	struct kvs_large_run *run = kvs_large_in_the_way(&f->large);
	ok(run != NULL && run->offset == gone + FULL_BYTES &&
		   kvs_large_next_in_the_way(&f->large, run) == NULL,
	   "one is in the way");
	ok(!kvs_large_has_place(&f->large, 2 * FULL_BYTES), "as long as it is there");
	forget(f, gone + FULL_BYTES);
	ok(kvs_large_in_the_way(&f->large) == NULL &&
		   kvs_large_reserve(&f->large, 2 * FULL_BYTES, &offset) == 0 && offset == gone,
	   "G: then it is his who wants as much");
	ok(f->large.wanted_bytes == 0 && !kvs_large_has_place(&f->large, FULL_BYTES),
	   "and nothing is wanted any more");
	(void)kvs_large_drop(&f->large, held);
	(void)kvs_large_drop(&f->large, offset);
	kvs_large_free(&f->large, offset);
	while (f->large.runs_count > 0) {
		uint64_t at = f->large.sentinel.next->offset;
		(void)kvs_large_unref(&f->large, at);
		kvs_large_free(&f->large, at);
	}
}

int main(void)
{
	uint64_t random = tap_seed(15);
	struct fixture f;
	fixture_open(&f, MEMORY, SEGMENT);
	test_runs(&f, &random);
	test_references(&f);
	test_clear(&f);
	fixture_close(&f);
	return tap_done();
}
