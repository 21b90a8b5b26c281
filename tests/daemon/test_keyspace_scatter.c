// SPDX-License-Identifier: MIT
//
// Large values that are left here and there must not keep a larger one out while bytes are free:
// whatever came and went before, what fits the memory fits their range. Those in the way are moved,
// and neither who reads them nor who changes them meanwhile notices.
#include <stdlib.h>

#include "shm/epoch.h"
#include "tests/daemon/scatter_fixture.h"

static bool has_memory(size_t bytes)
{
	uint32_t segments = (uint32_t)(bytes / f.region.segment_bytes) + 2;
	return kvs_log_segments_free(&f.keyspace->log) >
	       keyspace_reserve(f.keyspace, KEYSPACE_FOR_WRITE) + segments;
}

static void test_patterns(bool persisted)
{
	const struct pattern patterns[] = {
		few,
		{ "many small ones", { SMALL_BYTES }, 1, 5, 1 },
		{ "long ones", { 400000, 390000 }, 2, 3, 1 },
		{ "of two sizes", { 180000, 16500 }, 2, 6, 1 },
		// The longest fit no gap, before others have made one.
		{ "no place for the longest",
		  { 260000, 250000, SMALL_BYTES, 250000, SMALL_BYTES, 250000 },
		  6,
		  6,
		  1 | 4 | 16 },
	};
	for (unsigned i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		begin(persisted, false);
		scatter(&patterns[i]);
		no_place();
		ok_int(set(900, LARGE_BYTES), KEYSPACE_OK, "G: %s do not keep it out",
		       patterns[i].what);
		if (has_memory(LARGE_BYTES)) {
			ok_int(set(901, LARGE_BYTES), KEYSPACE_OK, "G: %s: nor another",
			       patterns[i].what);
		}
		ok(moved() > 0, "for %" PRIu64 " of them were moved", moved());
		end(patterns[i].what);
	}
}

// Until some of a value is copied, and not all.
static void half_moved(void)
{
	const struct mover *mover = &f.keyspace->mover;
	int result = KEYSPACE_WAIT;
	fixture_look_step_ns = 300000; // one step a turn
	for (unsigned i = 0;
	     i < ROUNDS && result == KEYSPACE_WAIT && (mover->from == 0 || mover->done == 0); i++) {
		result = try_set(900, LARGE_BYTES);
		turns(1);
	}
	ok(result == KEYSPACE_WAIT && mover->done > 0, "a value is being moved");
}

static unsigned in_the_way(void)
{
	unsigned number = 0;
	while (number < KEYS && at_of(number) != f.region.base + f.keyspace->mover.from) {
		number++;
	}
	return number;
}

static void change_deleted(unsigned number)
{
	drop(number);
}

static void change_replaced(unsigned number)
{
	ok_int(set(number, SMALL_BYTES / 40), KEYSPACE_OK, "it is replaced");
}

static void change_flushed(unsigned number)
{
	(void)number;
	memset(stays, 0, sizeof(stays));
	ok_int(keyspace_flush(f.keyspace), KEYSPACE_OK, "FLUSHALL");
}

static void change_ends(unsigned number)
{
	char name[16];
	ok_int(keyspace_expire(f.keyspace, name, name_of(name, number),
			       keyspace_now_ms(f.keyspace) + 1000000),
	       KEYSPACE_OK, "it gets a time to live");
}

static void change_renamed(unsigned number)
{
	char from[16];
	char to[16];
	size_t bytes = name_of(from, number);
	keyspace_batch_begin(f.keyspace);
	ok_int(keyspace_rename_copy(f.keyspace, from, bytes, to, name_of(to, 999)), KEYSPACE_OK,
	       "it is renamed");
	(void)keyspace_delete(f.keyspace, from, bytes);
	turns(20); // it is moved meanwhile, if it can be
	ok_int(keyspace_batch_commit(f.keyspace), KEYSPACE_OK, "by a batch that was open for long");
	char name[16];
	struct keyspace_value value;
	ok(keyspace_get(f.keyspace, name, name_of(name, 999), &value) == KEYSPACE_OK &&
		   is_at(value.value, number, SMALL_BYTES),
	   "I: it has the same bytes");
	stays[number] = 0;
	drop(999);
}

static void test_changed(bool persisted)
{
	const struct {
		const char *what;
		void (*change)(unsigned number);
	} changes[] = { { "deleted", change_deleted },
			{ "replaced", change_replaced },
			{ "flushed", change_flushed },
			{ "ends", change_ends },
			{ "renamed", change_renamed } };
	for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		scattered(persisted, false);
		half_moved();
		unsigned number = in_the_way();
		ok(number < KEYS, "it is number %u", number);
		changes[i].change(number);
		ok_int(set(900, LARGE_BYTES), KEYSPACE_OK, "G: there is place, though it was %s",
		       changes[i].what);
		end(changes[i].what);
	}
}

