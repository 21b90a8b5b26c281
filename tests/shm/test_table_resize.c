// SPDX-License-Identifier: MIT
//
// shm/table_resize.c: growth and shrinkage keep every key, at each labelled step as well as at the
// end, and turns of direction are counted. What happens between two stores is
// tests/shm/step_growth.c.
#include "shm/table_internal.h"

#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (16u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define KEYS 20000u

static uint64_t shadow[KEYS];
static uint64_t hashes[KEYS];

struct watch {
	struct fixture *f;
	struct kvs_map map; // a reader's
	unsigned missed;
	unsigned steps[6];
};

static void key_of(unsigned i, char key[16])
{
	(void)snprintf(key, 16, "key:%u", i);
}

static bool as_expected(const struct kvs_map *map, unsigned i)
{
	char key[16];
	struct kvs_hit hit;
	key_of(i, key);
	enum kvs_find_result result = fixture_find(map, key, strlen(key), &hit);
	return shadow[i] == 0 ? result == KVS_FIND_ABSENT
			      : result == KVS_FIND_HIT && hit.view.seq == shadow[i];
}

// Looks from inside a split, merge or compaction: only keys of the two chains concerned can suffer.
static void on_step(void *context, enum kvs_table_step step)
{
	struct watch *w = context;
	w->steps[step]++;
	uint64_t buckets = w->f->table.buckets;
	bool counted = step != KVS_TABLE_SPLIT_FILLED && step != KVS_TABLE_MERGE_PUBLISHED;
	uint64_t moving = counted ? buckets - 1 : buckets;
	uint64_t mask = (UINT64_C(1) << (63 - __builtin_clzll(moving))) - 1;
	(void)kvs_map_extend(&w->map);
	for (unsigned i = 0; i < KEYS; i++) {
		if (((hashes[i] ^ moving) & mask) == 0 && shadow[i] != 0) {
			w->missed += !as_expected(&w->map, i);
		}
	}
}

static unsigned check_all(struct watch *w)
{
	unsigned wrong = 0;
	(void)kvs_map_extend(&w->map);
	for (unsigned i = 0; i < KEYS; i++) {
		wrong += !as_expected(&w->map, i);
	}
	return wrong;
}

static void fill(struct fixture *f, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		char key[16];
		key_of(i, key);
		shadow[i] = 0; // not looked at from inside its own write
		shadow[i] = fixture_set(f, key, strlen(key), "value", 5);
	}
}

static void empty(struct fixture *f, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		char key[16];
		key_of(i, key);
		shadow[i] = 0;
		(void)fixture_remove(f, key, strlen(key));
		if (i % 100 == 0) {
			(void)fixture_reclaim(f);
		}
	}
}

static void test_grow_and_shrink(struct watch *w)
{
	struct fixture *f = w->f;
	uint64_t smallest = f->table.buckets, turns;
	fill(f, 0, KEYS);
	ok(f->table.buckets > KEYS / 8 && f->table.splits > 0,
	   "the table grew to %" PRIu64 " buckets", f->table.buckets);
	ok_u64(check_all(w), 0, "A: every key is found after growing");
	turns = f->table.turns;

	// While its bucket moves a key may be looked up at the labelled steps only: thin out the
	// watching.
	f->table.step_hook = on_step;
	f->table.step_context = w;
	fill(f, 0, 50);
	empty(f, 50, KEYS / 2);
	f->table.step_hook = NULL;
	empty(f, KEYS / 2, KEYS - 50);
	for (unsigned i = 0; i < 20000; i++) {
		(void)kvs_table_step(&f->table);
	}
	ok_u64(f->table.buckets, smallest, "it shrank to its smallest size");
	ok_u64(check_all(w), 0, "A: what is left is found, what is gone is not");
	ok(f->table.turns > turns, "shrinking is a turn");
	empty(f, 0, KEYS);
	(void)fixture_reclaim(f);
	ok_u64(f->table.overflow[0].used_count + f->limbo.count, 0,
	       "no overflow bucket is left over");
}

