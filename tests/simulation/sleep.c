// SPDX-License-Identifier: MIT
//
// How long the loop may sleep. What a turn has made due, whoever did it and however late in the
// turn, has to be reckoned before the loop sleeps, or it waits for somebody to come by chance. Seen
// from outside: a loop that is woken for nothing, at once, must not find out that it would have
// slept too long. And no key's time may come while it means to sleep.
#include <stddef.h>

#include "daemon/keyspace_internal.h"
#include "daemon/kvd.h"
#include "tests/simulation/sim.h"

#define SLEEP_CUT_EVERY 8u
#define SLEEP_LATE_NS 100000000u // of what is polled anyway: readers that leave, memory that comes
#define SLEEP_LOOK_EVERY 16u
#define SLEEP_LONG_NS UINT64_C(300000000)    // a slot of the wheel, and turns that take their time
#define SLEEP_UNTOLD_NS UINT64_C(1000000000) // between two looks at a clock that nobody watches

struct sleep {
	bool is_cut;
	unsigned lives;
	uint64_t step; // of the machine: nobody but the loop has done anything since
	uint64_t until_ns;
};

static struct sleep before;
static uint64_t soonest_ns; // of the keys' ends

static void visit(void *context, uint64_t entry)
{
	const struct keyspace *keyspace = context;
	struct kvs_hit hit;
	if (kvs_table_load(&keyspace->region->map, entry, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE || hit.view.expiry_ms == 0) {
		return;
	}
	uint64_t wall_ms = sim_wall_ms();
	uint64_t left_ms = hit.view.expiry_ms > wall_ms ? hit.view.expiry_ms - wall_ms : 0;
	uint64_t end_ns = sim.mono_ns + left_ms * 1000000;
	soonest_ns = end_ns < soonest_ns ? end_ns : soonest_ns;
}

static void look_at_keys(uint64_t until_ns)
{
	struct keyspace *keyspace = sim.kvd->keyspace;
	const struct expire *expire = &keyspace->expire;
	uint64_t cursor = 0;
	if (expire->blocked || expire->off || expire->held) {
		return;
	}
	soonest_ns = SIM_NEVER - SLEEP_LONG_NS - SLEEP_UNTOLD_NS;
	do {
		cursor = kvs_table_scan(&keyspace->region->map, cursor, visit, keyspace);
	} while (cursor != 0);
	uint64_t late_ns = SLEEP_LONG_NS + (sim.plan.tells_clock ? 0 : SLEEP_UNTOLD_NS);
	if (keyspace->keys_with_expiry > 0 && until_ns > soonest_ns + late_ns) {
		sim_fail("kvd sleeps until %llu ms behind the end of a key",
			 (unsigned long long)(until_ns - soonest_ns) / 1000000);
	}
}

// Something is durable, and the persister, which was kept from it, is about to tell the loop.
static bool is_told_soon(void)
{
	const struct keyspace *keyspace = sim.kvd->keyspace;
	return kvs_load_acquire(&keyspace_marks(keyspace)->durable_seq) > keyspace->durable_seen;
}

void sim_sleep_forget(void)
{
	before.is_cut = false;
}

bool sim_sleep_is_cut(uint64_t until_ns)
{
	bool rests = sim.serves && sim.kvd != NULL && !sim_net_ready() && !is_told_soon();
	bool again = before.is_cut && before.lives == sim.lives && before.step == sim.step;
	if (rests && again && before.until_ns > until_ns &&
	    before.until_ns - until_ns > SLEEP_LATE_NS) {
		sim_fail("kvd would sleep until %llu ms from now, and woken for nothing until %llu",
			 (unsigned long long)(before.until_ns - sim.mono_ns) / 1000000,
			 (unsigned long long)(until_ns - sim.mono_ns) / 1000000);
	}
	if (rests && until_ns - sim.mono_ns > SLEEP_LONG_NS && sim_chance(SLEEP_LOOK_EVERY)) {
		look_at_keys(until_ns);
	}
	before = (struct sleep){ rests && sim_chance(SLEEP_CUT_EVERY), sim.lives, sim.step,
				 until_ns };
	sim.sleeps += rests && again;
	return before.is_cut;
}
