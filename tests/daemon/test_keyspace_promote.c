// SPDX-License-Identifier: MIT
//
// Large values come back in slices: no slice is longer than it may be, nobody sees a part of one,
// and whatever becomes of the key, of memory or of kvd in between, the run that was being filled is
// the value's or free again.
#include "daemon/keyspace_promote.h"

#include <unistd.h>

#include "daemon/keyspace_recount.h"
#include "shm/adopt.h"
#include "shm/crc32c.h"
#include "tests/daemon/keyspace_fixture.h"

#define LARGE_BYTES (1000u << 10)
#define CHUNK_BYTES (128u << 10)
#define SMALL_KEYS 400u
#define MEMORY_BYTES (16u << 20)
#define STAYING_BYTES 20000u // has a run
#define STAYING_KEYS 2000u   // more than there is room for

static uint64_t judged;
static unsigned half; // passes of the labelled point

void __wrap_seam_crash_slow(enum seam_crash_point point);
void __wrap_seam_crash_slow(enum seam_crash_point point)
{
	half += point == SEAM_CRASH_value_half_promoted;
}

static const unsigned char *large_value(void)
{
	static unsigned char value[LARGE_BYTES];
	for (size_t i = 0; i < sizeof(value); i++) {
		value[i] = (unsigned char)(i * 7 + (i >> 9));
	}
	return value;
}

static struct kvs_hit hit_of(const struct fixture *f, const char *key)
{
	struct kvs_hit hit = { 0 };
	uint64_t hash = keyspace_hash(f->keyspace, key, strlen(key));
	if (keyspace_find(f->keyspace, hash, key, strlen(key), &hit) != KVS_FIND_HIT) {
		hit = (struct kvs_hit){ 0 };
	}
	return hit;
}

static bool spill(const struct fixture *f, const char *key)
{
	struct kvs_hit hit = hit_of(f, key);
	kvs_store_relaxed((uint64_t *)(uintptr_t)&hit.view.record->place, kvs_place_make(9, 48));
	return keyspace_spill(f->keyspace, key, strlen(key)) == KEYSPACE_COLD_DONE;
}

static void turn_until_quiet(struct fixture *f)
{
	fixture_durable(f);
	for (unsigned turns = 0; turns < 20000; turns++) {
		cleaner_turn(f->keyspace, fixture_monotonic_ns());
		if (cleaner_next_ns(f->keyspace) == UINT64_MAX) {
			return;
		}
	}
}

static struct keyspace_loaded loaded_of(const struct fixture *f, const char *key, const void *value,
					size_t bytes)
{
	return (struct keyspace_loaded){ key, strlen(key), hit_of(f, key).view.seq, value, bytes };
}

// A large value that is in the store alone.
static struct keyspace_loaded open_cold(struct fixture *f)
{
	judged = 1;
	fixture_open_sized(f, true, 5, MEMORY_BYTES, false);
	keyspace_set_judged(f->keyspace, &judged);
	(void)keyspace_set(f->keyspace, "large", 5, large_value(), LARGE_BYTES,
			   fixture_wall_ms + 1000000, NULL);
	fixture_durable(f);
	ok(spill(f, "large"), "a large value leaves memory");
	turn_until_quiet(f);
	ok_u64(f->keyspace->large.runs_count, 0, "so does its run");
	return loaded_of(f, "large", large_value(), LARGE_BYTES);
}

static void ok_counts(const struct fixture *f, const char *when)
{
	struct keyspace_recount recount;
	ok_int(keyspace_recount(f->keyspace, &recount), 0, "%s: all is counted anew", when);
	ok(recount.differences == 0, "%s: as it is counted: %s", when, recount.first);
}

// The first half of it. False: it was over before.
static bool begin(const struct fixture *f, const struct keyspace_loaded *loaded,
		  struct keyspace_promotion *promotion)
{
	while (promotion->done < loaded->value_bytes / 2) {
		if (keyspace_promote(f->keyspace, loaded, promotion, 0) != KEYSPACE_COLD_MORE) {
			return false;
		}
	}
	return true;
}

