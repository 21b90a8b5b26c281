// SPDX-License-Identifier: MIT
//
// Commands: one table row each (daemon/commands.tbl.h), from which come lookup, arity checks,
// flags, COMMAND's replies and help; one function each, in a file by family (commands_string.c, …).
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/resp.h"

struct kvd;
struct session;

enum command_flags {
	COMMAND_WRITE = 1 << 0,
	COMMAND_READONLY = 1 << 1,
	COMMAND_DENYOOM = 1 << 2, // keyspace_admit() is asked first
	COMMAND_FAST = 1 << 3,
	COMMAND_ADMIN = 1 << 4,
	COMMAND_NO_MULTI = 1 << 5, // not allowed inside MULTI
	COMMAND_NO_QUEUE = 1 << 6, // runs at once inside MULTI (EXEC, DISCARD, …)
	COMMAND_LOADING = 1 << 7,
	COMMAND_SLOW_OK = 1 << 8, // may take long: the clock is looked at behind each
	// The rest only shows in COMMAND's replies, so that clients see what Redis would tell them.
	COMMAND_NOSCRIPT = 1 << 9,
	COMMAND_STALE = 1 << 10,
	COMMAND_NO_AUTH = 1 << 11,
	COMMAND_ALLOW_BUSY = 1 << 12,
	COMMAND_SKIP_SLOWLOG = 1 << 13,
	COMMAND_DANGEROUS = 1 << 14,
	COMMAND_CONTAINER = 1 << 15, // has subcommands: rows named "name|sub"
	COMMAND_PUBSUB = 1 << 16,
	COMMAND_SUBSCRIBER = 1 << 17,	  // a RESP2 subscriber may send it
	COMMAND_MAY_REPLICATE = 1 << 18,  // waits for the end of a pause as writes do
	COMMAND_UNPAUSES = 1 << 19,	  // never waits for it
	COMMAND_CATEGORY_ADMIN = 1 << 20, // counts as such in ACL CAT, though not flagged so
	COMMAND_NO_ASYNC_LOADING = 1 << 21,
	COMMAND_REMOVES = 1 << 22, // it leaves less behind: no quota lets it wait
	// The right that its user needs (commands_right()).
	COMMAND_NEEDS_ATTACH = 1 << 23,
	COMMAND_NEEDS_WRITE = 1 << 24,
	COMMAND_NEEDS_ADMIN = 1 << 25,
	COMMAND_NEEDS_ADMIN_OTHERS = 1 << 26, // only for what is another user's; it asks itself
	// It stores an argument as it is: the last that it must have, or with pairs each second.
	COMMAND_TAKES_VALUE = 1 << 27,
};

/// One call: arguments point into the session's input buffer.
struct call {
	struct kvd *kvd;
	struct session *session;
	const struct command *command;
	const struct resp_arg *argv; // argv[0] is the command's name as sent
	uint32_t argc;
	uint64_t mark;	    // where its reply begins, see reply_mark()
	size_t events_mark; // where its events begin, see events_mark()
	bool in_exec;	    // runs inside EXEC's batch: begins none of its own
	bool failed;	    // it answered with an error
	uint64_t slept_ns;  // it also lets its connection rest so long (DEBUG SLEEP)
	// A command that may take long looks at commands_slice_over(); when its share of the turn
	// is used up it notes in `state` how far it came, sets `again`, returns, and is called
	// again in the next turn. What it answered so far stays.
	bool again;
	uint64_t until_ns; // 0 = it may not be cut: inside EXEC
	bool tracks;	   // it calls commands_track() itself for each key that it reads
	void *state;	   // its own, NULL at first
	void (*state_free)(void *state); // set with it; called once, over or given up
	int refused; // KEYSPACE_WAIT, _FULL, _TOO_LARGE: no room, nothing was changed or answered
};

struct command {
	const char *name; // lower case
	void (*run)(struct call *call);
	int arity;			   // as Redis: negative = at least
	uint32_t flags;			   // its right among them
	int first_key, last_key, key_step; // as COMMAND replies
	const char *group; // "string", "generic", "server", "connection", "transactions", "kvd"
	const char *since;
	const char *syntax;  // arguments, as help shows them
	const char *summary; // our own words
};

/// Finds a command by name in any case, subcommands as "client|id"; NULL if unknown.
const struct command *command_find(const char *name, size_t bytes);
/// All commands, *count of them, sorted by name.
const struct command *command_table(size_t *count);

enum command_outcome {
	COMMAND_DONE,  // replied
	COMMAND_AGAIN, // more to do: command_continue() in the next turn; see session->task
	COMMAND_PARK,  // memory is short now: call again with the same arguments when there is room
	COMMAND_POSTPONE, // CLIENT PAUSE: the same when the pause is over
	COMMAND_FETCH,	  // values are in the store alone: the same when they have been read
	COMMAND_THROTTLE, // its user writes too fast: the same when he may again
};

/// Runs one request of `session`: lookup, arity, MULTI queueing, memory admission, the command
/// itself, statistics. Exactly one reply is appended, unless PARK, POSTPONE, FETCH or THROTTLE;
/// with AGAIN it is not complete yet.
enum command_outcome command_dispatch(struct kvd *kvd, struct session *session,
				      const struct resp_arg *argv, uint32_t argc);
/// The next slice of session->task.
enum command_outcome command_continue(struct session *session);
