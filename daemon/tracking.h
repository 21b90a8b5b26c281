// SPDX-License-Identifier: MIT
//
// CLIENT TRACKING: which keys clients keep copies of, and telling them when such a key changes.
// By default kvd remembers each key that a tracking client reads, up to tracking-table-max-keys;
// in broadcasting mode it remembers prefixes only and collects what changed until the end of the
// turn. Everything belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct call;
struct kvd;
struct session;

/// Prefixes that a client may have: what checking them takes stops everybody.
#define TRACKING_PREFIXES_MAX 4096u

enum tracking_flags {
	TRACKING_BCAST = 1 << 0,
	TRACKING_OPTIN = 1 << 1,
	TRACKING_OPTOUT = 1 << 2,
	TRACKING_NOLOOP = 1 << 3,
	TRACKING_CACHING = 1 << 4, // CLIENT CACHING was said for the next command
	TRACKING_BROKEN = 1 << 5,  // whom it redirects to is gone
	TRACKING_ON = 1 << 6,
};

/// Sets kvd->tracking. False if memory is short.
bool tracking_create(struct kvd *kvd);
/// All sessions are gone by then. NULL in kvd->tracking is fine.
void tracking_destroy(struct kvd *kvd);

/// Begins or changes the tracking of a session. `redirect` 0 = messages go to itself. Prefixes are
/// added with tracking_add_prefix(). False: memory is short.
bool tracking_start(struct session *session, unsigned flags, uint64_t redirect);
/// False: there is no room for another prefix.
bool tracking_add_prefix(struct session *session, const char *prefix, size_t bytes);
/// Ends it; remembered keys go when they change. Does nothing if it is off.
void tracking_leave(struct session *session);

/// A session that has tracked ends: what it read is looked for, and forgotten, little by little.
void tracking_session_over(const struct session *session);

/// What it is set to; 0 = off.
unsigned tracking_flags(const struct session *session);
/// Sets or clears TRACKING_CACHING.
void tracking_set_caching(struct session *session, bool caching);
/// The id of the session that gets its messages, 0 = itself, -1 = off.
int64_t tracking_redirect(const struct session *session);
/// Its prefixes in order: visit() until it returns false.
void tracking_each_prefix(const struct session *session,
			  bool (*visit)(void *context, const char *prefix, size_t bytes),
			  void *context);
size_t tracking_prefixes_count(const struct session *session);
/// Is there one among them that reports a key which this one reports, too? The first in order is
/// *name, good until it is dropped.
bool tracking_find_overlap(const struct session *session, const char *prefix, size_t bytes,
			   const char **name, size_t *name_bytes);
/// The order of names: by their bytes, then the shorter before the longer. <0, 0 or >0.
int tracking_compare(const char *a, size_t a_bytes, const char *b, size_t b_bytes);

/// Are keys that a session reads now to be remembered?
bool tracking_wants_reads(const struct session *session);
/// Does it track what it reads, rather than prefixes?
bool tracking_is_by_key(const struct session *session);
/// Remembers one of them, charged to the session's uid. False, there is no room for it: the session
/// must be told, behind what it was answered, that the key has changed.
bool tracking_remember(struct session *session, const char *key, size_t bytes);
/// What it has just read of one is no longer so: tells it, and does not remember.
void tracking_tell(struct session *session, const char *key, size_t bytes);
/// A slice of a command is over, which goes on: some of what was read beyond
/// tracking-table-max-keys is let go of.
void tracking_slice_over(struct kvd *kvd);
/// The command is over, its reply complete: what was read beyond tracking-table-max-keys is let
/// go of. Only for a session that tracks.
void tracking_command_over(const struct call *call);

/// A key was changed, or (NULL) all of them were, by the session `origin_id` (0: by no command).
/// Many are told by the courier.
void tracking_changed(struct kvd *kvd, const char *key, size_t key_bytes, uint64_t origin_id);

/// Sends what broadcasting collected in this turn; frees a piece of what a flush left.
void tracking_turn(struct kvd *kvd);
/// Is there more to do at once?
bool tracking_busy(const struct kvd *kvd);

/// For INFO.
size_t tracking_clients_count(const struct kvd *kvd);
size_t tracking_keys_count(const struct kvd *kvd);
uint64_t tracking_items_count(const struct kvd *kvd); // pairs of a key and a client
size_t tracking_all_prefixes_count(const struct kvd *kvd);
