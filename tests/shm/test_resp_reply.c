// SPDX-License-Identifier: MIT
//
// shm/resp_reply.c: replies as they arrive, cut at every byte; those that contradict themselves are
// refused, however they are cut; numbers that both sides write and read.
#include "shm/resp.h"

#include <stdlib.h>
#include <string.h>

#include "shm/limits.h"
#include "tests/tap/tap.h"

#define FRAME(text) text, sizeof(text) - 1

static void test_numbers(void)
{
	static const struct {
		const char *text;
		bool good;
		int64_t number;
	} rows[] = {
		{ "0", true, 0 },
		{ "-1", true, -1 },
		{ "9", true, 9 },
		{ "10", true, 10 },
		{ "99", true, 99 },
		{ "100", true, 100 },
		{ "1234567", true, 1234567 },
		{ "9223372036854775807", true, INT64_MAX },
		{ "-9223372036854775808", true, INT64_MIN },
		{ "9223372036854775808", false, 0 },
		{ "-9223372036854775809", false, 0 },
		{ "18446744073709551617", false, 0 },
		{ "", false, 0 },
		{ "-", false, 0 },
		{ "-0", false, 0 },
		{ "00", false, 0 },
		{ "01", false, 0 },
		{ "+1", false, 0 },
		{ " 1", false, 0 },
		{ "1 ", false, 0 },
		{ "1a", false, 0 },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int64_t number = 0;
		bool good = resp_parse_int(rows[i].text, strlen(rows[i].text), &number);
		bool same = good == rows[i].good && (!good || number == rows[i].number);
		char text[32] = "";
		if (good) {
			text[resp_format_int(text, number)] = '\0';
			same = same && strcmp(text, rows[i].text) == 0;
			size_t n = resp_format_number(text, ':', number);
			same = same && n == strlen(rows[i].text) + 3 &&
			       n <= RESP_NUMBER_BYTES_MAX && memcmp(text + n - 2, "\r\n", 2) == 0;
		}
		ok(same, "number '%s'", rows[i].text);
	}
}

struct reply_row {
	const char *name;
	const char *frame;
	enum resp_result result;
	size_t nodes;
};

