// SPDX-License-Identifier: MIT
//
// The daemon's parts, put together once in main.c and handed to whoever needs more than one of them
// (commands, sessions, statistics). No globals: whoever has no pointer to this has no business
// here.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/config.h"
#include "daemon/courier.h"
#include "daemon/keyspace.h"
#include "daemon/lookup.h"

struct kvd {
	const struct seam *seam;
	struct config config;			 // effective options
	bool config_changed[CONFIG_OPTIONS_MAX]; // set while kvd runs: CONFIG REWRITE's
	struct config_rewriter *config_rewriter; // CONFIG REWRITE's thread; NULL = not asked yet
	struct config_names *config_names; // what is kept under Redis's names; NULL = nothing is
	struct jobs *jobs;		   // backup and verification; NULL in some tests
	struct fdstore *fdstore;	   // descriptors that outlive kvd
	struct datadir *folder;		   // config.dir, locked; NULL in some tests
	struct loop *loop;		   // epoll, timers, wake-ups
	struct listener *listener;	   // accepts; owns the sessions
	struct session_shared *sessions;   // the same ones
	struct keyspace *keyspace;	   // the single writer
	struct keyspace_damage damage;	   // that a command met
	struct persist *persist;	   // NULL under the memory policy
	struct cold *cold;		   // values on their way from the store; NULL as above
	struct readers *readers;	   // pages, attached processes, revocation
	struct stats *stats;		   // what INFO and KVD.STATS tell beyond the counters
	struct events *events;	// changes of keys on their way to who listens; NULL in some tests
	struct pubsub *pubsub;	// who is subscribed to what; NULL in some tests
	struct courier courier; // what is on its way to many
	struct lookup watched_absent; // of all sessions, see session_watch.h
	struct tracking *tracking;    // what clients cache; NULL in some tests
	unsigned events_wanted;	      // enum event_class: what anybody listens to, 0 = nobody does
	bool events_pending;	      // something is queued: events_tell() when the command is over
	int pagemap_fd; // /proc/self/pagemap, opened while kvd might; 0 = none
	uint64_t started_wall_ms;
	uint64_t started_ns;
	uint64_t instance_id;
	uint64_t lookup_seed;	  // of tables of keys that outlast a turn; told to nobody
	char run_id[41];	  // 40 hex digits, as Redis
	uint64_t durable_wall_ms; // when something last became durable, or at start
	uint64_t paused_until_ns; // CLIENT PAUSE, monotonic; 0 = nothing is paused
	bool paused_all;	  // reading commands are, too
	bool stopping;
};
