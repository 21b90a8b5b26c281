// SPDX-License-Identifier: MIT
//
// What kvd asks of its process before anything else: malloc() that gives back, signals that become
// errors, as many files as it may have, a log, and the crash point that a test wants.
#include "daemon/service_process.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>

#include "daemon/config.h"
#include "daemon/log.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"

// The crash point that a test wants, if any.
static bool arm(const char *variable, bool halts, char *why, size_t why_bytes)
{
	const char *point = getenv(variable);
	if (point == NULL || seam_crash_arm(point, halts) == 0) {
		return true;
	}
	(void)snprintf(why, why_bytes, "%s=%s: no such crash point", variable, point);
	return false;
}

int service_process(const struct config *config, char *why, size_t why_bytes)
{
	struct rlimit files;
	// Large buffers in mappings of their own, always: they grow without being copied, and go
	// back to the kernel page by page. By itself malloc() stops doing that after the first.
	(void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
	// What remains are small pieces, of clients that come again. Giving back those of a hundred
	// thousand subscriptions, all in the free() of the last, took 4 ms.
	(void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN); // a file size limit is an error of a write, not the end
	// Other processes of this uid must not ptrace their way around the read-only mapping.
	(void)prctl(PR_SET_DUMPABLE, 0);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files); // if not, the listener lives with fewer
	}
	log_init((enum log_level)config->log_level);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 &&
	    files.rlim_cur < config->clients_max) {
		log_notice("maxclients is %llu, but only %llu files may be open: clients are "
			   "refused before; %s, or lower maxclients",
			   (unsigned long long)config->clients_max,
			   (unsigned long long)files.rlim_cur, remedy_of_errno(EMFILE));
	}
	bool good = arm("KVD_CRASH_AT", false, why, why_bytes) &&
		    arm("KVD_HALT_AT", true, why, why_bytes);
	return good ? 0 : EX_USAGE;
}
