// SPDX-License-Identifier: MIT
//
// Active expiry: keys go at their time although nobody asks for them, those whose time has not come
// stay, nothing is walked while nothing is due, and a key that is written in the middle of a walk
// is not forgotten. Time is the test's.
#include "daemon/expire.h"
#include "tests/daemon/keyspace_fixture.h"

#define KEYS 400u
#define TURNS_MAX 100000u
#define MS_NS UINT64_C(1000000)
#define INTERVAL_NS (1000 * MS_NS)

static uint64_t now_ns = 1000 * MS_NS;

static bool set_one(struct fixture *f, unsigned key, uint64_t expiry_ms)
{
	char name[16];
	int n = snprintf(name, sizeof(name), "%u", key);
	return keyspace_set(f->keyspace, name, (size_t)n, "value", 5, expiry_ms, NULL) ==
	       KEYSPACE_OK;
}

static void pass(uint64_t ns)
{
	now_ns += ns;
	fixture_wall_ms += ns / MS_NS;
}

// Turns at the times they ask for, until a walk has ended or no turn is wanted. How many there
// were.
static uint32_t walk(struct fixture *f)
{
	uint32_t turns = 0;
	do {
		uint64_t due_ns = expire_turn(f->keyspace, now_ns);
		turns++;
		if (due_ns == UINT64_MAX) {
			break;
		}
		pass(due_ns - now_ns);
	} while (f->keyspace->cleaner.expire_cursor != 0 && turns < TURNS_MAX);
	return turns;
}

static void test_due(struct fixture *f)
{
	uint64_t start_ms = fixture_wall_ms;
	unsigned wrong = 0;
	ok(expire_turn(f->keyspace, now_ns) == UINT64_MAX, "no key, no turn");
	for (unsigned i = 0; i < KEYS; i++) {
		uint64_t after_ms = i % 4 == 0 ? 60000 : i % 4 == 1 ? 90000 : 0;
		wrong += !set_one(f, i, after_ms == 0 ? 0 : start_ms + after_ms);
	}
	ok_int(wrong, 0, "keys are written");
	uint64_t due_ns = expire_turn(f->keyspace, now_ns);
	ok(due_ns == now_ns + INTERVAL_NS, "nothing due soon: a look at the clock a while later");
	ok(f->keyspace->cleaner.expire_cursor == 0, "and nothing is walked");
	pass(300 * MS_NS);
	ok(set_one(f, KEYS, fixture_wall_ms + 20), "a key that goes before that look is written");
	due_ns = expire_turn(f->keyspace, now_ns);
	ok(due_ns == now_ns + 20 * MS_NS, "then the next turn is at its time");
	pass(20 * MS_NS);
	(void)walk(f);
	while (f->keyspace->cleaner.expire_cursor != 0) {
		(void)walk(f);
	}
	ok_int(f->keyspace->keys, KEYS, "and takes it away");
	pass((start_ms + 59960 - fixture_wall_ms) * MS_NS);
	due_ns = expire_turn(f->keyspace, now_ns);
	ok(due_ns == now_ns + 40 * MS_NS, "the next turn is when the soonest key's time comes");
	pass(40 * MS_NS);
	ok(walk(f) > 1, "then the table is walked, in slices");
	ok_int(f->keyspace->keys, KEYS * 3 / 4, "those whose time has come are gone");
	ok_int(f->keyspace->keys_with_expiry, KEYS / 4, "the others stay");
	ok_int(f->keyspace->cleaner.expire_soonest_ms, start_ms + 90000, "the soonest is known");
}

static void test_meanwhile(struct fixture *f)
{
	uint64_t soonest_ms = f->keyspace->cleaner.expire_soonest_ms;
	pass((soonest_ms - fixture_wall_ms) * MS_NS);
	(void)expire_turn(f->keyspace, now_ns);
	ok(f->keyspace->cleaner.expire_cursor != 0, "a walk is under way");
	ok(set_one(f, KEYS, fixture_wall_ms + 7), "a key with little time is written");
	(void)walk(f);
	while (f->keyspace->cleaner.expire_cursor != 0) {
		(void)walk(f);
	}
	ok(f->keyspace->keys_with_expiry <= 1, "those that were due are gone");
	pass(7 * MS_NS);
	uint32_t turns = 0;
	while (f->keyspace->keys_with_expiry != 0 && turns < TURNS_MAX) {
		turns += walk(f);
	}
	ok_int(f->keyspace->keys_with_expiry, 0, "and so is the new one, in time");
	ok_int(f->keyspace->keys, KEYS / 2, "keys without a time stay");
	ok(expire_turn(f->keyspace, now_ns) == UINT64_MAX, "nothing is left to wait for");
}

int main(void)
{
	struct fixture f;
	fixture_open(&f, false, 3);
	test_due(&f);
	test_meanwhile(&f);
	fixture_close(&f);
	return tap_done();
}
