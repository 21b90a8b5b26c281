// SPDX-License-Identifier: MIT
//
// What a seed decides: how many of whom do how much, what may fail, and how kvd is set up.
#include <stdio.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/persist.h"
#include "tests/simulation/sim.h"

// Memory that is full in a third of the seeds, with enough to fill it.
static void plan_full(struct sim_plan *plan)
{
	if (!sim_chance(3)) {
		return;
	}
	plan->when_full = plan->policy != PERSIST_MEMORY && sim_chance(2) ? SIM_SPILLS : SIM_EVICTS;
	plan->keys = SIM_KEYS_MAX;
	plan->value_bytes = 12000;
	plan->large_percent = 40 + (unsigned)sim_below(60);
	plan->memory_mib = 2;
	plan->resizes = true;
	plan->commands += 300;
	plan->read_chance = sim_chance(2) ? 2 + (unsigned)sim_below(6) : 0;
}

void sim_plan_make(struct sim_plan *plan)
{
	plan->policy = (unsigned)sim_below(4);
	plan->clients = 1 + (unsigned)sim_below(sim_chance(3) ? 8 : 4);
	plan->watchers = (unsigned)sim_below(3);
	plan->readers = (unsigned)sim_below(SIM_READERS_MAX + 1);
	plan->keys = 2 + (unsigned)sim_below(sim_chance(2) ? SIM_KEYS_MAX - 2 : 8);
	plan->commands = 100 + (unsigned)sim_below(600);
	plan->value_bytes = sim_chance(2) ? 12000 : sim_chance(2) ? 40 : 1000;
	plan->large_percent = sim_chance(2) ? 0 : (unsigned)sim_below(30);
	plan->depth = 1 + (unsigned)sim_below(sim_chance(2) ? 3 : 24);
	plan->expire_ms = sim_chance(2) ? 20 : 5000;
	plan->memory_mib = 2 + (unsigned)sim_below(2);
	plan->clock_percent = (unsigned)sim_below(3);
	plan->jumps = sim_chance(2);
	plan->keeper = sim_chance(2);
	plan->crashes = !sim_chance(4);
	plan->crash_point_chance = sim_chance(2) ? 0 : 20 + (unsigned)sim_below(1000);
	plan->disk_chance = sim_chance(2) ? 0 : 5 + (unsigned)sim_below(100);
	plan->cut_chance = sim_chance(2) ? 0 : 200 + (unsigned)sim_below(2000);
	plan->siphash = sim_chance(4);
	plan->yield_chance = 1 + (unsigned)sim_below(10);
	plan->fillers = plan->clients > 1 && sim_chance(8) ? SIM_FILLERS : 0;
	plan->memory_chance = sim_chance(3) ? 5 + (unsigned)sim_below(300) : 0;
	plan->resizes = sim_chance(3);
	plan->tells_clock = sim_chance(2);
	plan->reseeds = sim_chance(4);
	plan->moves = sim_chance(2);
	plan->prefault = sim_chance(6);
	plan_full(plan);
}

static const char *const policies[] = { "memory", "lazy", "group", "sync" };
static const char *const full[] = { "--when-full=reject", "--when-full=evict",
				    "--when-full=spill" };

void sim_plan_config(struct config *config)
{
	const struct sim_plan *plan = &sim.plan;
	char dir[128], memory[32], most[32], persist[32], lazy[40], floor[40], revoke[32];
	(void)snprintf(dir, sizeof(dir), "--dir=%s", sim.dir);
	(void)snprintf(memory, sizeof(memory), "--memory=%uMiB", plan->memory_mib);
	(void)snprintf(most, sizeof(most), "--memory-max=%uMiB", plan->memory_mib);
	(void)snprintf(persist, sizeof(persist), "--persist=%s", policies[plan->policy]);
	(void)snprintf(lazy, sizeof(lazy), "--lazy-interval=%ums", plan->expire_ms / 4 + 1);
	(void)snprintf(floor, sizeof(floor), "--compact-floor=%u", plan->value_bytes * 20);
	(void)snprintf(revoke, sizeof(revoke), "--revoke=%ums", 50 + plan->expire_ms / 10);
	const char *const words[] = { "kvd",
				      dir,
				      memory,
				      most,
				      persist,
				      lazy,
				      floor,
				      revoke,
				      "--revoke-min=50ms",
				      "--segment=64KiB",
				      "--value-max=31000",
				      "--loglevel=warning",
				      "--write-wait=300ms",
				      "--compact-ratio=120",
				      "--frame-timeout=0",
				      "--memory-return=2s",
				      "--reseed-interval=2s",
				      full[plan->when_full],
				      plan->siphash ? "--hash=siphash" : "--hash=xxh3",
				      plan->prefault ? "--prefault=yes" : "--prefault=no",
				      NULL };
	char *argv[sizeof(words) / sizeof(words[0])];
	memcpy(argv, words, sizeof(argv));
	char error[512];
	int argc = (int)(sizeof(words) / sizeof(words[0])) - 1;
	if (config_parse(config, argc, argv, error, sizeof(error)) != CONFIG_RUN) {
		sim_fail("the configuration is refused: %s", error);
	}
}

const char *sim_plan_policy(void)
{
	return policies[sim.plan.policy];
}
