// SPDX-License-Identifier: MIT
//
// What a write copies from, while room is made for it. For keyspace_apply.c alone.
#pragma once

#include "daemon/keyspace_internal.h"

struct keyspace_hold {
	bool is_on;
	struct kvs_piece pieces[KEYSPACE_PIECES_MAX];
	uint64_t pins[KEYSPACE_PIECES_MAX]; // of large values
	uint32_t pins_count;
	void *aside; // a copy of what stands in the log, NULL = none
};

/// Keeps the pieces of the op's value as they are: those in the log are copied aside, and the op is
/// led there; large values are pinned; its key is not evicted. False if memory is short.
/// keyspace_hold_over() follows if it `is_on`, with the op written or not.
bool keyspace_hold_still(struct keyspace *keyspace, struct keyspace_op *op,
			 struct keyspace_hold *hold);
void keyspace_hold_over(struct keyspace *keyspace, struct keyspace_hold *hold);
