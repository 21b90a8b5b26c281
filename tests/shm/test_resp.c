// SPDX-License-Identifier: MIT
//
// The RESP parsers and formatters: every frame at every split position must give what it gives
// whole, errors must be Redis's texts, and nothing announced may be believed before it is there.

#include <stdlib.h>

#include "shm/resp.h"
#include "tests/tap/tap.h"

static const struct resp_limits limits_default = {
	.bulk_bytes_max = 1 << 20,
	.request_bytes_max = 4 << 20,
	.inline_bytes_max = KVS_INLINE_BYTES_MAX,
	.args_max = KVS_COMMAND_ARGS_MAX,
};

struct expected {
	const char *name;
	const char *frame;
	size_t frame_bytes; // 0 = strlen
	enum resp_result result;
	const char *text; // error, or the arguments joined by '|'
};

#define FRAME(literal) literal, sizeof(literal) - 1

static const struct expected requests[] = {
	{ "ping", FRAME("*1\r\n$4\r\nPING\r\n"), RESP_COMPLETE, "PING" },
	{ "set", FRAME("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n"), RESP_COMPLETE,
	  "SET|key|value" },
	{ "empty bulk", FRAME("*2\r\n$3\r\nGET\r\n$0\r\n\r\n"), RESP_COMPLETE, "GET|" },
	{ "bulk with line ends", FRAME("*2\r\n$3\r\nGET\r\n$4\r\n\r\n\r\n\r\n"), RESP_COMPLETE,
	  "GET|\r\n\r\n" },
	{ "eleven arguments",
	  FRAME("*11\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n"
		"$1\r\ng\r\n$1\r\nh\r\n$1\r\ni\r\n$1\r\nj\r\n$1\r\nk\r\n"),
	  RESP_COMPLETE, "a|b|c|d|e|f|g|h|i|j|k" },
	{ "empty array", FRAME("*0\r\n"), RESP_EMPTY, NULL },
	{ "null array", FRAME("*-1\r\n"), RESP_EMPTY, NULL },
	{ "empty line", FRAME("\r\n"), RESP_EMPTY, NULL },
	{ "bare newline", FRAME("\n"), RESP_EMPTY, NULL },
	{ "blank line", FRAME("  \t \r\n"), RESP_EMPTY, NULL },
	{ "inline", FRAME("SET key value\r\n"), RESP_COMPLETE, "SET|key|value" },
	{ "inline, bare newline", FRAME("PING\n"), RESP_COMPLETE, "PING" },
	{ "inline, spaces", FRAME("  GET   a  \r\n"), RESP_COMPLETE, "GET|a" },
	{ "inline, double quotes", FRAME("SET \"a b\" \"\\x41\\n\\r\\t\\b\\a\\\"\\q\"\r\n"),
	  RESP_COMPLETE, "SET|a b|A\n\r\t\b\a\"q" },
	{ "inline, single quotes", FRAME("SET 'a \\'b' '\\n'\r\n"), RESP_COMPLETE, "SET|a 'b|\\n" },
	{ "inline, empty quotes", FRAME("SET '' \"\"\r\n"), RESP_COMPLETE, "SET||" },
	{ "inline, quotes inside a word", FRAME("SET a\"b c\" d\r\n"), RESP_COMPLETE,
	  "SET|ab c|d" },
	{ "inline, half a hex escape", FRAME("SET \"\\x4\"\r\n"), RESP_COMPLETE, "SET|x4" },
	{ "inline, zero byte ends it", FRAME("SET a\0b c\r\n"), RESP_COMPLETE, "SET|a" },
	{ "inline, unbalanced double", FRAME("SET \"a\r\n"), RESP_ERROR,
	  "unbalanced quotes in request" },
	{ "inline, unbalanced single", FRAME("SET 'a\r\n"), RESP_ERROR,
	  "unbalanced quotes in request" },
	{ "inline, text behind quote", FRAME("SET \"a\"b\r\n"), RESP_ERROR,
	  "unbalanced quotes in request" },
	{ "inline, backslash at the end", FRAME("SET \"a\\\r\n"), RESP_ERROR,
	  "unbalanced quotes in request" },
	{ "length is text", FRAME("*abc\r\n"), RESP_ERROR, "invalid multibulk length" },
	{ "length is empty", FRAME("*\r\n"), RESP_ERROR, "invalid multibulk length" },
	{ "length with leading zero", FRAME("*01\r\n$4\r\nPING\r\n"), RESP_ERROR,
	  "invalid multibulk length" },
	{ "length with plus", FRAME("*+1\r\n"), RESP_ERROR, "invalid multibulk length" },
	{ "length over the limit", FRAME("*1048577\r\n"), RESP_ERROR, "invalid multibulk length" },
	{ "length beyond 32 bits", FRAME("*4294967297\r\n"), RESP_ERROR,
	  "invalid multibulk length" },
	{ "length beyond 64 bits", FRAME("*99999999999999999999\r\n"), RESP_ERROR,
	  "invalid multibulk length" },
	{ "no dollar", FRAME("*1\r\nxPING\r\n"), RESP_ERROR, "expected '$', got 'x'" },
	{ "bulk length is text", FRAME("*1\r\n$a\r\n"), RESP_ERROR, "invalid bulk length" },
	{ "bulk length is negative", FRAME("*1\r\n$-1\r\n"), RESP_ERROR, "invalid bulk length" },
	{ "bulk length over 512 MiB", FRAME("*1\r\n$536870913\r\n"), RESP_ERROR,
	  "invalid bulk length" },
	{ "bulk length beyond 64 bits", FRAME("*1\r\n$18446744073709551617\r\n"), RESP_ERROR,
	  "invalid bulk length" },
};

