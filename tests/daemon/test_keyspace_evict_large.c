// SPDX-License-Identifier: MIT
//
// Eviction where values are large or requests want much at once: the records of a whole memory may
// stand in one open segment; no more goes than is wanted; what a write copies from stays while room
// is made for it; and whoever asks for more than a segment waits for it instead of being refused.
#include "shm/epoch.h"
#include "tests/daemon/keyspace_fixture.h"

#define LARGE_BYTES (40u << 10)
#define TRIES 400u

static const struct keyspace_eviction allkeys = { .on = true };
static unsigned char bytes_of[1u << 20];

static uint64_t counter(const struct fixture *f, enum kvs_counter which)
{
	return *kvs_counter_word(f->region.base, which);
}

static uint64_t evicted_of(const struct fixture *f)
{
	return counter(f, KVS_COUNTER_keys_evicted);
}

static size_t name_of(char *name, size_t bytes, const char *prefix, unsigned key)
{
	return (size_t)snprintf(name, bytes, "%s%06u", prefix, key);
}

static int try_set(struct fixture *f, const char *prefix, unsigned key, size_t bytes)
{
	char name[32];
	size_t name_bytes = name_of(name, sizeof(name), prefix, key);
	memset(bytes_of, (int)(key & 127) + 1, bytes);
	return keyspace_set(f->keyspace, name, name_bytes, bytes_of, bytes, 0, NULL);
}

// As a session does: waits for turns, in which commits succeed, and asks again.
static int set_one(struct fixture *f, const char *prefix, unsigned key, size_t bytes)
{
	int result = try_set(f, prefix, key, bytes);
	for (unsigned i = 0; i < TRIES && result == KEYSPACE_WAIT; i++) {
		fixture_durable(f);
		result = try_set(f, prefix, key, bytes);
	}
	return result;
}

static bool has_one(struct fixture *f, const char *prefix, unsigned key, size_t bytes)
{
	char name[32];
	struct keyspace_value value;
	size_t name_bytes = name_of(name, sizeof(name), prefix, key);
	if (keyspace_get(f->keyspace, name, name_bytes, &value) != KEYSPACE_OK ||
	    value.value_bytes != bytes) {
		return false;
	}
	const unsigned char *at = value.value;
	return at[0] == (key & 127) + 1 && at[bytes - 1] == (key & 127) + 1;
}

static void warm(struct fixture *f, const char *prefix, unsigned key)
{
	char name[32];
	size_t name_bytes = name_of(name, sizeof(name), prefix, key);
	keyspace_warm_key(f->keyspace, name, name_bytes);
}

// Nothing but large values: all of their records fit one segment.
static void test_all_large(bool persisted)
{
	struct fixture f;
	unsigned refused = 0, lost = 0;
	fixture_open(&f, persisted, 31);
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	for (unsigned i = 0; i < 10; i++) {
		refused += set_one(&f, "hot:", i, LARGE_BYTES) != KEYSPACE_OK;
	}
	for (unsigned i = 0; i < 3000; i++) {
		refused += set_one(&f, "key:", i, LARGE_BYTES) != KEYSPACE_OK;
		for (unsigned j = 0; j < 10 && i % 8 == 0; j++) {
			lost += !has_one(&f, "hot:", j, LARGE_BYTES);
			warm(&f, "hot:", j);
		}
	}
	ok_u64(refused, 0, "G: of large values alone none is refused%s",
	       persisted ? ", persisted" : "");
	ok_u64(lost, 0, "what is read stays");
	ok(evicted_of(&f) > 2500, "others went: %llu", (unsigned long long)evicted_of(&f));
	unsigned there = 0;
	for (unsigned i = 0; i < 3000; i++) {
		there += has_one(&f, "key:", i, LARGE_BYTES);
	}
	uint64_t held = keyspace_count(f.keyspace) * LARGE_BYTES;
	ok(there + 10 == keyspace_count(f.keyspace) && held > FIXTURE_MEMORY_BYTES / 2,
	   "and memory is used: %u keys", there);
	fixture_close(&f);
}

