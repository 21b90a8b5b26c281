// SPDX-License-Identifier: MIT
//
// The log as its dead writer left it. The segment directory says which segments hold records and in
// which order they were written; the records behind what is durable are walked one by one, crc and
// all, to where the last whole batch ends. What was appended behind that was acknowledged to
// nobody.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/adopt.h"

#define ADOPT_RECORD_HEAD_MAX 1024u // of a record, all but its value

static int log_damaged(struct kvs_adopt *plan, const char *what, uint32_t segment, uint64_t value)
{
	(void)snprintf(plan->why, sizeof(plan->why), "segment %u of the log: %s (%llu)", segment,
		       what, (unsigned long long)value);
	return -EUCLEAN;
}

static int by_first_seq(const void *a, const void *b, void *context)
{
	const struct kvs_segment *segments = context;
	uint64_t first_a = segments[*(const uint32_t *)a].first_seq;
	uint64_t first_b = segments[*(const uint32_t *)b].first_seq;
	return (first_a > first_b) - (first_a < first_b);
}

static int read_directory(struct kvs_adopt *plan)
{
	const struct kvs_region *region = plan->region;
	uint64_t ready = kvs_load_acquire(&region->header->ready[KVS_RANGE_LOG]);
	uint64_t touched = ready >> region->segment_shift;
	if (touched == 0 || touched > region->segments_count_max) {
		return log_damaged(plan, "so many are said to be in use", 0, touched);
	}
	plan->touched_count = (uint32_t)touched;
	plan->segments = calloc(region->segments_count_max, sizeof(*plan->segments));
	plan->heads = calloc(touched, sizeof(*plan->heads));
	if (plan->segments == NULL || plan->heads == NULL) {
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < touched; i++) {
		const struct kvs_segment_entry *entry = &region->directory[i];
		struct kvs_segment *segment = &plan->segments[i];
		// Acquire: the fields that go with the state (partner: kvs_segments_take()).
		uint64_t state = kvs_load_acquire(&entry->state);
		uint64_t used = kvs_load_relaxed(&entry->used_bytes);
		if (state > KVS_SEGMENT_RETIRED) {
			return log_damaged(plan, "its state is none", i, state);
		}
		if (used > region->segment_bytes || used % KVS_RECORD_ALIGN_BYTES != 0) {
			return log_damaged(plan, "more bytes are used than it has", i, used);
		}
		segment->state = (uint8_t)state;
		segment->first_seq = kvs_load_relaxed(&entry->first_seq);
		segment->order = segment->first_seq;
		segment->used_bytes = (uint32_t)used;
		segment->next = KVS_SEGMENT_NONE;
		if (state == KVS_SEGMENT_HEAD) {
			plan->heads[plan->heads_count++] = i;
		}
	}
	return 0;
}

// The order of the head segments, up to the one that the header calls the newest.
static int order_heads(struct kvs_adopt *plan)
{
	uint64_t chain_head = kvs_load_acquire(&plan->region->header->segment_chain_head);
	if (chain_head >= plan->touched_count ||
	    plan->segments[chain_head].state != KVS_SEGMENT_HEAD) {
		return log_damaged(plan, "it is said to be the newest and holds no records",
				   (uint32_t)chain_head, 0);
	}
	qsort_r(plan->heads, plan->heads_count, sizeof(*plan->heads), by_first_seq, plan->segments);
	// Newer ones were taken and not yet begun, or cut off by an adoption that was cut short.
	while (plan->heads[plan->heads_count - 1] != chain_head) {
		plan->segments[plan->heads[--plan->heads_count]].state = KVS_SEGMENT_FREE;
	}
	for (uint32_t i = 0; i + 1 < plan->heads_count; i++) {
		struct kvs_segment *segment = &plan->segments[plan->heads[i]];
		uint64_t next_seq = plan->segments[plan->heads[i + 1]].first_seq;
		if (segment->first_seq >= next_seq) {
			return log_damaged(plan, "two segments begin with the same version",
					   plan->heads[i], next_seq);
		}
		segment->next = plan->heads[i + 1];
		segment->last_seq = next_seq - 1;
	}
	return 0;
}

// Where the walk over the log begins: the head segment that has the first version above `seq`.
static uint32_t head_with(const struct kvs_adopt *plan, uint64_t seq)
{
	uint32_t at = 0;
	while (at + 1 < plan->heads_count &&
	       plan->segments[plan->heads[at + 1]].first_seq <= seq + 1) {
		at++;
	}
	return at;
}

