// SPDX-License-Identifier: MIT
//
// Commands: one table row each (daemon/commands.tbl.h), from which come lookup, arity checks, flags,
// COMMAND's replies and help; one function each, in a file by family (commands_string.c, …).
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
	COMMAND_SLOW_OK = 1 << 8, // may run over 200 µs (KEYS): says so in its help
};

/// One call: arguments point into the session's input buffer.
struct call {
	struct kvd *kvd;
	struct session *session;
	const struct command *command;
	const struct resp_arg *argv; // argv[0] is the command's name as sent
	uint32_t argc;
};

struct command {
	const char *name; // lower case
	void (*run)(struct call *call);
	int arity; // as Redis: negative = at least
	uint32_t flags;
	int first_key, last_key, key_step; // as COMMAND replies
	const char *group; // "string", "generic", "server", "connection", "transactions", "kvd"
	const char *since;
	const char *syntax; // arguments, as help shows them
	const char *summary; // our own words
};

/// Finds a command by name in any case; NULL if unknown.
const struct command *command_find(const char *name, size_t bytes);
/// All commands, *count of them, sorted by name.
const struct command *command_table(size_t *count);

enum command_outcome {
	COMMAND_DONE, // replied
	COMMAND_PARK, // memory is short now: call again with the same arguments when there is room
};

/// Runs one request of `session`: lookup, arity, MULTI queueing, memory admission, the command itself,
/// statistics. Exactly one reply is appended, unless PARK.
enum command_outcome command_dispatch(struct kvd *kvd, struct session *session,
				      const struct resp_arg *argv, uint32_t argc);
