// SPDX-License-Identifier: MIT
//
// Walks over all sessions that rest between two slices of a command; see session.h.

#include <stdlib.h>

#include "daemon/session_parts.h"

void session_walk_release(struct session *session)
{
	session->closed = true;
	if (session->walks == 0) {
		TAILQ_REMOVE(&session->shared->all, session, link);
		free(session);
	}
}

static void session_walk_leave(struct session *session)
{
	session->walks--;
	if (session->closed) {
		session_walk_release(session);
	}
}

struct session *session_walk_next(const struct session_shared *shared, struct session_walk *walk)
{
	struct session *from = walk->at;
	struct session *to = NULL;
	if (from) {
		to = TAILQ_NEXT(from, link);
	} else if (walk->last_id == 0) {
		walk->last_id = shared->last_id;
		to = TAILQ_FIRST(&shared->all);
	}
	while (to && to->dead) {
		to = TAILQ_NEXT(to, link);
	}
	to = to && to->id <= walk->last_id ? to : NULL; // who came since is not waited for
	walk->at = to;
	if (to) {
		to->walks++;
	}
	if (from) {
		session_walk_leave(from);
	}
	return to;
}

void session_walk_end(struct session_walk *walk)
{
	if (walk->at) {
		session_walk_leave(walk->at);
		walk->at = NULL;
	}
}
