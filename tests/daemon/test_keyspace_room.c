// SPDX-License-Identifier: MIT
//
// What still goes through when memory is full, as in Redis: changed times to live, removals, and
// batches that leave no more behind than they find. FLUSHALLs that follow each other faster than
// readers let go of the table. And keys that collide.
#include "shm/epoch.h"
#include "tests/daemon/keyspace_fixture.h"

#define VALUE_BYTES 300u
#define TRIES_MAX 50u
#define MANY_KEYS 150000u // more than a table that is cleared in place without thought

// Hundreds of thousands of times: snprintf() would be half of it all.
static size_t make_key(char *key, unsigned index)
{
	size_t bytes = 4;
	memcpy(key, "key-", bytes);
	for (unsigned rest = index; bytes == 4 || rest > 0; rest /= 16) {
		key[bytes++] = "0123456789abcdef"[rest % 16];
	}
	return bytes;
}

static int set_one(struct fixture *f, unsigned index, size_t bytes)
{
	static unsigned char value[10 * VALUE_BYTES];
	char key[24];
	size_t key_bytes = make_key(key, index);
	return keyspace_set(f->keyspace, key, key_bytes, value, bytes, fixture_wall_ms + 1000000,
			    NULL);
}

static int delete_one(struct fixture *f, unsigned index)
{
	char key[24];
	size_t key_bytes = make_key(key, index);
	return keyspace_delete(f->keyspace, key, key_bytes);
}

static bool is_there(struct fixture *f, unsigned index)
{
	char key[24];
	size_t key_bytes = make_key(key, index);
	struct keyspace_value value;
	return keyspace_get(f->keyspace, key, key_bytes, &value) == KEYSPACE_OK;
}

// As a session does with a command: what has to wait is tried again after a turn.
static int expire_one(struct fixture *f, unsigned index, uint64_t expiry_ms)
{
	char key[24];
	size_t key_bytes = make_key(key, index);
	int result = KEYSPACE_WAIT;
	for (unsigned i = 0; i < TRIES_MAX && result == KEYSPACE_WAIT; i++) {
		result = keyspace_expire(f->keyspace, key, key_bytes, expiry_ms);
		if (result == KEYSPACE_WAIT) {
			fixture_durable(f);
		}
	}
	return result;
}

// Sets keys until memory is full and stays so. Returns how many are there.
static unsigned fill(struct fixture *f)
{
	unsigned keys = 0;
	int result = KEYSPACE_OK;
	for (unsigned i = 0; i < TRIES_MAX && result != KEYSPACE_FULL; i++) {
		while ((result = set_one(f, keys, VALUE_BYTES)) == KEYSPACE_OK) {
			keys++;
		}
		fixture_durable(f);
	}
	ok_int(result, KEYSPACE_FULL, "full");
	return keys;
}

static void test_expiry(bool persisted, uint64_t memory_bytes)
{
	struct fixture f;
	unsigned wrong = 0;
	fixture_open_sized(&f, persisted, 11, memory_bytes, false);
	unsigned keys = fill(&f);
	for (unsigned i = 0; i < tap_rounds(4, 1) * keys; i++) {
		unsigned index = i * 7919u % keys; // all over the segments
		wrong += expire_one(&f, index, fixture_wall_ms + 1000000 + i) != KEYSPACE_OK;
	}
	ok_u64(wrong, 0, "G: full, and %u times to live change (%s)", tap_rounds(4, 1) * keys,
	       persisted ? "persisted" : "memory");
	ok(set_one(&f, keys, VALUE_BYTES) != KEYSPACE_OK, "a new key finds no room");
	for (unsigned i = 0; i < keys; i++) {
		int result = KEYSPACE_WAIT;
		for (unsigned tries = 0; tries < TRIES_MAX && result == KEYSPACE_WAIT; tries++) {
			result = delete_one(&f, i);
			if (result == KEYSPACE_WAIT) {
				fixture_durable(&f);
			}
		}
		wrong += result != KEYSPACE_OK;
	}
	ok_u64(wrong, 0, "what is left of the reserves removes every key");
	fixture_close(&f);
}

static void test_batches(bool persisted)
{
	struct fixture f;
	fixture_open(&f, persisted, 12);
	unsigned keys = fill(&f);
	keyspace_batch_begin(f.keyspace);
	(void)set_one(&f, keys, VALUE_BYTES);
	ok(keyspace_batch_commit(f.keyspace) != KEYSPACE_OK, "a batch that only adds is refused");

	keyspace_batch_begin(f.keyspace);
	(void)delete_one(&f, 1);
	(void)set_one(&f, keys, 10 * VALUE_BYTES);
	ok(keyspace_batch_commit(f.keyspace) != KEYSPACE_OK, "so is one that adds more than goes");
	ok(is_there(&f, 1), "I: and nothing of it was done");

	keyspace_batch_begin(f.keyspace);
	(void)delete_one(&f, 1);
	(void)set_one(&f, keys, VALUE_BYTES / 2);
	ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK, "one that leaves less goes through");
	ok(!is_there(&f, 1) && is_there(&f, keys), "I: as a whole");

	keyspace_batch_begin(f.keyspace);
	for (unsigned i = 2; i < 40; i++) {
		(void)delete_one(&f, i);
	}
	ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK, "G: DEL of many keys goes through");

	keyspace_batch_begin(f.keyspace);
	(void)set_one(&f, keys + 1, VALUE_BYTES);
	(void)keyspace_flush(f.keyspace);
	for (unsigned i = 0; i < 20; i++) {
		(void)set_one(&f, keys + 2 + i, VALUE_BYTES);
	}
	ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK, "G: FLUSHALL and new keys, too");
	ok_u64(keyspace_count(f.keyspace), 20, "I: what came after FLUSHALL is there");
	fixture_close(&f);
}

