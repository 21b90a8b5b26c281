// SPDX-License-Identifier: MIT
//
// A subscriber that reads too slowly is not waited for: what it leaves unread grows up to a bound,
// or stays over a lower one for a time, then it is closed. Before that is decided, what its socket
// takes is sent: a burst within one turn is not slowness.
#include "daemon/session_push.h"

#include <string.h>

#include "daemon/log.h"
#include "daemon/reply.h"
#include "daemon/session_parts.h"

bool session_push_possible(const struct session *session)
{
	return !session->dead && !session->close_after_reply && !session->output_broken;
}

void session_push_begin(struct session *session, size_t count)
{
	reply_push(session, count);
}

/// Closes a subscriber that does not keep up.
static void session_push_cut_off(struct session *session, const char *bound)
{
	log_warning("client %llu (pid %d, uid %u) does not keep up with its subscriptions: closed "
		    "with %zu bytes unread (%s)",
		    (unsigned long long)session->id, (int)session->pid, (unsigned)session->uid,
		    session_output_used(session), bound);
	session_count_up(session->shared, KVS_COUNTER_clients_dropped_output, 1);
	session_turn_out(session, "-ERR closed: messages were not read fast enough "
				  "(subscriber-output-max, subscriber-output-soft)\r\n");
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

/// Is there as much unread as `bound`, 0 = no bound?
static bool session_push_reaches(const struct session *session, uint64_t bound)
{
	return bound > 0 && session_output_used(session) >= bound;
}

static void session_push_check(struct session *session)
{
	const struct config *config = &session->kvd->config;
	bool soft = session_push_reaches(session, config->subscriber_soft_bytes);
	bool hard = session_push_reaches(session, config->subscriber_output_max);
	if (__builtin_expect(soft || hard, 0) && !session->output_full) {
		session_send(session);
		soft = session_push_reaches(session, config->subscriber_soft_bytes);
		hard = session_push_reaches(session, config->subscriber_output_max);
	}
	if (session->dead) {
		return;
	}
	session_push_set_soft(session, soft);
	if (hard) {
		session_push_cut_off(session, "subscriber-output-max");
	}
}

void session_push_end(struct session *session)
{
	if (session->dead) {
		return;
	}
	session_count_up(session->shared, KVS_COUNTER_messages_pushed, 1);
	if (!session->is_pushed) {
		session->is_pushed = true;
		TAILQ_INSERT_TAIL(&session->shared->pushed, session, pushed_link);
	}
	if (session->pubsub) {
		session_push_check(session);
	}
}

void session_push_frame(struct session *session, const char *frame, size_t bytes)
{
	char *out = session_output_room(session, bytes);
	if (!out) {
		return;
	}
	memcpy(out, frame, bytes);
	out[0] = session->resp_version >= 3 ? '>' : '*';
	session_output_add(session, bytes);
	session_push_end(session);
}

void session_reply_complete(struct session *session)
{
	if (session->reply_end == 0) {
		session->reply_end = session->output_position + session->output_end;
	}
}

bool session_take(struct session *session, size_t bytes)
{
	return session_has_room(session, bytes) && session_charge(session, bytes);
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

void session_push_turn(struct session_shared *shared, uint64_t now_ns)
{
	struct session *session;
	while ((session = TAILQ_FIRST(&shared->pushed)) != NULL) {
		TAILQ_REMOVE(&shared->pushed, session, pushed_link);
		session->is_pushed = false;
		// A full socket says itself when it takes more.
		if (!session->dead && !session->output_full &&
		    session->output_end > session->output_sent) {
			session_send(session);
		}
	}
	while (session_push_soft_due_ns(shared) <= now_ns) {
		session = TAILQ_FIRST(&shared->soft);
		session_push_set_soft(session, false);
		if (!session->dead) {
			session_push_cut_off(session, "subscriber-output-soft for "
						      "subscriber-output-soft-time");
		}
	}
}

uint64_t session_push_next_ns(const struct session_shared *shared)
{
	return TAILQ_EMPTY(&shared->pushed) ? session_push_soft_due_ns(shared) : 0;
}

void session_push_forget(struct session *session)
{
	if (session->is_pushed) {
		TAILQ_REMOVE(&session->shared->pushed, session, pushed_link);
		session->is_pushed = false;
	}
	session_push_set_soft(session, false);
}
