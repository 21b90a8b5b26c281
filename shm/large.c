// SPDX-License-Identifier: MIT
//
// Next-fit over a circular list of runs, sorted by offset, and a hash from offset to run. The list
// is short (a large value is over a quarter segment) and the range mostly empty, so a gap is found
// at once.
#include "shm/large.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LARGE_BUCKETS_START 256u

int kvs_large_init(struct kvs_large *large, struct kvs_region *region)
{
	memset(large, 0, sizeof(*large));
	large->region = region;
	large->buckets = calloc(LARGE_BUCKETS_START, sizeof(*large->buckets));
	large->buckets_count = LARGE_BUCKETS_START;
	// The sentinel stands at both ends: it is the run of no bytes at the start of the range.
	large->sentinel.offset = region->map.ranges[KVS_RANGE_LARGE].offset;
	large->sentinel.next = &large->sentinel;
	large->sentinel.previous = &large->sentinel;
	large->cursor = &large->sentinel;
	large->none_bytes = UINT64_MAX;
	large->looked = &large->sentinel;
	large->searched = &large->sentinel;
	return large->buckets != NULL ? 0 : -ENOMEM;
}

void kvs_large_fini(struct kvs_large *large)
{
	struct kvs_large_run *run = large->sentinel.next;
	while (run != NULL && run != &large->sentinel) {
		struct kvs_large_run *next = run->next;
		free(run);
		run = next;
	}
	free(large->buckets);
	memset(large, 0, sizeof(*large));
}

static struct kvs_large_run **large_bucket(struct kvs_large *large, uint64_t offset)
{
	uint64_t page = offset / KVS_PAGE_BYTES;
	uint64_t mixed = page * UINT64_C(0x9e3779b97f4a7c15);
	return &large->buckets[(mixed >> 32) & (large->buckets_count - 1)];
}

static struct kvs_large_run *large_find(struct kvs_large *large, uint64_t offset)
{
	struct kvs_large_run *run = *large_bucket(large, offset);
	while (run != NULL && run->offset != offset) {
		run = run->chain;
	}
	return run;
}

// Doubles the hash when it is full; staying small is only slower.
static void large_rehash(struct kvs_large *large)
{
	uint32_t count = large->buckets_count * 2;
	struct kvs_large_run **buckets = calloc(count, sizeof(*buckets));
	if (buckets == NULL) {
		return;
	}
	free(large->buckets);
	large->buckets = buckets;
	large->buckets_count = count;
	for (struct kvs_large_run *run = large->sentinel.next; run != &large->sentinel;
	     run = run->next) {
		struct kvs_large_run **bucket = large_bucket(large, run->offset);
		run->chain = *bucket;
		*bucket = run;
	}
}

// Counts a run in or out of those that leave, after its references or holds have changed.
static void large_recount(struct kvs_large *large, struct kvs_large_run *run)
{
	bool leaving = run->references == 0 && run->holds == 0;
	if (leaving != run->leaving) {
		run->leaving = leaving;
		large->leaving_bytes += leaving ? run->bytes : UINT64_C(0) - run->bytes;
		large->changes++;
	}
}

// Do `bytes` fit behind the run? *offset is where. What is kept clear is passed over.
static bool large_fits(const struct kvs_large *large, const struct kvs_large_run *run,
		       uint64_t bytes, uint64_t *offset)
{
	uint64_t start = run->offset + run->bytes;
	uint64_t end = run->next == &large->sentinel ? kvs_large_end(large) : run->next->offset;
	bool passes = start < large->clear_to && end > large->clear_from;
	uint64_t until = passes && large->clear_from < end ? large->clear_from : end;
	*offset = start;
	if (until > start && until - start >= bytes) {
		return true;
	}
	*offset = large->clear_to > start ? large->clear_to : start;
	return passes && end > *offset && end - *offset >= bytes;
}

// The run behind which `bytes` fit, from `first` on and round once; NULL if none.
static struct kvs_large_run *large_gap(struct kvs_large *large, struct kvs_large_run *first,
				       uint64_t bytes, uint64_t *offset)
{
	struct kvs_large_run *run = first;
	do {
		if (large_fits(large, run, bytes, offset)) {
			return run;
		}
		run = run->next;
	} while (run != first);
	return NULL;
}

// The same for who takes a run: what is kept clear comes last, and only for as much as is wanted.
// Who waits asks again and again: nothing is looked through for that which was, and is as it was.
static struct kvs_large_run *large_place(struct kvs_large *large, uint64_t bytes, uint64_t *offset)
{
	struct kvs_large_run *before = NULL;
	if (large->none_opened != large->opened) {
		large->none_opened = large->opened;
		large->none_bytes = UINT64_MAX;
	}
	if (bytes < large->none_bytes) {
		before = large_gap(large, large->cursor, bytes, offset);
		large->none_bytes = before == NULL ? bytes : large->none_bytes;
	}
	bool is_for_him = large->clear_from != large->clear_to && bytes >= large->wanted_bytes &&
			  bytes <= large->clear_to - large->clear_from;
	if (before == NULL && is_for_him && kvs_large_in_the_way(large) == NULL) {
		*offset = large->clear_from;
		before = large->searched; // the last run before that
	}
	return before;
}

