// SPDX-License-Identifier: MIT
//
// Descriptors on their way: made for a client, and not known to be received. The kernel counts what
// waits unread in any socket against the sender's user, and beyond RLIMIT_NOFILE passes no more of
// anybody's. Nothing takes them back, the end of the connection neither: they wait in the client's
// own socket until it reads, or closes that. So kvd bounds them itself: a user may have no more on
// their way than are left for all others.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct session;
struct session_flight;
struct session_owner;
struct session_shared;

TAILQ_HEAD(session_flight_list, session_flight);

/// Sets what may be on its way to all of them, from the limit that the process has.
void session_flight_set_limit(struct session_shared *shared);

/// So many descriptors are about to be made for the session, and are on their way to it from here
/// on. False, and nothing done, if there are too many already; then `*mine` is whose user's bound
/// that is, else all are used up or memory is short.
bool session_flight_begin(struct session *session, unsigned count, bool *mine);
/// They were not made.
void session_flight_cancel(struct session *session, unsigned count);

/// Descriptors on their way to the session's user, to all, and how many may be to all.
struct session_flight_counts {
	uint64_t mine;
	uint64_t all;
	uint64_t max;
};
struct session_flight_counts session_flight_counts(const struct session *session);

/// Closes the session's socket; what was not received keeps it, shut, until it has been.
void session_flight_close(struct session *session);

/// Looks whether some were received, now and then; the next time to look, UINT64_MAX = never.
void session_flight_turn(struct session_shared *shared, uint64_t now_ns);
uint64_t session_flight_next_ns(const struct session_shared *shared);
/// Forgets all and closes what was kept, at the end.
void session_flight_free(struct session_shared *shared);
