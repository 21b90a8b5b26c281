// SPDX-License-Identifier: MIT
//
// Names only: what is in the folders has been synced and read back before.
#include "daemon/storage/restored.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/generation.h"
#include "shm/limits.h"

#define RESTORED_PATH_BYTES 4096u

int restored_publish(const char *work, const char *store, const char *aside)
{
	if (aside == NULL) {
		// Not over anything: an empty folder of that name would be replaced.
		return renameat2(AT_FDCWD, work, AT_FDCWD, store, RENAME_NOREPLACE) == 0 ||
				       (errno == EINVAL && rename(work, store) == 0)
			       ? 0
			       : errno;
	}
	if (renameat2(AT_FDCWD, work, AT_FDCWD, store, RENAME_EXCHANGE) == 0) {
		return rename(work, aside) == 0 ? 0 : errno; // `work` is the old one now
	}
	if (errno != EINVAL && errno != ENOSYS) {
		return errno;
	}
	return rename(store, aside) == 0 && rename(work, store) == 0 ? 0 : errno;
}

int restored_raise_generation(const char *dir, uid_t uid, gid_t gid)
{
	char path[RESTORED_PATH_BYTES];
	struct kvs_generation record;
	int length = snprintf(path, sizeof(path), "%s/kvd.gen", dir);
	if (length < 0 || (size_t)length >= sizeof(path)) {
		return ENAMETOOLONG;
	}
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		return errno;
	}
	int error = 0;
	if (ftruncate(fd, KVS_PAGE_BYTES) != 0 || !kvs_generation_read(fd, &record)) {
		error = errno != 0 ? errno : EIO;
	}
	record.named = ++record.generation;
	record.instance_id = 0;
	if (error == 0 && (pwrite(fd, &record, sizeof(record), 0) != (ssize_t)sizeof(record) ||
			   fsync(fd) != 0 || (fchown(fd, uid, gid) != 0 && geteuid() == 0))) {
		error = errno != 0 ? errno : EIO;
	}
	if (close(fd) != 0 && error == 0) {
		error = errno;
	}
	return error;
}

int restored_check(const char *dir, char *why, size_t why_bytes)
{
	char path[RESTORED_PATH_BYTES];
	struct stat facts;
	int length = snprintf(path, sizeof(path), "%s/%s", dir, RESTORED_WORK_NAME);
	if (length < 0 || (size_t)length >= sizeof(path) || stat(path, &facts) != 0) {
		return 0;
	}
	length = snprintf(path, sizeof(path), "%s/store", dir);
	if (length < 0 || (size_t)length >= sizeof(path) || stat(path, &facts) == 0) {
		return 0; // the restore was to replace that one, which is still whole
	}
	(void)snprintf(why, why_bytes,
		       "a restore into %s was cut off: run kvctl restore again, or remove %s/%s to "
		       "start empty",
		       dir, dir, RESTORED_WORK_NAME);
	return -1;
}
