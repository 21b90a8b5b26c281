// SPDX-License-Identifier: MIT
//
// Memory that is refused at the n-th time it is asked for: every allocation of the library passes
// here, linked with --wrap of the five names. Each thread counts its own.
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

static __thread struct {
	bool armed;
	unsigned calls;	  // since it was armed
	unsigned at;	  // this one is refused; 0 = none
	unsigned refused; // so far
} refuse;

/// From now on allocations are counted, and the `at`-th is refused.
static inline void refuse_arm(unsigned at)
{
	refuse.armed = true;
	refuse.calls = refuse.refused = 0;
	refuse.at = at;
}

static inline bool refuse_now(void)
{
	if (!refuse.armed || ++refuse.calls != refuse.at) {
		return false;
	}
	refuse.refused++;
	errno = ENOMEM;
	return true;
}

#define REFUSE_WRAP(name, parameters, ...)                               \
	void *__real_##name parameters;                                  \
	void *__wrap_##name parameters;                                  \
	void *__wrap_##name parameters                                   \
	{                                                                \
		return refuse_now() ? NULL : __real_##name(__VA_ARGS__); \
	}

REFUSE_WRAP(malloc, (size_t bytes), bytes)
REFUSE_WRAP(calloc, (size_t count, size_t bytes), count, bytes)
REFUSE_WRAP(realloc, (void *old, size_t bytes), old, bytes)
REFUSE_WRAP(reallocarray, (void *old, size_t count, size_t bytes), old, count, bytes)
REFUSE_WRAP(aligned_alloc, (size_t align, size_t bytes), align, bytes)
