// SPDX-License-Identifier: MIT
//
// shm/table_write.c: entries and chains under random inserts, replacements and removals, compared
// with a shadow; overflow buckets come and go, and none is used again while a reader may stand in
// it.
#include "shm/table_write.h"

#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (8u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define COLLIDING 100u

static char colliding[COLLIDING][16];

// Keys that share one bucket of the smallest table.
static void make_colliding(const struct fixture *f)
{
	unsigned found = 0;
	for (unsigned i = 0; found < COLLIDING; i++) {
		char key[16];
		(void)snprintf(key, sizeof(key), "c%u", i);
		uint64_t hash = kvs_map_hash(&f->region.map, key, strlen(key));
		if (kvs_bucket_index(hash, f->table.buckets) == 17) {
			memcpy(colliding[found++], key, sizeof(key));
		}
	}
}

static unsigned missing(const struct kvs_map *map, const uint64_t *shadow)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < COLLIDING; i++) {
		struct kvs_hit hit;
		enum kvs_find_result result =
			fixture_find(map, colliding[i], strlen(colliding[i]), &hit);
		uint64_t seq = result == KVS_FIND_HIT ? hit.view.seq : 0;
		wrong += seq != shadow[i] || (result != KVS_FIND_HIT && result != KVS_FIND_ABSENT);
	}
	return wrong;
}

static void test_one_chain(struct fixture *f, uint64_t *random)
{
	uint64_t shadow[COLLIDING] = { 0 };
	unsigned wrong = 0, most = 0;
	for (unsigned round = 0; round < 6000; round++) {
		// Waves: mostly inserts, then mostly removals.
		bool insert = tap_random(random) % 8 < (round / 500 % 2 ? 2u : 6u);
		unsigned i = (unsigned)(tap_random(random) % COLLIDING);
		if (insert) {
			shadow[i] = fixture_set(f, colliding[i], strlen(colliding[i]), "v", 1);
			wrong += shadow[i] == 0;
		} else {
			bool there = shadow[i] != 0;
			wrong += fixture_remove(f, colliding[i], strlen(colliding[i])) != there;
			shadow[i] = 0;
		}
		most = f->table.overflow[0].used_count > most ? f->table.overflow[0].used_count
							      : most;
		if (round % 10 == 0) {
			wrong += missing(&f->region.map, shadow);
			(void)fixture_reclaim(f);
		}
	}
	ok_u64(wrong, 0, "A: a chain of overflow buckets holds exactly what was put there");
	ok(most >= 10, "chains grew long (%u overflow buckets)", most);
	for (unsigned i = 0; i < COLLIDING; i++) {
		(void)fixture_remove(f, colliding[i], strlen(colliding[i]));
	}
	(void)fixture_reclaim(f);
	ok_u64(f->table.entries, 0, "nothing is left");
	ok_u64(f->table.overflow[0].used_count, 0, "every overflow bucket came back");
	ok_u64(f->limbo.count, 0, "limbo is empty");
}

static void test_grace_period(struct fixture *f)
{
	for (unsigned i = 0; i < 21; i++) {
		fixture_set(f, colliding[i], strlen(colliding[i]), "v", 1);
	}
	uint32_t used = f->table.overflow[0].used_count;
	ok_u64(used, 2, "21 keys of one bucket take two overflow buckets");
	struct kvs_slot *slot = &f->page->slot[0];
	kvs_epoch_enter(slot, &f->region.header->hot, f->epochs.fenced);
	for (unsigned i = 7; i < 14; i++) {
		fixture_remove(f, colliding[i], strlen(colliding[i]));
	}
	(void)fixture_reclaim(f);
	(void)fixture_reclaim(f);
	ok_u64(f->table.overflow[0].used_count, used,
	       "B: unlinked but not free while a reader is inside");
	struct kvs_hit hit;
	ok(fixture_find(&f->region.map, colliding[20], strlen(colliding[20]), &hit) == KVS_FIND_HIT,
	   "A: what stood behind it is found");
	ok(kvs_epoch_leave(slot, &f->region.header->hot), "the reader was not revoked");
	(void)fixture_reclaim(f);
	ok_u64(f->table.overflow[0].used_count, used - 1, "B: free once the reader has left");
	for (unsigned i = 0; i < 21; i++) {
		fixture_remove(f, colliding[i], strlen(colliding[i]));
	}
	(void)fixture_reclaim(f);
}

static void test_slot_of(struct fixture *f)
{
	fixture_set(f, "slot", 4, "v", 1);
	uint64_t hash = kvs_map_hash(&f->region.map, "slot", 4);
	struct kvs_hit hit;
	ok(fixture_find(&f->region.map, "slot", 4, &hit) == KVS_FIND_HIT, "find");
	ok(kvs_table_slot_of(&f->table, hash, kvs_entry_offset(hit.entry)) == hit.slot,
	   "the slot of a location is where find saw it");
	ok(kvs_table_slot_of(&f->table, hash, kvs_entry_offset(hit.entry) + 8) == NULL,
	   "a record that no entry names has no slot");
	fixture_remove(f, "slot", 4);
}

static void test_flush(struct fixture *f)
{
	fixture_set(f, "before", 6, "v", 1);
	struct kvs_slot *slot = &f->page->slot[0];
	struct kvs_hit hit;
	kvs_epoch_enter(slot, &f->region.header->hot, f->epochs.fenced);
	ok(kvs_table_switch_side(&f->table, NULL, NULL), "switch side");
	ok(fixture_find(&f->region.map, "before", 6, &hit) == KVS_FIND_ABSENT,
	   "A: all keys are gone");
	ok(fixture_set(f, "after", 5, "v", 1) != 0 &&
		   fixture_find(&f->region.map, "after", 5, &hit) == KVS_FIND_HIT,
	   "new keys go to the other side");
	(void)fixture_reclaim(f);
	ok(!kvs_table_switch_side(&f->table, NULL, NULL),
	   "B: no second switch while a reader may be on the old side");
	kvs_epoch_leave(slot, &f->region.header->hot);
	(void)fixture_reclaim(f);
	ok(kvs_table_switch_side(&f->table, NULL, NULL), "after it left, the side is free again");
	ok(fixture_find(&f->region.map, "before", 6, &hit) == KVS_FIND_ABSENT &&
		   fixture_find(&f->region.map, "after", 5, &hit) == KVS_FIND_ABSENT,
	   "A: and empty, nothing came back");
	(void)fixture_reclaim(f);
	fixture_set(f, "x", 1, "v", 1);
	kvs_table_clear(&f->table, NULL, NULL);
	ok(fixture_find(&f->region.map, "x", 1, &hit) == KVS_FIND_ABSENT && f->table.entries == 0,
	   "clearing in place empties it too");
}

int main(void)
{
	uint64_t random = tap_seed(9);
	struct fixture f;
	fixture_open(&f, MEMORY, SEGMENT);
	make_colliding(&f);
	test_one_chain(&f, &random);
	test_grace_period(&f);
	test_slot_of(&f);
	test_flush(&f);
	fixture_close(&f);
	return tap_done();
}