static bool set_many(struct fixture *f)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < MANY_KEYS; i++) {
		int result = set_one(f, i, 1);
		if (result == KEYSPACE_WAIT) {
			fixture_durable(f);
			result = set_one(f, i, 1);
		}
		wrong += result != KEYSPACE_OK;
	}
	return wrong == 0;
}

// Two FLUSHALLs with a reader's section open since before the first.
static void test_flushes(bool reading, bool block)
{
	struct fixture f;
	static struct kvs_reader_page page;
	int owner = 0;
	fixture_open_sized(&f, true, 13, 64u << 20, block);
	struct kvs_epoch_page *entry = kvs_epoch_add(&f.epochs, &page, &owner);
	ok(entry != NULL && set_many(&f), "many keys");
	if (reading) {
		(void)kvs_epoch_enter(&page.slot[0], &f.region.header->hot, true);
	}
	ok_int(keyspace_flush(f.keyspace), KEYSPACE_OK, "FLUSHALL");
	unsigned side = f.keyspace->table.side;
	ok(set_many(&f), "as many again");
	for (unsigned i = 0; i < 20 || keyspace_drain_is_due(f.keyspace); i++) {
		cleaner_turn(f.keyspace, fixture_monotonic_ns()); // else it would wait for these
	}
	uint64_t start_ns = fixture_monotonic_ns();
	f.keyspace->side_taken_ns = start_ns; // however long that took
	entry->seen_since_ns[0] = start_ns;
	int result;
	unsigned waits = 0;
	while ((result = keyspace_flush(f.keyspace)) == KEYSPACE_WAIT && waits < 1000) {
		waits++;
		(void)fixture_monotonic_ns();
	}
	uint64_t took_ms = (fixture_monotonic_ns() - start_ns) / 1000000;
	ok_int(result, KEYSPACE_OK, "another FLUSHALL, after %u waits", waits);
	ok((waits > 0) == reading, "D: it waits if somebody reads");
	ok(took_ms < 300, "D: and not for ever (%" PRIu64 " ms)", took_ms);
	ok((f.keyspace->table.side == side) == (reading && block),
	   "the table is cleared in place only for who is never revoked");
	ok_u64(f.epochs.revocations, reading && !block, "revoked");
	ok_u64(keyspace_count(f.keyspace), 0, "no key is left");
	ok(!is_there(&f, 5), "none can be read");
	fixture_close(&f);
}

// Who knows the seed makes the keys of one transaction meet in one bucket.
static void test_colliding(void)
{
	struct fixture f;
	fixture_open(&f, true, 14);
	uint64_t mask = f.keyspace->table.buckets - 1;
	const unsigned counts[] = { 50, 4200 };
	uint64_t index = 0;
	for (unsigned i = 0; i < 2; i++) {
		keyspace_batch_begin(f.keyspace);
		for (unsigned found = 0; found < counts[i]; index++) {
			char key[256]; // xxhash's inlining looks as far, says the compiler
			int length = snprintf(key, sizeof(key), "%" PRIx64, index);
			uint64_t hash = keyspace_hash(f.keyspace, key, (size_t)length);
			if ((hash & mask) == 7) {
				(void)keyspace_set(f.keyspace, key, (size_t)length, "v", 1, 0,
						   NULL);
				found++;
			}
		}
		ok_int(keyspace_batch_commit(f.keyspace), i == 0 ? KEYSPACE_OK : KEYSPACE_CROWDED,
		       "H: %u keys of one bucket in a batch", counts[i]);
	}
	ok_u64(keyspace_count(f.keyspace), counts[0], "I: all of the first, none of the second");
	keyspace_batch_begin(f.keyspace);
	for (unsigned i = 0; i < counts[1]; i++) {
		(void)keyspace_set(f.keyspace, "same", 4, "v", 1, 0, NULL);
	}
	ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK, "a key may come as often");
	fixture_close(&f);
}

int main(void)
{
	if (tap_slowness() == 1) {
		test_expiry(false, FIXTURE_MEMORY_BYTES);
		test_expiry(true, FIXTURE_MEMORY_BYTES);
	}
	test_expiry(false, 32 * FIXTURE_SEGMENT_BYTES); // as few segments as kvd begins with
	test_expiry(true, 32 * FIXTURE_SEGMENT_BYTES);
	test_batches(false);
	test_batches(true);
	test_flushes(true, false);
	if (tap_slowness() == 1) {
		test_flushes(false, false);
		test_flushes(true, true);
	}
	test_colliding();
	return tap_done();
}