struct walk {
	uint64_t expected_seq;
	bool unpersisted_found, unapplied_found;
	uint64_t bad_seq; // of the first bad record that is not durable, 0 = none
	uint32_t bad_segment;
};

static void walk_note(struct kvs_adopt *plan, struct walk *walk, struct kvs_log_position at,
		      uint64_t seq)
{
	if (!walk->unpersisted_found && seq > plan->durable_seq) {
		walk->unpersisted_found = true;
		plan->unpersisted = at;
		plan->has_tail = true;
	}
	if (!walk->unapplied_found && seq > plan->applied_seq) {
		walk->unapplied_found = true;
		plan->unapplied = at;
	}
}

// Goes on behind a record that is not whole, though it was applied. Where that leads to no record
// that could be the next, the rest of the segment is bad.
static int pass_over(struct kvs_adopt *plan, struct kvs_log_position *at, bool last,
		     struct walk *walk)
{
	struct kvs_log_position next;
	uint64_t seq = walk->expected_seq;
	uint64_t next_seq = plan->applied_seq + 1;
	if (!kvs_adopt_next_whole(plan, at->segment, at->offset, seq, &next, &next_seq) && !last) {
		next_seq = plan->segments[at->segment].last_seq + 1;
	}
	walk_note(plan, walk, *at, seq);
	if (next_seq > plan->applied_seq + 1) {
		// Of a batch that was under way only a part would be left.
		return log_damaged(plan, "the end of what was applied cannot be found, at version",
				   at->segment, seq);
	}
	if (walk->bad_seq == 0 && next_seq - 1 > plan->durable_seq) {
		walk->bad_seq = seq;
		walk->bad_segment = at->segment;
	}
	if (kvs_adopt_note_bad(plan, *at, next, seq, next_seq - seq) != 0) {
		return -ENOMEM;
	}
	walk->expected_seq = next_seq;
	*at = next;
	plan->end = next;
	plan->last_seq = next_seq - 1;
	plan->cut_records = 0;
	return 0;
}

// Walks one head segment. 0: to its end, 1: the log ends in it.
static int walk_segment(struct kvs_adopt *plan, uint32_t index, bool last, struct walk *walk)
{
	const struct kvs_region *region = plan->region;
	const struct kvs_segment *segment = &plan->segments[index];
	const unsigned char *start = region->base + kvs_region_segment_offset(region, index);
	struct kvs_log_position at = { .segment = index, .offset = 0 };
	while (at.offset < segment->used_bytes) {
		struct kvs_record_view view;
		bool whole = kvs_record_parse(start + at.offset, segment->used_bytes - at.offset,
					      &view) == 0 &&
			     view.seq == walk->expected_seq && kvs_record_crc_ok(&view);
		if (!whole && last && walk->expected_seq > plan->applied_seq) {
			return 1; // being written when the writer was killed
		}
		if (!whole && walk->expected_seq <= plan->applied_seq) {
			int result = pass_over(plan, &at, last, walk);
			if (result != 0) {
				return result;
			}
			continue;
		}
		if (!whole) {
			return log_damaged(plan, "a record is not what was written, at version",
					   index, walk->expected_seq);
		}
		walk_note(plan, walk, at, view.seq);
		walk->expected_seq++;
		at.offset += view.record_bytes;
		plan->cut_records++;
		if ((view.flags & KVS_RECORD_MORE) == 0) {
			plan->end = at;
			plan->last_seq = view.seq;
			plan->cut_records = 0;
		}
	}
	return 0;
}