static void test_slices(void)
{
	struct fixture f;
	struct keyspace_loaded loaded = open_cold(&f);
	struct keyspace_promotion promotion = { 0 };
	struct keyspace_value value;
	enum keyspace_cold_result result = KEYSPACE_COLD_MORE;
	uint64_t live_bytes = keyspace_live_bytes(f.keyspace), before = 0;
	unsigned slices = 0, longest = 0, seen = 0;
	seam_crash_armed = 1;
	while (result == KEYSPACE_COLD_MORE && slices < 100) {
		result = keyspace_promote(f.keyspace, &loaded, &promotion, 0);
		uint64_t copied = promotion.done - before;
		longest = result == KEYSPACE_COLD_MORE && copied > longest ? (unsigned)copied
									   : longest;
		before = promotion.done;
		slices++;
		seen += result == KEYSPACE_COLD_MORE &&
			keyspace_get(f.keyspace, "large", 5, &value) != KEYSPACE_COLD;
		keyspace_cold_over(f.keyspace);
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
	}
	seam_crash_armed = 0;
	ok(result == KEYSPACE_COLD_DONE, "G: it comes back in %u slices", slices);
	ok(longest > 0 && longest <= CHUNK_BYTES, "of %u bytes at most", longest);
	ok(half >= LARGE_BYTES / CHUNK_BYTES, "each of them can be killed in");
	ok_u64(seen, 0, "A: nobody sees a part of it");
	struct kvs_hit hit = hit_of(&f, "large");
	ok(hit.view.seq == loaded.seq && hit.value != NULL &&
		   memcmp(hit.value, large_value(), LARGE_BYTES) == 0 &&
		   kvs_record_run(&hit.view).crc == kvs_crc32c(0, large_value(), LARGE_BYTES),
	   "A: then the whole value is there, with its version and its checksum");
	ok(keyspace_live_bytes(f.keyspace) == live_bytes && keyspace_count_stubs(f.keyspace) == 0 &&
		   f.keyspace->large.runs_count == 1,
	   "and all counts");
	ok_counts(&f, "it is back");
	ok(keyspace_promote(f.keyspace, &loaded, &promotion, 0) == KEYSPACE_COLD_OTHER,
	   "what is back does not come back");
	fixture_close(&f);
}

// By one long slice, and one of a length between.
static void test_until(void)
{
	struct fixture f;
	struct keyspace_loaded loaded = open_cold(&f);
	struct keyspace_promotion promotion = { 0 };
	ok(keyspace_promote(f.keyspace, &loaded, &promotion,
			    fixture_now_ns + 4 * fixture_look_step_ns) == KEYSPACE_COLD_MORE &&
		   promotion.done >= CHUNK_BYTES && promotion.done < LARGE_BYTES,
	   "a slice is as long as it is given: %" PRIu64 " bytes", promotion.done);
	ok(keyspace_promote(f.keyspace, &loaded, &promotion, UINT64_MAX) == KEYSPACE_COLD_DONE,
	   "all at once");
	fixture_close(&f);
}

enum fate { REPLACED, REMOVED, FLUSHED, ENDED, RETURNED, DROPPED, FATES };

static const char *const fates[FATES] = {
	"replaced", "removed", "flushed", "its time came", "brought back by another", "given up"
};

