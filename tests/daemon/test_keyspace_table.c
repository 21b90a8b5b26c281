// SPDX-License-Identifier: MIT
//
// Memory of the table as the keyspace waits for it: each range for its own time and no longer, and
// FLUSHALL for the other side, whatever has been on it.
#include "shm/epoch.h"
#include "tests/daemon/keyspace_fixture.h"

#define MS_NS UINT64_C(1000000)
#define MANY_KEYS 140000u // more buckets than are cleared in place in one turn

static bool set_one(struct fixture *f, unsigned i)
{
	char key[16];
	int length = snprintf(key, sizeof(key), "%u", i);
	int result = keyspace_set(f->keyspace, key, (size_t)length, "v", 1, 0, NULL);
	return result == KEYSPACE_OK;
}

// A helper that never comes: each range is waited for since somebody first wanted it.
static void test_waits(void)
{
	struct fixture f;
	fixture_open(&f, false, 21);
	struct keyspace *keyspace = f.keyspace;
	struct kvs_table *table = &keyspace->table;
	unsigned wrong = 0, keys = 0;
	for (; table->entries * 16 < table->buckets * KVS_TABLE_LOAD_GROW_X16; keys++) {
		wrong += !set_one(&f, keys);
	}
	uint64_t buckets = table->buckets;
	uint64_t more = table->populated[KVS_RANGE_OVERFLOW_0] / sizeof(struct kvs_bucket) + 1;
	table->ahead.helped = true;
	ok(wrong == 0 && set_one(&f, keys) && table->buckets == buckets,
	   "a table that would grow waits for its helper");
	fixture_now_ns += 90 * MS_NS;
	ok_int(keyspace_table_secure(keyspace, more), KEYSPACE_WAIT,
	       "90 ms later a write needs another range");
	fixture_now_ns += 20 * MS_NS;
	ok_int(keyspace_table_secure(keyspace, more), KEYSPACE_WAIT,
	       "and waits for it, however long the table has waited to grow");
	keyspace_table_steps(keyspace, 1);
	ok(table->buckets == buckets + 1, "which it does by itself now");
	ok_int(keyspace_table_secure(keyspace, more), KEYSPACE_WAIT, "nobody else for that");
	fixture_now_ns += 85 * MS_NS;
	ok_int(keyspace_table_secure(keyspace, more), KEYSPACE_OK,
	       "the write, too, when its own time is over");
	ok_int(keyspace_table_secure(keyspace, 8 * more), KEYSPACE_WAIT,
	       "who comes then waits anew");
	fixture_close(&f);
}

// A FLUSHALL while a rebuild that was given up is still on the other side: not in one turn.
static void test_flush_behind_rebuild(bool noticed)
{
	struct fixture f;
	static struct kvs_reader_page page;
	int owner = 0;
	fixture_open_sized(&f, false, 22, 64u << 20, false);
	struct keyspace *keyspace = f.keyspace;
	struct kvs_table *table = &keyspace->table;
	struct kvs_epoch_page *entry = kvs_epoch_add(&f.epochs, &page, &owner);
	unsigned wrong = entry == NULL;
	for (unsigned i = 0; i < MANY_KEYS; i++) {
		wrong += !set_one(&f, i);
	}
	ok_int(wrong, 0, "many keys");
	fixture_now_ns += 1000 * MS_NS;
	table->crowded = true;
	while (table->reseed.copied < table->buckets / 2 && wrong++ < 100000) {
		(void)reseed_turn(keyspace, fixture_monotonic_ns());
	}
	(void)kvs_epoch_enter(&page.slot[0], &f.region.header->hot, true);
	kvs_table_reseed_abandon(table); // as a write does that finds no place on both sides
	ok(!table->other_side_ready, "a rebuild is given up halfway");
	if (noticed) {
		(void)reseed_turn(keyspace, fixture_monotonic_ns());
	}
	ok_int(keyspace_flush(keyspace), KEYSPACE_WAIT, "D: FLUSHALL waits for what it left");
	ok_u64(keyspace_count(keyspace), MANY_KEYS, "and has done nothing");
	(void)kvs_epoch_leave(&page.slot[0], &f.region.header->hot);
	int result = KEYSPACE_WAIT;
	for (unsigned i = 0; i < 1000 && result == KEYSPACE_WAIT; i++) {
		(void)fixture_monotonic_ns();
		result = keyspace_flush(keyspace);
	}
	ok(result == KEYSPACE_OK && table->side == 1, "then it has the other side");
	kvs_epoch_remove(&f.epochs, entry);
	fixture_close(&f);
}

int main(void)
{
	test_waits();
	test_flush_behind_rebuild(false);
	test_flush_behind_rebuild(true);
	return tap_done();
}
