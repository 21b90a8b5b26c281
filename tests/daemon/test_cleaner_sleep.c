// SPDX-License-Identifier: MIT
//
// A loop that sleeps exactly until it is told to: what a command makes due behind the cleaner's
// turn, which comes first, is done in time although nobody comes any more. Time is simulated and
// passes by sleeping alone.
#include "daemon/memory_return.h"
#include "daemon/prepare.h"
#include "tests/daemon/keyspace_fixture.h"

#define MS_NS UINT64_C(1000000)
#define TURNS_MAX 5000u
#define KEYS 2000u
#define VALUE_BYTES 1000u
#define LARGE_BYTES 500000u

static uint64_t now_ns;
static uint64_t wall_begun_ms = 1800000000000;

static uint64_t monotonic_ns(void)
{
	return now_ns += 100;
}

static uint64_t wall_ms(void)
{
	return wall_begun_ms + now_ns / MS_NS;
}

static const struct seam seam = { .monotonic_ns = monotonic_ns,
				  .wall_ms = wall_ms,
				  .random_bytes = fixture_random };

static void turn(struct fixture *f)
{
	if (f->persisted) {
		kvs_store_release(&f->region.header->marks.durable_seq,
				  keyspace_last_seq(f->keyspace));
	}
	cleaner_turn(f->keyspace, now_ns);
}

// Sleeps and takes turns as it is told, for at most so long; until `over` says so. What it took in
// ms, UINT64_MAX if the loop would sleep beyond.
static uint64_t sleep_until(struct fixture *f, bool (*over)(const struct fixture *f), uint64_t ms)
{
	uint64_t begun_ns = now_ns;
	for (unsigned i = 0; i < TURNS_MAX; i++) {
		if (over != NULL && over(f)) {
			return (now_ns - begun_ns) / MS_NS;
		}
		uint64_t next_ns = cleaner_next_ns(f->keyspace);
		if (next_ns == UINT64_MAX || next_ns > begun_ns + ms * MS_NS) {
			return UINT64_MAX;
		}
		now_ns = next_ns > now_ns ? next_ns : now_ns;
		turn(f);
	}
	return UINT64_MAX;
}

static void open_idle(struct fixture *f, bool persisted, uint64_t return_ms)
{
	fixture_open(f, persisted, 9);
	f->keyspace->seam = &seam;
	now_ns = 5000 * MS_NS;
	keyspace_set_memory_return(f->keyspace, return_ms);
	turn(f);
	(void)sleep_until(f, NULL, 100);
}

// As a command: the clock is taken anew.
static bool set(struct fixture *f, unsigned key, size_t bytes, uint64_t expire_ms)
{
	static unsigned char value[LARGE_BYTES];
	char name[16];
	int n = snprintf(name, sizeof(name), "%u", key);
	keyspace_tick(f->keyspace);
	return keyspace_set(f->keyspace, name, (size_t)n, value, bytes,
			    expire_ms > 0 ? wall_ms() + expire_ms : 0, NULL) == KEYSPACE_OK;
}

static bool delete (struct fixture *f, unsigned key)
{
	char name[16];
	int n = snprintf(name, sizeof(name), "%u", key);
	keyspace_tick(f->keyspace);
	return keyspace_delete(f->keyspace, name, (size_t)n) == KEYSPACE_OK;
}

static bool is_empty(const struct fixture *f)
{
	return keyspace_count(f->keyspace) == 0;
}

static bool nothing_waits(const struct fixture *f)
{
	return f->keyspace->large.runs_count == 0 && f->keyspace->limbo.count == 0;
}

static bool is_clean(const struct fixture *f)
{
	return f->keyspace->log.full_count <= 2 && f->keyspace->limbo.count == 0;
}

static bool has_shrunk(const struct fixture *f)
{
	return kvs_log_spare_count(&f->keyspace->log) <= PREPARE_AHEAD;
}

static bool is_bounded(const struct fixture *f)
{
	return f->keyspace->memory_bytes == f->keyspace->memory_wanted_bytes;
}

static void test_ends(bool persisted, uint64_t return_ms)
{
	struct fixture f;
	open_idle(&f, persisted, return_ms);
	turn(&f);
	ok(set(&f, 1, 10, 200), "a key with a time, persisted %d, memory-return %" PRIu64,
	   persisted, return_ms);
	ok(sleep_until(&f, is_empty, 400) < 300, "it ends in time");
	turn(&f);
	ok(set(&f, 1, 10, 60000) && set(&f, 1, 10, 200), "one whose time is changed");
	ok(sleep_until(&f, is_empty, 400) < 300, "so does it");
	fixture_close(&f);
}

static void test_memory(bool persisted)
{
	struct fixture f;
	open_idle(&f, persisted, 0);
	unsigned failed = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		failed += !set(&f, i, VALUE_BYTES, 0);
	}
	failed += !set(&f, KEYS, LARGE_BYTES, 0);
	(void)sleep_until(&f, NULL, 200);
	turn(&f);
	ok(failed == 0 && delete (&f, KEYS), "a large value goes, persisted %d", persisted);
	ok(sleep_until(&f, nothing_waits, 200) < 100, "its memory comes back");
	for (unsigned i = 1; i < KEYS; i++) {
		failed += !delete (&f, i);
	}
	keyspace_set_memory_return(f.keyspace, 500);
	ok(failed == 0 && sleep_until(&f, is_clean, 1000) < 500, "so do segments of small ones");
	ok(sleep_until(&f, has_shrunk, 3000) < 2000, "and their pages go back to the system");
	fixture_close(&f);
}

static void test_bound(void)
{
	struct fixture f;
	open_idle(&f, false, 0);
	turn(&f);
	keyspace_set_memory(f.keyspace, FIXTURE_MEMORY_BYTES / 2);
	ok(sleep_until(&f, is_bounded, 1000) < 500, "a bound that is lowered comes down");
	fixture_close(&f);
}

static void test_strays(void)
{
	struct fixture f;
	open_idle(&f, false, 500);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t looked_ns = f.keyspace->memory_return.looked_ns;
		f.keyspace->memory_return.holes_at = 0; // a walk is under way
		turn(&f);
		(void)sleep_until(&f, NULL, 600);
		ok(f.keyspace->memory_return.looked_ns > looked_ns,
		   "behind a walk for stray pages is the next look at the file");
	}
	fixture_close(&f);
}

// What was done is reckoned once; then nobody is woken.
static void test_quiet(void)
{
	struct fixture f;
	open_idle(&f, false, 0);
	turn(&f);
	ok(set(&f, 1, 10, 0), "a key without a time");
	unsigned turns = 0;
	while (turns < 100 && cleaner_next_ns(f.keyspace) != UINT64_MAX) {
		uint64_t next_ns = cleaner_next_ns(f.keyspace);
		now_ns = next_ns > now_ns ? next_ns : now_ns;
		turn(&f);
		turns++;
	}
	ok(turns > 0 && turns < 10, "an idle kvd is not woken: %u turns", turns);
	fixture_close(&f);
}

int main(void)
{
	test_ends(false, 0);
	test_ends(false, 60000);
	test_ends(true, 0);
	test_memory(false);
	test_memory(true);
	test_bound();
	test_strays();
	test_quiet();
	return tap_done();
}
