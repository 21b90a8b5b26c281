// SPDX-License-Identifier: MIT
//
// The keys that a connection watches (WATCH), each with the version it had then: an open table of
// copies, bounded in number and charged to the session like its other buffers. A key that was
// absent has no version that would tell whether it came and went: those are also found by hash, so
// that whoever writes one of them leaves a mark.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/lookup.h"

struct kvd;
struct session;

#define SESSION_WATCH_MAX 4096u // keys; EXEC looks at all of them in one go

struct session_watched {
	struct lookup_link link; // in kvd->watched_absent if seq is 0; its hash is the key's
	uint64_t seq;		 // version when it was watched, 0 = absent
	bool touched;		 // was absent, and was written since
	uint32_t key_bytes;
	unsigned char key[];
};

struct session_watch {
	struct session_watched **places; // a power of two of them, at most half full
	uint32_t capacity;
	uint32_t count;
	size_t bytes; // charged
};

/// Watches a key that has version `seq` now; one that is watched already keeps its version. False:
/// too many keys, or no memory for more.
bool session_watch_add(struct session *session, const void *key, size_t key_bytes, uint64_t hash,
		       uint64_t seq);

/// Watches nothing any more.
void session_watch_reset(struct session *session);

/// A key was written: whoever watched it while it was absent will notice. Call it only while
/// kvd->watched_absent.count is not 0.
void session_watch_touch(struct kvd *kvd, const void *key, size_t key_bytes);

/// Any key may have been: everybody who watches one that was absent will notice.
void session_watch_touch_all(struct kvd *kvd);
