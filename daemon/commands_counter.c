// SPDX-License-Identifier: MIT
//
// Counters: integers and decimal fractions kept as text, as in Redis. A counter keeps its time to
// live.
#include "daemon/commands.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNTER_TEXT_NOT_FLOAT "ERR value is not a valid float"
#define COUNTER_FLOAT_BYTES_MAX 5120u // every finite long double fits, written without exponent

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
	commands_event_new(call, 1);
	int result = keyspace_set(call->kvd->keyspace, key->data, key->bytes, text, bytes,
				  expiry_ms, NULL);
	if (commands_wrote(call, result, bytes)) {
		commands_event(call, 1, EVENT_STRING, "incrby");
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

/// A number as strtold() reads it, hexadecimal and infinite ones too, but nothing around it. What
/// long double is decides the last digits: 64 bits of mantissa on x86-64, 113 on arm64.
static bool counter_float(const void *data, size_t bytes, long double *number)
{
	char text[COUNTER_FLOAT_BYTES_MAX];
	char *end;
	if (bytes == 0 || bytes >= sizeof(text)) {
		return false;
	}
	memcpy(text, data, bytes);
	text[bytes] = 0;
	errno = 0;
	*number = strtold(text, &end);
	bool out_of_range = errno == ERANGE && (isinf(*number) || *number == 0);
	return !isspace((unsigned char)text[0]) && end == text + bytes && !out_of_range &&
	       errno != EINVAL && !isnan(*number);
}

/// Up to 17 digits behind the point, no mere 0 at the end, and no -0. Returns the length.
static size_t counter_float_text(long double number, char text[COUNTER_FLOAT_BYTES_MAX])
{
	int n = snprintf(text, COUNTER_FLOAT_BYTES_MAX, "%.17Lf", number);
	size_t bytes = n > 0 && (unsigned)n < COUNTER_FLOAT_BYTES_MAX ? (size_t)n : 0;
	if (memchr(text, '.', bytes) != NULL) {
		while (bytes > 0 && text[bytes - 1] == '0') {
			bytes--;
		}
		bytes -= bytes > 0 && text[bytes - 1] == '.';
	}
	if (bytes == 2 && memcmp(text, "-0", 2) == 0) {
		text[0] = '0';
		bytes = 1;
	}
	return bytes;
}

void commands_counter_incrbyfloat(struct call *call)
{
	const struct resp_arg *key = &call->argv[1];
	struct keyspace_value old = { 0 };
	long double number = 0;
	long double by;
	if (!commands_peek(call, 1, &old)) {
		old = (struct keyspace_value){ 0 };
	} else if (!counter_float(old.value, old.value_bytes, &number)) {
		commands_error(call, COUNTER_TEXT_NOT_FLOAT);
		return;
	}
	if (!counter_float(call->argv[2].data, call->argv[2].bytes, &by)) {
		commands_error(call, COUNTER_TEXT_NOT_FLOAT);
		return;
	}
	number += by;
	if (isnan(number) || isinf(number)) {
		commands_error(call, "ERR increment would produce NaN or Infinity");
		return;
	}
	char text[COUNTER_FLOAT_BYTES_MAX];
	size_t bytes = counter_float_text(number, text);
	commands_event_new(call, 1);
	int result = keyspace_set(call->kvd->keyspace, key->data, key->bytes, text, bytes,
				  old.expiry_ms, NULL);
	if (commands_wrote(call, result, bytes)) {
		commands_event(call, 1, EVENT_STRING, "incrbyfloat");
		reply_bulk(call->session, text, bytes);
	}
}