static void meet(struct fixture *f, enum fate fate, const struct keyspace_loaded *loaded,
		 struct keyspace_promotion *promotion)
{
	struct keyspace_promotion other = { 0 };
	switch (fate) {
	case REPLACED:
		(void)keyspace_set(f->keyspace, "large", 5, "newer", 5, 0, NULL);
		break;
	case REMOVED:
		(void)keyspace_delete(f->keyspace, "large", 5);
		break;
	case FLUSHED:
		(void)keyspace_flush(f->keyspace);
		break;
	case ENDED:
		fixture_wall_ms += 2000000;
		keyspace_tick(f->keyspace);
		turn_until_quiet(f);
		fixture_wall_ms -= 2000000;
		break;
	case RETURNED:
		(void)keyspace_promote(f->keyspace, loaded, &other, UINT64_MAX);
		break;
	default:
		keyspace_promote_drop(f->keyspace, promotion);
		break;
	}
}

static void test_fates(void)
{
	for (int fate = 0; fate < FATES; fate++) {
		struct fixture f;
		struct keyspace_loaded loaded = open_cold(&f);
		struct keyspace_promotion promotion = { 0 };
		ok(begin(&f, &loaded, &promotion), "half of it is there");
		ok_counts(&f, "half of it");
		meet(&f, (enum fate)fate, &loaded, &promotion);
		ok(fate == DROPPED || keyspace_promote(f.keyspace, &loaded, &promotion, 0) ==
					      KEYSPACE_COLD_OTHER,
		   "A: %s meanwhile: it does not come back", fates[fate]);
		ok(promotion.run_offset == 0 && promotion.done == 0, "and can begin anew");
		turn_until_quiet(&f);
		ok_u64(f.keyspace->large.runs_count, fate == RETURNED, "G: its run is free");
		ok_counts(&f, fates[fate]);
		fixture_close(&f);
	}
}

static void set_small(struct fixture *f, unsigned i, const unsigned char *value)
{
	char key[16];
	(void)snprintf(key, sizeof(key), "s%u", i);
	(void)keyspace_set(f->keyspace, key, strlen(key), value, 100 + i % 150, 0, NULL);
}

// Small values that leave memory and come back use up the open survivor segment, until what it has
// left is too short for the record of a large one.
static bool fill_survivor(struct fixture *f, const unsigned char *value)
{
	const struct kvs_log *log = &f->keyspace->log;
	uint64_t record_bytes = kvs_record_bytes(5, sizeof(struct kvs_run), true);
	for (unsigned i = 0; i < 2 * SMALL_KEYS; i++) {
		char key[16];
		(void)snprintf(key, sizeof(key), "s%u", i / 2);
		if (i % 2 == 0) {
			(void)spill(f, key);
		} else {
			struct keyspace_loaded loaded = loaded_of(f, key, value, 100 + i / 2 % 150);
			struct keyspace_promotion promotion = { 0 };
			(void)keyspace_promote(f->keyspace, &loaded, &promotion, UINT64_MAX);
		}
		if (log->survivor.segment != KVS_SEGMENT_NONE &&
		    f->keyspace->region->segment_bytes - log->survivor.offset < record_bytes) {
			return true;
		}
	}
	return false;
}

// Writes come in between, and what is left is theirs.
static void test_no_room(void)
{
	static const unsigned char filler[16000];
	struct fixture f;
	struct keyspace_loaded loaded = open_cold(&f);
	struct keyspace_promotion promotion = { 0 };
	unsigned more = 0;
	char key[16];
	ok(begin(&f, &loaded, &promotion), "half of it is there");
	for (unsigned i = 0; i < SMALL_KEYS; i++) {
		set_small(&f, i, filler);
	}
	do {
		(void)snprintf(key, sizeof(key), "m%u", more++);
		fixture_durable(&f);
	} while (keyspace_set(f.keyspace, key, strlen(key), filler, sizeof(filler), 0, NULL) ==
		 KEYSPACE_OK);
	ok(fill_survivor(&f, filler), "%u writes, and a segment that is full", more);
	uint32_t free = kvs_log_segments_free(&f.keyspace->log);
	enum keyspace_cold_result result;
	do {
		result = keyspace_promote(f.keyspace, &loaded, &promotion, 0);
	} while (result == KEYSPACE_COLD_MORE);
	ok(result == KEYSPACE_COLD_NO_ROOM && hit_of(&f, "large").kind == KVS_ENTRY_STUB,
	   "G: no reserve is used for a value that comes back");
	ok_u64(kvs_log_segments_free(&f.keyspace->log), free, "as many segments are free");
	fixture_durable(&f);
	while (f.keyspace->limbo.count > 0) {
		cleaner_turn(f.keyspace, fixture_monotonic_ns());
	}
	ok_u64(f.keyspace->large.runs_count, 0, "and its run is, too");
	ok_counts(&f, "without room");
	ok(keyspace_promote(f.keyspace, &loaded, &promotion, 0) == KEYSPACE_COLD_MORE ||
		   promotion.run_offset == 0,
	   "it may be tried again");
	keyspace_promote_drop(f.keyspace, &promotion);
	fixture_close(&f);
}

