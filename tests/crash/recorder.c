// SPDX-License-Identifier: MIT
//
// See the header. Names are looked up in a tree of our own, which is what the calls made of it, so
// that a file is the same file whatever it is called by now. Nothing is really synced: a test that
// imagines its crashes needs no device.
#include "tests/crash/recorder.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/crash/crash_image.h"

#define FDS_MAX 1024
#define NOSYNC_FLAG 0x10000u // MDB_NOSYNC

static struct crash_record *record; // NULL = nothing is noted
static struct recorder_faults faults;
static char root[512];
static struct crash_names names; // as they are now
static bool spoils;
static struct {
	uint32_t inode;
	bool through;
} fds[FDS_MAX];

static void bail(const char *what)
{
	printf("Bail out! recorder: %s\n", what);
	exit(1);
}

// ---- notes --------------------------------------------------------------------------------------

static struct crash_op *note(enum crash_kind kind, uint32_t inode)
{
	if (record->count == record->capacity) {
		record->capacity = record->capacity * 2 + 256;
		record->ops = realloc(record->ops, record->capacity * sizeof(*record->ops));
		if (record->ops == NULL) {
			bail("out of memory");
		}
	}
	struct crash_op *op = &record->ops[record->count++];
	*op = (struct crash_op){
		.kind = kind,
		.inode = inode,
		.promise = record->promise,
	};
	return op;
}

static void note_names(enum crash_kind kind, uint32_t folder, const char *name, const char *to,
		       uint32_t child)
{
	struct crash_op *op = note(kind, folder);
	op->child = child;
	(void)snprintf(op->name, sizeof(op->name), "%s", name);
	(void)snprintf(op->name_to, sizeof(op->name_to), "%s", to);
	crash_names_apply(&names, op);
}

static uint32_t new_inode(bool folder, const char *name)
{
	if (record->inodes == CRASH_INODES_MAX) {
		bail("too many files");
	}
	record->folder[record->inodes] = folder;
	record->ignored[record->inodes] = strcmp(name, "lock.mdb") == 0;
	return record->inodes++;
}

// Splits a path under the root: the folder's inode, and the last name. False if it is elsewhere.
static bool locate(const char *path, uint32_t *folder, char name[CRASH_NAME_BYTES])
{
	size_t root_bytes = strlen(root);
	uint32_t above[16] = { CRASH_ROOT };
	unsigned depth = 0;
	if (record == NULL || strncmp(path, root, root_bytes) != 0 || path[root_bytes] != '/') {
		return false;
	}
	const char *at = path + root_bytes + 1;
	for (;;) {
		size_t bytes = strcspn(at, "/");
		if (bytes >= CRASH_NAME_BYTES || depth == 15) {
			bail("a path is too long");
		}
		memcpy(name, at, bytes);
		name[bytes] = '\0';
		*folder = above[depth];
		if (at[bytes] == '\0') {
			return true;
		}
		at += bytes + 1;
		if (strcmp(name, "..") == 0) {
			depth -= depth > 0;
		} else {
			above[depth + 1] = crash_names_find(&names, *folder, name);
			depth++;
		}
		if (above[depth] == CRASH_NONE) {
			return false; // the call will fail
		}
	}
}

static uint32_t inode_of_path(const char *path)
{
	char name[CRASH_NAME_BYTES];
	uint32_t folder;
	if (record != NULL && strcmp(path, root) == 0) {
		return CRASH_ROOT;
	}
	if (!locate(path, &folder, name)) {
		return CRASH_NONE;
	}
	if (strcmp(name, "..") == 0) {
		return crash_names_above(&names, folder);
	}
	return crash_names_find(&names, folder, name);
}

static uint32_t inode_of_fd(int fd)
{
	return record != NULL && fd >= 0 && fd < FDS_MAX ? fds[fd].inode : CRASH_NONE;
}

