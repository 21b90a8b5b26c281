// SPDX-License-Identifier: MIT
//
// Resting sessions; see session_rest.h. Few rest at any time, so that the list is walked.
#include "daemon/session_rest.h"

#include <string.h>

#include "daemon/command.h"
#include "daemon/listener.h"
#include "daemon/session_parts.h"
#include "daemon/session_refs.h"

#define REST_UNTIL_TOLD UINT64_MAX

void session_pause(struct kvd *kvd, uint64_t until_ns, bool all)
{
	kvd->paused_until_ns = until_ns > kvd->paused_until_ns ? until_ns : kvd->paused_until_ns;
	kvd->paused_all = kvd->paused_all || all;
}

static void rest_set(struct session *session, bool resting)
{
	struct session_shared *shared = session->shared;
	if (resting && !session->is_resting) {
		TAILQ_INSERT_TAIL(&shared->resting, session, rest_link);
	} else if (!resting && session->is_resting) {
		TAILQ_REMOVE(&shared->resting, session, rest_link);
	}
	session->is_resting = resting;
}

static void rest_wake(struct session *session)
{
	rest_set(session, false);
	session->rest_until_ns = 0;
	session_set_ready(session);
}

static void rest_unpause(struct session_shared *shared)
{
	struct session *session = TAILQ_FIRST(&shared->resting);
	shared->kvd->paused_until_ns = 0;
	shared->kvd->paused_all = false;
	while (session) {
		struct session *next = TAILQ_NEXT(session, rest_link);
		if (session->rest_until_ns == 0) {
			rest_wake(session);
		}
		session = next;
	}
}

void session_unpause(struct kvd *kvd)
{
	rest_unpause(listener_sessions(kvd->listener));
}

bool session_paused(const struct session *session, const struct command *command)
{
	const uint32_t writes = COMMAND_WRITE | COMMAND_MAY_REPLICATE;
	if (command->flags & COMMAND_UNPAUSES) {
		return false; // whoever paused everything by mistake has a way back
	}
	if (session->kvd->paused_all) {
		return true;
	}
	bool exec = strcmp(command->name, "exec") == 0;
	for (uint32_t i = 0; exec && i < session->multi.count; i++) {
		if (session->multi.queued[i].command->flags & writes) {
			return true;
		}
	}
	return (command->flags & writes) != 0;
}

void session_postpone(struct session *session)
{
	rest_set(session, true);
}

void session_rest_until(struct session *session, uint64_t until_ns)
{
	session->rest_until_ns =
		until_ns > session->rest_until_ns ? until_ns : session->rest_until_ns;
	rest_set(session, true);
}

void session_rest_for_room(struct session *session, uint64_t until_ns)
{
	session->shared->request_seq = keyspace_last_seq(session->kvd->keyspace);
	session_rest_until(session, until_ns);
}

void session_rest_await(struct session *session)
{
	session_rest_until(session, REST_UNTIL_TOLD);
}

void session_rest_told(struct session_shared *shared)
{
	struct session *session = TAILQ_FIRST(&shared->resting);
	while (session) {
		struct session *next = TAILQ_NEXT(session, rest_link);
		if (session->rest_until_ns == REST_UNTIL_TOLD) {
			rest_wake(session);
		}
		session = next;
	}
}

void session_await_courier(struct session *session)
{
	if (!session->is_awaiting && !session->dead) {
		TAILQ_INSERT_TAIL(&session->shared->awaiting, session, await_link);
		session->is_awaiting = true;
		session->await_number = session->kvd->courier.given;
	}
}

static void rest_await_over(struct session *session)
{
	TAILQ_REMOVE(&session->shared->awaiting, session, await_link);
	session->is_awaiting = false;
}

/// Wakes those whose errands are over.
static void rest_await_turn(struct session_shared *shared)
{
	uint64_t done = shared->kvd->courier.done;
	struct session *session;
	while ((session = TAILQ_FIRST(&shared->awaiting)) != NULL &&
	       session->await_number <= done) {
		rest_await_over(session);
		session_set_ready(session);
	}
}

size_t session_paused_count(const struct session_shared *shared)
{
	size_t count = 0;
	const struct session *session;
	TAILQ_FOREACH (session, &shared->resting, rest_link) {
		count += session->rest_until_ns == 0 && !session->dead;
	}
	return count;
}

void session_rest_turn(struct session_shared *shared, uint64_t now_ns)
{
	const struct kvd *kvd = shared->kvd;
	if (kvd->paused_until_ns != 0 && now_ns >= kvd->paused_until_ns) {
		rest_unpause(shared);
	}
	rest_await_turn(shared);
	struct session *session = TAILQ_FIRST(&shared->resting);
	while (session) {
		struct session *next = TAILQ_NEXT(session, rest_link);
		if (session->rest_until_ns != 0 && now_ns >= session->rest_until_ns) {
			rest_wake(session);
		}
		session = next;
	}
}

uint64_t session_rest_next_ns(const struct session_shared *shared)
{
	uint64_t next_ns = shared->kvd->paused_until_ns ? shared->kvd->paused_until_ns : UINT64_MAX;
	const struct session *session;
	TAILQ_FOREACH (session, &shared->resting, rest_link) {
		if (session->rest_until_ns != 0 && session->rest_until_ns < next_ns) {
			next_ns = session->rest_until_ns;
		}
	}
	return next_ns;
}

void session_rest_forget(struct session *session)
{
	rest_set(session, false);
	if (session->is_awaiting) {
		rest_await_over(session);
	}
}

// ---- replies that nobody wants ----

void session_set_reply_mode(struct session *session, enum session_reply_mode mode)
{
	session->reply_off =
		mode == SESSION_REPLY_OFF || (mode == SESSION_REPLY_SKIP && session->reply_off);
	session->reply_skip_next = mode == SESSION_REPLY_SKIP && !session->reply_off;
	session->reply_skip = session->reply_skip && mode != SESSION_REPLY_ON;
	session->reply_settles = true;
}

void session_reply_pushes(struct session *session)
{
	if (session->reply_settles && session->reply_end == 0 && !session->multi.active) {
		session->reply_end = session->output_position + session->output_end;
	}
}

/// Drops the reply of the running command, but not what was pushed behind it.
static void reply_drop(struct session *session)
{
	uint64_t from = session->command_start;
	uint64_t end = session->output_position + session->output_end;
	uint64_t to = session->reply_end > 0 ? session->reply_end : end;
	if (session->dead || from < session->output_position || to <= from) {
		return;
	}
	if (session->fds_count > 0 && session->fds_end == 0) {
		session_fds_close(session); // they would have come with it
	}
	session_refs_forget(session, from, to);
	session_refs_shift(session, to, -(int64_t)(to - from));
	char *at = session->output + (from - session->output_position);
	memmove(at, at + (to - from), (size_t)(end - to));
	session->output_end -= (size_t)(to - from);
	session->reply_end = session->reply_end > 0 ? from : 0;
	session->frame_start = 0; // what it named may have moved
}

void session_reply_settle(struct session *session)
{
	if (session->reply_off || session->reply_skip) {
		reply_drop(session);
	}
	session->reply_skip = session->reply_skip_next;
	session->reply_skip_next = false;
	session->reply_settles = session->reply_off || session->reply_skip;
}
