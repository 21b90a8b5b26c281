// SPDX-License-Identifier: MIT
//
// The record log inside the region: segments, who may write where next, and the walk that the
// persister and a restarted kvd make over it. One writer appends; one follower (the persister) reads
// up to the published position; everything a follower needs to find its way is outside the region.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/record.h"
#include "shm/region.h"

/// A place in the log: segment index and byte offset in it.
struct kvs_log_position {
	uint32_t segment;
	uint32_t offset;
};

/// Daemon-private facts about a segment.
struct kvs_segment {
	uint64_t last_seq; // highest seq in it
	uint64_t live_bytes; // of records that an entry points at
	uint32_t used_bytes;
	uint32_t next; // HEAD chain: index of the following head segment, UINT32_MAX = none yet
	uint8_t state; // enum kvs_segment_state
	bool prepared; // its pages are populated
};

struct kvs_log {
	struct kvs_region *region;
	struct kvs_segment *segments; // region->segments_count_max of them
	struct kvs_log_position head; // next byte to write
	uint64_t published; // segment << 32 | offset: what followers may read up to; release
	uint32_t survivor; // open survivor segment, UINT32_MAX = none
	uint64_t next_seq; // of the next record
	uint32_t free_count; // FREE segments within `segments_allowed`
	uint32_t retired_count;
	uint32_t full_count; // HEAD and SURVIVOR
	uint32_t *free_list; // stack of FREE prepared-or-not segments
	uint32_t free_list_count;
	uint32_t segments_touched; // segments ever taken: indexes below it exist
};

/// Position up to which everything is applied and whole batches stand.
/// Call with: any time. Thread must: any. Orders: load-acquire, partner kvs_log_publish().
static inline struct kvs_log_position kvs_log_published(const struct kvs_log *log)
{
	uint64_t word = kvs_load_acquire(&log->published);
	return (struct kvs_log_position){ (uint32_t)(word >> 32), (uint32_t)word };
}

/// Steps a follower: parses the record at *at and moves *at behind it, crossing into the next head
/// segment where one ends. Returns false when *at has reached `end` (from kvs_log_published()).
/// Call with: *at a position this follower has reached before, or the one kvs_log_start() gave. Thread
/// must: be the follower; nothing it has not passed is ever cleaned. Orders: none beyond published.
bool kvs_log_follow(const struct kvs_log *log, struct kvs_log_position *at,
		    struct kvs_log_position end, struct kvs_record_view *view);
