// SPDX-License-Identifier: MIT
//
// The lock file's content is only a courtesy: the pid for the message of the kvd that comes second.
#include "daemon/storage/dirlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int refuse(int fd, char *why, size_t why_bytes, const char *path, const char *remedy)
{
	(void)snprintf(why, why_bytes, "%s: %s; %s", path, strerror(errno), remedy);
	if (fd >= 0) {
		(void)close(fd);
	}
	return -1;
}

static int refuse_taken(int fd, char *why, size_t why_bytes, const char *dir)
{
	char owner[32] = "";
	ssize_t got = pread(fd, owner, sizeof(owner) - 1, 0);
	owner[got > 0 ? strcspn(owner, "\n") : 0] = '\0';
	(void)snprintf(why, why_bytes,
		       "data folder %s is in use by another kvd (pid %s): stop that one, or choose "
		       "another --dir",
		       dir, owner[0] != '\0' ? owner : "unknown");
	(void)close(fd);
	return -1;
}

int dirlock_take(const char *dir, char *why, size_t why_bytes)
{
	char path[4096];
	if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
		return refuse(-1, why, why_bytes, dir,
			      "create the data folder, or choose another --dir");
	}
	if (snprintf(path, sizeof(path), "%s/kvd.lock", dir) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return refuse(-1, why, why_bytes, dir, "choose a shorter --dir");
	}
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		return refuse(-1, why, why_bytes, path,
			      "let kvd's user write to the data folder, or choose another --dir");
	}
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno == EWOULDBLOCK) {
			return refuse_taken(fd, why, why_bytes, dir);
		}
		return refuse(fd, why, why_bytes, path, "choose a --dir on a local file system");
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
