// SPDX-License-Identifier: MIT
//
// Tells a service manager that asks for it (WATCHDOG_USEC) that the loop still turns: one whose kvd
// hangs kills it, and the next life takes the region over.
#pragma once

#include <stdint.h>

#include "daemon/loop.h"

/// Zeroed before its first use; owned by the caller, who stops it before the loop goes.
struct watchdog {
	struct loop *loop;
	struct loop_timer timer;
	uint64_t every_ns;
	int sender; // see notify_open()
};

/// Says WATCHDOG=1 now and then three times in each period that the environment names, from turns
/// of the loop; does nothing if it names none, or one of another process.
void watchdog_start(struct watchdog *watchdog, struct loop *loop);
void watchdog_stop(struct watchdog *watchdog);
