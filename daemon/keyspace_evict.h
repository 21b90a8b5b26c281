// SPDX-License-Identifier: MIT
//
// What goes when memory is full, inside the keyspace: which segment the cleaner takes next, and
// which of its records it declines to copy. For cleaner.c, keyspace_room.c and the write path.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/heat.h"

struct keyspace;
struct kvs_record_view;

/// What becomes of a live record of a segment that is emptied for want of memory.
enum keyspace_fate { KEYSPACE_KEEP, KEYSPACE_EVICT };

/// Segments that the writer filled are on probation; what survived one is in the main part.
struct evict_state {
	bool on;	    // keys are evicted when memory is full
	bool volatile_only; // only those with a time to live
	struct heat heat;   // opened when it is switched on
	char *never;	    // prefixes with spaces between them
	uint64_t random;
	// Of the victim under way:
	bool judging; // else it is only cleaned
	bool probation;
	uint64_t judged_bytes;
	uint64_t kept_bytes;
	uint64_t removed_seq; // of the newest removal of this window, 0 = none yet
	// Of the victims before:
	bool main_was_hot; // so much of the last main one was kept that probation must do better
	bool main_gave_little;
	uint32_t barren;     // victims in a row of which nothing went
	uint64_t barren_seq; // newest version at the last of them
};

/// May keys go, as far as can be seen? False inside a batch, whose versions are fixed.
bool evict_is_possible(const struct keyspace *keyspace);
/// Are they to go now?
bool evict_is_wanted(const struct keyspace *keyspace);

/// The segment to judge next, or KVS_SEGMENT_NONE.
uint32_t evict_choose(struct keyspace *keyspace, uint64_t durable_seq);

/// May it go at all?
bool evict_is_allowed(const struct keyspace *keyspace, const struct kvs_record_view *view);

/// Decides for a live record of the victim that begins at `offset`.
enum keyspace_fate keyspace_judge(struct keyspace *keyspace, const struct kvs_record_view *view,
				  uint64_t offset);

/// Removes the key of a record that was judged so, and tells. False if there is no room to log it:
/// then it is to be kept. evict_window_over() follows before anything else is written: until then
/// applied_seq stands still, so that nobody takes what is half removed for one moment's state.
bool evict_record(struct keyspace *keyspace, const struct kvs_record_view *view, uint64_t hash);

void evict_window_over(struct keyspace *keyspace);

/// A live record was copied; its heat goes with it, less one if it was judged.
void evict_moved(struct keyspace *keyspace, uint64_t from, uint64_t to, uint32_t record_bytes);

/// The victim is empty and will be free.
void evict_victim_done(struct keyspace *keyspace, uint32_t segment);

/// A key got a version at `offset`; the one it had was at `before`, 0 = none.
void evict_written(struct keyspace *keyspace, uint64_t hash, uint64_t offset, uint64_t before);

/// Must keys go before anything more is written? Where removals have begun to use their reserve:
/// what they open is not for writes.
bool evict_comes_first(const struct keyspace *keyspace);

void evict_fini(struct evict_state *evict);
