// SPDX-License-Identifier: MIT
//
// Each function whose call may touch the map is one section, and has nothing else in it: what LMDB
// had allocated when it was left belongs to the environment, which is left with it.
#include "daemon/storage/env.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/storage/map_guard.h"
#include "shm/atomics.h"

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
	uint32_t is_lost; // set by whichever thread met it; relaxed, nothing follows from it
	struct env *next_lost;
};

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
	map_guard_learn(&env->guard, 0, env->data_path, false);
	if (env->lock_path != NULL) {
		map_guard_learn(&env->guard, 1, env->lock_path, true);
	}
}

bool env_is_lost(const struct env *env)
{
	// Relaxed: it says that no call is to be made, and nothing else (partner: lose()).
	return kvs_load_relaxed_32(&env->is_lost) != 0;
}

// A page of it was not there. What is left of it goes when it is closed.
static int lose(struct env *env)
{
	kvs_store_release_32(&env->is_lost, 1); // partner: env_is_lost(), of all its threads
	return EIO;
}

static void abandon(struct env *env)
{
	if (env->guard.files[0].start == env->guard.files[0].end) {
		learn(env); // it came while LMDB opened it
	}
	map_guard_abandon(&env->guard);
}

// `call`, an answer of LMDB's, in a section.
#define ENV_GUARDED(env, call)                                                      \
	do {                                                                        \
		struct map_guard_section section;                                   \
		if (env_is_lost(env)) {                                             \
			return EIO;                                                 \
		}                                                                   \
		if (sigsetjmp(*map_guard_enter(&section, &(env)->guard), 0) != 0) { \
			return lose(env);                                           \
		}                                                                   \
		int rc = (call);                                                    \
		map_guard_leave();                                                  \
		return rc;                                                          \
	} while (0)

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

// ---- what is in it ----

static int open_databases(struct env *env, unsigned create)
{
	int rc = mdb_dbi_open(env->txn, "log", MDB_INTEGERKEY | create, &env->databases[ENV_LOG]);
	return rc != 0 ? rc : mdb_dbi_open(env->txn, "meta", create, &env->databases[ENV_META]);
}

int env_open_databases(struct env *env, bool create)
{
	ENV_GUARDED(env, open_databases(env, create ? MDB_CREATE : 0));
}

static int open_cursor(struct env *env)
{
	ENV_GUARDED(env, mdb_cursor_open(env->txn, env->databases[ENV_LOG], &env->cursor));
}

int env_open_cursor(struct env *env)
{
	int rc = open_cursor(env);
	if (rc != 0 && !env_is_lost(env)) {
		env->cursor = NULL;
	}
	return rc;
}

static int count_entries(struct env *env, enum env_database database, size_t *entries)
{
	MDB_stat stat;
	int rc = mdb_stat(env->txn, env->databases[database], &stat);
	*entries = rc == 0 ? stat.ms_entries : 0;
	return rc;
}

int env_count(struct env *env, enum env_database database, size_t *entries)
{
	ENV_GUARDED(env, count_entries(env, database, entries));
}

static void copy_out(struct env_value *value, const MDB_val *from)
{
	value->bytes = from->mv_size;
	if (value->out_bytes > 0 && from->mv_size > 0) {
		memcpy(value->out, from->mv_data,
		       from->mv_size < value->out_bytes ? from->mv_size : value->out_bytes);
	}
}

static int read_value(struct env *env, enum env_database database, MDB_val key,
		      struct env_value *value)
{
	MDB_val found;
	int rc = mdb_get(env->txn, env->databases[database], &key, &found);
	if (rc == 0) {
		copy_out(value, &found);
	}
	return rc;
}

int env_read(struct env *env, enum env_database database, const void *key, size_t key_bytes,
	     struct env_value *value)
{
	MDB_val wanted = { .mv_size = key_bytes, .mv_data = (void *)key };
	ENV_GUARDED(env, read_value(env, database, wanted, value));
}

