// SPDX-License-Identifier: MIT
//
// Replies that wait for a commit. Output is one stream, so holding back means: nothing from the
// first waiting reply on is sent, whatever stands behind it. The place of every waiting write's
// reply is remembered, because a commit that fails turns exactly those into errors.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace.h"
#include "daemon/log.h"
#include "daemon/session_parts.h"
#include "daemon/session_refs.h"

#define SESSION_ERROR_BYTES_MAX 256

void session_hold_until(struct session *session, uint64_t seq)
{
	if (seq > keyspace_durable_seq(session->kvd->keyspace) && seq > session->command_hold_seq) {
		session->command_hold_seq = seq;
	}
}

bool session_set_policy(struct session *session, enum persist_policy policy)
{
	enum persist_policy server = (enum persist_policy)session->kvd->config.persist_policy;
	if (policy < server || (server == PERSIST_MEMORY && policy != PERSIST_MEMORY)) {
		return false;
	}
	session->policy = policy;
	return true;
}

/// Room for one more element at *end of a queue; what stands before *first is gone already.
static bool session_queue_room(struct session *session, void **items, size_t item_bytes,
			       size_t *first, size_t *end, size_t *capacity)
{
	if (*end < *capacity) {
		return true;
	}
	if (*first >= *capacity / 2 && *first > 0) {
		memmove(*items, (char *)*items + *first * item_bytes, (*end - *first) * item_bytes);
		*end -= *first;
		*first = 0;
		return true;
	}
	size_t more = *capacity ? *capacity * 2 : 32;
	if (!session_charge(session, (more - *capacity) * item_bytes)) {
		return false;
	}
	void *grown = reallocarray(*items, more, item_bytes);
	if (!grown) {
		session_uncharge(session, (more - *capacity) * item_bytes);
		session_kill(session, "out of memory");
		return false;
	}
	*items = grown;
	*capacity = more;
	return true;
}

void session_hold_add(struct session *session, uint64_t start, uint64_t end, uint64_t seq)
{
	if (session->dead) {
		return;
	}
	void *spans = session->spans;
	bool room =
		session_queue_room(session, &spans, sizeof(*session->spans), &session->spans_first,
				   &session->spans_end, &session->spans_capacity);
	session->spans = spans;
	if (!room) {
		return; // the session is dead now: nothing will be sent
	}
	session->spans[session->spans_end++] =
		(struct session_span){ .start = start, .end = end, .seq = seq };
	struct session_shared *shared = session->shared;
	shared->request_seq = seq > shared->request_seq ? seq : shared->request_seq;
	if (session->hold_open) {
		struct session_hold *hold = &session->holds[session->holds_end - 1];
		hold->seq = seq > hold->seq ? seq : hold->seq;
		return;
	}
	void *holds = session->holds;
	room = session_queue_room(session, &holds, sizeof(*session->holds), &session->holds_first,
				  &session->holds_end, &session->holds_capacity);
	session->holds = holds;
	if (!room) {
		return;
	}
	session->holds[session->holds_end++] = (struct session_hold){ .start = start, .seq = seq };
	session->hold_open = true;
	session_set_held(session, true);
}

uint64_t session_sendable(const struct session *session)
{
	if (session->holds_first < session->holds_end) {
		return session->holds[session->holds_first].start;
	}
	if (session->task) {
		return session->command_start; // its reply is not complete
	}
	return session->output_position + session->output_end;
}

static bool session_span_failed(const struct session_span *span, uint64_t durable, uint64_t failed)
{
	return span->seq > durable && span->seq <= failed && span->end > span->start;
}

/// Shifts what stands at or behind stream position `from` by `delta` bytes.
static uint64_t session_shifted(uint64_t position, uint64_t from, int64_t delta)
{
	return position >= from ? position + (uint64_t)delta : position;
}

