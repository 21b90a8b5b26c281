// SPDX-License-Identifier: MIT
//
// The request parser: bytes that anybody may have sent, in pieces of any size. Every length is
// bounded before it is used, nothing is allocated in proportion to a number that was only
// announced, and what has been parsed of a half frame is never looked at again. Errors are worded
// as Redis words them, because client libraries match on the text.

#include "shm/resp.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/mapped.h"

#define RESP_ARGV_FIRST 8u

static enum resp_result resp_fail(struct resp_request *request, const char *error)
{
	request->error = error;
	request->consumed = 0;
	return RESP_ERROR;
}

static bool resp_argv_reserve(struct resp_request *request, uint32_t count)
{
	if (__builtin_expect(count <= request->argv_capacity, 1)) {
		return true;
	}
	uint32_t capacity = request->argv_capacity ? request->argv_capacity * 2 : RESP_ARGV_FIRST;
	size_t bytes = request->argv_capacity * sizeof(struct resp_arg);
	struct resp_arg *argv =
		kvs_mapped_grow(request->argv, bytes, (size_t)capacity * sizeof(*argv));
	if (!argv) {
		return false;
	}
	request->argv = argv;
	request->argv_capacity = capacity;
	return true;
}

static int resp_hex(char c)
{
	if (c >= '0' && c <= '9') {
		return c - '0';
	}
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/// One escape of a double-quoted string, p[0] == '\\'. Returns the bytes it takes, at least 1 and
/// never beyond `end`.
static size_t resp_unescape(const char *p, const char *end, char *out)
{
	if (end - p >= 4 && p[1] == 'x' && resp_hex(p[2]) >= 0 && resp_hex(p[3]) >= 0) {
		*out = (char)(resp_hex(p[2]) * 16 + resp_hex(p[3]));
		return 4;
	}
	if (end - p < 2) {
		*out = '\\';
		return 1;
	}
	switch (p[1]) {
	case 'n':
		*out = '\n';
		break;
	case 'r':
		*out = '\r';
		break;
	case 't':
		*out = '\t';
		break;
	case 'b':
		*out = '\b';
		break;
	case 'a':
		*out = '\a';
		break;
	default:
		*out = p[1];
	}
	return 2;
}

/// The body of a quoted part, p just behind its quote. Returns where it goes on behind the closing
/// quote, NULL if that is missing or not followed by a space.
static const char *resp_unquote(const char *p, const char *end, char quote, char **out)
{
	while (p < end) {
		if (*p == quote) {
			p++;
			return p == end || isspace((unsigned char)*p) ? p : NULL;
		}
		if (quote == '"' && *p == '\\') {
			p += resp_unescape(p, end, (*out)++);
		} else if (quote == '\'' && *p == '\\' && end - p >= 2 && p[1] == '\'') {
			*(*out)++ = '\'';
			p += 2;
		} else {
			*(*out)++ = *p++;
		}
	}
	return NULL;
}

/// Splits a line as Redis's sdssplitargs() does. NULL error = fine.
static const char *resp_split(const char *p, const char *end, uint32_t args_max,
			      struct resp_request *request)
{
	char *out = request->text;
	for (;;) {
		while (p < end && isspace((unsigned char)*p)) {
			p++;
		}
		if (p == end) {
			return NULL;
		}
		if (request->argc == args_max) {
			return "too big inline request";
		}
		if (!resp_argv_reserve(request, request->argc + 1)) {
			return "out of memory";
		}
		struct resp_arg *arg = &request->argv[request->argc++];
		arg->data = out;
		while (p < end && *p != ' ' && *p != '\t' && *p != '\r' && *p != '\n') {
			if (*p == '"' || *p == '\'') {
				p = resp_unquote(p + 1, end, *p, &out);
				if (!p) {
					return "unbalanced quotes in request";
				}
				break;
			}
			*out++ = *p++;
		}
		arg->bytes = (size_t)(out - arg->data);
	}
}

static enum resp_result resp_parse_inline(struct resp_request_state *state, const char *input,
					  size_t bytes, const struct resp_limits *limits,
					  struct resp_request *request)
{
	const char *newline = memchr(input + state->scanned, '\n', bytes - state->scanned);
	size_t line_bytes = newline ? (size_t)(newline - input) : bytes;
	if (line_bytes > limits->inline_bytes_max) {
		return resp_fail(request, "too big inline request");
	}
	if (!newline) {
		state->scanned = bytes;
		request->wanted = bytes + 1;
		return RESP_MORE;
	}
	*state = (struct resp_request_state){ 0 };
	request->consumed = line_bytes + 1;
	if (line_bytes > 0 && input[line_bytes - 1] == '\r') {
		line_bytes--;
	}
	// Redis splits C strings: what follows a zero byte is not seen.
	const char *zero = memchr(input, 0, line_bytes);
	if (zero) {
		line_bytes = (size_t)(zero - input);
	}
	if (line_bytes > request->text_capacity) {
		char *text = realloc(request->text, line_bytes);
		if (!text) {
			return resp_fail(request, "out of memory");
		}
		request->text = text;
		request->text_capacity = line_bytes;
	}
	request->argc = 0;
	const char *error = resp_split(input, input + line_bytes, limits->args_max, request);
	if (error) {
		return resp_fail(request, error);
	}
	return request->argc > 0 ? RESP_COMPLETE : RESP_EMPTY;
}

enum resp_line { RESP_LINE_GOOD, RESP_LINE_MORE, RESP_LINE_BAD_NUMBER, RESP_LINE_TOO_LONG };

/// The number of a `*` or `$` line that begins at `at`; *next is the place behind the line.
static enum resp_line resp_parse_line(struct resp_request_state *state, const char *input,
				      size_t bytes, size_t at, int64_t *number, size_t *next)
{
	// Nearly always: a few digits and the line's end are there.
	if (__builtin_expect(bytes - at >= 4, 1)) {
		size_t limit = bytes - at > 12 ? at + 12 : bytes - 1;
		size_t p = at + 1;
		uint32_t value = (uint32_t)(unsigned char)input[p] - '0';
		if (value - 1 <= 8) {
			uint32_t digit;
			for (p++; p < limit - 1 &&
				  (digit = (uint32_t)(unsigned char)input[p] - '0') <= 9;
			     p++) {
				value = value * 10 + digit;
			}
			if (input[p] == '\r' && p - at <= 9) {
				*number = value;
				*next = p + 2;
				return RESP_LINE_GOOD;
			}
		}
	}
	size_t from = state->scanned > at ? state->scanned : at;
	const char *end = memchr(input + from, '\r', bytes - from);
	if (!end) {
		state->scanned = bytes;
		return bytes - at > KVS_INLINE_BYTES_MAX ? RESP_LINE_TOO_LONG : RESP_LINE_MORE;
	}
	size_t line_end = (size_t)(end - input);
	if (bytes - line_end < 2) {
		state->scanned = line_end;
		return RESP_LINE_MORE;
	}
	*next = line_end + 2;
	return resp_parse_int(input + at + 1, line_end - at - 1, number) ? RESP_LINE_GOOD
									 : RESP_LINE_BAD_NUMBER;
}

/// The `$len` line at `at`: the length, or why not. RESP_COMPLETE means that *length is known.
static enum resp_result resp_parse_bulk_line(struct resp_request_state *state, const char *input,
					     size_t bytes, size_t at, struct resp_request *request,
					     size_t *length, size_t *next)
{
	int64_t number = 0;
	enum resp_line line = at < bytes ? resp_parse_line(state, input, bytes, at, &number, next)
					 : RESP_LINE_MORE;
	if (line == RESP_LINE_MORE) {
		return RESP_MORE;
	}
	if (line == RESP_LINE_TOO_LONG) {
		return resp_fail(request, "too big bulk count string");
	}
	if (input[at] != '$') {
		char c = input[at];
		snprintf(request->error_text, sizeof(request->error_text), "expected '$', got '%c'",
			 c == '\r' || c == '\n' ? ' ' : c);
		return resp_fail(request, request->error_text);
	}
	if (line == RESP_LINE_BAD_NUMBER || number < 0 || number > (int64_t)KVS_VALUE_BYTES_MAX) {
		return resp_fail(request, "invalid bulk length");
	}
	*length = (size_t)number;
	return RESP_COMPLETE;
}

/// Consumes the rest of a request that is over a limit, as far as it is there.
static enum resp_result resp_drop(struct resp_request_state *state, const char *input, size_t bytes,
				  const struct resp_limits *limits, struct resp_request *request)
{
	size_t at = 0;
	for (uint32_t args = 0;; args++) {
		if (state->bulk_known) {
			size_t n = bytes - at < state->bulk_bytes ? bytes - at : state->bulk_bytes;
			at += n;
			state->bulk_bytes -= n;
			if (state->bulk_bytes > 0) {
				break;
			}
			state->bulk_known = false;
			state->args_done++;
			state->scanned = 0;
		}
		if (state->args_done == state->args_expected) {
			*state = (struct resp_request_state){ 0 };
			request->error = request->error_text; // the request may have been moved
			request->consumed = at;
			return RESP_TOO_LARGE;
		}
		if (limits->args_at_once != 0 && args == limits->args_at_once) {
			request->consumed = at;
			return RESP_CUT;
		}
		size_t length = 0;
		size_t next = at;
		enum resp_result result =
			resp_parse_bulk_line(state, input, bytes, at, request, &length, &next);
		if (result == RESP_ERROR) {
			return result;
		}
		if (result == RESP_MORE) {
			state->scanned = state->scanned > at ? state->scanned - at : 0;
			break;
		}
		at = next;
		state->bulk_known = true;
		state->bulk_bytes = length + 2;
	}
	request->consumed = at;
	request->wanted = 0;
	return RESP_MORE;
}

/// Turns to dropping: everything parsed so far of the request goes first.
static enum resp_result resp_start_drop(struct resp_request_state *state, const char *input,
					size_t bytes, size_t at, size_t length,
					const struct resp_limits *limits,
					struct resp_request *request)
{
	if (length > limits->bulk_bytes_max) {
		snprintf(request->error_text, sizeof(request->error_text),
			 "argument of %zu bytes is over the limit of %zu bytes (value-max)", length,
			 limits->bulk_bytes_max);
	} else {
		snprintf(request->error_text, sizeof(request->error_text),
			 "request is over the limit of %zu bytes", limits->request_bytes_max);
	}
	request->error = request->error_text;
	request->argc = 0;
	state->dropping = true;
	state->bulk_known = true;
	state->bulk_bytes = length + 2;
	state->offset = 0;
	state->scanned = 0;
	enum resp_result result = resp_drop(state, input + at, bytes - at, limits, request);
	request->consumed += at;
	return result;
}

/// The head line of an array. RESP_COMPLETE: state->args_expected is set.
static enum resp_result resp_parse_head(struct resp_request_state *state, const char *input,
					size_t bytes, const struct resp_limits *limits,
					struct resp_request *request)
{
	int64_t number = 0;
	size_t next = 0;
	switch (resp_parse_line(state, input, bytes, 0, &number, &next)) {
	case RESP_LINE_MORE:
		request->wanted = bytes + 1;
		return RESP_MORE;
	case RESP_LINE_TOO_LONG:
		return resp_fail(request, "too big mbulk count string");
	case RESP_LINE_BAD_NUMBER:
		return resp_fail(request, "invalid multibulk length");
	case RESP_LINE_GOOD:
		break;
	}
	if (number > (int64_t)limits->args_max) {
		return resp_fail(request, "invalid multibulk length");
	}
	if (number <= 0) {
		*state = (struct resp_request_state){ 0 };
		request->consumed = next;
		return RESP_EMPTY;
	}
	state->args_expected = (uint32_t)number;
	state->args_done = 0;
	state->offset = next;
	return RESP_COMPLETE;
}

// Takes the awaited argument whose body is not in the input: only what ends it is awaited there.
static enum resp_result resp_take_elsewhere(struct resp_request_state *state, size_t bytes,
					    struct resp_request *request)
{
	if (bytes - state->offset < 2) {
		request->wanted = state->offset + 2;
		return RESP_MORE;
	}
	if (!resp_argv_reserve(request, state->args_done + 1)) {
		return resp_fail(request, "out of memory");
	}
	request->argv[state->args_done].data = state->elsewhere;
	request->argv[state->args_done].bytes = state->bulk_bytes;
	state->args_done++;
	state->bulk_known = false;
	state->elsewhere = NULL;
	state->offset += 2;
	return RESP_COMPLETE;
}

// So many arguments were looked at, up to `at`: the others in another call.
static enum resp_result resp_cut(struct resp_request_state *state, struct resp_request *request,
				 uint32_t end, size_t at)
{
	uint32_t i = request->args_short;
	while (i < end && request->argv[i].bytes - 1 < KVS_KEY_BYTES_MAX) {
		i++;
	}
	request->args_short = i;
	state->offset = at;
	return RESP_CUT;
}

enum resp_result resp_parse_request(struct resp_request_state *state, const char *input,
				    size_t bytes, const struct resp_limits *limits,
				    struct resp_request *request)
{
	request->consumed = 0;
	request->wanted = 0;
	if (state->dropping) {
		return resp_drop(state, input, bytes, limits, request);
	}
	if (state->args_expected == 0) {
		request->args_short = 0;
		if (bytes == 0) {
			return RESP_MORE;
		}
		if (input[0] != '*') {
			return resp_parse_inline(state, input, bytes, limits, request);
		}
		enum resp_result result = resp_parse_head(state, input, bytes, limits, request);
		if (result != RESP_COMPLETE) {
			return result;
		}
	} else if (state->elsewhere != NULL) {
		enum resp_result result = resp_take_elsewhere(state, bytes, request);
		if (result != RESP_COMPLETE) {
			return result;
		}
	}
	size_t at = state->offset;
	uint32_t end = state->args_expected;
	if (limits->args_at_once != 0 && end - state->args_done > limits->args_at_once) {
		end = state->args_done + limits->args_at_once;
	}
	while (state->args_done < end) {
		size_t length = state->bulk_bytes;
		if (!state->bulk_known) {
			enum resp_result result = resp_parse_bulk_line(state, input, bytes, at,
								       request, &length, &at);
			if (result != RESP_COMPLETE) {
				state->offset = at;
				request->wanted = bytes + 1;
				return result;
			}
			if (length > limits->bulk_bytes_max ||
			    at + length > limits->request_bytes_max) {
				return resp_start_drop(state, input, bytes, at, length, limits,
						       request);
			}
		}
		if (bytes - at < length + 2) {
			state->offset = at;
			state->bulk_known = true;
			state->bulk_bytes = length;
			request->wanted = at + length + 2;
			return RESP_MORE;
		}
		if (!resp_argv_reserve(request, state->args_done + 1)) {
			return resp_fail(request, "out of memory");
		}
		request->argv[state->args_done].data = input + at;
		request->argv[state->args_done].bytes = length;
		state->args_done++;
		state->bulk_known = false;
		at += length + 2;
	}
	if (__builtin_expect(end < state->args_expected, 0)) {
		return resp_cut(state, request, end, at);
	}
	request->argc = state->args_done;
	request->consumed = at;
	*state = (struct resp_request_state){ 0 };
	return RESP_COMPLETE;
}

void resp_request_moved(const struct resp_request_state *state, struct resp_request *request,
			const char *from, const char *to)
{
	for (uint32_t i = 0; i < state->args_done && !state->dropping && from != to; i++) {
		size_t offset = (uintptr_t)request->argv[i].data - (uintptr_t)from;
		if (offset < state->offset) { // else it is elsewhere
			request->argv[i].data = to + offset;
		}
	}
}

void resp_request_elsewhere(struct resp_request_state *state, const char *body)
{
	state->elsewhere = body;
}

void resp_request_free(struct resp_request *request)
{
	kvs_mapped_free(request->argv, request->argv_capacity * sizeof(*request->argv));
	free(request->text);
	*request = (struct resp_request){ 0 };
}
