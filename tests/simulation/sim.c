// SPDX-License-Identifier: MIT
//
// The machine and its scheduler: the clocks, the lives of kvd, and the loop that picks who does
// something next.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/keyspace_internal.h"
#include "daemon/kvd.h"
#include "daemon/listener.h"
#include "daemon/persist.h"
#include "daemon/seam.h"
#include "daemon/service.h"
#include "shm/newer_linux.h"
#include "tests/simulation/sim.h"

#define STEPS_MAX 2000000u
#define PLACES_STEPS 100000u // of the machine, until all stubs know their places
#define START_NS UINT64_C(5000000000000)
#define START_WALL_US UINT64_C(1800000000000000)
#define FIRST_FD 3u

struct sim sim;

// splitmix64
uint64_t sim_random(void)
{
	uint64_t z = sim.state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t sim_below(uint64_t bound)
{
	return sim_random() % bound;
}

bool sim_chance(uint64_t chance)
{
	return chance > 0 && sim_below(chance) == 0;
}

bool sim_fault(uint64_t chance)
{
	bool fails = !sim.quiet && sim.serves && sim_chance(chance);
	sim.faults += fails;
	return fails;
}

void sim_note(const char *format, ...)
{
	char line[256];
	va_list args;
	va_start(args, format);
	int length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	for (int i = 0; i < length && i < (int)sizeof(line) - 1; i++) {
		sim.trace = (sim.trace ^ (unsigned char)line[i]) * UINT64_C(0x100000001b3);
	}
	sim.trace = (sim.trace ^ sim.mono_ns) * UINT64_C(0x100000001b3);
	if (sim.verbose) {
		printf("# %8llu %9llu us: %s\n", (unsigned long long)sim.step,
		       (unsigned long long)(sim.mono_ns - START_NS) / 1000, line);
	}
}

void sim_fail(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("# seed %llu, step %llu: ", (unsigned long long)sim.seed,
	       (unsigned long long)sim.step);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	(void)fflush(stdout);
	_exit(1);
}

uint64_t sim_wall_ms(void)
{
	uint64_t ms = ((uint64_t)((int64_t)(sim.mono_ns / 1000) + sim.wall_offset_us)) / 1000;
	sim.wall_max_ms = ms > sim.wall_max_ms ? ms : sim.wall_max_ms;
	return ms;
}

// ---- lives ----

/// Everything is loaded or taken over, and nothing was written yet: what does kvd have?
int __real_listener_open(struct listener **out, struct kvd *kvd, char *error, size_t error_bytes);
int __wrap_listener_open(struct listener **out, struct kvd *kvd, char *error, size_t error_bytes);
int __wrap_listener_open(struct listener **out, struct kvd *kvd, char *error, size_t error_bytes)
{
	bool adopted = sim.kept_instance != 0 && kvd->instance_id == sim.kept_instance;
	if (sim.kept_instance != 0 && !adopted) {
		sim_fail("the region of the life before is not taken over");
	}
	sim.kvd = kvd;
	sim.adoptions += adopted;
	sim.loads += !adopted;
	sim_note("the region is %s", adopted ? "the former" : "a new one");
	sim_model_recovered(adopted, sim.orderly);
	sim.orderly = false;
	return __real_listener_open(out, kvd, error, error_bytes);
}

static void *life_main(void *argument)
{
	(void)argument;
	struct config config;
	sim_plan_config(&config);
	struct service *service;
	int code = service_start(&service, &config);
	if (code != 0) {
		sim_fail("kvd does not start: exit code %d", code);
	}
	sim_note("kvd serves");
	sim.serves = true;
	code = service_run(service);
	if (code == 0) {
		code = service_stop(service);
	}
	sim.over = true;
	sim.exit_code = code;
	return NULL;
}

void sim_boot(void)
{
	sim_note("boot");
	sim.up = true;
	sim.crash = sim.stop = sim.over = false;
	sim.kvd = NULL;
	sim.serves = false;
	sim.kept_instance = sim_keeper_has() ? sim_keeper_instance() : 0;
	sim.lives++;
	(void)sim_fiber(life_main, NULL);
}

// Its descriptors are closed by the kernel; memory and mappings of a dead life harm nobody here.
static void life_over(void)
{
	sim_fibers_forget();
	sim_net_forget();
	sim_presence_over();
	if (close_range(FIRST_FD, SIM_KEPT_FD - 1, 0) != 0) {
		abort();
	}
	sim.up = false;
	sim.crash = false;
	sim.kvd = NULL;
	sim.serves = false;
}

void sim_kill(void)
{
	sim_note("kvd is killed");
	sim.crashes++;
	sim.orderly = false;
	life_over();
	sim_check_region(true);
	if (sim_chance(3)) {
		sim_keeper_drop(); // or there was none
	}
}

static void life_stopped(void)
{
	sim_note("kvd stopped with %d", sim.exit_code);
	life_over();
	if (sim.exit_code != 0 && sim.exit_code != EX_IOERR) {
		sim_fail("kvd stops with exit code %d", sim.exit_code);
	}
	sim.orderly = sim.exit_code == 0; // else it said what it could not keep
}

// ---- crash points: also where others get to run in the middle of a command ----

void __wrap_seam_crash_slow(enum seam_crash_point point);
void __wrap_seam_crash_slow(enum seam_crash_point point)
{
	sim.points++;
	if (!sim.quiet && sim.plan.crashes && sim_chance(sim.plan.crash_point_chance)) {
		sim_note("dies at point %u", (unsigned)point);
		sim.crash = true;
		sim_give_way(SIM_RUNS, NULL, 0);
	}
	if (sim_chance(sim.plan.yield_chance)) {
		sim_note("point %u", (unsigned)point);
		sim_give_way(SIM_RUNS, NULL, 0);
	}
}

// ---- time ----

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	uint64_t ns = sim.mono_ns;
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
		(void)sim_wall_ms();
		ns = (uint64_t)((int64_t)ns + sim.wall_offset_us * 1000);
	} else if (sim_in_fiber()) {
		sim.mono_ns += 50 + sim_below(400); // what kvd does takes time
	}
	now->tv_sec = (time_t)(ns / 1000000000u);
	now->tv_nsec = (long)(ns % 1000000000u);
	return 0;
}

