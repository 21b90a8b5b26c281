// SPDX-License-Identifier: MIT
//
// ptrace, and keys that make one chain of everything. From store to store: the memory is read-only
// for the child, whose fault ptrace sees; it is made writable, the one instruction is carried out,
// and it is made read-only again. A system call would fail instead of faulting, so the child is
// stopped ahead of each. That takes a few stops a store instead of one an instruction, and a
// single step is dear, above all in a virtual machine, which has to leave for it.
#include "tests/shm/step.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEP_SYSTEM_CALL (SIGTRAP | 0x80) // what PTRACE_O_TRACESYSGOOD makes of such a stop

// Lets the child go on until it stops with a trap, or with SIGSEGV; other signals are not for it.
static enum step_state step_resume(pid_t child, int request, int *number)
{
	int status = 0;
	do {
		if (ptrace(request, child, NULL, NULL) != 0 ||
		    waitpid(child, &status, 0) != child) {
			return STEP_CRASHED;
		}
		if (WIFEXITED(status)) {
			return WEXITSTATUS(status) == 0 ? STEP_ENDED : STEP_CRASHED;
		}
		if (WIFSIGNALED(status)) {
			return STEP_CRASHED;
		}
		*number = WSTOPSIG(status);
		if (*number == SIGBUS || *number == SIGABRT || *number == SIGILL) {
			step_kill(child);
			return STEP_CRASHED;
		}
	} while (*number != SIGTRAP && *number != STEP_SYSTEM_CALL && *number != SIGSEGV);
	return STEP_STOPPED;
}

// The same where only a trap is as it should be.
static enum step_state step_to_trap(pid_t child, int request)
{
	int number = 0;
	enum step_state state = step_resume(child, request, &number);
	if (state == STEP_STOPPED && number != SIGTRAP) {
		step_kill(child);
		return STEP_CRASHED;
	}
	return state;
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
	int status = 0;
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status) ||
	    ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD) != 0 ||
	    (WSTOPSIG(status) != SIGTRAP && step_to_trap(child, PTRACE_CONT) != STEP_STOPPED)) {
		printf("Bail out! the child could not be stepped\n");
		exit(99);
	}
	return child;
}

enum step_state step_one(pid_t child)
{
	return step_to_trap(child, PTRACE_SINGLESTEP);
}

enum step_state step_continue(pid_t child)
{
	return step_to_trap(child, PTRACE_CONT);
}

#if defined(__x86_64__)
// The child is sent here for a system call of its parent's.
extern const char step_call_and_trap[] __attribute__((visibility("hidden")));
__asm__(".pushsection .text\n"
	".globl step_call_and_trap\n"
	"step_call_and_trap: syscall\n"
	"int3\n"
	".popsection\n");

// mprotect() in the stopped child, whose registers are as before afterwards.
static bool step_protect(pid_t child, const struct step_watch *watch, int protection)
{
	struct user_regs_struct saved, regs;
	if (ptrace(PTRACE_GETREGS, child, NULL, &saved) != 0) {
		return false;
	}
	regs = saved;
	regs.rip = (uintptr_t)step_call_and_trap;
	regs.rax = SYS_mprotect;
	regs.orig_rax = UINT64_MAX; // stopped in no system call that could be begun again
	regs.rdi = (uintptr_t)watch->at;
	regs.rsi = watch->bytes;
	regs.rdx = (unsigned)protection;
	return ptrace(PTRACE_SETREGS, child, NULL, &regs) == 0 &&
	       step_to_trap(child, PTRACE_CONT) == STEP_STOPPED &&
	       ptrace(PTRACE_GETREGS, child, NULL, &regs) == 0 && regs.rax == 0 &&
	       ptrace(PTRACE_SETREGS, child, NULL, &saved) == 0;
}

// PTRACE_SYSEMU left the system call out: back to before it.
static bool step_before_call(pid_t child)
{
	struct user_regs_struct regs;
	if (ptrace(PTRACE_GETREGS, child, NULL, &regs) != 0) {
		return false;
	}
	regs.rip -= 2; // the length of the instruction
	regs.rax = regs.orig_rax;
	regs.orig_rax = UINT64_MAX;
	return ptrace(PTRACE_SETREGS, child, NULL, &regs) == 0;
}

static uint64_t step_at(pid_t child)
{
	struct user_regs_struct regs;
	return ptrace(PTRACE_GETREGS, child, NULL, &regs) == 0 ? regs.rip : 0;
}

