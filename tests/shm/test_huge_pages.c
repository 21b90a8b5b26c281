// SPDX-License-Identifier: MIT
//
// A region of huge pages of the system's pool, without a pool: the file has small pages and is said
// to have huge ones. What it takes and gives back is whole huge pages, all of it is counted, and
// who takes it over finds them all, or, where it is not told, those that have something in them.
#include <sys/mman.h>
#include <unistd.h>

#include "shm/extents.h"
#include "shm/layouts.h"
#include "shm/page_size.h"
#include "tests/shm/holes_fixture.h"

#define MEMORY (64u << 20)
#define SEGMENT KVS_HUGE_PAGE_BYTES
#define KEYS 3000u
#define LARGE_BYTES 3000000u
#define LARGE_PAGES_BYTES (4u << 20)

static uint32_t page_bytes = KVS_HUGE_PAGE_BYTES;
static bool told = true;			   // where the file has pages
static unsigned asked;				   // so often
static uint64_t asked_from, asked_to = UINT64_MAX; // of what lies there

uint32_t __wrap_kvs_page_size(int fd);
int __wrap_kvs_page_is_there(int fd, int pagemap_fd, uint64_t offset, uint32_t bytes);
int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);

uint32_t __wrap_kvs_page_size(int fd)
{
	(void)fd;
	return page_bytes;
}

int __wrap_kvs_page_is_there(int fd, int pagemap_fd, uint64_t offset, uint32_t bytes)
{
	(void)pagemap_fd;
	asked += offset >= asked_from && offset < asked_to;
	off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
	return told ? data >= 0 && (uint64_t)data < offset + bytes : -1;
}

int __wrap_memfd_create(const char *name, unsigned flags)
{
	return __real_memfd_create(name,
				   flags & ~(MFD_HUGETLB | 0xfc000000u)); // nor a size of them
}

static void fill(struct fixture *f)
{
	static unsigned char value[3000];
	fixture_open(f, MEMORY, SEGMENT);
	// What a huge page would have had from its first byte on.
	ok_int(kvs_region_populate(&f->region, 0, KVS_HUGE_PAGE_BYTES), 0, "the front");
	f->step_after_write = true;
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];
		int n = snprintf(key, sizeof(key), "key:%u", i);
		(void)fixture_set(f, key, (size_t)n, value, sizeof(value));
	}
	f->region.header->marks.applied_seq = f->log.next_seq - 1;
	kvs_log_publish(&f->log);
}

static void test_counts(void)
{
	struct fixture f;
	uint64_t first = 0, second = 0;
	fill(&f);
	equal(&f, "with keys");
	ok_int(kvs_large_take(&f.large, LARGE_BYTES, &first), 0, "a large value");
	ok_int(kvs_large_take(&f.large, 1, &second), 0, "and one that is not");
	ok_u64(f.region.large_bytes, LARGE_PAGES_BYTES + KVS_HUGE_PAGE_BYTES,
	       "runs have whole huge pages");
	equal(&f, "with runs");
	ok(kvs_large_drop(&f.large, first) && !kvs_large_free_part(&f.large, first, 2u << 20),
	   "one goes, in parts");
	equal(&f, "when a part is gone");
	ok(kvs_large_free_part(&f.large, first, 2u << 20), "and all of it");
	ok_int(kvs_log_prefault(&f.log), 0, "all that is free gets its pages");
	ok_u64(f.log.prepared_count, kvs_log_segments_allowed(&f.log),
	       "as many as the bound allows");
	struct kvs_holes_parts parts = parts_of(&f);
	ok_u64(kvs_holes_expected_bytes(&parts), MEMORY, "G: which are all of it, to the page");
	equal(&f, "with all of them");
	fixture_close(&f);
}

// Bytes of pages that should not have been there, and are not any more.
static uint64_t walk(struct fixture *f)
{
	struct kvs_holes_parts parts = parts_of(f);
	uint64_t given = 0;
	for (uint64_t at = 0; at != UINT64_MAX;) {
		given += kvs_holes_step(&parts, &at);
	}
	return given;
}

// Each hole that is asked for costs a huge page that is made and thrown away.
static void test_asked(void)
{
	struct fixture f;
	struct kvs_extents walk;
	const uint64_t page = KVS_HUGE_PAGE_BYTES;
	fill(&f);
	uint64_t at = kvs_region_segment_offset(&f.region, f.log.touched_count + 1);
	(void)kvs_region_populate(&f.region, at, 2 * page);
	(void)kvs_region_populate(&f.region, at + 4 * page, page);
	kvs_extents_begin(&walk, &f.region);
	asked = 0;
	ok_u64(kvs_extents_populated(&walk, at, 6 * page), 2 * page, "two pages before a hole");
	ok_u64(asked, 3, "are found by three looks");
	asked = 0;
	ok_u64(kvs_extents_populated(&walk, at + 2 * page, 4 * page), 0, "none where one begins");
	ok_u64(asked, 1, "by one");
	ok_u64(kvs_extents_populated(&walk, at + 4 * page, page), page, "one is all that is asked");
	ok_u64(kvs_extents_populated(&walk, at + 4 * page, 100), 100, "or the part of it that is");
	(void)kvs_region_punch(&f.region, at, 5 * page);
	fixture_close(&f);
}

