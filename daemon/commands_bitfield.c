// SPDX-License-Identifier: MIT
//
// BITFIELD: integers of any width at any bit of a value, read and written by one command. The
// arguments are gone through twice, first for mistakes and for how far the writes reach, then to do
// them, in a copy of just the bytes between the first and the last one written.
#include <stdlib.h>

#include "daemon/bits.h"
#include "daemon/commands.h"

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

/// The value while the operations run: `window` stands for its bytes [start, end).
struct bitfield_state {
	const struct keyspace_value *old;
	unsigned char *window;
	uint64_t start;
	uint64_t end;
	bool grows;
	size_t changes;
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

/// False: an error was answered.
static bool bitfield_plan(struct call *call, struct bitfield_plan *plan)
{
	struct bitfield_op op = { .overflow = BITFIELD_WRAP };
	uint32_t at = 2;
	*plan = (struct bitfield_plan){ .start = UINT64_MAX };
	while (bitfield_next(call, &at, &op)) {
		uint64_t start = op.first / 8;
		uint64_t end = (op.first + op.bits - 1) / 8 + 1;
		plan->count++;
		if (op.verb != BITFIELD_GET) {
			plan->writes = true;
			plan->start = start < plan->start ? start : plan->start;
			plan->end = end > plan->end ? end : plan->end;
		}
	}
	return !call->failed;
}

static uint64_t bitfield_read(const struct bitfield_state *state, const struct bitfield_op *op)
{
	unsigned char bytes[9];
	const unsigned char *old = state->old->value;
	for (unsigned k = 0; k < sizeof(bytes); k++) {
		uint64_t i = op->first / 8 + k;
		if (i >= state->start && i < state->end) {
			bytes[k] = state->window[i - state->start];
		} else {
			bytes[k] = i < state->old->value_bytes ? old[i] : 0;
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
	bits_set(state->window, op->first - state->start * 8, op->bits, (uint64_t)after);
	state->changes += state->grows || before != after;
}

static void bitfield_run(struct call *call, const struct bitfield_plan *plan,
			 struct bitfield_state *state)
{
	struct bitfield_op op = { .overflow = BITFIELD_WRAP };
	uint32_t at = 2;
	reply_array(call->session, plan->count);
	while (bitfield_next(call, &at, &op)) {
		if (op.verb == BITFIELD_GET) {
			reply_integer(call->session,
				      (int64_t)bitfield_as(&op, bitfield_read(state, &op)));
		} else {
			bitfield_write(call, state, &op);
		}
	}
}

/// The operations of a call that writes.
static void bitfield_change(struct call *call, const struct bitfield_plan *plan)
{
	struct keyspace_value old = { 0 };
	uint64_t bytes = plan->end - plan->start;
	if (!commands_length_fits(call, plan->start, bytes)) {
		return;
	}
	if (!commands_peek(call, 1, &old)) {
		old = (struct keyspace_value){ 0 };
	}
	struct bitfield_state state = {
		.old = &old,
		.window = calloc(1, bytes),
		.start = plan->start,
		.end = plan->end,
		.grows = plan->end > old.value_bytes,
	};
	if (!state.window) {
		commands_error(call, COMMANDS_TEXT_OOM);
		return;
	}
	if (plan->start < old.value_bytes) {
		uint64_t there = old.value_bytes - plan->start;
		memcpy(state.window, (const unsigned char *)old.value + plan->start,
		       there < bytes ? there : bytes);
	}
	bitfield_run(call, plan, &state);
	// A value that grew stays grown, even if every operation failed by overflow.
	bool writes = state.grows || state.changes > 0;
	if (writes && commands_overwrite(call, 1, &old, plan->start, state.window, bytes) &&
	    state.changes > 0) {
		commands_event(call, 1, EVENT_STRING, "setbit");
	}
	free(state.window);
}

static void bitfield_both(struct call *call, bool read_only)
{
	struct bitfield_plan plan;
	if (!bitfield_plan(call, &plan)) {
		return;
	}
	if (plan.writes && read_only) {
		commands_error(call, "ERR BITFIELD_RO only supports the GET subcommand");
	} else if (plan.writes) {
		bitfield_change(call, &plan);
	} else {
		struct keyspace_value value = { 0 };
		if (!commands_lookup(call, 1, &value)) {
			value = (struct keyspace_value){ 0 };
		}
		struct bitfield_state state = { .old = &value };
		bitfield_run(call, &plan, &state);
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
