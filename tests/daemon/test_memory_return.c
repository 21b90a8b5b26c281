// SPDX-License-Identifier: MIT
//
// Free memory goes back to the system when nothing needed it for a while, little by little, and not
// what comes and goes within that time; stray pages are found although nobody writes.
#include "tests/daemon/keyspace_fixture.h"

#include <sys/mman.h>

#include "daemon/keyspace_memory.h"
#include "daemon/prepare.h"

#define VALUE_BYTES 2000u
#define MEMORY_BYTES (16u << 20)
#define AFTER_MS 1000u
#define TURNS_MAX 5000u

static uint64_t counter(const struct fixture *f, enum kvs_counter which)
{
	return *kvs_counter_word(f->region.base, which);
}

static unsigned set_keys(struct fixture *f, unsigned count)
{
	static unsigned char value[VALUE_BYTES];
	unsigned failed = 0;
	for (unsigned i = 0; i < count; i++) {
		char key[24];
		int n = snprintf(key, sizeof(key), "key-%u", i);
		failed += keyspace_set(f->keyspace, key, (size_t)n, value, sizeof(value), 0,
				       NULL) != KEYSPACE_OK;
	}
	return failed;
}

static void turns_for(struct fixture *f, uint64_t ms, uint64_t *most)
{
	uint64_t end_ns = fixture_now_ns + ms * UINT64_C(1000000);
	*most = 0;
	for (unsigned i = 0; i < TURNS_MAX && fixture_now_ns < end_ns; i++) {
		uint64_t before = counter(f, KVS_COUNTER_memory_returned_bytes);
		fixture_durable(f);
		uint64_t given = counter(f, KVS_COUNTER_memory_returned_bytes) - before;
		*most = given > *most ? given : *most;
	}
}

static void equal(struct fixture *f, const char *when)
{
	struct memory_pages pages = memory_pages(f->keyspace);
	ok(pages.exact, "nothing is on its way");
	ok_u64(pages.file_bytes, pages.expected_bytes, "G: the file has what is counted %s", when);
}

// What KVD.MEMORY tells adds up.
static void test_memory(void)
{
	struct fixture f;
	struct keyspace_memory told;
	fixture_open_sized(&f, true, 34, MEMORY_BYTES, false);
	ok_u64(set_keys(&f, 3000) + set_keys(&f, 1000), 0, "keys, a third of them twice");
	keyspace_memory(f.keyspace, &told);
	const struct kvs_log *log = &f.keyspace->log;
	ok_u64(told.written + told.copied + told.open, log->full_count, "each full segment once");
	ok_u64(told.free_populated + told.free_unpopulated + told.preparing + told.retired +
		       log->full_count,
	       told.allowed, "with the free ones: all");
	ok_u64(told.live_bytes, keyspace_live_bytes(f.keyspace), "live bytes");
	ok_u64(told.live_bytes + told.dead_bytes + told.tails_bytes,
	       ((uint64_t)(told.written + told.copied) << f.region.segment_shift) +
		       log->head.offset,
	       "live, dead and ends are all that was written");
	ok(keyspace_fragmentation(&told) > 20 && keyspace_fragmentation(&told) < 30,
	   "a quarter holds nothing live (%.1f %%)", keyspace_fragmentation(&told));
	ok(told.unpersisted_bytes > 0 && told.exact && told.file_bytes == told.expected_bytes,
	   "the rest is there");
	ok_int(told.shortage, KEYSPACE_SHORT_OF_NOTHING, "and nothing is in the way");
	for (unsigned i = 0; i < 20 && set_keys(&f, 5000) == 0; i++) {
	}
	keyspace_memory(f.keyspace, &told);
	ok_int(told.shortage, KEYSPACE_SHORT_STORE, "until too much waits for the store");
	fixture_close(&f);
}

