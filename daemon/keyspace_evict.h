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
struct keyspace_op;
struct kvs_record_view;

/// What becomes of a live record of a segment that is emptied for want of memory.
enum keyspace_fate { KEYSPACE_KEEP, KEYSPACE_EVICT };

/// What came of an attempt to remove a key.
enum evict_result {
	EVICT_DONE,
	EVICT_WAIT,    // there is no room for the record of it, and it comes without the cleaner
	EVICT_NO_ROOM, // nor does it come: the key is kept
};

/// Where judging stopped before the end of its segment, since enough had gone.
struct evict_hand {
	uint32_t segment;
	uint32_t offset; // the next record
	uint64_t order;	 // of the segment, which may be another's by now; 0 = nowhere
	bool probation;
	bool in_place;
};

#define EVICT_OLDEST_KEPT 16u

/// The oldest segments of one part as of the last look at all of them, the oldest first.
struct evict_oldest {
	uint32_t count;
	uint32_t segment[EVICT_OLDEST_KEPT];
	uint64_t order[EVICT_OLDEST_KEPT];
};

/// Segments that the writer filled are on probation; what survived one is in the main part.
struct evict_state {
	bool on;			  // keys are evicted when memory is full
	bool spills;			  // only their values go, which the store has
	bool removes;			  // on, and not that
	bool volatile_only;		  // only those with a time to live
	struct heat heat;		  // opened when it is switched on
	char *never;			  // prefixes with spaces between them
	const struct keyspace_op *spared; // its key stays while room is made for it; NULL = none
	uint64_t random;
	// Of the victim under way:
	bool judging; // else it is only cleaned
	bool probation;
	bool in_place;	 // it cannot be emptied: large values go from there, what is kept stays
	bool run_went;	 // a large value did since this was last looked at
	bool met_spared; // what it has was not all judged
	bool pressed;	 // something was judged since half of the memory was free
	uint64_t judged_bytes;
	uint64_t kept_bytes;
	uint64_t stub_bytes;  // of both: without a value as it was judged
	uint64_t removed_seq; // of the newest removal of this window, 0 = none yet
	struct evict_hand hand;
	uint64_t open_after; // order of the last one that was judged in place
	uint32_t open_empty; // of those in a row that had no large values
	uint64_t open_seq;   // newest version at the last of them
	// Of the victims before:
	bool main_was_hot; // so much of the last main one was kept that probation must do better
	bool main_gave_little;
	uint32_t barren;     // victims in a row of which nothing went
	uint64_t barren_seq; // newest version at the last of them
	uint64_t barren_ns;  // and when that was
	// Values that were to go, and whose places in the store are not known:
	uint64_t unplaced_bytes; // since it was looked for them last
	uint64_t looked_ns;	 // when that began
	uint64_t look_ns;	 // not again before
	bool looking;		 // nothing is judged meanwhile
	bool halted;		 // values stay: the store is to be written anew from memory
	// By part, main and probation:
	struct evict_oldest oldest[2];
	uint64_t live_bytes[2];
};

/// May keys go, as far as can be seen?
bool evict_may_help(const struct keyspace *keyspace);
/// Now, too? Not inside a batch, whose versions are fixed.
bool evict_is_possible(const struct keyspace *keyspace);
/// Are they to go now?
bool evict_is_wanted(const struct keyspace *keyspace);

/// Decides for a live record of the victim that begins at `offset`.
enum keyspace_fate keyspace_judge(struct keyspace *keyspace, const struct kvs_record_view *view,
				  uint64_t offset);

/// May it go where keys go by these (keyspace_eviction)?
bool evict_may_go(bool volatile_only, const char *never, const struct kvs_record_view *view);
/// May it go at all?
bool evict_is_allowed(const struct keyspace *keyspace, const struct kvs_record_view *view);

/// Removes the key of a record that was judged so, and tells. evict_window_over() follows before
/// anything else is written: until then applied_seq stands still, so that nobody takes what is half
/// removed for one moment's state.
enum evict_result evict_record(struct keyspace *keyspace, const struct kvs_record_view *view,
			       uint64_t hash);

/// The same where values are spilled: leaves the key its stub. EVICT_NO_ROOM: it is kept.
enum evict_result evict_spill(struct keyspace *keyspace, const struct kvs_record_view *view,
			      uint64_t hash);

/// Do values that are to go wait until it is known where they are in the store?
bool evict_awaits_places(const struct keyspace *keyspace);

void evict_window_over(struct keyspace *keyspace);

/// A live record was copied; its heat goes with it, less one if it was judged.
void evict_moved(struct keyspace *keyspace, uint64_t from, uint64_t to, uint32_t record_bytes);

/// A record was copied, but not by the cleaner: its heat goes with it.
void evict_carried(struct keyspace *keyspace, uint64_t from, uint64_t to);

/// A live record of a victim that is judged in place stays where it is, at `offset`.
void evict_stayed(struct keyspace *keyspace, uint64_t offset, uint32_t record_bytes);

/// The victim is empty and will be free; or all of it was judged in place.
void evict_victim_done(struct keyspace *keyspace, uint32_t segment);

/// A key got a version at `offset`; the one it had was at `before`, 0 = none.
void evict_written(struct keyspace *keyspace, uint64_t hash, uint64_t offset, uint64_t before);

/// Must keys go before anything more is written? Where removals have begun to use their reserve:
/// what they open is not for writes.
bool evict_comes_first(const struct keyspace *keyspace);

/// The bound was raised: more keys are stored, and as many are remembered when they go.
void evict_memory_rose(struct keyspace *keyspace);

void evict_fini(struct evict_state *evict);

// ---- keyspace_evict_choice.c ----

/// The segment to judge next, and where in it to begin; KVS_SEGMENT_NONE if there is none.
/// Call with: evict_is_wanted(), no victim under way. Thread must: be the writer. Orders: nothing.
uint32_t evict_choose(struct keyspace *keyspace, uint64_t durable_seq, uint32_t *offset);
/// The same, only if judging stopped in the middle of one.
uint32_t evict_resume(struct keyspace *keyspace, uint64_t durable_seq, uint32_t *offset);

/// Has as much gone as was to go, though not all of the victim is judged?
bool evict_is_enough(struct keyspace *keyspace);
/// Leaves the victim there; evict_resume() goes on with it.
void evict_pause(struct keyspace *keyspace);
