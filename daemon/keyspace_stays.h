// SPDX-License-Identifier: MIT
//
// How low may the bound on memory be set where keys or values go for it? As low as what has to stay
// allows: keys that are never evicted, those without a time to live where only others go, the keys
// of values that go. That is not counted as keys are written, for who writes would pay for what is
// asked once in a blue moon; it is looked up, in slices, when it is asked.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct keyspace;
struct keyspace_eviction;

/// How far it was looked, and what was found. Zero at first.
struct keyspace_stays {
	uint64_t cursor;
	unsigned side; // of the table; on another the walk begins anew
	bool over;
	uint64_t entries;      // that were seen, some of them twice if the table changed
	uint64_t keys;	       // of them those that stay, or leave something
	uint64_t record_bytes; // of these in segments
	uint64_t large_bytes;  // and in runs
};

/// Is there anything to look up? Else all that is stored may go.
bool keyspace_stays_any(const struct keyspace_eviction *how);

/// Some hundred keys more, by what `how` says of them; *how is the same in each call. False when
/// all were seen.
/// Call with: how->on. Thread must: be the writer. Orders: nothing.
bool keyspace_stays_step(const struct keyspace *keyspace, const struct keyspace_eviction *how,
			 struct keyspace_stays *stays);

/// The least bound that leaves room for that, and for whoever writes meanwhile.
uint64_t keyspace_stays_least(const struct keyspace *keyspace, const struct keyspace_eviction *how,
			      const struct keyspace_stays *stays);
