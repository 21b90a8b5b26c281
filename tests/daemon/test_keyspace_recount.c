// SPDX-License-Identifier: MIT
//
// A fresh look at everything agrees with what is counted, whatever was done to the keys; and where
// one count is wrong, or something that should wait for its end is forgotten, it says so.
#include <errno.h>

#include "daemon/keyspace_recount.h"
#include "tests/daemon/keyspace_fixture.h"

#define KEYS 2500u
#define STEPS 6000u
#define LOOK_EVERY 50u
#define LARGE_BYTES 20000u
#define VALUE_BYTES_MAX 1500u

static uint64_t random_state;

static unsigned below(unsigned bound)
{
	return (unsigned)(tap_random(&random_state) % bound);
}

static struct keyspace_recount recount_of(struct fixture *f)
{
	struct keyspace_recount recount;
	if (keyspace_recount(f->keyspace, &recount) != 0) {
		recount.differences = UINT64_MAX;
	}
	return recount;
}

static size_t name_of(char name[24], unsigned index)
{
	return (size_t)snprintf(name, 24, "key-%u", index);
}

static void set_one(struct fixture *f, unsigned index, size_t bytes, uint64_t expiry_ms)
{
	static unsigned char value[LARGE_BYTES * 2];
	char name[24];
	int result = keyspace_set(f->keyspace, name, name_of(name, index), value, bytes, expiry_ms,
				  NULL);
	(void)result; // with memory full some are refused
}

static void change_one(struct fixture *f)
{
	char name[24];
	unsigned index = below(KEYS);
	size_t name_bytes = name_of(name, index);
	unsigned dice = below(100);
	int result = KEYSPACE_OK;
	if (dice < 45) {
		set_one(f, index, below(VALUE_BYTES_MAX), 0);
	} else if (dice < 60) {
		set_one(f, index, below(VALUE_BYTES_MAX), fixture_wall_ms + 1 + below(400));
	} else if (dice < 70) {
		set_one(f, index % 40, LARGE_BYTES + below(LARGE_BYTES), 0);
	} else if (dice < 85) {
		result = keyspace_delete(f->keyspace, name, name_bytes);
	} else if (dice < 98) {
		uint64_t expiry_ms = below(3) > 0 ? fixture_wall_ms + 1 + below(100000) : 0;
		result = keyspace_expire(f->keyspace, name, name_bytes, expiry_ms);
	} else if (dice < 99) {
		keyspace_batch_begin(f->keyspace);
		for (unsigned i = 0; i < 20; i++) {
			set_one(f, below(KEYS), below(VALUE_BYTES_MAX), 0);
			name_bytes = name_of(name, below(KEYS));
			result = keyspace_delete(f->keyspace, name, name_bytes);
		}
		result = keyspace_batch_commit(f->keyspace);
	} else if (below(30) == 0) {
		result = keyspace_flush(f->keyspace);
	}
	(void)result; // an absent key, or no room
}

static void pass_time(struct fixture *f)
{
	fixture_wall_ms += below(20);
	if (below(200) == 0) {
		fixture_wall_ms += 5000;
	}
	if (below(200) == 0) {
		fixture_wall_ms -= 3000; // the clock is set back
	}
	keyspace_tick(f->keyspace);
	if (below(3) > 0) {
		fixture_durable(f);
	} else {
		cleaner_turn(f->keyspace, fixture_monotonic_ns());
	}
}

static void test_agrees(bool persisted, bool evicts, uint64_t memory_bytes)
{
	struct fixture f;
	struct keyspace_recount recount = { 0 };
	const struct keyspace_eviction eviction = { .on = true };
	unsigned step = 0;
	fixture_open_sized(&f, persisted, 31, memory_bytes, false);
	ok(!evicts || keyspace_set_eviction(f.keyspace, &eviction), "eviction");
	for (; step < STEPS && recount.differences == 0; step++) {
		change_one(&f);
		if (below(4) == 0) {
			pass_time(&f);
		}
		if (below(500) == 0) {
			keyspace_set_memory(f.keyspace, memory_bytes / 8 * (4 + below(5)));
		}
		if (step % LOOK_EVERY == 0) {
			recount = recount_of(&f);
		}
	}
	if (!ok(recount.differences == 0 && recount.checked > 100,
		"G: %s, %s: what is counted is what there is, %" PRIu64 " keys, %u segments",
		persisted ? "persisted" : "memory", evicts ? "evicting" : "refusing",
		keyspace_count(f.keyspace), f.keyspace->log.full_count)) {
		tap_diag("after %u steps: %s", step, recount.first);
	}
	ok(!evicts || *kvs_counter_word(f.region.base, KVS_COUNTER_keys_evicted) > 0,
	   "and keys were evicted");
	ok(*kvs_counter_word(f.region.base, KVS_COUNTER_keys_expired) > 0, "and ended");
	ok(*kvs_counter_word(f.region.base, KVS_COUNTER_cleaner_copied_bytes) > 0, "and moved");
	fixture_close(&f);
}

