// SPDX-License-Identifier: MIT
//
// shm/table_find.c: hits, misses and tombstones through a client's own map; the bounds on
// everything that is loaded; and regions that contradict themselves, which give an answer and never
// a crash or a loop.
#include "shm/table.h"

#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN

static void test_answers(struct fixture *f, const struct kvs_map *map)
{
	struct kvs_hit hit;
	ok(fixture_find(map, "a", 1, &hit) == KVS_FIND_ABSENT, "an empty table has nothing");
	uint64_t seq = fixture_set(f, "a", 1, "one", 3);
	ok(fixture_find(map, "a", 1, &hit) == KVS_FIND_HIT, "A: a published key is found");
	ok(hit.kind == KVS_ENTRY_VALUE && hit.view.seq == seq && hit.view.value_bytes == 3 &&
		   memcmp(hit.value, "one", 3) == 0,
	   "with kind, seq and value");
	ok(hit.view.key_bytes == 1 && hit.view.key[0] == 'a' && kvs_record_crc_ok(&hit.view),
	   "its record says the key and has a right crc");
	ok(fixture_find(map, "b", 1, &hit) == KVS_FIND_ABSENT, "another key is absent");
	ok(fixture_find(map, "aa", 2, &hit) == KVS_FIND_ABSENT, "a longer key is another key");
	fixture_set(f, "a", 1, "", 0);
	ok(fixture_find(map, "a", 1, &hit) == KVS_FIND_HIT && hit.view.value_bytes == 0 &&
		   hit.value != NULL,
	   "A: replaced by an empty value, which is a value");
	ok(hit.view.seq > seq, "with a later seq");
	unsigned char key[KVS_KEY_BYTES_MAX];
	memset(key, 0xee, sizeof(key));
	fixture_set(f, key, sizeof(key), "long", 4);
	ok(fixture_find(map, key, sizeof(key), &hit) == KVS_FIND_HIT, "the longest key");
	ok(fixture_find(map, key, sizeof(key) - 1, &hit) == KVS_FIND_ABSENT,
	   "not a byte less of it");
	ok(fixture_remove(f, "a", 1) && fixture_find(map, "a", 1, &hit) == KVS_FIND_ABSENT,
	   "A: a removed key is gone");
	kvs_table_prefetch_bucket(map, 12345);
	kvs_table_prefetch_record(map, kvs_map_hash(map, key, sizeof(key)));
	uint64_t root = f->region.header->hot.table_root;
	f->region.header->hot.table_root = kvs_root_make(kvs_root_turns(root) + 1, 0, 0);
	kvs_table_prefetch_bucket(map, 12345);
	kvs_table_prefetch_record(map, 12345);
	ok(fixture_find(map, key, sizeof(key), &hit) != KVS_FIND_HIT,
	   "H: under a root without buckets nothing is found, or asked for beforehand");
	f->region.header->hot.table_root = root;
}

// Publishes a hand-made record under the key's hash.
static void put_special(struct fixture *f, const char *key, uint16_t flags,
			enum kvs_entry_kind kind, const void *payload, uint32_t payload_bytes,
			uint32_t value_bytes)
{
	struct kvs_record_spec spec = { .key = key,
					.key_bytes = (uint32_t)strlen(key),
					.payload = payload,
					.payload_bytes = payload_bytes,
					.value_bytes = value_bytes,
					.seq = f->log.next_seq,
					.flags = flags };
	uint64_t offset;
	uint64_t bytes = kvs_record_bytes(spec.key_bytes, payload_bytes, 0);
	void *at = kvs_log_append(&f->log, (uint32_t)bytes, &offset);
	kvs_record_write(at, &spec);
	uint64_t hash = kvs_map_hash(&f->region.map, key, strlen(key));
	kvs_table_insert(&f->table, hash, kvs_entry_make(hash, kind, bytes, offset));
}

