// SPDX-License-Identifier: MIT
//
// Active expiry while wall time is set forward and back and while memory is refused: no key goes
// before its time, none stays for long behind it, and none is forgotten. At the end everything at
// once against a model.
#include "tests/daemon/expire_fixture.h"

// Where somebody tells that wall time was set nobody looks.
static void test_watched(struct fixture *f)
{
	// The beginning of a slot of the third level: no item goes down within the next minutes.
	fixture_wall_ms = ((fixture_wall_ms >> (WHEEL_SLOT_SHIFT + 2 * WHEEL_DIGIT_BITS)) + 1)
			  << (WHEEL_SLOT_SHIFT + 2 * WHEEL_DIGIT_BITS);
	keyspace_watch_clock(f->keyspace, true);
	ok(set_one(f, 1, fixture_wall_ms + 60000), "a key of a minute");
	(void)turns(f);
	uint64_t due_ns = expire_turn(f->keyspace, now_ns);
	ok(due_ns > now_ns + 30 * CLOCK_NS && due_ns <= now_ns + 61 * CLOCK_NS,
	   "nothing is looked at before its time is near");
	fixture_wall_ms += 61000;
	(void)turns(f);
	ok_int(f->keyspace->keys, 1, "nobody knows that time was set forward");
	keyspace_clock_was_set(f->keyspace);
	(void)turns(f);
	ok_int(f->keyspace->keys, 0, "who is told looks at once");
	ok(set_one(f, 1, fixture_wall_ms + 60000), "another one");
	(void)turns(f);
	fixture_wall_ms -= 3600000;
	keyspace_clock_was_set(f->keyspace);
	(void)turns(f);
	pass((3600000 + 60000 + SLOT_MS) * MS_NS);
	(void)turns(f);
	ok_int(f->keyspace->keys, 0, "back an hour, it goes at its time by this clock");
	keyspace_watch_clock(f->keyspace, false);
	ok(set_one(f, 1, fixture_wall_ms + 60000), "when nobody tells any more");
	(void)turns(f);
	ok(expire_turn(f->keyspace, now_ns) <= now_ns + CLOCK_NS, "there is a look each second");
	ok(delete_one(f, 1), "the key is removed");
	(void)turns(f);
}

// Wall time is set.
static void test_clock(struct fixture *f)
{
	unsigned wrong = 0;
	uint64_t start_ms = fixture_wall_ms;
	for (unsigned i = 0; i < KEYS; i++) {
		wrong += !set_one(f, i, start_ms + 1000 * (1 + i));
	}
	fixture_wall_ms += 1000 * KEYS / 2 + SLOT_MS;
	now_ns += CLOCK_NS;
	(void)turns(f);
	ok_int(f->keyspace->keys, KEYS / 2, "time jumps forward: those that are due go at once");
	fixture_wall_ms = start_ms;
	now_ns += CLOCK_NS;
	(void)turns(f);
	ok_int(f->keyspace->keys, KEYS / 2, "and back: what is gone stays gone, the others live");
	ok(is_whole(f), "and are known");
	ok(set_one(f, KEYS, start_ms + 3000), "one is written");
	pass(3000 * MS_NS + CLOCK_NS);
	(void)turns(f);
	ok_int(f->keyspace->keys, KEYS / 2, "it goes at its time by this clock");
	unsigned early = 0;
	for (unsigned i = 0; i < 500 && f->keyspace->keys > 0; i++) {
		uint64_t due = (fixture_wall_ms - start_ms) / 1000;
		early += due < KEYS && f->keyspace->keys < KEYS - (due > KEYS / 2 ? due : KEYS / 2);
		pass(CLOCK_NS);
		(void)turns(f);
	}
	ok_int(early, 0, "none of the others goes before its time");
	ok_int(f->keyspace->keys, 0, "and each at its time");
	for (unsigned i = 0; i < KEYS; i++) {
		wrong += !set_one(f, i, fixture_wall_ms + YEAR_MS * 3 + i);
	}
	for (unsigned i = 0; i < 100; i++) {
		fixture_wall_ms -= i % 2 ? YEAR_MS * 2 : 0;
		fixture_wall_ms += i % 2 ? 0 : YEAR_MS * 2;
		now_ns += CLOCK_NS;
		(void)expire_turn(f->keyspace, now_ns);
	}
	(void)turns(f);
	ok_int(f->keyspace->keys, KEYS, "whoever sets it forth and back for long loses nothing");
	ok(is_whole(f), "and all are known");
	fixture_wall_ms += YEAR_MS * 50;
	now_ns += CLOCK_NS;
	(void)turns(f);
	ok_int(f->keyspace->keys, 0, "fifty years later all are gone");
	fixture_wall_ms -= YEAR_MS * 50;
	now_ns += CLOCK_NS;
	ok(set_one(f, 1, INT64_MAX) && set_one(f, 2, fixture_wall_ms + 1000), "the last time");
	pass(3 * CLOCK_NS);
	(void)turns(f);
	ok_int(f->keyspace->keys, 1, "is not over yet");
	ok(delete_one(f, 1), "the key is removed");
	ok_int(wrong, 0, "all was written");
}

