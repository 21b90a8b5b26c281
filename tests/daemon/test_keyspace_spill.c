// SPDX-License-Identifier: MIT
//
// When values leave memory: not while as much is dead as is wanted. And those whose places in the
// store nobody knows any more: who finds no room waits until they were looked for and is not
// refused (G), they are not copied round meanwhile, and where values come and go by the megabyte
// places are followed all the time.
#include "daemon/keyspace_cold.h"
#include "tests/daemon/keyspace_fixture.h"

#define KEYS 40000u // of more bytes than there is memory
#define SOME_KEYS 6000u
#define VALUE_BYTES 600u
#define TURNS 400u
#define MS_NS UINT64_C(1000000)
#define NOWHERE (UINT64_MAX / 2)

static uint64_t judged; // as a persister would have it

static size_t key_of(char key[16], unsigned i)
{
	return (size_t)snprintf(key, 16, "key:%u", i);
}

static int put(struct fixture *f, unsigned i)
{
	char key[16];
	char value[VALUE_BYTES];
	size_t key_bytes = key_of(key, i);
	memset(value, (int)i, sizeof(value));
	int result = keyspace_set(f->keyspace, key, key_bytes, value, sizeof(value), 0, NULL);
	if (result == KEYSPACE_OK) {
		struct kvs_hit hit;
		uint64_t hash = keyspace_hash(f->keyspace, key, key_bytes);
		(void)keyspace_find(f->keyspace, hash, key, key_bytes, &hit);
		// As the persister notes it.
		kvs_store_relaxed((uint64_t *)(uintptr_t)&hit.view.record->place,
				  kvs_place_make(1000 + i, 48));
	}
	return result;
}

static uint64_t counted(const struct fixture *f, enum kvs_counter counter)
{
	return *kvs_counter_word(f->region.base, counter);
}

static void open_spilling(struct fixture *f, uint64_t seed)
{
	const struct keyspace_eviction how = { .on = true, .spills = true };
	fixture_open(f, true, seed);
	keyspace_set_judged(f->keyspace, &judged);
	ok(keyspace_set_eviction(f->keyspace, &how), "values leave memory");
}

// Writes these, until one finds no room for so many turns; returns how many it took. *result is
// what the last was told.
static unsigned fill(struct fixture *f, unsigned from, unsigned until, int *result)
{
	unsigned i = from;
	for (; i < until; i++) {
		*result = put(f, i);
		for (unsigned t = 0; t < TURNS && *result == KEYSPACE_WAIT; t++) {
			fixture_durable(f);
			*result = put(f, i);
		}
		if (*result != KEYSPACE_OK) {
			break;
		}
		if (i % 16 == 0) {
			fixture_durable(f);
		}
	}
	return i;
}

// Three quarters of the memory are live, and are overwritten at random, all alike.
static void test_fits(void)
{
	struct fixture f;
	uint64_t random = tap_seed(9);
	unsigned wrong = 0;
	judged = 0;
	open_spilling(&f, 40);
	unsigned keys = FIXTURE_MEMORY_BYTES / 4 * 3 /
			(unsigned)kvs_record_bytes(sizeof("key:1234"), VALUE_BYTES, false);
	for (unsigned i = 0; i < 5 * keys; i++) {
		wrong += put(&f, i < keys ? i : (unsigned)(tap_random(&random) % keys)) !=
			 KEYSPACE_OK;
		if (i % 16 == 0) {
			fixture_durable(&f);
		}
	}
	ok_u64(wrong, 0, "G: no write of %u keys waits", keys);
	ok_u64(counted(&f, KVS_COUNTER_values_spilled), 0, "and no value leaves memory");
	fixture_close(&f);
}

// The least that keys need is accepted, and reached: nearly all values leave memory for it.
static void test_least(unsigned keys)
{
	struct fixture f;
	int result;
	judged = 0;
	open_spilling(&f, 44);
	ok_u64(fill(&f, 0, keys, &result), keys, "%u keys", keys);
	uint64_t bytes = keyspace_memory_least(f.keyspace, true);
	keyspace_set_memory(f.keyspace, bytes);
	unsigned turns = 0;
	for (; turns < 100 * TURNS && f.region.memory_bytes != bytes; turns++) {
		fixture_durable(&f);
	}
	ok_u64(f.region.memory_bytes, bytes, "G: the least that is accepted is reached");
	ok(keyspace_count(f.keyspace) == keys && keyspace_count_stubs(f.keyspace) > keys / 10 * 9,
	   "%llu of %u values left memory", (unsigned long long)keyspace_count_stubs(f.keyspace),
	   keys);
	fixture_close(&f);
}

