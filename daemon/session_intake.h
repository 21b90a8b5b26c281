// SPDX-License-Identifier: MIT
//
// A large value that a client sends is received where it will stand. When its length is known and
// it is one that its command stores as it is, its run is taken, and what comes goes there and not
// into the input buffer; in the request its bytes are then elsewhere. Where that cannot be, it is
// buffered like any argument and copied: inside MULTI, while other such values take too much, and
// where there is no room even after waiting as long as a write does.
//
// Whoever announces a value and does not send it keeps memory that others may want: it counts
// against its user's buffers, in full, and while somebody waits for memory a connection whose value
// hardly comes is closed.
#pragma once

#include "daemon/session_parts.h"

/// May the argument that is awaited be such a value, or is it one?
static inline bool session_intake_is_due(const struct session *session)
{
	return session->intake.run_offset != 0 ||
	       session->input_wanted > session->shared->intake_least;
}

/// Takes a run for the argument that is awaited, if that can be, or goes on with it. True: what
/// comes next is read by session_intake_read(), or nothing is read now (the session waits for
/// memory). False: it belongs into the input.
bool session_intake_begin(struct session *session);

/// One read from the socket into the run. As session_read().
enum session_read_result session_intake_read(struct session *session);

/// The session waited for memory for a value: tries again. True if it need not wait any more.
bool session_intake_retry(struct session *session, uint64_t now_ns);

/// The request that it came with was answered, or its connection is closed. Nothing if there is
/// none.
void session_intake_end(struct session *session);

/// Closes those whose values hardly come, if memory is wanted. Called in each turn, before
/// session_pins_turn().
void session_intake_turn(struct session_shared *shared, uint64_t now_ns);
