// SPDX-License-Identifier: MIT
//
// Starting and stopping what tells clients of messages and of changes: events, subscriptions,
// tracking.
#pragma once

#include <stddef.h>

struct kvd;

/// Returns 0, or an exit code with `why` filled; then nothing is left behind.
int service_events_start(struct kvd *kvd, char *why, size_t why_bytes);
void service_events_stop(struct kvd *kvd);

/// Before the keyspace's share of a turn: keys whose time has come are not looked for while others
/// are still told of, or their events would pile up.
void service_events_hold(struct kvd *kvd);
