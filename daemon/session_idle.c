// SPDX-License-Identifier: MIT
//
// Clients that say nothing for long (`timeout`): closed, as Redis does it, but for those that only
// listen, subscribers and processes that read the shared memory. Looked for once a second.

#include "daemon/log.h"
#include "daemon/session_parts.h"

#define SESSION_IDLE_LOOK_NS UINT64_C(1000000000)

static bool session_is_idle(const struct session *session, uint64_t now_ns)
{
	uint64_t timeout_ns = session->kvd->config.idle_timeout_s * UINT64_C(1000000000);
	return !session->dead && !session->is_parked && !session->is_resting &&
	       !session->is_ready && !session->is_throttled && !session->pubsub &&
	       !session->reader_client && !session->is_held && now_ns > session->active_ns &&
	       now_ns - session->active_ns > timeout_ns;
}

void session_close_idle(struct session_shared *shared, uint64_t now_ns)
{
	if (shared->kvd->config.idle_timeout_s == 0 || now_ns < shared->idle_due_ns) {
		return;
	}
	shared->idle_due_ns = now_ns + SESSION_IDLE_LOOK_NS;
	struct session *session;
	TAILQ_FOREACH (session, &shared->all, link) {
		if (session_is_idle(session, now_ns)) {
			session_kill(session, "it said nothing for the time that `timeout` allows");
		}
	}
}

uint64_t session_idle_next_ns(const struct session_shared *shared)
{
	bool looks = shared->kvd->config.idle_timeout_s > 0 && !TAILQ_EMPTY(&shared->all);
	return looks ? shared->idle_due_ns : UINT64_MAX;
}
