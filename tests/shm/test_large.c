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

int main(void)
{
	uint64_t random = tap_seed(15);
	struct fixture f;
	fixture_open(&f, MEMORY, SEGMENT);
	test_runs(&f, &random);
	test_references(&f);
	fixture_close(&f);
	return tap_done();
}
