// SPDX-License-Identifier: MIT
//
// The bound on memory moves; and between two turns of the cleaner, whatever was done in the turn,
// all that kvd counts must be what a fresh look at its region finds.
#include "daemon/cleaner.h"
#include "daemon/keyspace_internal.h"
#include "daemon/keyspace_recount.h"
#include "tests/simulation/sim.h"

#define RECOUNT_CHANCE 40u
#define BOUND_CHANCE 60u
#define BOUND_LEAST_BYTES (1u << 20)

static void move_bound(struct keyspace *keyspace)
{
	uint64_t most = (uint64_t)sim.plan.memory_mib << 20;
	uint64_t bytes = BOUND_LEAST_BYTES + sim_below(most - BOUND_LEAST_BYTES + 1);
	if (bytes < keyspace_memory_least(keyspace, false)) {
		return; // as CONFIG SET refuses it
	}
	sim_note("the bound is to be %llu", (unsigned long long)bytes);
	sim.bounds++;
	keyspace_set_memory(keyspace, bytes);
}

static void recount(struct keyspace *keyspace)
{
	struct keyspace_recount found;
	if (keyspace_recount(keyspace, &found) != 0) {
		return; // no memory for it
	}
	sim.recounts++;
	if (found.differences > 0) {
		sim_fail("%llu counts are wrong: %s", (unsigned long long)found.differences,
			 found.first);
	}
}

void __real_cleaner_turn(struct keyspace *keyspace, uint64_t now_ns);
void __wrap_cleaner_turn(struct keyspace *keyspace, uint64_t now_ns);
void __wrap_cleaner_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	if (sim.serves && !sim.quiet && sim.plan.resizes && sim_chance(BOUND_CHANCE)) {
		move_bound(keyspace);
	}
	__real_cleaner_turn(keyspace, now_ns);
	if (sim.serves && sim_chance(RECOUNT_CHANCE)) {
		recount(keyspace);
	}
}
