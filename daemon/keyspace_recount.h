// SPDX-License-Identifier: MIT
//
// Is what is counted as things change what there is? A fresh look at the whole region, as the next
// kvd would take it over, against every count that this one keeps.
#pragma once

#include <stdint.h>

struct keyspace;

#define KEYSPACE_RECOUNT_BYTES 256u

struct keyspace_recount {
	uint64_t checked;		    // counts that were compared
	uint64_t differences;		    // of them are not what there is
	char first[KEYSPACE_RECOUNT_BYTES]; // the first of these, in words
};

/// Looks at everything in one go: a tenth of a second for a million keys, in which nobody is
/// served. Returns 0 (look at recount->differences), -EBUSY in the middle of a batch, or -ENOMEM.
/// Call with: any time between two writes. Thread must: be the writer. Orders: nothing; nothing is
/// changed.
int keyspace_recount(struct keyspace *keyspace, struct keyspace_recount *recount);
