// SPDX-License-Identifier: MIT
//
// Another hash key for the table where memory is full. A second table needs room as a write does:
// keys go for it, or values, or dead bytes; no write is refused for it that would have been taken
// (G), and no key is lost by it (A).
#include "daemon/keyspace_cold.h"
#include "shm/epoch.h"
#include "tests/daemon/keyspace_fixture.h"

#define MEMORY_BYTES (4u << 20)
#define KEYS 60000u
#define SOME_KEYS 9000u // of 300 bytes, which leave room for a second table
#define TURN_WRITES 16u
#define TURNS_MAX 20000u
#define TRIES 200u // of a write that waits for memory
#define INTERVAL_MS 1000u

enum mode { REJECTS, EVICTS, SPILLS };

static const char *const mode_names[] = { "reject", "evict", "spill" };

static unsigned char versions[KEYS]; // 0 = never accepted
static uint32_t value_bytes;	     // few, where the table is to be large
static uint64_t judged;		     // as a persister would have it: every place holds

static size_t key_of(char key[16], unsigned i)
{
	return (size_t)snprintf(key, 16, "key:%u", i);
}

static void value_of(unsigned char value[300], unsigned i, unsigned version)
{
	memset(value, (int)(version + 1), 300);
	memcpy(value, &i, sizeof(i));
}

static struct kvs_hit hit_of(const struct fixture *f, const char *key, size_t key_bytes)
{
	struct kvs_hit hit = { 0 };
	uint64_t hash = keyspace_hash(f->keyspace, key, key_bytes);
	bool found = keyspace_find(f->keyspace, hash, key, key_bytes, &hit) == KVS_FIND_HIT;
	return found ? hit : (struct kvs_hit){ 0 };
}

// False: refused, or not done within so many turns.
static bool put(struct fixture *f, unsigned i)
{
	char key[16];
	unsigned char value[300];
	size_t key_bytes = key_of(key, i);
	int result = KEYSPACE_WAIT;
	value_of(value, i, versions[i] % 200 + 1u);
	for (unsigned t = 0; t < TRIES && result == KEYSPACE_WAIT; t++) {
		result = keyspace_admit(f->keyspace, key_bytes + value_bytes);
		if (result == KEYSPACE_OK) {
			result = keyspace_set(f->keyspace, key, key_bytes, value, value_bytes, 0,
					      NULL);
		}
		if (result == KEYSPACE_WAIT) {
			fixture_durable(f);
		}
	}
	if (result == KEYSPACE_OK) {
		versions[i] = (unsigned char)(versions[i] % 200 + 1);
		struct kvs_hit hit = hit_of(f, key, key_bytes);
		// As the persister notes it.
		kvs_store_relaxed((uint64_t *)(uintptr_t)&hit.view.record->place,
				  kvs_place_make(1000 + i, 48));
	}
	return result == KEYSPACE_OK;
}

static unsigned wrong_keys(const struct fixture *f, enum mode mode, unsigned *found)
{
	unsigned wrong = 0;
	*found = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];
		unsigned char value[300];
		struct kvs_hit hit = hit_of(f, key, key_of(key, i));
		value_of(value, i, versions[i]);
		bool is_there = hit.view.seq != 0 && hit.kind != KVS_ENTRY_TOMBSTONE;
		*found += is_there;
		if (!is_there) {
			wrong += versions[i] != 0 && mode != EVICTS;
		} else if (hit.kind == KVS_ENTRY_STUB) {
			wrong += mode != SPILLS || hit.view.value_bytes != value_bytes;
		} else {
			wrong += hit.view.value_bytes != value_bytes ||
				 memcmp(hit.value, value, value_bytes) != 0;
		}
	}
	return wrong;
}

static uint64_t counted(const struct fixture *f, enum kvs_counter counter)
{
	return *kvs_counter_word(f->region.base, counter);
}