static void test_steps(struct watch *w)
{
	struct fixture *f = w->f;
	f->table.step_hook = on_step;
	f->table.step_context = w;
	fill(f, 0, 6000);
	for (unsigned i = 0; i < 100; i++) {
		(void)kvs_table_step(&f->table);
	}
	empty(f, 100, 6000);
	for (unsigned i = 0; i < 5000; i++) {
		(void)kvs_table_step(&f->table);
	}
	f->table.step_hook = NULL;
	unsigned rarely = 0;
	for (unsigned i = 0; i < 6; i++) {
		tap_diag("step %u: %u times", i, w->steps[i]);
		rarely += w->steps[i] < 20;
	}
	ok_u64(rarely, 0, "all six steps were watched");
	ok_u64(w->missed, 0, "A: no key of the moving chain was missed at any of them");
}

static void test_bound(void)
{
	struct fixture f;
	fixture_open(&f, KVS_MEMORY_BYTES_MIN, SEGMENT);
	f.step_after_write = true;
	unsigned count = 0;
	char key[16];
	for (; count < 1000000; count++) {
		key_of(count, key);
		if (fixture_set(&f, key, strlen(key), "", 0) == 0) {
			break;
		}
	}
	ok(count > 1000 && count < 1000000, "a full region refuses, after %u keys", count);
	struct kvs_hit hit;
	unsigned lost = 0;
	for (unsigned i = 0; i < count; i++) {
		key_of(i, key);
		lost += fixture_find(&f.region.map, key, strlen(key), &hit) != KVS_FIND_HIT;
	}
	ok_u64(lost, 0, "G: and keeps what it has");
	ok(f.region.table_bytes + ((uint64_t)f.log.full_count * SEGMENT) <= KVS_MEMORY_BYTES_MIN,
	   "G: table and segments stay within the bound");
	fixture_close(&f);
}

static unsigned chain_length(const struct kvs_table *table, uint64_t index)
{
	unsigned buckets = 1;
	const struct kvs_bucket *bucket = kvs_table_primary(table, index);
	while ((bucket = kvs_table_next(table, bucket)) != NULL) {
		buckets++;
	}
	return buckets;
}

// Who knows the seed makes keys collide. Two chains that a writer may make are not merged to one
// that a reader would call damage.
static void test_colliding(void)
{
	struct fixture f;
	fixture_open(&f, MEMORY, SEGMENT);
	f.step_after_write = true;
	fill(&f, 0, 12000);
	f.step_after_write = false;
	uint64_t entry = kvs_load_relaxed(&kvs_table_primary(&f.table, 0)->entry[0]);
	empty(&f, 0, 12000);
	const uint64_t small = 2048;
	const uint64_t base = 399;
	uint64_t last = base + small;
	ok(f.table.buckets > last && f.table.buckets < 2 * small && entry != 0,
	   "%" PRIu64 " buckets", f.table.buckets);
	unsigned inserted = 0;
	while (inserted < KVS_CHAIN_BUCKETS_WRITE * KVS_BUCKET_ENTRIES + 66) {
		uint64_t index = inserted < KVS_CHAIN_BUCKETS_WRITE * 4 ? base : last;
		inserted += kvs_table_insert(&f.table, index, entry);
	}
	while (kvs_table_step(&f.table)) {
	}
	ok_u64(f.table.buckets, last + 1, "%u colliding entries: shrinking stops at the second",
	       inserted);
	ok(chain_length(&f.table, base) <= KVS_CHAIN_BUCKETS_WRITE &&
		   chain_length(&f.table, base) > KVS_CHAIN_BUCKETS_WRITE / 2,
	   "H: no chain is longer than a write may make it");
	while (chain_length(&f.table, last) > 1) {
		kvs_table_remove(&f.table, last,
				 kvs_table_slot_of(&f.table, last, kvs_entry_offset(entry)));
	}
	while (kvs_table_step(&f.table)) {
	}
	ok(f.table.buckets < last, "and goes on when there are fewer");
	ok(chain_length(&f.table, base) <= KVS_CHAIN_BUCKETS_WRITE + 1,
	   "H: as long as that at most");
	fixture_close(&f);
}

int main(void)
{
	struct fixture f;
	struct watch w = { .f = &f };
	(void)tap_seed(10);
	fixture_open(&f, MEMORY, SEGMENT);
	fixture_map_reader(&f, &w.map);
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];
		key_of(i, key);
		hashes[i] = kvs_map_hash(&w.map, key, strlen(key));
	}
	f.step_after_write = true;
	test_grow_and_shrink(&w);
	test_steps(&w);
	kvs_map_close(&w.map);
	fixture_close(&f);
	test_bound();
	test_colliding();
	return tap_done();
}
