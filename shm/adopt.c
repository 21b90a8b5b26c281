// SPDX-License-Identifier: MIT
//
// The plan as a whole, and its application. Nothing that is stored here frees memory: what the life
// before had in limbo goes there again, and readers that have not attached anew hold it back until
// the hold is over (shm/epoch_scan.h).
#include "shm/adopt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/extents.h"
#include "shm/holes.h"
#include "shm/table_internal.h"

#define ADOPT_ARRAY_START 256u
#define ADOPT_EPOCH_MAX (UINT64_C(1) << 46) // never reached at 1000 scans a second

bool kvs_adopt_grow(void *array, size_t count, size_t *capacity, size_t element_bytes)
{
	if (count < *capacity) {
		return true;
	}
	void *old;
	memcpy(&old, array, sizeof(old)); // `array` is the address of some typed pointer
	size_t wanted = *capacity > 0 ? *capacity * 2 : ADOPT_ARRAY_START;
	void *grown = reallocarray(old, wanted, element_bytes);
	if (grown == NULL) {
		return false;
	}
	memcpy(array, &grown, sizeof(grown));
	*capacity = wanted;
	return true;
}

// Epochs only rise, and what names one names one that was.
static int plan_hot(struct kvs_adopt *plan)
{
	const struct kvs_hot *hot = &plan->region->header->hot;
	const struct kvs_adoptions *adoptions = &plan->region->header->adoptions;
	uint64_t epoch = kvs_load_relaxed(&hot->epoch_word) >> KVS_EPOCH_SHIFT;
	bool good = epoch < ADOPT_EPOCH_MAX && kvs_load_relaxed(&hot->oldest_valid) <= epoch + 1 &&
		    kvs_load_relaxed(&adoptions->hold_epoch) <= epoch + 1;
	for (unsigned i = 0; i < KVS_ADOPTIONS_KEPT; i++) {
		good = good && kvs_load_relaxed(&adoptions->epoch[i]) <= epoch + 1;
	}
	if (!good) {
		(void)snprintf(plan->why, sizeof(plan->why), "its epochs contradict each other");
	}
	return good ? 0 : -EUCLEAN;
}

int kvs_adopt_plan(struct kvs_adopt *plan, struct kvs_region *region, uint64_t durable_seq)
{
	return kvs_adopt_plan_beside(plan, region, durable_seq, 0, UINT64_MAX);
}

int kvs_adopt_plan_beside(struct kvs_adopt *plan, struct kvs_region *region, uint64_t durable_seq,
			  uint64_t first_block, uint64_t next_block)
{
	memset(plan, 0, sizeof(*plan));
	plan->region = region;
	plan->first_block = first_block;
	plan->next_block = next_block;
	plan->durable_seq = durable_seq;
	plan->applied_seq = kvs_load_acquire(&region->header->marks.applied_seq);
	int result = plan_hot(plan);
	if (result == 0) {
		result = kvs_adopt_plan_log(plan);
	}
	if (result == 0) {
		result = kvs_adopt_plan_table(plan);
	}
	return result == 0 ? kvs_adopt_plan_large(plan) : result;
}

void kvs_adopt_fini(struct kvs_adopt *plan)
{
	free(plan->segments);
	free(plan->heads);
	free(plan->linked);
	free(plan->tombstones);
	free(plan->runs);
	free(plan->clears);
	free(plan->owners);
	free(plan->bad);
	memset(plan, 0, sizeof(*plan));
}

static int by_retired_epoch(const void *a, const void *b, void *context)
{
	const struct kvs_region *region = context;
	uint64_t epoch_a = region->directory[*(const uint32_t *)a].retired_epoch;
	uint64_t epoch_b = region->directory[*(const uint32_t *)b].retired_epoch;
	return (epoch_a > epoch_b) - (epoch_a < epoch_b);
}

// Emptied segments go on waiting, each with its own stamp, oldest first.
static int adopt_retired(const struct kvs_adopt *plan, struct kvs_log *log, struct kvs_limbo *limbo,
			 uint64_t stamp)
{
	uint32_t *retired = calloc(plan->touched_count, sizeof(*retired));
	uint32_t count = 0;
	if (retired == NULL) {
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < plan->touched_count; i++) {
		if (log->segments[i].state == KVS_SEGMENT_RETIRED) {
			retired[count++] = i;
		}
	}
	qsort_r(retired, count, sizeof(*retired), by_retired_epoch, plan->region);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t epoch = plan->region->directory[retired[i]].retired_epoch;
		kvs_limbo_push(limbo, epoch < stamp ? epoch : stamp, KVS_LIMBO_SEGMENT, retired[i],
			       plan->region->segment_bytes);
	}
	log->retired_count = count;
	free(retired);
	return 0;
}