static void open_world(struct fixture *f, enum mode mode, uint32_t bytes, uint64_t seed)
{
	const struct keyspace_eviction how = { .on = mode != REJECTS, .spills = mode == SPILLS };
	memset(versions, 0, sizeof(versions));
	value_bytes = bytes;
	fixture_open_sized(f, mode == SPILLS, seed, MEMORY_BYTES, false);
	keyspace_set_judged(f->keyspace, &judged);
	keyspace_set_reseed(f->keyspace, INTERVAL_MS);
	keyspace_set_write_wait(f->keyspace, 100000);
	ok(keyspace_set_eviction(f->keyspace, &how), "%s", mode_names[mode]);
}

// Writes so many keys, or up to the first that is refused. Returns how many were accepted.
static unsigned fill(struct fixture *f, unsigned from, unsigned until)
{
	unsigned i = from;
	while (i < until && put(f, i)) {
		if (i++ % TURN_WRITES == 0) {
			fixture_durable(f);
		}
	}
	return i - from;
}

// Keys collide, and writes go on: until the table is rebuilt, or that is given up.
static void collide(struct fixture *f, enum mode mode, unsigned keys, uint64_t *random)
{
	unsigned refused = 0, turns = 0, over = 0;
	uint64_t before = counted(f, KVS_COUNTER_table_reseeds);
	fixture_now_ns += 2 * INTERVAL_MS * UINT64_C(1000000);
	f->keyspace->table.crowded = true;
	for (; turns < TURNS_MAX && counted(f, KVS_COUNTER_table_reseeds) == before; turns++) {
		for (unsigned i = 0; i < TURN_WRITES; i++) {
			unsigned key = (unsigned)(tap_random(random) % keys);
			refused += (mode != REJECTS || versions[key] != 0) && !put(f, key);
		}
		fixture_durable(f);
		over += keyspace_used_bytes(f->keyspace) > MEMORY_BYTES;
	}
	ok_u64(counted(f, KVS_COUNTER_table_reseeds), before + 1,
	       "%s: the table has another hash key after %u turns", mode_names[mode], turns);
	ok_u64(refused, 0, "G: no write is refused meanwhile");
	ok_u64(over, 0, "G: nor is more memory in use than may be");
	ok_u64(counted(f, KVS_COUNTER_table_reseeds_abandoned), 0, "nothing was begun in vain");
}

static void test_makes_room(enum mode mode)
{
	struct fixture f;
	uint64_t random = tap_seed(5);
	unsigned found;
	open_world(&f, mode, mode == SPILLS ? 300 : 12, 31);
	unsigned keys = mode == SPILLS ? KEYS / 3 : KEYS;
	ok_u64(fill(&f, 0, keys), keys, "G: memory is full");
	struct kvs_table *table = &f.keyspace->table;
	ok(table->entries * 16 <= table->buckets * (KVS_TABLE_LOAD_GROW_X16 + 1),
	   "the table has grown with its keys: %llu in %llu buckets",
	   (unsigned long long)table->entries, (unsigned long long)table->buckets);
	uint64_t table_bytes = table->populated[KVS_RANGE_TABLE_0];
	uint64_t free_bytes = (uint64_t)(kvs_log_segments_free(&f.keyspace->log) -
					 keyspace_reserve(f.keyspace, KEYSPACE_FOR_WRITE))
			      << f.region.segment_shift;
	ok(free_bytes < table_bytes, "%llu bytes are free, the table has %llu",
	   (unsigned long long)free_bytes, (unsigned long long)table_bytes);
	for (unsigned side = 1; side < 3; side++) {
		collide(&f, mode, keys, &random);
		ok_u64(table->side, side & 1, "on the other side");
		ok_u64(wrong_keys(&f, mode, &found), 0, "A: every key has its value");
		ok_u64(found, keyspace_count(f.keyspace), "and as many are there as are counted");
	}
	fixture_close(&f);
}

