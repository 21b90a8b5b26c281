// SPDX-License-Identifier: MIT
//
// Large values: runs of pages in their own range, one run a value, referred to by small records.
// Space is handed out next-fit over a range many times larger than memory, so that offsets are
// mostly fresh and freed pages are punched at once; how many current records refer to a run is
// counted here.
//
// After long churn the gaps between runs may all be too short for a large value. Then the runs of
// some stretch must go elsewhere (daemon/mover.c): it is looked for here, and kept clear meanwhile.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/region.h"

struct kvs_large_run {
	uint64_t offset;     // from the start of the region
	uint64_t bytes;	     // whole pages
	uint32_t references; // current records that name it
	uint32_t holds;	     // writes on their way that will name it, readers that need its bytes
	bool orphaned;	     // no record names it any more, only holds keep it
	bool leaving;	     // nor does a hold: it is on its way to kvs_large_free()
	uint32_t stays;	     // equal to kvs_large.wish: it was found that it cannot be moved
	uint64_t record;     // of the record that was last told to name it; 0 = none was
	struct kvs_large_run *next; // by offset, circular through the sentinel
	struct kvs_large_run *previous;
	struct kvs_large_run *chain; // hash chain
};

struct kvs_large {
	struct kvs_region *region;
	struct kvs_large_run sentinel; // bounds of the range
	struct kvs_large_run *cursor;  // next fit starts behind it
	struct kvs_large_run *looked;  // where kvs_large_is_run() was last asked
	struct kvs_large_run **buckets;
	uint32_t buckets_count; // power of two
	uint32_t runs_count;
	uint64_t orphaned_bytes; // of runs that only holds keep
	uint64_t leaving_bytes;	 // of runs that nothing keeps: memory that comes free by itself
	uint64_t wanted_bytes;	 // there is no place for so many, and somebody waits; 0 = nobody
	uint32_t wish;		 // counts those who began to
	uint64_t changes;	 // of what kvs_large_search() looks at
	uint64_t opened; // counts what may make gaps longer
	uint64_t none_bytes; // no gap is as long, if `opened` is still none_opened
	uint64_t none_opened;
	uint64_t clear_from;	 // kept clear for him, up to clear_to; equal = nothing is
	uint64_t clear_to;
	struct kvs_large_run *searched; // where kvs_large_search() is; then, what is before that
};

/// A stretch of the range that runs are to leave.
struct kvs_large_search {
	uint64_t run_bytes_max; // larger runs cannot be moved
	uint64_t from;		// the best so far
	uint64_t cost;		// in bytes to be copied; UINT64_MAX = none is possible
	bool held;		// something that is only held for a while was in the way
};

/// Prepares an empty range; 0 or -ENOMEM.
int kvs_large_init(struct kvs_large *large, struct kvs_region *region);
void kvs_large_fini(struct kvs_large *large);

/// Pages that a value of so many bytes takes. With huge pages of the system's pool a run has whole
/// ones: a page that two values share would stay for as long as either of them does.
static inline uint64_t kvs_large_bytes(const struct kvs_region *region, uint64_t value_bytes)
{
	uint64_t page_bytes = region->page_bytes;
	return (value_bytes + page_bytes - 1) & ~(page_bytes - 1);
}

/// Takes a populated run for `value_bytes`, held once. *offset is from the start of the region.
/// Returns 0, -ENOSPC (no gap) or -ENOMEM (machine full). The memory bound is the caller's.
int kvs_large_take(struct kvs_large *large, uint64_t value_bytes, uint64_t *offset);

/// The same without pages: the caller populates all of it before it is named by a record. What is
/// kept clear is the last place that is taken, by who takes as much as is wanted: with that nothing
/// is wanted any more, wherever his place is.
int kvs_large_reserve(struct kvs_large *large, uint64_t value_bytes, uint64_t *offset);

/// The same for a value that is moved: as low as possible, and never where it is kept clear.
int kvs_large_reserve_low(struct kvs_large *large, uint64_t value_bytes, uint64_t *offset);

