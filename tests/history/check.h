// SPDX-License-Identifier: MIT
//
// Is there an order of what clients did that a kvd which keeps its word could have followed? Each
// key is looked at alone (a history is linearizable if that of each key is); versions tell most of
// the order, so that the search for one is short. What concerns several keys, batches, snapshots
// and what a crash may take away, is told by the versions too: they are one sequence for all keys.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/history/history.h"

enum history_anomaly {
	HISTORY_FINE = 0,
	HISTORY_TORN,		// a value that nobody wrote
	HISTORY_VERSION_REUSED, // two writes have one version, or one write two
	HISTORY_VERSION_ORDER,	// a write that began after another's end has the lower version
	HISTORY_WENT_BACK,	// a client saw an older version than before
	HISTORY_NOT_LINEAR,	// no order of what happened to a key explains its answers
	HISTORY_SNAPSHOT_TORN,	// a snapshot of no moment
	HISTORY_BATCH_TORN,	// part of a batch was visible
	HISTORY_LOST,		// a crash took away what was promised to stay
	HISTORY_NOT_PREFIX,	// after a crash there are later writes without earlier ones
	HISTORY_UNDECIDED,	// the search was given up
	HISTORY_ANOMALIES_COUNT,
};

struct history_verdict {
	unsigned found[HISTORY_ANOMALIES_COUNT];
	unsigned anomalies; // in all
	char first[256];    // the first one, in words
	uint64_t operations;
	uint64_t steps; // of the search
};

const char *history_anomaly_name(enum history_anomaly anomaly);

/// Checks `count` events in any order; they are sorted by their beginning. False if memory is
/// short; otherwise *verdict tells.
bool history_check(struct history_event *events, size_t count, enum history_policy policy,
		   struct history_verdict *verdict);

/// Counts an anomaly, and describes it if it is the first.
__attribute__((format(printf, 3, 4))) void
history_found(struct history_verdict *verdict, enum history_anomaly anomaly, const char *text, ...);

/// One operation on one key, for history_key_linear().
struct history_operation {
	uint64_t begin_ns, end_ns; // UINT64_MAX: open, it may never have happened
	uint64_t value, version, expected;
	uint8_t kind;
	uint8_t result;
	bool done; // of the search
};

/// Is there an order of the operations, sorted by beginning, that begins with the key as `value`
/// (0 = absent) in `version` (0 = unknown)? 1 yes, 0 no, -1 given up or no memory.
int history_key_linear(struct history_operation *operations, size_t count, uint64_t value,
		       uint64_t version, uint64_t *steps);
