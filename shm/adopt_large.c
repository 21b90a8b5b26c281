// SPDX-License-Identifier: MIT
//
// Large values of a region that is taken over: the runs that records name are registered, and
// whatever else has pages in their range becomes runs that nobody names, which go through limbo,
// for a reader of the life before may still look at one.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/adopt.h"
#include "shm/extents.h"

bool kvs_adopt_note_run(struct kvs_adopt *plan, const struct kvs_record_view *view, bool referenced)
{
	if (!kvs_adopt_grow(&plan->runs, plan->runs_count, &plan->runs_capacity,
			    sizeof(*plan->runs))) {
		return false;
	}
	if (!referenced && view->seq > plan->durable_seq) {
		plan->unpersisted_large_bytes += view->value_bytes;
	}
	plan->runs[plan->runs_count++] = (struct kvs_adopt_run){
		.offset = kvs_record_run(view).offset,
		.value_bytes = view->value_bytes,
		.seq = view->seq,
		.references = referenced,
		.record = referenced ? (uint64_t)((const unsigned char *)view->record -
						  plan->region->base)
				     : 0,
	};
	return true;
}

static int by_offset_oldest(const void *a, const void *b)
{
	const struct kvs_adopt_run *run_a = a;
	const struct kvs_adopt_run *run_b = b;
	if (run_a->offset != run_b->offset) {
		return run_a->offset > run_b->offset ? 1 : -1;
	}
	return (run_a->seq > run_b->seq) - (run_a->seq < run_b->seq);
}

// Several records may name one run: EXPIRE and RENAME copy no value. Of two that are current the
// newest stays: a RENAME was cut, and the key that it takes away goes when that is done.
static void join_runs(struct kvs_adopt *plan)
{
	size_t kept = 0;
	for (size_t i = 0; i < plan->runs_count; i++) {
		struct kvs_adopt_run *run = &plan->runs[i];
		struct kvs_adopt_run *last = kept > 0 ? &plan->runs[kept - 1] : NULL;
		if (last != NULL && last->offset == run->offset) {
			last->references += run->references;
			last->record = run->references > 0 ? run->record : last->record;
			last->seq = run->seq > last->seq ? run->seq : last->seq;
			last->value_bytes = run->value_bytes > last->value_bytes
						    ? run->value_bytes
						    : last->value_bytes;
		} else {
			plan->runs[kept++] = *run;
		}
	}
	plan->runs_count = kept;
}

int kvs_adopt_plan_large(struct kvs_adopt *plan)
{
	const struct kvs_range_bounds *range = &plan->region->map.ranges[KVS_RANGE_LARGE];
	if (plan->runs_count == 0) {
		return 0;
	}
	qsort(plan->runs, plan->runs_count, sizeof(*plan->runs), by_offset_oldest);
	join_runs(plan);
	uint64_t behind = range->offset;
	for (size_t i = 0; i < plan->runs_count; i++) {
		const struct kvs_adopt_run *run = &plan->runs[i];
		uint64_t bytes = kvs_large_bytes(plan->region, run->value_bytes);
		if (run->offset < behind || run->offset % plan->region->page_bytes != 0 ||
		    bytes == 0 || run->offset - range->offset > range->bytes_max ||
		    bytes > range->bytes_max - (run->offset - range->offset)) {
			(void)snprintf(plan->why, sizeof(plan->why),
				       "large values overlap or lie outside at offset %llu",
				       (unsigned long long)run->offset);
			return -EUCLEAN;
		}
		behind = run->offset + bytes;
	}
	return 0;
}

// Registers what has pages in [from, to) as runs that nobody names.
static int adopt_strays(struct kvs_extents *walk, const struct kvs_adopt_parts *parts,
			uint64_t stamp, uint64_t from, uint64_t to)
{
	uint64_t start, end;
	while (kvs_extents_next(walk, from, to, &start, &end)) {
		if (kvs_large_adopt(parts->large, start, end - start, 0, 0) != 0) {
			return -ENOMEM;
		}
		kvs_limbo_push(parts->limbo, stamp, KVS_LIMBO_RUN, start, end - start);
		from = end;
	}
	return 0;
}

// Where pages of large values may end. All of the range is looked through only where the kernel
// does that: behind what was ever published there is none that a reader may see.
static uint64_t large_until(const struct kvs_region *region)
{
	const struct kvs_range_bounds *range = &region->map.ranges[KVS_RANGE_LARGE];
	uint64_t published = kvs_load_acquire(&region->header->ready[KVS_RANGE_LARGE]);
	bool all = region->page_bytes == KVS_PAGE_BYTES || published > range->bytes_max;
	return range->offset + (all ? range->bytes_max : published);
}

int kvs_adopt_apply_large(const struct kvs_adopt *plan, const struct kvs_adopt_parts *parts,
			  uint64_t stamp)
{
	const struct kvs_range_bounds *range = &plan->region->map.ranges[KVS_RANGE_LARGE];
	struct kvs_large *large = parts->large;
	struct kvs_extents walk;
	int result = kvs_large_init(large, plan->region);
	kvs_extents_begin(&walk, plan->region);
	uint64_t at = range->offset;
	for (size_t i = 0; i < plan->runs_count && result == 0; i++) {
		const struct kvs_adopt_run *run = &plan->runs[i];
		result = adopt_strays(&walk, parts, stamp, at, run->offset);
		if (result == 0) {
			result = kvs_large_adopt(large, run->offset,
						 kvs_large_bytes(plan->region, run->value_bytes),
						 run->references, run->record);
		}
		at = run->offset + kvs_large_bytes(plan->region, run->value_bytes);
	}
	if (result == 0) {
		result = adopt_strays(&walk, parts, stamp, at, large_until(plan->region));
	}
	return result;
}
