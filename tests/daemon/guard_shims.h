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

#include "daemon/storage/room.h"

static _Atomic unsigned strikes;   // places, counted
static _Atomic unsigned strike_at; // at this one; 0 = never
static bool strike_lock;	   // the lock file's page, stored to, and not one of the data
static const char *_Atomic strike_dir;
static _Atomic unsigned struck;
static _Atomic int no_room; // what the disk answers to who asks for some
static unsigned depth;	    // inside LMDB
static volatile char sink;  // a load whose value nobody has need not be made

int room_refused(const char *folder)
{
	(void)folder;
	return no_room;
}

// Where the file of the environment that is called is mapped; NULL = not now. There may be two: one
// that is written anew, and the one before it. Its path gets `path`.
static char *strike_map(int data_fd, char *path, size_t path_bytes)
{
	char link[64];
	char line[1024];
	char *found = NULL;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", data_fd);
	ssize_t length = readlink(link, path, path_bytes - 1);
	const char *name = "/data.mdb";
	if (length < (ssize_t)strlen(name)) {
		return NULL;
	}
	path[length] = '\0';
	if (strncmp(path, strike_dir, strlen(strike_dir)) != 0 ||
	    strcmp(path + length - strlen(name), name) != 0) {
		return NULL;
	}
	if (strike_lock) {
		memcpy(path + length - strlen(name), "/lock.mdb", strlen(name));
	}
	FILE *maps = fopen("/proc/self/maps", "re");
	while (maps != NULL && found == NULL && fgets(line, sizeof(line), maps) != NULL) {
		const char *at = strstr(line, path);
		if (at != NULL && at[strlen(path)] == '\n') {
			found = (char *)(uintptr_t)strtoull(line, NULL, 16);
		}
	}
	if (maps != NULL) {
		(void)fclose(maps);
	}
	return found;
}

static void strike(int data_fd)
{
	char path[1024];
	if (strike_dir == NULL || ++strikes != strike_at) {
		return;
	}
	volatile char *page = strike_map(data_fd, path, sizeof(path));
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

static int fd_of(MDB_env *env)
{
	int fd = -1;
	return mdb_env_get_fd(env, &fd) == 0 ? fd : -1;
}

#define STRIKE_WRAP(name, env, parameters, arguments)      \
	int name parameters                                \
	{                                                  \
		int(*real) parameters;                     \
		MDB_env *called = env;                     \
		*(void **)&real = dlsym(RTLD_NEXT, #name); \
		strike(fd_of(called));                     \
		depth++;                                   \
		int rc = real arguments;                   \
		depth--;                                   \
		strike(fd_of(called));                     \
		return rc;                                 \
	}

STRIKE_WRAP(mdb_env_open, env, (MDB_env * env, const char *path, unsigned flags, mdb_mode_t mode),
	    (env, path, flags, mode))
STRIKE_WRAP(mdb_env_info, env, (MDB_env * env, MDB_envinfo *info), (env, info))
STRIKE_WRAP(mdb_env_sync, env, (MDB_env * env, int force), (env, force))
STRIKE_WRAP(mdb_reader_check, env, (MDB_env * env, int *dead), (env, dead))
STRIKE_WRAP(mdb_txn_begin, env, (MDB_env * env, MDB_txn *parent, unsigned flags, MDB_txn **txn),
	    (env, parent, flags, txn))
STRIKE_WRAP(mdb_txn_renew, mdb_txn_env(txn), (MDB_txn * txn), (txn))
STRIKE_WRAP(mdb_txn_commit, mdb_txn_env(txn), (MDB_txn * txn), (txn))
STRIKE_WRAP(mdb_dbi_open, mdb_txn_env(txn),
	    (MDB_txn * txn, const char *name, unsigned flags, MDB_dbi *dbi),
	    (txn, name, flags, dbi))
STRIKE_WRAP(mdb_stat, mdb_txn_env(txn), (MDB_txn * txn, MDB_dbi dbi, MDB_stat *stat),
	    (txn, dbi, stat))
STRIKE_WRAP(mdb_cursor_open, mdb_txn_env(txn), (MDB_txn * txn, MDB_dbi dbi, MDB_cursor **cursor),
	    (txn, dbi, cursor))
STRIKE_WRAP(mdb_cursor_put, mdb_txn_env(mdb_cursor_txn(cursor)),
	    (MDB_cursor * cursor, MDB_val *key, MDB_val *value, unsigned flags),
	    (cursor, key, value, flags))
STRIKE_WRAP(mdb_cursor_get, mdb_txn_env(mdb_cursor_txn(cursor)),
	    (MDB_cursor * cursor, MDB_val *key, MDB_val *value, MDB_cursor_op how),
	    (cursor, key, value, how))
STRIKE_WRAP(mdb_get, mdb_txn_env(txn), (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *value),
	    (txn, dbi, key, value))
STRIKE_WRAP(mdb_put, mdb_txn_env(txn),
	    (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *value, unsigned flags),
	    (txn, dbi, key, value, flags))
STRIKE_WRAP(mdb_del, mdb_txn_env(txn), (MDB_txn * txn, MDB_dbi dbi, MDB_val *key, MDB_val *value),
	    (txn, dbi, key, value))

void mdb_txn_abort(MDB_txn *txn)
{
	void (*real)(MDB_txn *);
	MDB_env *env = mdb_txn_env(txn);
	*(void **)&real = dlsym(RTLD_NEXT, "mdb_txn_abort");
	strike(fd_of(env));
	real(txn);
	strike(fd_of(env));
}

void mdb_env_close(MDB_env *env)
{
	void (*real)(MDB_env *);
	*(void **)&real = dlsym(RTLD_NEXT, "mdb_env_close");
	strike(fd_of(env));
	real(env);
}

// In the middle of a commit, with LMDB's mutex held and half of its pages written.
ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite");
ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite64");

ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	if (depth > 0) {
		strike(fd);
	}
	return syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset)
{
	return shim_pwrite64(fd, bytes, count, offset);
}
