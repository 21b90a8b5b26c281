// SPDX-License-Identifier: MIT
//
// Replies, framed for the protocol version of the connection and written straight into its output
// buffer.

#include "daemon/reply.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "daemon/session_refs.h"

#define REPLY_ERROR_BYTES_MAX 1024
#define REPLY_REFER_BYTES (64u << 10) // from here on a value is not copied, if it can be pinned

#define REPLY_LITERAL(session, text) reply_raw(session, text, sizeof(text) - 1)

void reply_raw(struct session *session, const void *data, size_t bytes)
{
	char *out = session_output_room(session, bytes);
	if (out) {
		memcpy(out, data, bytes);
		session_output_add(session, bytes);
	}
}

static void reply_number(struct session *session, char prefix, int64_t number)
{
	char *out = session_output_room(session, RESP_NUMBER_BYTES_MAX);
	if (out) {
		session_output_add(session, resp_format_number(out, prefix, number));
	}
}

/// A line of text that may hold no line end.
static void reply_line(struct session *session, char prefix, const char *text, size_t bytes)
{
	char *out = session_output_room(session, bytes + 3);
	if (!out) {
		return;
	}
	out[0] = prefix;
	for (size_t i = 0; i < bytes; i++) {
		out[1 + i] = text[i] == '\r' || text[i] == '\n' ? ' ' : text[i];
	}
	memcpy(out + 1 + bytes, "\r\n", 2);
	session_output_add(session, bytes + 3);
}

void reply_status(struct session *session, const char *text)
{
	reply_line(session, '+', text, strlen(text));
}

void reply_ok(struct session *session)
{
	REPLY_LITERAL(session, "+OK\r\n");
}

void reply_error(struct session *session, const char *text)
{
	session->errors_count++;
	reply_line(session, '-', text, strlen(text));
}

void reply_errorf(struct session *session, const char *format, ...)
{
	char text[REPLY_ERROR_BYTES_MAX];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	reply_error(session, n < 0 ? "ERR internal error: unprintable message" : text);
}

void reply_integer(struct session *session, int64_t number)
{
	reply_number(session, ':', number);
}

/// `$` or `=` body with its length.
static void reply_framed(struct session *session, char prefix, const char *head, size_t head_bytes,
			 const void *data, size_t bytes)
{
	char *out = session_output_room(session, RESP_NUMBER_BYTES_MAX + head_bytes + bytes + 2);
	if (!out) {
		return;
	}
	size_t at = resp_format_number(out, prefix, (int64_t)(head_bytes + bytes));
	memcpy(out + at, head, head_bytes);
	at += head_bytes;
	if (bytes > 0) {
		memcpy(out + at, data, bytes);
		at += bytes;
	}
	memcpy(out + at, "\r\n", 2);
	session_output_add(session, at + 2);
}

void reply_bulk_head(struct session *session, size_t bytes)
{
	if (session_output_room(session, RESP_NUMBER_BYTES_MAX + bytes + 2)) {
		reply_number(session, '$', (int64_t)bytes);
	}
}

/// A large value that stays where it stands and is sent from there. False if it must be copied.
static bool reply_refer(struct session *session, const void *data, size_t bytes)
{
	uint64_t start = session->output_position + session->output_end;
	reply_number(session, '$', (int64_t)bytes);
	if (session_refs_add(session, data, bytes)) {
		REPLY_LITERAL(session, "\r\n");
		return true;
	}
	if (!session->dead) {
		session->output_end = (size_t)(start - session->output_position);
	}
	return false;
}

void reply_bulk(struct session *session, const void *data, size_t bytes)
{
	if (__builtin_expect(bytes >= REPLY_REFER_BYTES, 0) && reply_refer(session, data, bytes)) {
		return;
	}
	reply_framed(session, '$', "", 0, data, bytes);
}

void reply_text(struct session *session, const char *text)
{
	reply_bulk(session, text, strlen(text));
}

void reply_null(struct session *session)
{
	if (session->resp_version >= 3) {
		REPLY_LITERAL(session, "_\r\n");
	} else {
		REPLY_LITERAL(session, "$-1\r\n");
	}
}

