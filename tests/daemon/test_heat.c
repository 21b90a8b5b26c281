// SPDX-License-Identifier: MIT
//
// Counts and ghosts against models that remember everything.
#include "daemon/heat.h"

#include <string.h>

#include "tests/tap/tap.h"

#define START (1u << 20)
#define BYTES (256u << 10)
#define PLACES (BYTES / HEAT_GRANULE_BYTES)

static void test_counts(uint64_t seed)
{
	static unsigned char model[PLACES];
	struct heat heat;
	uint64_t random = seed;
	unsigned wrong = 0;
	ok(heat_open(&heat, START, BYTES, 1000), "open");
	for (unsigned i = 0; i < 200000; i++) {
		unsigned place = (unsigned)(tap_random(&random) % PLACES);
		// A record may begin anywhere in its place, at a multiple of 8.
		uint64_t offset = START + place * HEAT_GRANULE_BYTES + tap_random(&random) % 4 * 8;
		unsigned what = (unsigned)(tap_random(&random) % 16);
		if (what < 10) {
			heat_warm(&heat, offset);
			model[place] += model[place] < HEAT_MAX;
		} else if (what < 14) {
			unsigned count = (unsigned)(tap_random(&random) % 6);
			heat_set(&heat, offset, count);
			model[place] = (unsigned char)(count < HEAT_MAX ? count : HEAT_MAX);
		} else if (i % 64 == 0) {
			unsigned from = place / 64 * 64;
			heat_cool(&heat, START + from * HEAT_GRANULE_BYTES,
				  64 * HEAT_GRANULE_BYTES);
			memset(model + from, 0, 64);
		}
		wrong += heat_of(&heat, offset) != model[place];
	}
	for (unsigned i = 0; i < PLACES; i++) {
		wrong += heat_of(&heat, START + i * HEAT_GRANULE_BYTES) != model[i];
	}
	ok_u64(wrong, 0, "every count is that of its place alone");
	const uint64_t outside[] = { 0, START - 8, START + BYTES, UINT64_MAX, UINT64_MAX - 7 };
	for (unsigned i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
		heat_warm(&heat, outside[i]);
		heat_set(&heat, outside[i], 2);
		heat_cool(&heat, outside[i], 4096);
		wrong += heat_of(&heat, outside[i]) != 0;
	}
	heat_cool(&heat, START, BYTES + 128);
	for (unsigned i = 0; i < PLACES; i++) {
		wrong += heat_of(&heat, START + i * HEAT_GRANULE_BYTES) != model[i];
	}
	ok_u64(wrong, 0, "what is no place of the log changes nothing");
	heat_close(&heat);
	heat_close(&heat);
	ok_u64(heat_of(&heat, START), 0, "closed, all is cold");
}

// Those within half of the reach are remembered, those beyond twice of it are not.
static void test_ghosts(uint64_t seed)
{
	enum { COUNT = 60000, KEPT = 16384, REACH = 4096 };
	static uint64_t hashes[COUNT];
	struct heat heat;
	uint64_t random = seed;
	unsigned missed = 0, stale = 0, strange = 0;
	ok(heat_open(&heat, START, BYTES, KEPT), "open");
	for (unsigned i = 0; i < COUNT; i++) {
		hashes[i] = tap_random(&random);
		heat_ghost_add(&heat, hashes[i]);
		if (i > 4 * REACH) {
			missed += !heat_ghost_has(
				&heat, hashes[i - tap_random(&random) % (REACH / 2)], REACH);
			stale += heat_ghost_has(
				&heat, hashes[i - 2 * REACH - tap_random(&random) % REACH], REACH);
			strange += heat_ghost_has(&heat, tap_random(&random), REACH);
		}
	}
	// Sets fill by chance: of a mean of 4 in half the reach few have more, at the seed given.
	ok(missed * 20 < COUNT, "%u of the young are forgotten", missed);
	ok(stale * 10 < COUNT, "%u of the old are not", stale);
	ok(strange * 1000 < COUNT, "%u that never were are taken for one", strange);
	ok(!heat_ghost_has(&heat, hashes[COUNT - 1], 0), "no reach, no ghost");
	ok(heat_ghost_has(&heat, hashes[COUNT - 1], 1), "the newest is one");
	ok(heat_ghost_has(&heat, hashes[COUNT - 1], UINT64_MAX), "any reach is bounded");
	heat_close(&heat);
}

// More are remembered once there is room for more.
static void test_growth(uint64_t seed)
{
	enum { COUNT = 8192, FEW = 1024 };
	static uint64_t hashes[COUNT];
	struct heat heat;
	uint64_t random = seed;
	unsigned missed[2] = { 0 };
	ok(heat_open(&heat, START, BYTES, FEW), "open");
	heat_warm(&heat, START);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			hashes[i] = tap_random(&random);
			heat_ghost_add(&heat, hashes[i]);
		}
		for (unsigned i = 0; i < COUNT; i++) {
			missed[round] += !heat_ghost_has(&heat, hashes[i], COUNT);
		}
		heat_ghosts_grow(&heat, UINT64_C(2) * COUNT);
		ok(round == 1 || (!heat.has_ghosts && !heat_ghost_has(&heat, hashes[0], COUNT)),
		   "round %u: those of before are not known any more", round);
	}
	ok(missed[0] > COUNT / 2 && missed[1] < COUNT / 4, "%u were forgotten, then %u", missed[0],
	   missed[1]);
	ok_u64(heat_of(&heat, START), 1, "counts stay");
	heat_ghosts_grow(&heat, FEW);
	ok(heat.has_ghosts, "less is no change");
	heat_close(&heat);
}

int main(void)
{
	uint64_t seed = tap_seed(0x4ea7);
	test_counts(seed);
	test_ghosts(seed);
	test_growth(seed);
	return tap_done();
}