static void join(const struct resp_request *request, char *out, size_t *bytes)
{
	size_t at = 0;
	for (uint32_t i = 0; i < request->argc; i++) {
		if (i > 0) {
			out[at++] = '|';
		}
		memcpy(out + at, request->argv[i].data, request->argv[i].bytes);
		at += request->argv[i].bytes;
	}
	*bytes = at;
}

/// Does the outcome agree with what is expected?
static bool agrees(const struct expected *expected, enum resp_result result,
		   const struct resp_request *request)
{
	if (result != expected->result) {
		tap_diag("%s: result %d", expected->name, (int)result);
		return false;
	}
	if (result == RESP_ERROR) {
		return strcmp(request->error, expected->text) == 0;
	}
	if (request->consumed != expected->frame_bytes) {
		tap_diag("%s: consumed %zu of %zu", expected->name, request->consumed,
			 expected->frame_bytes);
		return false;
	}
	char text[256];
	size_t bytes = 0;
	join(request, text, &bytes);
	return result == RESP_EMPTY ||
	       (bytes == strlen(expected->text) && memcmp(text, expected->text, bytes) == 0);
}

/// Gives the first `split` bytes, then all, at another address: the buffer has moved meanwhile.
static bool try_split(const struct expected *expected, size_t split)
{
	struct resp_request_state state = { 0 };
	struct resp_request request = { 0 };
	char *first = malloc(split + 1);
	char *all = malloc(expected->frame_bytes);
	memcpy(first, expected->frame, split);
	memcpy(all, expected->frame, expected->frame_bytes);
	enum resp_result result =
		resp_parse_request(&state, first, split, &limits_default, &request);
	if (result == RESP_MORE) {
		resp_request_moved(&state, &request, first, all);
		memset(first, 'X', split);
		result = resp_parse_request(&state, all, expected->frame_bytes, &limits_default,
					    &request);
	}
	bool good = agrees(expected, result, &request);
	free(first);
	free(all);
	resp_request_free(&request);
	return good;
}

/// One byte more at each call, the parser keeping its place.
static bool try_bytewise(const struct expected *expected)
{
	struct resp_request_state state = { 0 };
	struct resp_request request = { 0 };
	enum resp_result result = RESP_MORE;
	for (size_t n = 0; n <= expected->frame_bytes && result == RESP_MORE; n++) {
		size_t offset = state.offset;
		result = resp_parse_request(&state, expected->frame, n, &limits_default, &request);
		if (result == RESP_MORE && state.offset < offset) {
			return false; // went back
		}
	}
	bool good = agrees(expected, result, &request);
	resp_request_free(&request);
	return good;
}

static void test_requests(void)
{
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		const struct expected *expected = &requests[i];
		bool good = try_bytewise(expected);
		for (size_t split = 0; split <= expected->frame_bytes; split++) {
			good = try_split(expected, split) && good;
		}
		ok(good, "request at every split: %s", expected->name);
	}
}

