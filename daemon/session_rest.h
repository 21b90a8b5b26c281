// SPDX-License-Identifier: MIT
//
// Connections that rest for a while, and what a connection does not want to hear. CLIENT PAUSE lets
// commands wait where they stand; DEBUG SLEEP lets one connection wait, replies and all, and nobody
// else; CLIENT REPLY drops replies.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct command;
struct kvd;
struct session;
struct session_shared;

/// From now to `until_ns` (monotonic) commands wait: all of them, or those that may write. A pause
/// there is already ends no earlier and covers no less than before.
void session_pause(struct kvd *kvd, uint64_t until_ns, bool all);
/// Ends the pause: those who wait go on.
void session_unpause(struct kvd *kvd);

/// Must this command wait for the end of the pause? Asked only while kvd->paused_until_ns is not 0.
bool session_paused(const struct session *session, const struct command *command);

/// The connection of the running command is neither read nor answered before `until_ns`.
void session_rest_until(struct session *session, uint64_t until_ns);

/// The running command found no room for a part of what it does, and is called again then. It sets
/// call->again. What waits for its commit is wanted on the disk meanwhile.
void session_rest_for_room(struct session *session, uint64_t until_ns);

/// The running command has something done by another thread, and is called again when
/// session_rest_told() was: until then its connection is read no further. It sets call->again.
void session_rest_await(struct session *session);
/// Wakes all who wait in this way: each looks whether it is for him.
void session_rest_told(struct session_shared *shared);

/// The connection of the running command is read no further, and its reply not sent, before every
/// errand that was given to the courier so far is over: who is answered knows that all were told.
void session_await_courier(struct session *session);

/// Sessions whose next command waits for the end of a pause.
size_t session_paused_count(const struct session_shared *shared);

enum session_reply_mode {
	SESSION_REPLY_ON,
	SESSION_REPLY_SKIP, // the next command's reply is dropped
	SESSION_REPLY_OFF,
};

/// CLIENT REPLY: the reply of the running command follows the new mode already.
void session_set_reply_mode(struct session *session, enum session_reply_mode mode);

/// What the running command sends from here on is pushed, not its reply: CLIENT REPLY leaves it.
/// Inside EXEC it stays part of the reply.
void session_reply_pushes(struct session *session);

// ---- for the other files of a session ----

/// The session's next command waits for the end of the pause.
void session_postpone(struct session *session);
/// Wakes those whose time has come; the next time to look, UINT64_MAX = none.
void session_rest_turn(struct session_shared *shared, uint64_t now_ns);
uint64_t session_rest_next_ns(const struct session_shared *shared);
/// It is about to be freed.
void session_rest_forget(struct session *session);
/// The running command is over: its reply is dropped if nobody wants it.
void session_reply_settle(struct session *session);
