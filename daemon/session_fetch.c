// SPDX-License-Identifier: MIT
//
// Sessions that wait for values, and those whose values have come.
#include "daemon/session_fetch.h"

#include <stdio.h>

#include "daemon/cold.h"
#include "daemon/seam.h"
#include "daemon/session_parts.h"

const void *session_fetch_value(void *context, void *fetcher, const struct kvs_record_view *stub)
{
	struct kvd *kvd = context;
	struct session *session = fetcher;
	if (kvd->cold == NULL || session == NULL) {
		return NULL;
	}
	if (session->fetch == NULL) {
		session->fetch = cold_wait_create(kvd->cold, session);
	}
	return session->fetch != NULL ? cold_wait_value(session->fetch, stub) : NULL;
}

bool session_fetch_failed(const struct session *session, char *text, size_t bytes)
{
	if (session->kvd->cold == NULL) {
		(void)snprintf(
			text, bytes,
			"DAMAGED the value is in a store alone that this kvd has not got: start "
			"it with that store");
		return true;
	}
	if (session->fetch == NULL) {
		(void)snprintf(text, bytes, "OOM no memory to read values from the store");
		return true;
	}
	return cold_wait_failed(session->fetch, text, bytes);
}

static void set_fetched(struct session *session, bool fetched)
{
	if (fetched && !session->is_fetched) {
		TAILQ_INSERT_TAIL(&session->shared->fetched, session, fetch_link);
	} else if (!fetched && session->is_fetched) {
		TAILQ_REMOVE(&session->shared->fetched, session, fetch_link);
	}
	session->is_fetched = fetched;
}

void session_fetch_wait(struct session *session)
{
	size_t bytes = cold_wait_bytes(session->fetch);
	// What is wanted counts against who wants it. There may be too much: then it is closed.
	if (!session_charge(session, bytes - session->fetch_bytes)) {
		return;
	}
	session->fetch_bytes = bytes;
	session->is_fetching = true;
	cold_wait_begin(session->fetch);
}

void session_fetch_ready(void *owner)
{
	struct session *session = owner;
	set_fetched(session, true);
}

void session_fetch_over(struct session *session)
{
	set_fetched(session, false);
	session->is_fetching = false;
	cold_wait_drop(session->fetch);
	session->fetch = NULL;
	session_uncharge(session, session->fetch_bytes);
	session->fetch_bytes = 0;
}

struct parcel *session_fetch_parcel(const struct session *session, const void *at)
{
	return session->fetch != NULL ? cold_wait_parcel(session->fetch, at) : NULL;
}

void session_fetch_turn(struct session_shared *shared, uint64_t now_ns)
{
	struct session *session = TAILQ_FIRST(&shared->fetched);
	if (session == NULL) {
		return;
	}
	const struct seam *seam = shared->kvd->seam;
	uint64_t until_ns = seam->monotonic_ns() + SESSION_SLICE_NS;
	do {
		set_fetched(session, false);
		if (!session->dead) {
			session->is_fetching = false;
			(void)session_unpark(session, now_ns);
		}
		session = TAILQ_FIRST(&shared->fetched);
	} while (session != NULL && seam->monotonic_ns() < until_ns);
}

uint64_t session_fetch_next_ns(const struct session_shared *shared)
{
	return TAILQ_EMPTY(&shared->fetched) ? UINT64_MAX : 0;
}