static void test_no_allocation_after_warm_up(void)
{
	struct resp_request_state state = { 0 };
	struct resp_request request = { 0 };
	static const char frame[] = "*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n";
	resp_parse_request(&state, frame, sizeof(frame) - 1, &limits_default, &request);
	const struct resp_arg *argv = request.argv;
	bool same = true;
	for (int i = 0; i < 1000; i++) {
		resp_parse_request(&state, frame, sizeof(frame) - 1, &limits_default, &request);
		same = same && request.argv == argv;
	}
	ok(same && request.argv_capacity <= 8, "G: the argument array is reused");
	uint32_t capacity = request.argv_capacity;
	enum resp_result result =
		resp_parse_request(&state, "*1048576\r\n", 10, &limits_default, &request);
	ok(result == RESP_MORE && request.argv_capacity == capacity,
	   "G: announcing a million arguments allocates nothing");
	resp_request_free(&request);
}

static void test_endless_lines(void)
{
	size_t bytes = KVS_INLINE_BYTES_MAX + 2;
	char *line = malloc(bytes);
	static const struct {
		const char *start;
		const char *error;
	} rows[] = {
		{ "aaaa", "too big inline request" },
		{ "*111", "too big mbulk count string" },
		{ "*1\r\n$1", "too big bulk count string" },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct resp_request_state state = { 0 };
		struct resp_request request = { 0 };
		size_t head = strlen(rows[i].start);
		memset(line, '1', bytes);
		memcpy(line, rows[i].start, head);
		size_t n = 0;
		enum resp_result result = RESP_MORE;
		size_t given = bytes + (i == 2 ? 4 : 0);
		line = realloc(line, given);
		memset(line + head, '1', given - head);
		while (result == RESP_MORE && n < given) {
			n = n + 4096 < given ? n + 4096 : given;
			result = resp_parse_request(&state, line, n, &limits_default, &request);
		}
		ok(result == RESP_ERROR && strcmp(request.error, rows[i].error) == 0,
		   "G: an endless line ends as '%s'", rows[i].error);
		resp_request_free(&request);
	}
	struct resp_request_state state = { 0 };
	struct resp_request request = { 0 };
	memset(line, 'a', bytes);
	line[bytes - 1] = '\n';
	ok(resp_parse_request(&state, line, bytes, &limits_default, &request) == RESP_ERROR,
	   "a line over the limit is refused also when it comes whole");
	resp_request_free(&request);
	free(line);
}

/// Feeds `frame` in pieces of `step` bytes, dropping what is consumed. Counts results.
static void feed(const char *frame, size_t bytes, size_t step, const struct resp_limits *limits,
		 unsigned *complete, unsigned *too_large, unsigned *errors, size_t *kept_max)
{
	struct resp_request_state state = { 0 };
	struct resp_request request = { 0 };
	size_t start = 0;
	size_t end = 0;
	*complete = *too_large = *errors = 0;
	*kept_max = 0;
	while (start < bytes) {
		enum resp_result result =
			resp_parse_request(&state, frame + start, end - start, limits, &request);
		start += request.consumed;
		*complete += result == RESP_COMPLETE;
		*too_large += result == RESP_TOO_LARGE;
		if (result == RESP_ERROR) {
			++*errors;
			break;
		}
		if (result == RESP_MORE) {
			*kept_max = end - start > *kept_max ? end - start : *kept_max;
			if (end == bytes) {
				break;
			}
			end = end + step < bytes ? end + step : bytes;
		}
	}
	resp_request_free(&request);
}

/// All frames with one argument a call, and with two: what is cut gives what it gives whole.
static void test_cut(void)
{
	bool good = true;
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		for (uint32_t at_once = 1; at_once <= 2; at_once++) {
			struct resp_limits limits = limits_default;
			struct resp_request_state state = { 0 };
			struct resp_request request = { 0 };
			enum resp_result result;
			limits.args_at_once = at_once;
			do {
				uint32_t before = state.args_done;
				result = resp_parse_request(&state, requests[i].frame,
							    requests[i].frame_bytes, &limits,
							    &request);
				good = good &&
				       (result != RESP_CUT || state.args_done == before + at_once);
			} while (result == RESP_CUT);
			good = good && agrees(&requests[i], result, &request);
			resp_request_free(&request);
		}
	}
	ok(good, "D: so many arguments a call, and the rest in the next ones");
}

