// SPDX-License-Identifier: MIT
//
// What clients may hold, and for how long. All buffers together have a bound, each uid has a share
// of it, and a request that has begun must go on arriving: without the three, one user's unfinished
// requests could take the room, or the connections, of everybody else.

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/keyspace.h"
#include "daemon/refuse.h"
#include "daemon/seam.h"
#include "daemon/session_parts.h"
#include "shm/map.h"

#define SESSION_TEXT_KEPT_BYTES_MAX 4096u

bool session_set_limits(struct session_shared *shared)
{
	const struct config *config = &shared->kvd->config;
	size_t value_bytes = keyspace_value_bytes_max(shared->kvd->keyspace);
	shared->limits = (struct resp_limits){
		.bulk_bytes_max =
			value_bytes > KVS_INLINE_BYTES_MAX ? value_bytes : KVS_INLINE_BYTES_MAX,
		.request_bytes_max = config_request_bytes_max(value_bytes, config->memory_bytes),
		.inline_bytes_max = KVS_INLINE_BYTES_MAX,
		.args_max = KVS_COMMAND_ARGS_MAX,
		.args_at_once = SESSION_PARSE_ARGS,
	};
	shared->intake_least = keyspace_map(shared->kvd->keyspace)->segment_bytes / 4;
	// One request of the largest size must always be possible: for all, and for each uid.
	uint64_t least = config_buffers_bytes_min(shared->limits.request_bytes_max);
	uint64_t all = config->buffers_bytes_max;
	all = all > least ? all : least;
	uint64_t share = all / 100 * config->uid_share_percent;
	share = share > least ? share : least;
	shared->buffer_bytes_max = all;
	shared->owner_bytes_max = share < all ? share : all;
	return session_guard_set_limits(shared);
}

static void session_owner_end(const struct session_shared *shared, struct session_owner *owner)
{
	// Who comes again with a new connection still owes what it wrote too fast.
	if (owner->sessions_count == 0 && owner->kept_bytes == 0 && TAILQ_EMPTY(&owner->flights) &&
	    (shared->ending || session_guard_is_rested(shared, owner))) {
		LIST_REMOVE(owner, link);
		free(owner);
	}
}

struct session_owner *session_owner_join(struct session_shared *shared, uint32_t uid)
{
	struct session_owner *owner = LIST_FIRST(&shared->owners);
	while (owner) {
		struct session_owner *next = LIST_NEXT(owner, link);
		if (owner->uid == uid) {
			owner->sessions_count++;
			return owner;
		}
		session_owner_end(shared, owner); // who had written too fast when it went
		owner = next;
	}
	owner = calloc(1, sizeof(*owner));
	if (owner) {
		owner->uid = uid;
		owner->sessions_count = 1;
		TAILQ_INIT(&owner->sessions_new);
		TAILQ_INIT(&owner->sessions_cut);
		TAILQ_INIT(&owner->throttled);
		TAILQ_INIT(&owner->flights);
		LIST_INSERT_HEAD(&shared->owners, owner, link);
	}
	return owner;
}

void session_owner_leave(struct session_shared *shared, struct session_owner *owner)
{
	owner->sessions_count--;
	session_owner_end(shared, owner);
}

void session_owner_rest(struct session_shared *shared, struct session_owner *owner)
{
	session_owner_end(shared, owner);
}

void session_owners_free(struct session_shared *shared)
{
	struct session_owner *owner = LIST_FIRST(&shared->owners);
	while (owner) {
		struct session_owner *next = LIST_NEXT(owner, link);
		session_owner_end(shared, owner);
		owner = next;
	}
}

void session_owner_charge(struct session_shared *shared, struct session_owner *owner, size_t bytes)
{
	shared->buffer_bytes += bytes;
	owner->buffer_bytes += bytes;
	owner->kept_bytes += bytes;
}

void session_owner_uncharge(struct session_shared *shared, struct session_owner *owner,
			    size_t bytes)
{
	shared->buffer_bytes -= bytes;
	owner->buffer_bytes -= bytes;
	owner->kept_bytes -= bytes;
	session_owner_end(shared, owner);
}

bool session_has_room(const struct session *session, size_t bytes)
{
	const struct session_shared *shared = session->shared;
	return !session->dead && session->owner->buffer_bytes + bytes <= shared->owner_bytes_max &&
	       shared->buffer_bytes + bytes <= shared->buffer_bytes_max;
}

/// What is kept for it alone, and its part in what it shares with others.
static uint64_t session_holds(const struct session *session)
{
	return session->buffer_bytes + session->shared_bytes;
}

/// Whoever holds most of the bound that is reached, not whoever asks next: of `owner`'s sessions,
/// NULL = of those of the uid that holds most.
static struct session *session_largest(struct session *session, const struct session_owner *owner)
{
	struct session_shared *shared = session->shared;
	if (!owner) {
		const struct session_owner *other;
		owner = session->owner;
		LIST_FOREACH (other, &shared->owners, link) {
			owner = other->buffer_bytes > owner->buffer_bytes ? other : owner;
		}
	}
	struct session *largest = NULL;
	struct session *other;
	TAILQ_FOREACH (other, &shared->all, link) {
		if (!other->dead && other->owner == owner &&
		    (!largest || session_holds(other) > session_holds(largest))) {
			largest = other;
		}
	}
	return largest ? largest : session;
}

void session_say(const struct seam *seam, int fd, const char *text)
{
	struct iovec piece = { .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
	ssize_t n = seam->sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)n; // a courtesy
}

