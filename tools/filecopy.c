// SPDX-License-Identifier: MIT
//
// What is full says so at the write, at the sync, or (with quotas of network file systems) at the
// close; each is looked at.
#include "tools/filecopy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
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

int filecopy_sync_folder(const char *path)
{
	char *folder = strdup(path);
	if (!folder) {
		return ENOMEM;
	}
	char *slash = strrchr(folder, '/');
	if (slash) {
		slash[slash == folder] = '\0';
	}
	int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = fd < 0 ? errno : 0;
	if (fd >= 0 && fsync(fd) != 0) {
		error = errno;
	}
	if (fd >= 0) {
		(void)close(fd);
	}
	free(folder);
	return error;
}