static void test_strays(void)
{
	struct fixture f;
	fill(&f);
	uint64_t free_at = kvs_region_segment_offset(&f.region, f.log.touched_count + 3);
	(void)kvs_region_populate(&f.region, free_at, KVS_HUGE_PAGE_BYTES);
	(void)kvs_region_populate(&f.region,
				  f.region.map.ranges[KVS_RANGE_LARGE].offset + (8u << 20),
				  KVS_HUGE_PAGE_BYTES);
	ok_u64(walk(&f), 2 * KVS_HUGE_PAGE_BYTES,
	       "pages where none should be are found without asking");
	equal(&f, "then");
	ok_u64(fixture_keys(&f.region.map, KEYS), KEYS, "and nothing else is gone");
	fixture_close(&f);
}

// Another life on the same file.
static void take_over(struct fixture *f, struct fixture *next, struct kvs_adopt *plan,
		      uint64_t durable_seq)
{
	const struct kvs_region_options options = { .memory_bytes = MEMORY,
						    .memory_bytes_max = MEMORY,
						    .segment_bytes = SEGMENT,
						    .pages = KVS_PAGES_HUGETLB,
						    .fenced = f->region.map.readers_fence };
	memset(next, 0, sizeof(*next));
	ok_int(kvs_region_adopt(&next->region, dup(f->region.fd), &options), KVS_REGION_OK,
	       "it can be taken over");
	ok_int(kvs_adopt_plan(plan, &next->region, durable_seq), 0, "and verifies: %s", plan->why);
	kvs_epoch_init(&next->epochs, &next->region.header->hot, options.fenced);
	ok(kvs_limbo_init(&next->limbo), "limbo");
	const struct kvs_adopt_parts parts = { .log = &next->log,
					       .table = &next->table,
					       .large = &next->large,
					       .limbo = &next->limbo,
					       .epochs = &next->epochs };
	ok_int(kvs_adopt_apply(plan, &parts), 0, "it is");
}

static void end_both(struct fixture *f, struct fixture *next, struct kvs_adopt *plan)
{
	kvs_adopt_fini(plan);
	kvs_large_fini(&next->large);
	kvs_log_fini(&next->log);
	kvs_table_fini(&next->table);
	kvs_limbo_fini(&next->limbo);
	kvs_epoch_fini(&next->epochs);
	kvs_region_close(&next->region);
	fixture_close(f);
}

// What it counts.
static void test_taken_over(void)
{
	struct fixture f, next;
	struct kvs_adopt plan;
	fill(&f);
	(void)kvs_log_prefault(&f.log); // free segments with pages, all zero
	take_over(&f, &next, &plan, 0);
	uint64_t populated = next.table.populated[KVS_RANGE_TABLE_0];
	ok(populated >= next.table.buckets * sizeof(struct kvs_bucket) &&
		   populated <= f.table.populated[KVS_RANGE_TABLE_0],
	   "buckets that are in use count");
	ok_u64(next.region.directory_bytes, f.region.directory_bytes, "and so does the directory");
	ok_u64(next.log.prepared_count, f.log.full_count, "free segments that were never used not");
	ok_u64(fixture_keys(&next.region.map, KEYS), KEYS, "F: every key is there");
	ok_int(kvs_log_prefault(&next.log), 0, "they get their pages");
	(void)walk(&next); // of overflow buckets, none of them used
	equal(&next, "again");
	end_both(&f, &next, &plan);
}

// Two segments have become free, `there` of them with their pages: how often is asked for those?
static void test_free_segments(unsigned there)
{
	struct fixture f, next;
	struct kvs_adopt plan;
	fill(&f);
	ok(fixture_clean(&f, 0) && fixture_clean(&f, 1), "two segments are cleaned");
	for (unsigned i = 0; i < 3; i++) {
		(void)fixture_reclaim(&f);
	}
	ok(f.log.segments[0].state == KVS_SEGMENT_FREE &&
		   f.log.segments[1].state == KVS_SEGMENT_FREE,
	   "and free");
	for (unsigned i = there; i < 2; i++) {
		(void)kvs_region_punch(&f.region, kvs_region_segment_offset(&f.region, i), SEGMENT);
	}
	asked = 0;
	asked_from = kvs_region_segment_offset(&f.region, 0);
	asked_to = asked_from + 2 * SEGMENT;
	take_over(&f, &next, &plan, UINT64_MAX);
	asked_from = 0;
	asked_to = UINT64_MAX;
	ok_u64(asked, there, "%u with pages: what the file has not got is not asked for", there);
	ok_u64(next.log.prepared_count, next.log.full_count + there, "and they are known");
	ok_u64(fixture_keys(&next.region.map, KEYS), KEYS, "F: every key is there");
	equal(&next, "again");
	end_both(&f, &next, &plan);
}

