// SPDX-License-Identifier: MIT
//
// Values of 32 bytes to 8 MiB come and go at random while 90 % of the memory is live: none is
// refused, each keeps its bytes, and afterwards every count is what a fresh look finds.
#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace_recount.h"

#define FIXTURE_VALUE_BYTES_MAX (8u << 20)
#include "tests/daemon/keyspace_fixture.h"

#define MEMORY_BYTES (64u << 20)
#define LIVE_PERCENT 90u
#define KEYS 6000u
#define SIZE_BITS_MIN 5u
#define SIZE_BITS_MAX 23u
#define ROUNDS_MAX 2000u // that a write waits

static struct fixture f;
static unsigned char bytes_of[FIXTURE_VALUE_BYTES_MAX];
static uint32_t sizes[KEYS]; // of the value, 0 = there is none
static uint64_t live;	     // memory that they take
static uint64_t written;

static size_t name_of(char name[16], unsigned number)
{
	return (size_t)snprintf(name, 16, "%06u", number);
}

static const void *filled(unsigned number, size_t bytes)
{
	memset(bytes_of, (int)(number * 7 + bytes), bytes);
	memcpy(bytes_of, &number, sizeof(number));
	return bytes_of;
}

// What a value takes: whole pages if it is large.
static uint64_t takes(size_t bytes)
{
	return keyspace_is_large(f.keyspace, bytes)
		       ? kvs_large_bytes(&f.region, bytes) + sizeof(struct kvs_record) + 24
		       : kvs_record_bytes(6, bytes, false);
}

static void drop(unsigned number)
{
	char name[16];
	for (unsigned i = 0; i < ROUNDS_MAX && sizes[number] > 0; i++) {
		if (keyspace_delete(f.keyspace, name, name_of(name, number)) == KEYSPACE_OK) {
			live -= takes(sizes[number]);
			sizes[number] = 0;
		} else {
			fixture_durable(&f);
		}
	}
}

// As a session does: waits for turns, in which commits succeed, and asks again.
static bool set(unsigned number, size_t bytes)
{
	char name[16];
	size_t name_bytes = name_of(name, number);
	const void *value = filled(number, bytes);
	int result = KEYSPACE_WAIT;
	for (unsigned i = 0; i < ROUNDS_MAX && result == KEYSPACE_WAIT; i++) {
		result = keyspace_set(f.keyspace, name, name_bytes, value, bytes, 0, NULL);
		if (result == KEYSPACE_WAIT) {
			fixture_durable(&f);
		}
	}
	if (result != KEYSPACE_OK) {
		tap_diag("%zu bytes were answered %d, with %" PRIu64 " of %u live", bytes, result,
			 live, MEMORY_BYTES);
		return false;
	}
	sizes[number] = (uint32_t)bytes;
	live += takes(bytes);
	written += bytes;
	return true;
}

// The longer the rarer, but so that each size takes more memory than the next smaller one: short
// ones, which live as long, lie scattered among long ones.
static size_t size_of(uint64_t *random)
{
	unsigned bits = SIZE_BITS_MIN;
	while (bits < SIZE_BITS_MAX - 1 && tap_random(random) % 10 < 7) {
		bits++;
	}
	return ((size_t)1 << bits) + tap_random(random) % ((size_t)1 << bits);
}

static unsigned broken(void)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		char name[16];
		struct keyspace_value value;
		bool there =
			keyspace_get(f.keyspace, name, name_of(name, i), &value) == KEYSPACE_OK;
		wrong += there != (sizes[i] > 0);
		wrong += there && sizes[i] > 0 &&
			 (value.value_bytes != sizes[i] ||
			  memcmp(value.value, filled(i, sizes[i]), sizes[i]) != 0);
	}
	return wrong;
}

static uint64_t counter(enum kvs_counter which)
{
	return kvs_load_relaxed(kvs_counter_word(f.region.base, which));
}

static void churn(bool persisted, unsigned writes, uint64_t *random)
{
	unsigned refused = 0;
	struct keyspace_recount recount;
	live = written = 0;
	memset(sizes, 0, sizeof(sizes));
	fixture_open_sized(&f, persisted, 1, MEMORY_BYTES, false);
	for (unsigned i = 0; i < writes && refused < 3; i++) {
		unsigned number = (unsigned)(tap_random(random) % KEYS);
		size_t bytes = size_of(random);
		drop(number);
		while (live + takes(bytes) > (uint64_t)MEMORY_BYTES / 100 * LIVE_PERCENT) {
			drop((unsigned)(tap_random(random) % KEYS));
		}
		refused += !set(number, bytes);
	}
	tap_diag("%" PRIu64 " MiB were written, %" PRIu64 " MiB copied by the cleaner, %" PRIu64
		 " MiB of %" PRIu64 " large values moved",
		 written >> 20, counter(KVS_COUNTER_cleaner_copied_bytes) >> 20,
		 counter(KVS_COUNTER_large_moved_bytes) >> 20, counter(KVS_COUNTER_large_moved));
	ok_u64(refused, 0, "G: none is refused with %u %% of the memory live", LIVE_PERCENT);
	ok_u64(broken(), 0, "A: each has its bytes");
	ok_int(keyspace_recount(f.keyspace, &recount), 0, "recounted");
	ok(recount.differences == 0, "G: nothing is miscounted (%s)", recount.first);
	for (unsigned i = 0; i < KEYS; i++) {
		drop(i);
	}
	for (unsigned i = 0; i < 200; i++) {
		fixture_durable(&f);
	}
	ok(f.region.large_bytes == 0 && f.keyspace->large.runs_count == 0,
	   "G: no large memory is left over");
	fixture_close(&f);
}

int main(void)
{
	uint64_t random = tap_seed(20261122);
	unsigned writes = tap_rounds(40000, 4000);
	churn(false, writes, &random);
	churn(true, writes, &random);
	return tap_done();
}
