// SPDX-License-Identifier: MIT
//
// ptrace, and keys that make one chain of everything.
#include "tests/shm/step.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static enum step_state step_wait(pid_t child)
{
	int status;
	while (waitpid(child, &status, 0) == child) {
		if (WIFEXITED(status)) {
			return WEXITSTATUS(status) == 0 ? STEP_ENDED : STEP_CRASHED;
		}
		if (WIFSIGNALED(status)) {
			return STEP_CRASHED;
		}
		int number = WSTOPSIG(status);
		if (number == SIGTRAP) {
			return STEP_STOPPED;
		}
		if (number == SIGSEGV || number == SIGBUS || number == SIGABRT ||
		    number == SIGILL) {
			step_kill(child);
			return STEP_CRASHED;
		}
		if (ptrace(PTRACE_CONT, child, NULL, NULL) != 0) {
			return STEP_CRASHED;
		}
	}
	return STEP_CRASHED;
}

// Parent and child take turns, so on one processor the switch is quickest.
static void share_one_processor(void)
{
	cpu_set_t one;
	int cpu = sched_getcpu();
	CPU_ZERO(&one);
	CPU_SET(cpu < 0 ? 0 : cpu, &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
}

void *step_shared(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED) {
		printf("Bail out! no shared memory\n");
		exit(99);
	}
	return at;
}

pid_t step_start(void (*body)(void *context), void *context)
{
	share_one_processor();
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
			_exit(98);
		}
		body(context);
		_exit(0);
	}
	if (child < 0 || step_wait(child) != STEP_STOPPED) {
		printf("Bail out! the child could not be stepped\n");
		exit(99);
	}
	return child;
}

enum step_state step_one(pid_t child)
{
	return ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0 ? step_wait(child) : STEP_CRASHED;
}

enum step_state step_continue(pid_t child)
{
	return ptrace(PTRACE_CONT, child, NULL, NULL) == 0 ? step_wait(child) : STEP_CRASHED;
}

void step_kill(pid_t child)
{
	int status;
	(void)kill(child, SIGKILL);
	while (waitpid(child, &status, 0) == child && !WIFEXITED(status) && !WIFSIGNALED(status)) {
	}
}

bool step_supported(const char **why)
{
	const char *preload = getenv("LD_PRELOAD");
	if (preload != NULL && strstr(preload, "vgpreload") != NULL) {
		*why = "valgrind's own code would be stepped";
		return false;
	}
#ifdef KVS_SANITIZED
	*why = "the sanitizer's code would be stepped, too";
	return false;
#else
	int status;
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
			_exit(1);
		}
		(void)raise(SIGSTOP);
		_exit(0);
	}
	bool works = child > 0 && waitpid(child, &status, 0) == child && WIFSTOPPED(status) &&
		     ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0 &&
		     waitpid(child, &status, 0) == child && WIFSTOPPED(status) &&
		     WSTOPSIG(status) == SIGTRAP;
	if (child > 0 && !WIFEXITED(status)) {
		step_kill(child);
	}
	*why = "ptrace cannot single-step here";
	return works;
#endif
}

void step_colliding_keys(const struct kvs_table *table, char keys[STEP_KEYS][16])
{
	uint64_t buckets = table->buckets_min;
	unsigned found[2] = { 0, 0 };
	for (unsigned i = 0; found[0] + found[1] < STEP_KEYS; i++) {
		char key[16];
		(void)snprintf(key, sizeof(key), "step-key:%u", i);
		uint64_t hash = kvs_map_hash(&table->region->map, key, strlen(key));
		unsigned stays = (hash & buckets) == 0;
		if ((hash & (buckets - 1)) == 0 && found[stays] < STEP_KEYS / 2) {
			memcpy(keys[2 * found[stays]++ + stays], key, sizeof(key));
		}
	}
}

// The table decides by its load: show it a false one.
static bool step_table(struct kvs_table *table, uint64_t entries)
{
	uint64_t saved = table->entries;
	table->entries = entries;
	bool done = kvs_table_step(table);
	table->entries = saved;
	return done;
}

bool step_force_split(struct kvs_table *table)
{
	return step_table(table, UINT64_C(1) << 40);
}

bool step_force_merge(struct kvs_table *table)
{
	return step_table(table, 0);
}

void step_roll(struct fixture *f)
{
	static char bulk[8000];
	uint32_t head = f->log.head.segment;
	while (f->log.head.segment == head) {
		if (fixture_set(f, "bulk", 4, bulk, sizeof(bulk)) == 0) {
			printf("Bail out! the log is full\n");
			exit(99);
		}
	}
}

void step_clean(struct fixture *f)
{
	step_roll(f);
	for (uint32_t i = 0; i < f->log.touched_count; i++) {
		if (kvs_log_cleanable(&f->log, i, UINT64_MAX)) {
			(void)fixture_clean(f, i);
		}
	}
	(void)fixture_reclaim(f);
	// Whatever came free is poisoned.
	for (uint32_t i = 0; i < f->log.touched_count; i++) {
		if (f->log.segments[i].state == KVS_SEGMENT_FREE && f->log.segments[i].prepared) {
			memset(f->region.base + kvs_region_segment_offset(&f->region, i), 0xdd,
			       f->region.segment_bytes);
		}
	}
}
