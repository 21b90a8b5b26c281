// SPDX-License-Identifier: MIT
//
// What a connection's user may do, and how fast. Each session keeps the flags of those commands
// that need a look; for everybody else's, and for all commands where nothing is restricted, that is
// one test. Rights are looked at when a connection's first command comes, and anew when an option
// changes. A user that writes faster than it may is read no further until it may again: its
// connections go on in the order in which they came, one a turn, and nobody else notices.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/access.h"

struct kvd;
struct session;
struct session_owner;
struct session_shared;

#define SESSION_GUARDED_ANEW UINT32_MAX // nothing is known yet

/// Parses the lists of kvd's configuration and lets every session be looked at anew. False if
/// memory is short, or a name is not known any more: then all stays as it was, and the log says so.
bool session_guard_set_limits(struct session_shared *shared);

/// Looks at the rights and quotas of a session whose `guarded` is SESSION_GUARDED_ANEW.
void session_guard_look(struct session *session);

/// Has its user this right?
bool session_guard_may(struct session *session, enum access_right right);

/// The option that gives a right, for messages.
const char *session_guard_option(enum access_right right);

/// The running command writes: its user's records get an index if they have none.
void session_guard_writer(struct session *session);

/// Must the running command, which writes, wait because its user writes too fast? Otherwise what
/// it writes is metered: session_guard_charge() must follow when it is over.
bool session_guard_must_wait(struct session *session);
/// Another slice of such a command begins.
void session_guard_meter(struct session *session);
void session_guard_charge(struct session *session);

/// The session is read no further until its user may write again.
void session_throttle(struct session *session);
/// It is about to be freed.
void session_throttle_forget(struct session *session);
/// Wakes those whose time has come; the next time to look, UINT64_MAX = none.
void session_throttle_turn(struct session_shared *shared, uint64_t now_ns);
uint64_t session_throttle_next_ns(const struct session_shared *shared);

/// Has the owner saved nothing and spent nothing that must be remembered?
bool session_guard_is_rested(const struct session_shared *shared,
			     const struct session_owner *owner);
