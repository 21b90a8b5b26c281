// SPDX-License-Identifier: MIT
//
// What one session sends to another: messages and invalidations, appended behind whatever the
// other has to send and sent at the end of the turn, so that many of them cost one system call.
// Subscribers have bounds of their own on what they leave unread (subscriber-output-max,
// subscriber-output-soft); beyond them they are cut off. Everything belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct parcel;
struct session;
struct session_shared;

/// May something be pushed to this session? Not if it is dead or about to be closed.
bool session_push_possible(const struct session *session);

/// Frames what reply_*() appends until session_push_end(): a push of `count` elements (an array
/// for a RESP2 client). Only after session_push_possible().
void session_push_begin(struct session *session, size_t count);
void session_push_end(struct session *session);

/// Appends a frame: `head`, which begins with '*' (for a RESP3 client it becomes a push), and all
/// of a parcel, which ends with a line end. A large one is not copied.
void session_push_parcel(struct session *session, const char *head, size_t head_bytes,
			 struct parcel *parcel);

/// The running command's reply of this session is complete: what is pushed to it now is not part
/// of it (and does not become an error if the reply does).
void session_reply_complete(struct session *session);

/// Is there room for what is held on behalf of a session, and some for requests besides?
bool session_has_spare(const struct session *session, size_t bytes);
/// Charges what is held on behalf of a session, as its buffers are. False: there is no room, and
/// nobody is closed to make some.
bool session_take(struct session *session, size_t bytes);
void session_give(struct session *session, size_t bytes);

// ---- for session.c ----

/// Sends what was pushed in this turn, and cuts off who has been over the soft bound for too long.
void session_push_turn(struct session_shared *shared, uint64_t now_ns);
/// When session_push_turn() must be called next: 0 = at once, UINT64_MAX = never.
uint64_t session_push_next_ns(const struct session_shared *shared);
/// Something of its output was sent: it may be under the soft bound again.
void session_push_sent(struct session *session);
/// Takes a session that is being closed out of the lists.
void session_push_forget(struct session *session);
