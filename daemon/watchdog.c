// SPDX-License-Identifier: MIT
//
// A timer of the loop, so that what is told is what the manager wants to know. Three pings a
// period: one may be late by a third of it, and one may be lost.
#include "daemon/watchdog.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/notify.h"

#define WATCHDOG_PINGS_A_PERIOD 3u
#define WATCHDOG_PERIOD_US_MAX UINT64_C(86400000000)

/// A number of the environment that is all of the variable; 0 if it is none.
static uint64_t watchdog_number(const char *name)
{
	const char *text = getenv(name);
	char *end = NULL;
	if (!text || *text < '0' || *text > '9') {
		return 0;
	}
	errno = 0;
	unsigned long long number = strtoull(text, &end, 10);
	return *end == '\0' && errno == 0 ? number : 0;
}

static void watchdog_set(struct watchdog *watchdog)
{
	if (!loop_timer_set(watchdog->loop, &watchdog->timer,
			    loop_now_ns(watchdog->loop) + watchdog->every_ns)) {
		log_error("out of memory: the watchdog is told nothing more and will end kvd");
	}
}

static void watchdog_due(struct loop_timer *timer, uint64_t now_ns)
{
	(void)now_ns;
	struct watchdog *watchdog =
		(struct watchdog *)(void *)((char *)timer - offsetof(struct watchdog, timer));
	notify_watchdog(watchdog->sender);
	watchdog_set(watchdog);
}

void watchdog_start(struct watchdog *watchdog, struct loop *loop)
{
	uint64_t period_us = watchdog_number("WATCHDOG_USEC");
	bool ours = getenv("WATCHDOG_PID") == NULL ||
		    watchdog_number("WATCHDOG_PID") == (uint64_t)getpid();
	if (period_us == 0 || period_us > WATCHDOG_PERIOD_US_MAX || !ours) {
		return;
	}
	watchdog->sender = notify_open();
	if (watchdog->sender < 0) {
		return;
	}
	watchdog->loop = loop;
	watchdog->every_ns = period_us * 1000 / WATCHDOG_PINGS_A_PERIOD;
	watchdog->timer.due = watchdog_due;
	notify_watchdog(watchdog->sender);
	watchdog_set(watchdog);
}

void watchdog_stop(struct watchdog *watchdog)
{
	if (watchdog->loop) {
		loop_timer_cancel(watchdog->loop, &watchdog->timer);
		(void)close(watchdog->sender);
		watchdog->loop = NULL;
	}
}
