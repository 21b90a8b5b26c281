// SPDX-License-Identifier: MIT
//
// The cleaner when nobody writes: what is dead is given back to the last segment that is worth it,
// what is live stays readable, and then there is nothing more to do, however the records' sizes
// leave segments unfilled.
#include "shm/epoch.h"
#include "tests/daemon/keyspace_fixture.h"

#define TURNS_MAX 20000u
#define VALUE_BYTES_MAX 16300u // four of these do not fill a segment

// Turns until the cleaner wants none for its own sake; UINT32_MAX if it never stops.
static uint32_t turn_until_quiet(struct fixture *f)
{
	fixture_durable(f);
	for (uint32_t turns = 0; turns < TURNS_MAX; turns++) {
		cleaner_turn(f->keyspace, fixture_monotonic_ns());
		if (cleaner_next_ns(f->keyspace) == UINT64_MAX) {
			return turns;
		}
	}
	return UINT32_MAX;
}

static bool set_one(struct fixture *f, unsigned key, size_t bytes)
{
	static unsigned char value[VALUE_BYTES_MAX];
	char name[16];
	int n = snprintf(name, sizeof(name), "%u", key);
	memset(value, (int)key, bytes);
	return keyspace_set(f->keyspace, name, (size_t)n, value, bytes, 0, NULL) == KEYSPACE_OK;
}

static bool delete_one(struct fixture *f, unsigned key)
{
	char name[16];
	int n = snprintf(name, sizeof(name), "%u", key);
	return keyspace_delete(f->keyspace, name, (size_t)n) == KEYSPACE_OK;
}

static bool get_one(struct fixture *f, unsigned key, size_t bytes)
{
	char name[16];
	int n = snprintf(name, sizeof(name), "%u", key);
	struct keyspace_value value;
	return keyspace_get(f->keyspace, name, (size_t)n, &value) == KEYSPACE_OK &&
	       value.value_bytes == bytes && *(const unsigned char *)value.value == (key & 255);
}

// Of `keys` values of `bytes` all but every `keep`-th go.
static void thin_out(bool persisted, unsigned keys, size_t bytes, unsigned keep)
{
	struct fixture f;
	unsigned wrong = 0;
	fixture_open(&f, persisted, 5);
	uint32_t start = f.keyspace->log.full_count;
	for (unsigned i = 0; i < keys; i++) {
		wrong += !set_one(&f, i, bytes);
	}
	ok(turn_until_quiet(&f) != UINT32_MAX, "quiet after writing");
	for (unsigned i = 0; i < keys; i++) {
		wrong += i % keep != 0 && !delete_one(&f, i);
	}
	uint32_t turns = turn_until_quiet(&f);
	ok(turns != UINT32_MAX, "quiet after removing (%u turns)", turns);
	uint32_t taken = f.keyspace->log.full_count - start;
	// Live bytes, a fifth more, what a record may leave at a segment's end, head and survivor.
	uint64_t needed = f.keyspace->live_bytes * 5 / 4 / (FIXTURE_SEGMENT_BYTES - bytes) + 3;
	ok(taken <= needed, "%u segments taken, %" PRIu64 " wanted (%s, values of %zu)", taken,
	   needed, persisted ? "persisted" : "memory", bytes);
	ok_u64(f.keyspace->log.retired_count, 0, "none waits");
	for (unsigned i = 0; i < keys; i += keep) {
		wrong += !get_one(&f, i, bytes);
	}
	ok_u64(wrong, 0, "what is live is there");
	uint64_t copied = *kvs_counter_word(f.region.base, KVS_COUNTER_cleaner_copied_bytes);
	ok(turn_until_quiet(&f) < 3 &&
		   *kvs_counter_word(f.region.base, KVS_COUNTER_cleaner_copied_bytes) == copied,
	   "rest is rest: nothing is copied twice");
	for (unsigned i = 0; i < keys; i += keep) {
		wrong += !delete_one(&f, i);
	}
	ok(turn_until_quiet(&f) != UINT32_MAX, "quiet when all is gone");
	ok_u64(f.keyspace->log.full_count, start, "every segment is free again");
	fixture_close(&f);
}

// Records that fill segments to three quarters: all is live, and nothing is to be gained.
static void test_unfilled(void)
{
	struct fixture f;
	unsigned wrong = 0;
	fixture_open(&f, false, 6);
	unsigned key = 0;
	for (; set_one(&f, key, VALUE_BYTES_MAX); key++) {
	}
	ok(key > 200, "%u values fill the memory", key);
	uint64_t copied = *kvs_counter_word(f.region.base, KVS_COUNTER_cleaner_copied_bytes);
	ok(turn_until_quiet(&f) != UINT32_MAX, "G: a full keyspace rests");
	for (unsigned i = 0; i < 50; i++) {
		wrong += set_one(&f, key, VALUE_BYTES_MAX);
	}
	ok_u64(wrong, 0, "no room appears from nothing");
	ok_u64(*kvs_counter_word(f.region.base, KVS_COUNTER_cleaner_copied_bytes), copied,
	       "and no record is copied for it");
	fixture_close(&f);
}

