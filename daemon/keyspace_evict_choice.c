// SPDX-License-Identifier: MIT
//
// Which segment is judged next: the oldest on probation or the oldest of the main part, by what
// either holds. Where segments are many, one look at all of them serves for several victims. Large
// values have small records, so that those of a whole memory may stand in segments that are open:
// there they are judged where they stand, in the order in which they came, round and round, and
// what is kept is not moved.
#include "daemon/keyspace_evict.h"

#include <string.h>

#include "daemon/keyspace_internal.h"

#define EVICT_PROBATION_PERCENT 13u // of the live bytes: beyond it probation gives first
#define EVICT_LOOK_SEGMENTS 1024u   // up to so many are all looked at for each victim

static void oldest_keep(struct evict_oldest *oldest, uint32_t segment, uint64_t order)
{
	uint32_t at = oldest->count;
	if (at == EVICT_OLDEST_KEPT) {
		if (order >= oldest->order[at - 1]) {
			return;
		}
		at--;
	} else {
		oldest->count++;
	}
	for (; at > 0 && oldest->order[at - 1] > order; at--) {
		oldest->segment[at] = oldest->segment[at - 1];
		oldest->order[at] = oldest->order[at - 1];
	}
	oldest->segment[at] = segment;
	oldest->order[at] = order;
}

// Does it hold records, and is its count believed?
static bool is_in_use(const struct kvs_log *log, const struct kvs_segment *segment)
{
	return (segment->state == KVS_SEGMENT_HEAD || segment->state == KVS_SEGMENT_SURVIVOR) &&
	       segment->live_bytes <= log->region->segment_bytes;
}

// Finds the oldest of both parts, and what is live in them.
static void look_at_all(struct keyspace *keyspace, uint64_t durable_seq)
{
	struct evict_state *evict = &keyspace->evict;
	const struct kvs_log *log = &keyspace->log;
	for (unsigned part = 0; part < 2; part++) {
		evict->oldest[part].count = 0;
		evict->live_bytes[part] = 0;
	}
	for (uint32_t i = 0; i < log->touched_count; i++) {
		const struct kvs_segment *segment = &log->segments[i];
		if (!is_in_use(log, segment)) {
			continue;
		}
		bool probation = segment->state == KVS_SEGMENT_HEAD;
		evict->live_bytes[probation] += segment->live_bytes;
		if (kvs_log_cleanable(log, i, durable_seq)) {
			oldest_keep(&evict->oldest[probation], i, segment->order);
		}
	}
}

// Takes the oldest that is still what it was.
static uint32_t oldest_take(struct keyspace *keyspace, bool probation, uint64_t durable_seq)
{
	struct evict_oldest *oldest = &keyspace->evict.oldest[probation];
	const struct kvs_log *log = &keyspace->log;
	uint32_t state = probation ? KVS_SEGMENT_HEAD : KVS_SEGMENT_SURVIVOR;
	uint32_t found = KVS_SEGMENT_NONE;
	uint32_t passed = 0;
	while (passed < oldest->count && found == KVS_SEGMENT_NONE) {
		uint32_t index = oldest->segment[passed];
		const struct kvs_segment *segment = &log->segments[index];
		if (segment->state == state && segment->order == oldest->order[passed] &&
		    kvs_log_cleanable(log, index, durable_seq)) {
			found = index;
		}
		passed++;
	}
	oldest->count -= passed;
	memmove(oldest->segment, oldest->segment + passed, oldest->count * sizeof(uint32_t));
	memmove(oldest->order, oldest->order + passed, oldest->count * sizeof(uint64_t));
	return found;
}

static bool probation_is_next(const struct evict_state *evict)
{
	uint64_t share = (evict->live_bytes[0] + evict->live_bytes[1]) / 100;
	return evict->live_bytes[1] > share * EVICT_PROBATION_PERCENT || evict->main_gave_little;
}

static uint32_t choose_full(struct keyspace *keyspace, uint64_t durable_seq, bool *probation)
{
	struct evict_state *evict = &keyspace->evict;
	uint32_t victim = KVS_SEGMENT_NONE;
	if (keyspace->log.touched_count > EVICT_LOOK_SEGMENTS) {
		*probation = probation_is_next(evict);
		victim = oldest_take(keyspace, *probation, durable_seq);
	}
	if (victim == KVS_SEGMENT_NONE) {
		look_at_all(keyspace, durable_seq);
		*probation = probation_is_next(evict);
		victim = oldest_take(keyspace, *probation, durable_seq);
	}
	if (victim == KVS_SEGMENT_NONE) {
		victim = oldest_take(keyspace, !*probation, durable_seq);
		*probation = victim == KVS_SEGMENT_NONE ? *probation : !*probation;
	}
	return victim;
}

