// SPDX-License-Identifier: MIT
//
// The environment and its transactions.
#include "daemon/storage/env.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/storage/env_internal.h"
#include "shm/atomics.h"

// Kept so that it can be told what is left in memory, and how much.
static pthread_mutex_t lost_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct env *lost_first;
static unsigned lost_count;

unsigned env_lost_count(void)
{
	pthread_mutex_lock(&lost_mutex);
	unsigned count = lost_count;
	pthread_mutex_unlock(&lost_mutex);
	return count;
}

static void learn(struct env *env)
{
	map_guard_learn(&env->guard, ENV_DATA_FILE, env->data_path, false);
	if (env->lock_path != NULL) {
		map_guard_learn(&env->guard, ENV_LOCK_FILE, env->lock_path, true);
	}
}

bool env_is_lost(const struct env *env)
{
	// Relaxed: it says that no call is to be made, and nothing else (partner: lose()).
	return kvs_load_relaxed_32(&env->lost) != ENV_NOT_LOST;
}

bool env_is_lost_by_lock(const struct env *env)
{
	return kvs_load_relaxed_32(&env->lost) == ENV_LOST_BY_LOCK; // as above
}

int env_lose(struct env *env)
{
	bool is_lock = map_guard_fault() == ENV_LOCK_FILE;
	// Release: partner env_is_lost(), of all its threads.
	kvs_store_release_32(&env->lost, is_lock ? ENV_LOST_BY_LOCK : ENV_LOST);
	return EIO;
}

static void abandon(struct env *env)
{
	if (env->guard.files[ENV_DATA_FILE].start == env->guard.files[ENV_DATA_FILE].end) {
		learn(env); // it came while LMDB opened it
	}
	map_guard_abandon(&env->guard);
}

// ---- the environment ----

static int open_files(struct env *env, const struct env_options *options, unsigned flags)
{
	ENV_GUARDED(env, mdb_env_open(env->lmdb, options->path, flags, 0600));
}

static int end_reader(struct env *env, unsigned reader)
{
	ENV_GUARDED(env, (mdb_txn_abort(env->readers[reader]), 0));
}

static int close_files(struct env *env)
{
	ENV_GUARDED(env, (mdb_env_close(env->lmdb), 0));
}

static struct env *env_new(const struct env_options *options)
{
	struct env *env = calloc(1, sizeof(*env));
	if (env == NULL) {
		return NULL;
	}
	const char *data = options->single ? "" : "/data.mdb";
	if (asprintf(&env->data_path, "%s%s", options->path, data) < 0) {
		env->data_path = NULL;
	}
	if (options->alone || asprintf(&env->lock_path, "%s/lock.mdb", options->path) < 0) {
		env->lock_path = NULL;
	}
	if (env->data_path == NULL || (!options->alone && env->lock_path == NULL)) {
		(void)env_close(env);
		return NULL;
	}
	return env;
}

// No MDB_NORDAHEAD: blocks are runs of pages, and both who reads them (recovery, compaction) reads
// whole blocks. MDB_NOTLS: the opening thread is not the one that works. No MDB_NOMEMINIT: what
// once stood in memory is not to reach the disk between the records.
static int configure_and_open(struct env *env, const struct env_options *options)
{
	int rc = mdb_env_create(&env->lmdb);
	if (rc != 0) {
		env->lmdb = NULL;
		return rc;
	}
	rc = mdb_env_set_mapsize(env->lmdb, options->map_bytes);
	if (rc == 0) {
		rc = mdb_env_set_maxdbs(env->lmdb, ENV_DATABASES);
	}
	if (rc == 0) {
		unsigned flags = MDB_NOTLS | (options->read_only ? MDB_RDONLY : 0) |
				 (options->alone ? MDB_NOLOCK : 0) |
				 (options->single ? MDB_NOSUBDIR : 0);
		rc = open_files(env, options, flags);
	}
	return rc;
}