// Somebody has, or will have, so much in one place: if it was wanted, it was by him.
static void large_use(struct kvs_large *large, uint64_t bytes)
{
	if (bytes >= large->wanted_bytes) {
		kvs_large_want_over(large);
	}
}

bool kvs_large_has_place(struct kvs_large *large, uint64_t value_bytes)
{
	uint64_t offset;
	uint64_t bytes = kvs_large_bytes(large->region, value_bytes);
	bool has = large_place(large, bytes, &offset) != NULL;
	if (has) {
		large_use(large, bytes);
	}
	return has;
}

int kvs_large_take(struct kvs_large *large, uint64_t value_bytes, uint64_t *offset)
{
	int result = kvs_large_reserve(large, value_bytes, offset);
	if (result == 0) {
		result = kvs_region_populate(large->region, *offset,
					     kvs_large_bytes(large->region, value_bytes));
		if (result != 0 && kvs_large_drop(large, *offset)) {
			kvs_large_free(large, *offset);
		}
	}
	return result;
}

// Makes a run behind `before`, of `bytes` at `offset`. NULL if memory is short.
static struct kvs_large_run *large_insert(struct kvs_large *large, struct kvs_large_run *before,
					  uint64_t offset, uint64_t bytes)
{
	struct kvs_large_run *run = calloc(1, sizeof(*run));
	if (run == NULL) {
		return NULL;
	}
	run->offset = offset;
	run->bytes = bytes;
	run->previous = before;
	run->next = before->next;
	before->next->previous = run;
	before->next = run;
	large->cursor = run;
	if (++large->runs_count > large->buckets_count) {
		large_rehash(large);
	}
	if (large_find(large, run->offset) == NULL) {
		struct kvs_large_run **bucket = large_bucket(large, run->offset);
		run->chain = *bucket;
		*bucket = run;
	}
	large->region->large_bytes += bytes;
	large->changes++;
	return run;
}

// Makes a run that is held there.
static int large_take_at(struct kvs_large *large, struct kvs_large_run *before, uint64_t offset,
			 uint64_t bytes)
{
	struct kvs_large_run *run = large_insert(large, before, offset, bytes);
	if (run == NULL) {
		return -ENOMEM;
	}
	run->holds = 1;
	kvs_region_publish(large->region, KVS_RANGE_LARGE,
			   run->offset + bytes - large->sentinel.offset);
	return 0;
}

int kvs_large_reserve(struct kvs_large *large, uint64_t value_bytes, uint64_t *offset)
{
	uint64_t bytes = kvs_large_bytes(large->region, value_bytes);
	struct kvs_large_run *before = large_place(large, bytes, offset);
	if (before == NULL) {
		return -ENOSPC;
	}
	int result = large_take_at(large, before, *offset, bytes);
	if (result == 0) {
		large_use(large, bytes);
	}
	return result;
}

int kvs_large_reserve_low(struct kvs_large *large, uint64_t value_bytes, uint64_t *offset)
{
	uint64_t bytes = kvs_large_bytes(large->region, value_bytes);
	struct kvs_large_run *cursor = large->cursor;
	struct kvs_large_run *before = large_gap(large, &large->sentinel, bytes, offset);
	if (before == NULL) {
		return -ENOSPC;
	}
	int result = large_take_at(large, before, *offset, bytes);
	large->cursor = cursor;
	return result;
}

int kvs_large_adopt(struct kvs_large *large, uint64_t offset, uint64_t bytes, uint32_t references,
		    uint64_t record)
{
	struct kvs_large_run *run = large_insert(large, large->sentinel.previous, offset, bytes);
	if (run == NULL) {
		return -ENOMEM;
	}
	run->references = references;
	run->record = record;
	large_recount(large, run);
	return 0;
}

void kvs_large_hold(struct kvs_large *large, uint64_t offset)
{
	struct kvs_large_run *run = large_find(large, offset);
	if (run != NULL) {
		run->holds++;
		large_recount(large, run);
	}
}

bool kvs_large_hold_at(struct kvs_large *large, uint64_t offset, uint64_t *run_offset)
{
	struct kvs_large_run *run = large_find(large, offset);
	struct kvs_large_run *at = large->sentinel.next;
	for (; run == NULL && at != &large->sentinel && at->offset <= offset; at = at->next) {
		run = offset - at->offset < at->bytes ? at : NULL;
	}
	if (run == NULL) {
		return false;
	}
	run->holds++;
	large_recount(large, run);
	*run_offset = run->offset;
	return true;
}