/// Would kvs_large_reserve() find a place? Then it is as if it had been taken, for what is wanted.
bool kvs_large_has_place(struct kvs_large *large, uint64_t value_bytes);

/// Registers a run that is there already, behind all registered so far: `bytes` are whole pages,
/// `references` current records name it, one of them at `record`. 0 or -ENOMEM. For a region that
/// is taken over.
int kvs_large_adopt(struct kvs_large *large, uint64_t offset, uint64_t bytes, uint32_t references,
		    uint64_t record);

/// A write on its way names an existing run as well: it cannot go meanwhile.
void kvs_large_hold(struct kvs_large *large, uint64_t offset);
/// Holds the run in which `offset` lies, whose start goes to *run_offset: a reader needs its bytes.
/// Ends with kvs_large_drop(). False if none is there.
bool kvs_large_hold_at(struct kvs_large *large, uint64_t offset, uint64_t *run_offset);
/// That write was published: the hold becomes a reference by a current record, which is at
/// `record`.
void kvs_large_settle(struct kvs_large *large, uint64_t offset, uint64_t record);
/// The record that names the run was copied there.
void kvs_large_record_moved(struct kvs_large *large, uint64_t offset, uint64_t record);
/// The write was given up, or a record that named the run is not current any more. Both return true
/// when nothing names the run now: it must then go through limbo to kvs_large_free(), once.
bool kvs_large_drop(struct kvs_large *large, uint64_t offset);
bool kvs_large_unref(struct kvs_large *large, uint64_t offset);

/// The same for all records that name `run`, at once. What follows is as for these.
bool kvs_large_unname(struct kvs_large *large, struct kvs_large_run *run);

/// The run that begins at this offset, NULL if there is none; good until it is freed.
struct kvs_large_run *kvs_large_run_at(struct kvs_large *large, uint64_t offset);

/// Whole pages of the run; 0 if there is none at this offset.
uint64_t kvs_large_run_bytes(struct kvs_large *large, uint64_t offset);

/// The same of a run that no record names any more, so that its holds alone keep it; else 0.
uint64_t kvs_large_orphaned_bytes(struct kvs_large *large, uint64_t offset);

/// Is this offset of the range in a run? *end is where that, or the gap, ends. Quick if offsets go
/// up from one call to the next.
bool kvs_large_is_run(struct kvs_large *large, uint64_t offset, uint64_t *end);

/// Gives the run's pages and offsets back.
/// Call with: no reference left, grace period over. Thread must: be the writer. Orders: none.
void kvs_large_free(struct kvs_large *large, uint64_t offset);

/// The same little by little: up to `bytes_max` (whole pages, not 0) of it from its end. True when
/// nothing of it is left. Call with, thread, orders: as kvs_large_free().
bool kvs_large_free_part(struct kvs_large *large, uint64_t offset, uint64_t bytes_max);

// ---- large_clear.c: place for what finds none ----

/// Somebody waits for a place of so many bytes (whole pages): looking begins anew.
void kvs_large_want(struct kvs_large *large, uint64_t bytes, struct kvs_large_search *search);

/// Looks at some runs for the stretch of wanted_bytes that is cheapest to clear. True when all have
/// been looked at.
bool kvs_large_search(struct kvs_large *large, struct kvs_large_search *search);

/// Keeps the stretch clear that was found.
void kvs_large_keep_clear(struct kvs_large *large, uint64_t from);

/// The first run that stands where it is kept clear, NULL if none does; and the next behind `run`.
struct kvs_large_run *kvs_large_in_the_way(struct kvs_large *large);
struct kvs_large_run *kvs_large_next_in_the_way(struct kvs_large *large, struct kvs_large_run *run);

/// Nobody waits any more.
void kvs_large_want_over(struct kvs_large *large);

/// Where the range ends.
static inline uint64_t kvs_large_end(const struct kvs_large *large)
{
	const struct kvs_range_bounds *range = &large->region->map.ranges[KVS_RANGE_LARGE];
	return range->offset + range->bytes_max;
}
