// SPDX-License-Identifier: MIT
//
// What has to stay in memory: every key is counted by what may become of it, also while the table
// grows between two steps; and the least bound that is told is reached, by what may go alone.
#include "daemon/keyspace_stays.h"

#include "tests/daemon/keyspace_fixture.h"

#define KEYS 3000u
#define LARGE_VALUES 3u
#define LARGE_BYTES 200000u
#define TURNS_MAX 20000u

static const unsigned char value[LARGE_BYTES];

// Every third key has a prefix, every second a time to live.
static size_t name_of(unsigned i, char key[64])
{
	return (size_t)snprintf(key, 64, "%s%u-and-some-more-of-a-name",
				i % 3 ? "any:" : "keep:", i);
}

static bool set_one(struct fixture *f, unsigned i, size_t bytes)
{
	char key[64];
	size_t key_bytes = name_of(i, key);
	uint64_t end_ms = i % 2 ? f->keyspace->now_ms + 100000000 : 0;
	bool set = keyspace_set(f->keyspace, key, key_bytes, value, bytes, end_ms, NULL) ==
		   KEYSPACE_OK;
	fixture_durable(f);
	return set;
}

static void open_full(struct fixture *f, bool persisted)
{
	unsigned refused = 0;
	fixture_open_sized(f, persisted, 31, 12u << 20, false);
	for (unsigned i = 0; i < KEYS; i++) {
		refused += !set_one(f, i, i < LARGE_VALUES ? LARGE_BYTES : 10 + i % 900);
	}
	ok_u64(refused, 0, "%u keys", KEYS);
}

// The same by arithmetic.
static struct keyspace_stays expected(const struct fixture *f, const struct keyspace_eviction *how)
{
	struct keyspace_stays stays = { 0 };
	for (unsigned i = 0; i < KEYS; i++) {
		char key[64];
		size_t key_bytes = name_of(i, key);
		bool large = i < LARGE_VALUES;
		size_t bytes = large ? sizeof(struct kvs_run) : 10 + i % 900;
		bool goes = (!how->volatile_only || i % 2) && (i % 3 || !*how->never);
		if (goes && !how->spills) {
			continue;
		}
		stays.keys++;
		stays.record_bytes += goes ? kvs_record_stub_bytes((uint32_t)key_bytes, i % 2)
					   : kvs_record_bytes(key_bytes, bytes, i % 2);
		stays.large_bytes += goes || !large ? 0 : kvs_large_bytes(&f->region, LARGE_BYTES);
	}
	return stays;
}

static void test_counts(void)
{
	static const struct keyspace_eviction ways[] = {
		{ .on = true, .never = "keep:" },
		{ .on = true, .volatile_only = true, .never = "" },
		{ .on = true, .volatile_only = true, .never = "nobody keep:" },
		{ .on = true, .spills = true, .never = "" },
		{ .on = true, .spills = true, .never = "keep:" },
	};
	struct fixture f;
	open_full(&f, true);
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct keyspace_stays stays = { 0 };
		struct keyspace_stays wanted = expected(&f, &ways[i]);
		unsigned steps = 1;
		while (keyspace_stays_step(f.keyspace, &ways[i], &stays)) {
			steps++;
		}
		ok(keyspace_stays_any(&ways[i]) && steps > 4, "case %zu: %u steps", i, steps);
		ok(stays.entries == KEYS && stays.keys == wanted.keys &&
			   stays.record_bytes == wanted.record_bytes &&
			   stays.large_bytes == wanted.large_bytes,
		   "G: %llu of %llu keys, %llu of %llu bytes, %llu of %llu of large values stay",
		   (unsigned long long)stays.keys, (unsigned long long)wanted.keys,
		   (unsigned long long)stays.record_bytes, (unsigned long long)wanted.record_bytes,
		   (unsigned long long)stays.large_bytes, (unsigned long long)wanted.large_bytes);
	}
	const struct keyspace_eviction all = { .on = true, .never = "" };
	ok(!keyspace_stays_any(&all), "where any key may go nothing need be looked up");
	fixture_close(&f);
}

// Keys come, and the table is emptied, between two steps.
static void test_changes(void)
{
	static const struct keyspace_eviction how = { .on = true, .never = "keep:" };
	struct fixture f;
	struct keyspace_stays stays = { 0 };
	unsigned next = KEYS;
	open_full(&f, false);
	while (keyspace_stays_step(f.keyspace, &how, &stays)) {
		for (unsigned end = next + 200; next < end && next < 3 * KEYS; next++) {
			(void)set_one(&f, next, 10);
		}
	}
	uint64_t stay = (keyspace_count(f.keyspace) + 2) / 3;
	ok(stays.keys >= KEYS / 3 && stays.keys <= stay + stay / 4,
	   "while keys come: %llu of %llu stay", (unsigned long long)stays.keys,
	   (unsigned long long)stay);
	stays = (struct keyspace_stays){ 0 };
	(void)keyspace_stays_step(f.keyspace, &how, &stays);
	ok_int(keyspace_flush(f.keyspace), KEYSPACE_OK, "all go");
	while (keyspace_stays_step(f.keyspace, &how, &stays)) {
	}
	ok(stays.over, "the walk ends");
	fixture_close(&f);
}

static void test_reached(bool volatile_only)
{
	const struct keyspace_eviction how = { .on = true,
					       .volatile_only = volatile_only,
					       .never = volatile_only ? "" : "keep:" };
	struct fixture f;
	struct keyspace_stays stays = { 0 };
	unsigned lost = 0, turns = 0, refused = 0;
	open_full(&f, false);
	ok(keyspace_set_eviction(f.keyspace, &how), "evict");
	while (keyspace_stays_step(f.keyspace, &how, &stays)) {
	}
	uint64_t bytes = keyspace_stays_least(f.keyspace, &how, &stays);
	ok(bytes < keyspace_memory_least(f.keyspace, false), "it is less than all that is stored");
	keyspace_set_memory(f.keyspace, bytes);
	while (f.region.memory_bytes > bytes && turns < TURNS_MAX) {
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
		turns++;
	}
	ok_u64(f.region.memory_bytes, bytes, "G: the least is reached, after %u turns", turns);
	for (unsigned i = 0; i < KEYS; i++) {
		char key[64];
		struct keyspace_value found;
		size_t key_bytes = name_of(i, key);
		bool stays_there = volatile_only ? i % 2 == 0 : i % 3 == 0;
		lost += stays_there &&
			keyspace_get(f.keyspace, key, key_bytes, &found) != KEYSPACE_OK;
	}
	ok_u64(lost, 0, "and what must stay is there");
	for (unsigned i = 1; i < KEYS; i += 6) { // neither `keep:` nor without an end
		refused += !set_one(&f, KEYS + i - KEYS % 6, 500);
	}
	ok_u64(refused, 0, "and writes go on");
	fixture_close(&f);
}

int main(void)
{
	test_counts();
	test_changes();
	test_reached(false);
	test_reached(true);
	return tap_done();
}
