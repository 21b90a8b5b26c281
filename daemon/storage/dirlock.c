// SPDX-License-Identifier: MIT
//
// The lock file's content is a courtesy: the pid, for the message of the kvd that comes second, and
// so that it can tell a kvd that serves from one that goes. One that stops has a last commit to
// make, and says so in the file; one that was asked to stop may not have come to that yet; one that
// was killed holds its lock until the kernel has taken its memory down, which takes a while for
// gigabytes. Whoever restarts it at once should not have to know.
#include "daemon/storage/dirlock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
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
#define WAIT_LEAVING_MS 30000u
#define WAIT_HELD_MS 2000u // between the two locks of a kvd that was killed
#define LEAVING "stopping"

struct owner {
	char pid[32]; // digits, empty = nobody knows
	bool stops;
};

static int refuse(char *why, size_t why_bytes, const char *path)
{
	int error = errno;
	(void)snprintf(why, why_bytes, "%s: %s; %s, or choose another --dir", path, strerror(error),
		       remedy_of_errno(error));
	errno = error;
	return -1;
}

static void read_owner(int fd, struct owner *owner)
{
	char text[64];
	ssize_t got = pread(fd, text, sizeof(text) - 1, 0);
	text[got > 0 ? got : 0] = '\0';
	size_t digits = strspn(text, "0123456789");
	*owner = (struct owner){ .stops = strcmp(text + digits, " " LEAVING "\n") == 0 };
	if (digits < sizeof(owner->pid)) {
		memcpy(owner->pid, text, digits);
	}
}

// What /proc says of the owner; empty if there is none, or none that this process may see.
static void read_proc(const struct owner *owner, const char *name, char *text, size_t text_bytes)
{
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/%s/%s", owner->pid, name);
	int fd = owner->pid[0] != '\0' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t got = fd >= 0 ? read(fd, text, text_bytes - 1) : 0;
	text[got > 0 ? got : 0] = '\0';
	if (fd >= 0) {
		(void)close(fd);
	}
}

// A process on its way out has no memory any more.
static bool is_dying(const struct owner *owner)
{
	char text[32];
	read_proc(owner, "statm", text, sizeof(text));
	return text[0] != '\0' && strtoull(text, NULL, 10) == 0;
}

// A kvd that starts lets a request to stop wait until it serves.
static bool is_asked_to_stop(const struct owner *owner)
{
	static const uint64_t stops = UINT64_C(1) << (SIGTERM - 1) | UINT64_C(1) << (SIGINT - 1);
	char text[4096];
	read_proc(owner, "status", text, sizeof(text));
	const char *waiting = strstr(text, "\nShdPnd:");
	return waiting != NULL && (strtoull(waiting + 8, NULL, 16) & stops) != 0;
}

static void tell(const struct dirlock_patience *patience, const struct owner *owner)
{
	char text[128];
	if (patience != NULL && patience->tell != NULL) {
		(void)snprintf(text, sizeof(text),
			       "waiting for the kvd that is stopping here (pid %s)",
			       owner->pid[0] != '\0' ? owner->pid : "unknown");
		patience->tell(patience->context, text);
	}
}

// Takes the lock (LOCK_EX or LOCK_SH), waiting for an owner that goes. 0 or -1 with errno.
static int lock_patiently(int fd, int how, const struct dirlock_patience *patience)
{
	bool told = false;
	for (unsigned waited_ms = 0;; waited_ms += LOOK_EVERY_MS) {
		if (flock(fd, how | LOCK_NB) == 0) {
			return 0;
		}
		int error = errno;
		struct owner owner;
		read_owner(fd, &owner);
		bool is_long = waited_ms >= WAIT_ALWAYS_MS;
		if (error != EWOULDBLOCK || waited_ms >= WAIT_LEAVING_MS ||
		    (is_long && !owner.stops && !is_asked_to_stop(&owner) && !is_dying(&owner))) {
			errno = error;
			return -1;
		}
		if (patience != NULL && patience->is_over != NULL &&
		    patience->is_over(patience->context)) {
			errno = ECANCELED;
			return -1;
		}
		if (is_long && !told) {
			tell(patience, &owner);
			told = true;
		}
		struct timespec pause = { .tv_nsec = LOOK_EVERY_MS * 1000000L };
		(void)nanosleep(&pause, NULL);
	}
}

