// SPDX-License-Identifier: MIT
//
// The keys that a connection watches (WATCH), each with the version it had then: an open table of
// copies, bounded in number and charged to the session like its other buffers.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct session;

#define SESSION_WATCH_MAX 4096u // keys; EXEC looks at all of them in one go

struct session_watched {
	unsigned char *key; // NULL = free place
	uint64_t hash;
	uint64_t seq; // version when it was watched, 0 = absent
	uint32_t key_bytes;
};

struct session_watch {
	struct session_watched *places; // a power of two of them, at most half full
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