static void test_return(void)
{
	struct fixture f;
	uint64_t most;
	fixture_open_sized(&f, false, 31, MEMORY_BYTES, false);
	keyspace_set_memory_return(f.keyspace, AFTER_MS);
	ok_u64(set_keys(&f, 5000), 0, "keys");
	turns_for(&f, 3 * AFTER_MS, &most);
	equal(&f, "with keys");
	uint64_t full = memory_pages(f.keyspace).file_bytes;
	ok_int(keyspace_flush(f.keyspace), KEYSPACE_OK, "all go");
	turns_for(&f, AFTER_MS / 2, &most);
	ok(kvs_log_spare_count(&f.keyspace->log) > 100, "%u segments are free and have pages",
	   kvs_log_spare_count(&f.keyspace->log));
	ok_u64(counter(&f, KVS_COUNTER_memory_returned_bytes), 0, "they keep them for a while");
	turns_for(&f, 3 * AFTER_MS, &most);
	ok(kvs_log_spare_count(&f.keyspace->log) <= PREPARE_AHEAD, "then they go back, but for %u",
	   kvs_log_spare_count(&f.keyspace->log));
	ok(most > 0 && most <= 2u << 20, "D: %" PRIu64 " bytes in a turn at most", most);
	equal(&f, "without");
	ok(memory_pages(f.keyspace).file_bytes < full / 4, "most of the memory is the system's");
	fixture_durable(&f);
	uint64_t returned = counter(&f, KVS_COUNTER_memory_returned_bytes);
	ok_u64(set_keys(&f, 5000), 0, "keys again");
	equal(&f, "with keys again");
	ok_u64(counter(&f, KVS_COUNTER_memory_returned_bytes), returned, "nothing went meanwhile");
	fixture_close(&f);
}

// What is needed again within the time stays.
static void test_waves(void)
{
	struct fixture f;
	uint64_t most;
	unsigned failed = 0;
	fixture_open_sized(&f, false, 32, MEMORY_BYTES, false);
	keyspace_set_memory_return(f.keyspace, AFTER_MS);
	for (unsigned wave = 0; wave < 8; wave++) {
		failed += set_keys(&f, 5000);
		turns_for(&f, AFTER_MS / 4, &most);
		failed += keyspace_flush(f.keyspace) != KEYSPACE_OK;
		turns_for(&f, AFTER_MS / 4, &most);
	}
	ok_u64(failed, 0, "waves of keys");
	ok(counter(&f, KVS_COUNTER_memory_returned_bytes) <= 4 * FIXTURE_SEGMENT_BYTES,
	   "what each of them needs again is not given back");
	keyspace_set_memory_return(f.keyspace, 0);
	uint64_t returned = counter(&f, KVS_COUNTER_memory_returned_bytes);
	turns_for(&f, 5 * AFTER_MS, &most);
	ok_u64(counter(&f, KVS_COUNTER_memory_returned_bytes), returned, "0: nothing ever is");
	fixture_close(&f);
}

static void test_strays(void)
{
	struct fixture f;
	uint64_t most;
	unsigned sum = 0;
	fixture_open_sized(&f, false, 33, MEMORY_BYTES, false);
	keyspace_set_memory_return(f.keyspace, AFTER_MS);
	ok_u64(set_keys(&f, 500), 0, "keys");
	turns_for(&f, AFTER_MS, &most);
	unsigned char *map =
		mmap(NULL, f.region.bytes, PROT_READ, MAP_SHARED, f.region.fd_readonly, 0);
	ok(map != MAP_FAILED, "H: a process maps all of the file");
	for (uint64_t at = 0; map != MAP_FAILED && at < f.region.bytes; at += KVS_PAGE_BYTES) {
		sum += *(volatile unsigned char *)(map + at);
	}
	struct memory_pages pages = memory_pages(f.keyspace);
	ok(sum > 0 && pages.file_bytes > 4 * pages.expected_bytes, "and fills its holes");
	turns_for(&f, 3 * AFTER_MS, &most);
	equal(&f, "again");
	ok(counter(&f, KVS_COUNTER_memory_strays_bytes) > 3 * pages.expected_bytes, "it is told");
	(void)munmap(map, f.region.bytes);
	fixture_close(&f);
}

int main(void)
{
	test_memory();
	test_return();
	test_waves();
	test_strays();
	return tap_done();
}
