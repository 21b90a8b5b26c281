// SPDX-License-Identifier: MIT
//
// Which segment is emptied next: the best of all where they are few, one of the best where they are
// many, and never one that a follower still reads or that is worth nothing.
#include "daemon/cleaner_parts.h"

#include <stdlib.h>
#include <string.h>

#include "shm/log.h"
#include "tests/tap/tap.h"

#define SEGMENT (2u << 20)
#define MANY 20000u
#define ROUNDS 400u

static struct kvs_region region = { .segment_bytes = SEGMENT, .segment_shift = 21 };
static struct kvs_segment segments[MANY];

static struct kvs_log make_log(uint32_t count, uint64_t *random)
{
	struct kvs_log log = {
		.region = &region, .segments = segments, .touched_count = count, .next_seq = 1000000
	};
	log.survivor.segment = KVS_SEGMENT_NONE;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t used = SEGMENT - (uint32_t)(tap_random(random) % 4096);
		segments[i] = (struct kvs_segment){
			.state = tap_random(random) % 8 == 0   ? KVS_SEGMENT_FREE
				 : tap_random(random) % 3 == 0 ? KVS_SEGMENT_HEAD
							       : KVS_SEGMENT_SURVIVOR,
			.used_bytes = used,
			.live_bytes = tap_random(random) % (used + 1),
			.first_seq = tap_random(random) % 900000,
			.last_seq = 100000 + tap_random(random) % 900000,
			.next = (uint32_t)(tap_random(random) % count),
		};
	}
	return log;
}

// What a reader of the rule would take: everything looked at, nothing remembered.
static double naive_best(const struct kvs_log *log, uint64_t durable_seq, uint64_t percent,
			 uint32_t *best)
{
	double most = -1;
	*best = KVS_SEGMENT_NONE;
	for (uint32_t i = 0; i < log->touched_count; i++) {
		const struct kvs_segment *segment = &log->segments[i];
		bool left = segment->state == KVS_SEGMENT_SURVIVOR ||
			    (segment->state == KVS_SEGMENT_HEAD &&
			     segment->last_seq + 1 <= durable_seq);
		double live = (double)segment->live_bytes;
		double gain = (SEGMENT - live) / (live + 1);
		gain = gain * gain * (double)(log->next_seq - segment->last_seq);
		if (left && segment->live_bytes * 100 <= segment->used_bytes * percent &&
		    gain > most) {
			most = gain;
			*best = i;
		}
	}
	return most;
}

static bool may_be_cleaned(const struct kvs_log *log, uint32_t index, uint64_t durable_seq,
			   uint64_t percent)
{
	const struct kvs_segment *segment = &log->segments[index];
	return kvs_log_cleanable(log, index, durable_seq) &&
	       segment->live_bytes * 100 <= segment->used_bytes * percent;
}

static void test_few(uint64_t *random)
{
	unsigned other = 0, wrong = 0;
	for (unsigned i = 0; i < tap_rounds(ROUNDS, 20); i++) {
		uint32_t count = 1 + (uint32_t)(tap_random(random) % CLEANER_CHOICE_LOOKS);
		struct kvs_log log = make_log(count, random);
		struct cleaner_choice choice = { .at = (uint32_t)tap_random(random) };
		uint64_t durable = tap_random(random) % 1000000;
		uint64_t percent = 50 + tap_random(random) % 50;
		uint32_t best;
		(void)naive_best(&log, durable, percent, &best);
		uint32_t chosen = cleaner_choose(&choice, &log, durable, percent);
		other += chosen != best;
		wrong += chosen != KVS_SEGMENT_NONE &&
			 !may_be_cleaned(&log, chosen, durable, percent);
	}
	ok_u64(other, 0, "up to %u segments: the one that a look at all finds",
	       CLEANER_CHOICE_LOOKS);
	ok_u64(wrong, 0, "E: none that a follower has not left");
}

// Many: the best comes with the round in which it is looked at, and stays remembered until then.
static void test_many(uint64_t *random)
{
	struct kvs_log log = make_log(MANY, random);
	struct cleaner_choice choice = { 0 };
	unsigned late = 0, wrong = 0;
	uint32_t waiting = KVS_SEGMENT_NONE, since = 0;
	unsigned round = MANY / CLEANER_CHOICE_LOOKS + 1;
	for (unsigned i = 0; i < round; i++) {
		(void)cleaner_choose(&choice, &log, UINT64_MAX, 90);
	}
	for (unsigned i = 0; i < tap_rounds(ROUNDS, 100); i++) {
		uint32_t best;
		(void)naive_best(&log, UINT64_MAX, 90, &best);
		since = best == waiting ? since + 1 : 0;
		waiting = best;
		late += since > round;
		uint32_t chosen = cleaner_choose(&choice, &log, UINT64_MAX, 90);
		wrong +=
			chosen == KVS_SEGMENT_NONE || !may_be_cleaned(&log, chosen, UINT64_MAX, 90);
		if (chosen != KVS_SEGMENT_NONE) {
			segments[chosen].state = KVS_SEGMENT_RETIRED;
		}
		segments[tap_random(random) % MANY].live_bytes /= 2;
	}
	ok_u64(wrong, 0, "%u segments: each choice may be cleaned", MANY);
	ok_u64(late, 0, "and the best waits for one round at most");
}

// The only one that is left is found however far away it is, and no other is.
static void test_last(uint64_t *random)
{
	struct kvs_log log = make_log(MANY, random);
	struct cleaner_choice choice = { 0 };
	for (uint32_t i = 0; i < MANY; i++) {
		segments[i].live_bytes = segments[i].used_bytes;
	}
	ok(cleaner_choose(&choice, &log, UINT64_MAX, 98) == KVS_SEGMENT_NONE,
	   "nothing is dead: nothing is chosen");
	uint32_t last = MANY - 7;
	segments[last].state = KVS_SEGMENT_SURVIVOR;
	segments[last].live_bytes = 0;
	choice = (struct cleaner_choice){ 0 };
	ok_u64(cleaner_choose(&choice, &log, UINT64_MAX, 98), last, "the only one is found");
	log.survivor.segment = last;
	ok(cleaner_choose(&choice, &log, UINT64_MAX, 98) == KVS_SEGMENT_NONE,
	   "not while copies are written to it");
}

static void test_age(void)
{
	struct kvs_log log = { .region = &region, .segments = segments, .next_seq = 1000000 };
	struct kvs_segment young = { .live_bytes = SEGMENT / 2, .last_seq = 990000 };
	struct kvs_segment old = { .live_bytes = SEGMENT / 2, .last_seq = 100 };
	ok(cleaner_worth(&log, &old) > cleaner_worth(&log, &young),
	   "what has not lost more for longer is worth more");
	young.live_bytes = SEGMENT / 20;
	ok(cleaner_worth(&log, &old) < cleaner_worth(&log, &young),
	   "but not than what is nearly empty");
	young.live_bytes = 0;
	young.last_seq = 999999;
	ok(cleaner_worth(&log, &old) < cleaner_worth(&log, &young), "nor than what costs nothing");
}

int main(void)
{
	uint64_t random = tap_seed(51);
	test_few(&random);
	test_many(&random);
	test_last(&random);
	test_age();
	return tap_done();
}
