// SPDX-License-Identifier: MIT
//
// kvd --supervise: a small parent that runs kvd as its child, keeps the descriptors that the child
// wants to outlive it (keeper.h), and starts it again when it dies. It does nothing else: it maps
// nothing, listens to no client and reads no file, so that there is little in it that can fail.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sysexits.h>

struct seam;

/// How a child ended.
struct supervise_end {
	int status;    // as of waitpid()
	bool told;     // the supervisor was asked to stop
	bool stopping; // the child said STOPPING=1
	bool ready;    // the child said READY=1
	bool keeps;    // descriptors that would go with the supervisor
	unsigned last; // children started since the supervisor was asked to stop
};

/// Is the child to be started again? Not if it ended in order, nor if it failed at its start for a
/// reason that lasts (options, permissions, a damaged store) and nothing is kept that the next one
/// could go on with when the reason is gone. Once the supervisor was asked to stop, only for what
/// is kept: to make durable what it holds, and then stop; SUPERVISE_LAST_MAX times at most.
bool supervise_again(const struct supervise_end *end);
#define SUPERVISE_LAST_MAX 10u

/// The exit code to end with: the child's, or 128 and its signal, as a shell says it.
int supervise_code(int status);

/// How long to wait, in ms, after the `deaths`-th in a row: nothing for the first, then from 10 ms
/// twice as long each time, up to 5 s. A child that lived for SUPERVISE_LIVED_NS ended a row.
uint64_t supervise_delay_ms(unsigned deaths);
#define SUPERVISE_LIVED_NS UINT64_C(10000000000)

/// Runs this program with `arguments` ([0] too, NULL at the end) as a child, again and again, until
/// it ends for good. SIGTERM and SIGINT, which are requests to stop, SIGHUP, SIGUSR1 and SIGUSR2 go
/// to the child, which begins with all of them held (daemon/signals.h); READY=1 and the like go on
/// to $NOTIFY_SOCKET. Orphans are waited for, so this may be process 1.
/// Returns the exit code. Call with no thread started and nothing open but what was inherited.
int supervise_run(const struct seam *seam, char *const arguments[]);
