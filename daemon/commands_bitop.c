// SPDX-License-Identifier: MIT
//
// BITOP: values combined bit by bit into another. Shorter ones, and keys that are absent, count as
// if zeroes followed.
#include <stdlib.h>

#include "daemon/commands.h"

#define BITOP_FIRST_SOURCE 3u

enum bitop { BITOP_AND, BITOP_OR, BITOP_XOR, BITOP_NOT };

static bool bitop_parse(struct call *call, enum bitop *op)
{
	static const char *const names[] = { "and", "or", "xor", "not" };
	unsigned i = 0;
	while (i < 4 && !commands_arg_is(&call->argv[1], names[i])) {
		i++;
	}
	if (i == 4) {
		commands_error(call, COMMANDS_TEXT_SYNTAX);
		return false;
	}
	*op = (enum bitop)i;
	if (*op == BITOP_NOT && call->argc != 4) {
		commands_error(call, "ERR BITOP NOT must be called with a single source key.");
		return false;
	}
	return true;
}

static inline __attribute__((always_inline)) uint64_t bitop_word(enum bitop op, uint64_t a,
								 uint64_t b)
{
	switch (op) {
	case BITOP_AND:
		return a & b;
	case BITOP_OR:
		return a | b;
	case BITOP_XOR:
		return a ^ b;
	default:
		return ~b;
	}
}

/// A word at a time; each operation gets a loop of its own, since `op` is known where it is called.
static inline __attribute__((always_inline)) void
bitop_each(enum bitop op, unsigned char *to, const unsigned char *from, size_t bytes)
{
	size_t i = 0;
	for (; bytes - i >= sizeof(uint64_t); i += sizeof(uint64_t)) {
		uint64_t a;
		uint64_t b;
		memcpy(&a, to + i, sizeof(a));
		memcpy(&b, from + i, sizeof(b));
		a = bitop_word(op, a, b);
		memcpy(to + i, &a, sizeof(a));
	}
	for (; i < bytes; i++) {
		to[i] = (unsigned char)bitop_word(op, to[i], from[i]);
	}
}

/// One source into the result, whose `length` bytes are what the sources before it gave.
static void bitop_combine(enum bitop op, unsigned char *to, size_t length,
			  const unsigned char *from, size_t bytes)
{
	switch (op) {
	case BITOP_AND:
		bitop_each(BITOP_AND, to, from, bytes);
		memset(to + bytes, 0, length - bytes);
		break;
	case BITOP_OR:
		bitop_each(BITOP_OR, to, from, bytes);
		break;
	case BITOP_XOR:
		bitop_each(BITOP_XOR, to, from, bytes);
		break;
	default:
		bitop_each(BITOP_NOT, to, from, bytes);
		break;
	}
}

static bool bitop_compute(struct call *call, enum bitop op, unsigned char *to, size_t length)
{
	for (uint32_t i = BITOP_FIRST_SOURCE; i < call->argc; i++) {
		struct keyspace_value value;
		// Looked up anew: whatever had expired was removed by the first look, so that this
		// one only reads, and the value is used before the next key is looked at.
		if (!commands_peek(call, i, &value)) {
			value = (struct keyspace_value){ .value = to };
		}
		if (value.value_bytes > length) {
			return false;
		}
		if (i == BITOP_FIRST_SOURCE && op != BITOP_NOT) {
			memcpy(to, value.value, value.value_bytes);
		} else {
			bitop_combine(op, to, length, value.value, value.value_bytes);
		}
	}
	return true;
}

static void bitop_store(struct call *call, enum bitop op, size_t length)
{
	const struct resp_arg *key = &call->argv[2];
	unsigned char *to = calloc(1, length);
	if (!to || !bitop_compute(call, op, to, length)) {
		commands_error(call, COMMANDS_TEXT_OOM);
		free(to);
		return;
	}
	commands_event_new(call, 2);
	int result = keyspace_set(call->kvd->keyspace, key->data, key->bytes, to, length, 0, NULL);
	free(to);
	if (commands_wrote(call, result, length)) {
		commands_event_set(call, 2, false);
		reply_integer(call->session, (int64_t)length);
	}
}

void commands_bitop_bitop(struct call *call)
{
	enum bitop op;
	size_t length = 0;
	if (!bitop_parse(call, &op)) {
		return;
	}
	for (uint32_t i = BITOP_FIRST_SOURCE; i < call->argc; i++) {
		struct keyspace_value value;
		if (commands_lookup(call, i, &value) && value.value_bytes > length) {
			length = value.value_bytes;
		}
	}
	if (length > 0) {
		bitop_store(call, op, length);
		return;
	}
	const struct resp_arg *key = &call->argv[2];
	int result = keyspace_delete(call->kvd->keyspace, key->data, key->bytes);
	if (commands_wrote(call, result, 0)) {
		if (result == KEYSPACE_OK) {
			commands_event(call, 2, EVENT_GENERIC, "del");
		}
		reply_integer(call->session, 0);
	}
}
