// SPDX-License-Identifier: MIT
//
// LCS: the longest common subsequence of two values. The work is in lcs.c; here are the options,
// the bound that Redis puts on the memory it would take, and the slices: both values are those of
// the first.
#include <stdlib.h>

#include "daemon/commands.h"
#include "daemon/commands_slice.h"
#include "daemon/lcs.h"
#include "daemon/session_task.h"

#define LCS_WORDS_A_STEP (UINT64_C(8) << 10) // some 15 us

struct lcs_options {
	bool length;
	bool index;
	bool with_lengths;
	int64_t shortest;
};

static bool lcs_parse(struct call *call, struct lcs_options *options)
{
	*options = (struct lcs_options){ 0 };
	for (uint32_t i = 3; i < call->argc; i++) {
		const struct resp_arg *word = &call->argv[i];
		if (commands_arg_is(word, "idx")) {
			options->index = true;
		} else if (commands_arg_is(word, "len")) {
			options->length = true;
		} else if (commands_arg_is(word, "withmatchlen")) {
			options->with_lengths = true;
		} else if (commands_arg_is(word, "minmatchlen") && i + 1 < call->argc) {
			if (!commands_arg_int(call, &call->argv[++i], &options->shortest, NULL)) {
				return false;
			}
		} else {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return false;
		}
	}
	if (options->length && options->index) {
		commands_error(call, "ERR If you want both the length and indexes, please just use "
				     "IDX.");
		return false;
	}
	return true;
}

enum lcs_call_phase { LCS_CALL_ROWS, LCS_CALL_WALK };

/// How far a call has come.
struct lcs_call {
	struct session *session;
	struct lcs_options options;
	enum lcs_call_phase phase;
	struct slice_bytes a; // empty if the work is too little to be cut
	struct slice_bytes b;
	struct lcs *lcs;
	size_t charged;
	unsigned char *subsequence;
	uint64_t count_at; // of the reply: where the number of matches goes
	size_t count;
};

static void lcs_reply_pair(struct session *session, uint32_t start, uint32_t length)
{
	reply_array(session, 2);
	reply_integer(session, start);
	reply_integer(session, (int64_t)start + length - 1);
}

static void lcs_reply_match(void *context, const struct lcs_range *range)
{
	struct lcs_call *state = context;
	if ((int64_t)range->length < state->options.shortest) {
		return;
	}
	state->count++;
	reply_array(state->session, state->options.with_lengths ? 3 : 2);
	lcs_reply_pair(state->session, range->a, range->length);
	lcs_reply_pair(state->session, range->b, range->length);
	if (state->options.with_lengths) {
		reply_integer(state->session, range->length);
	}
}

static void lcs_call_free(void *context)
{
	struct lcs_call *state = context;
	lcs_free(state->lcs);
	slice_bytes_drop(state->session, &state->a);
	slice_bytes_drop(state->session, &state->b);
	session_task_uncharge(state->session, state->charged);
	free(state->subsequence);
	free(state);
}

static void lcs_short(struct call *call)
{
	commands_error(call, "ERR Insufficient memory, failed allocating transient memory for LCS");
}

/// Begins the part of the reply that the way back makes. False: there is none, or an error was
/// answered.
static bool lcs_begin_walk(struct call *call, struct lcs_call *state)
{
	struct session *session = call->session;
	uint32_t length = lcs_length(state->lcs);
	if (lcs_failed(state->lcs)) {
		lcs_short(call);
		return false;
	}
	if (state->options.length) {
		reply_integer(session, length);
		return false;
	}
	state->phase = LCS_CALL_WALK;
	if (state->options.index) {
		reply_map(session, 2);
		reply_text(session, "matches");
		state->count_at = reply_deferred_begin(session) - call->mark;
		return true;
	}
	state->subsequence = malloc((size_t)length + 1);
	if (!state->subsequence) {
		commands_error(call, COMMANDS_TEXT_OOM);
	}
	return state->subsequence != NULL;
}

static void lcs_end_walk(struct call *call, struct lcs_call *state)
{
	uint32_t length = lcs_length(state->lcs);
	if (state->options.index) {
		reply_deferred_end(call->session, call->mark + state->count_at, state->count);
		reply_text(call->session, "len");
		reply_integer(call->session, length);
	} else {
		reply_bulk(call->session, state->subsequence, length);
	}
}

