// SPDX-License-Identifier: MIT
//
// Values as strings of bits: SETBIT, GETBIT, BITCOUNT, BITPOS. In which order arguments and key are
// looked at differs from one to the other, as in Redis. Long stretches are gone through in slices,
// all of them of the value as it was when the command began.
#include <stdlib.h>

#include "daemon/bits.h"
#include "daemon/commands.h"
#include "daemon/commands_slice.h"

#define BIT_TEXT_OFFSET "ERR bit offset is not an integer or out of range"
#define BIT_TEXT_VALUE "ERR bit is not an integer or out of range"

static bool bit_offset(struct call *call, const struct resp_arg *arg, uint64_t *offset)
{
	int64_t number;
	if (!commands_arg_int(call, arg, &number, BIT_TEXT_OFFSET)) {
		return false;
	}
	uint64_t limit = keyspace_value_bytes_max(call->kvd->keyspace);
	if (number < 0 || (uint64_t)number / 8 >= limit) {
		commands_error(call, BIT_TEXT_OFFSET);
		return false;
	}
	*offset = (uint64_t)number;
	return true;
}

void commands_bit_setbit(struct call *call)
{
	struct keyspace_value old = { 0 };
	uint64_t offset;
	int64_t bit;
	if (!bit_offset(call, &call->argv[2], &offset) ||
	    !commands_arg_int(call, &call->argv[3], &bit, BIT_TEXT_VALUE)) {
		return;
	}
	if (bit != 0 && bit != 1) {
		commands_error(call, BIT_TEXT_VALUE);
		return;
	}
	if (!commands_peek(call, 1, &old)) {
		old = (struct keyspace_value){ 0 };
	}
	bool grows = offset / 8 >= old.value_bytes;
	unsigned char byte = grows ? 0 : ((const unsigned char *)old.value)[offset / 8];
	uint64_t before = bits_get(&byte, 1, offset % 8, 1);
	bits_set(&byte, offset % 8, 1, (uint64_t)bit);
	// What says the same already is not written again.
	if (grows || before != (uint64_t)bit) {
		if (!commands_overwrite(call, 1, &old, offset / 8, &byte, 1)) {
			return;
		}
		commands_event(call, 1, EVENT_STRING, "setbit");
	}
	reply_integer(call->session, (int64_t)before);
}

void commands_bit_getbit(struct call *call)
{
	struct keyspace_value value;
	uint64_t offset;
	if (!bit_offset(call, &call->argv[2], &offset)) {
		return;
	}
	bool found = commands_lookup(call, 1, &value);
	reply_integer(call->session,
		      found ? (int64_t)bits_get(value.value, value.value_bytes, offset, 1) : 0);
}

/// BIT or BYTE; false: the error was answered.
static bool bit_unit(struct call *call, const struct resp_arg *arg, bool *in_bits)
{
	*in_bits = commands_arg_is(arg, "bit");
	if (*in_bits || commands_arg_is(arg, "byte")) {
		return true;
	}
	commands_error(call, COMMANDS_TEXT_SYNTAX);
	return false;
}

/// The bits of a value between start and end, which count bytes or bits; false if there are none.
static bool bit_range(const struct keyspace_value *value, bool in_bits, int64_t start, int64_t end,
		      int64_t *first, int64_t *last)
{
	int64_t length = (int64_t)value->value_bytes;
	if (!commands_range_settle(start, end, in_bits ? length * 8 : length, first, last)) {
		return false;
	}
	if (!in_bits) {
		*first *= 8;
		*last = *last * 8 + 7;
	}
	return true;
}

/// A walk over the bits from `at` up to and including `last`.
struct bit_walk {
	struct session *session;
	struct slice_bytes bytes; // empty until it is cut for the first time
	const unsigned char *data;
	uint64_t at;
	uint64_t last;
	uint64_t count; // of those that are 1
	bool finds;	// the first that is `bit`, instead of counting
	bool bit;
	bool open_ended; // zeroes follow the last one
};

static void bit_walk_free(void *state)
{
	struct bit_walk *walk = state;
	slice_bytes_drop(walk->session, &walk->bytes);
	free(walk);
}

/// Keeps a walk over `value` until the next slice. False if memory is short: it is not cut then.
static bool bit_walk_keep(struct call *call, const struct bit_walk *walk,
			  const struct keyspace_value *value)
{
	struct bit_walk *kept = malloc(sizeof(*kept));
	if (!kept) {
		return false;
	}
	*kept = *walk;
	if (!slice_bytes_take(call->session, value, &kept->bytes)) {
		free(kept);
		return false;
	}
	kept->data = kept->bytes.data;
	call->state = kept;
	call->state_free = bit_walk_free;
	return true;
}

