// SPDX-License-Identifier: MIT
//
// Writing on and on into memory that is nearly all live: no write is refused, cleaning is paid for
// in small pieces, and no more than the shortage asks for. With several sizes of memory and
// segments, persisted and not.
#include "tests/daemon/keyspace_fixture.h"

#define TRIES_MAX 20000u

struct churn {
	struct fixture f;
	uint64_t *random;
	uint32_t keys;
	uint32_t value_bytes_max;
	uint64_t waits;
	uint64_t refused;
	uint64_t most_ns; // of one write, by the clock that work is measured by
};

static uint64_t counter(const struct churn *churn, enum kvs_counter which)
{
	return *kvs_counter_word(churn->f.region.base, which);
}

// What writes may fill: all segments but the reserves.
static uint64_t capacity(const struct churn *churn)
{
	const struct keyspace *keyspace = churn->f.keyspace;
	uint64_t segments = kvs_log_segments_allowed(&keyspace->log) -
			    keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE);
	return segments << churn->f.region.segment_shift;
}

// As a session does: asks for room, waits for turns of the loop, writes.
static int set_one(struct churn *churn, uint32_t key)
{
	static unsigned char value[4096];
	struct keyspace *keyspace = churn->f.keyspace;
	char name[24];
	size_t name_bytes = (size_t)snprintf(name, sizeof(name), "key-%u", key);
	size_t bytes = 1 + tap_random(churn->random) % churn->value_bytes_max;
	int result = KEYSPACE_WAIT;
	for (unsigned tries = 0; tries < TRIES_MAX && result == KEYSPACE_WAIT; tries++) {
		uint64_t begun_ns = fixture_now_ns;
		result = keyspace_admit(keyspace, bytes + name_bytes);
		if (result == KEYSPACE_OK) {
			result = keyspace_set(keyspace, name, name_bytes, value, bytes, 0, NULL);
		}
		uint64_t took_ns = fixture_now_ns - begun_ns;
		churn->most_ns = took_ns > churn->most_ns ? took_ns : churn->most_ns;
		if (result == KEYSPACE_WAIT) {
			churn->waits++;
			fixture_durable(&churn->f);
		}
	}
	churn->refused += result != KEYSPACE_OK;
	return result;
}

static void fill(struct churn *churn, unsigned percent)
{
	const struct keyspace *keyspace = churn->f.keyspace;
	while (keyspace->live_bytes < capacity(churn) / 100 * percent &&
	       set_one(churn, churn->keys) == KEYSPACE_OK) {
		churn->keys++;
		if (churn->keys % 64 == 0) {
			fixture_durable(&churn->f);
		}
	}
}

static void test_churn(uint64_t *random, bool persisted, uint64_t memory_bytes, unsigned percent,
		       uint32_t value_bytes_max)
{
	struct churn churn = { .random = random, .value_bytes_max = value_bytes_max };
	fixture_open_sized(&churn.f, persisted, 21, memory_bytes, false);
	fill(&churn, percent);
	uint64_t copied = counter(&churn, KVS_COUNTER_cleaner_copied_bytes);
	uint64_t appended = kvs_log_appended_bytes(&churn.f.keyspace->log);
	uint64_t live = churn.f.keyspace->live_bytes;
	unsigned times = tap_rounds(4, 1);
	for (uint32_t i = 0; i < times * churn.keys; i++) {
		(void)set_one(&churn, (uint32_t)(tap_random(random) % churn.keys));
		if (i % 64 == 0) {
			fixture_durable(&churn.f);
		}
	}
	fixture_durable(&churn.f);
	appended = kvs_log_appended_bytes(&churn.f.keyspace->log) - appended;
	copied = counter(&churn, KVS_COUNTER_cleaner_copied_bytes) - copied;
	tap_diag("%u %% live: %" PRIu64 " bytes written, %" PRIu64 " copied, %" PRIu64
		 " waits, longest %" PRIu64 " us",
		 percent, appended, copied, churn.waits, churn.most_ns / 1000);
	ok_u64(churn.refused, 0, "G: %" PRIu64 " MiB, %u %% live (%" PRIu64 " KiB), %s: no refusal",
	       memory_bytes >> 20, percent, live >> 10, persisted ? "persisted" : "memory");
	ok(copied < 30 * appended, "and copying has a bound, %" PRIu64 " bytes for 100",
	   copied * 100 / (appended + 1));
	bool few_segments = memory_bytes < FIXTURE_MEMORY_BYTES;
	ok(percent > 90 || few_segments || churn.waits <= 20,
	   "D: up to 90 %% live hardly a write waits");
	ok(churn.most_ns <= 3 * CLEANER_SLICE_NS, "D: no write takes long");
	ok_u64(counter(&churn, KVS_COUNTER_log_appended_bytes),
	       kvs_log_appended_bytes(&churn.f.keyspace->log), "all that was appended is counted");
	ok(counter(&churn, KVS_COUNTER_cleaner_freed_bytes) > 0 &&
		   counter(&churn, KVS_COUNTER_cleaner_slices) > 0 &&
		   counter(&churn, KVS_COUNTER_cleaner_slice_longest_us) <=
			   2 * CLEANER_SLICE_NS / 1000,
	   "so is what was freed, in how many slices, how long");
	fixture_close(&churn.f);
}

// With much memory free nobody pays, and nothing is copied.
static void test_plenty(uint64_t *random)
{
	struct churn churn = { .random = random, .value_bytes_max = 500 };
	fixture_open_sized(&churn.f, false, 22, FIXTURE_MEMORY_BYTES, false);
	fill(&churn, 20);
	for (uint32_t i = 0; i < churn.keys; i++) {
		(void)set_one(&churn, (uint32_t)(tap_random(random) % churn.keys));
	}
	ok_u64(counter(&churn, KVS_COUNTER_cleaner_copied_bytes), 0, "plenty is free: no copy");
	fixture_close(&churn.f);
}

int main(void)
{
	uint64_t random = tap_seed(52);
	test_plenty(&random);
	test_churn(&random, false, FIXTURE_MEMORY_BYTES, 50, 500);
	test_churn(&random, false, FIXTURE_MEMORY_BYTES, 90, 500);
	test_churn(&random, false, FIXTURE_MEMORY_BYTES, 95, 500);
	test_churn(&random, true, FIXTURE_MEMORY_BYTES, 95, 500);
	// A segment's end loses two kilobytes of 64 to a record that does not fit.
	test_churn(&random, true, 2 * FIXTURE_MEMORY_BYTES, 91, 4000);
	test_churn(&random, false, 32 * FIXTURE_SEGMENT_BYTES, 90, 500); // as few as may be
	return tap_done();
}
