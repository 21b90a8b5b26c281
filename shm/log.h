// SPDX-License-Identifier: MIT
//
// The record log inside the region: segments, who may write where next, and the walk that the
// persister makes over it. One writer appends; one follower reads up to the published position;
// everything a follower needs to find its way is outside the region and rebuilt by scanning it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/limbo.h"
#include "shm/record.h"
#include "shm/region.h"

#define KVS_SEGMENT_NONE UINT32_MAX

/// A place in the log: segment index and byte offset in it.
struct kvs_log_position {
	uint32_t segment;
	uint32_t offset;
};

/// Daemon-private facts about a segment.
struct kvs_segment {
	uint64_t first_seq; // HEAD: of its first record
	uint64_t order;	    // rises with each segment that is taken, also while nobody writes
	uint64_t last_seq; // highest seq in it
	uint64_t live_bytes; // of records that an entry points at
	uint32_t used_bytes;
	uint32_t next; // HEAD chain: the following head segment, KVS_SEGMENT_NONE = none yet
	uint8_t state; // enum kvs_segment_state
	bool prepared; // its pages are populated
	bool preparing; // handed to a helper thread
};

struct kvs_log {
	struct kvs_region *region;
	struct kvs_segment *segments; // region->segments_count_max of them
	struct kvs_log_position head; // next byte to write
	struct kvs_log_position survivor; // segment KVS_SEGMENT_NONE = none open
	uint64_t published; // segment << 32 | offset: what followers may read up to
	uint64_t next_seq; // of the next record
	uint64_t order; // of the segment that was taken last
	uint32_t *free_list; // stack: prepared segments on top of unprepared ones
	uint32_t free_list_count;
	uint32_t given_at; // in it: where pages were given back last
	uint32_t prepared_count; // segments with pages, whatever their state
	uint32_t touched_count; // indexes below it have been used
	uint32_t full_count; // HEAD and SURVIVOR segments
	uint32_t retired_count;
	uint32_t preparing_count; // with a helper thread, back soon
	uint32_t helped_most;	  // up to so many segments at once are waited for, 0 = none
	uint64_t rolls; // head segments closed so far
	uint64_t tails_bytes; // left at their ends, too short for the record that came
	uint64_t died; // records that ceased to be current, ever
};

/// Takes the first head segment. Returns 0, -ENOMEM.
int kvs_log_init(struct kvs_log *log, struct kvs_region *region);
void kvs_log_fini(struct kvs_log *log);

/// Segments that could still be taken within the memory bound.
uint32_t kvs_log_segments_free(const struct kvs_log *log);
/// Segments that the memory bound leaves for records, in use or not.
uint32_t kvs_log_segments_allowed(const struct kvs_log *log);

/// The memory bound under which `count` segments could still be taken.
uint64_t kvs_log_memory_for(const struct kvs_log *log, uint32_t count);

/// Makes sure that records of together `bytes`, none larger than `largest`, can be appended without
/// taking more than the free segments less `reserve`. Returns 0, or -ENOSPC (bound reached, or
/// `largest` is more than a segment), -ENOMEM (the machine is full) or -EAGAIN (a helper will have
/// populated them soon, and log->helped_most says that this is waited for); nothing is taken then.
/// Call with: sums of kvs_record_bytes(). Thread must: be the writer. Orders: nothing.
int kvs_log_secure(struct kvs_log *log, uint64_t bytes, uint64_t largest, uint32_t reserve);

/// Room for one record at the head, after kvs_log_secure() vouched for it. *offset is its place
/// from the start of the region. The record gets seq log->next_seq, which is advanced.
void *kvs_log_append(struct kvs_log *log, uint32_t record_bytes, uint64_t *offset);

/// Bytes of records that were appended in this life (and before the head of an adopted one).
static inline uint64_t kvs_log_appended_bytes(const struct kvs_log *log)
{
	return (log->rolls << log->region->segment_shift) - log->tails_bytes + log->head.offset;
}

/// Lets followers read up to the head.
/// Call with: whole batches appended and published in the table. Thread must: be the writer.
/// Orders: release; partner kvs_log_published().
void kvs_log_publish(struct kvs_log *log);

/// Room for a survivor copy: at the open survivor segment or in a new one (the reserve included).
/// NULL if there is no segment left, or none takes so many bytes.
void *kvs_log_append_survivor(struct kvs_log *log, uint32_t record_bytes, uint64_t seq,
			      uint64_t *offset);