static void test_kinds(struct fixture *f, struct kvs_map *map)
{
	struct kvs_hit hit;
	put_special(f, "tomb", KVS_RECORD_TOMBSTONE, KVS_ENTRY_TOMBSTONE, NULL, 0, 0);
	ok(fixture_find(map, "tomb", 4, &hit) == KVS_FIND_HIT && hit.kind == KVS_ENTRY_TOMBSTONE,
	   "a tombstone is a hit of that kind");
	put_special(f, "stub", KVS_RECORD_STUB, KVS_ENTRY_STUB, NULL, 0, 1000);
	ok(fixture_find(map, "stub", 4, &hit) == KVS_FIND_HIT && hit.kind == KVS_ENTRY_STUB &&
		   hit.value == NULL && hit.view.value_bytes == 1000,
	   "a stub says how long its value is and has none");
	uint64_t large;
	ok(kvs_large_take(&f->large, 100000, &large) == 0, "take a large run");
	memset(f->region.base + large, 'L', 100000);
	struct kvs_run run = { .offset = large, .crc = 1 };
	put_special(f, "large", KVS_RECORD_LARGE, KVS_ENTRY_LARGE, &run, sizeof(run), 100000);
	ok(fixture_find(map, "large", 5, &hit) == KVS_FIND_UNMAPPED,
	   "a run published since asks for extending the map");
	ok_int(kvs_map_extend(map), 0, "extend");
	ok(fixture_find(map, "large", 5, &hit) == KVS_FIND_HIT && hit.kind == KVS_ENTRY_LARGE &&
		   hit.value == map->base + large && hit.value[99999] == 'L',
	   "then the large value is read in place");

	static const struct {
		const char *what;
		uint64_t offset;
		uint32_t bytes;
	} wild[] = {
		{ "before the range", 8, 100 },
		{ "at the end of the address space", UINT64_MAX - 8, 100 },
		{ "beyond the range", UINT64_C(1) << 42, 100 },
		{ "longer than the range", 0, KVS_VALUE_BYTES_MAX },
	};
	for (unsigned i = 0; i < 4; i++) {
		char key[16];
		(void)snprintf(key, sizeof(key), "wild%u", i);
		run.offset = wild[i].offset ? wild[i].offset : map->ranges[KVS_RANGE_LARGE].offset;
		put_special(f, key, KVS_RECORD_LARGE, KVS_ENTRY_LARGE, &run, sizeof(run),
			    wild[i].bytes);
		ok(fixture_find(map, key, strlen(key), &hit) == KVS_FIND_DAMAGED, "run %s: damaged",
		   wild[i].what);
	}
}

// Puts an entry for `key` whose location is wild, and looks it up.
static enum kvs_find_result find_wild(struct fixture *f, const struct kvs_map *map, const char *key,
				      uint64_t offset)
{
	struct kvs_hit hit;
	uint64_t hash = kvs_map_hash(&f->region.map, key, strlen(key));
	kvs_table_insert(&f->table, hash, kvs_entry_make(hash, KVS_ENTRY_VALUE, 64, offset));
	return fixture_find(map, key, strlen(key), &hit);
}

static void test_wild_entries(struct fixture *f, const struct kvs_map *map)
{
	const struct kvs_range_bounds *log = &map->ranges[KVS_RANGE_LOG];
	uint64_t ready = kvs_load_relaxed(&map->ready[KVS_RANGE_LOG]);
	ok(find_wild(f, map, "w1", 8) == KVS_FIND_DAMAGED, "entry into the header: damaged");
	ok(find_wild(f, map, "w2", log->offset - 8) == KVS_FIND_DAMAGED, "before the log: damaged");
	ok(find_wild(f, map, "w3", log->offset + ready) == KVS_FIND_UNMAPPED,
	   "not yet mapped: said so");
	ok(find_wild(f, map, "w4", log->offset + log->bytes_max) == KVS_FIND_DAMAGED,
	   "behind the log: damaged");
	ok(find_wild(f, map, "w5", KVS_ENTRY_LOCATION_MASK * 8) == KVS_FIND_DAMAGED,
	   "the last location of all: damaged");
	ok(find_wild(f, map, "w6", log->offset + ready - 8) == KVS_FIND_DAMAGED,
	   "no room for a header before the segment's end: damaged");
	ok(find_wild(f, map, "w7", log->offset + ready - 64) == KVS_FIND_DAMAGED,
	   "zeroes where a record should be: damaged");
}

static void test_chains(struct fixture *f, const struct kvs_map *map)
{
	struct kvs_hit hit;
	uint64_t hash = kvs_map_hash(map, "chain", 5);
	uint64_t index = kvs_bucket_index(hash, f->table.buckets);
	unsigned char *base = f->region.base;
	struct kvs_bucket *bucket =
		(struct kvs_bucket *)(void *)(base + map->ranges[KVS_RANGE_TABLE_0].offset) + index;
	ok(kvs_table_secure(&f->table, 1) == 0 && kvs_map_extend(&f->region.map) == 0,
	   "overflow buckets exist");
	struct kvs_map fresh;
	fixture_map_reader(f, &fresh);
	struct kvs_bucket *overflow =
		(struct kvs_bucket *)(void *)(base + map->ranges[KVS_RANGE_OVERFLOW_0].offset);
	uint64_t saved = bucket->overflow;
	bucket->overflow = 1;
	uint64_t saved_overflow = overflow[0].overflow;
	overflow[0].overflow = 1;
	ok(fixture_find(&fresh, "chain", 5, &hit) == KVS_FIND_DAMAGED,
	   "a chain that links to itself ends as damaged");
	bucket->overflow = UINT64_MAX;
	ok(fixture_find(&fresh, "chain", 5, &hit) == KVS_FIND_UNMAPPED,
	   "a link beyond what is mapped is not followed");
	bucket->overflow = saved;
	overflow[0].overflow = saved_overflow;

	uint64_t *root = &f->region.header->hot.table_root;
	uint64_t saved_root = *root;
	*root = 0;
	ok(fixture_find(&fresh, "chain", 5, &hit) == KVS_FIND_DAMAGED,
	   "a root of no buckets: damaged");
	*root = UINT64_MAX;
	enum kvs_find_result result = fixture_find(&fresh, "chain", 5, &hit);
	ok(result == KVS_FIND_UNMAPPED, "a root of all ones: unmapped");
	*root = kvs_root_make(0, 1, 1024);
	ok(fixture_find(&fresh, "chain", 5, &hit) == KVS_FIND_UNMAPPED,
	   "a side that does not exist");
	*root = saved_root;
	kvs_map_close(&fresh);
}