int env_write(struct env *env, enum env_database database, const void *key, size_t key_bytes,
	      const void *bytes, size_t count)
{
	MDB_val wanted = { .mv_size = key_bytes, .mv_data = (void *)key };
	MDB_val value = { .mv_size = count, .mv_data = (void *)bytes };
	ENV_GUARDED(env, mdb_put(env->txn, env->databases[database], &wanted, &value, 0));
}

int env_append(struct env *env, uint64_t number, const void *bytes, size_t count)
{
	MDB_val key = { .mv_size = sizeof(number), .mv_data = &number };
	MDB_val value = { .mv_size = count, .mv_data = (void *)bytes };
	ENV_GUARDED(env, mdb_cursor_put(env->cursor, &key, &value, MDB_APPEND));
}

static int delete_block(struct env *env, uint64_t number, size_t *bytes)
{
	MDB_val key = { .mv_size = sizeof(number), .mv_data = &number };
	MDB_val value;
	int rc = mdb_get(env->txn, env->databases[ENV_LOG], &key, &value);
	if (rc != 0) {
		return rc;
	}
	*bytes = value.mv_size;
	return mdb_del(env->txn, env->databases[ENV_LOG], &key, NULL);
}

int env_delete(struct env *env, uint64_t number, size_t *bytes)
{
	ENV_GUARDED(env, delete_block(env, number, bytes));
}

static int walk(struct env *env, MDB_cursor_op how, uint64_t *number, struct env_value *value)
{
	uint64_t wanted = *number; // a copy: the key must not change under LMDB
	MDB_val key = { .mv_size = sizeof(wanted), .mv_data = &wanted };
	MDB_val found;
	int rc = mdb_cursor_get(env->cursor, &key, &found, how);
	if (rc != 0) {
		return rc;
	}
	*number = 0;
	if (key.mv_size == sizeof(*number)) {
		memcpy(number, key.mv_data, sizeof(*number));
	}
	copy_out(value, &found);
	return 0;
}

int env_walk(struct env *env, MDB_cursor_op how, uint64_t *number, struct env_value *value)
{
	ENV_GUARDED(env, walk(env, how, number, value));
}

// ---- beside the owner ----

// The mutex of LMDB's table of readers is taken here, and never again: a snapshot is taken and let
// go by stores to a place that is there already.
static int begin_reader(struct env *env, MDB_txn **txn)
{
	int rc = mdb_txn_begin(env->lmdb, NULL, MDB_RDONLY, txn);
	if (rc == 0) {
		mdb_txn_reset(*txn);
	}
	return rc;
}

static int begin_reader_guarded(struct env *env, MDB_txn **txn)
{
	ENV_GUARDED(env, begin_reader(env, txn));
}

int env_open_readers(struct env *env, unsigned count)
{
	int rc = count <= ENV_READERS_MAX ? 0 : EINVAL;
	while (rc == 0 && env->readers_count < count) {
		MDB_txn *txn;
		rc = begin_reader_guarded(env, &txn);
		if (rc == 0) {
			env->readers[env->readers_count++] = txn;
		}
	}
	return rc;
}

static int read_beside(struct env *env, MDB_txn *txn, uint64_t number, struct env_value *value)
{
	MDB_val key = { .mv_size = sizeof(number), .mv_data = &number };
	MDB_val found;
	int rc = mdb_txn_renew(txn);
	if (rc != 0) {
		return rc;
	}
	rc = mdb_get(txn, env->databases[ENV_LOG], &key, &found);
	if (rc == 0) {
		copy_out(value, &found);
	}
	mdb_txn_reset(txn); // a snapshot that is held keeps the file's free pages from being used
	return rc;
}

int env_read_beside(struct env *env, unsigned reader, uint64_t number, struct env_value *value)
{
	ENV_GUARDED(env, read_beside(env, env->readers[reader], number, value));
}
