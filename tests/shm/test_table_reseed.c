// SPDX-License-Identifier: MIT
//
// shm/table_reseed.c: while the table is rebuilt under another hash key, and afterwards, every key
// is found as it was last written, by the writer, by readers whose hash is of before, and by walks;
// a rebuild that is given up leaves nothing behind. What happens between two stores is
// tests/shm/step_reseed.c.
#include <stdlib.h>

#include "shm/table_internal.h"
#include "shm/table_quick.h"
#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (16u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define KEYS 9000u
#define OLD_KEY 11u // the fixture's

struct world {
	struct fixture f;
	struct kvs_map map; // a reader's
	uint64_t random;
	uint64_t shadow[KEYS]; // seq, 0 = absent
	unsigned seen[KEYS];   // by a walk
};

static void key_of(unsigned i, char key[16])
{
	(void)snprintf(key, 16, "key:%u", i);
}

static void set(struct world *w, unsigned i)
{
	char key[16];
	key_of(i, key);
	w->shadow[i] = fixture_set(&w->f, key, strlen(key), "value", 5);
}

static void drop(struct world *w, unsigned i)
{
	char key[16];
	key_of(i, key);
	(void)fixture_remove(&w->f, key, strlen(key));
	w->shadow[i] = 0;
}

static void change(struct world *w, unsigned times)
{
	while (times-- > 0) {
		unsigned i = (unsigned)(tap_random(&w->random) % KEYS);
		if (tap_random(&w->random) % 3 == 0) {
			drop(w, i);
		} else {
			set(w, i);
		}
	}
}

// A third of the head segments is cleaned: entries change their places in the log.
static void clean(struct world *w)
{
	for (uint32_t i = 0; i < w->f.log.touched_count; i++) {
		if (i % 3 == 0 && kvs_log_cleanable(&w->f.log, i, UINT64_MAX)) {
			(void)fixture_clean(&w->f, i);
		}
	}
}

static bool as_expected(struct world *w, const struct kvs_map *map, unsigned i, uint64_t hash)
{
	char key[16];
	struct kvs_hit hit;
	key_of(i, key);
	enum kvs_find_result result = kvs_table_find(map, hash, key, strlen(key), &hit);
	return w->shadow[i] == 0 ? result == KVS_FIND_ABSENT
				 : result == KVS_FIND_HIT && hit.view.seq == w->shadow[i] &&
					   kvs_record_crc_ok(&hit.view);
}

// By the hash of now, and by the one of before the first rebuild.
static unsigned count_wrong(struct world *w)
{
	unsigned wrong = 0;
	(void)kvs_map_extend(&w->map);
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];
		key_of(i, key);
		uint64_t now = kvs_map_hash(&w->map, key, strlen(key));
		wrong += !as_expected(w, &w->map, i, now);
		wrong += !as_expected(w, &w->map, i, kvs_hash(OLD_KEY, key, strlen(key)));
		wrong += !as_expected(w, &w->f.region.map, i, now);
	}
	return wrong;
}

static uint64_t count_entries(const struct kvs_table *table)
{
	uint64_t count = 0;
	for (uint64_t i = 0; i < table->buckets; i++) {
		const struct kvs_bucket *bucket = kvs_table_primary(table, i);
		for (; bucket != NULL; bucket = kvs_table_next(table, bucket)) {
			for (unsigned e = 0; e < KVS_BUCKET_ENTRIES; e++) {
				count += kvs_load_relaxed(&bucket->entry[e]) != 0;
			}
		}
	}
	return count;
}

static void open_world(struct world *w)
{
	fixture_open(&w->f, MEMORY, SEGMENT);
	fixture_map_reader(&w->f, &w->map);
	w->f.step_after_write = true;
	memset(w->shadow, 0, sizeof(w->shadow));
	for (unsigned i = 0; i < KEYS; i += 1 + i % 2) {
		set(w, i);
	}
}

static void close_world(struct world *w)
{
	kvs_map_close(&w->map);
	fixture_close(&w->f);
}

static bool begin(struct world *w)
{
	const uint64_t hash_key[2] = { tap_random(&w->random), tap_random(&w->random) };
	return kvs_table_reseed_begin(&w->f.table, hash_key);
}

static void visit(void *context, uint64_t entry)
{
	struct world *w = context;
	struct kvs_hit hit;
	char key[16] = { 0 };
	if (kvs_table_load(&w->map, entry, &hit) == KVS_FIND_HIT && hit.view.key_bytes < 16) {
		memcpy(key, hit.view.key, hit.view.key_bytes);
		w->seen[strtoul(key + 4, NULL, 10)]++;
	}
}