static void large_orphan(struct kvs_large *large, struct kvs_large_run *run, bool orphaned)
{
	if (run->orphaned != orphaned) {
		run->orphaned = orphaned;
		large->orphaned_bytes += orphaned ? run->bytes : UINT64_C(0) - run->bytes;
	}
}

void kvs_large_settle(struct kvs_large *large, uint64_t offset, uint64_t record)
{
	struct kvs_large_run *run = large_find(large, offset);
	if (run != NULL && run->holds > 0) {
		run->holds--;
		run->references++;
		run->record = record;
		large->changes++;
		large_orphan(large, run, false);
	}
}

void kvs_large_record_moved(struct kvs_large *large, uint64_t offset, uint64_t record)
{
	struct kvs_large_run *run = large_find(large, offset);
	if (run != NULL) {
		run->record = record;
	}
}

bool kvs_large_drop(struct kvs_large *large, uint64_t offset)
{
	struct kvs_large_run *run = large_find(large, offset);
	if (run == NULL || run->holds == 0) {
		return false;
	}
	run->holds--;
	large->changes++;
	if (run->holds == 0) {
		large_orphan(large, run, false);
	}
	large_recount(large, run);
	return run->leaving;
}

bool kvs_large_unname(struct kvs_large *large, struct kvs_large_run *run)
{
	bool named = run->references > 0;
	run->references = 0;
	if (named && run->holds > 0) {
		large_orphan(large, run, true);
	}
	large_recount(large, run);
	return named && run->leaving;
}

uint64_t kvs_large_orphaned_bytes(struct kvs_large *large, uint64_t offset)
{
	const struct kvs_large_run *run = large_find(large, offset);
	return run != NULL && run->orphaned ? run->bytes : 0;
}

struct kvs_large_run *kvs_large_run_at(struct kvs_large *large, uint64_t offset)
{
	return large_find(large, offset);
}

uint64_t kvs_large_run_bytes(struct kvs_large *large, uint64_t offset)
{
	const struct kvs_large_run *run = large_find(large, offset);
	return run != NULL ? run->bytes : 0;
}

bool kvs_large_is_run(struct kvs_large *large, uint64_t offset, uint64_t *end)
{
	struct kvs_large_run *run =
		large->looked->offset <= offset ? large->looked : &large->sentinel;
	while (run->next != &large->sentinel && run->next->offset <= offset) {
		run = run->next;
	}
	large->looked = run;
	bool inside = offset - run->offset < run->bytes;
	uint64_t next = run->next == &large->sentinel ? kvs_large_end(large) : run->next->offset;
	*end = inside ? run->offset + run->bytes : next;
	return inside;
}

bool kvs_large_unref(struct kvs_large *large, uint64_t offset)
{
	struct kvs_large_run *run = large_find(large, offset);
	if (run == NULL || run->references == 0) {
		return false;
	}
	run->references--;
	if (run->references == 0 && run->holds > 0) {
		large_orphan(large, run, true);
	}
	large_recount(large, run);
	return run->leaving;
}

// Gives the last `bytes` of a run back.
static void large_shorten(struct kvs_large *large, struct kvs_large_run *run, uint64_t bytes)
{
	uint64_t from = run->offset + run->bytes - bytes;
	kvs_region_poison(large->region, from, bytes);
	// If the punch fails the pages stay counted nowhere but reusable: the next run there has
	// them.
	(void)kvs_region_punch(large->region, from, bytes);
	large->region->large_bytes -= bytes;
	large->leaving_bytes -= run->leaving ? bytes : 0;
	run->bytes -= bytes;
	large->opened++;
}

bool kvs_large_free_part(struct kvs_large *large, uint64_t offset, uint64_t bytes_max)
{
	struct kvs_large_run *run = large_find(large, offset);
	if (run == NULL || run->references != 0 || run->holds != 0) {
		return true;
	}
	large_shorten(large, run, run->bytes < bytes_max ? run->bytes : bytes_max);
	if (run->bytes > 0) {
		return false;
	}
	struct kvs_large_run **link = large_bucket(large, offset);
	while (*link != run) {
		link = &(*link)->chain;
	}
	*link = run->chain;
	run->previous->next = run->next;
	run->next->previous = run->previous;
	if (large->cursor == run) {
		large->cursor = run->previous;
	}
	if (large->looked == run) {
		large->looked = run->previous;
	}
	if (large->searched == run) {
		large->searched = run->previous;
	}
	large->changes++;
	large->runs_count--;
	free(run);
	return true;
}

void kvs_large_free(struct kvs_large *large, uint64_t offset)
{
	(void)kvs_large_free_part(large, offset, UINT64_MAX);
}