// What the file has in pages beyond all that is known to be in use. So much can be found in free
// segments and no more: of huge pages each that is not there costs 60 us to ask for.
static uint64_t adopt_spare_bytes(const struct kvs_adopt *plan, const struct kvs_log *log)
{
	const struct kvs_region *region = plan->region;
	uint64_t known = KVS_HUGE_PAGE_BYTES + region->directory_bytes;
	for (unsigned range = KVS_RANGE_TABLE_0; range <= KVS_RANGE_OVERFLOW_1; range++) {
		known += plan->populated[range];
	}
	for (size_t i = 0; i < plan->runs_count; i++) {
		known += kvs_large_bytes(region, plan->runs[i].value_bytes);
	}
	for (uint32_t i = 0; i < log->touched_count; i++) {
		known += log->segments[i].state != KVS_SEGMENT_FREE ? region->segment_bytes : 0u;
	}
	uint64_t all = kvs_holes_file_bytes(region);
	return all > known ? all - known : 0;
}

// Of a free segment: has it all its pages? What it has is taken off *spare.
static bool adopt_is_prepared(struct kvs_extents *walk, const struct kvs_region *region,
			      uint32_t index, uint64_t *spare)
{
	if (*spare < region->segment_bytes) {
		return false;
	}
	uint64_t offset = kvs_region_segment_offset(region, index);
	uint64_t bytes = kvs_extents_populated(walk, offset, region->segment_bytes);
	*spare -= bytes;
	return bytes == region->segment_bytes;
}

// Which segments have all their pages. In the order of the file, unlike the free list.
static void adopt_prepared(const struct kvs_adopt *plan, struct kvs_log *log)
{
	struct kvs_region *region = log->region;
	struct kvs_extents walk;
	kvs_extents_begin(&walk, region);
	uint64_t bytes =
		kvs_extents_populated(&walk, region->header->segment_directory_offset,
				      region->segments_count_max * sizeof(*region->directory));
	// Of huge pages only those are seen that have something in them; what is in use has its.
	bool has_huge = region->page_bytes != KVS_PAGE_BYTES;
	uint64_t used_bytes = log->touched_count * sizeof(*region->directory);
	bytes = has_huge ? used_bytes + region->page_bytes - 1 : bytes;
	region->directory_bytes = bytes & ~(uint64_t)(region->page_bytes - 1);
	uint64_t spare = has_huge ? adopt_spare_bytes(plan, log) : UINT64_MAX;
	for (uint32_t i = 0; i < log->touched_count; i++) {
		log->segments[i].prepared =
			(has_huge && log->segments[i].state != KVS_SEGMENT_FREE) ||
			adopt_is_prepared(&walk, region, i, &spare);
		log->prepared_count += log->segments[i].prepared;
	}
}

static void adopt_segment(struct kvs_log *log, uint32_t index)
{
	struct kvs_region *region = log->region;
	struct kvs_segment *segment = &log->segments[index];
	switch (segment->state) {
	case KVS_SEGMENT_FREE:
		if (index < log->touched_count) {
			kvs_store_release(&region->directory[index].state, KVS_SEGMENT_FREE);
		}
		log->free_list[log->free_list_count++] = index;
		break;
	case KVS_SEGMENT_HEAD:
	case KVS_SEGMENT_SURVIVOR:
		// What was cut off the end is no record any more, whoever looks next.
		kvs_store_relaxed(&region->directory[index].used_bytes, segment->used_bytes);
		log->full_count++;
		break;
	default:
		break;
	}
}

static int adopt_log(struct kvs_adopt *plan, struct kvs_log *log)
{
	struct kvs_region *region = plan->region;
	memset(log, 0, sizeof(*log));
	log->region = region;
	log->segments = plan->segments;
	plan->segments = NULL;
	log->free_list = calloc(region->segments_count_max, sizeof(*log->free_list));
	if (log->free_list == NULL) {
		return -ENOMEM;
	}
	log->touched_count = plan->touched_count;
	log->survivor.segment = plan->survivor;
	adopt_prepared(plan, log);
	kvs_adopt_fill_bad(plan);
	// First: should this be cut short, what is newer than the newest head counts as free.
	kvs_store_release(&region->header->segment_chain_head, plan->end.segment);
	// Lowest indexes on top, as in kvs_log_init().
	for (uint32_t i = region->segments_count_max; i-- > 0;) {
		adopt_segment(log, i);
	}
	if (plan->survivor != KVS_SEGMENT_NONE) {
		log->survivor.offset = log->segments[plan->survivor].used_bytes;
	}
	log->head = plan->end;
	log->next_seq = plan->last_seq + 1;
	log->rolls = plan->heads_count - 1 - plan->first_unpersisted_head;
	kvs_log_publish(log);
	return 0;
}

