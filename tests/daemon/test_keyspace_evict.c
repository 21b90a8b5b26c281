// SPDX-License-Identifier: MIT
//
// What goes when memory is full: the same gets and sets through a keyspace and through an S3-FIFO
// and an LRU of as many bytes that know everything, hits counted; and what must never go.
#include "tests/daemon/evict_models.h"
#include "tests/daemon/keyspace_fixture.h"

#define KEYS 300000u // ten times what the memory holds
#define VALUE_BYTES 200u
#define GETS_USUAL 400000u

static const struct keyspace_eviction allkeys = { .on = true };

struct told {
	uint64_t evicted;
	uint64_t protected;
};

static void hear(void *context, enum keyspace_end why, const void *key, size_t key_bytes)
{
	struct told *told = context;
	told->evicted += why == KEYSPACE_END_EVICTED;
	told->protected +=
		why == KEYSPACE_END_EVICTED && key_bytes > 4 && memcmp(key, "keep", 4) == 0;
}

// Millions of times: snprintf() would be half of it all.
static size_t name_of(char name[32], const char *prefix, unsigned key)
{
	size_t bytes = strlen(prefix);
	memcpy(name, prefix, bytes);
	for (unsigned i = 0; i < 8; i++) {
		name[bytes++] = "0123456789abcdef"[key >> (28 - 4 * i) & 15];
	}
	return bytes;
}

static int set_named(struct fixture *f, const char *prefix, unsigned key, uint64_t expiry_ms)
{
	char name[32];
	char value[VALUE_BYTES];
	size_t bytes = name_of(name, prefix, key);
	memset(value, (int)(key & 127), sizeof(value));
	return keyspace_set(f->keyspace, name, bytes, value, sizeof(value), expiry_ms, NULL);
}

static bool has_named(struct fixture *f, const char *prefix, unsigned key)
{
	char name[32];
	size_t bytes = name_of(name, prefix, key);
	struct keyspace_value value;
	return keyspace_get(f->keyspace, name, bytes, &value) == KEYSPACE_OK &&
	       value.value_bytes == VALUE_BYTES &&
	       *(const unsigned char *)value.value == (key & 127);
}

// A get, and on a miss a set, as a cache is used. True if it was a hit.
static bool get_or_set(struct fixture *f, unsigned key, unsigned *refused)
{
	char name[32];
	size_t bytes = name_of(name, "key:", key);
	if (has_named(f, "key:", key)) {
		keyspace_warm_key(f->keyspace, name, bytes);
		return true;
	}
	*refused += set_named(f, "key:", key, 0) != KEYSPACE_OK;
	return false;
}

static uint64_t evicted_of(struct fixture *f)
{
	return *kvs_counter_word(f->region.base, KVS_COUNTER_keys_evicted);
}

// Live bytes of all segments are those of the records that the table names.
static void check_counts(struct fixture *f)
{
	uint64_t live = 0, entries = 0;
	for (uint32_t i = 0; i < f->keyspace->log.touched_count; i++) {
		live += f->keyspace->log.segments[i].live_bytes;
	}
	for (unsigned key = 0; key < KEYS; key++) {
		entries += has_named(f, "key:", key);
	}
	ok_u64(entries, keyspace_count(f->keyspace), "every key that counts is there");
	if (!f->persisted) {
		ok_u64(live, f->keyspace->live_bytes, "live bytes are the segments'");
	}
}

