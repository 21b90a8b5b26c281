// SPDX-License-Identifier: MIT
//
// Memory that replies keep. A large value is sent from where it stands and stays there until its
// client has read it; if its key gets another value meanwhile, only the unread reply keeps the old
// one. Clients that ask and do not read could so fill the region, for everybody. Hence what only
// such replies keep has a bound, and where memory is wanted it is not kept for long: a connection
// is closed, of the user that keeps most the one that has kept longest.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct session;
struct session_shared;

/// Should a value of so many bytes be copied rather than pinned, because enough is kept already?
bool session_pins_full(const struct session *session, size_t bytes);

/// The first part of the session's replies that pins a value begins to wait; none is left of them.
void session_pins_begin(struct session *session);
void session_pins_end(struct session *session);

/// Somebody was refused memory in this turn.
void session_pins_wanted(struct session_shared *shared);
/// Closes who keeps too much, or too long what is wanted. Called in each turn.
void session_pins_turn(struct session_shared *shared, uint64_t now_ns);
