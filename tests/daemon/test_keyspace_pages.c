// SPDX-License-Identifier: MIT
//
// prefault: all memory has its pages from the start, and there are never more, though it goes from
// small values to large ones and back: what wants some is made way for first. With huge pages of
// the pool one too many would be the end of kvd.
#include "tests/daemon/keyspace_fixture.h"

#include "daemon/keyspace_pages.h"
#include "shm/holes.h"

#define MEMORY_BYTES (16u << 20)
#define SMALL_BYTES 2000u
#define KEYS 400u
#define ROUNDS 3000u

static uint64_t most; // bytes of pages, whenever some were made

int __real_kvs_region_populate(const struct kvs_region *region, uint64_t offset, uint64_t bytes);
int __wrap_kvs_region_populate(const struct kvs_region *region, uint64_t offset, uint64_t bytes);

int __wrap_kvs_region_populate(const struct kvs_region *region, uint64_t offset, uint64_t bytes)
{
	int result = __real_kvs_region_populate(region, offset, bytes);
	uint64_t now = kvs_holes_file_bytes(region);
	most = now > most ? now : most;
	return result;
}

static void serve(struct fixture *f)
{
	most = 0;
	fixture_open_sized(f, true, 61, MEMORY_BYTES, false);
	f->keyspace->prefault = true;
}

static bool set(struct fixture *f, const char *name, unsigned number, uint32_t bytes)
{
	static unsigned char value[FIXTURE_VALUE_BYTES_MAX];
	char key[32];
	int n = snprintf(key, sizeof(key), "%s:%u", name, number);
	value[0] = (unsigned char)number;
	return keyspace_set(f->keyspace, key, (size_t)n, value, bytes, 0, NULL) == KEYSPACE_OK;
}

static void test_start(void)
{
	struct fixture f;
	serve(&f);
	uint64_t before = kvs_holes_file_bytes(&f.region);
	ok_int(keyspace_prefault(f.keyspace), 0, "all of it is taken");
	uint64_t all = kvs_holes_file_bytes(&f.region);
	ok(before < MEMORY_BYTES / 2 && all <= MEMORY_BYTES &&
		   all > MEMORY_BYTES - 2 * FIXTURE_SEGMENT_BYTES,
	   "G: which is the bound, to a segment: %llu and then %llu", (unsigned long long)before,
	   (unsigned long long)all);
	fixture_close(&f);
}

static void test_churn(void)
{
	struct fixture f;
	uint64_t random = 62;
	uint64_t large = 0, refused = 0;
	serve(&f);
	(void)keyspace_prefault(f.keyspace);
	unsigned rounds = tap_rounds(ROUNDS, ROUNDS / 5);
	for (unsigned i = 0; i < rounds; i++) {
		// Times in which large values come, and times in which they go.
		bool comes = i / 100 % 2 == 0;
		unsigned number = (unsigned)(tap_random(&random) % 12);
		if (comes && i % 7 == 0) {
			uint32_t bytes = 20000 + (uint32_t)(tap_random(&random) %
							    (FIXTURE_VALUE_BYTES_MAX - 20000));
			bool done = set(&f, "large", number, bytes);
			large += done;
			refused += !done;
		} else if (!comes && i % 7 == 0) {
			(void)set(&f, "large", number, 100);
		} else {
			refused += !set(&f, "small", (unsigned)(tap_random(&random) % KEYS),
					SMALL_BYTES);
		}
		fixture_durable(&f);
	}
	ok(large > rounds / 30, "%llu large values, %llu writes refused", (unsigned long long)large,
	   (unsigned long long)refused);
	ok(most <= MEMORY_BYTES + FIXTURE_SEGMENT_BYTES, "G: at no time more than the bound: %llu",
	   (unsigned long long)most);
	fixture_close(&f);
}

int main(void)
{
	test_start();
	test_churn();
	return tap_done();
}