static void replay(enum model_trace kind, unsigned keys, unsigned points, bool persisted,
		   uint64_t seed)
{
	struct fixture f;
	struct told told = { 0 };
	struct model_source source;
	unsigned hits = 0, refused = 0, gets = tap_rounds(GETS_USUAL, GETS_USUAL / 4);
	fixture_open(&f, persisted, seed);
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	keyspace_listen(f.keyspace, hear, &told);
	// What it can hold: all segments but those that it keeps free.
	uint32_t allowed = kvs_log_segments_allowed(&f.keyspace->log) - 8;
	uint64_t record = kvs_record_bytes(12, VALUE_BYTES, 0);
	unsigned holds = (unsigned)((uint64_t)allowed * FIXTURE_SEGMENT_BYTES / record);
	struct model_s3 s3;
	struct model_lru lru;
	model_s3_open(&s3, keys, holds);
	model_lru_open(&lru, keys, holds);
	model_source_open(&source, kind, keys, holds, seed);
	for (unsigned i = 0; i < gets; i++) {
		unsigned key = model_source_next(&source);
		hits += get_or_set(&f, key, &refused);
		model_s3_get(&s3, key);
		model_lru_get(&lru, key);
		if (i % 16 == 0) {
			fixture_durable(&f);
		}
	}
	ok_u64(refused, 0, "G: no write is refused (%s)", model_trace_name(kind));
	// In a slow run there are as few as show that nothing is touched that should not be.
	bool judged = gets == GETS_USUAL;
	ok(!judged || hits + gets / 100 * points >= s3.hits, "%s: %u hits of %u, S3-FIFO %u",
	   model_trace_name(kind), hits, gets, s3.hits);
	ok(!judged || hits > lru.hits, "more than LRU's %u", lru.hits);
	ok(evicted_of(&f) > 0 && told.evicted == evicted_of(&f), "each eviction is told, %" PRIu64,
	   told.evicted);
	ok(!persisted || keyspace_last_seq(f.keyspace) == gets - hits + evicted_of(&f),
	   "each is in the log, if somebody follows it");
	check_counts(&f);
	model_source_close(&source);
	model_lru_close(&lru);
	model_s3_close(&s3);
	fixture_close(&f);
}

// Prefixes and keys without a time to live stay, whatever is written.
static void test_protected(bool persisted, bool volatile_only)
{
	struct fixture f;
	struct told told = { 0 };
	struct keyspace_eviction how = allkeys;
	unsigned lost = 0, refused = 0;
	fixture_open(&f, persisted, 11);
	how.never = volatile_only ? "" : "nobody: keep: x";
	how.volatile_only = volatile_only;
	ok(keyspace_set_eviction(f.keyspace, &how), "evict");
	keyspace_listen(f.keyspace, hear, &told);
	for (unsigned i = 0; i < 4000; i++) {
		refused += set_named(&f, "keep:", i, 0) != KEYSPACE_OK;
	}
	for (unsigned i = 0; i < 60000; i++) {
		uint64_t end_ms = volatile_only ? f.keyspace->now_ms + 1000000 : 0;
		refused += set_named(&f, "key:", i, end_ms) != KEYSPACE_OK;
		if (i % 16 == 0) {
			fixture_durable(&f);
		}
	}
	for (unsigned i = 0; i < 4000; i++) {
		lost += !has_named(&f, "keep:", i);
	}
	ok_u64(refused, 0, "nothing is refused");
	ok_u64(lost + told.protected, 0, "%s stay", volatile_only ? "lasting keys" : "prefixes");
	ok(told.evicted > 20000, "others went");
	fixture_close(&f);
}

// Where nothing may go writes are refused as ever, and soon: the search for a victim ends.
static void test_barren(void)
{
	struct fixture f;
	struct keyspace_eviction how = allkeys;
	unsigned refused = 0;
	fixture_open(&f, false, 12);
	how.never = "keep:";
	ok(keyspace_set_eviction(f.keyspace, &how), "evict");
	for (unsigned i = 0; i < 40000; i++) {
		refused += set_named(&f, "keep:", i, 0) == KEYSPACE_FULL;
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
	}
	ok(refused > 1000, "G: %u writes are refused", refused);
	ok_u64(evicted_of(&f), 0, "and nothing went");
	uint64_t copied = *kvs_counter_word(f.region.base, KVS_COUNTER_cleaner_copied_bytes);
	ok(copied < 20 * (uint64_t)FIXTURE_MEMORY_BYTES, "after %" PRIu64 " bytes were copied",
	   copied);
	fixture_close(&f);
}

// The versions that a batch was told are those it gets, however much goes for it.
static void test_batch(bool persisted)
{
	struct fixture f;
	unsigned wrong = 0, refused = 0;
	fixture_open(&f, persisted, 13);
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	for (unsigned i = 0; i < 60000; i++) {
		refused += set_named(&f, "key:", i, 0) != KEYSPACE_OK;
		fixture_durable(&f);
		if (i % 100 != 99) {
			continue;
		}
		uint64_t seq[3];
		char value[1000] = { 0 };
		keyspace_batch_begin(f.keyspace);
		for (unsigned j = 0; j < 3; j++) {
			char name[32];
			size_t bytes = name_of(name, "batch:", j);
			(void)keyspace_set(f.keyspace, name, bytes, value, sizeof(value), 0,
					   &seq[j]);
		}
		if (keyspace_batch_commit(f.keyspace) == KEYSPACE_OK) {
			wrong += keyspace_last_seq(f.keyspace) != seq[2] || seq[2] != seq[0] + 2;
		} else {
			refused++;
		}
	}
	ok_u64(wrong, 0, "I: versions in a batch are final");
	ok_u64(refused, 0, "nothing is refused");
	ok(evicted_of(&f) > 10000, "though keys went");
	fixture_close(&f);
}

