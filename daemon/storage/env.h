// SPDX-License-Identifier: MIT
//
// LMDB, called in one place, and each call in a guarded section (map_guard.h). No pointer into its
// map leaves this file: what is read is copied inside the section that found it. A page that is not
// there makes a call answer EIO, and the environment is lost: no call of LMDB's is made with it
// again, so it cannot be closed either, for LMDB may hold its own mutex. It is left where it is
// (its maps and descriptors are given back), ENV_LOST_MAX of them at most in the life of a process,
// a few MiB each. Losing one takes a page that was read before and cannot be read again.
//
// All calls answer 0, an LMDB code or an errno. One thread owns an environment at a time. Beside it
// a few others may read (env_read_beside()), as long as the owner keeps it open. Whoever of them
// meets a page that is not there, nobody calls LMDB with it from then on, and its maps stay until
// the owner closes it: another may be looking at them. What such a reader does takes no mutex of
// LMDB's, so nobody can be left waiting for one.
#pragma once

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENV_LOST_MAX 32u
#define ENV_READERS_MAX 8u

struct env;

struct env_options {
	const char *path;
	uint64_t map_bytes;
	bool read_only;
	bool alone;  // no lock file
	bool single; // the path is the file itself
};

/// The two databases: block number -> block, and a few names.
enum env_database { ENV_LOG, ENV_META, ENV_DATABASES };

/// What env_read() and env_walk() found.
struct env_value {
	void *out; // the caller's buffer
	size_t out_bytes;
	size_t bytes; // of the value; only the first out_bytes are copied
};

/// Opens it. On failure *out is NULL, or one that is lost. ENOTRECOVERABLE: too many were lost.
int env_open(struct env **out, const struct env_options *options);
/// Closes it; false: it is lost, and left where it is.
/// Call with: nobody in env_read_beside(). Thread must: own it. Orders: nothing.
bool env_close(struct env *env);

/// Lets `count` threads read beside the owner, at most ENV_READERS_MAX.
/// Call with: no transaction open, once. Thread must: own it. Orders: nothing.
int env_open_readers(struct env *env, unsigned count);

/// Copies a block as the newest snapshot has it.
/// Call with: `reader` below what env_open_readers() was given, and the environment kept open.
/// Thread must: be the only one with this number. Orders: nothing, LMDB does.
int env_read_beside(struct env *env, unsigned reader, uint64_t number, struct env_value *value);

/// Did a page of it turn out not to be there?
bool env_is_lost(const struct env *env);
/// Was that one of its lock file, which is stored to: for want of room, perhaps?
bool env_is_lost_by_lock(const struct env *env);

/// How many the process has lost.
unsigned env_lost_count(void);

int env_data_fd(struct env *env, int *fd);
int env_file_bytes(struct env *env, uint64_t *bytes);
int env_sync(struct env *env);

/// Begins the one transaction that can be open. Before a writing one the marks of dead readers go.
int env_begin(struct env *env, bool writes);
bool env_is_begun(const struct env *env);
int env_commit(struct env *env);
void env_abort(struct env *env);
/// A reading one goes on with the newest snapshot.
int env_renew(struct env *env);

/// Inside a transaction, the first of this environment.
int env_open_databases(struct env *env, bool create);

/// The cursor of the log, for env_append() and env_walk(); gone with the transaction and with
/// env_renew().
int env_open_cursor(struct env *env);

int env_count(struct env *env, enum env_database database, size_t *entries);
int env_read(struct env *env, enum env_database database, const void *key, size_t key_bytes,
	     struct env_value *value);
int env_write(struct env *env, enum env_database database, const void *key, size_t key_bytes,
	      const void *bytes, size_t count);
int env_append(struct env *env, uint64_t number, const void *bytes, size_t count);
/// Deletes a block; *bytes is how long it was.
int env_delete(struct env *env, uint64_t number, size_t *bytes);
/// Moves the cursor: to `*number` or what follows (MDB_SET_RANGE), MDB_FIRST, MDB_NEXT. A key that
/// is no block number reads as 0.
int env_walk(struct env *env, MDB_cursor_op how, uint64_t *number, struct env_value *value);