/// The next stretch; true if the result is known then.
static bool bit_walk_step(struct bit_walk *walk, int64_t *result)
{
	uint64_t bits = COMMANDS_SLICE_BYTES * UINT64_C(8);
	uint64_t last = walk->last - walk->at < bits ? walk->last : walk->at + bits - 1;
	int64_t found = -1;
	if (walk->finds) {
		found = bits_find(walk->data, walk->at, last, walk->bit);
	} else {
		walk->count += bits_count(walk->data, walk->at, last);
	}
	walk->at = last + 1;
	if (found < 0 && last != walk->last) {
		return false;
	}
	*result = walk->finds ? found : (int64_t)walk->count;
	if (found < 0 && walk->open_ended) {
		*result = (int64_t)walk->last + 1;
	}
	return true;
}

/// Goes on until the walk or the slice is over; `value` is what is walked over in the first one.
static void bit_walk_go(struct call *call, struct bit_walk *walk,
			const struct keyspace_value *value)
{
	int64_t result = 0;
	bool cut = call->until_ns != 0;
	while (!bit_walk_step(walk, &result)) {
		if (cut && commands_slice_over(call)) {
			call->again = call->state || bit_walk_keep(call, walk, value);
			if (call->again || call->session->dead) {
				return;
			}
			cut = false;
		}
	}
	reply_integer(call->session, result);
}

void commands_bit_bitcount(struct call *call)
{
	if (call->state) {
		bit_walk_go(call, call->state, NULL);
		return;
	}
	struct keyspace_value value;
	int64_t start = 0;
	int64_t end = -1;
	bool in_bits = false;
	if (!commands_lookup(call, 1, &value)) {
		reply_integer(call->session, 0); // whatever the other arguments are
		return;
	}
	if (call->argc == 3 || call->argc > 5) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return;
	}
	if (call->argc > 3) {
		if (!commands_arg_int(call, &call->argv[2], &start, NULL) ||
		    !commands_arg_int(call, &call->argv[3], &end, NULL)) {
			return;
		}
		if (start < 0 && end < 0 && start > end) {
			reply_integer(call->session, 0);
			return;
		}
		if (call->argc == 5 && !bit_unit(call, &call->argv[4], &in_bits)) {
			return;
		}
	}
	int64_t first;
	int64_t last;
	if (!bit_range(&value, in_bits, start, end, &first, &last)) {
		reply_integer(call->session, 0);
		return;
	}
	struct bit_walk walk = {
		.session = call->session,
		.data = value.value,
		.at = (uint64_t)first,
		.last = (uint64_t)last,
	};
	bit_walk_go(call, &walk, &value);
}

void commands_bit_bitpos(struct call *call)
{
	if (call->state) {
		bit_walk_go(call, call->state, NULL);
		return;
	}
	struct keyspace_value value;
	int64_t bit;
	int64_t start = 0;
	int64_t end = -1;
	bool in_bits = false;
	if (!commands_arg_int(call, &call->argv[2], &bit, NULL)) {
		return;
	}
	if (bit != 0 && bit != 1) {
		commands_error(call, "ERR The bit argument must be 1 or 0.");
		return;
	}
	if (!commands_lookup(call, 1, &value)) {
		reply_integer(call->session, bit ? -1 : 0); // zeroes without end
		return;
	}
	if (call->argc > 6) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return;
	}
	if ((call->argc > 3 && !commands_arg_int(call, &call->argv[3], &start, NULL)) ||
	    (call->argc > 5 && !bit_unit(call, &call->argv[5], &in_bits)) ||
	    (call->argc > 4 && !commands_arg_int(call, &call->argv[4], &end, NULL))) {
		return;
	}
	int64_t first;
	int64_t last;
	if (!bit_range(&value, in_bits, start, end, &first, &last)) {
		reply_integer(call->session, -1);
		return;
	}
	struct bit_walk walk = {
		.session = call->session,
		.data = value.value,
		.at = (uint64_t)first,
		.last = (uint64_t)last,
		.finds = true,
		.bit = bit == 1,
		.open_ended = bit == 0 && call->argc < 5, // without an end zeroes follow the value
	};
	bit_walk_go(call, &walk, &value);
}