// Large and small, so that full segments name large values; a reader keeps all that goes.
static void test_overshoot(bool in_place)
{
	struct fixture f;
	static struct kvs_reader_page page;
	int owner = 0;
	memset(&page, 0, sizeof(page));
	fixture_open(&f, false, 32);
	ok(kvs_epoch_add(&f.epochs, &page, &owner) != NULL, "a reader");
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	for (unsigned i = 0; i < 400; i++) {
		(void)set_one(&f, "key:", i, 20u << 10);
		for (unsigned j = 0; j < 8 && !in_place; j++) {
			(void)set_one(&f, "small:", i * 8 + j, 500);
		}
	}
	(void)kvs_epoch_enter(&page.slot[0], &f.region.header->hot, true);
	uint64_t before = evicted_of(&f);
	uint64_t keys = keyspace_count(f.keyspace);
	unsigned refused = 0;
	for (unsigned i = 0; i < 200; i++) {
		refused += try_set(&f, "more:", 1, 500u << 10) == KEYSPACE_FULL;
		cleaner_turn(f.keyspace, fixture_now_ns += 1000);
	}
	ok_u64(refused, 0, "it waits for them");
	uint64_t went = evicted_of(&f) - before;
	ok(went > 0 && went < keys / 5, "%s: G: %llu of %llu keys go for one that waits",
	   in_place ? "in place" : "full segments", (unsigned long long)went,
	   (unsigned long long)keys);
	fixture_close(&f);
}

// The key whose value is copied to another goes while room is made for the copy: nobody reads it
// any more, and all others are read.
static void test_hold(void)
{
	struct fixture f;
	char name[32];
	struct keyspace_value value;
	size_t bytes = name_of(name, sizeof(name), "old:", 5);
	unsigned count = 0;
	fixture_open(&f, false, 33);
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	ok(set_one(&f, "old:", 5, 30u << 10) == KEYSPACE_OK, "a value");
	while (!cleaner_is_short(f.keyspace) && count < 1000 &&
	       set_one(&f, "key:", count, LARGE_BYTES) == KEYSPACE_OK) {
		warm(&f, "key:", count++);
	}
	ok(count > 100 && evicted_of(&f) == 0 &&
		   keyspace_get(f.keyspace, name, bytes, &value) == KEYSPACE_OK,
	   "memory is full of them");
	memset(bytes_of, 6, 600u << 10);
	struct kvs_piece pieces[2] = { { value.value, value.value_bytes },
				       { bytes_of, 600u << 10 } };
	int result = keyspace_set_pieces(f.keyspace, "new:000005", 10, pieces, 2, 0, NULL);
	ok_int(result, KEYSPACE_OK, "it and more are copied");
	ok(keyspace_get(f.keyspace, name, bytes, &value) == KEYSPACE_ABSENT,
	   "it went for that: %llu", (unsigned long long)evicted_of(&f));
	ok(has_one(&f, "new:", 5, 630u << 10), "B: what is copied from is what it was");
	fixture_durable(&f);
	ok_u64(f.keyspace->large.orphaned_bytes, 0, "and nothing keeps it then");
	fixture_close(&f);
}

static const char *written; // the name of the key that is being set
static unsigned written_went;

static void on_end(void *context, enum keyspace_end why, const void *key, size_t key_bytes)
{
	(void)context;
	written_went += why == KEYSPACE_END_EVICTED && strlen(written) == key_bytes &&
			memcmp(written, key, key_bytes) == 0;
}