ssize_t __wrap_getrandom(void *out, size_t bytes, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t bytes, unsigned flags)
{
	(void)flags;
	for (size_t i = 0; i < bytes; i++) {
		((unsigned char *)out)[i] = (unsigned char)sim_random();
	}
	return (ssize_t)bytes;
}

pid_t __wrap_getpid(void);
pid_t __wrap_getpid(void)
{
	return 4242;
}

int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice)
{
	if (advice == MADV_COLLAPSE || advice == MADV_HUGEPAGE) {
		errno = EINVAL; // a huge page costs more than a seed
		return -1;
	}
	return __real_madvise(at, bytes, advice);
}

static void time_pass(void)
{
	uint64_t step_ns = 1000 + sim_below(200000);
	if (sim_chance(50)) {
		step_ns += sim_below(30000000);
	}
	if (sim_chance(2000)) {
		step_ns += sim_below(UINT64_C(8000000000));
		sim.stalled = true;
	}
	sim.mono_ns += step_ns;
	if (sim.plan.jumps && !sim.quiet && sim_chance(300)) {
		int64_t jump_us = (int64_t)sim_below((uint64_t)sim.plan.expire_ms * 4000);
		sim.wall_offset_us += sim_chance(2) ? jump_us : -jump_us;
		sim_net_clock_set();
		sim_note("wall time jumps to %llu", (unsigned long long)sim_wall_ms());
	}
}

// ---- the loop ----

