// SPDX-License-Identifier: MIT
//
// What is in an environment: blocks and names, read and written inside the owner's transaction, and
// blocks read beside it.
#include <errno.h>
#include <string.h>

#include "daemon/storage/env.h"
#include "daemon/storage/env_internal.h"

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
