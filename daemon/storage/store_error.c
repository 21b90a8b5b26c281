// SPDX-License-Identifier: MIT
//
// The border to LMDB's and the system's error codes: one table of what they mean for us and one
// text for the person who has to do something about it.
#include <errno.h>
#include <lmdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "daemon/remedy.h"
#include "daemon/storage/room.h"
#include "daemon/storage/store_internal.h"

// Below this a short write means a full disk, whatever the error code says.
#define SPACE_BYTES_SUSPICIOUS (UINT64_C(4) << 20)

static bool disk_is_full(const char *path)
{
	struct statvfs facts;
	if (statvfs(path, &facts) != 0) {
		return false;
	}
	return (uint64_t)facts.f_bavail * facts.f_frsize < SPACE_BYTES_SUSPICIOUS;
}

// The limit of this process on the size of files, if the store has come up against it: the write
// that meets it is short, too.
static bool file_is_at_limit(const char *store_path)
{
	char path[4096];
	struct rlimit limit;
	struct stat facts;
	int length = snprintf(path, sizeof(path), "%s/data.mdb", store_path);
	return length > 0 && (size_t)length < sizeof(path) &&
	       getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
	       stat(path, &facts) == 0 && (rlim_t)facts.st_size >= limit.rlim_cur;
}

// A quota is known to the kernel alone.
static int want_of_room(const struct store *store)
{
	return disk_is_full(store->path) ? ENOSPC : room_refused(store->dir);
}

// What LMDB tells of a short write is EIO, whatever made it short; and once it could not write its
// meta page, nothing but that it refuses every call. A page of its lock file that could not be
// stored to is EIO for us.
static int code_of_cause(const struct store *store, int rc, bool is_lost, bool is_lock)
{
	if (rc == MDB_PANIC && store->room_error != 0) {
		return store->room_error;
	}
	if (rc != EIO || (is_lost && !is_lock)) {
		return rc;
	}
	if (!is_lost && file_is_at_limit(store->path)) {
		return EFBIG;
	}
	int error = want_of_room(store);
	return error != 0 ? error : rc;
}

int store_error_of(int rc)
{
	switch (rc) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return STORE_NO_SPACE;
	case EIO:
		return STORE_IO;
	case MDB_MAP_FULL:
		return STORE_MAP_FULL;
	case ENOMEM:
		return STORE_NO_MEMORY;
	case MDB_CORRUPTED:
	case MDB_INVALID:
	case MDB_PAGE_NOTFOUND:
	case MDB_CURSOR_FULL:
	case MDB_BAD_VALSIZE:
	case MDB_INCOMPATIBLE:
	case MDB_NOTFOUND:
	case MDB_KEYEXIST:
		return STORE_DAMAGED;
	case MDB_PANIC:
		return STORE_IO;
	case MDB_VERSION_MISMATCH:
		return STORE_VERSION;
	case EACCES:
	case EPERM:
	case EROFS:
		return STORE_NO_ACCESS;
	case ENOENT:
	case ESTALE:
		return STORE_GONE;
	default:
		return STORE_SYSTEM;
	}
}

static const char *remedy_of(const struct store *store, int error, int rc)
{
	if (store->renewable && error == STORE_DAMAGED) {
		return "kvd writes it anew from memory";
	}
	switch (error) {
	case STORE_NO_SPACE:
	case STORE_IO:
		return remedy_of_errno(rc == MDB_PANIC ? EIO : rc);
	case STORE_MAP_FULL:
		return "raise the limit on address space (ulimit -v, LimitAS=) and restart";
	case STORE_DAMAGED:
		return "restore a backup, or move this folder away to start empty";
	case STORE_VERSION:
		return "start the kvd version that wrote it, or move this folder away to start "
		       "empty";
	case STORE_NO_ACCESS:
		return "let kvd's user read and write it, or choose another --dir";
	default:
		return rc == ENOTRECOVERABLE
			       ? "check the device, save the data with kvctl dump and "
				 "restart kvd"
			       : remedy_of_errno(rc);
	}
}

int store_fail(struct store *store, const char *what, int rc)
{
	bool is_lost =
		rc == EIO && (store->is_lost || (store->env != NULL && env_is_lost(store->env)));
	bool is_lock = is_lost && store->env != NULL && env_is_lost_by_lock(store->env);
	bool is_panic = rc == MDB_PANIC;
	rc = code_of_cause(store, rc, is_lost, is_lock);
	int error = store_error_of(rc);
	const char *kind = error == STORE_DAMAGED ? "the store is damaged: " : "";
	kind = is_lost && error == STORE_IO ? "a page of its files is not there: " : kind;
	kind = is_lost && error == STORE_NO_SPACE ? "no room for a page of its lock file: " : kind;
	store->is_cramped = store->is_cramped || (is_lock && error == STORE_NO_SPACE);
	if (error == STORE_NO_SPACE || error == STORE_IO) {
		store->room_error = error == STORE_NO_SPACE ? rc : 0;
	}
	(void)snprintf(store->why, sizeof(store->why), "%s: %s%s: %s; %s", store->path, kind, what,
		       mdb_strerror(rc), remedy_of(store, error, rc));
	if (error == STORE_IO || error == STORE_DAMAGED || is_lock || is_panic) {
		store->reopen = true;
	}
	return error;
}

int store_damaged(struct store *store, const char *format, ...)
{
	char detail[200];
	va_list args;
	va_start(args, format);
	(void)vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	(void)snprintf(store->why, sizeof(store->why), "%s: the store is damaged: %s; %s",
		       store->path, detail, remedy_of(store, STORE_DAMAGED, 0));
	store->reopen = true;
	return STORE_DAMAGED;
}

int store_gone(struct store *store, const char *what, const char *remedy)
{
	(void)snprintf(store->why, sizeof(store->why), "%s: %s; %s", store->path, what, remedy);
	store->reopen = true;
	return STORE_GONE;
}