/// Writes the unsent output to `out` with failed replies replaced; positions of spans and of
/// descriptors follow. A replaced span becomes settled: its seq is 0.
static size_t session_rewrite(struct session *session, char *out, uint64_t durable, uint64_t failed,
			      const char *error, size_t error_bytes)
{
	uint64_t base = session->output_position;
	size_t from = session->output_sent;
	size_t end = 0;
	int64_t delta = 0;
	size_t hold = session->holds_first;
	uint64_t fds_position = session->fds_position;
	uint64_t fds_end = session->fds_end;
	for (size_t i = session->spans_first; i < session->spans_end; i++) {
		struct session_span *span = &session->spans[i];
		for (; hold < session->holds_end && session->holds[hold].start <= span->start;
		     hold++) {
			session->holds[hold].start += (uint64_t)delta;
		}
		size_t start = (size_t)(span->start - base);
		size_t stop = (size_t)(span->end - base);
		bool fails = session_span_failed(span, durable, failed);
		if (fails) { // whatever of it would be sent from where it stands
			session_refs_forget(session, span->start + (uint64_t)delta,
					    span->end + (uint64_t)delta);
		}
		size_t keep = (fails ? start : stop) - from;
		memcpy(out + end, session->output + from, keep);
		end += keep;
		uint64_t old_end = span->end;
		span->start += (uint64_t)delta;
		if (fails) {
			memcpy(out + end, error, error_bytes);
			end += error_bytes;
			int64_t change = (int64_t)error_bytes - (int64_t)(stop - start);
			delta += change;
			fds_position = session_shifted(
				fds_position, old_end + (uint64_t)(delta - change), change);
			fds_end = session_shifted(fds_end, old_end + (uint64_t)(delta - change),
						  change);
			session_refs_shift(session, old_end + (uint64_t)(delta - change), change);
			span->seq = 0;
		}
		span->end += (uint64_t)delta;
		from = stop;
	}
	memcpy(out + end, session->output + from, session->output_end - from);
	session->fds_position = fds_position;
	session->fds_end = fds_end;
	if (session->task) { // behind all of them
		session->command_start += (uint64_t)delta;
		session->task->call.mark += (uint64_t)delta;
	}
	return end + session->output_end - from;
}

/// Turns the replies of writes in (durable, failed] into errors.
static void session_fail_spans(struct session *session, uint64_t durable, uint64_t failed,
			       const char *why)
{
	char error[SESSION_ERROR_BYTES_MAX];
	int n = snprintf(error, sizeof(error) - 2, "-IOERR not durable: %.200s", why);
	size_t error_bytes = n < 0 ? 0 : strnlen(error, sizeof(error) - 3);
	for (size_t i = 0; i < error_bytes; i++) {
		error[i] = error[i] == '\r' || error[i] == '\n' ? ' ' : error[i];
	}
	memcpy(error + error_bytes, "\r\n", 2);
	error_bytes += 2;
	size_t count = 0;
	for (size_t i = session->spans_first; i < session->spans_end; i++) {
		count += session_span_failed(&session->spans[i], durable, failed);
	}
	if (count == 0) {
		return;
	}
	size_t bytes = session->output_end - session->output_sent + count * error_bytes;
	if (!session_charge(session, bytes)) {
		return;
	}
	char *out = malloc(bytes);
	if (!out) {
		session_uncharge(session, bytes);
		session_kill(session, "out of memory");
		return;
	}
	session->errors_count += count;
	size_t end = session_rewrite(session, out, durable, failed, error, error_bytes);
	session_output_replace(session, out, bytes, end);
}

void session_settle(struct session *session, uint64_t durable, uint64_t failed, const char *why)
{
	if (failed > durable && !session->dead) {
		session_fail_spans(session, durable, failed, why);
	}
	uint64_t settled = failed > durable ? failed : durable;
	size_t first = session->holds_first;
	while (first < session->holds_end && session->holds[first].seq <= settled) {
		first++;
	}
	if (first == session->holds_first) {
		return;
	}
	session->holds_first = first;
	bool all = first == session->holds_end;
	uint64_t free_until = all ? UINT64_MAX : session->holds[first].start;
	while (session->spans_first < session->spans_end &&
	       session->spans[session->spans_first].start < free_until) {
		session->spans_first++;
	}
	if (all) {
		session->holds_first = session->holds_end = 0;
		session->spans_first = session->spans_end = 0;
		session->hold_open = false;
		session_set_held(session, false);
	}
	session_set_sending(session);
}

void session_hold_free(struct session *session)
{
	session_uncharge(session, session->spans_capacity * sizeof(*session->spans) +
					  session->holds_capacity * sizeof(*session->holds));
	free(session->spans);
	free(session->holds);
	session->spans = NULL;
	session->holds = NULL;
	session->spans_first = session->spans_end = session->spans_capacity = 0;
	session->holds_first = session->holds_end = session->holds_capacity = 0;
	session->hold_open = false;
	session_set_held(session, false);
}
