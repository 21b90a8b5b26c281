// SPDX-License-Identifier: MIT
//
// The lock file's content is a courtesy: the pid, for the message of the kvd that comes second, and
// so that it can tell a kvd that serves from one that is dying. A killed kvd holds its lock until
// the kernel has taken its memory down, which takes a while for gigabytes; whoever restarts it at
// once should not have to know.
#include "daemon/storage/dirlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/remedy.h"

#define LOOK_EVERY_MS 20u
#define WAIT_ALWAYS_MS 200u // a signal that was sent may not have arrived yet
#define WAIT_DYING_MS 30000u

static int refuse(char *why, size_t why_bytes, const char *path)
{
	int error = errno;
	(void)snprintf(why, why_bytes, "%s: %s; %s, or choose another --dir", path, strerror(error),
		       remedy_of_errno(error));
	errno = error;
	return -1;
}

static void read_owner(int fd, char owner[32])
{
	ssize_t got = pread(fd, owner, 31, 0);
	owner[got > 0 ? got : 0] = '\0';
	owner[strspn(owner, "0123456789")] = '\0';
}

// A process on its way out has no memory any more.
static bool is_dying(const char *owner)
{
	char path[64];
	char text[32] = "";
	(void)snprintf(path, sizeof(path), "/proc/%s/statm", owner);
	int fd = owner[0] != '\0' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0) {
		return false;
	}
	ssize_t got = read(fd, text, sizeof(text) - 1);
	(void)close(fd);
	return got > 0 && strtoull(text, NULL, 10) == 0;
}

// Takes the lock (LOCK_EX or LOCK_SH), waiting for an owner that is dying. 0 or -1 with errno.
static int lock_patiently(int fd, int how)
{
	for (unsigned waited_ms = 0;; waited_ms += LOOK_EVERY_MS) {
		if (flock(fd, how | LOCK_NB) == 0) {
			return 0;
		}
		int error = errno;
		char owner[32];
		read_owner(fd, owner);
		if (error != EWOULDBLOCK || waited_ms >= WAIT_DYING_MS ||
		    (waited_ms >= WAIT_ALWAYS_MS && !is_dying(owner))) {
			errno = error;
			return -1;
		}
		struct timespec pause = { .tv_nsec = LOOK_EVERY_MS * 1000000L };
		(void)nanosleep(&pause, NULL);
	}
}

static int refuse_taken(int fd, char *why, size_t why_bytes, const char *dir)
{
	char owner[32];
	read_owner(fd, owner);
	(void)snprintf(why, why_bytes,
		       "data folder %s is in use by another kvd (pid %s): stop that one, or choose "
		       "another --dir",
		       dir, owner[0] != '\0' ? owner : "unknown");
	(void)close(fd);
	errno = EWOULDBLOCK;
	return -1;
}

static int refuse_lock(int fd, char *why, size_t why_bytes, const char *dir, const char *path)
{
	if (errno == EWOULDBLOCK) {
		return refuse_taken(fd, why, why_bytes, dir);
	}
	int error = errno;
	(void)snprintf(why, why_bytes, "%s: %s; choose a --dir on a local file system", path,
		       strerror(error));
	(void)close(fd);
	errno = error;
	return -1;
}

int dirlock_look(const char *dir, char *why, size_t why_bytes)
{
	char path[4096];
	if (snprintf(path, sizeof(path), "%s/kvd.lock", dir) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return refuse(why, why_bytes, dir);
	}
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (fd < 0) {
		return refuse(why, why_bytes, path);
	}
	// Mounted for writing elsewhere it may be in use: the lock is the file's, not the mount's.
	return lock_patiently(fd, LOCK_SH) == 0 ? fd : refuse_lock(fd, why, why_bytes, dir, path);
}

int dirlock_take(const char *dir, char *why, size_t why_bytes)
{
	char path[4096];
	if (mkdir(dir, 0700) != 0 && errno == EACCES) {
		(void)snprintf(why, why_bytes,
			       "%s: cannot create it: %s; create it for kvd's user, or choose "
			       "another --dir",
			       dir, strerror(EACCES));
		errno = EACCES;
		return -1;
	}
	struct stat found;
	if (stat(dir, &found) != 0) {
		return refuse(why, why_bytes, dir);
	}
	if (snprintf(path, sizeof(path), "%s/kvd.lock", dir) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return refuse(why, why_bytes, dir);
	}
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		return refuse(why, why_bytes, errno == ENOTDIR ? dir : path);
	}
	if (lock_patiently(fd, LOCK_EX) != 0) {
		return refuse_lock(fd, why, why_bytes, dir, path);
	}
	char text[32];
	int length = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length) {
		// A full disk must not keep kvd from starting: the lock holds without its text.
		errno = 0;
	}
	return fd;
}

void dirlock_release(int fd)
{
	if (fd >= 0) {
		(void)close(fd);
	}
}
