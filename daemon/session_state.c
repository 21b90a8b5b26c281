// SPDX-License-Identifier: MIT
//
// What commands keep in a session: the queue of a transaction, and finding sessions for CLIENT
// LIST.

#include <stdlib.h>
#include <string.h>

#include "daemon/session_parts.h"

static bool session_multi_room(struct session *session)
{
	struct session_multi *multi = &session->multi;
	if (multi->count < multi->capacity) {
		return true;
	}
	uint32_t capacity = multi->capacity ? multi->capacity * 2 : 16;
	size_t more_bytes = (capacity - multi->capacity) * sizeof(*multi->queued);
	if (!session_has_room(session, more_bytes) || !session_charge(session, more_bytes)) {
		return false;
	}
	struct session_queued *queued = reallocarray(multi->queued, capacity, sizeof(*queued));
	if (!queued) {
		session_uncharge(session, more_bytes);
		return false;
	}
	multi->queued = queued;
	multi->capacity = capacity;
	return true;
}

bool session_multi_queue(struct session *session, const struct command *command,
			 const struct resp_arg *argv, uint32_t argc)
{
	struct session_multi *multi = &session->multi;
	size_t bytes = argc * sizeof(*argv);
	for (uint32_t i = 0; i < argc; i++) {
		bytes += argv[i].bytes;
	}
	multi->dirty = true; // unless all goes well
	multi->full = multi->count == SESSION_MULTI_REQUESTS_MAX ||
		      multi->bytes + bytes > session->shared->limits.request_bytes_max;
	if (multi->full || !session_multi_room(session) || !session_has_room(session, bytes)) {
		return false;
	}
	struct resp_arg *copy = malloc(bytes);
	if (!copy || !session_charge(session, bytes)) {
		free(copy);
		return false;
	}
	char *at = (char *)(copy + argc);
	for (uint32_t i = 0; i < argc; i++) {
		memcpy(at, argv[i].data, argv[i].bytes);
		copy[i] = (struct resp_arg){ .data = at, .bytes = argv[i].bytes };
		at += argv[i].bytes;
	}
	multi->queued[multi->count++] =
		(struct session_queued){ .command = command, .argv = copy, .argc = argc };
	multi->bytes += bytes;
	multi->dirty = false;
	return true;
}

void session_multi_reset(struct session *session)
{
	struct session_multi *multi = &session->multi;
	size_t queued_bytes = multi->capacity * sizeof(*multi->queued);
	reclaim_free_each(&session->shared->reclaim, multi->queued, queued_bytes, multi->count,
			  sizeof(*multi->queued), offsetof(struct session_queued, argv),
			  multi->bytes + queued_bytes);
	session_uncharge(session, multi->bytes + queued_bytes);
	*multi = (struct session_multi){ 0 };
	session_watch_reset(session);
}

bool session_send_fds(struct session *session, const int *fds, unsigned count)
{
	if (session->fds_count > 0 || count == 0 || count > SESSION_FDS_MAX) {
		return false;
	}
	memcpy(session->fds, fds, count * sizeof(*fds));
	session->fds_count = count;
	session->fds_position = session->output_position + session->output_end;
	session->fds_end = 0; // known when the reply is complete
	return true;
}

struct session *session_find(const struct kvd *kvd, uint64_t id)
{
	const struct session_shared *shared = kvd->sessions;
	struct lookup_link *link = lookup_first(&shared->by_id, id);
	struct session *session =
		link ? (struct session *)(void *)((char *)link - offsetof(struct session, id_link))
		     : NULL;
	return session && !session->dead ? session : NULL;
}

uint64_t session_buffer_bytes(const struct session_shared *shared)
{
	return shared->buffer_bytes;
}

size_t session_count(const struct session_shared *shared)
{
	return shared->count;
}

size_t session_uid_count(const struct session_shared *shared, uint32_t uid)
{
	const struct session_owner *owner;
	LIST_FOREACH (owner, &shared->owners, link) {
		if (owner->uid == uid) {
			return owner->sessions_count;
		}
	}
	return 0;
}

bool session_closing(const struct session_shared *shared)
{
	return !TAILQ_EMPTY(&shared->dead);
}

size_t session_input_used(const struct session *session)
{
	return session->input_end - session->input_start;
}

size_t session_input_free(const struct session *session)
{
	return session->input_bytes - session->input_end;
}

size_t session_output_used(const struct session *session)
{
	return session->output_end - session->output_sent + session->refs_bytes;
}
