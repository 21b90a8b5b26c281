// SPDX-License-Identifier: MIT
//
// What commands answer with: typed replies that come out as RESP2 or RESP3, whichever the
// connection speaks, appended to its bounded output buffer without printf and without a second
// copy. A buffer that cannot grow marks the session for closing; commands need not check.
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct session;

void reply_status(struct session *session, const char *text); // +text
void reply_ok(struct session *session);
/// -text; the text begins with its code: "ERR …", "WRONGTYPE …". CR and LF are replaced by spaces.
void reply_error(struct session *session, const char *text);
void reply_errorf(struct session *session, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void reply_integer(struct session *session, int64_t number);
void reply_bulk(struct session *session, const void *data, size_t bytes);
/// The length of a bulk whose bytes and line end follow by reply_raw(), with room for them.
void reply_bulk_head(struct session *session, size_t bytes);
void reply_text(struct session *session, const char *text); // bulk of a C string
void reply_null(struct session *session); // $-1 or _
void reply_null_array(struct session *session); // *-1 or _
void reply_array(struct session *session, size_t count);
void reply_map(struct session *session, size_t pairs); // RESP2: array of 2 * pairs
void reply_set(struct session *session, size_t count); // RESP2: array
void reply_push(struct session *session, size_t count); // RESP2: array
void reply_boolean(struct session *session, bool value); // RESP2: 1 or 0
void reply_double(struct session *session, double value); // RESP2: bulk
void reply_verbatim(struct session *session, const char *text, size_t bytes); // RESP2: bulk
/// Its length, as reply_bulk_head().
void reply_verbatim_head(struct session *session, size_t bytes);
void reply_raw(struct session *session, const void *data, size_t bytes); // already framed

/// Array whose length is known later: begin returns a mark, end fills it in.
uint64_t reply_deferred_begin(struct session *session);
void reply_deferred_end(struct session *session, uint64_t mark, size_t count);
/// The same as a map of so many pairs.
void reply_deferred_map_end(struct session *session, uint64_t mark, size_t pairs);
