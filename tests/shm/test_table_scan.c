// SPDX-License-Identifier: MIT
//
// shm/table_scan.c: a walk sees every key that is there from its first call to its last, however
// the table grows, shrinks or overflows between the calls, and it comes to an end.
#include "shm/table.h"

#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (32u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define STEADY 3000u
#define COMING_AND_GOING 30000u

struct seen {
	const struct kvs_map *map;
	unsigned times[STEADY];
	unsigned damaged;
};

static void visit(void *context, uint64_t entry)
{
	struct seen *seen = context;
	struct kvs_hit hit;
	if (kvs_table_load(seen->map, entry, &hit) != KVS_FIND_HIT) {
		seen->damaged++;
		return;
	}
	unsigned number;
	char text[16] = { 0 };
	memcpy(text, hit.view.key, hit.view.key_bytes < 15 ? hit.view.key_bytes : 15);
	if (sscanf(text, "s%5u", &number) == 1 && number < STEADY) {
		seen->times[number]++;
	}
}

static void churn(struct fixture *f, unsigned *extra, unsigned target)
{
	char key[16];
	while (*extra < target) {
		(void)snprintf(key, sizeof(key), "x%u", (*extra)++);
		(void)fixture_set(f, key, strlen(key), "", 0);
	}
	while (*extra > target) {
		(void)snprintf(key, sizeof(key), "x%u", --*extra);
		(void)fixture_remove(f, key, strlen(key));
	}
	(void)fixture_reclaim(f);
	for (unsigned i = 0; i < 20000 && kvs_table_step(&f->table); i++) {
	}
	for (uint32_t i = 0; i < f->log.touched_count; i++) {
		if (kvs_log_cleanable(&f->log, i, UINT64_MAX) &&
		    f->log.segments[i].live_bytes < SEGMENT / 2) {
			(void)fixture_clean(f, i);
			(void)fixture_reclaim(f);
		}
	}
}

static void report(const struct seen *seen, unsigned calls, const char *how)
{
	unsigned missed = 0, most = 0;
	for (unsigned i = 0; i < STEADY; i++) {
		missed += seen->times[i] == 0;
		most = seen->times[i] > most ? seen->times[i] : most;
	}
	ok_u64(missed, 0, "every steady key was seen, %s (%u calls, at most %u times)", how, calls,
	       most);
	ok_u64(seen->damaged, 0, "nothing but records, %s", how);
}

static void test_quiet(struct fixture *f)
{
	struct seen seen = { .map = &f->region.map };
	unsigned calls = 0;
	uint64_t cursor = 0;
	do {
		cursor = kvs_table_scan(&f->region.map, cursor, visit, &seen);
	} while (++calls < 1000000 && cursor != 0);
	report(&seen, calls, "quiet");
	unsigned twice = 0;
	for (unsigned i = 0; i < STEADY; i++) {
		twice += seen.times[i] > 1;
	}
	ok_u64(twice, 0, "and none twice");
}

static void test_moving(struct fixture *f, uint64_t *random, unsigned walks)
{
	unsigned extra = 0, moved = 0;
	for (unsigned walk = 0; walk < walks; walk++) {
		struct seen seen = { .map = &f->region.map };
		unsigned calls = 0;
		uint64_t cursor = 0, smallest = UINT64_MAX, largest = 0;
		do {
			cursor = kvs_table_scan(&f->region.map, cursor, visit, &seen);
			smallest = f->table.buckets < smallest ? f->table.buckets : smallest;
			largest = f->table.buckets > largest ? f->table.buckets : largest;
			if (tap_random(random) % 100 == 0) {
				churn(f, &extra, (unsigned)(tap_random(random) % COMING_AND_GOING));
			}
		} while (++calls < 1000000 && cursor != 0);
		char how[64];
		(void)snprintf(how, sizeof(how), "between %" PRIu64 " and %" PRIu64 " buckets",
			       smallest, largest);
		report(&seen, calls, how);
		ok(cursor == 0, "the walk ended");
		moved += largest > smallest * 2;
	}
	ok(moved >= walks / 3, "the table doubled or halved during %u of %u walks", moved, walks);
}

int main(void)
{
	uint64_t random = tap_seed(11);
	struct fixture f;
	fixture_open(&f, MEMORY, SEGMENT);
	f.step_after_write = true;
	for (unsigned i = 0; i < STEADY; i++) {
		char key[16];
		(void)snprintf(key, sizeof(key), "s%u", i);
		(void)fixture_set(&f, key, strlen(key), "steady", 6);
	}
	test_quiet(&f);
	bool slow = getenv("KVD_TEST_EMULATED") != NULL;
#ifdef KVS_SANITIZED
	slow = true;
#endif
	test_moving(&f, &random, slow ? 2 : 6);
	fixture_close(&f);
	return tap_done();
}
