// SPDX-License-Identifier: MIT
//
// The timing wheel against a naive model: a list of times. Items of all distances are put, removed
// behind its back and moved, time goes forward and back by little and by much, sweeps come between,
// and memory is refused. Nothing may come before its time, nothing may be late once the work is
// done, nothing may be lost, and the wheel must not sleep beyond the next time.
#include "daemon/wheel.h"

#include "daemon/reclaim.h"
#include "tests/daemon/refuse_mapped.h"
#include "tests/tap/tap.h"

#define ITEMS_MAX 600u
#define START_MS UINT64_C(1800000000000)
#define SLOT_MS (UINT64_C(1) << WHEEL_SLOT_SHIFT)
#define STEPS_MAX 100000u

// The place of an item is its index in the model, plus one.
struct rig {
	struct wheel wheel;
	struct reclaim reclaim;
	uint64_t time_ms[ITEMS_MAX]; // 0 = not there
	uint64_t now_ms;
	uint64_t random;
	unsigned early, late, lost, slept, looked, removed;
};

static uint64_t some(struct rig *rig, uint64_t below)
{
	return tap_random(&rig->random) % below;
}

// Everything is put again, as its owner would after a loss.
static void put_all(struct rig *rig)
{
	wheel_clear(&rig->wheel, &rig->reclaim);
	for (unsigned i = 0; i < ITEMS_MAX; i++) {
		if (rig->time_ms[i] != 0 &&
		    !wheel_put(&rig->wheel, i + 1, rig->time_ms[i], rig->now_ms)) {
			rig->lost++;
		}
	}
}

static void put_one(struct rig *rig, uint64_t place, uint64_t time_ms)
{
	if (!wheel_put(&rig->wheel, place, time_ms, rig->now_ms)) {
		put_all(rig);
	}
}

// An item came out of the lists. False if it could not be put again and everything was.
static bool settle(struct rig *rig, uint64_t item, enum wheel_work work)
{
	uint64_t place = wheel_item_place(item);
	uint64_t *time_ms = &rig->time_ms[place - 1];
	if (*time_ms == 0 || !wheel_item_agrees(item, *time_ms)) {
		return true; // out of date
	}
	if (work == WHEEL_DUE && *time_ms <= rig->now_ms) {
		*time_ms = 0;
		rig->removed++;
		return true;
	}
	rig->looked++;
	return wheel_put(&rig->wheel, place, *time_ms, rig->now_ms);
}

// A chunk of one list; some of it is put back. False if there was none.
static bool work_one(struct rig *rig, enum wheel_work work)
{
	if (work == WHEEL_SORT) {
		bool any = wheel_has(&rig->wheel, WHEEL_SORT);
		if (!wheel_sort(&rig->wheel, rig->now_ms)) {
			put_all(rig);
		}
		return any;
	}
	struct wheel_chunk *chunk = wheel_take(&rig->wheel, work);
	if (chunk == NULL) {
		return false;
	}
	uint32_t upto = some(rig, 4) == 0 ? 1 + (uint32_t)some(rig, chunk->count) : chunk->count;
	bool good = true;
	for (uint32_t i = 0; i < upto; i++) {
		good = settle(rig, chunk->items[i], work) && good;
	}
	wheel_put_back(&rig->wheel, work, chunk, upto);
	if (!good) {
		put_all(rig);
	}
	return true;
}

static void work_off(struct rig *rig)
{
	unsigned steps = 0;
	while (wheel_next_ms(&rig->wheel) == 0 && steps++ < STEPS_MAX) {
		(void)work_one(rig, (enum wheel_work)some(rig, WHEEL_WORKS));
	}
	rig->lost += wheel_next_ms(&rig->wheel) == 0;
}

