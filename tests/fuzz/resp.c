// SPDX-License-Identifier: MIT
//
// Fuzz target for both RESP parsers. Parsing in one piece and in pieces must agree, on requests
// with small limits and on replies; every argument must lie inside the input (or the unquoted
// text), and what is consumed must never exceed what was given.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shm/resp.h"

#define RESULTS_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const struct resp_limits fuzz_limits = {
	.bulk_bytes_max = 64,
	.request_bytes_max = 256,
	.inline_bytes_max = 128,
	.args_max = 1000,
};

static void require(bool condition)
{
	if (!condition) {
		abort();
	}
}

/// What a run saw: one hash over results and arguments.
struct trace {
	uint64_t hash;
	unsigned results;
	bool failed;
};

static void trace_bytes(struct trace *trace, const void *data, size_t bytes)
{
	const uint8_t *at = data;
	for (size_t i = 0; i < bytes; i++) {
		trace->hash = (trace->hash ^ at[i]) * UINT64_C(0x100000001b3);
	}
	trace->hash = (trace->hash ^ bytes) * UINT64_C(0x100000001b3);
}

static void trace_request(struct trace *trace, enum resp_result result,
			  const struct resp_request *request, const char *input, size_t bytes)
{
	trace->results++;
	trace_bytes(trace, &result, sizeof(result));
	if (result == RESP_ERROR || result == RESP_TOO_LARGE) {
		trace_bytes(trace, request->error, strlen(request->error));
	}
	for (uint32_t i = 0; result == RESP_COMPLETE && i < request->argc; i++) {
		const struct resp_arg *arg = &request->argv[i];
		bool inside = arg->data >= input && arg->data + arg->bytes <= input + bytes;
		bool unquoted = request->text && arg->data >= request->text &&
				arg->data + arg->bytes <= request->text + request->text_capacity;
		require(arg->bytes <= 128 && (inside || unquoted || arg->bytes == 0));
		trace_bytes(trace, arg->data, arg->bytes);
	}
}

/// Gives `step` bytes more at a time, each time in memory of exactly the size given so far.
static struct trace run_requests(const char *input, size_t bytes, size_t step)
{
	struct trace trace = { .hash = 1 };
	struct resp_request_state state = { 0 };
	struct resp_request request = { 0 };
	size_t start = 0;
	size_t end = step < bytes ? step : bytes;
	char *copy = malloc(end + 1);
	memcpy(copy, input, end);
	while (!trace.failed && trace.results < RESULTS_MAX) {
		enum resp_result result =
			resp_parse_request(&state, copy, end - start, &fuzz_limits, &request);
		require(request.consumed <= end - start);
		if (result != RESP_MORE) {
			trace_request(&trace, result, &request, copy, end - start);
			trace.failed = result == RESP_ERROR;
			require(result == RESP_ERROR || request.consumed > 0 ||
				result == RESP_TOO_LARGE);
		} else if (end == bytes) {
			break;
		}
		start += request.consumed;
		size_t next = result == RESP_MORE ? end + step : end;
		next = next < bytes ? next : bytes;
		char *moved = malloc(next - start + 1);
		memcpy(moved, input + start, next - start);
		if (result == RESP_MORE) {
			resp_request_moved(&state, &request, copy, moved);
		}
		free(copy);
		copy = moved;
		end = next;
	}
	free(copy);
	resp_request_free(&request);
	return trace;
}

static void check_replies(const char *input, size_t bytes)
{
	struct resp_reply_state whole = { 0 };
	struct resp_reply_state pieces = { 0 };
	size_t consumed = 0, nodes = 0, pieces_consumed = 0, pieces_nodes = 0;
	enum resp_result result = resp_measure_reply(&whole, input, bytes, 1000, &consumed, &nodes);
	enum resp_result in_pieces = RESP_MORE;
	for (size_t n = 0; n <= bytes && in_pieces == RESP_MORE; n++) {
		in_pieces = resp_measure_reply(&pieces, input, n, 1000, &pieces_consumed,
					       &pieces_nodes);
	}
	require(result == in_pieces);
	if (result != RESP_COMPLETE) {
		return;
	}
	require(consumed == pieces_consumed && nodes == pieces_nodes && consumed <= bytes);
	size_t at = 0;
	for (size_t i = 0; i < nodes; i++) {
		struct resp_node node;
		size_t node_bytes = 0;
		require(resp_parse_node(input + at, consumed - at, 1000, &node, &node_bytes) ==
			RESP_COMPLETE);
		require(!node.data ||
			(node.data >= input && node.data + node.bytes <= input + consumed));
		at += node_bytes;
	}
	require(at == consumed);
}

static void check_numbers(const char *input, size_t bytes)
{
	int64_t number;
	char text[RESP_NUMBER_BYTES_MAX];
	if (resp_parse_int(input, bytes, &number)) {
		require(resp_format_int(text, number) == bytes && memcmp(text, input, bytes) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes < 2 || bytes > 4096) {
		return 0;
	}
	size_t step = 1 + data[0] % 64;
	const char *input = (const char *)data + 1;
	struct trace whole = run_requests(input, bytes - 1, bytes);
	struct trace pieces = run_requests(input, bytes - 1, step);
	require(whole.hash == pieces.hash && whole.results == pieces.results);
	check_replies(input, bytes - 1);
	check_numbers(input, bytes - 1);
	return 0;
}
