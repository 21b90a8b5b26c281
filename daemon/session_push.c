// SPDX-License-Identifier: MIT
//
// A subscriber that reads too slowly is not waited for: what it leaves unread grows up to a bound,
// or stays over a lower one for a time, then it is closed. Before that is decided, what its socket
// takes is sent: a burst within one turn is not slowness. It gets the rest of the frame that it is
// reading, and why it is closed, if it reads on within seconds.
#include "daemon/session_push.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/refuse.h"
#include "daemon/reply.h"
#include "daemon/seam.h"
#include "daemon/session_parts.h"
#include "daemon/session_refs.h"

#define SESSION_SPARE_SHARE 8u			// of a uid's buffers, not for subscriptions
#define SESSION_PUSH_CLOCK_EVERY 16u		// sends between two looks at the clock
#define SESSION_PUSH_LARGE 16384u		// one that sends as much is like so many
#define SESSION_PUSH_REFER_BYTES 16384u		// from here on a message is shared, not copied
#define SESSION_LEAVING_NS UINT64_C(5000000000) // to read why it is closed

bool session_push_possible(const struct session *session)
{
	return !session->dead && !session->close_after_reply && !session->output_broken;
}

/// Remembers where a frame begins that is not sent yet: behind the newest of which nothing is.
static void session_push_mark(struct session *session)
{
	uint64_t sent = session->output_position + session->output_sent;
	if (!session->task && session->frame_start < sent) {
		session->frame_start = session->output_position + session->output_end;
	}
}

void session_push_begin(struct session *session, size_t count)
{
	session_task_aside(session); // behind the reply of a command that is under way
	session_push_mark(session);
	session->push_start = session->output_position + session->output_end;
	reply_push(session, count);
}

/// Leaves of the unread output what belongs to the frame under way, puts an error behind it, and
/// lets the client have that for a moment. False if where that frame ends is not known.
static bool session_push_farewell(struct session *session)
{
	static const char text[] = "-ERR closed: messages were not read fast enough "
				   "(subscriber-output-max, subscriber-output-soft)\r\n";
	uint64_t sent = session->output_position + session->output_sent;
	uint64_t end = session->output_position + session->output_end;
	if (session->task || session->frame_start < sent || session->frame_start > end ||
	    session->fds_count > 0 || session->holds_first < session->holds_end ||
	    session->reply_end > 0) {
		return false;
	}
	session_refs_forget(session, session->frame_start, UINT64_MAX);
	size_t kept = (size_t)(session->frame_start - sent);
	size_t bytes = kept + sizeof(text) - 1;
	if (!session_take(session, bytes)) {
		return false;
	}
	char *out = malloc(bytes);
	if (!out) {
		session_give(session, bytes);
		return false;
	}
	memcpy(out, session->output + session->output_sent, kept);
	memcpy(out + kept, text, sizeof(text) - 1);
	session_output_replace(session, out, bytes, bytes);
	session->close_after_reply = true;
	session->is_leaving = true;
	session->soft_since_ns = loop_now_ns(session->kvd->loop);
	TAILQ_INSERT_TAIL(&session->shared->leaving, session, soft_link);
	session_send(session);
	return true;
}

static void session_push_set_soft(struct session *session, bool soft)
{
	struct session_shared *shared = session->shared;
	if (soft && !session->is_soft) {
		session->soft_since_ns = loop_now_ns(session->kvd->loop);
		TAILQ_INSERT_TAIL(&shared->soft, session, soft_link);
	} else if (!soft && session->is_soft) {
		TAILQ_REMOVE(&shared->soft, session, soft_link);
	}
	session->is_soft = soft;
}

/// Closes a subscriber that does not keep up.
static void session_push_cut_off(struct session *session, const char *bound)
{
	refuse(session, REFUSAL_OUTPUT,
	       "it does not keep up with its subscriptions: %zu bytes are unread (%s); read them, "
	       "or "
	       "raise that",
	       session_output_used(session), bound);
	session_push_set_soft(session, false);
	if (!session_push_farewell(session)) {
		session_kill(session, NULL);
	}
}

/// Is there as much unread as `bound`, 0 = no bound? Who is no subscriber may leave replies unread;
/// only what was pushed counts then.
static bool session_push_reaches(const struct session *session, uint64_t bound)
{
	size_t used = session_output_used(session);
	return bound > 0 && used >= bound && (session->pubsub || session->pushed_bytes >= bound);
}

static void session_push_check(struct session *session)
{
	const struct config *config = &session->kvd->config;
	bool soft = session_push_reaches(session, config->subscriber_soft_bytes);
	bool hard = session_push_reaches(session, config->subscriber_output_max);
	if (__builtin_expect(soft || hard, 0) && !session->output_full) {
		session->is_early = true; // rather an answer too soon than being cut off
		session_send(session);
		session->is_early = false;
		soft = session_push_reaches(session, config->subscriber_soft_bytes);
		hard = session_push_reaches(session, config->subscriber_output_max);
	}
	if (session->dead) {
		return;
	}
	if (hard) {
		session_push_cut_off(session, "subscriber-output-max");
	} else {
		session_push_set_soft(session, soft);
	}
}