static void count_splits(void)
{
	static uint64_t before;
	uint64_t now = sim.kvd->keyspace->table.splits;
	sim.splits += (unsigned)(now >= before ? now - before : now); // of this life
	before = now;
}

static void kvd_turn(void)
{
	bool ran = sim_fiber_step();
	if (sim.serves && !sim.over) {
		count_splits();
		if (ran) {
			sim_check_expiry();
		}
	}
	if (sim.crash) {
		sim_kill();
	} else if (sim.over) {
		life_stopped();
	} else if (!ran) {
		uint64_t wake_ns = sim_fiber_wake_ns();
		uint64_t chance = wake_ns - sim.mono_ns < 200000000 ? 8 : 500;
		if (wake_ns != SIM_NEVER && wake_ns > sim.mono_ns && sim_chance(chance)) {
			sim.mono_ns = wake_ns;
		}
		time_pass();
	}
}

static void run_step(void)
{
	if (sim.step++ > STEPS_MAX) {
		sim_clients_hung();
		sim_fail("no end after %u steps", STEPS_MAX);
	}
	if (!sim.up) {
		if (sim_chance(10)) {
			sim_boot();
		}
		time_pass();
		sim_reader_step();
		(void)sim_client_step();
		return;
	}
	uint64_t dice = sim_below(100);
	if (dice < 45) {
		kvd_turn();
	} else if (dice < 80) {
		(void)sim_client_step();
	} else if (dice < 90) {
		sim_reader_step();
	} else {
		time_pass();
	}
	bool serves = sim.serves;
	if (!sim.quiet && sim.plan.crashes && sim_chance(serves ? 6000 : 600)) {
		sim_kill();
	} else if (!sim.quiet && serves && sim_chance(20000)) {
		sim_note("asked to stop");
		sim.stop = true;
	} else if (serves && sim_chance(3000)) {
		sim_check_region(false);
	}
}

static void run_to_the_end(void)
{
	while (!sim_clients_done()) {
		run_step();
	}
}

// Whatever compaction moved, and whichever life saw it: each stub comes to know where its value is.
static void places_settle(void)
{
	uint64_t until_step = sim.step + PLACES_STEPS;
	const char *misplaced = "";
	while (sim.plan.when_full == SIM_SPILLS && misplaced != NULL) {
		if (sim.step > until_step) {
			sim_fail("the stub of %s does not say where its value is", misplaced);
		}
		run_step();
		misplaced = sim.serves && !sim.over ? sim_model_misplaced() : "";
	}
}

static void run_down(void)
{
	while (!sim.serves) {
		run_step();
	}
	sim.stop = true;
	while (sim.up) {
		kvd_turn();
	}
}

void sim_run(void)
{
	sim.state = sim.seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	sim.trace = UINT64_C(0xcbf29ce484222325);
	sim.mono_ns = START_NS;
	sim.wall_offset_us = (int64_t)START_WALL_US;
	seam_crash_armed = 1;
	unsigned commands = sim.plan.commands;
	sim_plan_make(&sim.plan);
	if (commands > 0) {
		sim.plan.commands = commands;
	}
	sim_note("policy %s, %u clients, %u readers, %u keys, %u commands, keeper %d",
		 sim_plan_policy(), sim.plan.clients, sim.plan.readers, sim.plan.keys,
		 sim.plan.commands, sim.plan.keeper);
	sim_model_begin();
	sim_clients_begin();
	sim_readers_begin();
	sim_boot();
	while (sim_commands_sent() < sim.plan.commands) {
		run_step();
	}
	sim_note("the end begins");
	sim.quiet = true;
	run_to_the_end();
	places_settle();
	if (sim.serves) {
		sim_model_compare("at the end");
	}
	run_down();
	sim_keeper_drop();
	if (sim.plan.policy != PERSIST_MEMORY) { // all of it comes back from the store
		sim_boot();
		run_down();
	}
}
