// SPDX-License-Identifier: MIT
//
// A key whose time has come is gone within seconds, though nobody asks for it, and whatever wall
// time does. Looked for is a record that is due at one look after the other, for so long and so
// many steps of kvd's that it must have been removed, or time been set back. Where no removal can
// be logged there is no such promise.
#include <stddef.h>

#include "daemon/keyspace_internal.h"
#include "daemon/kvd.h"
#include "tests/simulation/sim.h"

#define EXPIRY_STEPS_A_LOOK 64u
#define EXPIRY_DUE_MAX 64u // that are followed at a time
#define EXPIRY_STEPS_MAX 2000u
#define EXPIRY_NS_MAX UINT64_C(4000000000)

struct due {
	uint64_t seq; // 0 = none
	uint64_t since_ns, since_step;
	bool seen; // at this look
};

static struct due dues[EXPIRY_DUE_MAX];
static uint64_t steps; // of this life
static unsigned life_looked_at;

static struct due *due_of(uint64_t seq)
{
	struct due *vacant = NULL;
	for (unsigned i = 0; i < EXPIRY_DUE_MAX; i++) {
		if (dues[i].seq == seq) {
			return &dues[i];
		}
		vacant = dues[i].seq == 0 && vacant == NULL ? &dues[i] : vacant;
	}
	if (vacant != NULL) {
		*vacant = (struct due){ seq, sim.mono_ns, steps, true };
	}
	return vacant;
}

static void visit(void *context, uint64_t entry)
{
	const struct keyspace *keyspace = context;
	struct kvs_hit hit;
	if (kvs_table_load(&keyspace->region->map, entry, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE || hit.view.expiry_ms == 0 ||
	    hit.view.expiry_ms > sim_wall_ms()) {
		return;
	}
	struct due *due = due_of(hit.view.seq);
	if (due == NULL) {
		return; // others are followed
	}
	due->seen = true;
	if (sim.mono_ns - due->since_ns > EXPIRY_NS_MAX &&
	    steps - due->since_step > EXPIRY_STEPS_MAX) {
		sim_fail("a key has been due for %llu ms and %llu steps, and is still there",
			 (unsigned long long)(sim.mono_ns - due->since_ns) / 1000000,
			 (unsigned long long)(steps - due->since_step));
	}
}

static void forget(bool all)
{
	for (unsigned i = 0; i < EXPIRY_DUE_MAX; i++) {
		dues[i].seq = all || !dues[i].seen ? 0 : dues[i].seq;
		dues[i].seen = false;
	}
}

void sim_check_expiry(void)
{
	struct keyspace *keyspace = sim.kvd->keyspace;
	const struct expire *expire = &keyspace->expire;
	uint64_t cursor = 0;
	if (life_looked_at != sim.lives || expire->blocked || expire->off || expire->held) {
		life_looked_at = sim.lives;
		forget(true);
	}
	// A step of one long command is none of the loop's.
	if (keyspace->batch.open || steps++ % EXPIRY_STEPS_A_LOOK != 0) {
		return;
	}
	do {
		cursor = kvs_table_scan(&keyspace->region->map, cursor, visit, keyspace);
	} while (cursor != 0);
	forget(false);
}
