// SPDX-License-Identifier: MIT
//
// shm/table_quick.h: what the quick way answers is what kvs_table_find() would, and it has no
// answer where it must not have one: with nothing worked out, under another root, for records that
// reach beyond what is mapped, whatever they say of themselves.
#include "shm/table_quick.h"

#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN

static bool quick(const struct kvs_map *map, const struct kvs_quick_aim *aim, const char *key,
		  struct kvs_quick *out)
{
	uint64_t hash = kvs_hash(aim->hash_seed, key, strlen(key));
	return kvs_table_quick(&kvs_map_header(map)->hot, aim, hash, key, strlen(key), false, out);
}

static bool aimed_at_nothing(const struct kvs_map *map, const struct kvs_quick_aim *aim)
{
	struct kvs_quick out;
	return aim->root == 0 && !quick(map, aim, "some key", &out);
}

static void test_answers(struct fixture *f, struct kvs_map *map)
{
	struct kvs_quick_aim aim;
	struct kvs_quick out;
	kvs_quick_aim_clear(&aim);
	ok(aimed_at_nothing(map, &aim), "nothing worked out: no answer");
	uint64_t seq = fixture_set(f, "some key", 8, "value", 5);
	ok(kvs_quick_aim(map, &aim), "the root is worked out");
	ok(quick(map, &aim, "some key", &out) && out.seq == seq && out.value_bytes == 5 &&
		   memcmp(out.value, "value", 5) == 0 && out.expiry_ms == 0,
	   "A: a published key is found");
	ok(!quick(map, &aim, "some kez", &out), "another is not");
	uint64_t *root = &f->region.header->hot.table_root, saved = *root;
	*root = kvs_root_make(kvs_root_turns(saved) + 1, 0, kvs_root_buckets(saved));
	ok(!quick(map, &aim, "some key", &out), "A: under another root there is no answer");
	*root = kvs_root_make(0, 0, 0);
	ok(!kvs_quick_aim(map, &aim) && aimed_at_nothing(map, &aim),
	   "H: a root without buckets is not worked out");
	*root = kvs_root_make(0, 0, UINT64_C(1) << 33);
	ok(!kvs_quick_aim(map, &aim) && aimed_at_nothing(map, &aim),
	   "H: nor is one of buckets that are not mapped");
	*root = saved;
	uint64_t ready = map->ready[KVS_RANGE_LOG];
	map->ready[KVS_RANGE_LOG] = 0;
	ok(!kvs_quick_aim(map, &aim) && aimed_at_nothing(map, &aim),
	   "nor is anything while no log is mapped");
	map->ready[KVS_RANGE_LOG] = ready;
	map->hash_kind = KVS_HASH_SIPHASH;
	ok(!kvs_quick_aim(map, &aim) && aimed_at_nothing(map, &aim),
	   "nor where keys are hashed in another way");
	map->hash_kind = KVS_HASH_XXH3;
	ok(kvs_quick_aim(map, &aim) && quick(map, &aim, "some key", &out), "then it is again");
}

// Keys under whose hash another key's record is found, which is like them but for one byte.
static void test_alike(struct fixture *f, const struct kvs_map *map)
{
	static const char key[] = "alike 00aaaaaaaa";
	static const char *const others[] = { "alike 00aaaaaaab", "blike 00aaaaaaaa" };
	struct kvs_quick_aim aim;
	struct kvs_quick out;
	struct kvs_hit hit;
	(void)fixture_set(f, key, 16, "value", 5);
	ok(kvs_quick_aim(map, &aim) && quick(map, &aim, key, &out) &&
		   fixture_find(map, key, 16, &hit) == KVS_FIND_HIT,
	   "one of keys that are alike");
	for (unsigned i = 0; i < 2; i++) {
		const char *other = others[i];
		uint64_t hash = kvs_hash(aim.hash_seed, other, 16);
		struct kvs_hit none;
		kvs_table_insert(&f->table, hash,
				 kvs_entry_make(hash, KVS_ENTRY_VALUE, hit.view.record_bytes,
						kvs_entry_offset(hit.entry)));
		ok(kvs_quick_aim(map, &aim) && !quick(map, &aim, other, &out) &&
			   !kvs_table_quick(&kvs_map_header(map)->hot, &aim, hash, other, 16, true,
					    &out) &&
			   fixture_find(map, other, 16, &none) == KVS_FIND_ABSENT,
		   "A: is not taken for %s, in none of the ways", other);
	}
}

// Headers in the last bytes that are mapped, written by hand: what they promise is not there.
static void test_edge(struct fixture *f, const struct kvs_map *map)
{
	static const struct {
		const char *what;
		uint64_t flags;
		uint64_t key_bytes;
		uint32_t value_bytes;
	} rows[] = {
		{ "an expiry", KVS_RECORD_EXPIRY, 0, 0 },
		{ "a key", 0, 8, 0 },
		{ "a value", 0, 0, 1 },
		{ "the longest value", 0, 8, UINT32_MAX },
		{ "an expiry, a key and a value", KVS_RECORD_EXPIRY, 8, 100 },
	};
	struct kvs_quick_aim aim;
	struct kvs_quick out;
	uint64_t at = map->ranges[KVS_RANGE_LOG].offset + map->ready[KVS_RANGE_LOG] -
		      sizeof(struct kvs_record);
	struct kvs_record *record = (struct kvs_record *)(void *)(f->region.base + at);
	ok(kvs_quick_aim(map, &aim), "the root is worked out");
	uint64_t hash = kvs_hash(aim.hash_seed, "last key", 8);
	kvs_table_insert(&f->table, hash, kvs_entry_make(hash, KVS_ENTRY_VALUE, 64, at));
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		record->seq_flags = rows[i].flags << KVS_SEQ_BITS | 1;
		record->time_key = rows[i].key_bytes << KVS_TIME_BITS;
		record->value_bytes = rows[i].value_bytes;
		ok(!quick(map, &aim, "last key", &out), "H: %s beyond what is mapped: no answer",
		   rows[i].what);
	}
}

int main(void)
{
	struct fixture f;
	struct kvs_map map;
	fixture_open(&f, MEMORY, SEGMENT);
	fixture_map_reader(&f, &map);
	test_answers(&f, &map);
	test_alike(&f, &map);
	test_edge(&f, &map);
	kvs_map_close(&map);
	fixture_close(&f);
	return tap_done();
}
