// SPDX-License-Identifier: MIT
//
// For tests in which one thread damages a region that others read: now and then the damage stands
// until somebody has read it, whoever schedules the threads.
#pragma once

#include <sched.h>
#include <stdint.h>

#include "shm/atomics.h"

#define READERS 2u
#define STANDS 64u		    // of so many flips one stands
#define STANDS_ROUNDS (4 * READERS) // of reading, at least one of them whole
#define YIELDS 1000u

// `read`: rounds of each reader.
static uint64_t rounds_read(const uint64_t read[READERS])
{
	uint64_t rounds = 0;
	for (unsigned i = 0; i < READERS; i++) {
		rounds += kvs_load_acquire(&read[i]); // partner: each reader, behind a round
	}
	return rounds;
}

static void stand(const uint64_t read[READERS])
{
	uint64_t before = rounds_read(read);
	for (unsigned i = 0; i < YIELDS && rounds_read(read) - before < STANDS_ROUNDS; i++) {
		(void)sched_yield();
	}
}
