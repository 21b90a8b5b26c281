// SPDX-License-Identifier: MIT
//
// A large value whose run is there before it: a write of exactly these bytes takes the run, as
// often as it is tried; any other copies them; and one that no write takes leaves nothing.
#include <stdlib.h>

#include "shm/crc32c.h"
#include "tests/daemon/keyspace_fixture.h"

#define BIG_BYTES 900001u
#define KEY "key", 3

static struct fixture f;
static struct keyspace_intake intake;
static const uint64_t never_ns = UINT64_MAX;
static char *memory;
static size_t memory_bytes;
static const struct keyspace_slice mine = { .owner = 1,
					    .until_ns = &never_ns,
					    .memory = &memory,
					    .memory_bytes = &memory_bytes,
					    .intake = &intake };

static unsigned char byte_at(size_t i)
{
	return (unsigned char)(i * 13 + (i >> 11));
}

static void start(bool persisted)
{
	fixture_open(&f, persisted, 5);
	keyspace_set_slice(f.keyspace, &mine);
	intake = (struct keyspace_intake){ 0 };
}

static void stop(void)
{
	keyspace_intake_end(f.keyspace, &intake);
	for (int i = 0; i < 20; i++) {
		(void)keyspace_delete(f.keyspace, KEY);
		(void)keyspace_delete(f.keyspace, "two", 3);
		fixture_durable(&f);
	}
	ok(f.region.large_bytes == 0 && f.keyspace->large.runs_count == 0,
	   "G: no large memory is left over");
	fixture_close(&f);
}

static void come(size_t bytes)
{
	while (bytes > 0 && intake.done < intake.bytes) {
		size_t room;
		unsigned char *at = keyspace_intake_room(f.keyspace, &intake, &room);
		room = room < bytes ? room : bytes;
		for (size_t i = 0; i < room; i++) {
			at[i] = byte_at(intake.done + i);
		}
		keyspace_intake_came(f.keyspace, &intake, room);
		bytes -= room;
	}
}

static bool begin(size_t came)
{
	bool begun = keyspace_intake_begin(f.keyspace, &intake, BIG_BYTES) == KEYSPACE_OK;
	come(came);
	return begun;
}

static const void *value(void)
{
	return keyspace_intake_value(f.keyspace, &intake);
}

static uint64_t copied(void)
{
	return kvs_load_relaxed(kvs_counter_word(f.region.base, KVS_COUNTER_large_copied_bytes));
}

static bool is_there(const char *key)
{
	struct kvs_hit hit;
	uint64_t hash = keyspace_hash(f.keyspace, key, 3);
	if (keyspace_find(f.keyspace, hash, key, 3, &hit) != KVS_FIND_HIT ||
	    hit.view.value_bytes != BIG_BYTES) {
		return false;
	}
	const unsigned char *at = hit.value;
	for (size_t i = 0; i < BIG_BYTES; i++) {
		if (at[i] != byte_at(i)) {
			return false;
		}
	}
	return kvs_record_run(&hit.view).crc == kvs_crc32c(0, hit.value, BIG_BYTES);
}

// Of the only run: the intake's own hold is left, whatever a write did with it.
static bool is_held(void)
{
	const struct kvs_large *large = &f.keyspace->large;
	return large->runs_count == 1 && large->sentinel.next->holds == 1;
}

static void test_set(bool persisted)
{
	start(persisted);
	ok(begin(BIG_BYTES / 3) && !keyspace_intake_is_whole(&intake), "a run is filled");
	come(BIG_BYTES);
	ok(keyspace_intake_is_whole(&intake) && keyspace_count(f.keyspace) == 0,
	   "A: nobody sees it before a write names it");
	ok_int(keyspace_set(f.keyspace, KEY, value(), BIG_BYTES, 0, NULL), KEYSPACE_OK, "a write");
	ok(is_held(), "A: which leaves it to the session to let go");
	keyspace_intake_end(f.keyspace, &intake);
	ok(is_there("key"), "E: it is there byte by byte, with its checksum");
	ok_u64(copied(), 0, "G: and no byte of it was copied");
	ok_u64(f.keyspace->live_bytes - BIG_BYTES,
	       kvs_record_bytes(3, sizeof(struct kvs_run), false), "it is counted as any other");
	stop();
}