void session_turn_out(struct session *session, const char *text)
{
	if (session->output_end == 0 && session->holds_first == session->holds_end) {
		session_say(session->kvd->seam, session->source.fd, text);
	}
	session_kill(session, NULL);
}

static void session_make_room(struct session *session, size_t bytes)
{
	struct session_shared *shared = session->shared;
	bool by_uid = session->owner->buffer_bytes + bytes > shared->owner_bytes_max;
	struct session *largest = session_largest(session, by_uid ? session->owner : NULL);
	uint64_t limit = by_uid ? shared->owner_bytes_max : shared->buffer_bytes_max;
	refuse(largest, REFUSAL_BUFFERS,
	       "buffers of %s would exceed %llu bytes (%s), and this one holds most, %llu; raise "
	       "that if the clients need it",
	       by_uid ? "one uid's clients" : "all clients", (unsigned long long)limit,
	       by_uid ? "client-uid-share of client-buffers-max" : "client-buffers-max",
	       (unsigned long long)session_holds(largest));
	session_turn_out(largest, by_uid ? "-ERR closed: this user's clients hold their share of "
					   "kvd's buffers (client-uid-share)\r\n"
					 : "-ERR closed: clients hold all of kvd's buffers "
					   "(client-buffers-max)\r\n");
}

bool session_make_way(struct session *session, size_t bytes)
{
	// Both bounds may be reached; what one session holds is always enough for a request.
	for (int bound = 0; bound < 2 && !session_has_room(session, bytes); bound++) {
		if (session->dead) {
			return false;
		}
		session_make_room(session, bytes);
	}
	return !session->dead;
}

bool session_charge(struct session *session, size_t bytes)
{
	struct session_shared *shared = session->shared;
	if (!session_make_way(session, bytes)) {
		return false;
	}
	shared->buffer_bytes += bytes;
	session->owner->buffer_bytes += bytes;
	session->buffer_bytes += bytes;
	return true;
}

void session_uncharge(struct session *session, size_t bytes)
{
	if (!session->dead) {
		session->shared->buffer_bytes -= bytes;
		session->owner->buffer_bytes -= bytes;
	}
	session->buffer_bytes -= bytes;
}

void session_uncharge_dead(struct session *session)
{
	session->shared->buffer_bytes -= session->buffer_bytes;
	session->owner->buffer_bytes -= session->buffer_bytes;
}

void session_charge_partial(struct session *session)
{
	const struct resp_request *partial = &session->partial;
	size_t bytes = partial->argv_capacity * sizeof(*partial->argv) + partial->text_capacity;
	size_t before = session->partial_bytes;
	if (bytes < before) {
		session_uncharge(session, before - bytes);
	} else if (bytes > before && !session_charge(session, bytes - before)) {
		return;
	}
	session->partial_bytes = bytes;
}

// ---- requests that must go on arriving ----

/// Is a request half here, and nobody but the client to blame?
static bool session_is_half(const struct session *session)
{
	return (session->input_start < session->input_end || session->parse.args_expected != 0) &&
	       !session->is_ready && !session->input_ended && session_may_run(session);
}

void session_watch_half(struct session *session)
{
	struct session_shared *shared = session->shared;
	if (session->is_half) {
		TAILQ_REMOVE(&shared->halves, session, half_link);
	}
	session->is_half = shared->kvd->config.frame_timeout_ms > 0 && session_is_half(session);
	if (session->is_half) {
		session->half_ns = loop_now_ns(shared->kvd->loop);
		TAILQ_INSERT_TAIL(&shared->halves, session, half_link);
	}
}

uint64_t session_halves_next_ns(const struct session_shared *shared)
{
	const struct session *oldest = TAILQ_FIRST(&shared->halves);
	return oldest ? oldest->half_ns + shared->kvd->config.frame_timeout_ms * UINT64_C(1000000)
		      : UINT64_MAX;
}

void session_close_halves(struct session_shared *shared, uint64_t now_ns)
{
	while (session_halves_next_ns(shared) <= now_ns) {
		struct session *session = TAILQ_FIRST(&shared->halves);
		if (session->holds_first < session->holds_end) {
			session_watch_half(session); // it has replies to come: not before them
			continue;
		}
		TAILQ_REMOVE(&shared->halves, session, half_link);
		session->is_half = false;
		refuse(session, REFUSAL_FRAME_TIMEOUT,
		       "nothing more of a request came for %llu ms (frame-timeout); raise that if "
		       "it needs longer",
		       (unsigned long long)shared->kvd->config.frame_timeout_ms);
		session_count_up(shared, KVS_COUNTER_clients_dropped_protocol, 1);
		session_turn_out(session, "-ERR timeout: nothing more of an unfinished request "
					  "came (frame-timeout)\r\n");
	}
}

void session_request_free(struct session_shared *shared, struct resp_request *request)
{
	reclaim_free_mapped(&shared->reclaim, request->argv,
			    request->argv_capacity * sizeof(*request->argv));
	request->argv = NULL;
	request->argv_capacity = 0;
	resp_request_free(request);
}

static void session_request_trim(struct session_shared *shared, struct resp_request *request)
{
	if (request->argv_capacity > SESSION_ARGS_KEPT_MAX ||
	    request->text_capacity > SESSION_TEXT_KEPT_BYTES_MAX) {
		session_request_free(shared, request);
	}
}

void session_trim_requests(struct session *session)
{
	for (unsigned i = 0; i < SESSION_WINDOW; i++) {
		session_request_trim(session->shared, &session->shared->window[i]);
	}
	if (session->parse.args_expected == 0) {
		session_request_free(session->shared, &session->partial);
	}
	session_charge_partial(session);
}
