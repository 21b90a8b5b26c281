// SPDX-License-Identifier: MIT
//
// The cleaner from inside: what cleaner.c, cleaner_choice.c and cleaner_pay.c keep between two
// turns, and what they do for each other and for keyspace_room.c.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct keyspace;
struct kvs_log;
struct kvs_segment;

#define CLEANER_SLICE_NS 200000u // of one go: then somebody else has a turn

#define CLEANER_CHOICE_KEPT 16u	   // the best segments of the last looks
#define CLEANER_CHOICE_LOOKS 1024u // segments looked at for one choice

/// Which segment to empty next. All are looked at in rotation, some for each choice, and the best
/// that were seen are remembered: nothing has to be kept in order while keys change.
struct cleaner_choice {
	uint32_t at; // next to be looked at
	uint32_t count;
	uint32_t kept[CLEANER_CHOICE_KEPT];
};

/// Of what was written to this segment, is at most so much still current? Measured against what was
/// written, not against the segment's size: then every segment cleaned takes dead bytes away for
/// good (its copy has none), and cleaning what nobody changes comes to an end.
bool cleaner_is_dead_enough(const struct kvs_segment *segment, uint64_t live_percent);

/// What it would bring to empty this segment now, for what it would cost; comparable only.
double cleaner_worth(const struct kvs_log *log, const struct kvs_segment *segment);

/// The segment most worth it of those looked at and remembered, among those of whose written bytes
/// at most `live_percent` are current and whose followers have passed `durable_seq`.
/// KVS_SEGMENT_NONE only if none of all is.
uint32_t cleaner_choose(struct cleaner_choice *choice, const struct kvs_log *log,
			uint64_t durable_seq, uint64_t live_percent);

/// What there was when no segment was worth it: while that is so none is, and nobody looks again.
struct cleaner_none {
	uint64_t next_seq; // 0 = there was one
	uint64_t passed_seq;
	uint64_t percent;
	uint64_t live_bytes;
	uint64_t stubs;
	uint32_t full_count;
	uint32_t survivor;
	bool judged; // keys that may go were looked for, too
};

struct cleaner_state {
	struct cleaner_choice choice;
	struct cleaner_none none;
	uint32_t victim; // KVS_SEGMENT_NONE = none
	uint32_t offset; // next record to look at
	uint64_t victim_copied_bytes;
	uint64_t victim_dead_bytes; // of the last one when it was chosen: what it was to bring
	uint64_t victim_used_bytes; // and what had to be looked at for it
	uint64_t counted_bytes;	    // kvs_log_appended_bytes() as counted so far
	uint64_t paid_bytes;	    // the same, as far as writers have cleaned for it
	uint32_t edge;		    // offset in the head segment from which a writer cleans first
	uint32_t wanted_segments;   // beyond the reserves, by who waits for memory; 0 = nobody does
	uint64_t slice_longest_ns;
	uint64_t last_scan_ns;
	uint64_t last_write_ns; // when the last turn that wrote was
	uint64_t next_ns;  // when the loop should call again, UINT64_MAX = not for its own sake
	uint64_t turn_ns;  // of the last turn,
	uint64_t progress; // and how far the writer had come as it began
	uint64_t seen_seq; // last seq at the previous turn
	uint64_t idle_seq; // seen_seq and durable_seen when idle cleaning last found nothing
	uint64_t idle_durable;
};

// ---- cleaner.c ----

/// Cleans up to `*bytes` of the current or the best victim, of which what was looked at is taken
/// off, or until `until_ns` by the seam's clock, which is looked at every few records (UINT64_MAX =
/// never); at least those in any case. Ends with the victim. Returns false if there is nothing
/// worth it, or no room for copies.
bool cleaner_slice(struct keyspace *keyspace, uint64_t *bytes, uint64_t until_ns,
		   uint64_t live_share_max_percent);
/// One go of CLEANER_SLICE_NS, between two turns.
bool cleaner_go(struct keyspace *keyspace, uint64_t live_share_max_percent);

// ---- cleaner_find.c ----

/// Is there something worth it? Then it is state->victim.
bool cleaner_finds(struct keyspace *keyspace, uint64_t live_share_max_percent);

// ---- cleaner_pay.c: what a write costs while memory is short ----

/// Cleans for what was appended since the last time, if segments are few, and sets state->edge.
/// Call with: no command under way, for records move. Thread must: be the writer. Orders: nothing.
void cleaner_pay(struct keyspace *keyspace);
/// Are there fewer segments than there are to be?
bool cleaner_is_short(const struct keyspace *keyspace);
/// Segments that are free, or will be when readers have left them; large values that are on their
/// way out count, too.
uint32_t cleaner_segments_coming(const struct keyspace *keyspace);
/// Are so few segments left that the next one would be refused to a write?
bool cleaner_is_urgent(const struct keyspace *keyspace);
