// SPDX-License-Identifier: MIT
//
// Counters: integers kept as decimal text, as in Redis. A counter keeps its time to live.
#include "daemon/commands.h"

static void counter_add(struct call *call, int64_t by)
{
	struct keyspace_value old;
	int64_t number = 0;
	uint64_t expiry_ms = 0;
	if (commands_peek(call, 1, &old)) {
		if (!resp_parse_int(old.value, old.value_bytes, &number)) {
			commands_error(call, COMMANDS_TEXT_NOT_INTEGER);
			return;
		}
		expiry_ms = old.expiry_ms;
	}
	if (__builtin_add_overflow(number, by, &number)) {
		commands_error(call, "ERR increment or decrement would overflow");
		return;
	}
	char text[RESP_NUMBER_BYTES_MAX];
	size_t bytes = resp_format_int(text, number);
	const struct resp_arg *key = &call->argv[1];
	int result = keyspace_set(call->kvd->keyspace, key->data, key->bytes, text, bytes,
				  expiry_ms, NULL);
	if (commands_wrote(call, result, bytes)) {
		reply_integer(call->session, number);
	}
}

void commands_counter_incr(struct call *call)
{
	counter_add(call, 1);
}

void commands_counter_decr(struct call *call)
{
	counter_add(call, -1);
}

void commands_counter_incrby(struct call *call)
{
	int64_t by;
	if (commands_arg_int(call, &call->argv[2], &by, NULL)) {
		counter_add(call, by);
	}
}

void commands_counter_decrby(struct call *call)
{
	int64_t by;
	if (!commands_arg_int(call, &call->argv[2], &by, NULL)) {
		return;
	}
	if (by == INT64_MIN) {
		commands_error(call, "ERR decrement would overflow");
		return;
	}
	counter_add(call, -by);
}
