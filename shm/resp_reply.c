// SPDX-License-Identifier: MIT
//
// The reply side of RESP: what clients parse, and the numbers that both sides format. A client
// trusts kvd's replies no more than kvd trusts requests: lengths and nesting are bounded.

#include <string.h>

#include "shm/resp.h"

/// The line at input[1..): its length without CR LF, and where the next begins.
static enum resp_result resp_reply_line(const char *input, size_t bytes, size_t *line_bytes,
					size_t *next)
{
	size_t search = bytes < KVS_INLINE_BYTES_MAX ? bytes : KVS_INLINE_BYTES_MAX;
	const char *end = memchr(input, '\n', search);
	if (!end) {
		return bytes >= KVS_INLINE_BYTES_MAX ? RESP_ERROR : RESP_MORE;
	}
	size_t length = (size_t)(end - input);
	if (length < 2 || input[length - 1] != '\r') {
		return RESP_ERROR;
	}
	*line_bytes = length - 2;
	*next = length + 1;
	return RESP_COMPLETE;
}

static enum resp_result resp_reply_bulk(const char *input, size_t bytes, size_t bulk_bytes_max,
					struct resp_node *node, size_t at, size_t *consumed)
{
	int64_t length = node->integer;
	node->integer = 0;
	if (length == -1 && node->type == RESP_TYPE_BULK) {
		node->null = true;
		*consumed = at;
		return RESP_COMPLETE;
	}
	if (length < 0 || (uint64_t)length > bulk_bytes_max) {
		return RESP_ERROR;
	}
	size_t body = (size_t)length;
	if (bytes - at < body || bytes - at - body < 2) {
		return RESP_MORE;
	}
	if (input[at + body] != '\r' || input[at + body + 1] != '\n') {
		return RESP_ERROR;
	}
	*consumed = at + body + 2;
	node->data = input + at;
	node->bytes = body;
	if (node->type == RESP_TYPE_VERBATIM) {
		if (body < 4 || node->data[3] != ':') {
			return RESP_ERROR;
		}
		node->data += 4;
		node->bytes -= 4;
	}
	return RESP_COMPLETE;
}

static enum resp_result resp_reply_aggregate(struct resp_node *node)
{
	if (node->integer == -1 && node->type == RESP_TYPE_ARRAY) {
		node->null = true;
		node->integer = 0;
		return RESP_COMPLETE;
	}
	if (node->integer < 0 || node->integer > RESP_CHILDREN_MAX) {
		return RESP_ERROR;
	}
	if (node->type == RESP_TYPE_MAP || node->type == RESP_TYPE_ATTRIBUTE) {
		node->integer *= 2;
	}
	return RESP_COMPLETE;
}

enum resp_result resp_parse_node(const char *input, size_t bytes, size_t bulk_bytes_max,
				 struct resp_node *node, size_t *consumed)
{
	size_t line_bytes = 0;
	size_t next = 0;
	enum resp_result result = resp_reply_line(input, bytes, &line_bytes, &next);
	if (result != RESP_COMPLETE) {
		return result;
	}
	*node = (struct resp_node){
		.type = (enum resp_type)(unsigned char)input[0],
		.data = input + 1,
		.bytes = line_bytes,
	};
	*consumed = next;
	switch (node->type) {
	case RESP_TYPE_STATUS:
	case RESP_TYPE_ERROR:
	case RESP_TYPE_DOUBLE:
	case RESP_TYPE_BIG_NUMBER:
		return RESP_COMPLETE;
	case RESP_TYPE_NULL:
		node->null = true;
		return line_bytes == 0 ? RESP_COMPLETE : RESP_ERROR;
	case RESP_TYPE_BOOLEAN:
		node->integer = line_bytes == 1 && input[1] == 't';
		return line_bytes == 1 && (input[1] == 't' || input[1] == 'f') ? RESP_COMPLETE
									       : RESP_ERROR;
	case RESP_TYPE_INTEGER:
	case RESP_TYPE_BULK:
	case RESP_TYPE_BULK_ERROR:
	case RESP_TYPE_VERBATIM:
	case RESP_TYPE_ARRAY:
	case RESP_TYPE_MAP:
	case RESP_TYPE_SET:
	case RESP_TYPE_PUSH:
	case RESP_TYPE_ATTRIBUTE:
		break;
	default:
		return RESP_ERROR;
	}
	if (!resp_parse_int(input + 1, line_bytes, &node->integer)) {
		return RESP_ERROR;
	}
	if (node->type == RESP_TYPE_INTEGER) {
		return RESP_COMPLETE;
	}
	node->data = NULL;
	node->bytes = 0;
	if (node->type == RESP_TYPE_BULK || node->type == RESP_TYPE_BULK_ERROR ||
	    node->type == RESP_TYPE_VERBATIM) {
		return resp_reply_bulk(input, bytes, bulk_bytes_max, node, next, consumed);
	}
	return resp_reply_aggregate(node);
}

