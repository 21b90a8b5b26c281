// SPDX-License-Identifier: MIT
//
// The store that another one is to replace, for as long as that is being written: values that are
// in it alone are read there, by their places, both for the new one and for whoever asks for them.
// The environment that was open is kept for that, since what it has mapped is there even if the
// file has lost its name; one that failed is opened anew, for reading and without LMDB's locks, for
// nobody writes it any more.
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "daemon/storage/store_internal.h"
#include "daemon/storage/store_read.h"

// After some failures LMDB refuses every call.
static bool still_reads(struct store *store)
{
	char unused;
	struct env_value value = { .out = &unused, .out_bytes = sizeof(unused) };
	int rc = env_read_beside(store->env, STORE_READER_RENEWAL, store->committed.oldest_block,
				 &value);
	return rc == 0 || rc == MDB_NOTFOUND;
}

void store_replaced_keep(struct store *store)
{
	if (store->readers == 0 || store->env == NULL || !still_reads(store)) {
		store_detach(store);
		return;
	}
	store->replaced_env = store->env;
	store->replaced_alone = false;
	store->env = NULL;
}

void store_replaced_drop(struct store *store)
{
	if (store->replaced_env == NULL) {
		return;
	}
	if (store->read_env == store->replaced_env) { // which this thread alone changes
		store_hide(store);
	}
	bool is_lost = !env_close(store->replaced_env);
	store->replaced_env = NULL;
	if (is_lost && !store->replaced_alone && store->replaced_path != NULL) {
		store->replaced_is_lost = true; // its locks may be held for ever
	}
}

static int open_alone(struct store *store, const char *folder, struct env **env)
{
	struct env_options options = {
		.path = folder,
		.read_only = true,
		.alone = true,
	};
	int rc = store_open_env(env, &options);
	if (rc == 0) {
		rc = env_begin(*env, false);
	}
	if (rc == 0) {
		rc = env_open_databases(*env, false);
		rc = rc == 0 ? env_commit(*env) : rc; // keeps the handles
	}
	return rc == 0 ? env_open_readers(*env, store->readers) : rc;
}

int store_replaced_again(struct store *store)
{
	char path[4096];
	struct stat facts;
	struct env *env = NULL;
	store_replaced_drop(store);
	int length = snprintf(path, sizeof(path), "%s/data.mdb", store->replaced_path);
	if (length < 0 || (size_t)length >= sizeof(path)) {
		return store_fail(store, "opening the old one", ENAMETOOLONG);
	}
	if (stat(path, &facts) != 0) {
		(void)store_fail(store, "opening the old one", errno);
		return STORE_GONE;
	}
	int result = facts.st_size > 0 ? store_trees_check(store, store->replaced_path)
				       : store_damaged(store, "the old one is empty");
	if (result != STORE_OK) {
		return result;
	}
	int rc = open_alone(store, store->replaced_path, &env);
	if (rc != 0) {
		(void)env_close(env); // whether it was lost: it has no locks
		return store_fail(store, "opening the old one", rc);
	}
	store->replaced_env = env;
	store->replaced_alone = true;
	store_show_replaced(store);
	return STORE_OK;
}

void store_read_cramped(struct store *store)
{
	struct env *env = NULL;
	if (store->readers == 0 || store->replaced_env != NULL || store->replaced_path != NULL) {
		return;
	}
	if (open_alone(store, store->path, &env) != 0) {
		(void)env_close(env); // as above; whoever reads is told that nothing can be read
		return;
	}
	store->replaced_env = env;
	store->replaced_alone = true;
	store_show_replaced(store);
}
