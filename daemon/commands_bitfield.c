// SPDX-License-Identifier: MIT
//
// BITFIELD: integers of any width at any bit of a value, read and written by one command. The
// arguments are gone through twice, first for mistakes and for how far the writes reach, then to do
// them, in a copy of just the bytes between the first and the last one written. Many operations, or
// a long copy, are done in slices; all are done to the same version of the value.
#include <stdlib.h>

#include "daemon/bits.h"
#include "daemon/commands.h"
#include "daemon/commands_slice.h"
#include "daemon/session_task.h"

#define BITFIELD_OPS_A_LOOK 64u // done between two looks at the clock

#define BITFIELD_TEXT_OFFSET "ERR bit offset is not an integer or out of range"
#define BITFIELD_TEXT_TYPE                                                                      \
	"ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported " \
	"but i64 is."

enum bitfield_verb { BITFIELD_GET, BITFIELD_SET, BITFIELD_INCRBY };
enum bitfield_overflow { BITFIELD_WRAP, BITFIELD_SAT, BITFIELD_FAIL };

struct bitfield_op {
	enum bitfield_verb verb;
	enum bitfield_overflow overflow;
	bool is_signed;
	unsigned bits;
	uint64_t first; // bit
	int64_t number; // to set or to add
};

/// What all operations of a call are together.
struct bitfield_plan {
	size_t count;
	bool writes;
	uint64_t start; // bytes that writes touch
	uint64_t end;
};

enum bitfield_phase { BITFIELD_PLAN, BITFIELD_LOOK, BITFIELD_FILL, BITFIELD_RUN, BITFIELD_STORE };

/// How far a call has come. While the operations run, `window` stands for the bytes [start, end) of
/// the value that the plan names.
struct bitfield_state {
	struct session *session;
	bool read_only;
	enum bitfield_phase phase;
	struct bitfield_plan plan;
	struct bitfield_op op; // the last one; it hands its kind of overflow on
	uint32_t at;	       // argument behind it
	struct keyspace_value old;
	struct slice_bytes bytes; // of `old`, when it is only read
	unsigned char *window;
	uint64_t filled;
	bool grows;
	size_t changes;
	unsigned restarts;
};

static bool bitfield_type(struct call *call, const struct resp_arg *arg, struct bitfield_op *op)
{
	int64_t bits = 0;
	char sign = arg->bytes > 0 ? arg->data[0] : 0;
	op->is_signed = sign == 'i';
	if ((sign != 'i' && sign != 'u') || !resp_parse_int(arg->data + 1, arg->bytes - 1, &bits) ||
	    bits < 1 || bits > (op->is_signed ? 64 : 63)) {
		commands_error(call, BITFIELD_TEXT_TYPE);
		return false;
	}
	op->bits = (unsigned)bits;
	return true;
}

/// A bit, or "#n": so many integers of this width.
static bool bitfield_offset(struct call *call, const struct resp_arg *arg, struct bitfield_op *op)
{
	size_t hash = arg->bytes > 0 && arg->data[0] == '#';
	uint64_t limit = keyspace_value_bytes_max(call->kvd->keyspace);
	int64_t first;
	if (!resp_parse_int(arg->data + hash, arg->bytes - hash, &first) ||
	    (hash && __builtin_mul_overflow(first, (int64_t)op->bits, &first)) || first < 0 ||
	    (uint64_t)first / 8 >= limit) {
		commands_error(call, BITFIELD_TEXT_OFFSET);
		return false;
	}
	op->first = (uint64_t)first;
	return true;
}

static bool bitfield_overflow(struct call *call, const struct resp_arg *arg, struct bitfield_op *op)
{
	static const char *const names[] = { "wrap", "sat", "fail" };
	for (unsigned i = 0; i < 3; i++) {
		if (commands_arg_is(arg, names[i])) {
			op->overflow = (enum bitfield_overflow)i;
			return true;
		}
	}
	commands_error(call, "ERR Invalid OVERFLOW type specified");
	return false;
}