void session_push_end(struct session *session)
{
	session->pushed_bytes +=
		session->output_position + session->output_end - session->push_start;
	session_task_back(session);
	if (session->dead) {
		return;
	}
	session_count_up(session->shared, KVS_COUNTER_messages_pushed, 1);
	if (!session->is_pushed) {
		session->is_pushed = true;
		TAILQ_INSERT_TAIL(&session->shared->pushed, session, pushed_link);
	}
	session_push_check(session);
}

void session_push_parcel(struct session *session, const char *head, size_t head_bytes,
			 struct parcel *parcel)
{
	bool refers = parcel->bytes >= SESSION_PUSH_REFER_BYTES;
	size_t referred =
		refers ? parcel->bytes - 2 : 0; // its line end is copied, see session_refs.h
	size_t copied = parcel->bytes - referred;
	session_task_aside(session);
	char *out = session_output_room(session, head_bytes + copied);
	if (!out) {
		session_task_back(session);
		return;
	}
	session_push_mark(session);
	session->push_start = session->output_position + session->output_end;
	memcpy(out, head, head_bytes);
	out[0] = session->resp_version >= 3 ? '>' : '*';
	session_output_add(session, head_bytes);
	if (refers && !session_refs_add_parcel(session, parcel, parcel->data, referred)) {
		session_kill(session, "out of memory");
	}
	memcpy(out + head_bytes, parcel->data + referred, copied);
	session_output_add(session, copied);
	session->pushed_bytes += referred;
	session_push_end(session);
}

void session_reply_complete(struct session *session)
{
	if (session->reply_end == 0 && !session->task) { // what is pushed to a task stands aside
		session->reply_end = session->output_position + session->output_end;
	}
}

bool session_has_spare(const struct session *session, size_t bytes)
{
	// Some stays for requests and replies: at the bound itself the largest holder is closed.
	uint64_t spare = session->shared->owner_bytes_max / SESSION_SPARE_SHARE;
	return session_has_room(session, bytes + spare);
}

bool session_take(struct session *session, size_t bytes)
{
	return session_has_spare(session, bytes) && session_charge(session, bytes);
}

void session_give(struct session *session, size_t bytes)
{
	session_uncharge(session, bytes);
}

void session_push_sent(struct session *session)
{
	if (session->is_soft &&
	    !session_push_reaches(session, session->kvd->config.subscriber_soft_bytes)) {
		session_push_set_soft(session, false);
	}
}

static uint64_t session_push_soft_due_ns(const struct session_shared *shared)
{
	const struct session *oldest = TAILQ_FIRST(&shared->soft);
	return oldest ? oldest->soft_since_ns +
				shared->kvd->config.subscriber_soft_ms * UINT64_C(1000000)
		      : UINT64_MAX;
}

static uint64_t session_push_leaving_due_ns(const struct session_shared *shared)
{
	const struct session *oldest = TAILQ_FIRST(&shared->leaving);
	return oldest ? oldest->soft_since_ns + SESSION_LEAVING_NS : UINT64_MAX;
}

/// Sends to those to whom something was pushed, for one share of the time; the rest is for the
/// next turn, so that a message to thousands keeps nobody waiting.
static void session_push_send_all(struct session_shared *shared)
{
	const struct seam *seam = shared->kvd->seam;
	uint64_t until_ns = 0;
	unsigned sent = 0;
	struct session *session;
	while ((session = TAILQ_FIRST(&shared->pushed)) != NULL) {
		sent += session_output_used(session) >= SESSION_PUSH_LARGE
				? SESSION_PUSH_CLOCK_EVERY
				: 1;
		if (sent >= SESSION_PUSH_CLOCK_EVERY) {
			sent = 0;
			uint64_t now_ns = seam->monotonic_ns();
			until_ns = until_ns > 0 ? until_ns : now_ns + SESSION_SLICE_NS;
			if (now_ns >= until_ns) {
				return;
			}
		}
		TAILQ_REMOVE(&shared->pushed, session, pushed_link);
		session->is_pushed = false;
		// A full socket says itself when it takes more.
		if (!session->dead && !session->output_full &&
		    session->output_end > session->output_sent) {
			session_send(session);
		}
	}
}

void session_push_turn(struct session_shared *shared, uint64_t now_ns)
{
	struct session *session;
	session_push_send_all(shared);
	while (session_push_soft_due_ns(shared) <= now_ns) {
		session = TAILQ_FIRST(&shared->soft);
		session_push_set_soft(session, false);
		if (!session->dead) {
			session_push_cut_off(session, "subscriber-output-soft for "
						      "subscriber-output-soft-time");
		}
	}
	while (session_push_leaving_due_ns(shared) <= now_ns) {
		session = TAILQ_FIRST(&shared->leaving);
		session_push_forget(session);
		session_kill(session, NULL);
	}
}

uint64_t session_push_next_ns(const struct session_shared *shared)
{
	uint64_t soft_ns = session_push_soft_due_ns(shared);
	uint64_t leaving_ns = session_push_leaving_due_ns(shared);
	if (!TAILQ_EMPTY(&shared->pushed)) {
		return 0;
	}
	return soft_ns < leaving_ns ? soft_ns : leaving_ns;
}

void session_push_forget(struct session *session)
{
	if (session->is_pushed) {
		TAILQ_REMOVE(&session->shared->pushed, session, pushed_link);
		session->is_pushed = false;
	}
	if (session->is_leaving) {
		TAILQ_REMOVE(&session->shared->leaving, session, soft_link);
		session->is_leaving = false;
	}
	session_push_set_soft(session, false);
}