// A reader looks at all that stays.
static void test_views(void)
{
	static struct kvs_reader_page page __attribute__((aligned(4096)));
	static int owner;
	static const unsigned char *view[KEYS];
	unsigned wrong = 0, gone = 0;
	scattered(false, true);
	struct kvs_epoch_page *entry = kvs_epoch_add(&f.epochs, &page, &owner);
	(void)kvs_epoch_enter(&page.slot[0], &f.region.header->hot, true);
	for (unsigned i = 0; i < KEYS; i++) {
		view[i] = stays[i] > 0 ? at_of(i) : NULL;
	}
	int result = try_set(900, LARGE_BYTES);
	for (unsigned i = 0; i < 100 && result == KEYSPACE_WAIT; i++) {
		turns(1);
		result = try_set(900, LARGE_BYTES);
	}
	ok_int(result, KEYSPACE_WAIT, "D: a place waits for who reads there, who is not revoked");
	for (unsigned i = 0; i < KEYS; i++) {
		wrong += view[i] != NULL && !is_at(view[i], i, stays[i]);
		gone += view[i] != NULL && at_of(i) != view[i];
	}
	ok(gone > 0, "%u values are elsewhere by now", gone);
	ok_u64(wrong, 0, "B: and for the reader still where they were");
	ok(kvs_epoch_leave(&page.slot[0], &f.region.header->hot), "B: to its end");
	ok_int(set(900, LARGE_BYTES), KEYSPACE_OK, "G: then there is place");
	kvs_epoch_remove(&f.epochs, entry);
	end("views");
}

// One that stays for too long is told that its view is over.
static void test_revoked(void)
{
	static struct kvs_reader_page page __attribute__((aligned(4096)));
	static int owner;
	scattered(false, false);
	struct kvs_epoch_page *entry = kvs_epoch_add(&f.epochs, &page, &owner);
	(void)kvs_epoch_enter(&page.slot[0], &f.region.header->hot, true);
	ok_int(set(900, LARGE_BYTES), KEYSPACE_OK, "D: nobody waits for a reader for ever");
	ok(!kvs_epoch_leave(&page.slot[0], &f.region.header->hot), "B: who is told");
	kvs_epoch_remove(&f.epochs, entry);
	end("revoked");
}

// Whatever lies there, in whatever order.
static void test_random(unsigned rounds)
{
	uint64_t random = tap_seed(31);
	unsigned refused = 0, asked = 0;
	for (unsigned round = 0; round < rounds; round++) {
		struct pattern pattern = { .what = "random" };
		pattern.sizes_count = 1 + (unsigned)(tap_random(&random) % 6);
		pattern.cycle = pattern.sizes_count * (1 + (unsigned)(tap_random(&random) % 3));
		pattern.stay = tap_random(&random) & tap_random(&random);
		for (unsigned i = 0; i < pattern.sizes_count; i++) {
			uint64_t most = tap_random(&random) % 2 == 0 ? 60000 : 500000;
			pattern.sizes[i] = 16500 + tap_random(&random) % most;
		}
		begin(round % 2 != 0, false);
		scatter(&pattern);
		for (unsigned number = 900; number < 906; number++) {
			size_t bytes = LARGE_BYTES - tap_random(&random) % 600000;
			if (has_memory(bytes)) {
				refused += set(number, bytes) != KEYSPACE_OK;
				asked++;
			}
		}
		end(pattern.what);
	}
	ok_u64(refused, 0, "G: none of %u is refused for which there is memory", asked);
}

// Replies that are under way are sent from where their values stood.
static void test_pins(bool persisted)
{
	static uint64_t pins[KEYS];
	static const unsigned char *pinned[KEYS];
	unsigned wrong = 0, gone = 0;
	scattered(persisted, false);
	for (unsigned i = 0; i < KEYS; i++) {
		pinned[i] = stays[i] > 0 ? at_of(i) : NULL;
		wrong += pinned[i] != NULL && !keyspace_pin(f.keyspace, pinned[i], &pins[i]);
	}
	int result = try_set(900, LARGE_BYTES);
	for (unsigned i = 0; i < 100 && result == KEYSPACE_WAIT; i++) {
		turns(1);
		result = try_set(900, LARGE_BYTES);
	}
	ok_int(result, KEYSPACE_WAIT, "a place waits for replies that are sent from there");
	for (unsigned i = 0; i < KEYS; i++) {
		wrong += pinned[i] != NULL && !is_at(pinned[i], i, stays[i]);
		gone += pinned[i] != NULL && at_of(i) != pinned[i];
	}
	ok(gone > 0 && f.keyspace->large.orphaned_bytes >= gone * SMALL_BYTES,
	   "G: %u are kept by them alone, which is counted", gone);
	ok_u64(wrong, 0, "B: they keep their bytes");
	for (unsigned i = 0; i < KEYS; i++) {
		if (pinned[i] != NULL) {
			keyspace_unpin(f.keyspace, pins[i]);
		}
	}
	ok_int(set(900, LARGE_BYTES), KEYSPACE_OK, "G: then there is place");
	end("pins");
}