/// Reads the operation at argument *at into `op`, which keeps the kind of overflow from the ones
/// before, and moves *at behind it. False at the end, or if an error was answered.
static bool bitfield_next(struct call *call, uint32_t *at, struct bitfield_op *op)
{
	while (*at < call->argc) {
		const struct resp_arg *word = &call->argv[*at];
		uint32_t left = call->argc - *at - 1;
		if (commands_arg_is(word, "overflow") && left >= 1) {
			if (!bitfield_overflow(call, word + 1, op)) {
				return false;
			}
			*at += 2;
			continue;
		}
		if (commands_arg_is(word, "get") && left >= 2) {
			op->verb = BITFIELD_GET;
		} else if (commands_arg_is(word, "set") && left >= 3) {
			op->verb = BITFIELD_SET;
		} else if (commands_arg_is(word, "incrby") && left >= 3) {
			op->verb = BITFIELD_INCRBY;
		} else {
			commands_error(call, COMMANDS_TEXT_SYNTAX);
			return false;
		}
		if (!bitfield_type(call, word + 1, op) || !bitfield_offset(call, word + 2, op) ||
		    (op->verb != BITFIELD_GET &&
		     !commands_arg_int(call, word + 3, &op->number, NULL))) {
			return false;
		}
		*at += op->verb == BITFIELD_GET ? 3 : 4;
		return true;
	}
	return false;
}

/// Is the slice over? Then the call returns at once.
static bool bitfield_cut(struct call *call)
{
	call->again = commands_slice_over(call);
	return call->again;
}

/// False: an error was answered, or it goes on in the next slice.
static bool bitfield_plan(struct call *call, struct bitfield_state *state)
{
	struct bitfield_plan *plan = &state->plan;
	while (bitfield_next(call, &state->at, &state->op)) {
		const struct bitfield_op *op = &state->op;
		uint64_t start = op->first / 8;
		uint64_t end = (op->first + op->bits - 1) / 8 + 1;
		plan->count++;
		if (op->verb != BITFIELD_GET) {
			plan->writes = true;
			plan->start = start < plan->start ? start : plan->start;
			plan->end = end > plan->end ? end : plan->end;
		}
		if (plan->count % BITFIELD_OPS_A_LOOK == 0 && bitfield_cut(call)) {
			return false;
		}
	}
	state->phase = BITFIELD_LOOK;
	return !call->failed;
}

static uint64_t bitfield_read(const struct bitfield_state *state, const struct bitfield_op *op)
{
	unsigned char bytes[9];
	const unsigned char *old = state->old.value;
	for (unsigned k = 0; k < sizeof(bytes); k++) {
		uint64_t i = op->first / 8 + k;
		if (state->window && i >= state->plan.start && i < state->plan.end) {
			bytes[k] = state->window[i - state->plan.start];
		} else {
			bytes[k] = i < state->old.value_bytes ? old[i] : 0;
		}
	}
	return bits_get(bytes, sizeof(bytes), op->first % 8, op->bits);
}

__extension__ typedef __int128 bitfield_wide; // holds every sum, so that overflow is a comparison

/// The low bits of a number, as the operation's type reads them.
static bitfield_wide bitfield_as(const struct bitfield_op *op, uint64_t number)
{
	unsigned unused = 64 - op->bits;
	return op->is_signed ? (bitfield_wide)((int64_t)(number << unused) >> unused)
			     : (bitfield_wide)(number << unused >> unused);
}

static void bitfield_write(struct call *call, struct bitfield_state *state,
			   const struct bitfield_op *op)
{
	bitfield_wide most = ((bitfield_wide)1 << (op->is_signed ? op->bits - 1 : op->bits)) - 1;
	bitfield_wide least = op->is_signed ? -most - 1 : 0;
	bitfield_wide before = bitfield_as(op, bitfield_read(state, op));
	bitfield_wide after =
		op->is_signed ? (bitfield_wide)op->number : (bitfield_wide)(uint64_t)op->number;
	if (op->verb == BITFIELD_INCRBY) {
		after = before + op->number;
	}
	if (after > most || after < least) {
		if (op->overflow == BITFIELD_FAIL) {
			reply_null(call->session);
			return;
		}
		if (op->overflow == BITFIELD_SAT) {
			// So far below that the distance overflows counts as above, as in Redis.
			bool far = op->verb == BITFIELD_SET && most - after > INT64_MAX;
			after = after > most || far ? most : least;
		} else {
			after = bitfield_as(op, (uint64_t)after);
		}
	}
	reply_integer(call->session, (int64_t)(op->verb == BITFIELD_SET ? before : after));
	bits_set(state->window, op->first - state->plan.start * 8, op->bits, (uint64_t)after);
	state->changes += state->grows || before != after;
}