static void test_waits(void)
{
	struct fixture f;
	int result;
	uint64_t now_ns;
	judged = NOWHERE;
	open_spilling(&f, 41);
	unsigned at = fill(&f, 0, KEYS, &result);
	ok(at < KEYS && counted(&f, KVS_COUNTER_values_spilled) == 0, "nothing could go: %u keys",
	   at);
	uint64_t copied = counted(&f, KVS_COUNTER_cleaner_copied_bytes);
	unsigned waits = 0;
	for (unsigned t = 0; t < 4 * TURNS; t++) {
		waits += put(&f, at) == KEYSPACE_WAIT;
		fixture_durable(&f);
	}
	ok(result == KEYSPACE_WAIT && waits == 4 * TURNS, "G: who finds no room waits");
	ok(counted(&f, KVS_COUNTER_cleaner_copied_bytes) < copied + FIXTURE_MEMORY_BYTES / 4,
	   "and nothing is copied round meanwhile");
	now_ns = fixture_monotonic_ns();
	ok(keyspace_wants_places(f.keyspace, true, now_ns), "the store is looked through");
	ok(!keyspace_wants_places(f.keyspace, false, now_ns + 10 * MS_NS), "once");
	ok_int(put(&f, at), KEYSPACE_WAIT, "G: it waits until that is over");
	judged = 0;
	ok(!keyspace_wants_places(f.keyspace, true, now_ns + 100 * MS_NS), "it is");
	unsigned more = fill(&f, at, at + SOME_KEYS, &result) - at;
	ok_u64(more, SOME_KEYS, "then values leave memory, for as many keys more");
	ok(counted(&f, KVS_COUNTER_values_spilled) > 0, "as is counted");
	judged = NOWHERE;
	at = fill(&f, at + more, KEYS, &result);
	ok_int(result, KEYSPACE_WAIT, "they are unknown again");
	ok(!keyspace_wants_places(f.keyspace, true, now_ns + 399 * MS_NS),
	   "D: it rests three times as long as it took");
	ok(keyspace_wants_places(f.keyspace, true, now_ns + 400 * MS_NS), "then it begins");
	ok(!keyspace_wants_places(f.keyspace, true, now_ns + 2000 * MS_NS), "and is over");
	(void)fill(&f, at, KEYS, &result);
	ok(!keyspace_wants_places(f.keyspace, true, now_ns + 2999 * MS_NS) &&
		   keyspace_wants_places(f.keyspace, true, now_ns + 3000 * MS_NS),
	   "however long: a second at most");
	fixture_close(&f);
}

// The store has failed: nothing is looked for, and nobody waits for it.
static void test_halted(void)
{
	struct fixture f;
	int result;
	judged = NOWHERE;
	open_spilling(&f, 42);
	unsigned at = fill(&f, 0, KEYS, &result);
	keyspace_halt_spill(f.keyspace, true);
	for (unsigned t = 0; t < TURNS && result == KEYSPACE_WAIT; t++) {
		fixture_durable(&f);
		result = put(&f, at);
	}
	ok_int(result, KEYSPACE_FULL, "G: where nothing leaves memory writes are refused");
	fixture_close(&f);
}

static void remove_some(struct fixture *f, unsigned from, unsigned until)
{
	for (unsigned i = from; i < until; i++) {
		char key[16];
		(void)keyspace_delete(f->keyspace, key, key_of(key, i));
		if (i % 16 == 0) {
			fixture_durable(f);
		}
	}
	for (unsigned t = 0; t < TURNS; t++) {
		fixture_now_ns += 10 * MS_NS;
		fixture_durable(f);
	}
}

static void test_follows(void)
{
	struct fixture f;
	int result;
	judged = 0;
	open_spilling(&f, 43);
	ok(!keyspace_follows_places(f.keyspace), "while there is room places are of no use");
	(void)fill(&f, 0, KEYS, &result);
	ok(keyspace_follows_places(f.keyspace), "they are where memory is full");
	const struct kvs_log *log = &f.keyspace->log;
	uint32_t all = FIXTURE_MEMORY_BYTES / FIXTURE_SEGMENT_BYTES;
	unsigned at = 0;
	for (; at < KEYS && kvs_log_segments_free(log) <= all * 3 / 10; at += 500) {
		remove_some(&f, at, at + 500);
	}
	ok(kvs_log_segments_free(log) > kvs_log_segments_allowed(log) / 4 &&
		   keyspace_follows_places(f.keyspace),
	   "G: and where much of it is free again for a while: %u of %u",
	   kvs_log_segments_free(log), all);
	for (; at < KEYS && kvs_log_segments_free(log) < all / 2; at += 500) {
		remove_some(&f, at, at + 500);
	}
	ok(!keyspace_follows_places(f.keyspace), "not when half of it is");
	fixture_close(&f);
}

int main(void)
{
	test_fits();
	for (unsigned keys = 1000; keys < KEYS; keys += keys / 2) {
		test_least(keys);
	}
	test_waits();
	test_halted();
	test_follows();
	return tap_done();
}
