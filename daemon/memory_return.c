// SPDX-License-Identifier: MIT
//
// How many segments were free and had pages at every moment of a stretch of memory-return is how
// many were not needed in it; they are given back one after the other, but for those that the
// helper keeps ready. So what comes and goes within that time keeps its pages, and the two do not
// work against each other. The file is compared with the count now and then; only if it has more
// are its pages looked for.
#include "daemon/memory_return.h"

#include "daemon/keyspace_internal.h"
#include "daemon/log.h"
#include "daemon/prepare.h"
#include "shm/holes.h"

#define RETURN_LOOK_NS UINT64_C(10000000000) // between two looks at the file, or memory-return
#define RETURN_FILL_NS 10000000u // until the helper is given the next segment, where all have pages
#define RETURN_SLICE_NS 200000u
#define RETURN_STEPS 64u // of the walk, in a slice

void keyspace_set_memory_return(struct keyspace *keyspace, uint64_t after_ms)
{
	keyspace->memory_return.after_ns = keyspace->prefault ? 0 : after_ms * UINT64_C(1000000);
}

static struct kvs_holes_parts holes_parts(struct keyspace *keyspace)
{
	return (struct kvs_holes_parts){ .log = &keyspace->log,
					 .table = &keyspace->table,
					 .large = &keyspace->large };
}

struct memory_pages memory_pages(struct keyspace *keyspace)
{
	struct kvs_holes_parts parts = holes_parts(keyspace);
	return (struct memory_pages){
		.expected_bytes = kvs_holes_expected_bytes(&parts),
		.file_bytes = kvs_holes_file_bytes(keyspace->region),
		.exact = keyspace->log.preparing_count == 0 && !keyspace->table.ahead.active &&
			 LIST_EMPTY(&keyspace->stages),
	};
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

// Gives back what the stretch before did not need, a part at a time.
static uint64_t spare_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct memory_return *state = &keyspace->memory_return;
	struct kvs_log *log = &keyspace->log;
	uint32_t spare = kvs_log_spare_count(log);
	state->least = spare < state->least ? spare : state->least;
	if (state->after_ns == 0) {
		state->surplus = 0;
		return UINT64_MAX;
	}
	if (now_ns - state->since_ns >= state->after_ns) {
		uint32_t needless = state->least > PREPARE_AHEAD ? state->least - PREPARE_AHEAD : 0;
		state->surplus = state->since_ns > 0 ? needless : 0;
		state->since_ns = now_ns;
		state->least = spare;
	}
	if (state->surplus > 0 && spare > PREPARE_AHEAD) {
		uint32_t most = earlier(spare - PREPARE_AHEAD, state->surplus);
		uint32_t given = kvs_log_give_back(log, earlier(most, kvs_log_part(log)));
		SEAM_CRASH(memory_given_back);
		keyspace_counter_add(keyspace, KVS_COUNTER_memory_returned_bytes,
				     (uint64_t)given << keyspace->region->segment_shift);
		state->surplus = given > 0 ? state->surplus - given : 0;
		state->least = earlier(state->least, kvs_log_spare_count(log));
		return state->surplus > 0 ? now_ns : state->since_ns + state->after_ns;
	}
	return spare > PREPARE_AHEAD ? state->since_ns + state->after_ns : UINT64_MAX;
}

// A slice of the walk that gives stray pages back.
static uint64_t strays_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct memory_return *state = &keyspace->memory_return;
	struct kvs_holes_parts parts = holes_parts(keyspace);
	uint64_t until_ns = keyspace->seam->monotonic_ns() + RETURN_SLICE_NS;
	uint64_t given = 0;
	for (unsigned i = 0; i < RETURN_STEPS && state->holes_at != UINT64_MAX &&
			     keyspace->seam->monotonic_ns() < until_ns;
	     i++) {
		given += kvs_holes_step(&parts, &state->holes_at);
	}
	state->strays_bytes += given;
	keyspace_counter_add(keyspace, KVS_COUNTER_memory_strays_bytes, given);
	if (state->holes_at != UINT64_MAX) {
		return now_ns;
	}
	if (state->strays_bytes > 0) {
		LOG_AT(LOG_LEVEL_INFO,
		       "gave back %llu bytes of pages where none should be: left by the life "
		       "before, or a process reads the shared memory beyond what is published",
		       (unsigned long long)state->strays_bytes);
	}
	return UINT64_MAX;
}

void memory_return_strays(struct keyspace *keyspace)
{
	struct kvs_holes_parts parts = holes_parts(keyspace);
	for (uint64_t at = 0; at != UINT64_MAX;) {
		(void)kvs_holes_step(&parts, &at);
	}
}

uint64_t memory_return_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct memory_return *state = &keyspace->memory_return;
	struct kvs_log *log = &keyspace->log;
	uint64_t interval_ns =
		earlier(state->after_ns > 0 ? state->after_ns : RETURN_LOOK_NS, RETURN_LOOK_NS);
	// Large values and the table take what segments have populated.
	uint64_t next_ns = kvs_log_trim(log, kvs_log_part(log)) > 0 ? now_ns : UINT64_MAX;
	next_ns = earlier(next_ns, spare_turn(keyspace, now_ns));
	if (keyspace->prefault && log->prepared_count < kvs_log_segments_allowed(log)) {
		next_ns = earlier(next_ns, now_ns + RETURN_FILL_NS);
	}
	if (state->looked_ns == 0) {
		state->looked_ns = now_ns;
		state->holes_at = UINT64_MAX;
	}
	if (state->holes_at == UINT64_MAX && now_ns - state->looked_ns >= interval_ns) {
		struct memory_pages pages = memory_pages(keyspace);
		state->looked_ns = now_ns;
		state->strays_bytes = 0;
		state->holes_at = pages.file_bytes > pages.expected_bytes ? 0 : UINT64_MAX;
	}
	if (state->holes_at != UINT64_MAX) {
		next_ns = earlier(next_ns, strays_turn(keyspace, now_ns));
	}
	// For its own sake only where memory is to go back: what stands still needs no look.
	return state->after_ns > 0 ? earlier(next_ns, state->looked_ns + interval_ns) : next_ns;
}
