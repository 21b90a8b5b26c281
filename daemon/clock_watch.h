// SPDX-License-Identifier: MIT
//
// Tells the keyspace when wall time is set or the machine wakes up, so that it need not look every
// second whether it was. The kernel cancels a timer on wall time then; this one would fire in the
// year 2200.
#pragma once

#include "daemon/loop.h"

struct keyspace;

/// Zeroed before its first use; owned by the caller, who stops it before loop or keyspace go.
struct clock_watch {
	struct loop *loop; // NULL = there is none
	struct keyspace *keyspace;
	struct loop_source source;
};

/// Begins to watch. Where that cannot be done the keyspace goes on looking.
void clock_watch_start(struct clock_watch *watch, struct loop *loop, struct keyspace *keyspace);
void clock_watch_stop(struct clock_watch *watch);