void reply_null_array(struct session *session)
{
	if (session->resp_version >= 3) {
		REPLY_LITERAL(session, "_\r\n");
	} else {
		REPLY_LITERAL(session, "*-1\r\n");
	}
}

void reply_array(struct session *session, size_t count)
{
	reply_number(session, '*', (int64_t)count);
}

void reply_map(struct session *session, size_t pairs)
{
	if (session->resp_version >= 3) {
		reply_number(session, '%', (int64_t)pairs);
	} else {
		reply_number(session, '*', (int64_t)pairs * 2);
	}
}

void reply_set(struct session *session, size_t count)
{
	reply_number(session, session->resp_version >= 3 ? '~' : '*', (int64_t)count);
}

void reply_push(struct session *session, size_t count)
{
	reply_number(session, session->resp_version >= 3 ? '>' : '*', (int64_t)count);
}

void reply_boolean(struct session *session, bool value)
{
	if (session->resp_version < 3) {
		reply_integer(session, value);
	} else if (value) {
		REPLY_LITERAL(session, "#t\r\n");
	} else {
		REPLY_LITERAL(session, "#f\r\n");
	}
}

void reply_double(struct session *session, double value)
{
	char text[40];
	if (isinf(value)) {
		(void)snprintf(text, sizeof(text), "%s", value > 0 ? "inf" : "-inf");
	} else {
		(void)snprintf(text, sizeof(text), "%.17g", value);
	}
	if (session->resp_version >= 3) {
		reply_line(session, ',', text, strlen(text));
	} else {
		reply_text(session, text);
	}
}

void reply_verbatim(struct session *session, const char *text, size_t bytes)
{
	if (session->resp_version >= 3) {
		reply_framed(session, '=', "txt:", 4, text, bytes);
	} else {
		reply_bulk(session, text, bytes);
	}
}

void reply_verbatim_head(struct session *session, size_t bytes)
{
	if (session->resp_version < 3) {
		reply_bulk_head(session, bytes);
	} else if (session_output_room(session, RESP_NUMBER_BYTES_MAX + 4 + bytes + 2)) {
		reply_number(session, '=', (int64_t)(4 + bytes));
		REPLY_LITERAL(session, "txt:");
	}
}

uint64_t reply_deferred_begin(struct session *session)
{
	char *out = session_output_room(session, RESP_NUMBER_BYTES_MAX);
	uint64_t mark = session->output_position + session->output_end;
	if (out) {
		session_output_add(session, RESP_NUMBER_BYTES_MAX);
	}
	return mark;
}

static void reply_deferred_fill(struct session *session, uint64_t mark, char kind, size_t count)
{
	if (mark < session->output_position + session->output_sent) {
		return; // nobody reads any more, and it was dropped between two slices
	}
	size_t at = (size_t)(mark - session->output_position);
	size_t body = at + RESP_NUMBER_BYTES_MAX;
	if (session->output_end < body) {
		return; // there was no room: the session is dead
	}
	char *out = session->output;
	if (session->output_sent == at) { // nothing before it is left: the gap goes there
		char number[RESP_NUMBER_BYTES_MAX];
		size_t bytes = resp_format_number(number, kind, (int64_t)count);
		size_t gap = RESP_NUMBER_BYTES_MAX - bytes;
		memcpy(out + at + gap, number, bytes);
		session->output_sent += gap;
		if (session->command_start == mark) {
			session->command_start += gap;
		}
		return;
	}
	size_t head = resp_format_number(out + at, kind, (int64_t)count);
	memmove(out + at + head, out + body, session->output_end - body);
	session_refs_shift(session, session->output_position + body,
			   (int64_t)head - RESP_NUMBER_BYTES_MAX);
	session->output_end -= RESP_NUMBER_BYTES_MAX - head;
}

void reply_deferred_end(struct session *session, uint64_t mark, size_t count)
{
	reply_deferred_fill(session, mark, '*', count);
}

void reply_deferred_map_end(struct session *session, uint64_t mark, size_t pairs)
{
	bool map = session->resp_version >= 3;
	reply_deferred_fill(session, mark, map ? '%' : '*', map ? pairs : 2 * pairs);
}