// All is done that is to be done now: is it right?
static void check(struct rig *rig)
{
	uint64_t soonest_ms = UINT64_MAX;
	for (unsigned i = 0; i < ITEMS_MAX; i++) {
		uint64_t time_ms = rig->time_ms[i];
		if (time_ms != 0) {
			// What was put while time was a little back waits until that is over.
			bool back = rig->wheel.at_ms > rig->now_ms;
			rig->late += time_ms < rig->now_ms / SLOT_MS * SLOT_MS &&
				     (!back || time_ms + WHEEL_BACK_MS < rig->now_ms);
			soonest_ms = time_ms < soonest_ms ? time_ms : soonest_ms;
		}
	}
	uint64_t latest_ms = (soonest_ms / SLOT_MS + 1) * SLOT_MS;
	uint64_t next_ms = wheel_next_ms(&rig->wheel);
	rig->slept += soonest_ms != UINT64_MAX && next_ms > latest_ms &&
		      next_ms > rig->now_ms + WHEEL_BACK_MS + SLOT_MS;
	rig->lost += wheel_lag_ms(&rig->wheel, rig->now_ms) != 0;
}

static uint64_t distance(struct rig *rig)
{
	return tap_random(&rig->random) >> (2 + some(rig, 62));
}

static void write_some(struct rig *rig)
{
	for (unsigned n = (unsigned)some(rig, 60); n > 0; n--) {
		uint64_t place = 1 + some(rig, ITEMS_MAX);
		uint64_t time_ms = rig->now_ms + distance(rig);
		rig->time_ms[place - 1] = some(rig, 5) == 0 ? 0 : time_ms;
		if (rig->time_ms[place - 1] != 0) {
			put_one(rig, place, time_ms);
		}
	}
}

static void pass_time(struct rig *rig)
{
	uint64_t by_ms = distance(rig);
	switch (some(rig, 8)) {
	case 0:
		by_ms = by_ms < rig->now_ms / 2 ? by_ms : rig->now_ms / 2;
		rig->now_ms -= by_ms; // far back
		break;
	case 1:
		rig->now_ms -= rig->now_ms > 2 * WHEEL_BACK_MS ? some(rig, 2 * WHEEL_BACK_MS) : 0;
		break;
	case 2:
		rig->now_ms += by_ms < UINT64_C(1) << 50 ? by_ms : 0; // far forward
		break;
	default:
		rig->now_ms += some(rig, 5000);
		break;
	}
}

static void test_model(uint64_t seed, unsigned rounds)
{
	static struct rig rig;
	rig = (struct rig){ .random = seed, .now_ms = START_MS };
	rig.wheel.pool.reclaim = &rig.reclaim;
	for (unsigned round = 0; round < rounds; round++) {
		write_some(&rig);
		refuse = some(&rig, 16) == 0;
		pass_time(&rig);
		wheel_advance(&rig.wheel, rig.now_ms);
		if (some(&rig, 8) == 0) {
			(void)wheel_sweep(&rig.wheel, false);
		}
		if (some(&rig, 3) == 0) {
			(void)work_one(&rig, WHEEL_DUE);
			continue; // the rest stays for later
		}
		work_off(&rig);
		wheel_advance(&rig.wheel, rig.now_ms);
		work_off(&rig);
		check(&rig);
		if (round % 64 == 63) {
			rig.now_ms = START_MS; // or it runs away
		}
	}
	ok(rig.removed > rounds / 4, "%u are removed when their time has come", rig.removed);
	ok_int(rig.late, 0, "none is late");
	ok_int(rig.slept, 0, "the wheel never sleeps beyond a time");
	ok_int(rig.lost, 0, "no work is left over");
	refuse = 0;
	for (unsigned i = 0; i < 2; i++) { // the first ends one that was under way
		while (wheel_sweep(&rig.wheel, false)) {
		}
		work_off(&rig);
	}
	unsigned left = 0;
	for (unsigned i = 0; i < ITEMS_MAX; i++) {
		left += rig.time_ms[i] != 0;
	}
	ok(rig.wheel.items >= left && rig.wheel.items <= left + ITEMS_MAX / 8,
	   "a sweep leaves %llu items of %u", (unsigned long long)rig.wheel.items, left);
	wheel_fini(&rig.wheel);
	reclaim_finish(&rig.reclaim);
}