/// What is known of the arguments' lengths when a long request is there.
static void test_short(void)
{
	static const char frame[] = "*8\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n"
				    "$0\r\n\r\n$1\r\ng\r\n$1\r\nh\r\n*1\r\n$1\r\na\r\n";
	struct resp_limits limits = limits_default;
	struct resp_request_state state = { 0 };
	struct resp_request request = { 0 };
	uint32_t seen[4] = { 0 };
	unsigned calls = 0;
	enum resp_result result;
	limits.args_at_once = 2;
	do {
		result = resp_parse_request(&state, frame, sizeof(frame) - 1, &limits, &request);
		seen[calls++] = request.args_short;
	} while (result == RESP_CUT && calls < 4);
	ok(result == RESP_COMPLETE && calls == 4, "eight arguments, two a call");
	ok(seen[0] == 2 && seen[1] == 4 && seen[2] == 5 && seen[3] == 5,
	   "those in front of the first empty one have the length of a key");
	ok(resp_parse_request(&state, frame + request.consumed,
			      sizeof(frame) - 1 - request.consumed, &limits,
			      &request) == RESP_COMPLETE &&
		   request.args_short == 0,
	   "and nothing is known of the next request");
	resp_request_free(&request);
}

static void test_too_large(void)
{
	struct resp_limits limits = limits_default;
	limits.bulk_bytes_max = 100;
	limits.request_bytes_max = 300;
	char frame[1024];
	char value[201];
	memset(value, 'v', 200);
	value[200] = '\0';
	int bytes =
		snprintf(frame, sizeof(frame),
			 "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$200\r\n%s\r\n*1\r\n$4\r\nPING\r\n", value);
	bool good = true;
	unsigned complete, too_large, errors;
	size_t kept;
	for (size_t step = 1; step <= (size_t)bytes; step++) {
		feed(frame, (size_t)bytes, step, &limits, &complete, &too_large, &errors, &kept);
		good = good && complete == 1 && too_large == 1 && errors == 0;
		if (step == 1) {
			good = good && kept < 50;
		}
	}
	ok(good,
	   "G: an argument over the limit is dropped as it comes, the next request is served");

	value[90] = '\0';
	bytes = snprintf(frame, sizeof(frame),
			 "*6\r\n$4\r\nMSET\r\n$90\r\n%s\r\n$90\r\n%s\r\n$90\r\n%s\r\n$90\r\n%s\r\n"
			 "$1\r\nx\r\n*1\r\n$4\r\nPING\r\n",
			 value, value, value, value);
	for (size_t step = 1; step <= (size_t)bytes; step++) {
		feed(frame, (size_t)bytes, step, &limits, &complete, &too_large, &errors, &kept);
		good = good && complete == 1 && too_large == 1 && errors == 0 && kept <= 300;
	}
	ok(good, "G: so is a request over the limit");
	static const char broken[] = "*3\r\n$3\r\nSET\r\n$200\r\n";
	bytes = snprintf(frame, sizeof(frame), "%s%200s\r\nx1\r\n", broken, "");
	feed(frame, (size_t)bytes, 7, &limits, &complete, &too_large, &errors, &kept);
	ok(complete == 0 && too_large == 0 && errors == 1,
	   "a protocol error inside a dropped request is seen");
}

/// A request of `args` random arguments at `out`; its length.
static size_t random_frame(char *out, unsigned args, uint64_t *seed)
{
	size_t at = (size_t)snprintf(out, 32, "*%u\r\n", args);
	for (unsigned i = 0; i < args; i++) {
		unsigned length = (unsigned)(tap_random(seed) % (i % 4 == 3 ? 1200 : 12));
		at += (size_t)snprintf(out + at, 32, "$%u\r\n", length);
		for (unsigned j = 0; j < length; j++) {
			out[at++] = "\r\n$*ab19"[tap_random(seed) % 8];
		}
		memcpy(out + at, "\r\n", 2);
		at += 2;
	}
	return at;
}

/// Random requests, glued together, cut at random: the same requests come out.
static void test_random_pipelines(void)
{
	uint64_t seed = tap_seed(1);
	char *frame = malloc(1 << 20);
	bool good = true;
	for (int round = 0; round < 200; round++) {
		size_t bytes = 0;
		unsigned sent = 1 + (unsigned)(tap_random(&seed) % 50);
		for (unsigned i = 0; i < sent; i++) {
			unsigned args = 1 + (unsigned)(tap_random(&seed) % 12);
			bytes += random_frame(frame + bytes, args, &seed);
		}
		unsigned complete, too_large, errors;
		size_t kept;
		feed(frame, bytes, 1 + (size_t)(tap_random(&seed) % 700), &limits_default,
		     &complete, &too_large, &errors, &kept);
		good = good && complete == sent && too_large == 0 && errors == 0;
	}
	ok(good, "200 random pipelines cut at random places");
	free(frame);
}

int main(void)
{
	test_requests();
	test_no_allocation_after_warm_up();
	test_endless_lines();
	test_cut();
	test_short();
	test_too_large();
	test_random_pipelines();
	return tap_done();
}
