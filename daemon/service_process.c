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
#include <sysexits.h>

#include "daemon/config.h"
#include "daemon/config_text.h"
#include "daemon/files.h"
#include "daemon/log.h"
#include "daemon/memory_limit.h"
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

/// As many clients as there are descriptors for: beyond that no share of them would be one, nor a
/// place that is kept.
static void service_settle_files(struct config *config)
{
	files_raise();
	struct files_shares shares = files_share(files_limit());
	if (config->clients_max <= shares.clients_max) {
		return;
	}
	log_notice("maxclients is %llu and not %llu: there are descriptors for no more, since %llu "
		   "files may be open; %s, or lower maxclients",
		   (unsigned long long)shares.clients_max, (unsigned long long)config->clients_max,
		   (unsigned long long)shares.limit, remedy_of_errno(EMFILE));
	config->clients_max = shares.clients_max;
}

/// The region is filled long after the start, and then the kernel kills without a word. If it is
/// filled at the start that is refused. False, with `why`.
static bool service_check_memory(const struct config *config, char *why, size_t why_bytes)
{
	struct memory_limit limit = memory_limit_find("");
	char memory[32], buffers[32], most[32];
	config_text_print_size(config_memory_bytes(config), memory, sizeof(memory));
	config_text_print_size(config->buffers_bytes_max, buffers, sizeof(buffers));
	config_text_print_size(limit.bytes, most, sizeof(most));
	bool is_group = limit.what[0] != '\0';
	if (config->huge_pages == CONFIG_PAGES_HUGETLB) {
		return true; // these limits are not for pages of the pool
	}
	if (config_memory_bytes(config) > limit.bytes && config->prefault == 1) {
		(void)snprintf(
			why, why_bytes, "prefault: memory is %s, but %s %s%s%s: lower memory%s",
			memory, is_group ? "this process may use" : "the machine has", most,
			is_group ? ", says " : "", limit.what,
			is_group ? ", or raise that limit (MemoryMax=, docker run --memory)" : "");
		return false;
	}
	if (config_memory_bytes(config) > limit.bytes) {
		log_warning(
			"memory is %s, but %s %s%s%s: when it fills the kernel will end kvd; lower "
			"memory%s",
			memory, is_group ? "this process may use" : "the machine has", most,
			is_group ? ", says " : "", limit.what,
			is_group ? ", or raise that limit (MemoryMax=, docker run --memory)" : "");
	} else if (is_group &&
		   config->buffers_bytes_max > limit.bytes - config_memory_bytes(config)) {
		log_notice(
			"memory (%s) and what clients may leave unread or unfinished (%s) exceed "
			"the %s that this process may use, says %s: lower memory or "
			"client-buffers-max, or raise that limit (MemoryMax=)",
			memory, buffers, most, limit.what);
	}
	return true;
}

int service_process(struct config *config, char *why, size_t why_bytes)
{
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
	log_init((enum log_level)config->log_level);
	service_settle_files(config);
	if (!service_check_memory(config, why, why_bytes)) {
		return EX_CONFIG;
	}
	bool good = arm("KVD_CRASH_AT", false, why, why_bytes) &&
		    arm("KVD_HALT_AT", true, why, why_bytes);
	return good ? 0 : EX_USAGE;
}
