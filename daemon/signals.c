// SPDX-License-Identifier: MIT
//
// One set, for the process that starts, for its loop and for its supervisor.
#include "daemon/signals.h"

#include <stddef.h>

void signals_taken(sigset_t *set)
{
	static const int taken[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 };
	(void)sigemptyset(set);
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
		(void)sigaddset(set, taken[i]);
	}
}

int signals_hold(sigset_t *before)
{
	sigset_t set;
	signals_taken(&set);
	return pthread_sigmask(SIG_BLOCK, &set, before);
}

bool signals_stop_waits(void)
{
	sigset_t waiting;
	return sigpending(&waiting) == 0 &&
	       (sigismember(&waiting, SIGTERM) == 1 || sigismember(&waiting, SIGINT) == 1);
}
