// SPDX-License-Identifier: MIT
//
// Keys that have ended and that a batch only reads: their ends go with it (I), but it neither waits
// for the disk nor is refused, for size, for memory or for versions, because of what it has read.
#define FIXTURE_VALUE_BYTES_MAX (64u << 20)
#include "tests/daemon/keyspace_fixture.h"

#define ENDING 3000u // keys: the records of their ends have more bytes than one batch takes
#define FEW 5u

struct heard {
	unsigned ends;
};

static void hear(void *context, enum keyspace_end why, const void *key, size_t key_bytes)
{
	struct heard *heard = context;
	(void)key;
	(void)key_bytes;
	heard->ends += why == KEYSPACE_END_EXPIRED;
}

static size_t key_of(char key[16], unsigned i)
{
	return (size_t)snprintf(key, 16, "end:%u", i);
}

// Writes keys whose time then comes.
static void write_ended(struct fixture *f, unsigned count)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < count; i++) {
		char key[16];
		size_t bytes = key_of(key, i);
		wrong += keyspace_set(f->keyspace, key, bytes, "v", 1, fixture_wall_ms + 5, NULL) !=
			 KEYSPACE_OK;
	}
	ok_u64(wrong, 0, "%u keys", count);
	fixture_wall_ms += 10;
	keyspace_tick(f->keyspace);
}

// Begins a batch that reads them. Returns how many are there.
static unsigned read_ended(struct fixture *f, unsigned count)
{
	unsigned found = 0;
	keyspace_batch_begin(f->keyspace);
	for (unsigned i = 0; i < count; i++) {
		char key[16];
		struct keyspace_value value;
		found += keyspace_get(f->keyspace, key, key_of(key, i), &value) != KEYSPACE_ABSENT;
	}
	return found;
}

static void test_many(bool persisted)
{
	struct fixture f;
	struct heard heard = { 0 };
	fixture_open(&f, persisted, 51);
	keyspace_listen(f.keyspace, hear, &heard);
	write_ended(&f, ENDING);
	ok_u64(read_ended(&f, ENDING), 0, "no ended key is there");
	ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK, "who reads many is not refused");
	ok(heard.ends > 100 && heard.ends < ENDING, "I: %u ends are told with it", heard.ends);
	for (unsigned i = 0; i < 5000 && keyspace_count(f.keyspace) > 0; i++) {
		fixture_wall_ms += 2;
		keyspace_tick(f.keyspace);
		fixture_durable(&f);
	}
	ok_u64(heard.ends, ENDING, "and all others, each once");
	fixture_close(&f);
}

// As much is not durable as may be.
static void test_queue(void)
{
	struct fixture f;
	struct heard heard = { 0 };
	static char value[4096];
	fixture_open(&f, true, 52);
	keyspace_listen(f.keyspace, hear, &heard);
	write_ended(&f, FEW);
	for (unsigned i = 0; i < 10000 && !keyspace_waits_for_store(f.keyspace); i++) {
		char key[24];
		size_t bytes = (size_t)snprintf(key, sizeof(key), "more:%u", i);
		(void)keyspace_set(f.keyspace, key, bytes, value, sizeof(value), 0, NULL);
	}
	ok(keyspace_waits_for_store(f.keyspace), "much waits for the disk");
	uint64_t seq = keyspace_last_seq(f.keyspace);
	for (unsigned full = 0; full < 2; full++) {
		// The second time not even one record more has a place.
		f.keyspace->unpersisted_large_bytes += full * (uint64_t)FIXTURE_MEMORY_BYTES;
		ok_u64(read_ended(&f, FEW), 0, "no ended key is there");
		ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK,
		       "and who reads does not wait");
	}
	ok(heard.ends == keyspace_last_seq(f.keyspace) - seq, "I: what was logged was told");
	f.keyspace->unpersisted_large_bytes -= FIXTURE_MEMORY_BYTES;
	fixture_close(&f);
}

// As many bytes as a batch may have, and ends of keys that it reads.
static void test_size(void)
{
	struct fixture f;
	struct heard heard = { 0 };
	fixture_open_sized(&f, false, 53, 256u << 20, false);
	keyspace_listen(f.keyspace, hear, &heard);
	uint64_t record_bytes = kvs_record_bytes(5, sizeof(struct kvs_run), false);
	size_t value_bytes = (size_t)(KVS_BATCH_BYTES_MAX / 2 - record_bytes);
	char *value = calloc(1, value_bytes);
	ok(value != NULL, "a value");
	write_ended(&f, FEW);
	ok_u64(read_ended(&f, FEW), 0, "no ended key is there");
	(void)keyspace_set(f.keyspace, "half1", 5, value, value_bytes, 0, NULL);
	(void)keyspace_set(f.keyspace, "half2", 5, value, value_bytes, 0, NULL);
	ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK,
	       "a batch of all bytes that it may have");
	ok_u64(heard.ends, FEW, "I: and the ends of what it has read");
	keyspace_batch_begin(f.keyspace);
	(void)keyspace_set(f.keyspace, "half1", 5, value, value_bytes, 0, NULL);
	(void)keyspace_set(f.keyspace, "half2", 5, value, value_bytes + 1, 0, NULL);
	ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_TOO_LARGE,
	       "one of a byte more is too large");
	free(value);
	fixture_close(&f);
}

static void test_versions(void)
{
	struct fixture f;
	fixture_open(&f, false, 54);
	write_ended(&f, FEW);
	uint64_t next_seq = f.keyspace->log.next_seq;
	f.keyspace->log.next_seq = KVS_SEQ_MAX + 1;
	ok_u64(read_ended(&f, FEW), 0, "no ended key is there");
	ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK,
	       "nor is who reads refused where versions are used up");
	f.keyspace->log.next_seq = next_seq;
	fixture_close(&f);
}

int main(void)
{
	test_many(false);
	test_many(true);
	test_queue();
	test_size();
	test_versions();
	return tap_done();
}
