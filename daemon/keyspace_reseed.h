// SPDX-License-Identifier: MIT
//
// Another hash key for the table, inside the keyspace: for cleaner.c, cleaner_pay.c, which has
// memory come free for the second table, and keyspace_room.c, which takes it back.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct keyspace;

struct reseed_state {
	uint64_t interval_ns;
	uint64_t begun_ns;    // the last one, or the last that was not begun, 0 = none in this life
	uint64_t short_ns;    // since when memory for its next piece is missing, 0 = it is not
	uint64_t refused_ns;  // since when writes beside it have found no room, 0 = they do
	uint64_t patience_ns; // how long they do without what it has taken
	bool running;	      // as its own file knows it: the table may have given it up meanwhile
	bool cleans;	      // a segment is being emptied for it
};

/// A slice of a rebuild of the table, if one is under way or due. Returns when to come again.
uint64_t reseed_turn(struct keyspace *keyspace, uint64_t now_ns);

/// Segments that are to come free for its second table, beyond those that writes want.
uint32_t reseed_wants(const struct keyspace *keyspace);

/// A write finds no room: gives a rebuild up if cleaning (up to `percent`) brings nothing else, or
/// if that takes too long. True if it did, and its memory is free or will be.
bool reseed_gives_way(struct keyspace *keyspace, uint64_t percent);
