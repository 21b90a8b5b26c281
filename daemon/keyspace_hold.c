// SPDX-License-Identifier: MIT
//
// What a write copies from, while room is made for it: values that are current (EXPIRE, APPEND,
// SETRANGE, COPY) may be moved by the cleaner then, or evicted. The key that is written stays: its
// command has answered by what it was, and nobody is to see it gone before it is there anew.
#include "daemon/keyspace_hold.h"

#include <stdlib.h>
#include <string.h>

static bool is_inside(const struct kvs_region *region, const void *at)
{
	uintptr_t start = (uintptr_t)region->base;
	return at != NULL && (uintptr_t)at >= start && (uintptr_t)at - start < region->bytes;
}

// May cleaning move these bytes? Records of the log may be; large values stay where they are.
static bool may_move(const struct keyspace *keyspace, const void *at)
{
	const struct kvs_region *region = keyspace->region;
	const struct kvs_range_bounds *large = &region->map.ranges[KVS_RANGE_LARGE];
	uint64_t offset = (uintptr_t)at - (uintptr_t)region->base;
	return is_inside(region, at) &&
	       (offset < large->offset || offset - large->offset >= large->bytes_max);
}

// Large values among the pieces may be evicted for the room that is made: then their bytes wait.
static void hold_runs(struct keyspace *keyspace, struct keyspace_hold *hold, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		const void *at = hold->pieces[i].data;
		uint64_t offset = (uintptr_t)at - (uintptr_t)keyspace->region->base;
		uint64_t run = hold->pins_count > 0 ? hold->pins[hold->pins_count - 1] : 0;
		// Pieces of one value follow each other.
		bool held = run != 0 && offset - run < kvs_large_run_bytes(&keyspace->large, run);
		if (is_inside(keyspace->region, at) && !held &&
		    keyspace_pin(keyspace, at, &hold->pins[hold->pins_count])) {
			hold->pins_count++;
		}
	}
}

void keyspace_hold_over(struct keyspace *keyspace, struct keyspace_hold *hold)
{
	for (uint32_t i = 0; i < hold->pins_count; i++) {
		keyspace_unpin(keyspace, hold->pins[i]);
	}
	free(hold->aside);
	keyspace->evict.spared = NULL;
}

bool keyspace_hold_still(struct keyspace *keyspace, struct keyspace_op *op,
			 struct keyspace_hold *hold)
{
	struct kvs_piece *pieces = hold->pieces;
	struct kvs_piece whole = { op->value, op->value_bytes };
	uint32_t count = op->pieces_count > 0 ? op->pieces_count : 1;
	uint64_t bytes = 0;
	hold->is_on = true;
	hold->pins_count = 0;
	hold->aside = NULL;
	keyspace->evict.spared = op;
	memcpy(pieces, op->pieces_count > 0 ? op->pieces : &whole, count * sizeof(*pieces));
	for (uint32_t i = 0; i < count; i++) {
		bytes += may_move(keyspace, pieces[i].data) ? pieces[i].bytes : 0u;
	}
	if (keyspace->evict.on) {
		hold_runs(keyspace, hold, count);
	}
	if (bytes == 0) {
		return true;
	}
	unsigned char *to = malloc(bytes);
	hold->aside = to;
	if (to == NULL) {
		return false;
	}
	for (uint32_t i = 0; i < count; i++) {
		if (pieces[i].bytes > 0 && may_move(keyspace, pieces[i].data)) {
			memcpy(to, pieces[i].data, pieces[i].bytes);
			pieces[i].data = to;
			to += pieces[i].bytes;
		}
	}
	op->pieces = pieces;
	op->pieces_count = count;
	return true;
}
