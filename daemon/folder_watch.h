// SPDX-License-Identifier: MIT
//
// Notices that the data folder was removed when nobody writes to it: with it went the socket and
// kvd.gen, so nobody new could come, and under a policy without a store nothing else would ever
// look. An idle kvd is not woken for it: inotify tells when something in the folder is removed,
// which comes before its own name goes, and for some seconds after that its name is looked at.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/loop.h"

struct folder_watch {
	struct loop *loop; // NULL = it does not watch
	const char *path;  // the caller's
	/// The name is not that of the folder any more. Returns whether it is to be asked again.
	bool (*gone)(void *context);
	/// Something in it was removed a second ago, and the folder was not.
	void (*lost)(void *context);
	void *context;
	struct loop_source source;
	struct loop_timer timer;
	uint64_t pause_ns; // to the next look
	dev_t device;	   // of the folder that is watched
	ino_t inode;
};

/// Watches the folder that has this name now, instead of the one before. `gone` is called by the
/// loop, from 10 ms after it was removed on and then at most once a second, until it returns false.
/// What inotify lacks (it has a limit of instances a uid) is logged with its remedy, and then the
/// removal is noticed by whoever writes next.
/// Call with: `watch` zeroed before its first use, and in place until folder_watch_stop(). Thread
/// must: be the loop's. Orders: nothing.
void folder_watch_start(struct folder_watch *watch, struct loop *loop, const char *path,
			bool (*gone)(void *context), void (*lost)(void *context), void *context);

/// Ends it; one that never began is fine. Thread must: be the loop's.
void folder_watch_stop(struct folder_watch *watch);
