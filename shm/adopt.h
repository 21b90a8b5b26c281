// SPDX-License-Identifier: MIT
//
// Taking over a region whose writer is gone. A process that was killed stopped between two
// instructions, so the region is what a prefix of its stores made of it: every record that an entry
// names is whole, and what was under way is found by looking. First a plan: everything is read and
// checked, nothing is written. Then it is applied: leftovers of a move are cleared, and log, table
// and large values are set up as their writer had them. What belongs to nobody waits in limbo, for
// readers of the life before may still stand in it (shm/LAYOUT.md, "Adoption").
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/large.h"
#include "shm/limbo.h"
#include "shm/log.h"
#include "shm/table_write.h"

#define KVS_ADOPT_WHY_BYTES 256u

/// A removal whose entry is still in the table.
struct kvs_adopt_tombstone {
	uint64_t seq;
	uint64_t offset; // of the record
};

/// A run of the large range that records name.
struct kvs_adopt_run {
	uint64_t offset;
	uint64_t value_bytes;
	uint64_t seq;	     // of the newest record that names it
	uint32_t references; // entries that name it
	uint64_t record;     // of one of those, 0 = none
};

/// An entry word that must go: offset of the word, and what is known of it.
struct kvs_adopt_clear {
	uint64_t slot_offset;
	uint64_t entry;
	bool damaged; // it cannot be; not just left over
};

/// Bytes of the log that are not the records that were written there.
struct kvs_adopt_bad {
	uint64_t offset; // from the start of the region
	uint64_t end;	 // behind it: the next whole record, or the end of the segment
	uint64_t seq;	 // of the first record that was there
	uint64_t count;	 // of records
};

/// What the current records of one writer are, removals apart.
struct kvs_adopt_owner {
	uint64_t bytes;
	uint64_t keys;
};

struct kvs_adopt {
	struct kvs_region *region;
	uint64_t durable_seq; // as given
	uint64_t applied_seq;
	uint64_t last_seq; // of the last whole batch in the log

	struct kvs_segment *segments; // by index, as struct kvs_log has them
	uint32_t touched_count;
	uint32_t *heads; // HEAD segments by first_seq
	uint32_t heads_count;
	uint32_t first_unpersisted_head;     // index into `heads`
	struct kvs_log_position unpersisted; // first record above durable_seq
	struct kvs_log_position unapplied;   // first record above applied_seq
	struct kvs_log_position end;	     // behind the last whole batch
	uint64_t cut_records;		     // behind `end`: of a batch that was not complete
	uint32_t survivor;	   // survivor segment that can go on, KVS_SEGMENT_NONE = none
	struct kvs_adopt_bad *bad; // by offset
	size_t bad_count, bad_capacity;
	bool has_tail; // from `unpersisted` to `end` are whole batches, whatever is wrong

	uint64_t populated[KVS_RANGES_COUNT]; // of the table ranges
	uint64_t *linked; // a bit for each overflow bucket of the side: a chain leads to it
	uint64_t linked_count;
	uint64_t entries; // that stay, tombstones included
	uint64_t keys;
	uint64_t keys_with_expiry;
	uint64_t stubs;			// keys whose value is in the store alone
	uint64_t stubs_value_bytes;	// of those values
	uint64_t stubs_astray;		// of them, those that name a block before first_block
	uint64_t first_block;		// of the store, as given; 0 = not known
	uint64_t next_block;		// of the store, as given: it has none from there on
	uint64_t last_block;		// the highest that a record names, whatever became of it
	uint64_t values_beyond; // durable, and name a block that the store does not have
	uint64_t live_bytes;		// of current records, large values included
	struct kvs_adopt_owner *owners; // KVS_WRITERS_MAX, by the writer index of records
	uint64_t unpersisted_large_bytes;
	struct kvs_adopt_tombstone *tombstones;
	size_t tombstones_count, tombstones_capacity;
	struct kvs_adopt_run *runs; // by offset
	size_t runs_count, runs_capacity;
	struct kvs_adopt_clear *clears;
	size_t clears_count, clears_capacity;
	uint64_t damaged_count;	       // of `clears`
	char why[KVS_ADOPT_WHY_BYTES]; // why it cannot be taken over
};