int env_open(struct env **out, const struct env_options *options)
{
	*out = NULL;
	int rc = map_guard_install();
	if (rc != 0) {
		return rc;
	}
	if (env_lost_count() >= ENV_LOST_MAX) {
		return ENOTRECOVERABLE;
	}
	struct env *env = env_new(options);
	if (env == NULL) {
		return ENOMEM;
	}
	rc = configure_and_open(env, options);
	if (rc != 0 && !env_is_lost(env)) {
		(void)env_close(env);
		return rc;
	}
	if (rc == 0) {
		learn(env);
	}
	*out = env;
	return rc;
}

bool env_close(struct env *env)
{
	if (env == NULL) {
		return true;
	}
	env_abort(env);
	for (unsigned i = 0; i < env->readers_count; i++) {
		(void)end_reader(env, i); // as below
	}
	if (env->lmdb != NULL) {
		(void)close_files(env); // its answer is whether it was lost
	}
	if (env_is_lost(env)) {
		abandon(env);
		pthread_mutex_lock(&lost_mutex);
		env->next_lost = lost_first;
		lost_first = env;
		lost_count++;
		pthread_mutex_unlock(&lost_mutex);
		return false;
	}
	free(env->data_path);
	free(env->lock_path);
	free(env);
	return true;
}

int env_data_fd(struct env *env, int *fd)
{
	return env_is_lost(env) ? EIO : mdb_env_get_fd(env->lmdb, fd); // no page of the map
}

static int file_bytes(struct env *env, uint64_t *bytes)
{
	MDB_envinfo info;
	MDB_stat stat;
	int rc = mdb_env_info(env->lmdb, &info);
	if (rc == 0) {
		rc = mdb_env_stat(env->lmdb, &stat);
	}
	if (rc == 0) {
		*bytes = (info.me_last_pgno + 1) * (uint64_t)stat.ms_psize;
	}
	return rc;
}

int env_file_bytes(struct env *env, uint64_t *bytes)
{
	ENV_GUARDED(env, file_bytes(env, bytes));
}

int env_sync(struct env *env)
{
	ENV_GUARDED(env, mdb_env_sync(env->lmdb, 1));
}

// ---- transactions ----

static int begin(struct env *env, bool writes)
{
	// A reader beside us that was killed would hold back the pages of its snapshot for ever.
	int dead = 0;
	int rc = writes ? mdb_reader_check(env->lmdb, &dead) : 0;
	(void)rc; // then the file grows
	return mdb_txn_begin(env->lmdb, NULL, writes ? 0 : MDB_RDONLY, &env->txn);
}

static int begin_guarded(struct env *env, bool writes)
{
	ENV_GUARDED(env, begin(env, writes));
}

int env_begin(struct env *env, bool writes)
{
	int rc = begin_guarded(env, writes);
	if (rc != 0 && !env_is_lost(env)) {
		env->txn = NULL;
	}
	return rc;
}

bool env_is_begun(const struct env *env)
{
	return env->txn != NULL;
}

static void close_cursor(struct env *env)
{
	if (env->cursor != NULL && !env_is_lost(env)) {
		mdb_cursor_close(env->cursor); // no page of the map
		env->cursor = NULL;
	}
}

static int commit(struct env *env)
{
	ENV_GUARDED(env, mdb_txn_commit(env->txn));
}

// What is lost keeps its pointers, so that it can be seen what was left.
static void forget_txn(struct env *env)
{
	if (!env_is_lost(env)) {
		env->txn = NULL;
	}
}

int env_commit(struct env *env)
{
	close_cursor(env);
	int rc = commit(env);
	forget_txn(env); // it is gone either way
	return rc;
}

static int give_up(struct env *env)
{
	ENV_GUARDED(env, (mdb_txn_abort(env->txn), 0));
}

void env_abort(struct env *env)
{
	if (env->txn == NULL) {
		return;
	}
	close_cursor(env);
	(void)give_up(env); // its answer is whether it was lost
	forget_txn(env);
}

static int renew(struct env *env)
{
	mdb_txn_reset(env->txn);
	return mdb_txn_renew(env->txn);
}

static int renew_guarded(struct env *env)
{
	ENV_GUARDED(env, renew(env));
}

int env_renew(struct env *env)
{
	close_cursor(env);
	return renew_guarded(env);
}