static int walk_tail(struct kvs_adopt *plan)
{
	uint64_t known =
		plan->durable_seq < plan->applied_seq ? plan->durable_seq : plan->applied_seq;
	uint32_t first = head_with(plan, known);
	const struct kvs_segment *segment = &plan->segments[plan->heads[first]];
	struct walk walk = { .expected_seq = segment->first_seq };
	if (segment->first_seq > known + 1) {
		return log_damaged(plan, "the log does not go back to version", plan->heads[first],
				   known + 1);
	}
	plan->first_unpersisted_head = first;
	plan->end = (struct kvs_log_position){ .segment = plan->heads[first], .offset = 0 };
	plan->last_seq = segment->first_seq - 1;
	for (uint32_t i = first; i < plan->heads_count; i++) {
		bool last = i + 1 == plan->heads_count;
		int result = walk_segment(plan, plan->heads[i], last, &walk);
		if (result < 0) {
			return result;
		}
		if (!last && walk.expected_seq != plan->segments[plan->heads[i + 1]].first_seq) {
			// A batch that was cut may have been cut at the end of a segment, too.
			return log_damaged(plan, "the next segment does not go on with version",
					   plan->heads[i], walk.expected_seq);
		}
	}
	if (plan->last_seq < plan->applied_seq) {
		return log_damaged(plan, "the log ends before what was applied, at version",
				   plan->end.segment, plan->last_seq);
	}
	if (!walk.unpersisted_found || plan->durable_seq >= plan->last_seq) {
		plan->unpersisted = plan->end;
	}
	if (!walk.unapplied_found || plan->applied_seq >= plan->last_seq) {
		plan->unapplied = plan->end;
	}
	kvs_adopt_sort_bad(plan);
	return walk.bad_seq == 0 ? 0
				 : log_damaged(plan, "a record is not what was written, at version",
					       walk.bad_segment, walk.bad_seq);
}

// Head segments behind the end hold only what is cut.
static void drop_cut(struct kvs_adopt *plan)
{
	while (plan->heads[plan->heads_count - 1] != plan->end.segment) {
		uint32_t index = plan->heads[--plan->heads_count];
		plan->segments[index].state = KVS_SEGMENT_FREE;
		plan->segments[index].used_bytes = 0;
	}
	struct kvs_segment *head = &plan->segments[plan->end.segment];
	head->next = KVS_SEGMENT_NONE;
	head->used_bytes = plan->end.offset;
	head->last_seq = plan->last_seq;
	if (plan->first_unpersisted_head >= plan->heads_count) {
		plan->first_unpersisted_head = plan->heads_count - 1;
	}
}

// Large values that records name which the persister, or the table, has yet to be given.
static int note_tail_runs(struct kvs_adopt *plan)
{
	bool all_durable = plan->durable_seq >= plan->applied_seq;
	struct kvs_log_position at = all_durable ? plan->unapplied : plan->unpersisted;
	while (at.segment != plan->end.segment || at.offset < plan->end.offset) {
		const struct kvs_segment *segment = &plan->segments[at.segment];
		if (at.offset >= segment->used_bytes) {
			at = (struct kvs_log_position){ .segment = segment->next, .offset = 0 };
			continue;
		}
		struct kvs_record_view view;
		const unsigned char *start = plan->region->base;
		start += kvs_region_segment_offset(plan->region, at.segment) + at.offset;
		if (kvs_record_parse(start, segment->used_bytes - at.offset, &view) != 0) {
			return log_damaged(plan, "it changed under its new owner", at.segment, 0);
		}
		if ((view.flags & KVS_RECORD_LARGE) != 0 &&
		    !kvs_adopt_note_run(plan, &view, false)) {
			return -ENOMEM;
		}
		at.offset += view.record_bytes;
	}
	return 0;
}

// The survivor segment that was being written goes on where its last whole record ends: what was
// being written behind it has no entry, so nobody has seen it.
static void find_survivor(struct kvs_adopt *plan)
{
	const struct kvs_region *region = plan->region;
	uint64_t index = kvs_load_relaxed(&region->header->segment_survivor) - 1;
	plan->survivor = KVS_SEGMENT_NONE;
	if (index >= plan->touched_count ||
	    plan->segments[index].state != KVS_SEGMENT_SURVIVOR) {
		return;
	}
	struct kvs_segment *segment = &plan->segments[index];
	const unsigned char *start = region->base;
	start += kvs_region_segment_offset(region, (uint32_t)index);
	uint32_t offset = 0;
	struct kvs_record_view view;
	while (offset < segment->used_bytes &&
	       kvs_record_parse(start + offset, segment->used_bytes - offset, &view) == 0 &&
	       kvs_record_crc_ok(&view)) {
		offset += view.record_bytes;
	}
	// More than one record behind is no record that was being written: it is left as it is.
	if (segment->used_bytes - offset <= region->segment_bytes / 4 + ADOPT_RECORD_HEAD_MAX) {
		segment->used_bytes = offset;
		plan->survivor = (uint32_t)index;
	}
}

int kvs_adopt_plan_log(struct kvs_adopt *plan)
{
	int result = read_directory(plan);
	if (result == 0) {
		result = order_heads(plan);
	}
	if (result == 0) {
		result = walk_tail(plan);
	}
	if (result == 0) {
		drop_cut(plan);
		find_survivor(plan);
		result = note_tail_runs(plan);
	}
	return result;
}