// A rebuild with changes between its steps, while a walk is under way.
static void test_rebuild(struct world *w)
{
	struct kvs_table *table = &w->f.table;
	uint64_t steady[KEYS];
	uint64_t root = kvs_load_relaxed(&w->f.region.header->hot.table_root);
	uint64_t cursor = 0;
	unsigned wrong = 0;
	unsigned steps = 0;
	int result;
	struct kvs_quick_aim aim;
	(void)kvs_map_extend(&w->map);
	ok(kvs_quick_aim(&w->map, &aim), "a reader has an aim");
	memcpy(steady, w->shadow, sizeof(steady));
	memset(w->seen, 0, sizeof(w->seen));
	for (unsigned i = 0; i < 100; i++) {
		cursor = kvs_table_scan(&w->map, cursor, visit, w);
	}
	ok(begin(w) && !begin(w), "one rebuild at a time");
	while ((result = kvs_table_reseed_step(table, 16)) == 0) {
		change(w, 20);
		for (unsigned i = 0; i < KEYS; i++) {
			steady[i] = w->shadow[i] != 0 ? steady[i] : 0;
		}
		if (steps++ % 50 == 10) {
			clean(w);
			wrong += count_wrong(w);
		}
	}
	ok_int(result, 1, "everything is copied, in %u steps", steps);
	change(w, 500);
	for (unsigned i = 0; i < KEYS; i++) {
		steady[i] = w->shadow[i] != 0 ? steady[i] : 0;
	}
	ok_u64(wrong + count_wrong(w), 0, "A: every key as it was last written, all the time");
	ok_u64(kvs_load_relaxed(&w->f.region.header->hot.table_root), root,
	       "nothing of it is published, and the table has not grown");
	kvs_table_reseed_publish(table);
	ok_u64(kvs_limbo_newest_stamp(&w->f.limbo), kvs_epoch_stamp(&w->f.epochs),
	       "B: the old side waits for who is reading now");
	ok_u64(count_wrong(w), 0, "A: and when it is published, whatever hash a reader brings");
	ok_u64(count_entries(table), table->entries, "no entry too much, none too few");
	ok(aim.root != kvs_load_relaxed(&w->f.region.header->hot.table_root) &&
		   kvs_quick_aim(&w->map, &aim) && aim.hash_seed != OLD_KEY,
	   "what a reader had worked out is void, and is worked out anew");
	unsigned calls = 0;
	do {
		cursor = kvs_table_scan(&w->map, cursor, visit, w);
	} while (++calls < 1000000 && cursor != 0);
	unsigned missed = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		missed += steady[i] != 0 && w->shadow[i] != 0 && w->seen[i] == 0;
	}
	ok_u64(missed, 0, "A: a walk over the change sees every key that was there throughout");
	change(w, 3000);
	ok_u64(count_wrong(w), 0, "writes go on");
}

static void test_old_side(struct world *w)
{
	struct kvs_table *table = &w->f.table;
	ok(!table->other_side_ready && !begin(w), "the old side waits for its readers");
	unsigned other = table->side ^ 1u;
	uint64_t chunk = w->f.region.segment_bytes;
	uint64_t left = table->populated[KVS_RANGE_TABLE_0 + other] +
			table->populated[KVS_RANGE_OVERFLOW_0 + other];
	uint64_t chunks = left / chunk;
	unsigned wrong = 0;
	ok(chunks > 1, "it has %" PRIu64 " chunks of memory", chunks);
	for (uint64_t i = 0; i < chunks / 2; i++) {
		uint64_t bytes = w->f.region.table_bytes;
		wrong += kvs_table_free_side_part(table, other, 1);
		wrong += bytes - w->f.region.table_bytes != chunk;
	}
	ok(wrong == 0 && !table->other_side_ready, "D: which can be given back one by one");
	while (fixture_reclaim(&w->f) > 0) {
	}
	ok(table->other_side_ready && table->populated[KVS_RANGE_TABLE_0 + other] == 0,
	   "then its memory is given back");
	ok_u64(w->f.region.table_bytes,
	       table->populated[KVS_RANGE_TABLE_0 + table->side] +
		       table->populated[KVS_RANGE_OVERFLOW_0 + table->side],
	       "G: and not counted any more");
}

static void test_abandoned(struct world *w)
{
	struct kvs_table *table = &w->f.table;
	uint64_t bytes = w->f.region.table_bytes;
	for (unsigned stage = 0; stage < 3; stage++) {
		ok(begin(w), "a rebuild begins");
		for (unsigned i = 0; i < 20u * stage; i++) {
			(void)kvs_table_reseed_step(table, 32);
		}
		kvs_table_reseed_abandon(table);
		ok(stage < 2 || !table->other_side_ready, "D: a large one is given back in parts");
		while (fixture_reclaim(&w->f) > 0) {
		}
		ok_u64(w->f.region.table_bytes, bytes, "G: given up, its memory is back");
		change(w, 100);
		ok_u64(count_wrong(w), 0, "A: and nothing has changed");
		bytes = w->f.region.table_bytes; // the table may have grown
	}
	ok(begin(w) && kvs_table_reseed_step(table, 16) == 0, "another one is under way");
	ok(kvs_table_switch_side(table, NULL, NULL) && !table->reseed.active,
	   "when a FLUSHALL takes its side");
	memset(w->shadow, 0, sizeof(w->shadow));
	ok_u64(count_wrong(w), 0, "nothing is left");
	change(w, 500);
	ok_u64(count_wrong(w), 0, "and it begins anew");
}