// kvd is killed in the middle.
static void test_killed(void)
{
	struct fixture f;
	struct kvs_region region;
	struct kvs_adopt plan;
	struct keyspace_loaded loaded = open_cold(&f);
	struct keyspace_promotion promotion = { 0 };
	ok(begin(&f, &loaded, &promotion), "half of it is there");
	struct kvs_region_options options = { .memory_bytes = MEMORY_BYTES,
					      .segment_bytes = FIXTURE_SEGMENT_BYTES,
					      .fenced = true };
	ok_int(kvs_region_adopt(&region, dup(f.region.fd), &options), KVS_REGION_OK, "a region");
	ok_int(kvs_adopt_plan(&plan, &region, loaded.seq), 0, "F: it can be taken over");
	ok(plan.stubs == 1 && plan.runs_count == 0 && plan.damaged_count == 0,
	   "F: with the stub, and no run");
	kvs_adopt_fini(&plan);
	kvs_region_close(&region);
	fixture_close(&f);
}

static unsigned heat_now(const struct fixture *f, const struct keyspace_loaded *loaded)
{
	struct keyspace_promotion promotion = { 0 };
	(void)keyspace_promote(f->keyspace, loaded, &promotion, UINT64_MAX);
	unsigned heat =
		heat_of(&f->keyspace->evict.heat, kvs_entry_offset(hit_of(f, "large").entry));
	ok(hit_of(f, "large").value != NULL, "it is back");
	(void)spill(f, "large");
	return heat;
}

// Who walks through everything once must not take the place of what is read all the time.
static void test_heat(void)
{
	static const unsigned char value[200];
	const struct keyspace_eviction how = { .on = true, .spills = true };
	struct fixture f;
	struct keyspace_loaded loaded = open_cold(&f);
	struct heat *heat = &f.keyspace->evict.heat;
	uint64_t hash = keyspace_hash(f.keyspace, "large", 5);
	char key[16];
	unsigned stubs = 0;
	ok(keyspace_set_eviction(f.keyspace, &how), "values are spilled when memory is full");
	(void)keyspace_set(f.keyspace, "other", 5, value, sizeof(value), 0, NULL);
	ok_u64(heat_now(&f, &loaded), 0, "what comes back is on trial");
	heat_ghost_add(heat, hash);
	ok_u64(heat_now(&f, &loaded), 1, "unless it left lately");
	for (unsigned i = 0; i < heat->ghost_sets + 1; i++) {
		(void)snprintf(key, sizeof(key), "s%u", i);
		(void)keyspace_set(f.keyspace, key, strlen(key), value, sizeof(value), 0, NULL);
	}
	fixture_durable(&f);
	heat_ghost_add(heat, hash ^ UINT64_C(1) << 60); // as if as many had left since
	ok_u64(heat_now(&f, &loaded), 1, "that is as many as have values in memory");
	for (unsigned i = 0; i < heat->ghost_sets + 1; i++) {
		(void)snprintf(key, sizeof(key), "s%u", i);
		stubs += spill(&f, key);
	}
	ok_u64(heat_now(&f, &loaded), 0, "of which %u are less", stubs);
	fixture_close(&f);
}

