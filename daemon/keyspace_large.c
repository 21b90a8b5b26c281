// SPDX-License-Identifier: MIT
//
// Large values outside of a command: their pages, made as their bytes come; and bytes that a
// connection is still being sent, which stay, by a hold on their run, when their key gets another
// value or goes.
#include "daemon/keyspace_internal.h"
#include "daemon/keyspace_pages.h"

#define LARGE_POPULATE_BYTES (2u << 20) // pages made at once: one huge page
#define LARGE_SMALL_PAGES_BYTES (256u << 10)

// How much is populated next. Huge pages are made whole; up to the first and behind the last of
// them, and where there are none, small ones by the share: 512 take two milliseconds.
static uint64_t large_populate_bytes(const struct keyspace *keyspace, uint64_t from, uint64_t left)
{
	uint64_t step = LARGE_POPULATE_BYTES - from % LARGE_POPULATE_BYTES;
	bool whole = keyspace->region->huge_pages && step == LARGE_POPULATE_BYTES;
	if (whole && left >= step) {
		return step;
	}
	step = step < left ? step : left;
	return step < LARGE_SMALL_PAGES_BYTES ? step : LARGE_SMALL_PAGES_BYTES;
}

bool keyspace_run_populate(struct keyspace *keyspace, uint64_t run_offset, uint64_t value_bytes,
			   uint64_t *populated)
{
	uint64_t from = run_offset + *populated;
	uint64_t left = kvs_large_bytes(keyspace->region, value_bytes) - *populated;
	uint64_t step = large_populate_bytes(keyspace, from, left);
	keyspace_make_way(keyspace, step);
	if (kvs_region_populate(keyspace->region, from, step) != 0) {
		return false;
	}
	*populated += step;
	return true;
}

bool keyspace_pin(struct keyspace *keyspace, const void *at, uint64_t *pin)
{
	const struct kvs_range_bounds *range = &keyspace->region->map.ranges[KVS_RANGE_LARGE];
	uint64_t offset = (uintptr_t)at - (uintptr_t)keyspace->region->base;
	return offset >= range->offset && offset - range->offset < range->bytes_max &&
	       kvs_large_hold_at(&keyspace->large, offset, pin);
}

void keyspace_unpin(struct keyspace *keyspace, uint64_t pin)
{
	if (!kvs_large_drop(&keyspace->large, pin)) {
		return;
	}
	// Its last record went meanwhile. Who follows the log may still need the bytes: as long as
	// what made them void is not durable, and that is no newer than what was written last.
	uint64_t seq = keyspace_last_seq(keyspace);
	if (keyspace_passed_seq(keyspace) < seq) {
		kvs_limbo_push(&keyspace->pending, seq, KEYSPACE_PENDING_RUN, pin, 0);
	} else {
		keyspace_limbo_run(keyspace, pin);
	}
}

uint64_t keyspace_pin_orphaned_bytes(struct keyspace *keyspace, uint64_t pin)
{
	return kvs_large_orphaned_bytes(&keyspace->large, pin);
}

uint64_t keyspace_orphaned_bytes(const struct keyspace *keyspace)
{
	return keyspace->large.orphaned_bytes;
}