// Linked in front of libc's: between two looks into a chain the writer publishes another root.
int __real_memcmp(const void *a, const void *b, size_t bytes);
int __wrap_memcmp(const void *a, const void *b, size_t bytes);
static uint64_t *moving_root;
static unsigned moves;
static bool moves_to_nothing; // to a root without buckets

int __wrap_memcmp(const void *a, const void *b, size_t bytes)
{
	if (moving_root != NULL && moves > 0) {
		moves--;
		uint64_t root = *moving_root, turns = kvs_root_turns(root) + !moves_to_nothing;
		uint64_t buckets = moves_to_nothing ? 0 : kvs_root_buckets(root);
		*moving_root = kvs_root_make(turns, kvs_root_side(root), buckets);
	}
	return __real_memcmp(a, b, bytes);
}

// A miss is believed when the table stood still meanwhile, and looked for so often at most.
static void test_moving(struct fixture *f, const struct kvs_map *map)
{
	struct kvs_hit hit;
	// An entry with the tag of "away", so that its chain has a key to be compared.
	uint64_t hash = kvs_map_hash(map, "away", 4);
	fixture_set(f, "here", 4, "v", 1);
	ok(fixture_find(map, "here", 4, &hit) == KVS_FIND_HIT, "one key is there");
	kvs_table_insert(&f->table, hash,
			 kvs_entry_make(hash, KVS_ENTRY_VALUE, 64, kvs_entry_offset(hit.entry)));
	uint64_t *root = &f->region.header->hot.table_root, saved = *root;
	moving_root = root;
	moves = KVS_FIND_RETRIES_MAX - 1;
	ok(fixture_find(map, "away", 4, &hit) == KVS_FIND_ABSENT && moves == 0,
	   "A: a miss is looked for again as long as the table moves");
	moves = KVS_FIND_RETRIES_MAX;
	ok(fixture_find(map, "away", 4, &hit) == KVS_FIND_MOVING && moves == 0,
	   "D: but not for ever");
	*root = saved;
	moves_to_nothing = true;
	moves = 1;
	ok(fixture_find(map, "away", 4, &hit) == KVS_FIND_DAMAGED && moves == 0,
	   "H: a table that loses all its buckets meanwhile is damaged");
	moving_root = NULL;
	*root = saved;
	ok(fixture_find(map, "away", 4, &hit) == KVS_FIND_ABSENT, "and not by the next search");
}

static void ignore_entry(void *context, uint64_t entry)
{
	struct kvs_hit hit;
	(void)kvs_table_load(context, entry, &hit);
}

// Random words all over the table, the overflow buckets, the log and the root: any answer, no
// crash.
static void test_random_damage(struct fixture *f, uint64_t *random)
{
	struct kvs_map map;
	fixture_map_reader(f, &map);
	static const int targets[] = { KVS_RANGE_TABLE_0, KVS_RANGE_OVERFLOW_0, KVS_RANGE_LOG };
	unsigned results[5] = { 0 };
	for (unsigned round = 0; round < 300; round++) {
		for (unsigned poke = 0; poke < 2000; poke++) {
			int range = targets[tap_random(random) % 3];
			uint64_t at = tap_random(random) % (map.ready[range] / 8) * 8;
			uint64_t word = tap_random(random) >> tap_random(random) % 64;
			memcpy(f->region.base + map.ranges[range].offset + at, &word, 8);
		}
		if (round % 3 == 2) {
			f->region.header->hot.table_root =
				kvs_root_make(0, 0, 1 + tap_random(random) % 2000);
		}
		for (unsigned i = 0; i < 300; i++) {
			char key[16];
			struct kvs_hit hit;
			(void)snprintf(key, sizeof(key), "%u", i);
			enum kvs_find_result result = fixture_find(&map, key, strlen(key), &hit);
			if (result == KVS_FIND_HIT && hit.value != NULL) {
				(void)kvs_record_crc_ok(&hit.view);
			}
			results[result]++;
			kvs_table_prefetch_record(&map, tap_random(random));
		}
		uint64_t cursor = tap_random(random);
		for (unsigned i = 0; i < 20; i++) {
			cursor = kvs_table_scan(&map, cursor, ignore_entry, &map);
		}
	}
	ok(true, "random damage is survived: %u hit, %u absent, %u unmapped, %u moving, %u damaged",
	   results[0], results[1], results[2], results[3], results[4]);
	kvs_map_close(&map);
}

int main(void)
{
	uint64_t random = tap_seed(8);
	struct fixture f;
	struct kvs_map map;
	fixture_open(&f, MEMORY, SEGMENT);
	fixture_map_reader(&f, &map);
	test_answers(&f, &map);
	test_kinds(&f, &map);
	test_wild_entries(&f, &map);
	test_chains(&f, &map);
	test_moving(&f, &map);
	kvs_map_close(&map);
	test_random_damage(&f, &random);
	fixture_close(&f);
	return tap_done();
}