// What could not be queued is told: memory that is gone until a restart must not go unseen.
static void test_lost(void)
{
	struct fixture f;
	fixture_open(&f, true, 7);
	f.keyspace->limbo.lost = 3;
	f.keyspace->pending.lost = 4;
	fixture_durable(&f);
	ok_u64(*kvs_counter_word(f.region.base, KVS_COUNTER_limbo_lost), 3, "limbo_lost");
	ok_u64(*kvs_counter_word(f.region.base, KVS_COUNTER_pending_lost), 4, "pending_lost");
	fixture_close(&f);
}

// Readers of an earlier life may hold memory back for a minute when nobody is short of it, and not
// for ever (B2, D1).
static void test_hold_ends(void)
{
	struct fixture f;
	fixture_open(&f, false, 8);
	uint64_t now_ns = fixture_monotonic_ns();
	kvs_epoch_hold(&f.epochs, &f.region.header->adoptions);
	kvs_epoch_adopt(&f.epochs, now_ns);
	kvs_limbo_push(&f.keyspace->limbo, kvs_epoch_stamp(&f.epochs) - 1, KVS_LIMBO_RUN, 0, 0);
	for (unsigned second = 0; second < 59; second++) {
		cleaner_turn(f.keyspace, now_ns + second * UINT64_C(1000000000));
	}
	ok_u64(f.keyspace->limbo.count, 1, "B2: it is held for a minute");
	ok(cleaner_next_ns(f.keyspace) < now_ns + UINT64_C(70000000000), "and looked after then");
	cleaner_turn(f.keyspace, now_ns + UINT64_C(61000000000));
	cleaner_turn(f.keyspace, now_ns + UINT64_C(61100000000));
	ok_u64(f.keyspace->limbo.count, 0, "D1: an idle kvd gives it back after that");
	ok(!kvs_epoch_held(&f.epochs), "and the hold is over");
	fixture_close(&f);
}

// Large values that a reader has held back come free at once: their pages go back to the kernel a
// little in each turn, that of a value of many pages too.
static void test_slices(void)
{
	static struct kvs_reader_page page;
	static unsigned char value[5u << 20];
	struct fixture f;
	int owner = 0;
	fixture_begin(&f, false, 9, 64u << 20, false);
	f.keyspace->value_bytes_max = sizeof(value);
	fixture_serve(&f, 0);
	ok(kvs_epoch_add(&f.epochs, &page, &owner) != NULL, "a reader");
	(void)kvs_epoch_enter(&page.slot[0], &f.region.header->hot, true);
	unsigned wrong = 0;
	for (unsigned i = 0; i < 20; i++) {
		const char *key = i % 2 == 0 ? "even" : "odd";
		size_t bytes = i % 4 < 2 ? sizeof(value) : 300000;
		wrong += keyspace_set(f.keyspace, key, strlen(key), value, bytes, 0, NULL) != 0;
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
	}
	ok_u64(wrong, 0, "large values over each other");
	uint64_t held = f.region.large_bytes;
	ok(held > 40u << 20, "are held back, %" PRIu64 " bytes", held);
	(void)kvs_epoch_leave(&page.slot[0], &f.region.header->hot);
	unsigned turns = 0;
	uint64_t most = 0;
	while (f.keyspace->limbo.count > 0 && turns < TURNS_MAX) {
		uint64_t before = f.region.large_bytes;
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
		most = before - f.region.large_bytes > most ? before - f.region.large_bytes : most;
		wrong += f.keyspace->limbo.count > 0 && keyspace_drain_is_due(f.keyspace) &&
			 cleaner_next_ns(f.keyspace) > fixture_monotonic_ns();
		turns++;
	}
	ok_u64(f.region.large_bytes, kvs_large_bytes(&f.region, 300000) * 2,
	       "all that is dead came free");
	ok(most <= 2u << 20, "D: %" PRIu64 " bytes in one turn at most, of %" PRIu64, most, held);
	ok(turns >= 20, "in %u turns", turns);
	ok_u64(wrong, 0, "that follow each other");
	fixture_close(&f);
}

int main(void)
{
	thin_out(false, 15000, 300, 10);
	thin_out(true, 15000, 300, 10);
	thin_out(true, 300, VALUE_BYTES_MAX, 7);
	thin_out(true, 15000, 300, 3);
	test_unfilled();
	test_lost();
	test_hold_ends();
	test_slices();
	return tap_done();
}