// Runs the child until it comes to this instruction, or to another trap.
static enum step_state step_until(pid_t child, uint64_t at, bool *there)
{
	struct user_regs_struct regs;
	void *place = (void *)(uintptr_t)at; // NOLINT(performance-no-int-to-ptr)
	errno = 0;
	long code = ptrace(PTRACE_PEEKTEXT, child, place, NULL);
	if (errno != 0 || ptrace(PTRACE_POKETEXT, child, place, (code & ~0xffL) | 0xcc) != 0) {
		return STEP_CRASHED;
	}
	enum step_state state = step_to_trap(child, PTRACE_CONT);
	if (state != STEP_STOPPED) {
		return state;
	}
	if (ptrace(PTRACE_POKETEXT, child, place, code) != 0 ||
	    ptrace(PTRACE_GETREGS, child, NULL, &regs) != 0) {
		return STEP_CRASHED;
	}
	*there = regs.rip == at + 1;
	regs.rip = at;
	return !*there || ptrace(PTRACE_SETREGS, child, NULL, &regs) == 0 ? STEP_STOPPED
									  : STEP_CRASHED;
}

enum step_state step_to(pid_t child, const struct step_path *path, unsigned steps, bool *there)
{
	uint64_t at = path->at[steps];
	enum step_state state = STEP_STOPPED;
	unsigned times = 0; // that it comes past there
	for (unsigned i = 1; i <= steps; i++) {
		times += path->at[i] == at;
	}
	*there = true;
	while (times > 0 && *there && state == STEP_STOPPED) {
		if (step_at(child) == at) { // a string instruction stays where it is
			state = step_one(child);
			times -= step_at(child) == at;
		} else {
			state = step_until(child, at, there);
			times -= *there;
		}
	}
	return state;
}

enum step_state step_store(pid_t child, struct step_watch *watch)
{
	struct user_regs_struct regs;
	int number = 0;
	if (ptrace(PTRACE_GETREGS, child, NULL, &regs) != 0) {
		return STEP_CRASHED;
	}
	if (regs.rip == watch->last) { // a string store has more to do
		return step_one(child);
	}
	watch->last = 0;
	if (!step_protect(child, watch, PROT_READ)) {
		return STEP_CRASHED;
	}
	enum step_state state = step_resume(child, PTRACE_SYSEMU, &number);
	if (state != STEP_STOPPED) {
		return state;
	}
	if ((number == STEP_SYSTEM_CALL && !step_before_call(child)) ||
	    ptrace(PTRACE_GETREGS, child, NULL, &regs) != 0 ||
	    !step_protect(child, watch, PROT_READ | PROT_WRITE)) {
		return STEP_CRASHED;
	}
	if (number == SIGTRAP) {
		return STEP_STOPPED;
	}
	watch->last = number == SIGSEGV ? regs.rip : 0;
	return step_one(child); // faults again, and has crashed, if it is not the watched memory
}
#else
static uint64_t step_at(pid_t child)
{
	(void)child;
	return 0;
}

enum step_state step_to(pid_t child, const struct step_path *path, unsigned steps, bool *there)
{
	enum step_state state = STEP_STOPPED;
	(void)path;
	for (unsigned i = 0; i < steps && state == STEP_STOPPED; i++) {
		state = step_one(child);
	}
	*there = true;
	return state;
}

enum step_state step_store(pid_t child, struct step_watch *watch)
{
	(void)watch;
	return step_one(child);
}
#endif

enum step_state step_follow(pid_t child, struct step_path *path, bool (*goes_on)(void *context),
			    void *context)
{
	enum step_state state = STEP_STOPPED;
	path->steps = 0;
	path->at[0] = step_at(child);
	while (state == STEP_STOPPED && goes_on(context)) {
		if (path->steps + 1 == STEP_PATH_MAX) {
			printf("Bail out! the path is too long\n");
			exit(99);
		}
		state = step_one(child);
		path->at[++path->steps] = state == STEP_STOPPED ? step_at(child) : 0;
	}
	return state;
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
#if defined(__x86_64__)
	// What step_store() is made of: stopping ahead of a system call, the next one of the child.
	works = works && ptrace(PTRACE_SYSEMU, child, NULL, NULL) == 0 &&
		waitpid(child, &status, 0) == child && WIFSTOPPED(status);
#endif
	if (child > 0 && !WIFEXITED(status)) {
		step_kill(child);
	}
	*why = "ptrace cannot step a child here";
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
