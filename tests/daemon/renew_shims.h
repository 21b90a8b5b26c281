// SPDX-License-Identifier: MIT
//
// What stands in front of the system and of LMDB in test_renew.c: calls that can fail, be the last
// thing that happens, let the writer work in the middle, or have a read section revoked.
#pragma once

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/epoch.h"

#define DIED 77

static _Atomic unsigned calls;	   // counted, of everything below
static _Atomic unsigned fail_from; // these answer EIO; 0 = none
static _Atomic unsigned fail_upto;
static unsigned die_at;		// this one does not return; 0 = none
static unsigned die_wanted;	// in a renewal
static bool no_exchange;	// the file system cannot exchange names
static void (*meanwhile)(void); // at each sync
static bool spoils;		// the device keeps another byte than it was given
static bool spoilt;		// it was there to be read
static _Atomic bool synced;	// by fsync(), and nothing was written since

static bool fails_now(void)
{
	unsigned call = ++calls;
	if (call == die_at) {
		_exit(DIED);
	}
	if (fail_from > 0 && call >= fail_from && call <= fail_upto) {
		errno = EIO;
		return true;
	}
	return false;
}

int fdatasync(int fd)
{
	if (meanwhile != NULL) {
		meanwhile();
	}
	return fails_now() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	synced = true;
	return fails_now() ? -1 : (int)syscall(SYS_fsync, fd);
}

// What leaves the page cache is read from the device from now on; what is not synced does not.
int shim_fadvise(int fd, off64_t offset, off64_t bytes, int advice) __asm__("posix_fadvise");
int shim_fadvise64(int fd, off64_t offset, off64_t bytes, int advice) __asm__("posix_fadvise64");

int shim_fadvise64(int fd, off64_t offset, off64_t bytes, int advice)
{
	char path[64];
	char byte;
	(void)offset;
	(void)bytes;
	if (!spoils || !synced || advice != POSIX_FADV_DONTNEED) {
		return 0;
	}
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int again = open(path, O_RDWR | O_CLOEXEC);
	off_t at = lseek(again, 0, SEEK_END) / 4 * 3; // in the middle of a block
	if (syscall(SYS_pread64, again, &byte, 1, at) == 1) {
		byte ^= 1;
		spoilt = syscall(SYS_pwrite64, again, &byte, 1, at) == 1;
	}
	(void)close(again);
	return 0;
}

int shim_fadvise(int fd, off64_t offset, off64_t bytes, int advice)
{
	return shim_fadvise64(fd, offset, bytes, advice);
}

ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite");
ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite64");

ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	synced = false;
	return fails_now() ? -1 : syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset)
{
	return shim_pwrite64(fd, bytes, count, offset);
}

int rename(const char *from, const char *to)
{
	return fails_now() ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0u);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	if (no_exchange && flags == RENAME_EXCHANGE) {
		errno = EINVAL;
		return -1;
	}
	return fails_now() ? -1 : (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

// LMDB's own, behind which a read section is revoked once while it writes, until the transaction is
// given up.
int mdb_cursor_put(void *cursor, void *key, void *value, unsigned flags);
void mdb_txn_abort(void *txn);
static struct kvs_slot *revoke_slot; // NULL = no
static uint64_t revoke_before;
static unsigned revoke_in; // so many blocks from now
static unsigned revocations;

int mdb_cursor_put(void *cursor, void *key, void *value, unsigned flags)
{
	int (*put_block)(void *, void *, void *, unsigned);
	*(void **)&put_block = dlsym(RTLD_NEXT, "mdb_cursor_put");
	if (revoke_slot != NULL && revoke_in > 0 && kvs_epoch_inside(revoke_slot) &&
	    --revoke_in == 0) {
		revoke_before = kvs_load_relaxed(&revoke_slot->revoked_upto);
		kvs_store_relaxed(&revoke_slot->revoked_upto, UINT64_MAX);
		revocations++;
	}
	return put_block(cursor, key, value, flags);
}

void mdb_txn_abort(void *txn)
{
	void (*give_up)(void *);
	*(void **)&give_up = dlsym(RTLD_NEXT, "mdb_txn_abort");
	if (revoke_slot != NULL && revoke_in == 0) {
		kvs_store_relaxed(&revoke_slot->revoked_upto, revoke_before);
		revoke_slot = NULL;
	}
	give_up(txn);
}