static const struct reply_row replies[] = {
	{ "status", "+OK\r\n", RESP_COMPLETE, 1 },
	{ "error", "-ERR x\r\n", RESP_COMPLETE, 1 },
	{ "integer", ":-42\r\n", RESP_COMPLETE, 1 },
	{ "bulk", "$5\r\nhe\r\no\r\n", RESP_COMPLETE, 1 },
	{ "null bulk", "$-1\r\n", RESP_COMPLETE, 1 },
	{ "null", "_\r\n", RESP_COMPLETE, 1 },
	{ "true", "#t\r\n", RESP_COMPLETE, 1 },
	{ "double", ",1.5\r\n", RESP_COMPLETE, 1 },
	{ "big number", "(123456789012345678901234567890\r\n", RESP_COMPLETE, 1 },
	{ "verbatim", "=8\r\ntxt:text\r\n", RESP_COMPLETE, 1 },
	{ "bulk error", "!5\r\nERR x\r\n", RESP_COMPLETE, 1 },
	{ "array", "*2\r\n:1\r\n$1\r\na\r\n", RESP_COMPLETE, 3 },
	{ "empty array", "*0\r\n", RESP_COMPLETE, 1 },
	{ "null array", "*-1\r\n", RESP_COMPLETE, 1 },
	{ "map", "%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:1\r\n:2\r\n", RESP_COMPLETE, 7 },
	{ "set", "~1\r\n:1\r\n", RESP_COMPLETE, 2 },
	{ "push", ">2\r\n+a\r\n+b\r\n", RESP_COMPLETE, 3 },
	{ "attribute and its reply", "|1\r\n+a\r\n+b\r\n:7\r\n", RESP_COMPLETE, 4 },
	{ "nested", "*1\r\n*1\r\n*2\r\n*0\r\n:1\r\n", RESP_COMPLETE, 5 },
	{ "sixteen deep",
	  "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"
	  "*1\r\n*1\r\n:1\r\n",
	  RESP_COMPLETE, 17 },
	{ "seventeen deep",
	  "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"
	  "*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
	  RESP_ERROR, 0 },
	{ "unknown type", "?1\r\n", RESP_ERROR, 0 },
	{ "bad integer", ":x\r\n", RESP_ERROR, 0 },
	{ "bad boolean", "#x\r\n", RESP_ERROR, 0 },
	{ "streamed string", "$?\r\n", RESP_ERROR, 0 },
	{ "negative bulk", "$-2\r\n", RESP_ERROR, 0 },
	{ "bulk over the limit", "$2000\r\n", RESP_ERROR, 0 },
	{ "bulk without its end", "$1\r\naXY", RESP_ERROR, 0 },
	{ "line end without CR", "+OK\n", RESP_ERROR, 0 },
	{ "a type and the end of its line", "+\n", RESP_ERROR, 0 },
	{ "a status of nothing", "+\r\n", RESP_COMPLETE, 1 },
	{ "too many children", "*9223372036854775807\r\n", RESP_ERROR, 0 },
	{ "verbatim without mark", "=3\r\nabc\r\n", RESP_ERROR, 0 },
	{ "verbatim with its mark elsewhere", "=6\r\ntext:x\r\n", RESP_ERROR, 0 },
	{ "verbatim of nothing", "=-1\r\n", RESP_ERROR, 0 },
	{ "bulk error of nothing", "!-1\r\n", RESP_ERROR, 0 },
	{ "bulk with half an end", "$1\r\na\rX", RESP_ERROR, 0 },
	{ "null with something behind it", "_x\r\n", RESP_ERROR, 0 },
	{ "false", "#f\r\n", RESP_COMPLETE, 1 },
	{ "boolean of two letters", "#tt\r\n", RESP_ERROR, 0 },
	{ "map of nothing", "%-1\r\n", RESP_ERROR, 0 },
	{ "array of fewer than nothing", "*-2\r\n", RESP_ERROR, 0 },
};

/// A line that never ends is no reply, however it goes on; a byte less may still be one.
static void test_endless_reply(void)
{
	char *line = malloc(KVS_INLINE_BYTES_MAX);
	memset(line, 'x', KVS_INLINE_BYTES_MAX);
	line[0] = '+';
	struct resp_reply_state state = { 0 };
	size_t consumed, nodes;
	ok_int(resp_measure_reply(&state, line, KVS_INLINE_BYTES_MAX - 1, 1000, &consumed, &nodes),
	       RESP_MORE, "a long line may go on");
	ok_int(resp_measure_reply(&state, line, KVS_INLINE_BYTES_MAX, 1000, &consumed, &nodes),
	       RESP_ERROR, "not for ever");
	free(line);
}

static void test_replies(void)
{
	for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
		const struct reply_row *row = &replies[i];
		size_t length = strlen(row->frame);
		bool good = true;
		for (size_t split = 0; split <= length; split++) {
			struct resp_reply_state state = { 0 };
			size_t consumed = 0;
			size_t nodes = 0;
			enum resp_result result = resp_measure_reply(&state, row->frame, split,
								     1000, &consumed, &nodes);
			if (result == RESP_MORE) {
				result = resp_measure_reply(&state, row->frame, length, 1000,
							    &consumed, &nodes);
			}
			good = good && result == row->result;
			if (result == RESP_COMPLETE) {
				good = good && consumed == length && nodes == row->nodes;
			}
		}
		ok(good, "reply at every split: %s", row->name);
	}
	struct resp_node node;
	size_t consumed = 0;
	resp_parse_node(FRAME("=8\r\ntxt:text\r\n"), 100, &node, &consumed);
	ok(node.bytes == 4 && memcmp(node.data, "text", 4) == 0, "a verbatim's mark is left out");
	resp_parse_node(FRAME("%3\r\n"), 100, &node, &consumed);
	ok_int(node.integer, 6, "a map has two nodes a pair");
}

int main(void)
{
	test_numbers();
	test_replies();
	test_endless_reply();
	return tap_done();
}