// What is not durable is read by the persister, from the place that its record names.
static void test_undurable(void)
{
	unsigned wrong = 0;
	scattered(true, false);
	for (unsigned i = 0; i < KEYS; i++) {
		char name[16];
		if (stays[i] > 0) {
			wrong += keyspace_expire(f.keyspace, name, name_of(name, i),
						 keyspace_now_ms(f.keyspace) + 1000000) !=
				 KEYSPACE_OK;
		}
	}
	ok_u64(wrong, 0, "all get a time to live");
	uint64_t before = moved();
	int result = try_set(900, LARGE_BYTES);
	for (unsigned i = 0; i < 100 && result == KEYSPACE_WAIT; i++) {
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
		result = try_set(900, LARGE_BYTES);
	}
	ok(moved() == before, "E: what is not durable is not moved");
	ok_int(set(900, LARGE_BYTES), KEYSPACE_OK, "G: there is place when it is");
	end("not durable");
}

// Several at once want one place for all of them.
static void test_batch(bool persisted)
{
	scattered(persisted, false);
	int result = KEYSPACE_WAIT;
	for (unsigned i = 0; i < ROUNDS && result == KEYSPACE_WAIT; i++) {
		keyspace_batch_begin(f.keyspace);
		for (unsigned k = 910; k < 913; k++) {
			(void)try_set(k, LARGE_BYTES);
		}
		result = keyspace_batch_commit(f.keyspace);
		turns(1);
	}
	ok_int(result, KEYSPACE_OK, "I: a batch of three finds place");
	for (unsigned k = 910; k < 913; k++) {
		stays[k] = LARGE_BYTES;
	}
	end("batch");
}

// A value that is being received stays where it is, whatever else moves.
static void test_intake(bool persisted)
{
	struct keyspace_intake intakes[3] = { 0 };
	unsigned wrong = 0;
	scattered(persisted, false);
	for (unsigned i = 0; i < 3; i++) {
		size_t room = 0;
		wrong += keyspace_intake_begin(f.keyspace, &intakes[i], 300000) != KEYSPACE_OK;
		unsigned char *at = keyspace_intake_room(f.keyspace, &intakes[i], &room);
		memset(at, (int)i + 1, room);
		keyspace_intake_came(f.keyspace, &intakes[i], room);
	}
	ok_u64(wrong, 0, "three are on their way");
	ok_int(set(900, LARGE_BYTES), KEYSPACE_OK, "G: there is place beside them");
	int result = KEYSPACE_WAIT;
	struct keyspace_intake large = { 0 };
	for (unsigned i = 0; i < ROUNDS && result == KEYSPACE_WAIT; i++) {
		result = keyspace_intake_begin(f.keyspace, &large, LARGE_BYTES);
		turns(1);
	}
	ok_int(result, KEYSPACE_OK, "G: for one that is to be received, too");
	for (unsigned i = 0; i < 3; i++) {
		const unsigned char *at = keyspace_intake_value(f.keyspace, &intakes[i]);
		for (uint64_t b = 0; b < intakes[i].done; b++) {
			wrong += at[b] != i + 1;
		}
		keyspace_intake_end(f.keyspace, &intakes[i]);
	}
	ok_u64(wrong, 0, "A: what came is where it came");
	keyspace_intake_end(f.keyspace, &large);
	end("intake");
}

static void test_given_up(void)
{
	scattered(false, false);
	half_moved();
	turns(200);
	ok(f.keyspace->large.wanted_bytes == 0 && f.keyspace->mover.from == 0,
	   "G: nobody asks any more, so nothing is moved nor kept clear");
	ok_int(set(902, SMALL_BYTES), KEYSPACE_OK, "others find their place");
	end("given up");
}

// Who wanted more, and asks no more, is no obstacle for who wants less.
static void test_less(void)
{
	scattered(false, false);
	ok_int(try_set(900, LARGE_BYTES), KEYSPACE_WAIT, "one waits");
	turns(3);
	ok_int(set(903, LARGE_BYTES - 100000), KEYSPACE_OK, "G: another finds place instead");
	end("less");
}

// Nothing can be moved: what is there is only held.
static void test_refused(void)
{
	static uint64_t pins[KEYS];
	unsigned pinned = 0;
	scattered(false, false);
	for (unsigned i = 0; i < KEYS; i++) {
		if (stays[i] > 0 && keyspace_pin(f.keyspace, at_of(i), &pins[pinned])) {
			pinned++;
			drop(i);
		}
	}
	for (unsigned i = 0; i < 100; i++) {
		if (try_set(900, LARGE_BYTES) != KEYSPACE_WAIT) {
			ok(false, "try %u was not told to wait", i);
		}
		turns(1);
	}
	ok(moved() == 0, "G: replies of values that are gone are waited for");
	while (pinned > 0) {
		keyspace_unpin(f.keyspace, pins[--pinned]);
	}
	ok_int(set(900, LARGE_BYTES), KEYSPACE_OK, "G: then there is place");
	end("held");
}

int main(void)
{
	for (int persisted = 0; persisted < 2; persisted++) {
		test_patterns(persisted != 0);
		test_changed(persisted != 0);
		test_pins(persisted != 0);
		test_batch(persisted != 0);
		test_intake(persisted != 0);
	}
	test_views();
	test_revoked();
	test_random(tap_rounds(16, 2));
	test_undurable();
	test_given_up();
	test_less();
	test_refused();
	return tap_done();
}
