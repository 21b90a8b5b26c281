// SPDX-License-Identifier: MIT
//
// Pages where all memory is taken at the start and kept (prefault): then free segments have them
// all, so whatever else wants some takes them from those first. Elsewhere the same is done a little
// later, in turns.
#include "daemon/keyspace_pages.h"

#include <errno.h>

#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"

int keyspace_prefault(struct keyspace *keyspace)
{
	if (!keyspace->prefault) {
		return 0;
	}
	int result = kvs_log_prefault(&keyspace->log);
	if (result == -ENOMEM) {
		// What the life before had on its way may have pages that nobody counts.
		memory_return_strays(keyspace);
		result = kvs_log_prefault(&keyspace->log);
	}
	return result;
}

void keyspace_make_way(struct keyspace *keyspace, uint64_t bytes)
{
	struct kvs_log *log = &keyspace->log;
	if (keyspace->prefault) {
		// From those that are used last: the first may be vouched for until a write is
		// over.
		log->given_at = 0;
		(void)kvs_log_trim(log, (uint32_t)(bytes >> keyspace->region->segment_shift) + 1);
	}
}

bool keyspace_take_run(struct keyspace *keyspace, uint64_t value_bytes, uint64_t *offset)
{
	struct kvs_region *region = keyspace->region;
	struct kvs_log *log = &keyspace->log;
	uint64_t bytes = kvs_large_bytes(region, value_bytes);
	if (kvs_large_reserve(&keyspace->large, value_bytes, offset) != 0) {
		return false;
	}
	keyspace_make_way(keyspace, bytes);
	if (kvs_region_populate(region, *offset, bytes) != 0) {
		if (kvs_large_drop(&keyspace->large, *offset)) {
			kvs_large_free(&keyspace->large, *offset);
		}
		return false;
	}
	log->given_at = 0; // as in keyspace_make_way()
	(void)kvs_log_trim(log, kvs_log_part(log));
	return true;
}

int keyspace_map_pages(struct keyspace *keyspace)
{
	const struct kvs_region *region = keyspace->region;
	const struct kvs_log *log = &keyspace->log;
	int result = kvs_region_populate(region, region->header->segment_directory_offset,
					 region->directory_bytes);
	for (unsigned i = KVS_RANGE_TABLE_0; i <= KVS_RANGE_OVERFLOW_1 && result == 0; i++) {
		uint64_t bytes = keyspace->table.populated[i];
		if (bytes > 0) {
			result = kvs_region_populate(region, region->map.ranges[i].offset, bytes);
		}
	}
	for (uint32_t i = 0; i < log->touched_count && result == 0; i++) {
		if (log->segments[i].prepared || log->segments[i].state != KVS_SEGMENT_FREE) {
			result = kvs_region_populate(region, kvs_region_segment_offset(region, i),
						     region->segment_bytes);
		}
	}
	const struct kvs_large_run *end = &keyspace->large.sentinel;
	for (const struct kvs_large_run *run = end->next; run != end && result == 0;
	     run = run->next) {
		result = kvs_region_populate(region, run->offset, run->bytes);
	}
	return result;
}
