// SPDX-License-Identifier: MIT
//
// The one place where a change of a key is told: commands and the keyspace say here what happened,
// and when the command is over, it goes to whoever listens, keyspace notifications and the caches
// of tracking clients. What a command says is forgotten if the command is taken back, so that
// nobody hears of a write that was refused; that a key's time has come is never taken back.
// Everything belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvd;
struct parcel;
struct session;

/// Classes of events, and the two ways to hear of them; letters as in notify-keyspace-events.
enum event_class {
	EVENT_TO_KEYSPACE = 1 << 0, // K: __keyspace@0__:<key>, not a class
	EVENT_TO_KEYEVENT = 1 << 1, // E: __keyevent@0__:<event>, not a class
	EVENT_GENERIC = 1 << 2,	    // g
	EVENT_STRING = 1 << 3,	    // $
	EVENT_LIST = 1 << 4,	    // l; kvd has none of these six: accepted and shown
	EVENT_SET = 1 << 5,	    // s
	EVENT_HASH = 1 << 6,	    // h
	EVENT_ZSET = 1 << 7,	    // z
	EVENT_STREAM = 1 << 8,	    // t
	EVENT_MODULE = 1 << 9,	    // d
	EVENT_EXPIRED = 1 << 10,    // x
	EVENT_EVICTED = 1 << 11,    // e
	EVENT_NEW = 1 << 12,	    // n
	EVENT_MISS = 1 << 13,	    // m
	EVENT_FLUSH = 1 << 14,	    // all keys are gone: only tracking hears of it
	EVENT_MESSAGE = 1 << 15,    // no event: a message that waits for the end of its command
	EVENT_SHARD_MESSAGE = 1 << 16,
	EVENT_READ = 1 << 17, // no event: a tracking client read a key behind what is queued
	EVENT_UNKEPT = 1 << 18, // it did, and that cannot be remembered
};
#define EVENT_ALL                                                                                  \
	(EVENT_GENERIC | EVENT_STRING | EVENT_LIST | EVENT_SET | EVENT_HASH | EVENT_ZSET |         \
	 EVENT_STREAM | EVENT_MODULE | EVENT_EXPIRED | EVENT_EVICTED) // A
#define EVENT_CHANGES (EVENT_ALL | EVENT_FLUSH) // after these a cached value is stale

struct events;

/// Sets kvd->events. False if memory is short. The keyspace must exist.
bool events_create(struct kvd *kvd);
/// NULL in kvd->events is fine.
void events_destroy(struct kvd *kvd);

/// Queues that `name` (a string that stays) happened to a key, whose bytes are copied. Call it only
/// if kvd->events_wanted has the class; commands use commands_event().
void events_add(struct kvd *kvd, enum event_class class, const char *name, const void *key,
		size_t key_bytes);

/// The same for a key whose time came, or that was evicted: told before what the running command
/// says, and never taken back.
void events_add_removal(struct kvd *kvd, enum event_class class, const char *name, const void *key,
			size_t key_bytes);

/// Queues a message, of which a reference is kept: it goes out with the events of the command.
/// False: memory is short.
bool events_add_message(struct kvd *kvd, bool shard, struct parcel *parcel);

/// How much is queued, for events_rewind(): what was queued since is forgotten.
size_t events_mark(const struct kvd *kvd);
void events_rewind(struct kvd *kvd, size_t mark);

/// Tells everything that is queued, now or, where that takes longer than `origin` has, in later
/// turns; it is answered then. `origin` is the session whose command it was, NULL if none. Does
/// nothing if nothing is queued; see kvd->events_pending.
void events_tell(struct kvd *kvd, struct session *origin);

/// notify-keyspace-events: the letters as bits, and back in Redis's order, C string in `out`.
/// False if there is an unknown letter.
#define EVENTS_FLAGS_BYTES 24u
bool events_flags_parse(const char *text, size_t bytes, unsigned *flags);
void events_flags_print(unsigned flags, char out[EVENTS_FLAGS_BYTES]);

/// Sets what is notified from now on (bits of enum event_class); 0 = nothing.
void events_set_notified(struct kvd *kvd, unsigned flags);
unsigned events_notified(const struct kvd *kvd);

/// Keys are watched that were absent: while there are any, what commands do to keys is wanted.
void events_set_watched(struct kvd *kvd, bool watched);

/// Tracking clients come and go: while there is one, every change is wanted.
void events_set_tracked(struct kvd *kvd, bool tracked);