static enum keyspace_cold_result there_and_back(struct fixture *f, const char *key)
{
	static const unsigned char value[STAYING_BYTES];
	const struct keyspace_loaded loaded = loaded_of(f, key, value, sizeof(value));
	struct keyspace_promotion promotion = { 0 };
	return spill(f, key) ? keyspace_promote(f->keyspace, &loaded, &promotion, UINT64_MAX)
			     : KEYSPACE_COLD_OTHER;
}

// What will not leave again must not take what writes could have.
static void test_stays(void)
{
	static const unsigned char value[STAYING_BYTES];
	static const struct keyspace_eviction hows[] = {
		{ .on = false },
		{ .on = true, .volatile_only = true },
		{ .on = true, .spills = true, .never = "lasts" },
	};
	for (unsigned i = 0; i < 3; i++) {
		struct fixture f;
		char key[16];
		unsigned more = 0;
		(void)open_cold(&f);
		const struct kvs_log *log = &f.keyspace->log;
		(void)keyspace_set(f.keyspace, "lasts", 5, value, sizeof(value), 0, NULL);
		(void)keyspace_set(f.keyspace, "ends", 4, value, sizeof(value),
				   fixture_wall_ms + 1000000, NULL);
		fixture_durable(&f);
		ok(keyspace_set_eviction(f.keyspace, &hows[i]), "a policy");
		ok(there_and_back(&f, "lasts") == KEYSPACE_COLD_DONE, "where memory is free");
		while (kvs_log_segments_free(log) > MEMORY_BYTES / FIXTURE_SEGMENT_BYTES / 4 &&
		       more < STAYING_KEYS) {
			(void)snprintf(key, sizeof(key), "m%u", more++);
			(void)keyspace_set(f.keyspace, key, strlen(key), value, sizeof(value), 0,
					   NULL);
			fixture_durable(&f);
		}
		ok(there_and_back(&f, "lasts") == KEYSPACE_COLD_NO_ROOM,
		   "G: nothing that stays comes back behind %u more", more);
		ok((there_and_back(&f, "ends") == KEYSPACE_COLD_DONE) == hows[i].on,
		   "what can go again does");
		fixture_close(&f);
	}
}

// Reads alone, too, leave an order behind by which segments have their turn.
static void test_order(void)
{
	static const unsigned char value[4000];
	struct fixture f;
	char key[16];
	unsigned taken = 0, rising = 0;
	uint64_t last = 0;
	(void)open_cold(&f);
	const struct kvs_log *log = &f.keyspace->log;
	for (unsigned i = 0; i < 80; i++) {
		(void)snprintf(key, sizeof(key), "s%u", i);
		(void)keyspace_set(f.keyspace, key, strlen(key), value, sizeof(value), 0, NULL);
	}
	fixture_durable(&f);
	for (unsigned i = 0; i < 80; i++) {
		(void)snprintf(key, sizeof(key), "s%u", i);
		struct keyspace_loaded loaded = loaded_of(&f, key, value, sizeof(value));
		struct keyspace_promotion promotion = { 0 };
		uint32_t before = log->survivor.segment;
		(void)spill(&f, key);
		(void)keyspace_promote(f.keyspace, &loaded, &promotion, UINT64_MAX);
		if (log->survivor.segment != before) {
			uint64_t order = log->segments[log->survivor.segment].order;
			rising += order > last;
			last = order;
			taken++;
		}
	}
	ok(taken >= 4 && rising == taken, "%u segments are taken one behind the other", taken);
	fixture_close(&f);
}

int main(void)
{
	test_order();
	test_stays();
	test_heat();
	test_slices();
	test_until();
	test_fates();
	test_no_room();
	test_killed();
	return tap_done();
}