/// Closes the open survivor segment, if there is one: the next copy opens another, and this one may
/// be cleaned.
static inline void kvs_log_close_survivor(struct kvs_log *log)
{
	log->survivor.segment = KVS_SEGMENT_NONE;
}

/// Opens that survivor segment for further copies in which a record of so many bytes leaves the
/// least room, `except` (KVS_SEGMENT_NONE = none) apart. False if it fits none of them.
/// Call with: nobody reading at the ends of survivor segments: before the region is alive. Thread
/// must: be the writer. Orders: nothing.
bool kvs_log_reopen_survivor(struct kvs_log *log, uint32_t record_bytes, uint32_t except);

/// Accounts a record that became current, or ceased to be.
void kvs_log_live_add(struct kvs_log *log, uint64_t offset, uint32_t record_bytes);
void kvs_log_live_sub(struct kvs_log *log, uint64_t offset, uint32_t record_bytes);

static inline uint32_t kvs_log_segment_of(const struct kvs_log *log, uint64_t offset)
{
	return (uint32_t)((offset - log->region->map.ranges[KVS_RANGE_LOG].offset) >>
			  log->region->segment_shift);
}

/// Bytes written to a segment so far, the open head included.
static inline uint32_t kvs_log_written_bytes(const struct kvs_log *log, uint32_t segment)
{
	return segment == log->head.segment ? log->head.offset : log->segments[segment].used_bytes;
}

/// May the cleaner empty this segment? Full, not open, and every follower has left it: a record of
/// a later head segment is durable.
bool kvs_log_cleanable(const struct kvs_log *log, uint32_t segment, uint64_t durable_seq);

/// Takes an emptied segment out of use; it becomes FREE by kvs_log_free() after its grace period.
void kvs_log_retire(struct kvs_log *log, uint32_t segment, struct kvs_limbo *limbo, uint64_t stamp);
void kvs_log_free(struct kvs_log *log, uint32_t segment);

/// Gives the pages of up to `count` free segments back, of those that are used last. Returns how
/// many had pages, and have them no more.
/// Call with: any time. Thread must: be the writer. Orders: nothing.
uint32_t kvs_log_give_back(struct kvs_log *log, uint32_t count);

/// The same until the populated ones fit the bound again (after the table or large values took
/// memory), up to `count`.
uint32_t kvs_log_trim(struct kvs_log *log, uint32_t count);

/// Gives pages to all free segments that the bound allows. Returns 0, or -ENOMEM / -errno when the
/// machine has no more: those that got theirs keep them. For a start: no helper may be at work.
int kvs_log_prefault(struct kvs_log *log);

/// Free segments that have pages.
static inline uint32_t kvs_log_spare_count(const struct kvs_log *log)
{
	uint32_t taken = log->full_count + log->retired_count;
	return log->prepared_count > taken ? log->prepared_count - taken : 0;
}

/// So many segments are a part that the kernel takes back in a fraction of a millisecond.
static inline uint32_t kvs_log_part(const struct kvs_log *log)
{
	uint32_t segment_bytes = log->region->segment_bytes;
	return segment_bytes < KVS_HUGE_PAGE_BYTES ? (uint32_t)KVS_HUGE_PAGE_BYTES / segment_bytes
						   : 1;
}

/// For a helper thread that populates ahead: takes a free, unprepared segment out of the list (or
/// KVS_SEGMENT_NONE if `ahead` prepared ones are there already or none is left), and puts it back.
uint32_t kvs_log_prepare_begin(struct kvs_log *log, uint32_t ahead);
void kvs_log_prepare_end(struct kvs_log *log, uint32_t segment, bool populated);

/// Position up to which everything is applied and whole batches stand.
/// Call with: any time. Thread must: any. Orders: load-acquire, partner kvs_log_publish().
static inline struct kvs_log_position kvs_log_published(const struct kvs_log *log)
{
	uint64_t word = kvs_load_acquire(&log->published);
	return (struct kvs_log_position){ (uint32_t)(word >> 32), (uint32_t)word };
}

/// Steps a follower: parses the record at *at and moves *at behind it, crossing into the next head
/// segment where one ends. Returns false when *at has reached `end` (from kvs_log_published()).
/// Call with: *at a position this follower has reached before, or the published one at its start.
/// Thread must: be the follower; what it has not passed is never cleaned. Orders: none beyond
/// published.
bool kvs_log_follow(const struct kvs_log *log, struct kvs_log_position *at,
		    struct kvs_log_position end, struct kvs_record_view *view);
