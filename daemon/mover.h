// SPDX-License-Identifier: MIT
//
// Place for large values. Their range has twice as many offsets as there can be bytes, but what
// lives long may lie so scattered in it that no gap is long enough. Then values are moved out of
// the way of who asks: of the stretch that costs least. It is the cleaner's work for large values:
// nothing is freed by it, but what is free becomes one piece.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/large.h"

struct keyspace;

struct mover {
	struct kvs_large_search search;
	uint64_t none_bytes;   // the last search that found nothing was for so many; 0 = none was
	uint64_t none_changes; // large.changes then
	uint64_t none_ns;      // and when that was
	bool none_held;	       // because of something that is only held for a while
	uint32_t moved;	       // since what had no place was told to stay
	uint32_t rounds;       // how often that was forgotten for this wish
	bool at_once;	       // nobody reads, and nothing has to become durable
	uint64_t asked_ns;     // when somebody asked last for what is wanted
	uint64_t from;	       // the run that is being copied, which is held; 0 = none
	uint64_t to;	       // and where to; held as well
	uint64_t value_bytes;
	uint64_t done;	    // of them, so many are there
	uint64_t populated; // of the run there
};

/// No place was found for a value of so many bytes, though there is memory for it. WAIT: there may
/// be one later, call again soon; FULL: not even if values are moved.
int mover_asks(struct keyspace *keyspace, size_t value_bytes);

/// The same, tried first: takes a run without pages. OK, WAIT or FULL.
int mover_reserve(struct keyspace *keyspace, size_t value_bytes, uint64_t *offset);

/// Before several values are written at once, of so many bytes: OK if all will find their place, or
/// may, and moving would not help; else WAIT.
int mover_clears(struct keyspace *keyspace, size_t bytes);

/// The same where nobody reads, and the store has everything (recovery): makes the place at once.
/// False if none can be made.
bool mover_makes_place(struct keyspace *keyspace, size_t value_bytes);

/// A slice of the work, if there is any. Returns when to come again.
uint64_t mover_turn(struct keyspace *keyspace, uint64_t now_ns);

/// Memory that comes back when the value that is being moved has left its place.
uint64_t mover_bytes(const struct keyspace *keyspace);