// Without memory for the index a walk does its work, and fills it once there is some.
static void test_memory(struct fixture *f)
{
	unsigned wrong = 0;
	uint64_t walks = counted(f, KVS_COUNTER_expiry_walks);
	wheel_fini(&f->keyspace->expire.wheel); // as if it had never held anything
	refuse = UINT32_MAX;
	for (unsigned i = 0; i < KEYS; i++) {
		wrong += !set_one(f, i, fixture_wall_ms + (i % 2 ? 5000 : 60000));
	}
	ok(f->keyspace->expire.partial, "there is no memory for the index");
	ok(turns(f) > 1, "the table is walked");
	pass(6000 * MS_NS);
	(void)turns(f);
	ok_int(f->keyspace->keys, KEYS / 2, "what is due is found without it");
	ok(set_one(f, KEYS, fixture_wall_ms + 100), "a key is written");
	pass(200 * MS_NS);
	(void)turns(f);
	ok_int(f->keyspace->keys, KEYS / 2, "and found");
	refuse = 0;
	for (unsigned i = 0; i < 12; i++) {
		pass(CLOCK_NS);
		(void)turns(f);
	}
	ok(is_whole(f), "once there is memory, the index is whole again");
	ok(counted(f, KVS_COUNTER_expiry_walks) > walks + 2, "by a walk");
	walks = counted(f, KVS_COUNTER_expiry_walks);
	expire_lose(f->keyspace);
	ok(set_one(f, KEYS + 1, fixture_wall_ms + 1000), "it is lost, a key is written at once");
	(void)turns(f);
	ok(is_whole(f), "and it is whole again");
	ok_int(counted(f, KVS_COUNTER_expiry_walks), walks + 1, "by one walk");
	ok_int(wrong, 0, "no write failed for it");
	pass(60000 * MS_NS);
	(void)turns(f);
	ok_int(f->keyspace->keys, 0, "all go at their time");
}

// A model of which keys there are, under everything at once.
static void test_model(struct fixture *f, uint64_t seed)
{
	static uint64_t expiry_ms[KEYS]; // UINT64_MAX = it has none, 0 = no such key
	uint64_t random = seed;
	unsigned late = 0, lost = 0, wrong = 0, broken = 0;
	memset(expiry_ms, 0, sizeof(expiry_ms));
	for (unsigned round = tap_rounds(1500, 100); round > 0; round--) {
		for (unsigned n = (unsigned)(tap_random(&random) % 40); n > 0; n--) {
			unsigned key = (unsigned)(tap_random(&random) % KEYS);
			uint64_t after_ms = tap_random(&random) >> (20 + tap_random(&random) % 40);
			bool ends = tap_random(&random) % 4 != 0;
			expiry_ms[key] = ends ? fixture_wall_ms + 1 + after_ms : UINT64_MAX;
			wrong += !set_one(f, key, ends ? expiry_ms[key] : 0);
		}
		uint64_t jump_ms = tap_random(&random) >> (24 + tap_random(&random) % 40);
		switch (tap_random(&random) % 8) {
		case 0:
			fixture_wall_ms += jump_ms;
			break;
		case 1:
			fixture_wall_ms -= jump_ms < fixture_wall_ms / 2 ? jump_ms : 0;
			break;
		case 2:
			refuse = 1;
			expire_lose(f->keyspace);
			break;
		default:
			break;
		}
		pass(tap_random(&random) % 3000 * MS_NS);
		fixture_durable(f);
		(void)turns(f);
		pass((WHEEL_BACK_MS + CLOCK_NS / MS_NS) * MS_NS);
		(void)turns(f);
		keyspace_tick(f->keyspace);
		uint64_t there = 0;
		for (unsigned key = 0; key < KEYS; key++) {
			there += expiry_ms[key] > fixture_wall_ms;
			expiry_ms[key] = expiry_ms[key] > fixture_wall_ms ? expiry_ms[key] : 0;
		}
		lost += f->keyspace->keys < there;
		late += f->keyspace->keys > there + KEYS / 20;
		broken += !f->keyspace->expire.partial && round % 16 == 0 && !is_whole(f);
		if (fixture_wall_ms > UINT64_C(1) << 43) {
			fixture_wall_ms = 1800000000000;
		}
	}
	ok_int(wrong, 0, "seed %llu: all is written", (unsigned long long)seed);
	ok_int(lost, 0, "no key goes before its time");
	ok_int(late, 0, "none stays for long");
	ok_int(broken, 0, "the index is whole whenever it says so");
	refuse = 0;
}

int main(void)
{
	uint64_t seed = tap_seed(1);
	struct fixture f;
	for (unsigned persisted = 0; persisted < 2; persisted++) {
		open_fixture(&f, persisted != 0, 4);
		test_watched(&f);
		test_clock(&f);
		test_memory(&f);
		test_model(&f, seed + persisted);
		fixture_close(&f);
	}
	return tap_done();
}
