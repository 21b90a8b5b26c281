// SPDX-License-Identifier: MIT
//
// The watching half of an asynchronous handle: a connection of its own, what kvd was asked for on
// it, and who wants to know. The functions named by a dispatch may be called where nothing was ever
// watched.
#pragma once

#include "libclient/async.h"

struct kvc_watch {
	kvc_watch *next;
	kvc_async *async;
	kvc_watched watched; // NULL = closed, to be freed when no loop stands on it
	void *user;
	bool prefix;
	bool on;	 // kvd has confirmed
	bool gap;	 // LOST is to be told
	bool told_ready; // the last thing told was READY
	bool told_any;
	uint64_t answer; // the reply that confirms it
	size_t bytes;
	char key[];
};

/// Prefixes of which none begins with another.
struct kvc_prefixes {
	struct kvc_prefix {
		size_t bytes;
		char key[KVS_KEY_BYTES_MAX];
	} * item;
	size_t count, capacity;
};

enum kvc_prefix_added {
	KVC_PREFIX_NEW,	     // the last of the set
	KVC_PREFIX_COVERED,  // there is one that it begins with
	KVC_PREFIX_REPLACES, // it took the place of some that begin with it
	KVC_PREFIX_NO_MEMORY,
};

struct kvc_watching {
	struct kvc_stream stream;
	kvc_watch *list;
	size_t count;		      // of watches that are not closed
	struct kvc_prefixes prefixes; // asked for on this connection
	uint64_t asked, answered;     // requests on this connection
	uint64_t deadline_ns;	      // of the oldest that is not answered
	const struct kvc_reply *push; // being told: its keys from `push_at` on
	size_t push_at;
	bool state_due;	  // some watch has a LOST or READY to be told
	bool opened_some; // while they were being told
	bool more_input;  // replies may be waiting in the input buffer
	bool closed_some; // watches that wait to be freed
	bool half_asked;  // memory was refused amid asking: the connection is to be replaced
};

// watch_turn.c

/// Connects, subscribes, reads pushes and tells watchers, within the budget.
void kvc_watching_turn(kvc_async *async, struct kvc_budget *budget);
/// Is there anything to do that no socket will tell of?
bool kvc_watching_has_work(const kvc_async *async);
/// When a turn is due even so: the next attempt to connect, or a deadline. KVC_NEVER: not at all.
uint64_t kvc_watching_due_ns(const kvc_async *async);

// watch_ask.c

bool kvc_watch_covers(const char *prefix, size_t prefix_bytes, const char *key, size_t bytes);
/// Asks a new connection for RESP3 and for everything that is watched. False: out of memory.
bool kvc_watching_introduce(struct kvc_watching *watching);
/// Asks for one watch more on a connection that stands. False: out of memory; if the others were
/// asked for anew with it, the next turn does so on another connection.
bool kvc_watching_extend(struct kvc_watching *watching, kvc_watch *watch);
/// From now on changes may be missed: nothing is asked for any more, and all watchers are told.
void kvc_watching_lose(struct kvc_watching *watching);

// watch.c

/// Frees watches that were closed; no loop may stand on the list.
void kvc_watching_sweep(struct kvc_watching *watching);
/// In a forked child: the connection is the parent's.
void kvc_watching_forget(kvc_async *async, bool orphan);
void kvc_watching_free(kvc_async *async);
