// SPDX-License-Identifier: MIT
//
// How often keys were read lately, for whoever has to choose which of them go: two bits for each
// place in the log where a record can begin, and fingerprints of the keys that went unread. Memory
// of kvd's own that nobody else sees, and only hints: what is wrong in it costs hits and nothing
// else.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAT_GRANULE_BYTES 32u // a record with a key has 40 at least: none share one
#define HEAT_MAX 3u
#define HEAT_GHOST_WAYS 16u

struct heat {
	uint64_t start;	       // of the log, from the start of the region
	uint64_t bytes;	       // of the log
	unsigned char *counts; // four to a byte
	size_t counts_bytes;
	uint16_t *ghosts;    // sets of HEAT_GHOST_WAYS, the newest first; 0 = none
	uint64_t ghost_sets; // power of two
	bool has_ghosts;     // until then no write need look for one, which is a cache miss
};

/// All cold, no ghosts; memory is taken as it is used. `ghosts` are remembered at least. False if
/// memory is short.
bool heat_open(struct heat *heat, uint64_t start, uint64_t bytes, uint64_t ghosts);
/// Remembers at least so many ghosts from now on, and those of before no longer if that is more.
/// Call with: opened. Where memory is short it stays as it was.
void heat_ghosts_grow(struct heat *heat, uint64_t ghosts);
void heat_close(struct heat *heat);

/// Of the record that begins at `offset` from the start of the region; 0 for what is outside.
unsigned heat_of(const struct heat *heat, uint64_t offset);
void heat_set(struct heat *heat, uint64_t offset, unsigned count);
/// One read more, up to HEAT_MAX.
void heat_warm(struct heat *heat, uint64_t offset);
/// Everything in [offset, offset + bytes) is cold: whole granules of four.
void heat_cool(struct heat *heat, uint64_t offset, uint64_t bytes);

/// The key with this hash was evicted unread.
void heat_ghost_add(struct heat *heat, uint64_t hash);
/// Is it among the last `reach` of them, about?
bool heat_ghost_has(const struct heat *heat, uint64_t hash, uint64_t reach);