// The next, in the order of their age, of the segments that cannot be emptied: they are open, or
// their followers are not done with them. NONE if all of them were just found to have nothing.
static uint32_t choose_open(struct keyspace *keyspace, uint64_t durable_seq)
{
	struct evict_state *evict = &keyspace->evict;
	const struct kvs_large *large = &keyspace->large;
	const struct kvs_log *log = &keyspace->log;
	uint32_t first = KVS_SEGMENT_NONE, next = KVS_SEGMENT_NONE, count = 0;
	if (keyspace->region->large_bytes <= large->leaving_bytes + large->orphaned_bytes) {
		return KVS_SEGMENT_NONE; // only large values are worth it
	}
	for (uint32_t i = 0; i < log->touched_count; i++) {
		const struct kvs_segment *segment = &log->segments[i];
		if (!is_in_use(log, segment) || segment->live_bytes == 0 ||
		    kvs_log_cleanable(log, i, durable_seq)) {
			continue;
		}
		count++;
		if (first == KVS_SEGMENT_NONE || segment->order < log->segments[first].order) {
			first = i;
		}
		if (segment->order > evict->open_after &&
		    (next == KVS_SEGMENT_NONE || segment->order < log->segments[next].order)) {
			next = i;
		}
	}
	if (evict->open_seq == log->next_seq && evict->open_empty >= count) {
		return KVS_SEGMENT_NONE;
	}
	return next != KVS_SEGMENT_NONE ? next : first;
}

uint32_t evict_choose(struct keyspace *keyspace, uint64_t durable_seq, uint32_t *offset)
{
	struct evict_state *evict = &keyspace->evict;
	bool probation = true;
	bool in_place = false;
	uint32_t victim = choose_full(keyspace, durable_seq, &probation);
	// Or all others were judged and nothing went.
	bool others = evict->barren > keyspace->log.full_count && evict->barren % 2 == 0;
	if (victim == KVS_SEGMENT_NONE || others) {
		uint32_t open = choose_open(keyspace, durable_seq);
		in_place = open != KVS_SEGMENT_NONE;
		victim = in_place ? open : victim;
	}
	if (in_place) {
		const struct kvs_segment *segment = &keyspace->log.segments[victim];
		probation = segment->state == KVS_SEGMENT_HEAD;
		evict->open_after = segment->order;
	}
	evict->judging = victim != KVS_SEGMENT_NONE;
	evict->pressed = evict->pressed || evict->judging;
	evict->probation = probation;
	evict->in_place = in_place;
	evict->run_went = false;
	evict->met_spared = false;
	evict->judged_bytes = 0;
	evict->kept_bytes = 0;
	evict->stub_bytes = 0;
	*offset = 0;
	return victim;
}

uint32_t evict_resume(struct keyspace *keyspace, uint64_t durable_seq, uint32_t *offset)
{
	struct evict_state *evict = &keyspace->evict;
	const struct evict_hand hand = evict->hand;
	const struct kvs_log *log = &keyspace->log;
	evict->hand.order = 0;
	if (hand.order == 0 || log->segments[hand.segment].order != hand.order) {
		return KVS_SEGMENT_NONE;
	}
	if (hand.in_place == kvs_log_cleanable(log, hand.segment, durable_seq)) {
		return KVS_SEGMENT_NONE; // it can be emptied by now: from its start on
	}
	evict->judging = true;
	evict->probation = hand.probation;
	evict->in_place = hand.in_place;
	evict->run_went = false;
	*offset = hand.offset;
	return hand.segment;
}

bool evict_is_enough(struct keyspace *keyspace)
{
	struct evict_state *evict = &keyspace->evict;
	if (!evict->run_went) {
		return false;
	}
	evict->run_went = false;
	return !evict_is_wanted(keyspace);
}

void evict_pause(struct keyspace *keyspace)
{
	struct evict_state *evict = &keyspace->evict;
	struct cleaner_state *cleaner = &keyspace->cleaner;
	evict->hand = (struct evict_hand){
		.segment = cleaner->victim,
		.offset = cleaner->offset,
		.order = keyspace->log.segments[cleaner->victim].order,
		.probation = evict->probation,
		.in_place = evict->in_place,
	};
	evict->judging = false;
	evict->in_place = false;
	cleaner->victim = KVS_SEGMENT_NONE;
}
