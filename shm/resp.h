// SPDX-License-Identifier: MIT
//
// RESP, both directions, both sides: the incremental request parser that kvd runs on untrusted
// bytes, the incremental reply parser that clients run, and the formatting of small frames without
// printf. Functions over byte ranges, no I/O, so that a fuzzer can have them whole; only the
// request parser allocates, and only until its arrays have the size that a connection needs.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/limits.h"

/// One argument of a request: bytes inside the caller's input buffer.
struct resp_arg {
	const char *data;
	size_t bytes;
};

enum resp_result {
	RESP_COMPLETE,	// one whole request or reply was consumed
	RESP_MORE,	// the input ends inside it: call again with more
	RESP_ERROR,	// protocol error: `error` has Redis's text, the connection must close
	RESP_EMPTY,	// an empty line or array was consumed: no request in it
	RESP_CUT,	// args_at_once of them were looked at, and there may be more: call again
	RESP_TOO_LARGE, // a well-formed request over a limit was dropped: `error` says which limit
};

/// Progress of a request that arrives in pieces, so that a half frame is never parsed from its
/// start again. Zero it for a new connection; the parser resets it when a request is complete.
struct resp_request_state {
	uint32_t args_expected; // 0 = at the start of a request
	uint32_t args_done;
	size_t offset;	// parsed so far, from the start of the request
	size_t scanned; // searched for a line end so far, from the start of the request
	// length of the argument whose body is awaited; while dropping: bytes to drop
	size_t bulk_bytes;
	bool bulk_known;
	bool dropping; // the request is over a limit: the rest of it is consumed as it comes
	const char *elsewhere; // the body of that argument, all of it, is here, not in the input
};

/// Limits are checked before anything is kept. A request over bulk_bytes_max or request_bytes_max
/// is dropped as it comes, without being buffered, and ends as RESP_TOO_LARGE; one over the others
/// is a protocol error.
struct resp_limits {
	size_t bulk_bytes_max;	  // longest argument accepted, at most KVS_VALUE_BYTES_MAX
	size_t request_bytes_max; // longest request accepted, framing included
	size_t inline_bytes_max;
	uint32_t args_max;
	uint32_t args_at_once; // looked at in one call, 0 = all that are there
};

/// A request. Zero it before its first use and reuse it for the next request: what it has allocated
/// stays, so that after a while nothing is allocated any more. resp_request_free() at the end.
struct resp_request {
	struct resp_arg
		*argv; // arguments point into the input, those of inline requests into `text`
	uint32_t argc;
	uint32_t argv_capacity;
	uint32_t args_short; // so many of the first, where it was cut, have a key's 1..511 bytes
	char *text; // unquoted inline arguments
	size_t text_capacity;
	size_t consumed; // bytes of input to drop, for every result but RESP_ERROR
	// for RESP_MORE: total input bytes that would let parsing go on, a hint; 0 = any
	size_t wanted;
	const char *
		// RESP_ERROR: text after "-ERR Protocol error: "; RESP_TOO_LARGE: after "-ERR "
		error;
	char error_text[128];
};

/// Parses one request (array of bulk strings, or an inline command with Redis's quoting) from the
/// `bytes` bytes at `input`, which must begin where the request begins. RESP_MORE and RESP_CUT
/// consume nothing, except while a request over a limit is being dropped. Grows request->argv
/// (shm/mapped.h) and request->text; RESP_ERROR "out of memory" if that fails. After RESP_MORE the
/// same request and state must be passed again, with more input at the same address or after
/// resp_request_moved(); after RESP_CUT too, with what there is.
enum resp_result resp_parse_request(struct resp_request_state *state, const char *input,
				    size_t bytes, const struct resp_limits *limits,
				    struct resp_request *request);

/// The unfinished request that began at `from` begins at `to` now: its arguments follow. Neither
/// address is accessed.
void resp_request_moved(const struct resp_request_state *state, struct resp_request *request,
			const char *from, const char *to);

/// The body of the argument that is awaited, state->bulk_bytes of it, was received at `body`: in
/// the input its line is followed by the end of the body. It stays where it is when the input
/// moves.
/// Call with: state->bulk_known, not dropping, nothing of the body left in the input.
void resp_request_elsewhere(struct resp_request_state *state, const char *body);

/// Frees what a request has allocated and zeroes it.
void resp_request_free(struct resp_request *request);

enum resp_type {
	RESP_TYPE_STATUS = '+',
	RESP_TYPE_ERROR = '-',
	RESP_TYPE_INTEGER = ':',
	RESP_TYPE_BULK = '$',
	RESP_TYPE_ARRAY = '*',
	RESP_TYPE_NULL = '_',
	RESP_TYPE_BOOLEAN = '#',
	RESP_TYPE_DOUBLE = ',',
	RESP_TYPE_BIG_NUMBER = '(',
	RESP_TYPE_BULK_ERROR = '!',
	RESP_TYPE_VERBATIM = '=',
	RESP_TYPE_MAP = '%',
	RESP_TYPE_SET = '~',
	RESP_TYPE_PUSH = '>',
	RESP_TYPE_ATTRIBUTE = '|',
};

/// One node of a reply: a scalar, or the head of an aggregate whose elements follow as nodes.
struct resp_node {
	enum resp_type type;
	bool null;	 // $-1, *-1 or _
	// INTEGER, BOOLEAN; for aggregates the number of child nodes (maps: 2 * pairs)
	int64_t integer;
	const char *data; // STATUS, ERROR, BULK, VERBATIM, DOUBLE, BIG_NUMBER: text in the input
	size_t bytes;
};

/// Reads one node at input[0..bytes). *consumed is set for RESP_COMPLETE. An aggregate's elements
/// are read by further calls; an attribute's are followed by the reply it belongs to. The format
/// mark of a VERBATIM ("txt:") is not part of its data. Lengths over `bulk_bytes_max`, streamed
/// aggregates and lines over KVS_INLINE_BYTES_MAX are RESP_ERROR.
enum resp_result resp_parse_node(const char *input, size_t bytes, size_t bulk_bytes_max,
				 struct resp_node *node, size_t *consumed);

#define RESP_DEPTH_MAX 16u
#define RESP_CHILDREN_MAX (INT64_C(1) << 31) // of one aggregate

/// Length of the first whole reply (all its elements) at `input`: RESP_COMPLETE sets *consumed and
/// *nodes (count of nodes in it). Nesting deeper than RESP_DEPTH_MAX is RESP_ERROR. `resume`
/// (zeroed at the start of a reply, zeroed again by RESP_COMPLETE) keeps the place over RESP_MORE.
struct resp_reply_state {
	size_t offset;
	size_t nodes;
	uint32_t depth;
	uint64_t left[RESP_DEPTH_MAX]; // nodes still to come on each level
};
enum resp_result resp_measure_reply(struct resp_reply_state *resume, const char *input,
				    size_t bytes, size_t bulk_bytes_max, size_t *consumed,
				    size_t *nodes);

#define RESP_NUMBER_BYTES_MAX 24u // sign, 20 digits, CR LF, spare

/// Formats `<prefix><number>\r\n` at `out` (RESP_NUMBER_BYTES_MAX bytes). Returns its length.
size_t resp_format_number(char *out, char prefix, int64_t number);

/// Decimal text of `number` at `out` (21 bytes suffice), no NUL. Returns its length.
size_t resp_format_int(char *out, int64_t number);

/// Strict decimal as Redis's string2ll: no spaces, no plus, no leading zeros, whole range of int64.
bool resp_parse_int(const char *data, size_t bytes, int64_t *number);
