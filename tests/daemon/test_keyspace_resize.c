// SPDX-License-Identifier: MIT
//
// The bound on memory while it is moved: up at once; down in turns, under writers who never find
// less room for it, with every key still there and the pages gone back; not below what is stored,
// and not past a reader who holds what was cleaned.
#include <sys/stat.h>

#include "shm/epoch.h"
#include "tests/daemon/keyspace_fixture.h"

#define LARGE_BYTES (24u << 20)
#define SMALL_BYTES (8u << 20)
#define KEYS 3000u
#define TURNS_MAX 20000u

// How long values are. Four of the long ones fill a segment, but for a seventh of it.
enum shape { ALIKE, LONG, MIXED, SHORT_GO, SHAPES };

static const char *const shape_names[SHAPES] = {
	[ALIKE] = "all alike",
	[LONG] = "long",
	[MIXED] = "of any length",
	[SHORT_GO] = "long, the short ones are removed",
};

static enum shape shape;
static uint32_t versions[KEYS]; // what each key was set to last, 0 = never

static size_t bytes_of(unsigned index)
{
	switch (shape) {
	case LONG:
		return 14000;
	case MIXED:
		return 1 + index * UINT32_C(2654435761) % 16000;
	case SHORT_GO:
		return index % 8 == 0 ? 14000 : 300;
	default:
		return 700;
	}
}

static int set_one(struct fixture *f, unsigned index)
{
	unsigned char value[16000];
	char key[24];
	size_t bytes = bytes_of(index);
	size_t key_bytes = (size_t)snprintf(key, sizeof(key), "key-%u", index);
	memset(value, (int)(versions[index] + 1), bytes);
	int result = keyspace_set(f->keyspace, key, key_bytes, value, bytes, 0, NULL);
	versions[index] += result == KEYSPACE_OK;
	return result;
}

static unsigned wrong_keys(struct fixture *f)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		char key[24];
		struct keyspace_value value;
		size_t key_bytes = (size_t)snprintf(key, sizeof(key), "key-%u", i);
		bool found = keyspace_get(f->keyspace, key, key_bytes, &value) == KEYSPACE_OK;
		wrong += found != (versions[i] > 0) ||
			 (found && ((const unsigned char *)value.value)[bytes_of(i) - 1] !=
					   (unsigned char)versions[i]);
	}
	return wrong;
}

static uint64_t file_bytes(const struct fixture *f)
{
	struct stat status;
	return fstat(f->region.fd, &status) == 0 ? (uint64_t)status.st_blocks * 512 : UINT64_MAX;
}

// Writes in random places until so much memory is in use, most of it dead.
static void use(struct fixture *f, uint64_t bytes, unsigned *random)
{
	while (keyspace_used_bytes(f->keyspace) < bytes) {
		for (unsigned i = 0; i < 50; i++) {
			*random = *random * 1103515245u + 12345u;
			if (set_one(f, (*random >> 8) % KEYS) != KEYSPACE_OK) {
				return;
			}
		}
		kvs_store_release(&f->region.header->marks.durable_seq,
				  f->persisted ? keyspace_last_seq(f->keyspace) : 0);
	}
}

// Turns with a write between them, until the bound is there or the turns are used up. Returns how
// many writes had to wait.
static unsigned settle(struct fixture *f, uint64_t bytes, unsigned *random, bool writes)
{
	unsigned waited = 0;
	for (unsigned i = 0; i < TURNS_MAX && f->region.memory_bytes != bytes; i++) {
		*random = *random * 1103515245u + 12345u;
		waited += writes && set_one(f, (*random >> 8) % KEYS) != KEYSPACE_OK;
		fixture_durable(f);
	}
	return waited;
}

