// SPDX-License-Identifier: MIT
//
// What is full says so at the write, at the sync, or (with quotas of network file systems) at the
// close; each is looked at.
#include "tools/filecopy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/storage/seal.h"

#define FILECOPY_CHUNK_BYTES (1u << 20)

struct filecopy_telling {
	bool (*told)(void *context, uint64_t done);
	void *context;
	uint64_t before; // bytes
};

static bool filecopy_fail(struct filecopy_error *error, const char *what, int code)
{
	*error = (struct filecopy_error){ .error = code, .what = what };
	return false;
}

static bool filecopy_write(int to, const unsigned char *chunk, size_t bytes,
			   struct filecopy_error *error)
{
	while (bytes > 0) {
		ssize_t n = write(to, chunk, bytes);
		if (n < 0 && errno != EINTR) {
			return filecopy_fail(error, "write", errno);
		}
		chunk += n > 0 ? n : 0;
		bytes -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

static bool filecopy_through(int from, int to, uint64_t bytes,
			     const struct filecopy_telling *telling, struct filecopy_error *error)
{
	unsigned char *chunk = malloc(FILECOPY_CHUNK_BYTES);
	bool good = chunk || filecopy_fail(error, "copy", ENOMEM);
	for (uint64_t done = 0; good && done < bytes;) {
		uint64_t left = bytes - done;
		size_t wanted = left < FILECOPY_CHUNK_BYTES ? (size_t)left : FILECOPY_CHUNK_BYTES;
		ssize_t n = pread(from, chunk, wanted, (off_t)done);
		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			good = filecopy_fail(error, "read", n < 0 ? errno : EIO);
			break;
		}
		done += (uint64_t)n;
		good = filecopy_write(to, chunk, (size_t)n, error);
		if (good && !telling->told(telling->context, done)) {
			good = filecopy_fail(error, "copy", ECANCELED);
		}
	}
	free(chunk);
	return good;
}

static bool filecopy_told(void *context, uint64_t done)
{
	const struct filecopy_telling *telling = context;
	return telling->told(telling->context, telling->before + done);
}

bool filecopy(int from, int to, uint64_t bytes, uint32_t crc,
	      bool (*told)(void *context, uint64_t done), void *context,
	      struct filecopy_error *error)
{
	struct filecopy_telling telling = { told, context, 0 };
	uint32_t found;
	if (!filecopy_through(from, to, bytes, &telling, error)) {
		return false;
	}
	if (fsync(to) != 0) {
		return filecopy_fail(error, "sync", errno);
	}
	(void)posix_fadvise(to, 0, 0, POSIX_FADV_DONTNEED); // a hint
	telling.before = bytes;
	int code = seal_sum(to, bytes, &found, filecopy_told, &telling);
	if (code != 0) {
		return filecopy_fail(error, "read back", code);
	}
	if (found != crc) {
		*error = (struct filecopy_error){ .what = "read back", .damaged = true };
		return false;
	}
	return true;
}

// Opens the folder that `path` stands in, or a file without a name in it. -1 with errno.
static int open_folder(const char *path, int flags)
{
	char *folder = strdup(path);
	if (!folder) {
		return -1;
	}
	char *slash = strrchr(folder, '/');
	if (slash) {
		slash[slash == folder] = '\0';
	}
	int fd = open(slash ? folder : ".", flags | O_CLOEXEC, 0600);
	int error = errno;
	free(folder);
	errno = error;
	return fd;
}

#define SELF_FD_BYTES 32u

static void self_fd(int fd, char path[SELF_FD_BYTES])
{
	(void)snprintf(path, SELF_FD_BYTES, "/proc/self/fd/%d", fd);
}

int filecopy_target_open(struct filecopy_target *target, const char *path)
{
	char self[SELF_FD_BYTES];
	struct stat facts;
	target->temporary = NULL;
	target->fd = open_folder(path, O_RDWR | O_TMPFILE);
	if (target->fd >= 0) {
		self_fd(target->fd, self);
		if (stat(self, &facts) == 0) {
			return 0; // it can be given a name: /proc is there
		}
		(void)close(target->fd);
	}
	if (asprintf(&target->temporary, "%s.XXXXXX", path) < 0) {
		target->temporary = NULL;
		target->fd = -1;
		return ENOMEM;
	}
	target->fd = mkostemp(target->temporary, O_CLOEXEC); // mode 0600
	int error = target->fd < 0 ? errno : 0;
	if (error != 0) {
		free(target->temporary);
		target->temporary = NULL;
	}
	return error;
}

// A name beside `path`: a link replaces nothing.
static int name_beside(struct filecopy_target *target, const char *self, const char *path)
{
	if (asprintf(&target->temporary, "%s.%ld", path, (long)getpid()) < 0) {
		target->temporary = NULL;
		return ENOMEM;
	}
	if (linkat(AT_FDCWD, self, AT_FDCWD, target->temporary, AT_SYMLINK_FOLLOW) != 0) {
		int error = errno;
		free(target->temporary);
		target->temporary = NULL;
		return error;
	}
	return 0;
}

int filecopy_target_name(struct filecopy_target *target, const char *path)
{
	char self[SELF_FD_BYTES];
	if (!target->temporary) {
		self_fd(target->fd, self);
		if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0) {
			return 0;
		}
		int error = errno == EEXIST ? name_beside(target, self, path) : errno;
		if (error != 0) {
			return error;
		}
	}
	if (rename(target->temporary, path) != 0) {
		return errno;
	}
	free(target->temporary);
	target->temporary = NULL;
	return 0;
}

int filecopy_target_close(struct filecopy_target *target)
{
	int error = close(target->fd) != 0 ? errno : 0;
	if (target->temporary) {
		(void)unlink(target->temporary);
		free(target->temporary);
		target->temporary = NULL;
	}
	return error;
}

int filecopy_sync_folder(const char *path)
{
	int fd = open_folder(path, O_RDONLY | O_DIRECTORY);
	int error = fd < 0 ? errno : 0;
	if (fd >= 0 && fsync(fd) != 0) {
		error = errno;
	}
	if (fd >= 0) {
		(void)close(fd);
	}
	return error;
}
