// SPDX-License-Identifier: MIT
//
// Large values that lie so that a larger one has no place, and what must be true when it has found
// one: for tests of what moves them.
#pragma once

#include "daemon/keyspace_recount.h"
#include "tests/daemon/keyspace_fixture.h"

#define LARGE_BYTES 1000000u
#define SMALL_BYTES 20000u
#define KEYS 1000u
#define ROUNDS 2000u

static struct fixture f;
static unsigned char bytes_of[LARGE_BYTES];
static size_t stays[KEYS]; // bytes of the value, 0 = there is none

static size_t name_of(char name[16], unsigned number)
{
	return (size_t)snprintf(name, 16, "%06u", number);
}

static const void *filled(unsigned number, size_t bytes)
{
	memset(bytes_of, (int)(number * 7 + 1), bytes);
	memcpy(bytes_of, &number, sizeof(number));
	return bytes_of;
}

static int try_set(unsigned number, size_t bytes)
{
	char name[16];
	return keyspace_set(f.keyspace, name, name_of(name, number), filled(number, bytes), bytes,
			    0, NULL);
}

// As a session does: waits for turns, in which commits succeed, and asks again.
static int set(unsigned number, size_t bytes)
{
	int result = try_set(number, bytes);
	for (unsigned i = 0; i < ROUNDS && result == KEYSPACE_WAIT; i++) {
		fixture_durable(&f);
		result = try_set(number, bytes);
	}
	stays[number % KEYS] = result == KEYSPACE_OK ? bytes : 0;
	return result;
}

static void drop(unsigned number)
{
	char name[16];
	(void)keyspace_delete(f.keyspace, name, name_of(name, number));
	stays[number % KEYS] = 0;
}

static const unsigned char *at_of(unsigned number)
{
	char name[16];
	struct keyspace_value value;
	return keyspace_get(f.keyspace, name, name_of(name, number), &value) == KEYSPACE_OK
		       ? value.value
		       : NULL;
}

static bool is_at(const unsigned char *at, unsigned number, size_t bytes)
{
	return at != NULL && memcmp(at, filled(number, bytes), bytes) == 0;
}

static uint64_t moved(void)
{
	return kvs_load_relaxed(kvs_counter_word(f.region.base, KVS_COUNTER_large_moved));
}

static void turns(unsigned count)
{
	while (count-- > 0) {
		fixture_durable(&f);
	}
}

// Everything that stays is whole, and all counts are what a fresh look finds.
static void all_well(const char *what)
{
	unsigned wrong = 0;
	struct keyspace_recount recount;
	for (unsigned i = 0; i < KEYS; i++) {
		wrong += stays[i] > 0 && !is_at(at_of(i), i, stays[i]);
	}
	ok_u64(wrong, 0, "%s: every other value is what it was", what);
	ok_int(keyspace_recount(f.keyspace, &recount), 0, "%s: recounted", what);
	ok(recount.differences == 0, "G: %s: nothing is miscounted (%s)", what, recount.first);
}

// Places in a row, of sizes that come round; of each cycle those in the mask stay.
struct pattern {
	const char *what;
	size_t sizes[6];
	unsigned sizes_count;
	unsigned cycle;
	uint64_t stay;
};

static const struct pattern few = { "few small ones", { SMALL_BYTES }, 1, 40, 1 };

static void scatter(const struct pattern *pattern)
{
	const struct kvs_range_bounds *range = &f.region.map.ranges[KVS_RANGE_LARGE];
	uint64_t bytes = 0, most = 0;
	unsigned i = 0, dropped = 0;
	for (;; i++) {
		size_t size = pattern->sizes[i % pattern->sizes_count];
		if (bytes + kvs_large_bytes(&f.region, size) > range->bytes_max) {
			break;
		}
		if (set(i, size) != KEYSPACE_OK) {
			tap_diag("number %u has no place", i);
		}
		bytes += kvs_large_bytes(&f.region, size);
		most = size > most ? size : most;
		// So many are there at a time: places are not used again at once.
		while ((i - dropped) * most > f.region.memory_bytes / 4) {
			if ((pattern->stay >> dropped % pattern->cycle & 1) == 0) {
				drop(dropped);
			}
			dropped++;
		}
	}
	for (; dropped + 1 < i; dropped++) { // the last one stays: behind it there is no place
		if ((pattern->stay >> dropped % pattern->cycle & 1) == 0) {
			drop(dropped);
		}
	}
	turns(50);
}

static void no_place(void)
{
	ok(!kvs_large_has_place(&f.keyspace->large, LARGE_BYTES),
	   "values lie so that a larger one has no place: %" PRIu64 " of %" PRIu64 " bytes live",
	   f.keyspace->live_bytes, f.keyspace->memory_bytes);
}

static void begin(bool persisted, bool block)
{
	memset(stays, 0, sizeof(stays));
	fixture_look_step_ns = 2000;
	fixture_open_sized(&f, persisted, 1, FIXTURE_MEMORY_BYTES, block);
}

static void scattered(bool persisted, bool block)
{
	begin(persisted, block);
	scatter(&few);
	no_place();
}

static void end(const char *what)
{
	all_well(what);
	fixture_look_step_ns = 2000;
	for (unsigned i = 0; i < KEYS; i++) {
		drop(i);
	}
	turns(50);
	ok(f.region.large_bytes == 0 && f.keyspace->large.runs_count == 0,
	   "G: %s: no large memory is left over", what);
	fixture_close(&f);
}