/// Looks at all of the region (from kvs_region_adopt()) and fills `plan`. `durable_seq`: everything
/// up to it is in the store; UINT64_MAX = everything applied counts as durable. Records that are
/// durable and not what was written are passed over: entries that name one count as damaged.
/// Returns 0; -EUCLEAN with plan->why if the log cannot be followed; -ENOMEM. In each case
/// kvs_adopt_fini() frees.
/// Call with: no writer alive. Thread must: be the new writer. Orders: nothing; nothing is written.
int kvs_adopt_plan(struct kvs_adopt *plan, struct kvs_region *region, uint64_t durable_seq);
/// The same where the store's blocks are known, from `first_block` to before `next_block`: counts
/// stubs whose values stand elsewhere by now, and values whose places mean nothing. Those are of
/// commits that failed after an earlier one of the same records had failed, too, and arrived.
int kvs_adopt_plan_beside(struct kvs_adopt *plan, struct kvs_region *region, uint64_t durable_seq,
			  uint64_t first_block, uint64_t next_block);
void kvs_adopt_fini(struct kvs_adopt *plan);

/// What the plan is applied to: uninitialised but for `limbo`.
struct kvs_adopt_parts {
	struct kvs_log *log;
	struct kvs_table *table;
	struct kvs_large *large;
	struct kvs_limbo *limbo;
	struct kvs_epoch_domain *epochs; // kvs_epoch_init() was called: the former life's epoch
};

/// Makes the region and the parts what the plan says. The records from plan->unapplied on are not
/// in the table yet (some may be): applying them is the caller's. Returns 0 or -ENOMEM, after which
/// the region may be planned and adopted again.
/// Call with: a plan of this region, nothing changed since. Thread must: be the writer. Orders:
/// each store is one that a writer makes at any time; nothing is reused.
int kvs_adopt_apply(struct kvs_adopt *plan, const struct kvs_adopt_parts *parts);

// ---- adopt_log.c, adopt_table.c, adopt_large.c: parts of the plan ----

/// Room for one more element of a growing array; false if memory is short.
bool kvs_adopt_grow(void *array, size_t count, size_t *capacity, size_t element_bytes);
int kvs_adopt_plan_log(struct kvs_adopt *plan);
/// The bad bytes of the log among which `offset` is, or NULL.
const struct kvs_adopt_bad *kvs_adopt_bad_at(const struct kvs_adopt *plan, uint64_t offset);
/// The first whole record of a segment behind the one at offset `after`, whose seq was `seq`; false
/// if there is none: then *next is the segment's end.
bool kvs_adopt_next_whole(const struct kvs_adopt *plan, uint32_t segment, uint32_t after,
			  uint64_t seq, struct kvs_log_position *next, uint64_t *next_seq);
/// Notes that `count` records between the two places are bad; -1 if memory is short.
int kvs_adopt_note_bad(struct kvs_adopt *plan, struct kvs_log_position from,
		       struct kvs_log_position to, uint64_t seq, uint64_t count);
void kvs_adopt_sort_bad(struct kvs_adopt *plan);
/// Writes records that nothing names over what is bad, so that the segment can be walked again.
void kvs_adopt_fill_bad(const struct kvs_adopt *plan);
int kvs_adopt_plan_table(struct kvs_adopt *plan);
/// A record names the run: `referenced` if it is current.
bool kvs_adopt_note_run(struct kvs_adopt *plan, const struct kvs_record_view *view,
			bool referenced);
/// Sorts and joins what was noted; -EUCLEAN if runs overlap or lie outside.
int kvs_adopt_plan_large(struct kvs_adopt *plan);
int kvs_adopt_apply_large(const struct kvs_adopt *plan, const struct kvs_adopt_parts *parts,
			  uint64_t stamp);