// Something of everything, with nothing going on.
static void fill(struct fixture *f)
{
	for (unsigned i = 0; i < KEYS; i++) {
		set_one(f, i, 300, i % 5 == 0 ? fixture_wall_ms + 1000000 : 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		set_one(f, i, LARGE_BYTES, 0);
	}
	fixture_durable(f);
	unsigned removed = 0;
	for (unsigned i = 100; i < 200; i++) {
		char name[24];
		size_t name_bytes = name_of(name, i);
		removed += keyspace_delete(f->keyspace, name, name_bytes) == KEYSPACE_OK;
	}
	ok_u64(removed, 100, "removals that are not durable");
	set_one(f, 5, LARGE_BYTES, 0); // nor is this
}

static void expect_seen(struct fixture *f, const char *what)
{
	struct keyspace_recount recount = recount_of(f);
	ok(recount.differences > 0, "seen: %s: %s", what, recount.first);
}

static void test_count_64(struct fixture *f, const char *what, uint64_t *count)
{
	(*count)++;
	expect_seen(f, what);
	(*count)--;
}

static void test_count_32(struct fixture *f, const char *what, uint32_t *count)
{
	(*count)++;
	expect_seen(f, what);
	(*count)--;
}

static void test_counts(struct fixture *f)
{
	struct keyspace *k = f->keyspace;
	struct kvs_segment *segment = &k->log.segments[k->log.head.segment];
	test_count_64(f, "a key too many", &k->keys);
	test_count_64(f, "a key that ends too many", &k->keys_with_expiry);
	test_count_64(f, "a stub that is none", &k->stubs);
	test_count_64(f, "a byte of one", &k->stubs_value_bytes);
	test_count_64(f, "a byte of the store's", &k->live_bytes);
	test_count_64(f, "a user's byte", &k->owners[0].bytes);
	test_count_64(f, "a user's key", &k->owners[0].keys);
	test_count_64(f, "an entry", &k->table.entries);
	test_count_64(f, "bytes of the table", &k->region->table_bytes);
	test_count_64(f, "bytes of one of its ranges", &k->table.populated[KVS_RANGE_TABLE_0]);
	test_count_32(f, "an overflow bucket", &k->table.overflow[k->table.side].used_count);
	test_count_64(f, "a live byte of a segment", &segment->live_bytes);
	test_count_32(f, "a segment with records", &k->log.full_count);
	test_count_32(f, "a retired segment", &k->log.retired_count);
	test_count_32(f, "a free segment", &k->log.free_list_count);
	test_count_32(f, "pages of a segment", &k->log.prepared_count);
	test_count_64(f, "a version", &k->log.next_seq);
	test_count_64(f, "bytes of large values", &k->region->large_bytes);
	test_count_64(f, "bytes that replies keep", &k->large.orphaned_bytes);
	test_count_64(f, "a large value that is not durable", &k->unpersisted_large_bytes);
	test_count_32(f, "a large value", &k->large.runs_count);
	test_count_32(f, "a name of a large value", &k->large.sentinel.next->references);
}

static void test_forgotten(struct fixture *f)
{
	struct keyspace *k = f->keyspace;
	struct kvs_limbo_item item = { 0 };
	uint8_t *state = &k->log.segments[0].state;
	uint8_t before = *state;
	*state = KVS_SEGMENT_RETIRED;
	expect_seen(f, "a segment that is in use and thought retired");
	*state = before;
	struct wheel_chunk *chunk = NULL;
	struct wheel *wheel = &k->expire.wheel;
	while (chunk == NULL) {
		(void)wheel_sweep(wheel, false);
		chunk = wheel_take(wheel, WHEEL_LOOK);
	}
	expect_seen(f, "an end that nobody awaits");
	wheel_put_back(wheel, WHEEL_LOOK, chunk, 0);
	struct keyspace_recount recount = recount_of(f);
	ok(recount.differences == 0, "all of it is mended: %s", recount.first);
	do {
		item.kind = KEYSPACE_PENDING_TOMBSTONE; // if there is none
	} while (kvs_limbo_pop(&k->pending, UINT64_MAX, &item) &&
		 item.kind != KEYSPACE_PENDING_TOMBSTONE);
	expect_seen(f, "a removal that nobody follows up");
}

int main(void)
{
	struct fixture f;
	random_state = tap_seed(11);
	for (unsigned i = 0; i < 4; i++) {
		test_agrees((i & 1) != 0, (i & 2) != 0, (i & 2) != 0 ? 2u << 20 : 4u << 20);
	}
	fixture_open(&f, true, 32);
	fill(&f);
	struct keyspace_recount recount = recount_of(&f);
	ok(recount.differences == 0, "before anything is broken all agrees: %s", recount.first);
	test_counts(&f);
	test_forgotten(&f);
	keyspace_batch_begin(f.keyspace);
	ok_int(keyspace_recount(f.keyspace, &recount), -EBUSY, "not in the middle of a batch");
	keyspace_batch_abort(f.keyspace);
	fixture_close(&f);
	return tap_done();
}
