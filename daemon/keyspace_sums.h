// SPDX-License-Identifier: MIT
//
// The sums of large values, looked at behind the serving. A region that was kept is taken over
// without reading them: 1 GB would take longer than all the rest. What is wrong with one would be
// served until somebody asks for a verification; so they are read in slices, beside everything
// else, once in a life that began with such a region.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keyspace;
struct keyspace_sums;

/// Begins with the first key. NULL: there are none, or no memory. keyspace_sums_end() frees it.
struct keyspace_sums *keyspace_sums_begin(struct keyspace *keyspace);
void keyspace_sums_end(struct keyspace_sums *sums); // NULL is fine

/// Goes on for a slice, at `now_ns` of the monotonic clock. What is damaged is named in the log,
/// counted (large_damaged), and leaves memory if the store has it, so that it is read from there.
/// Where it stands there has to be known: *wants_places is set when the persister is to look for
/// it (persist_want_places()). Returns when to call this again; UINT64_MAX: all have been read.
/// Call with: no batch open. Thread must: be the writer. Orders: as keyspace_spill().
uint64_t keyspace_sums_turn(struct keyspace_sums *sums, uint64_t now_ns, bool *wants_places);