// The oldest key, whose turn it is to go, is set anew, and room has to be made for that: by others.
// What its command has answered by (SET XX, INCR) would not be true else.
static void test_own_key(size_t bytes)
{
	struct fixture f;
	unsigned set = 0, refused = 0;
	fixture_open_sized(&f, false, 41, 3u << 20, false);
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	written = "";
	written_went = 0;
	keyspace_listen(f.keyspace, on_end, NULL);
	unsigned count = (6u << 20) / (unsigned)bytes;
	for (unsigned i = 0; i < count; i++) {
		refused += set_one(&f, "key:", i, bytes) != KEYSPACE_OK;
	}
	for (unsigned i = 0; i < count; i++) {
		char name[32];
		size_t name_bytes = name_of(name, sizeof(name), "key:", i);
		struct keyspace_value value;
		int result = KEYSPACE_WAIT;
		written = name;
		while (keyspace_get(f.keyspace, name, name_bytes, &value) == KEYSPACE_OK &&
		       result == KEYSPACE_WAIT) {
			result = try_set(&f, "key:", i, bytes);
			set += result == KEYSPACE_OK;
			written = "";
			if (result == KEYSPACE_WAIT) {
				cleaner_turn(f.keyspace, fixture_monotonic_ns());
			}
			written = name;
		}
		written = "";
	}
	ok(refused == 0 && set > count / 8, "%u keys are set anew", set);
	ok(evicted_of(&f) > count / 4, "for which others went");
	ok_u64(written_went, 0, "A: none goes for its own value of %zu bytes", bytes);
	fixture_close(&f);
}

// The only key that there is goes for its own value where that finds no room else.
static void test_only_key(void)
{
	struct fixture f;
	fixture_open_sized(&f, false, 42, 2u << 20, false);
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	unsigned refused = 0;
	for (unsigned i = 0; i < 20; i++) {
		refused += set_one(&f, "key:", 1, 900u << 10) != KEYSPACE_OK;
	}
	ok_u64(refused, 0, "G: what takes half of the memory is set anew");
	fixture_close(&f);
}

// A request for many segments, while a few are free and nothing else is on its way.
static void test_many_segments(bool batch)
{
	struct fixture f;
	unsigned refused = 0, waits = 0;
	int result = KEYSPACE_WAIT;
	fixture_open(&f, false, 34);
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	for (unsigned i = 0; i < 20000; i++) {
		refused += set_one(&f, "key:", i, 500) != KEYSPACE_OK;
	}
	for (unsigned i = 0; i < 200; i++) {
		fixture_durable(&f); // until nothing waits for readers
	}
	ok(f.keyspace->limbo.count == 0 && refused == 0, "memory is full and at rest");
	for (unsigned tries = 0; tries < TRIES && result == KEYSPACE_WAIT; tries++) {
		if (batch) {
			keyspace_batch_begin(f.keyspace);
			for (unsigned i = 0; i < 2000; i++) {
				(void)try_set(&f, "batch:", i, 1000);
			}
			result = keyspace_batch_commit(f.keyspace);
		} else {
			result = try_set(&f, "wide:", 1, 1u << 20);
		}
		waits += result == KEYSPACE_WAIT;
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
	}
	ok(result == KEYSPACE_OK && waits > 0, "G: %s of many segments waits and is applied",
	   batch ? "a batch" : "a value");
	fixture_close(&f);
}

// Where nothing may go that is believed for a while, and not for ever.
static void test_barren_ends(void)
{
	struct fixture f;
	struct keyspace_eviction how = allkeys;
	fixture_open(&f, false, 35);
	how.never = "keep:";
	ok(keyspace_set_eviction(f.keyspace, &how), "evict");
	for (unsigned i = 0; i < 20000; i++) {
		(void)try_set(&f, "keep:", i, 500);
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
	}
	ok(!evict_may_help(f.keyspace), "nothing may go");
	fixture_now_ns += UINT64_C(1100000000);
	ok(evict_may_help(f.keyspace), "G: after a second it is looked at again");
	fixture_close(&f);
}

// Where nothing is worth it and nothing goes, whoever asks again lets nobody look again.
static void test_none(bool protected)
{
	struct fixture f;
	struct keyspace_eviction how = { .on = protected, .never = "keep:" };
	char name[32];
	unsigned refused = 0, count = 0;
	fixture_open(&f, false, 36);
	ok(keyspace_set_eviction(f.keyspace, &how), protected ? "all is protected" : "reject");
	for (; refused < 100 && count < 60000; count++) {
		refused += try_set(&f, "keep:", count, 500) == KEYSPACE_FULL;
	}
	struct cleaner_choice *choice = &f.keyspace->cleaner.choice;
	choice->at = UINT32_MAX; // a look begins at the first
	for (unsigned i = 0; i < 50; i++) {
		refused += try_set(&f, "keep:", count + i, 500) == KEYSPACE_FULL;
	}
	ok(refused == 150 && choice->at == UINT32_MAX, "G: nobody looks for what is refused");
	for (unsigned i = 0; i < 3000; i++) {
		size_t bytes = name_of(name, sizeof(name), "keep:", i);
		(void)keyspace_delete(f.keyspace, name, bytes);
	}
	ok_int(set_one(&f, "keep:", 0, 500), KEYSPACE_OK, "until there is something");
	fixture_close(&f);
}

