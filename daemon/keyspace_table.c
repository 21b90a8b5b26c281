// SPDX-License-Identifier: MIT
//
// Memory of the table, as the keyspace sees it: growth and shrinkage within the bound, and pages
// that a helper thread populates. Who needs what is on its way waits for it: a write as for any
// memory, growth without anybody noticing.
#include <errno.h>

#include "daemon/keyspace_internal.h"
#include "daemon/prepare.h"

void keyspace_set_write_wait(struct keyspace *keyspace, uint64_t wait_ms)
{
	uint64_t wait_ns = wait_ms * UINT64_C(1000000) / 2;
	keyspace->reseed.patience_ns = wait_ns;
	keyspace->pages_wait_ns =
		wait_ns < KEYSPACE_PAGES_WAIT_NS ? wait_ns : KEYSPACE_PAGES_WAIT_NS;
}

bool keyspace_table_waits(struct keyspace *keyspace, unsigned ranges)
{
	struct kvs_table_ahead *ahead = &keyspace->table.ahead;
	uint64_t now_ns = keyspace->seam->monotonic_ns();
	bool waits = true;
	for (unsigned range = 0; range < KVS_TABLE_RANGES; range++) {
		if ((ranges >> range & 1u) == 0 || ahead->wanted[range] == 0) {
			continue;
		}
		uint64_t since_ns = ahead->since_ns[range] ? ahead->since_ns[range] : now_ns;
		bool over = now_ns - since_ns >= keyspace->pages_wait_ns;
		ahead->since_ns[range] = over ? 0 : since_ns;
		waits = waits && !over;
	}
	return waits;
}

int keyspace_table_secure(struct keyspace *keyspace, uint64_t count)
{
	struct kvs_table *table = &keyspace->table;
	int result = kvs_table_secure(table, count);
	if (result == -EAGAIN) {
		unsigned range = KVS_RANGE_OVERFLOW_0 + table->side;
		prepare_turn(keyspace);
		if (keyspace_table_waits(keyspace, 1u << range)) {
			return KEYSPACE_WAIT;
		}
		table->ahead.refused[range] = true; // do it now
		result = kvs_table_secure(table, count);
	}
	return result == 0 ? KEYSPACE_OK : KEYSPACE_FULL;
}

// Is there memory for the table to grow by a bucket, now? It is no hurry for a while: chains get a
// little longer.
static bool table_can_grow(struct keyspace *keyspace)
{
	struct kvs_table *table = &keyspace->table;
	if (kvs_log_segments_free(&keyspace->log) <=
	    keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE)) {
		return false;
	}
	if (!kvs_table_wants_growth(table) || kvs_table_await_growth(table) != -EAGAIN) {
		return true;
	}
	prepare_turn(keyspace);
	return !keyspace_table_waits(keyspace, 1u << (KVS_RANGE_TABLE_0 + table->side));
}

void keyspace_table_steps(struct keyspace *keyspace, unsigned steps)
{
	while (steps-- > 0) {
		if (kvs_table_growth_bytes(&keyspace->table) > 0 && !table_can_grow(keyspace)) {
			return;
		}
		if (keyspace->scans > 0 && !kvs_table_wants_growth(&keyspace->table)) {
			return;
		}
		if (!kvs_table_step(&keyspace->table)) {
			return;
		}
	}
}

static void table_step(void *context, enum kvs_table_step step)
{
	(void)context;
	switch (step) {
	case KVS_TABLE_SPLIT_FILLED:
		SEAM_CRASH(split_filled);
		break;
	case KVS_TABLE_SPLIT_PUBLISHED:
		SEAM_CRASH(split_published);
		break;
	case KVS_TABLE_COMPACT_FILLED:
		SEAM_CRASH(chain_filled);
		break;
	case KVS_TABLE_COMPACT_PUBLISHED:
		SEAM_CRASH(chain_published);
		break;
	case KVS_TABLE_MERGE_FILLED:
		SEAM_CRASH(merge_filled);
		break;
	case KVS_TABLE_MERGE_PUBLISHED:
		SEAM_CRASH(merge_published);
		break;
	default: // of a rebuild: keyspace_reseed.c has its own
		break;
	}
}

void keyspace_table_label(struct keyspace *keyspace)
{
	if (seam_crash_armed) {
		keyspace->table.step_hook = table_step;
	}
}
