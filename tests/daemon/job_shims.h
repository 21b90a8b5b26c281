// SPDX-License-Identifier: MIT
//
// What stands in front of the system in tests of jobs: the calls that one makes are counted, and at
// one of them an error is answered, or the job is cancelled.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static unsigned calls;		// counted
static unsigned fail_at;	// this one answers EIO; 0 = none
static unsigned cancel_at;	// at this one *cancel_word is set
static bool (*cancels)(void);	// asked at each: at this one, too? NULL = no
static unsigned cancelled_at;	// so it was done at this one; 0 = not yet
static unsigned syncs;		// of data, counted
static uint64_t *cancel_word;	// of the job
static void (*meanwhile)(void); // at each sync; NULL = nothing
static void (*at_wait)(void);	// instead of each sleep; NULL = it sleeps

#define WAITS_AFTER_MAX 30u // of a job that is cancelled: it does not heed that

static void cancel_now(void)
{
	cancelled_at = calls;
	__atomic_store_n(cancel_word, UINT64_C(1), __ATOMIC_RELAXED);
}

static bool fails_now(void)
{
	calls++;
	if (calls == cancel_at || (cancels != NULL && cancelled_at == 0 && cancels())) {
		cancel_now();
	}
	if (calls == fail_at) {
		errno = EIO;
		return true;
	}
	return false;
}

// Both names that a library may call it by, whatever this file's own offsets are.
int shim_open(const char *path, int flags, ...) __asm__("open");
int shim_open64(const char *path, int flags, ...) __asm__("open64");

static int open_now(const char *path, int flags, va_list args)
{
	mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
	return fails_now() ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int shim_open(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	int fd = open_now(path, flags, args);
	va_end(args);
	return fd;
}

int shim_open64(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	int fd = open_now(path, flags, args);
	va_end(args);
	return fd;
}

int fsync(int fd)
{
	return fails_now() ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	if (meanwhile != NULL) {
		meanwhile();
	}
	syncs++;
	return fails_now() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int nanosleep(const struct timespec *wait, struct timespec *left)
{
	if (at_wait != NULL) {
		at_wait();
		return 0;
	}
	return (int)syscall(SYS_nanosleep, wait, left);
}

int mkdir(const char *path, mode_t mode)
{
	return fails_now() ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int rename(const char *from, const char *to)
{
	return fails_now() ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0u);
}

int pipe2(int ends[2], int flags)
{
	return fails_now() ? -1 : (int)syscall(SYS_pipe2, ends, flags);
}

int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	struct timespec wait = { .tv_sec = timeout_ms / 1000,
				 .tv_nsec = timeout_ms % 1000 * 1000000L };
	static unsigned waits_after;
	waits_after = cancelled_at != 0 ? waits_after + 1 : 0;
	if (waits_after > WAITS_AFTER_MAX) {
		printf("Bail out! a job waits that was cancelled\n");
		exit(1);
	}
	return fails_now() ? -1
			   : (int)syscall(SYS_ppoll, fds, count, timeout_ms < 0 ? NULL : &wait,
					  NULL, (size_t)8);
}

ssize_t shim_pread(int fd, void *bytes, size_t count, off64_t offset) __asm__("pread");
ssize_t shim_pread64(int fd, void *bytes, size_t count, off64_t offset) __asm__("pread64");
ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite");
ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite64");

ssize_t shim_pread64(int fd, void *bytes, size_t count, off64_t offset)
{
	return fails_now() ? -1 : syscall(SYS_pread64, fd, bytes, count, offset);
}

ssize_t shim_pread(int fd, void *bytes, size_t count, off64_t offset)
{
	return shim_pread64(fd, bytes, count, offset);
}

ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	return fails_now() ? -1 : syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset)
{
	return shim_pwrite64(fd, bytes, count, offset);
}
