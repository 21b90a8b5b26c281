// SPDX-License-Identifier: MIT
//
// Each count is kept in small steps by whoever changes something, so a step that is left out shows
// in none of them: memory that is never free again, a segment that is never cleaned, a key whose
// end nobody awaits. The plan of an adoption counts all of it anew from nothing but the region, and
// what stands outside (limbo, pending removals, the wheel) is held against that.
//
// What could not be queued for want of memory is lost until the next life, and known to be: then
// what waits is not compared.
#include "daemon/keyspace_recount.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace_internal.h"
#include "shm/adopt.h"
#include "shm/extents.h"
#include "shm/table.h"

struct look {
	struct keyspace *keyspace;
	struct kvs_adopt plan;
	struct keyspace_recount *recount;
	uint64_t *waiting; // offsets of runs that limbo or pending has, sorted
	size_t waiting_count;
	uint64_t *removals; // places of removals that pending has, sorted
	size_t removals_count;
	uint64_t *items; // of the wheel, sorted
	size_t items_count, items_room;
	uint64_t ending; // keys that the wheel has to know of
};

// `number` is of what there is more than one: a segment, a user.
static void compare(struct look *look, const char *what, uint64_t number, uint64_t counted,
		    uint64_t found)
{
	struct keyspace_recount *recount = look->recount;
	recount->checked++;
	if (counted != found && recount->differences++ == 0) {
		(void)snprintf(recount->first, sizeof(recount->first),
			       "%s (%" PRIu64 "): counted %" PRIu64 ", found %" PRIu64, what,
			       number, counted, found);
	}
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static bool has(const uint64_t *values, size_t count, uint64_t value)
{
	return count > 0 && bsearch(&value, values, count, sizeof(value), by_value) != NULL;
}

// Pages are compared while no helper has any on their way.
static bool pages_stand_still(const struct keyspace *keyspace)
{
	return keyspace->log.preparing_count == 0 && !keyspace->table.ahead.active &&
	       LIST_EMPTY(&keyspace->stages);
}

static void compare_table(struct look *look)
{
	const struct keyspace *keyspace = look->keyspace;
	const struct kvs_table *table = &keyspace->table;
	const struct kvs_adopt *plan = &look->plan;
	uint64_t populated = 0;
	compare(look, "entries that are damaged", 0, 0, plan->damaged_count);
	compare(look, "entries that a move left", 0, 0, plan->clears_count - plan->damaged_count);
	compare(look, "entries of the table", 0, table->entries, plan->entries);
	compare(look, "keys", 0, keyspace->keys, plan->keys);
	compare(look, "keys that end", 0, keyspace->keys_with_expiry, plan->keys_with_expiry);
	compare(look, "stubs", 0, keyspace->stubs, plan->stubs);
	compare(look, "bytes of their values", 0, keyspace->stubs_value_bytes,
		plan->stubs_value_bytes);
	compare(look, "stubs that do not know their place", 0, keyspace->stubs_astray,
		plan->stubs_astray);
	compare(look, "live bytes", 0, keyspace->live_bytes, plan->live_bytes);
	for (unsigned i = KVS_RANGE_TABLE_0; i <= KVS_RANGE_OVERFLOW_1; i++) {
		populated += table->populated[i];
		if (pages_stand_still(keyspace)) {
			compare(look, "bytes of a range of the table", i, table->populated[i],
				plan->populated[i]);
		}
	}
	if (!table->ahead.active) {
		compare(look, "bytes of the table", 0, keyspace->region->table_bytes, populated);
	}
	for (uint32_t i = 0; i < KVS_WRITERS_MAX; i++) {
		compare(look, "bytes of a user", i, keyspace->owners[i].bytes,
			plan->owners[i].bytes);
		compare(look, "keys of a user", i, keyspace->owners[i].keys, plan->owners[i].keys);
	}
}

static void compare_log(struct look *look)
{
	const struct kvs_log *log = &look->keyspace->log;
	const struct kvs_adopt *plan = &look->plan;
	const struct kvs_region *region = log->region;
	uint64_t full = 0, retired = 0, free = 0, prepared = 0;
	struct kvs_extents walk;
	kvs_extents_begin(&walk, region);
	for (uint32_t i = 0; i < region->segments_count_max; i++) {
		const struct kvs_segment *segment = &log->segments[i];
		const struct kvs_segment *found = &plan->segments[i];
		bool in_use = segment->state == KVS_SEGMENT_HEAD ||
			      segment->state == KVS_SEGMENT_SURVIVOR;
		full += in_use;
		retired += segment->state == KVS_SEGMENT_RETIRED;
		free += segment->state == KVS_SEGMENT_FREE && !segment->preparing;
		prepared += segment->prepared;
		compare(look, "state of a segment", i, segment->state, found->state);
		if (in_use) {
			uint64_t used =
				i == log->head.segment ? log->head.offset : segment->used_bytes;
			compare(look, "used bytes of a segment", i, used, found->used_bytes);
			compare(look, "live bytes of a segment", i, segment->live_bytes,
				found->live_bytes);
		}
		if (segment->prepared) {
			compare(look, "pages of a segment", i, region->segment_bytes,
				kvs_extents_populated(&walk, kvs_region_segment_offset(region, i),
						      region->segment_bytes));
		}
	}
	compare(look, "segments with records", 0, log->full_count, full);
	compare(look, "retired segments", 0, log->retired_count, retired);
	compare(look, "free segments", 0, log->free_list_count, free);
	compare(look, "segments with pages", 0, log->prepared_count, prepared);
	compare(look, "last version", 0, log->next_seq - 1, plan->last_seq);
	compare(look, "records behind the log's end", 0, 0, plan->cut_records);
}

// What waits for readers, and for a commit, is all that no entry names and that is not free.
static void compare_waiting(struct look *look)
{
	const struct keyspace *keyspace = look->keyspace;
	const struct kvs_overflow *overflow = &keyspace->table.overflow[keyspace->table.side];
	uint64_t segments = 0, buckets = 0, large_bytes = 0;
	for (size_t i = 0; i < keyspace->limbo.count; i++) {
		const struct kvs_limbo_item *item = kvs_limbo_at(&keyspace->limbo, i);
		segments += item->kind == KVS_LIMBO_SEGMENT;
		buckets += item->kind == KVS_LIMBO_OVERFLOW && item->b == keyspace->table.side;
		if (item->kind == KVS_LIMBO_RUN) {
			look->waiting[look->waiting_count++] = item->a;
		}
	}
	for (size_t i = 0; i < keyspace->pending.count; i++) {
		const struct kvs_limbo_item *item = kvs_limbo_at(&keyspace->pending, i);
		if (item->kind == KEYSPACE_PENDING_TOMBSTONE) {
			look->removals[look->removals_count++] = item->a;
		} else if (item->kind == KEYSPACE_PENDING_RUN) {
			look->waiting[look->waiting_count++] = item->a;
		} else {
			large_bytes += item->a;
		}
	}
	qsort(look->waiting, look->waiting_count, sizeof(*look->waiting), by_value);
	qsort(look->removals, look->removals_count, sizeof(*look->removals), by_value);
	if (keyspace->limbo.lost == 0) {
		compare(look, "segments in limbo", 0, keyspace->log.retired_count, segments);
		compare(look, "overflow buckets", 0, overflow->used_count,
			look->plan.linked_count + buckets);
		compare(look, "overflow buckets that were ever used", 0, overflow->fresh,
			(uint64_t)overflow->used_count + overflow->freed_count +
				overflow->lost_count);
	}
	if (keyspace->pending.lost == 0) {
		compare(look, "bytes of large values that are not durable", 0,
			keyspace->unpersisted_large_bytes, large_bytes);
		for (size_t i = 0; i < look->plan.tombstones_count; i++) {
			const struct kvs_adopt_tombstone *removal = &look->plan.tombstones[i];
			compare(look, "removal that waits for its commit", removal->seq, 1,
				has(look->removals, look->removals_count, removal->offset));
		}
	}
}

static void compare_run(struct look *look, const struct kvs_large_run *run,
			const struct kvs_adopt_run *found)
{
	bool is_lost = look->keyspace->limbo.lost + look->keyspace->pending.lost > 0;
	compare(look, "records that name a large value", run->offset, run->references,
		found != NULL ? found->references : 0);
	compare(look, "record that names a large value", run->offset,
		run->references > 0 ? run->record : 0, found != NULL ? found->record : 0);
	if (found != NULL) {
		compare(look, "pages of a large value", run->offset, run->bytes,
			kvs_large_bytes(look->keyspace->region, found->value_bytes));
	}
	if (run->references == 0 && run->holds == 0 && !is_lost) {
		compare(look, "large value that nothing names waits to be freed", run->offset, 1,
			has(look->waiting, look->waiting_count, run->offset));
	}
}

static void compare_large(struct look *look)
{
	const struct kvs_large *large = &look->keyspace->large;
	const struct kvs_adopt *plan = &look->plan;
	uint64_t bytes = 0, orphaned = 0, runs = 0;
	size_t at = 0;
	for (const struct kvs_large_run *run = large->sentinel.next; run != &large->sentinel;
	     run = run->next) {
		for (; at < plan->runs_count && plan->runs[at].offset < run->offset; at++) {
			compare(look, "large value is known", plan->runs[at].offset, 0, 1);
		}
		bool same = at < plan->runs_count && plan->runs[at].offset == run->offset;
		compare_run(look, run, same ? &plan->runs[at] : NULL);
		at += same;
		runs++;
		bytes += run->bytes;
		orphaned += run->orphaned ? run->bytes : 0;
	}
	compare(look, "large values that are not known", 0, 0, plan->runs_count - at);
	compare(look, "large values", 0, large->runs_count, runs);
	compare(look, "bytes of large values", 0, look->keyspace->region->large_bytes, bytes);
	compare(look, "bytes of large values that only replies keep", 0, large->orphaned_bytes,
		orphaned);
}

// ---- the wheel: the time of each key that ends is awaited, at the place of its record ----

static void take_item(void *context, uint64_t item)
{
	struct look *look = context;
	if (look->items_count < look->items_room) {
		look->items[look->items_count] = item;
	}
	look->items_count++;
}

static void await_entry(void *context, uint64_t entry)
{
	struct look *look = context;
	struct kvs_hit hit;
	if (kvs_table_load(&look->keyspace->region->map, entry, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE || hit.view.expiry_ms == 0) {
		return;
	}
	uint64_t place = kvs_entry_offset(entry) / 8;
	uint64_t item = place << WHEEL_TIME_BITS | (hit.view.expiry_ms & WHEEL_TIME_MASK);
	look->ending++;
	compare(look, "the wheel knows when a version ends", hit.view.seq, 1,
		has(look->items, look->items_count, item));
}

static void compare_wheel(struct look *look)
{
	struct keyspace *keyspace = look->keyspace;
	const struct expire *expire = &keyspace->expire;
	if (expire->partial || keyspace->keys_with_expiry == 0) {
		return; // walks find them
	}
	wheel_visit(&expire->wheel, take_item, look);
	compare(look, "items of the wheel", 0, expire->wheel.items, look->items_count);
	if (look->items_count > look->items_room) {
		return;
	}
	qsort(look->items, look->items_count, sizeof(*look->items), by_value);
	uint64_t cursor = 0;
	do {
		cursor = kvs_table_scan(&keyspace->region->map, cursor, await_entry, look);
	} while (cursor != 0);
	compare(look, "keys that end, walked", 0, keyspace->keys_with_expiry, look->ending);
}

static bool look_begin(struct look *look)
{
	const struct keyspace *keyspace = look->keyspace;
	size_t waiting = keyspace->limbo.count + keyspace->pending.count;
	look->items_room = keyspace->expire.wheel.items;
	look->waiting = calloc(waiting + 1, sizeof(*look->waiting));
	look->removals = calloc(keyspace->pending.count + 1, sizeof(*look->removals));
	look->items = calloc(look->items_room + 1, sizeof(*look->items));
	return look->waiting != NULL && look->removals != NULL && look->items != NULL;
}

static void look_end(struct look *look)
{
	free(look->waiting);
	free(look->removals);
	free(look->items);
	kvs_adopt_fini(&look->plan);
}

int keyspace_recount(struct keyspace *keyspace, struct keyspace_recount *recount)
{
	struct look look = { .keyspace = keyspace, .recount = recount };
	*recount = (struct keyspace_recount){ 0 };
	if (keyspace->batch.open) {
		return -EBUSY;
	}
	uint64_t durable_seq = keyspace->persisted ? keyspace_durable_seq(keyspace) : UINT64_MAX;
	int result = kvs_adopt_plan_beside(&look.plan, keyspace->region, durable_seq,
					   keyspace->first_block, UINT64_MAX);
	if (result == 0 && !look_begin(&look)) {
		result = -ENOMEM;
	}
	if (result == 0) {
		compare_table(&look);
		compare_log(&look);
		compare_waiting(&look);
		compare_large(&look);
		compare_wheel(&look);
	} else if (result == -EUCLEAN) {
		recount->differences = 1;
		(void)snprintf(recount->first, sizeof(recount->first), "%s", look.plan.why);
		result = 0;
	}
	look_end(&look);
	return result;
}
