// SPDX-License-Identifier: MIT
//
// Counted from what each part keeps itself, so that one number does not depend on another: a
// difference between the file and what is expected of it is to be seen.
#include "daemon/keyspace_memory.h"

#include "daemon/keyspace_internal.h"

static void count_segment(const struct kvs_log *log, uint32_t index, struct keyspace_memory *memory)
{
	const struct kvs_segment *segment = &log->segments[index];
	bool open = index == log->head.segment || index == log->survivor.segment;
	uint32_t used = index == log->head.segment ? log->head.offset : segment->used_bytes;
	switch (segment->state) {
	case KVS_SEGMENT_FREE:
		return; // counted as a whole
	case KVS_SEGMENT_RETIRED:
		memory->retired++;
		return;
	case KVS_SEGMENT_SURVIVOR:
		memory->copied += !open;
		break;
	default:
		memory->written += !open;
		break;
	}
	memory->open += open;
	memory->live_bytes += segment->live_bytes;
	memory->dead_bytes += used > segment->live_bytes ? used - segment->live_bytes : 0;
	memory->tails_bytes += open ? 0 : log->region->segment_bytes - used;
}

static enum keyspace_shortage shortage(const struct keyspace *keyspace,
				       const struct keyspace_memory *memory)
{
	const struct kvs_log *log = &keyspace->log;
	if (keyspace_waits_for_store(keyspace)) {
		return KEYSPACE_SHORT_STORE;
	}
	if (kvs_log_segments_free(log) > memory->reserved) {
		return KEYSPACE_SHORT_OF_NOTHING;
	}
	if (log->retired_count > 0 || keyspace->large.orphaned_bytes > 0) {
		return KEYSPACE_SHORT_READERS;
	}
	uint64_t taken = memory->live_bytes + memory->dead_bytes;
	bool cleanable = memory->live_bytes <= taken / 100 * KEYSPACE_CLEAN_PERCENT;
	return cleanable ? KEYSPACE_SHORT_CLEANING : KEYSPACE_SHORT_MEMORY;
}

void keyspace_memory(struct keyspace *keyspace, struct keyspace_memory *memory)
{
	const struct kvs_log *log = &keyspace->log;
	const struct kvs_region *region = keyspace->region;
	const struct kvs_table *table = &keyspace->table;
	const struct memory_pages pages = memory_pages(keyspace);
	uint64_t unpersisted = (log->rolls - keyspace->rolls_durable) << region->segment_shift;
	*memory = (struct keyspace_memory){
		.bound_bytes = region->memory_bytes,
		.used_bytes = keyspace_used_bytes(keyspace),
		.segment_bytes = region->segment_bytes,
		.page_bytes = region->page_bytes,
		.allowed = kvs_log_segments_allowed(log),
		.reserved = keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE),
		.free_populated = kvs_log_spare_count(log),
		.preparing = log->preparing_count,
		.table_bytes = region->table_bytes,
		.overflow_bytes = table->populated[KVS_RANGE_OVERFLOW_0] +
				  table->populated[KVS_RANGE_OVERFLOW_1],
		.directory_bytes = region->directory_bytes,
		.large_bytes = region->large_bytes,
		.orphaned_bytes = keyspace->large.orphaned_bytes,
		.cold_values = keyspace->stubs,
		.cold_bytes = keyspace->stubs_value_bytes,
		.limbo_items = keyspace->limbo.count,
		.limbo_bytes = kvs_limbo_held_bytes(&keyspace->limbo, 0),
		.unpersisted_bytes =
			keyspace->persisted ? unpersisted + keyspace->unpersisted_large_bytes : 0,
		.file_bytes = pages.file_bytes,
		.expected_bytes = pages.expected_bytes,
		.exact = pages.exact,
	};
	uint32_t free = kvs_log_segments_free(log);
	uint32_t with = memory->free_populated + memory->preparing;
	memory->free_unpopulated = free > with ? free - with : 0;
	for (uint32_t i = 0; i < log->touched_count; i++) {
		count_segment(log, i, memory);
	}
	memory->shortage = shortage(keyspace, memory);
	memory->wanted_bytes = keyspace->memory_wanted_bytes;
	memory->bound = keyspace_bound(keyspace);
}
