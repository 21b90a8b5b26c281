// SPDX-License-Identifier: MIT
//
// What is on its way to many: a message to thousands of subscribers, the events of a long command,
// invalidations. Such an errand is run for a share of each turn, the oldest first and each to its
// end before the next begins, so that everybody hears of things in the same order and nobody waits
// for the telling. Everything belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvd;

struct errand {
	struct errand *next;
	/// Goes on until it is over (true), or until_ns of the monotonic clock is over and at least
	/// one step was made; 0 = without a bound.
	bool (*go)(struct kvd *kvd, struct errand *errand, uint64_t until_ns);
	/// It is over, or given up; frees it.
	void (*end)(struct kvd *kvd, struct errand *errand);
};

/// All zero = nothing is on its way.
struct courier {
	struct errand *first, *last;
	uint64_t given; // errands so far: the number of the newest
	uint64_t done;	// of them over
};

/// Takes an errand over; it begins in a later turn.
void courier_add(struct courier *courier, struct errand *errand);
/// Runs errands until all are over or the time is. True if there is more to do.
bool courier_turn(struct kvd *kvd, uint64_t until_ns);
/// Gives up what is on its way.
void courier_drop(struct kvd *kvd);

static inline bool courier_idle(const struct courier *courier)
{
	return courier->first == NULL;
}
