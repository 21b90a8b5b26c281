// SPDX-License-Identifier: MIT
//
// Active expiry: keys whose time has come are removed although nobody asks for them, so that their
// memory and their place in the store come back. A timing wheel (wheel.h) knows where the records
// of all keys with an expiry stand and when they end. Its items are hints: a record that moved, was
// superseded or removed leaves one behind, and what the table and the record say decides.
//
// The wheel is whole, or it is not: after recovery and adoption, and when there was no memory for
// it. Then the table is walked, which removes what is due and fills the wheel anew.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/wheel.h"

struct keyspace;

struct expire {
	struct wheel wheel;
	uint64_t due_ns;	  // the next turn's time
	uint64_t soonest_ms;	  // what ends earlier wants a turn sooner
	bool off;		  // DEBUG SET-ACTIVE-EXPIRE 0
	bool held;		  // keyspace_hold_expiry()
	bool clock_watched;	  // keyspace_clock_was_set() will be called
	bool blocked;		  // a removal could not be logged
	bool partial;		  // the wheel lacks some keys: walks find them
	bool filling;		  // the walk under way puts what it meets into the wheel
	bool sweeping;		  // items that are out of date are looked for
	uint64_t swept_items;	  // that the last sweep left, at most
	uint64_t items_bound;	  // more than these want a turn
	uint64_t cursor;	  // 0 = no walk is under way
	bool refused;		  // there was no memory for the wheel while it was filled
	uint64_t refill_due_ns;	  // when a walk may fill it again
	uint64_t walk_soonest_ms; // no key that only walks know of ends before
	uint64_t walk_seen_ms;	  // the same of what the walk has seen, and of newer keys
};

/// One slice, if one is due. Returns when the next is (monotonic), UINT64_MAX if no key has an
/// expiry.
/// Call with: no batch open. Thread must: be the writer. Orders: what a removal orders.
uint64_t expire_turn(struct keyspace *keyspace, uint64_t now_ns);

/// The record at `offset` is its key's entry from now on, and ends at that time. Never fails.
void expire_add(struct keyspace *keyspace, uint64_t offset, uint64_t expiry_ms);

/// A record moved to `offset` (cleaning, spilling, promotion): to be called after the entry was
/// replaced. `expiry_ms` 0 = it does not end.
static inline void expire_moved(struct keyspace *keyspace, uint64_t offset, uint64_t expiry_ms)
{
	if (expiry_ms != 0) {
		expire_add(keyspace, offset, expiry_ms);
	}
}

/// There are keys with an expiry of which the wheel was not told: walks find them.
void expire_lose(struct keyspace *keyspace);

/// No key has an expiry any more.
void expire_forget(struct keyspace *keyspace);