static int refuse_taken(int fd, char *why, size_t why_bytes, const char *dir)
{
	struct owner owner;
	read_owner(fd, &owner);
	(void)snprintf(why, why_bytes,
		       "data folder %s is in use by another kvd (pid %s)%s: stop that one, or "
		       "choose another --dir",
		       dir, owner.pid[0] != '\0' ? owner.pid : "unknown",
		       owner.stops ? ", which has not come to the end of its stop" : "");
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
	if (error == ECANCELED) {
		(void)snprintf(why, why_bytes, "stopped by a signal while waiting for %s", path);
	} else {
		(void)snprintf(why, why_bytes, "%s: %s; choose a --dir on a local file system",
			       path, strerror(error));
	}
	(void)close(fd);
	errno = error;
	return -1;
}

// No link: it is written, and may lead to a file that only kvd may write. Nor is a pipe waited for.
static int open_file(const char *path, int flags)
{
	struct stat facts;
	int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd >= 0 && fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode)) {
		return fd;
	}
	if (fd >= 0) {
		(void)close(fd);
		errno = EEXIST;
	}
	return -1;
}

int dirlock_look(const char *dir, char *why, size_t why_bytes)
{
	char path[4096];
	if (snprintf(path, sizeof(path), "%s/kvd.lock", dir) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return refuse(why, why_bytes, dir);
	}
	int fd = open_file(path, O_RDONLY);
	if (fd < 0 && errno == ENOENT) {
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (fd < 0) {
		return refuse(why, why_bytes, path);
	}
	// Mounted for writing elsewhere it may be in use: the lock is the file's, not the mount's.
	return lock_patiently(fd, LOCK_SH, NULL) == 0 ? fd
						      : refuse_lock(fd, why, why_bytes, dir, path);
}

// Says in the file whose it is. Nothing depends on it.
static void write_owner(int fd, const char *what)
{
	char text[64];
	int length = snprintf(text, sizeof(text), "%d%s\n", (int)getpid(), what);
	if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length) {
		errno = 0;
	}
}

int dirlock_hold(int folder_fd)
{
	for (unsigned waited_ms = 0; waited_ms <= WAIT_HELD_MS; waited_ms += LOOK_EVERY_MS) {
		if (flock(folder_fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) {
			return 0; // not every file system locks folders
		}
		struct timespec pause = { .tv_nsec = LOOK_EVERY_MS * 1000000L };
		(void)nanosleep(&pause, NULL);
	}
	errno = EWOULDBLOCK;
	return -1;
}

// By a kvd whose lock file was removed?
static bool is_held(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool held = fd >= 0 && dirlock_hold(fd) != 0;
	if (fd >= 0) {
		(void)close(fd);
	}
	return held;
}

int dirlock_take(const char *dir, const struct dirlock_patience *patience, char *why,
		 size_t why_bytes)
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
	int fd = open_file(path, O_RDWR | O_CREAT);
	if (fd < 0) {
		return refuse(why, why_bytes, errno == ENOTDIR ? dir : path);
	}
	if (lock_patiently(fd, LOCK_EX, patience) != 0) {
		return refuse_lock(fd, why, why_bytes, dir, path);
	}
	if (is_held(dir)) {
		(void)snprintf(why, why_bytes,
			       "data folder %s is in use by another kvd, whose kvd.lock was "
			       "removed: stop that one, or choose another --dir",
			       dir);
		(void)close(fd);
		errno = EWOULDBLOCK;
		return -1;
	}
	// A full disk must not keep kvd from starting: the lock holds without its text.
	write_owner(fd, "");
	return fd;
}

void dirlock_leaving(int fd)
{
	if (fd >= 0) {
		write_owner(fd, " " LEAVING);
	}
}

void dirlock_release(int fd)
{
	if (fd >= 0) {
		(void)close(fd);
	}
}