/// Does the operations, and answers them. False: it goes on in the next slice.
static bool bitfield_run(struct call *call, struct bitfield_state *state)
{
	for (unsigned count = 1; bitfield_next(call, &state->at, &state->op); count++) {
		const struct bitfield_op *op = &state->op;
		if (op->verb == BITFIELD_GET) {
			reply_integer(call->session,
				      (int64_t)bitfield_as(op, bitfield_read(state, op)));
		} else {
			bitfield_write(call, state, op);
		}
		if (count % BITFIELD_OPS_A_LOOK == 0 && bitfield_cut(call)) {
			return false;
		}
	}
	return true;
}

/// Before the first operation: it is the next to be read.
static void bitfield_rewind(struct bitfield_state *state)
{
	state->op = (struct bitfield_op){ .overflow = BITFIELD_WRAP };
	state->at = 2;
}

static void bitfield_begin_run(struct call *call, struct bitfield_state *state)
{
	state->phase = BITFIELD_RUN;
	bitfield_rewind(state);
	reply_array(call->session, state->plan.count);
}

/// The operations of a call that only reads.
static void bitfield_get(struct call *call, struct bitfield_state *state)
{
	if (state->phase == BITFIELD_LOOK) {
		if (!commands_lookup(call, 1, &state->old)) {
			state->old = (struct keyspace_value){ 0 };
		}
		bitfield_begin_run(call, state);
	}
	(void)bitfield_run(call, state);
}

/// The value as it is now. If it is not the one that was worked on, all begins anew; where that
/// happens again and again the last time is not cut.
static void bitfield_look(struct call *call, struct bitfield_state *state)
{
	struct session *session = call->session;
	struct keyspace_value now;
	if (!commands_peek(call, 1, &now)) {
		now = (struct keyspace_value){ 0 };
	}
	if (state->phase > BITFIELD_LOOK && now.seq != state->old.seq) {
		commands_reply_rewind(session, call->mark);
		keyspace_stage_drop(call->kvd->keyspace, session->id);
		state->phase = BITFIELD_LOOK;
		state->restarts++;
	}
	if (state->restarts >= COMMANDS_SLICE_RESTARTS_MAX) {
		call->until_ns = 0;
	}
	if (state->phase == BITFIELD_LOOK) {
		state->phase = BITFIELD_FILL;
		state->filled = 0;
		state->changes = 0;
	}
	state->old = now;
	state->grows = state->plan.end > now.value_bytes;
}

/// Fills the window with what the value has there. False: it goes on in the next slice, or an error
/// was answered.
static bool bitfield_fill(struct call *call, struct bitfield_state *state)
{
	uint64_t start = state->plan.start;
	uint64_t all = state->plan.end - start;
	if (!state->window) {
		state->window = session_task_alloc(call->session, all);
	}
	if (!state->window) {
		commands_error(call, COMMANDS_TEXT_OOM);
		return false;
	}
	while (state->filled < all) {
		uint64_t at = start + state->filled;
		uint64_t bytes = all - state->filled;
		bytes = bytes < COMMANDS_SLICE_BYTES ? bytes : COMMANDS_SLICE_BYTES;
		uint64_t there = at < state->old.value_bytes ? state->old.value_bytes - at : 0;
		there = there < bytes ? there : bytes;
		unsigned char *to = state->window + state->filled;
		if (there > 0) {
			memcpy(to, (const unsigned char *)state->old.value + at, there);
		}
		memset(to + there, 0, bytes - there);
		state->filled += bytes;
		if (state->filled < all && bitfield_cut(call)) {
			return false;
		}
	}
	return true;
}