// A large value of zeroes had gone to limbo, and somebody is looking at it still.
static void test_zeroes(void)
{
	struct fixture f, next;
	struct kvs_adopt plan;
	uint64_t zeroes = 0, later = 0;
	fill(&f);
	ok_int(kvs_large_take(&f.large, LARGE_BYTES, &zeroes), 0, "a large value of zeroes");
	ok(kvs_large_drop(&f.large, zeroes), "which nothing names any more");
	take_over(&f, &next, &plan, 0);
	ok_u64(kvs_large_run_bytes(&next.large, zeroes), LARGE_PAGES_BYTES,
	       "B: its memory is in use all the same");
	ok(kvs_limbo_held_bytes(&next.limbo, 0) >= LARGE_PAGES_BYTES, "and waits for its readers");
	ok_int(kvs_large_take(&next.large, LARGE_BYTES, &later), 0, "another value");
	ok(later >= zeroes + LARGE_PAGES_BYTES || later + LARGE_PAGES_BYTES <= zeroes,
	   "B: does not come there");
	end_both(&f, &next, &plan);
}

static void test_read_out(void)
{
	struct fixture f;
	struct kvs_region region;
	struct kvs_adopt plan;
	fill(&f);
	page_bytes = KVS_PAGE_BYTES;
	const struct kvs_region_options small = { .memory_bytes = MEMORY,
						  .memory_bytes_max = MEMORY,
						  .segment_bytes = SEGMENT,
						  .pages = KVS_PAGES_HUGETLB,
						  .fenced = f.region.map.readers_fence };
	int fd = dup(f.region.fd);
	ok_int(kvs_region_adopt(&region, fd, &small), KVS_REGION_UNLIKE,
	       "small pages are not taken for huge ones");
	(void)close(fd);
	page_bytes = KVS_HUGE_PAGE_BYTES;
	uint64_t before = kvs_holes_file_bytes(&f.region);
	ok_int(kvs_region_read_out(&region, f.region.fd, kvs_layouts_former()), KVS_REGION_OK,
	       "huge ones are read out");
	ok_int(kvs_adopt_plan(&plan, &region, 0), 0, "they verify");
	ok_u64(fixture_keys(&region.map, KEYS), KEYS, "F: with all keys");
	const struct kvs_range_bounds *table = &region.map.ranges[KVS_RANGE_TABLE_0];
	memset(region.base, 0xee, KVS_PAGE_BYTES);
	memset(region.base + table->offset, 0xee, KVS_HUGE_PAGE_BYTES);
	ok_u64(fixture_keys(&f.region.map, KEYS), KEYS, "B: whatever is done to the copy");
	ok_u64(kvs_holes_file_bytes(&f.region), before, "G: and the file has no page more");
	kvs_adopt_fini(&plan);
	kvs_region_close(&region);
	fixture_close(&f);
}

static void test_client(void)
{
	struct fixture f;
	struct kvs_map map;
	fill(&f);
	ok_int(kvs_map_open(&map, f.region.fd_readonly), KVS_MAP_OK, "a client maps it");
	ok(map.page_bytes == KVS_HUGE_PAGE_BYTES &&
		   mprotect(map.base + KVS_HUGE_PAGE_BYTES - KVS_PAGE_BYTES, KVS_PAGE_BYTES,
			    PROT_READ) == 0,
	   "a page at a time");
	ok_u64(fixture_keys(&map, KEYS), KEYS, "A: and reads every key");
	kvs_map_close(&map);
	page_bytes = KVS_HUGE_PAGE_BYTES * 2;
	ok_int(kvs_map_open(&map, f.region.fd_readonly), KVS_MAP_FOREIGN,
	       "pages that are larger than places are aligned are nobody's");
	page_bytes = KVS_HUGE_PAGE_BYTES;
	f.region.header->ranges[KVS_RANGE_LARGE].bytes_max -= KVS_PAGE_BYTES;
	ok_int(kvs_map_open(&map, f.region.fd_readonly), KVS_MAP_DAMAGED,
	       "and so are ranges that end within one");
	f.region.header->ranges[KVS_RANGE_LARGE].bytes_max += KVS_PAGE_BYTES;
	fixture_close(&f);
}

static void test_refusals(void)
{
	struct kvs_region region;
	const struct kvs_region_options options = { .memory_bytes = MEMORY,
						    .memory_bytes_max = MEMORY,
						    .segment_bytes = SEGMENT / 2,
						    .pages = KVS_PAGES_HUGETLB };
	ok_int(kvs_region_create(&region, &options), KVS_REGION_TOO_SMALL,
	       "a segment has one page at least");
}

int main(void)
{
	test_counts();
	test_asked();
	test_strays();
	test_taken_over();
	for (unsigned there = 0; there <= 2; there++) {
		test_free_segments(there);
	}
	test_zeroes();
	told = false;
	test_taken_over();
	told = true;
	test_read_out();
	test_client();
	test_refusals();
	return tap_done();
}