static void note_write(int fd, const struct iovec *pieces, int count, uint64_t offset)
{
	uint32_t inode = inode_of_fd(fd);
	if (inode == CRASH_NONE || record->ignored[inode]) {
		return;
	}
	uint64_t bytes = 0;
	for (int i = 0; i < count; i++) {
		bytes += pieces[i].iov_len;
	}
	struct crash_op *op = note(CRASH_WRITE, inode);
	op->offset = offset;
	op->bytes = bytes;
	op->through = fds[fd].through && !faults.deaf_through;
	op->data = malloc(bytes + 1);
	if (op->data == NULL) {
		bail("out of memory");
	}
	unsigned char *to = op->data;
	for (int i = 0; i < count; i++) {
		memcpy(to, pieces[i].iov_base, pieces[i].iov_len);
		to += pieces[i].iov_len;
	}
}

static int note_sync(int fd)
{
	uint32_t inode = inode_of_fd(fd);
	if (inode != CRASH_NONE && !record->ignored[inode] &&
	    !(record->folder[inode] ? faults.deaf_folders : faults.deaf_files)) {
		(void)note(CRASH_SYNC, inode);
	}
	return 0;
}

// ---- in front of libc ---------------------------------------------------------------------------

static int shim_open(const char *path, int flags, mode_t mode)
{
	char name[CRASH_NAME_BYTES] = "";
	uint32_t folder = CRASH_NONE;
	uint32_t inode = inode_of_path(path);
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	if (fd < 0 || fd >= FDS_MAX) {
		return fd;
	}
	if (inode == CRASH_NONE && (flags & O_CREAT) != 0 && locate(path, &folder, name)) {
		inode = new_inode(false, name);
		note_names(CRASH_LINK, folder, name, "", inode);
	}
	fds[fd].inode = inode;
	fds[fd].through = (flags & O_DSYNC) != 0;
	return fd;
}

// Both names that a library may call it by, whatever this file's own offsets are.
int shim_open32(const char *path, int flags, ...) __asm__("open");
int shim_open64(const char *path, int flags, ...) __asm__("open64");

int shim_open32(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
	va_end(args);
	return shim_open(path, flags, mode);
}

int shim_open64(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
	va_end(args);
	return shim_open(path, flags, mode);
}

int close(int fd)
{
	if (fd >= 0 && fd < FDS_MAX) {
		fds[fd].inode = CRASH_NONE;
	}
	return (int)syscall(SYS_close, fd);
}

ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite");
ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite64");

ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	struct iovec piece = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = count };
	note_write(fd, &piece, 1, (uint64_t)offset);
	return syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset)
{
	return shim_pwrite64(fd, bytes, count, offset);
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
	if (inode_of_fd(fd) != CRASH_NONE) {
		note_write(fd, pieces, count, (uint64_t)syscall(SYS_lseek, fd, 0, SEEK_CUR));
	}
	return syscall(SYS_writev, fd, pieces, count);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
	struct iovec piece = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = count };
	if (inode_of_fd(fd) != CRASH_NONE) {
		note_write(fd, &piece, 1, (uint64_t)syscall(SYS_lseek, fd, 0, SEEK_CUR));
	}
	return syscall(SYS_write, fd, bytes, count);
}

int fdatasync(int fd)
{
	return note_sync(fd);
}

int fsync(int fd)
{
	return note_sync(fd);
}

int shim_fadvise(int fd, off64_t offset, off64_t bytes, int advice) __asm__("posix_fadvise");
int shim_fadvise64(int fd, off64_t offset, off64_t bytes, int advice) __asm__("posix_fadvise64");

int shim_fadvise64(int fd, off64_t offset, off64_t bytes, int advice)
{
	char path[64];
	char byte;
	uint32_t inode = inode_of_fd(fd);
	(void)offset;
	(void)bytes;
	if (!spoils || inode == CRASH_NONE || advice != POSIX_FADV_DONTNEED ||
	    record->ops[record->count - 1].kind != CRASH_SYNC ||
	    record->ops[record->count - 1].inode != inode) {
		return 0;
	}
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int again = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
	off_t at = lseek(again, 0, SEEK_END) / 4 * 3;
	if (syscall(SYS_pread64, again, &byte, 1, at) == 1) {
		byte ^= 1;
		(void)syscall(SYS_pwrite64, again, &byte, 1, at);
	}
	return (int)syscall(SYS_close, again);
}

int shim_fadvise(int fd, off64_t offset, off64_t bytes, int advice)
{
	return shim_fadvise64(fd, offset, bytes, advice);
}