/// Writes what has become of the window. The replies are there already and stay while a large value
/// is copied.
static void bitfield_store(struct call *call, struct bitfield_state *state)
{
	struct session *session = call->session;
	// A value that grew stays grown, even if every operation failed by overflow.
	if (!state->grows && state->changes == 0) {
		return;
	}
	uint64_t mark = call->mark;
	size_t bytes = state->plan.end - state->plan.start;
	if (state->old.value_bytes <= keyspace_value_bytes_max(call->kvd->keyspace)) {
		call->mark = commands_reply_mark(session);
	} // else only the error is answered
	commands_slice_write_begin(call, state->window, bytes);
	bool wrote =
		commands_overwrite(call, 1, &state->old, state->plan.start, state->window, bytes);
	commands_slice_write_end(call);
	call->mark = mark;
	if (wrote && state->changes > 0) {
		commands_event(call, 1, EVENT_STRING, "setbit");
	}
	call->again = call->refused == KEYSPACE_AGAIN;
	if (call->refused && !call->again) {
		commands_reply_rewind(session, mark);
	}
}

/// The operations of a call that writes.
static void bitfield_change(struct call *call, struct bitfield_state *state)
{
	const struct bitfield_plan *plan = &state->plan;
	if (!state->window && !commands_length_fits(call, plan->start, plan->end - plan->start)) {
		return;
	}
	bitfield_look(call, state);
	if (state->phase == BITFIELD_FILL) {
		if (!bitfield_fill(call, state)) {
			return;
		}
		bitfield_begin_run(call, state);
	}
	if (state->phase == BITFIELD_RUN) {
		if (!bitfield_run(call, state)) {
			return;
		}
		state->phase = BITFIELD_STORE;
	}
	bitfield_store(call, state);
}

/// The next slice, or all of it.
static void bitfield_go(struct call *call, struct bitfield_state *state)
{
	if (state->phase == BITFIELD_PLAN && !bitfield_plan(call, state)) {
		return;
	}
	if (!state->plan.writes) {
		bitfield_get(call, state);
	} else if (state->read_only) {
		commands_error(call, "ERR BITFIELD_RO only supports the GET subcommand");
	} else {
		bitfield_change(call, state);
	}
}

static void bitfield_release(struct bitfield_state *state)
{
	session_task_free(state->session, state->window, state->plan.end - state->plan.start);
	slice_bytes_drop(state->session, &state->bytes);
}

static void bitfield_free(void *state)
{
	bitfield_release(state);
	free(state);
}

/// Keeps what was done until the next slice, with the value if it is only read. False if memory is
/// short.
static bool bitfield_keep(struct call *call, struct bitfield_state *state)
{
	bool reads = state->phase == BITFIELD_RUN && !state->plan.writes;
	if (reads && !state->bytes.data) {
		if (!slice_bytes_take(call->session, &state->old, &state->bytes)) {
			return false;
		}
		state->old.value = state->bytes.data;
	}
	if (!call->state) {
		struct bitfield_state *kept = malloc(sizeof(*kept));
		if (!kept) {
			return false;
		}
		*kept = *state;
		call->state = kept;
		call->state_free = bitfield_free;
	}
	return true;
}

static void bitfield_both(struct call *call, bool read_only)
{
	struct bitfield_state fresh = {
		.session = call->session,
		.read_only = read_only,
		.plan = { .start = UINT64_MAX },
	};
	struct bitfield_state *state = call->state ? call->state : &fresh;
	if (state == &fresh) {
		bitfield_rewind(state);
	}
	bitfield_go(call, state);
	bool kept = call->again && bitfield_keep(call, state);
	if (call->again && !kept) {
		commands_slice_fail(call);
	}
	if (!kept && state == &fresh) {
		bitfield_release(state);
	}
}

void commands_bitfield_bitfield(struct call *call)
{
	bitfield_both(call, false);
}

void commands_bitfield_ro(struct call *call)
{
	bitfield_both(call, true);
}