// A jump over everything is a step for each slot at most, and a whole slot is due as such.
static void test_jump(void)
{
	static struct rig rig;
	rig = (struct rig){ .random = 7, .now_ms = START_MS };
	for (unsigned i = 0; i < ITEMS_MAX; i++) {
		rig.time_ms[i] = START_MS + ((uint64_t)i << 30);
		put_one(&rig, i + 1, rig.time_ms[i]);
	}
	rig.now_ms = START_MS + (UINT64_C(1) << 45);
	wheel_advance(&rig.wheel, rig.now_ms);
	work_off(&rig);
	ok_int(rig.removed, ITEMS_MAX, "after a jump of a thousand years all are due");
	ok_int(rig.wheel.items, 0, "and nothing is left");
	wheel_fini(&rig.wheel);
}

// Below the fifth level nobody asks a record for its time.
static void test_sorted(void)
{
	static struct rig rig;
	rig = (struct rig){ .random = 7, .now_ms = START_MS };
	for (unsigned i = 0; i < ITEMS_MAX; i++) {
		rig.time_ms[i] = START_MS + (UINT64_C(1) << 29) - i * 50000;
		put_one(&rig, i + 1, rig.time_ms[i]);
	}
	for (unsigned steps = 0; rig.removed < ITEMS_MAX && steps < STEPS_MAX; steps++) {
		uint64_t next_ms = wheel_next_ms(&rig.wheel);
		rig.late += next_ms < rig.now_ms;
		rig.now_ms = next_ms;
		wheel_advance(&rig.wheel, rig.now_ms);
		work_off(&rig);
		check(&rig);
	}
	ok_int(rig.removed, ITEMS_MAX, "six days later all are gone");
	ok_int(rig.looked, 0, "and no record was asked for its time");
	ok(rig.wheel.sorted >= ITEMS_MAX && rig.wheel.sorted <= 3 * ITEMS_MAX,
	   "each item went down at most three times (%llu)", (unsigned long long)rig.wheel.sorted);
	ok_int(rig.late + rig.slept, 0, "at their time");
	wheel_fini(&rig.wheel);
}

static void test_memory(void)
{
	enum { MANY = 400000 };
	struct wheel wheel = { 0 };
	struct reclaim reclaim = { 0 };
	unsigned failed = 0;
	wheel.pool.reclaim = &reclaim;
	for (unsigned round = 0; round < 2; round++) {
		uint64_t now_ms = START_MS + round * 100000;
		for (unsigned i = 0; i < MANY; i++) {
			failed += !wheel_put(&wheel, i, now_ms + i % 10000, now_ms);
		}
		ok(wheel_pool_bytes(&wheel.pool) < MANY * 10u + (3u << 20), "%zu bytes a thousand",
		   wheel_pool_bytes(&wheel.pool) / (MANY / 1000));
		wheel_advance(&wheel, now_ms + 20000);
		struct wheel_chunk *chunk;
		while ((chunk = wheel_take(&wheel, WHEEL_DUE)) != NULL) {
			wheel_drop(&wheel, chunk);
		}
		ok_int(wheel.items, 0, "all are taken");
		ok(wheel_pool_bytes(&wheel.pool) <= WHEEL_ARENA_CHUNKS * 256u,
		   "and their memory is given back, but for one arena");
		while (reclaim_turn(&reclaim)) {
		}
	}
	ok_int(failed, 0, "all were put");
	refuse = 1;
	for (unsigned i = 0; i < MANY && failed == 0; i++) {
		failed += !wheel_put(&wheel, i, START_MS + 200000 + i, START_MS + 200000);
	}
	ok(failed == 1 && refuse == 0, "what there is no memory for is refused");
	wheel_clear(&wheel, &reclaim);
	ok_int(wheel.items, 0, "nothing is left of the others");
	ok(wheel_next_ms(&wheel) == UINT64_MAX, "nor anything to be done");
	ok(wheel_put(&wheel, 1, START_MS + 300000, START_MS + 200000), "it serves on");
	wheel_fini(&wheel);
	reclaim_finish(&reclaim);
}

int main(void)
{
	uint64_t seed = tap_seed(1);
	for (unsigned i = 0; i < 8; i++) {
		test_model(seed + i, tap_rounds(3000, 300));
	}
	test_jump();
	test_sorted();
	test_memory();
	return tap_done();
}