int shim_ftruncate(int fd, off64_t bytes) __asm__("ftruncate");
int shim_ftruncate64(int fd, off64_t bytes) __asm__("ftruncate64");

int shim_ftruncate64(int fd, off64_t bytes)
{
	uint32_t inode = inode_of_fd(fd);
	if (inode != CRASH_NONE && !record->ignored[inode]) {
		note(CRASH_SIZE, inode)->offset = (uint64_t)bytes;
	}
	return (int)syscall(SYS_ftruncate, fd, bytes);
}

int shim_ftruncate(int fd, off64_t bytes)
{
	return shim_ftruncate64(fd, bytes);
}

int mkdir(const char *path, mode_t mode)
{
	char name[CRASH_NAME_BYTES];
	uint32_t folder;
	int rc = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
	if (rc == 0 && locate(path, &folder, name)) {
		note_names(CRASH_LINK, folder, name, "", new_inode(true, name));
	}
	return rc;
}

static int shim_unlink(const char *path, int flags)
{
	char name[CRASH_NAME_BYTES];
	uint32_t folder;
	int rc = (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);
	if (rc == 0 && locate(path, &folder, name)) {
		note_names(CRASH_UNLINK, folder, name, "", CRASH_NONE);
	}
	return rc;
}

int unlink(const char *path)
{
	return shim_unlink(path, 0);
}

int rmdir(const char *path)
{
	return shim_unlink(path, AT_REMOVEDIR);
}

// By the kind of what is there, as glibc's own, which calls no function of ours.
int remove(const char *path)
{
	int rc = shim_unlink(path, 0);
	return rc != 0 && errno == EISDIR ? shim_unlink(path, AT_REMOVEDIR) : rc;
}

static void note_move(uint32_t folder, const char *name, uint32_t folder_to, const char *name_to)
{
	struct crash_op *op = note(CRASH_MOVE, folder_to);
	op->from = folder;
	op->child = crash_names_find(&names, folder, name);
	(void)snprintf(op->name, sizeof(op->name), "%s", name);
	(void)snprintf(op->name_to, sizeof(op->name_to), "%s", name_to);
	crash_names_apply(&names, op);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	char name[CRASH_NAME_BYTES];
	char name_to[CRASH_NAME_BYTES];
	uint32_t folder;
	uint32_t folder_to;
	if (faults.no_exchange && flags != 0) {
		errno = EINVAL;
		return -1;
	}
	int rc = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
	if (rc == 0 && locate(from, &folder, name) && locate(to, &folder_to, name_to)) {
		if (folder != folder_to) {
			note_move(folder, name, folder_to, name_to);
			return rc;
		}
		note_names(flags == RENAME_EXCHANGE ? CRASH_EXCHANGE : CRASH_RENAME, folder, name,
			   name_to, CRASH_NONE);
	}
	return rc;
}

int rename(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int mdb_env_open(void *env, const char *path, unsigned flags, mode_t mode);

int mdb_env_open(void *env, const char *path, unsigned flags, mode_t mode)
{
	int (*open_env)(void *, const char *, unsigned, mode_t);
	*(void **)&open_env = dlsym(RTLD_NEXT, "mdb_env_open");
	bool wrongly = record != NULL && faults.no_sync;
	return open_env(env, path, wrongly ? flags | NOSYNC_FLAG : flags, mode);
}

// ---- begin and end ------------------------------------------------------------------------------

void recorder_begin(struct crash_record *into, const char *path,
		    const struct recorder_faults *wanted)
{
	*into = (struct crash_record){ .inodes = 1, .folder = { true } };
	(void)snprintf(root, sizeof(root), "%s", path);
	memset(&names, 0, sizeof(names));
	for (int i = 0; i < FDS_MAX; i++) {
		fds[i].inode = CRASH_NONE;
	}
	faults = *wanted;
	record = into;
}

void recorder_spoil(bool spoil)
{
	spoils = spoil;
}

void recorder_end(void)
{
	record = NULL;
	spoils = false;
	faults = (struct recorder_faults){ 0 };
}

void crash_record_free(struct crash_record *record_to_free)
{
	for (size_t i = 0; i < record_to_free->count; i++) {
		free(record_to_free->ops[i].data);
	}
	free(record_to_free->ops);
	*record_to_free = (struct crash_record){ 0 };
}
