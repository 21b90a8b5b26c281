// SPDX-License-Identifier: MIT
//
// Memory that is not to be had: what kvd asks malloc() and its like for while it serves is refused
// now and then. Nothing else may come of that than a refusal: of a command, which then did nothing,
// or of the connection.
#include <errno.h>
#include <stdlib.h>

#include "tests/simulation/sim.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_reallocarray(void *old, size_t count, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_reallocarray(void *old, size_t count, size_t bytes);

static bool refused(void)
{
	if (!sim_in_fiber() || !sim_fault(sim.plan.memory_chance)) {
		return false;
	}
	sim.refused++;
	sim_note("memory is refused");
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t bytes)
{
	return refused() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return refused() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
	return refused() ? NULL : __real_realloc(old, bytes);
}

void *__wrap_reallocarray(void *old, size_t count, size_t bytes)
{
	return refused() ? NULL : __real_reallocarray(old, count, bytes);
}

// ---- of the simulation itself: never refused ----

void *sim_alloc(size_t bytes)
{
	void *memory = __real_calloc(1, bytes > 0 ? bytes : 1);
	if (memory == NULL) {
		abort();
	}
	return memory;
}

void *sim_grow(void *old, size_t bytes)
{
	void *memory = __real_realloc(old, bytes);
	if (memory == NULL) {
		abort();
	}
	return memory;
}