/// How many nodes follow before this one is complete.
static uint64_t resp_children(const struct resp_node *node)
{
	switch (node->type) {
	case RESP_TYPE_ARRAY:
	case RESP_TYPE_MAP:
	case RESP_TYPE_SET:
	case RESP_TYPE_PUSH:
		return (uint64_t)node->integer;
	case RESP_TYPE_ATTRIBUTE:
		return (uint64_t)node->integer + 1; // and the reply it describes
	default:
		return 0;
	}
}

enum resp_result resp_measure_reply(struct resp_reply_state *resume, const char *input,
				    size_t bytes, size_t bulk_bytes_max, size_t *consumed,
				    size_t *nodes)
{
	do {
		struct resp_node node;
		size_t node_bytes = 0;
		if (resume->offset == bytes) {
			return RESP_MORE;
		}
		enum resp_result result =
			resp_parse_node(input + resume->offset, bytes - resume->offset,
					bulk_bytes_max, &node, &node_bytes);
		if (result != RESP_COMPLETE) {
			return result;
		}
		resume->offset += node_bytes;
		resume->nodes++;
		if (resume->depth > 0) {
			resume->left[resume->depth - 1]--;
		}
		uint64_t children = resp_children(&node);
		if (children > 0) {
			if (resume->depth == RESP_DEPTH_MAX) {
				return RESP_ERROR;
			}
			resume->left[resume->depth++] = children;
		}
		while (resume->depth > 0 && resume->left[resume->depth - 1] == 0) {
			resume->depth--;
		}
	} while (resume->depth > 0);
	*consumed = resume->offset;
	*nodes = resume->nodes;
	*resume = (struct resp_reply_state){ 0 };
	return RESP_COMPLETE;
}

static const char resp_digit_pairs[] = "00010203040506070809101112131415161718192021222324"
				       "25262728293031323334353637383940414243444546474849"
				       "50515253545556575859606162636465666768697071727374"
				       "75767778798081828384858687888990919293949596979899";

size_t resp_format_int(char *out, int64_t number)
{
	char digits[20];
	size_t at = sizeof(digits);
	uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
	while (rest >= 100) {
		at -= 2;
		memcpy(digits + at, resp_digit_pairs + rest % 100 * 2, 2);
		rest /= 100;
	}
	if (rest >= 10) {
		at -= 2;
		memcpy(digits + at, resp_digit_pairs + rest * 2, 2);
	} else {
		digits[--at] = (char)('0' + rest);
	}
	size_t sign = number < 0;
	if (sign) {
		out[0] = '-';
	}
	memcpy(out + sign, digits + at, sizeof(digits) - at);
	return sign + sizeof(digits) - at;
}

size_t resp_format_number(char *out, char prefix, int64_t number)
{
	out[0] = prefix;
	size_t bytes = 1 + resp_format_int(out + 1, number);
	out[bytes] = '\r';
	out[bytes + 1] = '\n';
	return bytes + 2;
}

bool resp_parse_int(const char *data, size_t bytes, int64_t *number)
{
	bool negative = bytes > 0 && data[0] == '-';
	size_t at = negative;
	if (bytes - at == 0 || bytes - at > 19) {
		return false;
	}
	if (data[at] == '0') {
		*number = 0;
		return bytes == 1; // neither "-0" nor leading zeros
	}
	uint64_t value = 0;
	for (; at < bytes; at++) {
		unsigned digit = (unsigned char)data[at] - (unsigned)'0';
		if (digit > 9) {
			return false;
		}
		value = value * 10 + digit; // 19 digits fit 64 bits
	}
	if (value > (uint64_t)INT64_MAX + negative) {
		return false;
	}
	*number = negative ? (int64_t)-value : (int64_t)value;
	return true;
}
