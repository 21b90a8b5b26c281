// SPDX-License-Identifier: MIT
//
// Who is served next, and for how long. Users share the loop's time, and each user's connections
// share what that user gets: a hundred busy connections of one user delay another user's request as
// much as a single one does. Whoever had nothing to do and comes with something goes before those
// who have used up a share, but not for longer than a share at a time, so that nobody starves.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct session;
struct session_owner;
struct session_shared;

#define SESSION_SLICE_NS UINT64_C(200000)	// a share: of one user, and of one connection
#define SESSION_SLICE_LEAST_NS UINT64_C(100000) // of one connection of a user that has several
#define SESSION_SHARE_LEAST_NS UINT64_C(50000)	// of one user where many are busy
#define SESSION_TURN_NS UINT64_C(400000) // of one turn: then the loop looks who has come meanwhile
#define SESSION_DEBT_NS (32 * SESSION_SLICE_NS) // of time that was taken beyond a share

void session_share_init(struct session_shared *shared);

/// Begins a turn: everybody who is ready may be served once.
void session_share_begin(struct session_shared *shared);
/// The session has something to do (again). It must not be ready already.
void session_share_add(struct session *session);
/// It has not, or it is about to be freed.
void session_share_remove(struct session *session);
/// Takes out who is served next, with its time in *slice_ns; NULL: everybody was served in this
/// turn. session_share_used() must follow.
struct session *session_share_next(struct session_shared *shared, uint64_t *slice_ns);
/// The session that session_share_next() gave has taken `used_ns`; `now_ns` is the time.
void session_share_used(struct session *session, uint64_t used_ns, uint64_t now_ns);
/// Is anybody ready?
bool session_share_waiting(const struct session_shared *shared);
