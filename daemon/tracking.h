// SPDX-License-Identifier: MIT
//
// CLIENT TRACKING: which keys clients keep copies of, and telling them when such a key changes.
// By default kvd remembers each key that a tracking client reads, up to tracking-table-max-keys;
// in broadcasting mode it remembers nothing but prefixes and collects what changed until the end
// of the turn. Everything belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvd;
struct session;

/// Ends the tracking of a session; remembered keys go when they change.
void tracking_leave(struct session *session);

/// A key was changed, or (NULL) all of them were, by `origin` (NULL: by no command).
void tracking_changed(struct kvd *kvd, const char *key, size_t key_bytes, struct session *origin);

/// Sends what broadcasting collected in this turn.
void tracking_turn(struct kvd *kvd);
