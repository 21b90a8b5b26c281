// SPDX-License-Identifier: MIT
//
// Large values outside of a command: bytes that a connection is still being sent stay, by a hold on
// their run, when their key gets another value or goes.
#include "daemon/keyspace_internal.h"

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
