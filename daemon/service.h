// SPDX-License-Identifier: MIT
//
// kvd's parts in the order in which they need each other: one list to start them, the same list
// backwards to stop them, each step with the sentence to print when it fails.
#pragma once

#include <stdbool.h>

#include "daemon/kvd.h"

struct service;

/// Starts everything with the options in `config`, which it takes over. On failure one line has
/// been printed, whatever was started is stopped, and the exit code for main is returned
/// (sysexits); 0 is good and *out is the service, ready for clients.
int service_start(struct service **out, const struct config *config);

/// Serves until SIGTERM or SIGINT. Returns an exit code.
int service_run(struct service *service);

/// Stops: no new clients, everything durable, what was held is answered, then all parts in reverse
/// order. Returns an exit code: 0 only if everything acknowledged is durable as its policy says.
int service_stop(struct service *service);
