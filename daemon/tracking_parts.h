// SPDX-License-Identifier: MIT
//
// Tracking from inside: tracking.c (clients and messages), tracking_keys.c (the table of what was
// read), tracking_bcast.c (prefixes).
#pragma once

#include <sys/queue.h>

#include "daemon/kvd.h"
#include "daemon/lookup.h"
#include "daemon/session.h"
#include "daemon/tracking.h"
#include "shm/limits.h"

/// A client's interest in a prefix.
struct tracking_member {
	struct tracking_prefix *prefix;
	struct tracking_client *client;
	TAILQ_ENTRY(tracking_member) of_prefix;
};
TAILQ_HEAD(tracking_members, tracking_member);

struct parcel;
struct session_owner;

struct tracking_client {
	TAILQ_ENTRY(tracking_client) link;
	struct session *session;
	unsigned flags; // enum tracking_flags
	uint64_t redirect;
	struct tracking_member **prefixes; // by name, see tracking_compare()
	size_t prefixes_count, prefixes_capacity;
};

/// A key that changed in this turn.
struct tracking_change {
	size_t start; // in tracking_prefix.bytes
	size_t key_bytes;
	uint64_t origin_id; // who changed it last, 0 = no session
};

struct tracking_prefix {
	struct lookup_link link;
	TAILQ_ENTRY(tracking_prefix) changed; // those with changes
	struct tracking_members members;
	size_t errands; // with changes of it: it stays until they are over
	struct tracking_change *changes;
	size_t changes_count, changes_capacity;
	char *bytes; // of the changed keys
	size_t bytes_end, bytes_capacity;
	size_t name_bytes;
	char name[];
};
TAILQ_HEAD(tracking_prefixes, tracking_prefix);

/// A table of keys that is being freed.
struct tracking_doomed {
	STAILQ_ENTRY(tracking_doomed) link;
	struct lookup keys;
	size_t cursor;
};

struct tracking {
	uint64_t seed;	 // of hashes
	uint64_t random; // chooses which key is let go of
	TAILQ_HEAD(, tracking_client) clients;
	struct tracking_client *flush_next;  // who is told next that all keys have changed
	struct tracking_member *member_next; // who is told next that those of a prefix have
	size_t clients_count;
	struct lookup keys;
	uint64_t items;
	bool sweeps;	   // a client left: its items are looked for
	bool sweeps_again; // and another one meanwhile
	size_t sweep_at;   // bucket of keys
	STAILQ_HEAD(, tracking_doomed) doomed;
	struct lookup prefixes;
	uint32_t lengths[KVS_KEY_BYTES_MAX + 1]; // how many prefixes are that long
	size_t longest;				 // a bound on the lengths that there are
	struct tracking_prefixes changed_prefixes;
};

/// Sends an invalidation to whoever gets a client's messages: `value` is a whole RESP value, the
/// keys; NULL means all keys.
void tracking_send(struct tracking_client *client, const char *value, size_t bytes);
/// The same of a value that many are sent.
void tracking_send_parcel(struct tracking_client *client, struct parcel *value);

// ---- tracking_keys.c ----

void tracking_key_changed(struct kvd *kvd, const char *key, size_t key_bytes, uint64_t origin_id);
/// Looks for some of what sessions that are gone had read. False: there is nothing more to do.
bool tracking_keys_sweep_some(struct kvd *kvd);
/// Are more keys remembered than may be?
bool tracking_keys_are_many(const struct kvd *kvd);
/// Forgets up to so many of those that are too many, chosen by chance, and tells who read them.
void tracking_keys_let_go(struct kvd *kvd, size_t let_go);
/// Forgets all keys; they are freed little by little.
void tracking_keys_drop(struct kvd *kvd);
/// Frees a piece of what was dropped.
void tracking_keys_free_some(struct kvd *kvd);
/// Frees everything.
void tracking_keys_fini(struct kvd *kvd);

// ---- tracking_bcast.c ----

void tracking_bcast_changed(struct kvd *kvd, const char *key, size_t key_bytes, uint64_t origin_id);
/// Sends what the prefixes collected, for a share of the time.
void tracking_bcast_send(struct kvd *kvd);
void tracking_bcast_leave(struct kvd *kvd, struct tracking_client *client);
