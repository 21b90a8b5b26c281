// SPDX-License-Identifier: MIT
//
// The newest commands that took long: SLOWLOG. Bounded in number, and each entry in size, for it
// holds pieces of keys and values. Everything belongs to the loop's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "shm/resp.h"

struct session;

#define SLOWLOG_ARGS_MAX 32u // of a command that are kept; the last one then tells of the rest
#define SLOWLOG_ARG_BYTES_MAX 128u // of an argument that are kept

struct slowlog_entry {
	TAILQ_ENTRY(slowlog_entry) link;
	uint64_t id;	 // rises by one, never reused by this process
	uint64_t time_s; // wall clock when it ended
	uint64_t micros; // it took
	uint32_t argc;
	struct resp_arg *argv; // trimmed copies, behind the entry in the same allocation
	const char *peer;      // where the client is connected
	const char *name;      // of the client, "" = none
};

struct slowlog {
	TAILQ_HEAD(slowlog_entries, slowlog_entry) entries; // newest first
	uint64_t count;
	uint64_t next_id;
};

void slowlog_init(struct slowlog *slowlog);

#define SLOWLOG_TRIM_MAX 128u // entries that one more may drive out

/// Notes a command of `session` at `time_s`; of the oldest entries beyond `count_max` up to
/// SLOWLOG_TRIM_MAX go. What may be a password is left out. Without memory nothing is noted.
void slowlog_add(struct slowlog *slowlog, const struct session *session,
		 const struct resp_arg *argv, uint32_t argc, uint64_t micros, uint64_t time_s,
		 uint64_t count_max);

/// Removes the oldest entries until `count` are left, but no more than `at_most`.
void slowlog_trim(struct slowlog *slowlog, uint64_t count, uint64_t at_most);