// Only what is dead may go for it: too little first, then enough.
static void test_cleans(void)
{
	struct fixture f;
	uint64_t random = tap_seed(7);
	unsigned found, dead = 0;
	open_world(&f, REJECTS, 12, 32);
	unsigned keys = fill(&f, 0, KEYS);
	ok(keys > KEYS / 4 && keys < KEYS, "reject: %u keys fill memory", keys);
	fixture_now_ns += 2 * INTERVAL_MS * UINT64_C(1000000);
	f.keyspace->table.crowded = true;
	for (unsigned i = 0; i < 100; i++) {
		fixture_durable(&f);
	}
	ok(counted(&f, KVS_COUNTER_table_reseeds_abandoned) == 1 &&
		   counted(&f, KVS_COUNTER_table_reseeds) == 0,
	   "there is no room for another table, which is said once");
	f.keyspace->table.crowded = false;
	keyspace_counter_set(f.keyspace, KVS_COUNTER_table_reseeds_abandoned, 0);
	for (unsigned i = 0; i < keys; i += 2) {
		char key[16];
		int result = KEYSPACE_WAIT;
		size_t bytes = key_of(key, i);
		for (unsigned t = 0; t < TRIES && result == KEYSPACE_WAIT; t++) {
			result = keyspace_delete(f.keyspace, key, bytes);
			fixture_durable(&f);
		}
		versions[i] = result == KEYSPACE_OK ? 0 : versions[i];
		dead += result == KEYSPACE_OK;
	}
	ok_u64(dead, (keys + 1) / 2, "half of them are removed");
	collide(&f, REJECTS, keys, &random);
	ok_u64(wrong_keys(&f, REJECTS, &found), 0, "A: every key has its value");
	fixture_close(&f);
}

// A rebuild that does not come to its end has memory that writes want, and shall have.
static void test_gives_way(void)
{
	struct fixture f;
	unsigned found, accepted[2];
	for (unsigned second = 0; second < 2; second++) {
		open_world(&f, REJECTS, 300, 33);
		accepted[second] = fill(&f, 0, SOME_KEYS);
		if (second == 1) {
			fixture_now_ns += 2 * INTERVAL_MS * UINT64_C(1000000);
			f.keyspace->table.crowded = true;
			f.keyspace->scans++; // KEYS is under way: it is not published before
			for (unsigned i = 0; i < 2000; i++) {
				fixture_durable(&f);
			}
			ok(f.keyspace->table.reseed.copied == f.keyspace->table.buckets,
			   "a second table is there and waits");
		}
		accepted[second] += fill(&f, accepted[second], KEYS);
		ok_u64(wrong_keys(&f, REJECTS, &found), 0, "A: every key has its value");
		if (second == 1) {
			fixture_durable(&f);
			ok(counted(&f, KVS_COUNTER_table_reseeds_abandoned) > 0, "it was given up");
			f.keyspace->scans--;
		}
		fixture_close(&f);
	}
	ok(accepted[1] >= accepted[0], "G: no write is refused for it: %u and %u are accepted",
	   accepted[0], accepted[1]);
}

// Nothing comes free while a reader is where it was, who is never revoked.
static void test_stuck(void)
{
	static struct kvs_reader_page page;
	struct fixture f;
	int owner = 0;
	open_world(&f, EVICTS, 12, 34);
	f.keyspace->block_on_stuck = true;
	(void)fill(&f, 0, KEYS);
	struct kvs_epoch_page *entry = kvs_epoch_add(&f.epochs, &page, &owner);
	ok(entry != NULL, "a reader");
	(void)kvs_epoch_enter(&page.slot[0], &f.region.header->hot, true);
	fixture_now_ns += 2 * INTERVAL_MS * UINT64_C(1000000);
	keyspace_set_reseed(f.keyspace, 3600000);
	f.keyspace->table.crowded = true;
	unsigned turns = 0;
	for (; turns < TURNS_MAX && counted(&f, KVS_COUNTER_table_reseeds_abandoned) == 0;
	     turns++) {
		fixture_now_ns += UINT64_C(1000000);
		fixture_durable(&f);
	}
	ok(turns < TURNS_MAX, "D: a reader that stays keeps it waiting, for %u turns", turns);
	ok(!f.keyspace->table.reseed.active, "then what it has is given back");
	(void)kvs_epoch_leave(&page.slot[0], &f.region.header->hot);
	kvs_epoch_remove(&f.epochs, entry);
	fixture_close(&f);
}

int main(void)
{
	test_makes_room(EVICTS);
	test_makes_room(SPILLS);
	test_cleans();
	test_gives_way();
	test_stuck();
	return tap_done();
}