// The bound falls below what is stored: keys go until it fits, in bounded turns.
static void test_bound(void)
{
	struct fixture f;
	struct keyspace_eviction how = allkeys;
	unsigned refused = 0, turns = 0;
	fixture_open(&f, false, 14);
	for (unsigned i = 0; i < 20000; i++) {
		refused += set_named(&f, "key:", i, 0) != KEYSPACE_OK;
	}
	ok(keyspace_set_eviction(f.keyspace, &how), "evict");
	keyspace_set_memory(f.keyspace, FIXTURE_MEMORY_BYTES / 2);
	while (f.region.memory_bytes > FIXTURE_MEMORY_BYTES / 2 && turns < 10000) {
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
		turns++;
	}
	ok(turns > 10 && turns < 10000, "it fits after %u turns", turns);
	ok(keyspace_used_bytes(f.keyspace) <= FIXTURE_MEMORY_BYTES / 2, "so does what is in use");
	for (unsigned i = 0; i < 20000; i++) {
		refused += set_named(&f, "key:", i, 0) != KEYSPACE_OK;
		if (i % 16 == 0) {
			fixture_durable(&f);
		}
	}
	ok_u64(refused, 0, "writes go on under it");
	how.on = false;
	ok(keyspace_set_eviction(f.keyspace, &how), "reject");
	how.on = true;
	ok(keyspace_set_eviction(f.keyspace, &how), "evict");
	uint64_t sets = f.keyspace->evict.heat.ghost_sets;
	keyspace_set_memory(f.keyspace, FIXTURE_MEMORY_BYTES);
	ok_u64(f.keyspace->evict.heat.ghost_sets, 2 * sets,
	       "with twice the memory twice as many keys that went are remembered");
	keyspace_set_memory(f.keyspace, FIXTURE_MEMORY_BYTES / 2);
	for (turns = 0; f.region.memory_bytes > FIXTURE_MEMORY_BYTES / 2 && turns < 10000;
	     turns++) {
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
	}
	how.on = false;
	ok(keyspace_set_eviction(f.keyspace, &how), "reject");
	uint64_t evicted = evicted_of(&f);
	for (unsigned i = 20000; i < 60000; i++) {
		refused += set_named(&f, "key:", i, 0) != KEYSPACE_OK;
	}
	ok(refused > 0 && evicted_of(&f) == evicted, "then nothing goes any more");
	fixture_close(&f);
}

// Hashes of anything warm nothing that is not there, and no more than a count has room for.
static void test_garbage(uint64_t seed)
{
	struct fixture f;
	uint64_t random = seed;
	uint64_t hashes[64];
	fixture_open(&f, false, seed);
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	for (unsigned i = 0; i < 10000; i++) {
		(void)set_named(&f, "key:", i, 0);
	}
	for (unsigned i = 0; i < 1000; i++) {
		for (unsigned j = 0; j < 64; j++) {
			hashes[j] = tap_random(&random);
		}
		keyspace_warm(f.keyspace, hashes, 64);
	}
	unsigned warm = 0;
	for (unsigned i = 0; i < f.keyspace->evict.heat.bytes / HEAT_GRANULE_BYTES; i++) {
		warm += heat_of(&f.keyspace->evict.heat,
				f.keyspace->evict.heat.start + i * HEAT_GRANULE_BYTES) > 0;
	}
	// A tag of 16 bits and some four entries a bucket: one in 16 000 is taken for another.
	ok(warm < 64, "64 000 hashes of nothing warm %u keys of 10 000", warm);
	fixture_close(&f);
}

int main(void)
{
	uint64_t seed = tap_seed(0xe71c7);
	replay(MODEL_ZIPF, KEYS, 1, false, seed);
	replay(MODEL_ZIPF, KEYS, 1, true, seed);
	replay(MODEL_SCANS, KEYS, 1, false, seed);
	replay(MODEL_LOOP, KEYS, 1, false, seed);
	replay(MODEL_LOOP, KEYS / 8, 5, false, seed); // nearly all that is held is read
	test_protected(false, false);
	test_protected(true, false);
	test_protected(false, true);
	test_barren();
	test_batch(false);
	test_batch(true);
	test_bound();
	test_garbage(seed);
	return tap_done();
}
