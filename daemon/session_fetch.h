// SPDX-License-Identifier: MIT
//
// A session whose command needs a value that is in the store alone. The command is stopped, what it
// did is taken back, and the session rests, it alone, until all values that the command met have
// come; then the command is run again from its beginning, as of then. It keeps the values until it
// is answered, so that being put out of memory again does not make it wait again.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/session.h"

struct parcel;

/// As keyspace_fetch: `context` is kvd, `fetcher` a session.
const void *session_fetch_value(void *context, void *fetcher, const struct kvs_record_view *stub);
/// As cold_ready: what the session waits for is there.
void session_fetch_ready(void *owner);

/// Why the running command, which met a value that is not there, is not to be run again: an error
/// reply. False: it may be.
bool session_fetch_failed(const struct session *session, char *text, size_t bytes);
/// The session waits from now on for what its command met.
void session_fetch_wait(struct session *session);
/// The command is over: nothing is kept for it any more.
void session_fetch_over(struct session *session);
/// What was given to the running command last, if `at` points into that; else NULL.
struct parcel *session_fetch_parcel(const struct session *session, const void *at);

/// Runs the commands whose values have come, for a share of the time.
void session_fetch_turn(struct session_shared *shared, uint64_t now_ns);
/// When that wants to be called next: 0 = at once, UINT64_MAX = never.
uint64_t session_fetch_next_ns(const struct session_shared *shared);
