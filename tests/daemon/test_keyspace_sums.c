// SPDX-License-Identifier: MIT
//
// The sums of large values, looked at in slices: what is damaged is found, and nothing that becomes
// of a value between two slices is called damage.
#include "daemon/keyspace_sums.h"
#include "tests/daemon/keyspace_fixture.h"

#define VALUE_BYTES (1u << 20) // several slices
#define TURNS_MAX 10000u

static struct fixture f;
static unsigned char value[VALUE_BYTES];

static void set(const char *key, unsigned char byte)
{
	memset(value, byte, sizeof(value));
	if (keyspace_set(f.keyspace, key, strlen(key), value, sizeof(value), 0, NULL) !=
	    KEYSPACE_OK) {
		printf("Bail out! no room for a value\n");
		exit(1);
	}
}

static void begin(void)
{
	fixture_open_sized(&f, false, 1, 64u << 20, false);
	for (unsigned i = 0; i < 500; i++) {
		char key[32];
		(void)snprintf(key, sizeof(key), "small:%u", i);
		(void)keyspace_set(f.keyspace, key, strlen(key), "value", 5, 0, NULL);
	}
	set("one", 1);
	set("two", 2);
	set("three", 3);
}

// The last byte, in memory that nobody but a keeper has.
static void damage(const char *key)
{
	struct keyspace_value got;
	int result = keyspace_get(f.keyspace, key, strlen(key), &got);
	ok_int(result, KEYSPACE_OK, "%s is there", key);
	((unsigned char *)(uintptr_t)got.value)[got.value_bytes - 1] ^= 4;
}

static uint64_t found(void)
{
	return *kvs_counter_word(f.region.base, KVS_COUNTER_large_damaged);
}

// Turns until all have been looked at, and `meanwhile` behind each of them. Returns how many.
static unsigned look(void (*meanwhile)(unsigned turn))
{
	struct keyspace_sums *sums = keyspace_sums_begin(f.keyspace);
	unsigned turns = 0;
	uint64_t next_ns = 0;
	while (sums != NULL && next_ns != UINT64_MAX && turns < TURNS_MAX) {
		bool wants_places;
		next_ns = keyspace_sums_turn(sums, next_ns, &wants_places);
		turns++;
		if (meanwhile != NULL && next_ns != UINT64_MAX) {
			meanwhile(turns);
		}
	}
	keyspace_sums_end(sums);
	ok(turns < TURNS_MAX, "it comes to an end after %u turns", turns);
	return turns;
}

static void set_all(unsigned turn)
{
	if (turn < 20) { // of one size, each with another sum
		set("one", (unsigned char)(10 + turn));
		set("two", (unsigned char)(50 + turn));
		set("three", (unsigned char)(90 + turn));
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
	}
}

static void expire_all(unsigned turn)
{
	uint64_t end_ms = f.keyspace->now_ms + 1000000 + turn;
	(void)keyspace_expire(f.keyspace, "one", 3, end_ms);
	(void)keyspace_expire(f.keyspace, "two", 3, end_ms);
	(void)keyspace_expire(f.keyspace, "three", 5, end_ms);
}

static void flush_once(unsigned turn)
{
	if (turn == 2) {
		ok_int(keyspace_flush(f.keyspace), KEYSPACE_OK, "a FLUSHALL");
	}
}

int main(void)
{
	begin();
	ok(look(NULL) >= 12, "three large values are read in slices");
	ok_u64(found(), 0, "and are good");
	(void)look(set_all);
	ok_u64(found(), 0, "values that change meanwhile are not called damaged");
	damage("two");
	(void)look(NULL);
	ok_u64(found(), 1, "one that is damaged is found, and counted once");
	(void)look(expire_all);
	ok_u64(found(), 2, "so it is where versions that refer to it follow each other");
	(void)look(flush_once);
	ok(found() <= 3, "a FLUSHALL in the middle of it");
	struct keyspace_sums *none = keyspace_sums_begin(f.keyspace);
	keyspace_sums_end(none); // readers may still look at runs
	set("one", 1);
	damage("one");
	struct keyspace_sums *sums = keyspace_sums_begin(f.keyspace);
	bool wants_places;
	ok(sums != NULL && keyspace_sums_turn(sums, 0, &wants_places) != UINT64_MAX,
	   "it can be ended in the middle");
	keyspace_sums_end(sums);
	fixture_close(&f);
	return tap_done();
}