static void test_refused(void)
{
	start(true);
	ok(begin(BIG_BYTES), "a run");
	// So much waits for its commit that no more may: WAIT, and the value must not be lost.
	f.keyspace->unpersisted_large_bytes = FIXTURE_MEMORY_BYTES;
	for (int i = 0; i < 3; i++) {
		ok_int(keyspace_set(f.keyspace, KEY, value(), BIG_BYTES, 0, NULL), KEYSPACE_WAIT,
		       "a write that must wait");
	}
	ok(is_held(), "A: keeps it");
	f.keyspace->unpersisted_large_bytes = 0;
	ok_int(keyspace_set(f.keyspace, KEY, value(), BIG_BYTES, 0, NULL), KEYSPACE_OK,
	       "A: finds its value when it is tried again");
	keyspace_intake_end(f.keyspace, &intake);
	ok(is_there("key") && copied() == 0, "E: with all its bytes");
	stop();
}

static void test_batch(void)
{
	start(true);
	ok(begin(BIG_BYTES), "a run");
	for (int commits = 0; commits < 2; commits++) {
		keyspace_batch_begin(f.keyspace);
		ok_int(keyspace_set(f.keyspace, KEY, value(), BIG_BYTES, 0, NULL), KEYSPACE_OK,
		       "in a batch");
		(void)keyspace_set(f.keyspace, "two", 3, "2", 1, 0, NULL);
		if (commits == 0) {
			keyspace_batch_abort(f.keyspace);
			ok(is_held(), "I: one that is given up leaves it there");
		} else {
			ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK, "I: committed");
		}
	}
	keyspace_intake_end(f.keyspace, &intake);
	ok(is_there("key") && copied() == 0, "I: not copied, whether or not one was given up");
	stop();
}

static void test_other_bytes(void)
{
	start(false);
	ok(begin(BIG_BYTES), "a run");
	const unsigned char *at = value();
	ok_int(keyspace_set(f.keyspace, "two", 3, at + 1, BIG_BYTES - 1, 0, NULL), KEYSPACE_OK,
	       "a write of a part of it");
	ok_u64(copied(), BIG_BYTES - 1, "A: copies that");
	keyspace_intake_end(f.keyspace, &intake);
	struct keyspace_value got;
	ok(keyspace_get(f.keyspace, "two", 3, &got) == KEYSPACE_OK &&
		   ((const unsigned char *)got.value)[7] == byte_at(8),
	   "A: and keeps it");
	stop();
}

static void test_given_up(void)
{
	for (size_t part = 0; part <= 4; part++) {
		start(part % 2 == 0);
		ok(begin(part * (BIG_BYTES / 4) + part / 4), "%zu quarters came", part);
		stop();
	}
}

static void test_admit(void)
{
	start(false);
	unsigned runs = 0;
	char key[16];
	// Until no other value of this size has room: this one has it.
	while (keyspace_intake_begin(f.keyspace, &intake, BIG_BYTES) == KEYSPACE_OK) {
		come(BIG_BYTES);
		(void)snprintf(key, sizeof(key), "%03u", runs++);
		ok_int(keyspace_admit(f.keyspace, BIG_BYTES + 3), KEYSPACE_OK,
		       "G: what has its run is admitted");
		ok_int(keyspace_set(f.keyspace, key, 3, value(), BIG_BYTES, 0, NULL), KEYSPACE_OK,
		       "and written");
		keyspace_intake_end(f.keyspace, &intake);
	}
	ok(runs >= 5, "%u values fill the memory", runs);
	while (runs > 0) {
		(void)snprintf(key, sizeof(key), "%03u", --runs);
		(void)keyspace_delete(f.keyspace, key, 3);
	}
	stop();
}

int main(void)
{
	test_set(false);
	test_set(true);
	test_refused();
	test_batch();
	test_other_bytes();
	test_given_up();
	test_admit();
	return tap_done();
}
