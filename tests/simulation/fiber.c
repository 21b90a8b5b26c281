// SPDX-License-Identifier: MIT
//
// Threads as fibers: kvd's own, and whatever it starts with pthread_create(). One runs at a time,
// and goes on until it waits for something or reaches a point where the seed lets another one run.
// A signalled condition wakes whoever waits for it, and nothing else does before its time: a
// wake-up that kvd forgets shows as a hang.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include "tests/simulation/sim.h"

#define FIBERS_MAX 8u
#define STACK_BYTES (512u << 10)

struct fiber {
	ucontext_t context;
	void *(*run)(void *argument);
	void *argument;
	void *stack;
	enum sim_wait wait;
	const void *what;
	uint64_t until_ns;
	bool signalled;
};

static struct fiber fibers[FIBERS_MAX];
static unsigned fibers_count;
static struct fiber *running; // NULL = the scheduler
static ucontext_t scheduler;

static void fiber_main(void)
{
	struct fiber *fiber = running;
	(void)fiber->run(fiber->argument);
	fiber->wait = SIM_OVER;
	for (;;) {
		(void)swapcontext(&fiber->context, &scheduler);
	}
}

unsigned sim_fiber(void *(*run)(void *argument), void *argument)
{
	if (fibers_count == FIBERS_MAX) {
		sim_fail("kvd starts more threads than were thought of");
	}
	struct fiber *fiber = &fibers[fibers_count];
	if (fiber->stack == NULL) {
		fiber->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (fiber->stack == MAP_FAILED) {
			abort();
		}
	}
	fiber->run = run;
	fiber->argument = argument;
	fiber->wait = SIM_RUNS;
	fiber->signalled = false;
	(void)getcontext(&fiber->context);
	fiber->context.uc_stack.ss_sp = fiber->stack;
	fiber->context.uc_stack.ss_size = STACK_BYTES;
	fiber->context.uc_link = NULL;
	makecontext(&fiber->context, fiber_main, 0);
	return fibers_count++;
}

bool sim_in_fiber(void)
{
	return running != NULL;
}

void sim_give_way(enum sim_wait wait, const void *what, uint64_t until_ns)
{
	struct fiber *fiber = running;
	if (fiber == NULL) {
		return;
	}
	int error = errno;
	fiber->wait = wait;
	fiber->what = what;
	fiber->until_ns = until_ns;
	fiber->signalled = false;
	(void)swapcontext(&fiber->context, &scheduler);
	errno = error;
}

static bool fiber_can_run(const struct fiber *fiber)
{
	switch (fiber->wait) {
	case SIM_RUNS:
		return true;
	case SIM_EPOLL:
		return sim_net_ready() || sim.mono_ns >= fiber->until_ns;
	case SIM_COND:
		return fiber->signalled || sim.mono_ns >= fiber->until_ns;
	case SIM_SLEEP:
		return sim.mono_ns >= fiber->until_ns;
	case SIM_JOIN:
		return ((const struct fiber *)fiber->what)->wait == SIM_OVER;
	default:
		return false;
	}
}

bool sim_fiber_step(void)
{
	unsigned able[FIBERS_MAX];
	unsigned count = 0;
	for (unsigned i = 0; i < fibers_count; i++) {
		if (fiber_can_run(&fibers[i])) {
			able[count++] = i;
		}
	}
	if (count == 0) {
		return false;
	}
	unsigned chosen = able[sim_below(count)];
	sim_note("fiber %u goes on", chosen);
	running = &fibers[chosen];
	running->wait = SIM_RUNS;
	(void)swapcontext(&scheduler, &running->context);
	running = NULL;
	return true;
}

uint64_t sim_fiber_wake_ns(void)
{
	uint64_t soonest_ns = SIM_NEVER;
	for (unsigned i = 0; i < fibers_count; i++) {
		enum sim_wait wait = fibers[i].wait;
		if ((wait == SIM_EPOLL || wait == SIM_COND || wait == SIM_SLEEP) &&
		    fibers[i].until_ns < soonest_ns) {
			soonest_ns = fibers[i].until_ns;
		}
	}
	return soonest_ns;
}

void sim_fibers_forget(void)
{
	fibers_count = 0;
}

// ---- what kvd calls ----

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*run)(void *argument), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*run)(void *argument), void *argument)
{
	(void)attributes;
	*thread = (pthread_t)sim_fiber(run, argument);
	return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result)
{
	struct fiber *other = &fibers[thread];
	if (result != NULL) {
		*result = NULL;
	}
	while (other->wait != SIM_OVER) {
		sim_give_way(SIM_JOIN, other, SIM_NEVER);
	}
	return 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
	(void)pthread_mutex_unlock(mutex);
	sim_give_way(SIM_COND, condition, SIM_NEVER);
	(void)pthread_mutex_lock(mutex);
	return 0;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
				  const struct timespec *at);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
				  const struct timespec *at)
{
	uint64_t until_ns = (uint64_t)at->tv_sec * 1000000000u + (uint64_t)at->tv_nsec;
	(void)pthread_mutex_unlock(mutex);
	sim_give_way(SIM_COND, condition, until_ns);
	(void)pthread_mutex_lock(mutex);
	return sim.mono_ns >= until_ns ? ETIMEDOUT : 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *condition);
int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
	for (unsigned i = 0; i < fibers_count; i++) {
		if (fibers[i].wait == SIM_COND && fibers[i].what == condition &&
		    !fibers[i].signalled) {
			fibers[i].signalled = true;
			return 0;
		}
	}
	return 0;
}

int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *before);
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *before)
{
	(void)how;
	(void)set;
	if (before != NULL) {
		(void)sigemptyset(before);
	}
	return 0;
}

int __wrap_pthread_setname_np(pthread_t thread, const char *name);
int __wrap_pthread_setname_np(pthread_t thread, const char *name)
{
	(void)thread;
	(void)name;
	return 0;
}

int __wrap_nanosleep(const struct timespec *pause, struct timespec *left);
int __wrap_nanosleep(const struct timespec *pause, struct timespec *left)
{
	(void)left;
	uint64_t pause_ns = (uint64_t)pause->tv_sec * 1000000000u + (uint64_t)pause->tv_nsec;
	sim_give_way(SIM_SLEEP, NULL, sim.mono_ns + pause_ns);
	return 0;
}
