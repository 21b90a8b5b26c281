// SPDX-License-Identifier: MIT
//
// What stands in front of LMDB in test_map_guard.c: its calls, and the writes inside them, are
// counted, and at one of them the file that is mapped loses all its pages and one is touched: a
// SIGBUS as the kernel sends it, before LMDB begins, in the middle, or after it is done.
#pragma once

#include <dlfcn.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic unsigned strikes;   // places, counted
static _Atomic unsigned strike_at; // at this one; 0 = never
static bool strike_lock;	   // the lock file's page, stored to, and not one of the data
static const char *_Atomic strike_dir;
static _Atomic unsigned struck;
static unsigned depth;	   // inside LMDB
static volatile char sink; // a load whose value nobody has need not be made

// Where the file is mapped; NULL = not now. Its path gets `path`.
static char *strike_map(char *path, size_t path_bytes)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	const char *name = strike_lock ? "/lock.mdb\n" : "/data.mdb\n";
	char line[1024];
	char *found = NULL;
	while (maps != NULL && found == NULL && fgets(line, sizeof(line), maps) != NULL) {
		const char *at = strstr(line, strike_dir);
		if (at != NULL && strstr(at, name) != NULL) {
			found = (char *)(uintptr_t)strtoull(line, NULL, 16);
			(void)snprintf(path, path_bytes, "%.*s", (int)strcspn(at, "\n"), at);
		}
	}
	if (maps != NULL) {
		(void)fclose(maps);
	}
	return found;
}

static void strike(void)
{
	char path[1024];
	if (strike_dir == NULL || ++strikes != strike_at) {
		return;
	}
	volatile char *page = strike_map(path, sizeof(path));
	if (page == NULL || truncate(path, 0) != 0) {
		return;
	}
	depth = 0;
	struck++;
	if (strike_lock) {
		page[0] = 1;
	} else {
		sink = page[0];
	}
	printf("# nothing was struck\n");
	_exit(99);
}

#define STRIKE_WRAP(name, parameters, arguments)           \
	int name parameters                                \
	{                                                  \
		int(*real) parameters;                     \
		*(void **)&real = dlsym(RTLD_NEXT, #name); \
		strike();                                  \
		depth++;                                   \
		int rc = real arguments;                   \
		depth--;                                   \
		strike();                                  \
		return rc;                                 \
	}

STRIKE_WRAP(mdb_env_open, (MDB_env * env, const char *path, unsigned flags, mdb_mode_t mode),
	    (env, path, flags, mode))
STRIKE_WRAP(mdb_env_info, (MDB_env * env, MDB_envinfo *info), (env, info))
STRIKE_WRAP(mdb_env_sync, (MDB_env * env, int force), (env, force))
STRIKE_WRAP(mdb_reader_check, (MDB_env * env, int *dead), (env, dead))
STRIKE_WRAP(mdb_txn_begin, (MDB_env * env, MDB_txn *parent, unsigned flags, MDB_txn **txn),
	    (env, parent, flags, txn))
STRIKE_WRAP(mdb_txn_renew, (MDB_txn * txn), (txn))
STRIKE_WRAP(mdb_txn_commit, (MDB_txn * txn), (txn))
STRIKE_WRAP(mdb_dbi_open, (MDB_txn * txn, const char *name, unsigned flags, MDB_dbi *dbi),
	    (txn, name, flags, dbi))
STRIKE_WRAP(mdb_stat, (MDB_txn * txn, MDB_dbi dbi, MDB_stat *stat), (txn, dbi, stat))
STRIKE_WRAP(mdb_cursor_open, (MDB_txn * txn, MDB_dbi dbi, MDB_cursor **cursor), (txn, dbi, cursor))
STRIKE_WRAP(mdb_cursor_put, (MDB_cursor * cursor, MDB_val *key, MDB_val *value, unsigned flags),
	    (cursor, key, value, flags))
STRIKE_WRAP(mdb_cursor_get, (MDB_cursor * cursor, MDB_val *key, MDB_val *value, MDB_cursor_op how),
	    (cursor, key, value, how))
STRIKE_WRAP(mdb_get, (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *value),
	    (txn, dbi, key, value))
STRIKE_WRAP(mdb_put, (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *value, unsigned flags),
	    (txn, dbi, key, value, flags))
STRIKE_WRAP(mdb_del, (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *value),
	    (txn, dbi, key, value))

void mdb_txn_abort(MDB_txn *txn)
{
	void (*real)(MDB_txn *);
	*(void **)&real = dlsym(RTLD_NEXT, "mdb_txn_abort");
	strike();
	real(txn);
	strike();
}

void mdb_env_close(MDB_env *env)
{
	void (*real)(MDB_env *);
	*(void **)&real = dlsym(RTLD_NEXT, "mdb_env_close");
	strike();
	real(env);
}

// In the middle of a commit, with LMDB's mutex held and half of its pages written.
ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite");
ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite64");

ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	if (depth > 0) {
		strike();
	}
	return syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset)
{
	return shim_pwrite64(fd, bytes, count, offset);
}
