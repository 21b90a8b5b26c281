// SPDX-License-Identifier: MIT
//
// Benefit by cost: a segment brings what is dead in it and costs the copying of what is live, and
// what has been live for long is likely to stay so, while young segments go on losing bytes if they
// are left alone. Half of the exponent that log-structured file systems give to the age: with all
// of it uniform overwriting copies half as much again (figures in ARCHITECTURE.md).
#include "daemon/cleaner_parts.h"

#include "shm/log.h"

bool cleaner_is_dead_enough(const struct kvs_segment *segment, uint64_t live_percent)
{
	return segment->live_bytes <= (uint64_t)segment->used_bytes * live_percent / 100;
}

double cleaner_worth(const struct kvs_log *log, const struct kvs_segment *segment)
{
	// The square of dead / live * sqrt(age), which sorts alike and needs no root. A segment
	// with nothing live costs nothing.
	double live = (double)segment->live_bytes + 1;
	double dead = (double)log->region->segment_bytes - (double)segment->live_bytes;
	double age = (double)(log->next_seq - segment->last_seq);
	return dead / live * (dead / live) * age;
}

static bool is_candidate(const struct kvs_log *log, uint32_t index, uint64_t durable_seq,
			 uint64_t live_percent)
{
	return cleaner_is_dead_enough(&log->segments[index], live_percent) &&
	       kvs_log_cleanable(log, index, durable_seq);
}

// Remembers a segment, in the place of the one that is worth least if there is no other.
static void choice_keep(struct cleaner_choice *choice, const struct kvs_log *log, uint32_t index,
			double worth)
{
	uint32_t place = choice->count;
	double least = worth;
	for (uint32_t i = 0; i < choice->count; i++) {
		if (choice->kept[i] == index) {
			return;
		}
		double other = cleaner_worth(log, &log->segments[choice->kept[i]]);
		if (choice->count == CLEANER_CHOICE_KEPT && other < least) {
			least = other;
			place = i;
		}
	}
	if (place < CLEANER_CHOICE_KEPT) {
		choice->kept[place] = index;
		choice->count += place == choice->count;
	}
}

uint32_t cleaner_choose(struct cleaner_choice *choice, const struct kvs_log *log,
			uint64_t durable_seq, uint64_t live_percent)
{
	uint32_t best = KVS_SEGMENT_NONE;
	double best_worth = -1;
	for (uint32_t i = 0; i < choice->count;) {
		uint32_t index = choice->kept[i];
		if (!is_candidate(log, index, durable_seq, live_percent)) {
			choice->kept[i] = choice->kept[--choice->count];
			continue;
		}
		double worth = cleaner_worth(log, &log->segments[index]);
		best = worth > best_worth ? index : best;
		best_worth = worth > best_worth ? worth : best_worth;
		i++;
	}
	for (uint32_t looks = 0; looks < log->touched_count; looks++) {
		if (looks >= CLEANER_CHOICE_LOOKS && best != KVS_SEGMENT_NONE) {
			break;
		}
		uint32_t index = choice->at < log->touched_count ? choice->at : 0;
		choice->at = index + 1;
		if (!is_candidate(log, index, durable_seq, live_percent)) {
			continue;
		}
		double worth = cleaner_worth(log, &log->segments[index]);
		best = worth > best_worth ? index : best;
		best_worth = worth > best_worth ? worth : best_worth;
		if (log->touched_count > CLEANER_CHOICE_LOOKS) {
			choice_keep(choice, log, index, worth);
		}
	}
	return best;
}