// No commit comes: what waits for one is bounded, and removals do not add to it.
static void test_queue(void)
{
	struct fixture f;
	unsigned beyond = 0;
	fixture_open(&f, true, 37);
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	for (unsigned i = 0; i < 30000; i++) {
		(void)set_one(&f, "key:", i, 500);
	}
	uint64_t before = evicted_of(&f);
	for (unsigned i = 0; i < 20000; i++) {
		bool full = keyspace_waits_for_store(f.keyspace);
		uint64_t evicted = evicted_of(&f);
		if (keyspace_admit(f.keyspace, 500) == KEYSPACE_OK) {
			(void)try_set(&f, "more:", i, 500);
		}
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
		beyond += full && evicted_of(&f) > evicted;
	}
	ok(evicted_of(&f) > before && keyspace_waits_for_store(f.keyspace),
	   "keys go until the queue is full");
	ok_u64(beyond, 0, "G: and none any more");
	ok_int(set_one(&f, "more:", 0, 500), KEYSPACE_OK, "with the next commit they do");
	fixture_close(&f);
}

// A reader keeps what was evicted for a bound that falls: no more goes for that.
static void test_bound_waits(void)
{
	struct fixture f;
	static struct kvs_reader_page page;
	int owner = 0;
	memset(&page, 0, sizeof(page));
	fixture_open(&f, false, 38);
	ok(kvs_epoch_add(&f.epochs, &page, &owner) != NULL, "a reader");
	f.keyspace->block_on_stuck = true;
	for (unsigned i = 0; i < 12000; i++) {
		(void)set_one(&f, "key:", i, 500);
	}
	uint64_t keys = keyspace_count(f.keyspace);
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	(void)kvs_epoch_enter(&page.slot[0], &f.region.header->hot, true);
	keyspace_set_memory(f.keyspace, FIXTURE_MEMORY_BYTES / 4 * 3);
	for (unsigned i = 0; i < 3000; i++) {
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
	}
	ok(evicted_of(&f) > 0 && evicted_of(&f) < keys / 2, "G: %llu of %llu keys go for a quarter",
	   (unsigned long long)evicted_of(&f), (unsigned long long)keys);
	fixture_close(&f);
}

// Everything is read between two looks at it: something goes all the same.
static void test_all_warm(void)
{
	struct fixture f;
	unsigned count = 0, waited = 0;
	fixture_open(&f, false, 39);
	ok(keyspace_set_eviction(f.keyspace, &allkeys), "evict");
	const struct heat *heat = &f.keyspace->evict.heat;
	while (!cleaner_is_short(f.keyspace) && try_set(&f, "key:", count, 500) == KEYSPACE_OK) {
		count++;
	}
	for (unsigned i = 0; i < 1000 && waited < 5000; i++) {
		memset(heat->counts, 0xff, heat->counts_bytes);
		if (try_set(&f, "key:", count, 500) == KEYSPACE_OK) {
			count++;
		} else {
			waited++;
			i--;
		}
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
	}
	ok(waited < 5000 && evicted_of(&f) > 100, "G: a cache of warm keys takes new ones: %u",
	   count);
	fixture_close(&f);
}

int main(void)
{
	test_all_large(false);
	test_all_large(true);
	test_overshoot(false);
	test_overshoot(true);
	test_hold();
	test_own_key(500);
	test_own_key(LARGE_BYTES);
	test_only_key();
	test_many_segments(false);
	test_many_segments(true);
	test_barren_ends();
	test_none(false);
	test_none(true);
	test_queue();
	test_bound_waits();
	test_all_warm();
	return tap_done();
}