// The bucket behind the last may hold what a split or merge left.
static void clear_beyond(const struct kvs_table *table)
{
	uint64_t bytes = (table->buckets + 1) * sizeof(struct kvs_bucket);
	if (bytes > table->populated[KVS_RANGE_TABLE_0 + table->side]) {
		return;
	}
	struct kvs_bucket *bucket = kvs_table_primary(table, table->buckets);
	for (unsigned i = 0; i < KVS_BUCKET_ENTRIES; i++) {
		kvs_store_release(&bucket->entry[i], 0);
	}
	kvs_store_release(&bucket->overflow, 0);
}

static void adopt_overflow(const struct kvs_adopt *plan, struct kvs_table *table,
			   struct kvs_limbo *limbo, uint64_t stamp)
{
	struct kvs_overflow *overflow = &table->overflow[table->side];
	uint64_t fresh = kvs_load_relaxed(&plan->region->header->overflow_fresh[table->side]);
	uint64_t most =
		plan->populated[KVS_RANGE_OVERFLOW_0 + table->side] / sizeof(struct kvs_bucket);
	overflow->fresh = fresh < most ? fresh : most;
	overflow->used_count = (uint32_t)overflow->fresh;
	for (uint64_t i = 0; i < overflow->fresh; i++) {
		if ((plan->linked[i / 64] >> (i % 64) & 1) == 0) {
			kvs_limbo_push(limbo, stamp, KVS_LIMBO_OVERFLOW, i, table->side);
		}
	}
}

// The side that is not in use waits in limbo if anything is in it.
static void adopt_other_side(const struct kvs_adopt *plan, struct kvs_table *table,
			     struct kvs_limbo *limbo, uint64_t stamp)
{
	unsigned other = table->side ^ 1u;
	uint64_t bytes = plan->populated[KVS_RANGE_TABLE_0 + other] +
			 plan->populated[KVS_RANGE_OVERFLOW_0 + other];
	table->other_side_ready = bytes == 0;
	if (bytes > 0) {
		kvs_limbo_push(limbo, stamp, KVS_LIMBO_SIDE, other, bytes);
	}
}

static void adopt_table(const struct kvs_adopt *plan, const struct kvs_adopt_parts *parts,
			uint64_t stamp)
{
	struct kvs_region *region = plan->region;
	struct kvs_table *table = parts->table;
	uint64_t root = kvs_load_relaxed(&region->header->hot.table_root);
	memset(table, 0, sizeof(*table));
	table->region = region;
	table->epochs = parts->epochs;
	table->limbo = parts->limbo;
	table->side = kvs_root_side(root);
	table->buckets = kvs_root_buckets(root);
	table->buckets_min =
		kvs_table_chunk_bytes(region, KVS_RANGE_TABLE_0) / sizeof(struct kvs_bucket);
	table->growing = true;
	table->tail_from = KVS_TABLE_TAIL_NONE;
	table->entries = plan->entries;
	region->table_bytes = 0;
	for (unsigned range = KVS_RANGE_TABLE_0; range <= KVS_RANGE_OVERFLOW_1; range++) {
		table->populated[range] = plan->populated[range];
		region->table_bytes += plan->populated[range];
		// The former writer may have ended between the pages and the word of them.
		kvs_region_publish(region, (enum kvs_range)range, plan->populated[range]);
	}
	// A turn before anything is cleared: who searched while the old writer died searches anew,
	// and whichever way the table went, it is known to begin again here.
	table->turns = kvs_root_turns(root) + 1;
	kvs_table_publish_root(table);
	for (size_t i = 0; i < plan->clears_count; i++) {
		void *slot = region->base + plan->clears[i].slot_offset;
		kvs_store_release(slot, 0); // after the root (partner: the fence on a miss)
	}
	clear_beyond(table);
	adopt_overflow(plan, table, parts->limbo, stamp);
	adopt_other_side(plan, table, parts->limbo, stamp);
	kvs_table_tail_look(table);
}

int kvs_adopt_apply(struct kvs_adopt *plan, const struct kvs_adopt_parts *parts)
{
	uint64_t stamp = kvs_epoch_stamp(parts->epochs);
	int result = adopt_log(plan, parts->log);
	if (result == 0) {
		result = adopt_retired(plan, parts->log, parts->limbo, stamp);
	}
	if (result == 0) {
		adopt_table(plan, parts, stamp);
		result = kvs_adopt_apply_large(plan, parts, stamp);
	}
	return result;
}