/// The next slice, or all of it.
static void lcs_go(struct call *call, struct lcs_call *state)
{
	while (state->phase == LCS_CALL_ROWS && lcs_step(state->lcs, LCS_WORDS_A_STEP)) {
		call->again = state->charged > 0 && commands_slice_over(call);
		if (call->again) {
			return;
		}
	}
	if (state->phase == LCS_CALL_ROWS && !lcs_begin_walk(call, state)) {
		return;
	}
	void (*visit)(void *, const struct lcs_range *) =
		state->options.index ? lcs_reply_match : NULL;
	while (lcs_walk(state->lcs, LCS_WORDS_A_STEP, state->subsequence, visit, state)) {
		call->again = state->charged > 0 && commands_slice_over(call);
		if (call->again) {
			return;
		}
	}
	lcs_end_walk(call, state);
}

/// Lets both values outlast the slice. False if memory is short.
static bool lcs_hold(struct call *call, struct lcs_call *state, struct keyspace_value *a,
		     struct keyspace_value *b)
{
	uint64_t rows = state->options.length ? 1 : a->value_bytes;
	uint64_t masks = a->value_bytes < 256 ? a->value_bytes : 256;
	size_t bytes = (rows + masks + 1) * (b->value_bytes / 64 + 1) * sizeof(uint64_t);
	if (!session_task_charge(call->session, bytes)) {
		return false;
	}
	state->charged = bytes;
	if (!slice_bytes_take(call->session, a, &state->a) ||
	    !slice_bytes_take(call->session, b, &state->b)) {
		return false;
	}
	a->value = state->a.data;
	b->value = state->b.data;
	return true;
}

/// What is found again was not removed by looking for the other.
static void lcs_look(struct call *call, struct keyspace_value *a, struct keyspace_value *b)
{
	if (!commands_peek(call, 1, a)) {
		*a = (struct keyspace_value){ 0 };
	}
	if (!commands_peek(call, 2, b)) {
		*b = (struct keyspace_value){ 0 };
	}
}

static void lcs_begin_call(struct call *call, const struct lcs_options *options)
{
	struct keyspace_value a;
	struct keyspace_value b;
	lcs_look(call, &a, &b);
	struct lcs_call *state = calloc(1, sizeof(*state));
	if (!state) {
		lcs_short(call);
		return;
	}
	state->session = call->session;
	state->options = *options;
	// a is gone through once for each word of b, and both are byte by byte.
	uint64_t words = a.value_bytes * (b.value_bytes / 64 + 2) + b.value_bytes;
	bool held =
		call->until_ns == 0 || words <= LCS_WORDS_A_STEP || lcs_hold(call, state, &a, &b);
	if (held) {
		state->lcs =
			lcs_begin(a.value, a.value_bytes, b.value, b.value_bytes, !options->length);
	}
	if (state->lcs) {
		lcs_go(call, state);
	} else if (!call->session->dead) {
		lcs_short(call);
	}
	if (!call->again) {
		lcs_call_free(state);
		return;
	}
	call->state = state;
	call->state_free = lcs_call_free;
}

void commands_lcs_lcs(struct call *call)
{
	struct keyspace_value a;
	struct keyspace_value b;
	struct lcs_options options;
	if (call->state) {
		lcs_go(call, call->state);
		return;
	}
	size_t a_bytes = commands_lookup(call, 1, &a) ? a.value_bytes : 0;
	size_t b_bytes = commands_lookup(call, 2, &b) ? b.value_bytes : 0;
	if (!lcs_parse(call, &options)) {
		return;
	}
	// Redis's table of 32-bit numbers, whose size it bounds; ours is a 32nd of it.
	uint64_t table_bytes = ((uint64_t)a_bytes + 1) * (b_bytes + 1) * 4;
	if (table_bytes > keyspace_value_bytes_max(call->kvd->keyspace)) {
		commands_error(call, "ERR Insufficient memory, transient memory for LCS exceeds "
				     "proto-max-bulk-len");
		return;
	}
	lcs_begin_call(call, &options);
}