static void test_down_and_up(bool persisted)
{
	struct fixture f;
	const char *policy = persisted ? "persisted" : "memory";
	unsigned random = 7;
	memset(versions, 0, sizeof(versions));
	fixture_open_sized(&f, persisted, 21, LARGE_BYTES, false);
	use(&f, LARGE_BYTES / 4 * 3, &random);
	ok(file_bytes(&f) > SMALL_BYTES, "%s: more is in use than will be", policy);
	keyspace_set_memory(f.keyspace, SMALL_BYTES);
	ok_u64(f.region.memory_bytes, LARGE_BYTES, "%s: nothing happens outside a turn", policy);
	unsigned waited = settle(&f, SMALL_BYTES, &random, true);
	ok_u64(f.region.memory_bytes, SMALL_BYTES, "%s: the bound came down", policy);
	ok_u64(waited, 0, "%s: G: no write waited for it", policy);
	ok(keyspace_used_bytes(f.keyspace) <= SMALL_BYTES, "%s: G: no more is in use", policy);
	for (unsigned i = 0; i < 1000; i++) {
		fixture_durable(&f); // what waits for a grace period
	}
	ok(file_bytes(&f) <= SMALL_BYTES, "%s: the pages went back: %llu", policy,
	   (unsigned long long)file_bytes(&f));
	ok_u64(wrong_keys(&f), 0, "%s: every key is as it was", policy);
	keyspace_set_memory(f.keyspace, LARGE_BYTES);
	ok_u64(f.region.memory_bytes, LARGE_BYTES, "%s: up at once", policy);
	use(&f, SMALL_BYTES + (4u << 20), &random);
	ok(keyspace_used_bytes(f.keyspace) > SMALL_BYTES, "%s: and it is used", policy);
	ok_u64(wrong_keys(&f), 0, "%s: every key is as it was", policy);
	fixture_close(&f);
}

static void test_least(void)
{
	struct fixture f;
	unsigned random = 9;
	memset(versions, 0, sizeof(versions));
	fixture_open_sized(&f, false, 22, LARGE_BYTES, false);
	uint64_t empty_bytes = keyspace_memory_least(f.keyspace, false);
	use(&f, LARGE_BYTES / 4 * 3, &random);
	uint64_t least_bytes = keyspace_memory_least(f.keyspace, false);
	uint64_t live_bytes = f.keyspace->live_bytes;
	uint64_t keys_bytes = keyspace_memory_least(f.keyspace, true);
	ok(keys_bytes < least_bytes && keys_bytes > empty_bytes,
	   "where values go it is less, and not nothing: %llu", (unsigned long long)keys_bytes);
	ok(least_bytes > empty_bytes + live_bytes - (2 * FIXTURE_SEGMENT_BYTES) &&
		   least_bytes < empty_bytes + live_bytes / 8 * 9 + (4u * FIXTURE_SEGMENT_BYTES),
	   "least is what lives, packed: %llu, alive %llu, of nothing %llu",
	   (unsigned long long)least_bytes, (unsigned long long)live_bytes,
	   (unsigned long long)empty_bytes);
	uint64_t bytes = least_bytes + least_bytes / 8;
	keyspace_set_memory(f.keyspace, bytes);
	(void)settle(&f, bytes, &random, false);
	ok_u64(f.region.memory_bytes, bytes, "G: somewhat more than the least is reached");
	keyspace_set_memory(f.keyspace, FIXTURE_SEGMENT_BYTES * 8);
	(void)settle(&f, FIXTURE_SEGMENT_BYTES * 8, &random, true);
	ok(f.region.memory_bytes > live_bytes, "less than what lives is not");
	ok_u64(wrong_keys(&f), 0, "and nothing is lost for trying");
	fixture_close(&f);
}

