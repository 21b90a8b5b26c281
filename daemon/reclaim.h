// SPDX-License-Identifier: MIT
//
// Large pieces of memory are given back a little in every turn: the kernel takes tens of
// milliseconds to take back what one connection may hold, and everybody would wait for it.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define RECLAIM_WHOLE_BYTES (1u << 20)	  // smaller pieces are freed at once
#define RECLAIM_TURN_BYTES (2u << 20)	  // of the others so much in one turn
#define RECLAIM_WAITING_MAX (512ul << 20) // beyond that they are freed at once, too

struct reclaim_item;

/// All zero = nothing waits.
struct reclaim {
	struct reclaim_item *first;
	size_t waiting_bytes;
};

/// Frees memory of malloc(), of which `bytes` are known to be usable; NULL is fine.
void reclaim_free(struct reclaim *reclaim, void *memory, size_t bytes);
/// One turn's part. True if there is more to do.
bool reclaim_turn(struct reclaim *reclaim);
/// Frees all that waits.
void reclaim_finish(struct reclaim *reclaim);