// Keys that meet in one bucket under the fixture's key, as who reads the region can make them.
static unsigned collide(struct world *w, unsigned wanted)
{
	struct kvs_table *table = &w->f.table;
	unsigned refused = 0;
	for (unsigned i = 0, found = 0; found < wanted; i++) {
		char key[16];
		(void)snprintf(key, sizeof(key), "c:%x", i);
		uint64_t hash = kvs_map_hash(&w->map, key, strlen(key));
		if (kvs_bucket_index(hash, table->buckets) != 5) {
			continue;
		}
		found++;
		if (!kvs_table_chain_has_room(table, hash)) {
			refused++;
		} else if (fixture_set(&w->f, key, strlen(key), "", 0) == 0) {
			printf("Bail out! no room\n");
			exit(99);
		}
	}
	return refused;
}

static void test_crowded(void)
{
	static struct world w;
	fixture_open(&w.f, MEMORY, SEGMENT);
	fixture_map_reader(&w.f, &w.map);
	w.random = 5;
	unsigned few = (KVS_CHAIN_BUCKETS_RESEED - 1) * KVS_BUCKET_ENTRIES;
	unsigned most = (KVS_CHAIN_BUCKETS_WRITE + 1) * KVS_BUCKET_ENTRIES;
	ok(collide(&w, few) == 0 && !w.f.table.crowded, "%u keys of one bucket", few);
	ok(collide(&w, most) == KVS_BUCKET_ENTRIES - 1 && w.f.table.crowded,
	   "H: of %u all but those beyond the bound find a place, and it is noticed", most);
	ok(begin(&w), "the table is rebuilt");
	while (kvs_table_reseed_step(&w.f.table, 1000) == 0) {
	}
	kvs_table_reseed_publish(&w.f.table);
	unsigned longest = 0;
	for (uint64_t i = 0; i < w.f.table.buckets; i++) {
		unsigned length = 0;
		const struct kvs_bucket *bucket = kvs_table_primary(&w.f.table, i);
		while ((bucket = kvs_table_next(&w.f.table, bucket)) != NULL) {
			length++;
		}
		longest = length > longest ? length : longest;
	}
	ok(longest <= 2 && !w.f.table.crowded, "H: and the longest chain has %u more", longest);
	close_world(&w);
}

// Whoever takes the region over in the middle of a rebuild, or right behind it.
static void test_adopted(struct world *w, bool published)
{
	struct fixture *f = &w->f;
	ok(begin(w), "a rebuild begins");
	while (kvs_table_reseed_step(&f->table, 64) == 0 &&
	       (published || f->table.reseed.copied < f->table.buckets / 2)) {
	}
	if (published) {
		kvs_table_reseed_publish(&f->table);
	}
	struct fixture_successor after;
	fixture_adopt(&after, f);
	struct kvs_table *table = &after.f.table;
	ok_u64(after.plan.keys, f->table.entries, "all keys are there");
	ok_u64(after.plan.clears_count, 0, "nothing is left over on the side that serves");
	ok_u64(count_wrong(w), 0, "A: readers read on");
	ok(!table->other_side_ready, "the other side waits");
	ok(fixture_adopt_reclaim(&after) > 0 && table->other_side_ready, "and is freed");
	const uint64_t hash_key[2] = { 3, 4 };
	ok(kvs_table_reseed_begin(table, hash_key), "another rebuild may begin");
	while (kvs_table_reseed_step(table, 64) == 0) {
	}
	kvs_table_reseed_publish(table);
	ok_u64(count_wrong(w), 0, "A: and ends well");
	fixture_adopt_close(&after);
}

int main(void)
{
	static struct world w;
	w.random = tap_seed(21);
	open_world(&w);
	for (unsigned i = 0; i < tap_rounds(3, 1); i++) {
		test_rebuild(&w);
		test_old_side(&w);
	}
	test_abandoned(&w);
	close_world(&w);
	test_crowded();
	for (unsigned i = 0; i < 2; i++) {
		const char *emulated = getenv("KVD_TEST_EMULATED");
		if (emulated != NULL && strcmp(emulated, "valgrind") != 0) {
			tap_skip("who adopts asks the file what is populated: nothing is here");
			continue;
		}
		open_world(&w);
		test_adopted(&w, i == 1);
		close_world(&w);
	}
	return tap_done();
}