// Where values go their keys stay, as long as they are, and values that are no longer than a stub.
static void test_least_of_keys(void)
{
	struct fixture f;
	uint64_t stubs_bytes = 0;
	unsigned wrong = 0;
	fixture_open_sized(&f, false, 25, LARGE_BYTES, false);
	uint64_t empty_bytes = keyspace_memory_least(f.keyspace, true);
	for (unsigned i = 0; i < 20000; i++) {
		char key[128];
		static const char value[600];
		int key_bytes = snprintf(key, sizeof(key), "%0*u", 20 + (int)(i % 80), i);
		size_t value_bytes = i % 5 == 0 ? 4 : sizeof(value);
		wrong += keyspace_set(f.keyspace, key, (size_t)key_bytes, value, value_bytes, 0,
				      NULL) != KEYSPACE_OK;
		stubs_bytes += i % 5 == 0 ? kvs_record_bytes((size_t)key_bytes, value_bytes, false)
					  : kvs_record_stub_bytes((size_t)key_bytes, false);
	}
	ok_u64(wrong, 0, "keys of 20 to 99 bytes");
	uint64_t table_bytes = f.region.table_bytes;
	uint64_t least_bytes = keyspace_memory_least(f.keyspace, true);
	ok(least_bytes > empty_bytes + stubs_bytes &&
		   least_bytes < empty_bytes + table_bytes + stubs_bytes / 8 * 9 +
					 (4u * FIXTURE_SEGMENT_BYTES),
	   "where values go it is what their keys take: %llu for %llu, of nothing %llu",
	   (unsigned long long)least_bytes, (unsigned long long)stubs_bytes,
	   (unsigned long long)empty_bytes);
	fixture_close(&f);
}

// What is left of a full memory lies in all segments, and just what it needs is set.
static void test_accepted(bool persisted, uint64_t memory_bytes)
{
	struct fixture f;
	const char *policy = persisted ? "persisted" : "memory";
	unsigned random = 11;
	memset(versions, 0, sizeof(versions));
	fixture_open_sized(&f, persisted, 24, memory_bytes, false);
	for (unsigned i = 0; i < KEYS && keyspace_used_bytes(f.keyspace) < memory_bytes / 8 * 7;
	     i++) {
		(void)set_one(&f, i);
		fixture_durable(&f);
	}
	for (unsigned i = 0; i < KEYS; i++) {
		char key[24];
		size_t key_bytes = (size_t)snprintf(key, sizeof(key), "key-%u", i);
		if (i % 8 != 0 && versions[i] > 0) {
			int result = keyspace_delete(f.keyspace, key, key_bytes);
			versions[i] = result == KEYSPACE_OK ? 0 : versions[i];
		}
	}
	uint64_t bytes = keyspace_memory_least(f.keyspace, false);
	keyspace_set_memory(f.keyspace, bytes);
	(void)settle(&f, bytes, &random, false);
	ok_u64(f.region.memory_bytes, bytes, "%s: G: the least that is accepted is reached: %s",
	       policy, shape_names[shape]);
	unsigned refused = 0;
	for (unsigned i = 0; i < 4 * KEYS; i += 8) {
		unsigned tries = 0;
		while (versions[i % KEYS] > 0 && set_one(&f, i % KEYS) != KEYSPACE_OK &&
		       tries++ < 100) {
			fixture_durable(&f);
		}
		refused += tries > 100;
	}
	ok_u64(refused, 0, "%s: and what is there can be written anew", policy);
	ok_u64(wrong_keys(&f), 0, "%s: every key is as it was", policy);
	fixture_close(&f);
}

static void test_value_limit(void)
{
	struct fixture f;
	fixture_open_sized(&f, false, 23, LARGE_BYTES, false);
	ok_u64(keyspace_value_bytes_max(f.keyspace), 1u << 20, "values as configured");
	keyspace_set_memory(f.keyspace, 1u << 20);
	ok_u64(keyspace_value_bytes_max(f.keyspace), 1u << 19, "G: but two fit the memory");
	keyspace_set_memory(f.keyspace, LARGE_BYTES);
	ok_u64(keyspace_value_bytes_max(f.keyspace), 1u << 20, "and as configured again");
	fixture_close(&f);
}

int main(void)
{
	test_down_and_up(false);
	test_down_and_up(true);
	test_least();
	test_least_of_keys();
	for (uint64_t bytes = 2u << 20; bytes <= 5u << 19; bytes += 1u << 18) {
		test_accepted(false, bytes);
		test_accepted(true, bytes);
	}
	for (shape = LONG; shape < SHAPES; shape++) {
		test_accepted(false, 16u << 20);
		test_accepted(true, 17u << 20);
	}
	shape = ALIKE;
	test_value_limit();
	return tap_done();
}
