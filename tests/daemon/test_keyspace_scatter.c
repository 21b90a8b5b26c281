// SPDX-License-Identifier: MIT
//
// Large values that are left here and there must not keep a larger one out while bytes are free:
// whatever came and went before, what fits the memory fits their range. Those in the way are moved,
// and neither who reads them nor who changes them meanwhile notices.
#include <stdlib.h>

#include "daemon/keyspace_recount.h"
#include "shm/epoch.h"
#include "tests/daemon/keyspace_fixture.h"

#define LARGE_BYTES 1000000u
#define SMALL_BYTES 20000u
#define KEYS 1000u
#define ROUNDS 2000u

static struct fixture f;
static unsigned char bytes_of[LARGE_BYTES];
static size_t stays[KEYS]; // bytes of the value, 0 = there is none

static size_t name_of(char name[16], unsigned number)
{
	return (size_t)snprintf(name, 16, "%06u", number);
}

static const void *filled(unsigned number, size_t bytes)
{
	memset(bytes_of, (int)(number * 7 + 1), bytes);
	memcpy(bytes_of, &number, sizeof(number));
	return bytes_of;
}

static int try_set(unsigned number, size_t bytes)
{
	char name[16];
	return keyspace_set(f.keyspace, name, name_of(name, number), filled(number, bytes), bytes,
			    0, NULL);
}

// As a session does: waits for turns, in which commits succeed, and asks again.
static int set(unsigned number, size_t bytes)
{
	int result = try_set(number, bytes);
	for (unsigned i = 0; i < ROUNDS && result == KEYSPACE_WAIT; i++) {
		fixture_durable(&f);
		result = try_set(number, bytes);
	}
	stays[number % KEYS] = result == KEYSPACE_OK ? bytes : 0;
	return result;
}

static void drop(unsigned number)
{
	char name[16];
	(void)keyspace_delete(f.keyspace, name, name_of(name, number));
	stays[number % KEYS] = 0;
}

static const unsigned char *at_of(unsigned number)
{
	char name[16];
	struct keyspace_value value;
	return keyspace_get(f.keyspace, name, name_of(name, number), &value) == KEYSPACE_OK
		       ? value.value
		       : NULL;
}

static bool is_at(const unsigned char *at, unsigned number, size_t bytes)
{
	return at != NULL && memcmp(at, filled(number, bytes), bytes) == 0;
}

static uint64_t moved(void)
{
	return kvs_load_relaxed(kvs_counter_word(f.region.base, KVS_COUNTER_large_moved));
}

static void turns(unsigned count)
{
	while (count-- > 0) {
		fixture_durable(&f);
	}
}

// Everything that stays is whole, and all counts are what a fresh look finds.
static void all_well(const char *what)
{
	unsigned wrong = 0;
	struct keyspace_recount recount;
	for (unsigned i = 0; i < KEYS; i++) {
		wrong += stays[i] > 0 && !is_at(at_of(i), i, stays[i]);
	}
	ok_u64(wrong, 0, "%s: every other value is what it was", what);
	ok_int(keyspace_recount(f.keyspace, &recount), 0, "%s: recounted", what);
	ok(recount.differences == 0, "G: %s: nothing is miscounted (%s)", what, recount.first);
}

// Places in a row, of sizes that come round; of each cycle those in the mask stay.
struct pattern {
	const char *what;
	size_t sizes[6];
	unsigned sizes_count;
	unsigned cycle;
	uint64_t stay;
};

static const struct pattern few = { "few small ones", { SMALL_BYTES }, 1, 40, 1 };

static void scatter(const struct pattern *pattern)
{
	const struct kvs_range_bounds *range = &f.region.map.ranges[KVS_RANGE_LARGE];
	uint64_t bytes = 0, most = 0;
	unsigned i = 0, dropped = 0;
	for (;; i++) {
		size_t size = pattern->sizes[i % pattern->sizes_count];
		if (bytes + kvs_large_bytes(&f.region, size) > range->bytes_max) {
			break;
		}
		if (set(i, size) != KEYSPACE_OK) {
			tap_diag("number %u has no place", i);
		}
		bytes += kvs_large_bytes(&f.region, size);
		most = size > most ? size : most;
		// So many are there at a time: places are not used again at once.
		while ((i - dropped) * most > f.region.memory_bytes / 4) {
			if ((pattern->stay >> dropped % pattern->cycle & 1) == 0) {
				drop(dropped);
			}
			dropped++;
		}
	}
	for (; dropped + 1 < i; dropped++) { // the last one stays: behind it there is no place
		if ((pattern->stay >> dropped % pattern->cycle & 1) == 0) {
			drop(dropped);
		}
	}
	turns(50);
	ok(!kvs_large_has_place(&f.keyspace->large, LARGE_BYTES),
	   "values lie so that a larger one has no place: %" PRIu64 " of %" PRIu64 " bytes live",
	   f.keyspace->live_bytes, f.keyspace->memory_bytes);
}

static void begin(bool persisted, bool block)
{
	memset(stays, 0, sizeof(stays));
	fixture_look_step_ns = 2000;
	fixture_open_sized(&f, persisted, 1, FIXTURE_MEMORY_BYTES, block);
}

static void scattered(bool persisted, bool block)
{
	begin(persisted, block);
	scatter(&few);
}

static void end(const char *what)
{
	all_well(what);
	fixture_look_step_ns = 2000;
	for (unsigned i = 0; i < KEYS; i++) {
		drop(i);
	}
	turns(50);
	ok(f.region.large_bytes == 0 && f.keyspace->large.runs_count == 0,
	   "G: %s: no large memory is left over", what);
	fixture_close(&f);
}

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
	test_undurable();
	test_given_up();
	test_less();
	test_refused();
	return tap_done();
}
