// SPDX-License-Identifier: MIT
//
// The signals that kvd takes from a descriptor, each when it can obey it. Until it serves they
// wait: a stop that came while a region is taken over must not end kvd before what only that region
// has is durable.
#pragma once

#include <signal.h>
#include <stdbool.h>

/// The set: SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2.
void signals_taken(sigset_t *set);

/// Lets them wait from now on, in this thread and those that it starts. What programs this one
/// execs inherit that, and what waits. Returns 0 or an errno; `before`: the former mask, or NULL.
int signals_hold(sigset_t *before);

/// Does SIGTERM or SIGINT wait?
bool signals_stop_waits(void);
