// SPDX-License-Identifier: MIT
//
// A walk over the table: each key's record is looked at, a tenth of a microsecond. Keys come, go
// and change meanwhile; what is asked for is how much there is, and not which.
#include "daemon/keyspace_stays.h"

#include "daemon/keyspace_internal.h"

#define STAYS_POSITIONS 64u	 // of the table in a step
#define STAYS_PACKED_PERCENT 95u // as full as segments can be packed
#define STAYS_SEGMENTS_OPEN 2u	 // the head and the survivor segment, which are not
// Free beside what stays: for who writes, beyond the reserves, and of all so large a part.
#define STAYS_SEGMENTS_LEFT 3u
#define STAYS_SEGMENTS_SHARE 16u
#define STAYS_SEGMENTS_SHARE_EXPIRY 11u // where a 64th of all is for changed times to live

struct stays_visit {
	const struct keyspace *keyspace;
	const struct keyspace_eviction *how;
	struct keyspace_stays *stays;
};

bool keyspace_stays_any(const struct keyspace_eviction *how)
{
	bool never = how->never != NULL && *how->never != 0;
	return how->on && (how->spills || how->volatile_only || never);
}

static void visit(void *context, uint64_t entry)
{
	const struct stays_visit *walk = context;
	const struct keyspace_eviction *how = walk->how;
	struct keyspace_stays *stays = walk->stays;
	const struct kvs_region *region = walk->keyspace->region;
	struct kvs_hit hit;
	if (kvs_table_load(&region->map, entry, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE) {
		return;
	}
	const struct kvs_record_view *view = &hit.view;
	bool goes = evict_may_go(how->volatile_only, how->never, view);
	bool large = hit.kind == KVS_ENTRY_LARGE;
	stays->entries++;
	if (goes && !how->spills) {
		return;
	}
	uint64_t bytes = view->record_bytes;
	uint64_t stub_bytes = kvs_record_stub_bytes(view->key_bytes, view->expiry_ms != 0);
	if (goes && (large || stub_bytes < bytes)) {
		bytes = stub_bytes;
		large = false;
	}
	stays->keys++;
	stays->record_bytes += bytes;
	stays->large_bytes += large ? kvs_large_bytes(region, view->value_bytes) : 0;
}

bool keyspace_stays_step(const struct keyspace *keyspace, const struct keyspace_eviction *how,
			 struct keyspace_stays *stays)
{
	const struct kvs_map *map = &keyspace->region->map;
	struct stays_visit walk = { keyspace, how, stays };
	if (stays->side != keyspace->table.side) {
		*stays = (struct keyspace_stays){ .side = keyspace->table.side };
	}
	for (unsigned i = 0; i < STAYS_POSITIONS && !stays->over; i++) {
		stays->cursor = kvs_table_scan(map, stays->cursor, visit, &walk);
		stays->over = stays->cursor == 0;
	}
	return !stays->over;
}

// What the table takes with so many keys, if it takes less by then.
static uint64_t table_bytes(const struct keyspace *keyspace, uint64_t keys)
{
	uint64_t buckets = keys * 16 / KVS_TABLE_LOAD_SHRINK_X16;
	uint64_t bytes = (buckets + buckets / 4) * sizeof(struct kvs_bucket);
	bytes += 2 * KVS_HUGE_PAGE_BYTES; // it is given back in such, at most
	return bytes < keyspace->region->table_bytes ? bytes : keyspace->region->table_bytes;
}

uint64_t keyspace_stays_least(const struct keyspace *keyspace, const struct keyspace_eviction *how,
			      const struct keyspace_stays *stays)
{
	const struct kvs_region *region = keyspace->region;
	const struct kvs_log *log = &keyspace->log;
	// Those that were seen twice, in the same measure whatever they are.
	uint64_t entries = keyspace->table.entries;
	double share = stays->entries > entries ? (double)entries / (double)stays->entries : 1.0;
	uint64_t keys = (uint64_t)((double)stays->keys * share);
	uint64_t bytes = (uint64_t)((double)stays->record_bytes * share);
	uint64_t large_bytes = (uint64_t)((double)stays->large_bytes * share);
	// A segment's end is too short for the next record.
	uint64_t tail = keys > 0 ? bytes / keys : 0;
	uint64_t usable = region->segment_bytes;
	usable -= tail < usable / 2 ? tail : usable / 2;
	uint64_t segments = bytes / (usable * STAYS_PACKED_PERCENT / 100) + STAYS_SEGMENTS_OPEN +
			    KEYSPACE_RESERVE_CLEANER + KEYSPACE_RESERVE_REMOVALS +
			    STAYS_SEGMENTS_LEFT;
	bool keys_go = !how->spills && !how->volatile_only;
	segments +=
		segments / (keys_go ? STAYS_SEGMENTS_SHARE - 1 : STAYS_SEGMENTS_SHARE_EXPIRY) + 1;
	uint64_t taken = (uint64_t)log->full_count + log->retired_count;
	uint64_t fixed = kvs_log_memory_for(log, 0) - (taken << region->segment_shift) -
			 region->large_bytes - region->table_bytes;
	return fixed + large_bytes +
	       (how->spills ? region->table_bytes : table_bytes(keyspace, keys)) +
	       (segments << region->segment_shift);
}
