// SPDX-License-Identifier: MIT
//
// Loading what another region has. Everything is current and comes once, so nothing is compared and
// nothing thinned; what had been accepted is loaded beyond the bound if other segments pack it
// worse, as in recovery's second reading. Records are summed on the way: what is copied is to be
// what was written.
#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"
#include "shm/crc32c.h"
#include "shm/table.h"

struct reading {
	struct keyspace *to;
	const struct kvs_map *from;
	uint64_t *damaged;
	int result;
};

static bool is_whole(const struct kvs_hit *hit)
{
	return kvs_record_crc_ok(&hit->view) &&
	       ((hit->view.flags & KVS_RECORD_LARGE) == 0 ||
		kvs_crc32c(0, hit->value, hit->view.value_bytes) == kvs_record_run(&hit->view).crc);
}

static void read_entry(void *context, uint64_t entry)
{
	struct reading *reading = context;
	struct kvs_hit hit;
	if (reading->result != KEYSPACE_OK) {
		return;
	}
	if (kvs_table_load(reading->from, entry, &hit) != KVS_FIND_HIT) {
		keyspace_lose_unnamed(reading->to, 1);
		(*reading->damaged)++;
		return;
	}
	if (hit.kind == KVS_ENTRY_TOMBSTONE) {
		return;
	}
	if (hit.kind == KVS_ENTRY_STUB) {
		keyspace_lose_unnamed(reading->to, 1); // its value is in a store that is not here
		return;
	}
	if (!is_whole(&hit)) {
		keyspace_lose(reading->to, &hit.view);
		(*reading->damaged)++;
		return;
	}
	const void *large = (hit.view.flags & KVS_RECORD_LARGE) != 0 ? hit.value : NULL;
	reading->result = keyspace_recover_record(reading->to, &hit.view, large, 0);
}

int keyspace_read_out(struct keyspace *to, struct keyspace *from, uint64_t *damaged)
{
	struct reading reading = {
		.to = to, .from = &from->region->map, .damaged = damaged, .result = KEYSPACE_OK
	};
	uint64_t cursor = 0;
	to->recover_current_only = true;
	to->flush_seq = to->recover_swept_seq = from->flush_seq;
	do {
		cursor = kvs_table_scan(reading.from, cursor, read_entry, &reading);
	} while (cursor != 0 && reading.result == KEYSPACE_OK);
	return reading.result;
}
