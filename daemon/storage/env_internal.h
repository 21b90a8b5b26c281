// SPDX-License-Identifier: MIT
//
// An environment from inside, for env*.c. Each function whose call may touch the map is one guarded
// section, and has nothing else in it: what LMDB had allocated when it was left belongs to the
// environment, which is left with it.
#pragma once

#include <errno.h>

#include "daemon/storage/env.h"
#include "daemon/storage/map_guard.h"

enum env_file { ENV_DATA_FILE, ENV_LOCK_FILE }; // of the guard
enum env_lost { ENV_NOT_LOST, ENV_LOST, ENV_LOST_BY_LOCK };

struct env {
	MDB_env *lmdb;
	MDB_txn *txn;	    // NULL = none open
	MDB_cursor *cursor; // of the log, in it
	MDB_dbi databases[ENV_DATABASES];
	struct map_guard guard;
	char *data_path;
	char *lock_path;		   // NULL = none
	MDB_txn *readers[ENV_READERS_MAX]; // reset: each has its place in LMDB's table of readers
	unsigned readers_count;
	uint32_t lost; // enum env_lost, by whichever thread met it; relaxed, nothing follows
	struct env *next_lost;
};

/// A page of it was not there: no call of LMDB's is made with it any more. What is left of it goes
/// when it is closed. Returns EIO.
/// Call with: a section just left by a fault. Thread must: be the one that left it.
/// Orders: release.
int env_lose(struct env *env);

// `call`, an answer of LMDB's, in a section.
#define ENV_GUARDED(env, call)                                                      \
	do {                                                                        \
		struct map_guard_section section;                                   \
		if (env_is_lost(env)) {                                             \
			return EIO;                                                 \
		}                                                                   \
		if (sigsetjmp(*map_guard_enter(&section, &(env)->guard), 0) != 0) { \
			return env_lose(env);                                       \
		}                                                                   \
		int rc = (call);                                                    \
		map_guard_leave();                                                  \
		return rc;                                                          \
	} while (0)
