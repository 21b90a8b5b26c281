// SPDX-License-Identifier: MIT
//
// Whether it was removed its own descriptor tells, which has no name left then. The new one must be
// of the same file system: where that was unmounted, what is below is not the place for it.
#include "daemon/storage/datadir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/storage/dirlock.h"
#include "shm/atomics.h"

struct datadir {
	char *path;
	int fd;
	pthread_mutex_t mutex; // guards the next two
	int lock_fd;
	bool leaving;
	uint64_t remade; // written by the store's owner, release; read by the loop
};

int datadir_take(struct datadir **out, const char *path, const struct dirlock_patience *patience,
		 char *why, size_t why_bytes)
{
	struct datadir *folder = calloc(1, sizeof(*folder));
	*out = NULL;
	if (folder == NULL || (folder->path = strdup(path)) == NULL) {
		free(folder);
		(void)snprintf(why, why_bytes, "%s: out of memory", path);
		return ENOMEM;
	}
	pthread_mutex_init(&folder->mutex, NULL);
	folder->fd = -1;
	folder->lock_fd = dirlock_take(path, patience, why, why_bytes);
	int error = folder->lock_fd >= 0 ? 0 : errno;
	if (error == 0) {
		folder->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		error = folder->fd >= 0 && dirlock_hold(folder->fd) == 0 ? 0 : errno;
		if (error != 0) {
			(void)snprintf(why, why_bytes, "%s: %s", path, strerror(error));
		}
	}
	if (error != 0) {
		datadir_release(folder);
		return error;
	}
	*out = folder;
	return 0;
}

void datadir_release(struct datadir *folder)
{
	if (folder == NULL) {
		return;
	}
	if (folder->fd >= 0) {
		(void)close(folder->fd);
	}
	dirlock_release(folder->lock_fd);
	pthread_mutex_destroy(&folder->mutex);
	free(folder->path);
	free(folder);
}

void datadir_leaving(struct datadir *folder)
{
	pthread_mutex_lock(&folder->mutex);
	folder->leaving = true;
	dirlock_leaving(folder->lock_fd);
	pthread_mutex_unlock(&folder->mutex);
}

static int refuse(char *why, size_t why_bytes, const char *what, int error)
{
	(void)snprintf(why, why_bytes, "the data folder was removed%s%s%s", what,
		       error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
	return -1;
}

// The folder in which its name stands.
static int open_above(const struct datadir *folder)
{
	char *above = strdup(folder->path);
	if (above == NULL) {
		return -1; // errno tells
	}
	size_t length = strlen(above);
	while (length > 1 && above[length - 1] == '/') {
		above[--length] = '\0';
	}
	char *slash = strrchr(above, '/');
	if (slash != NULL) {
		slash[slash == above ? 1 : 0] = '\0';
	}
	int fd = open(slash != NULL ? above : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = errno;
	free(above);
	errno = error;
	return fd;
}

static bool is_empty(const char *path)
{
	DIR *folder = opendir(path);
	const struct dirent *entry = NULL;
	bool found = folder == NULL;
	while (!found && (entry = readdir(folder)) != NULL) {
		found = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	}
	if (folder != NULL) {
		(void)closedir(folder);
	}
	return !found;
}

// An empty one of the same file system stands there, made by us if none did. 0 or -1.
static int make(const struct datadir *folder, dev_t device, char *why, size_t why_bytes)
{
	struct stat facts;
	int above = open_above(folder);
	if (above < 0) {
		return refuse(why, why_bytes, ", and what is above it cannot be opened", errno);
	}
	bool is_same = fstat(above, &facts) == 0 && facts.st_dev == device;
	(void)close(above);
	if (is_same && mkdir(folder->path, 0700) != 0 && errno != EEXIST) {
		return refuse(why, why_bytes, ", and cannot be made anew", errno);
	}
	if (!is_same || stat(folder->path, &facts) != 0 || facts.st_dev != device) {
		return refuse(why, why_bytes, ", and its place is on another file system now", 0);
	}
	if (!is_empty(folder->path)) {
		return refuse(why, why_bytes, ", and what stands in its place is not empty", 0);
	}
	return 0;
}

// Its name is to last before anything in it counts. 0 or an errno.
static int sync_above(const struct datadir *folder)
{
	int above = open_above(folder);
	int error = above < 0 || fsync(above) != 0 ? errno : 0;
	if (above >= 0) {
		(void)close(above);
	}
	return error == EINVAL ? 0 : error; // not every file system syncs folders
}

// The new one becomes the folder.
static int move_into(struct datadir *folder, char *why, size_t why_bytes)
{
	char detail[400];
	int fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		return refuse(why, why_bytes, ", and another cannot be opened", errno);
	}
	int lock_fd = dirlock_take(folder->path, NULL, detail, sizeof(detail));
	if (lock_fd >= 0 && dirlock_hold(fd) != 0) {
		(void)snprintf(detail, sizeof(detail), "%s: %s", folder->path, strerror(errno));
		dirlock_release(lock_fd);
		lock_fd = -1;
	}
	if (lock_fd < 0) {
		(void)close(fd);
		(void)snprintf(why, why_bytes, "the data folder was removed, and another: %s",
			       detail);
		return -1;
	}
	(void)close(folder->fd);
	folder->fd = fd;
	pthread_mutex_lock(&folder->mutex);
	dirlock_release(folder->lock_fd);
	folder->lock_fd = lock_fd;
	if (folder->leaving) {
		dirlock_leaving(lock_fd);
	}
	pthread_mutex_unlock(&folder->mutex);
	// Release: the folder is there (partner: datadir_remade()).
	kvs_store_release(&folder->remade, folder->remade + 1);
	return 0;
}

int datadir_remake(struct datadir *folder, char *why, size_t why_bytes)
{
	struct stat facts;
	struct stat named;
	if (fstat(folder->fd, &facts) != 0) {
		return 1;
	}
	bool is_made = stat(folder->path, &named) == 0 && named.st_dev == facts.st_dev &&
		       named.st_ino == facts.st_ino; // by an attempt that then failed
	if (!is_made && facts.st_nlink != 0) {
		return 1;
	}
	if (!is_made && (make(folder, facts.st_dev, why, why_bytes) != 0 ||
			 move_into(folder, why, why_bytes) != 0)) {
		return -1;
	}
	int error = sync_above(folder);
	return error == 0 ? 0 : refuse(why, why_bytes, ", and another cannot be synced", error);
}

uint64_t datadir_remade(const struct datadir *folder)
{
	return kvs_load_acquire(&folder->remade); // partner: datadir_remake()
}
