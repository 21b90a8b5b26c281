// SPDX-License-Identifier: MIT
//
// A store that cannot be trusted any more is not repaired: another one is written beside it and
// takes its place as a whole. Until that moment the old one stays as it is, so whoever starts after
// a crash finds either of them, complete. The exchange is one step where the file system can do
// that; elsewhere it is three, and the name `store.ready` tells the next start where they stopped.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/storage/datadir.h"
#include "daemon/storage/pages.h"
#include "daemon/storage/recover.h"
#include "daemon/storage/seal.h"
#include "daemon/storage/store_internal.h"

#define RENEW_PATH_BYTES 4096u
#define FOLDER_REMEDY                                                                              \
	"bring the old one back; or, before kvd ends, save the data with kvctl dump, and load it " \
	"when kvd was started again"

static int path_of(const struct store *store, const char *name, char path[RENEW_PATH_BYTES])
{
	int length = snprintf(path, RENEW_PATH_BYTES, "%s/%s", store->dir, name);
	return length > 0 && (size_t)length < RENEW_PATH_BYTES ? 0 : ENAMETOOLONG;
}

// Removes a store's folder. 0 if it is not there any more, else errno.
static int folder_remove(const char *folder)
{
	static const char *const files[] = { "data.mdb", "lock.mdb" };
	char path[RENEW_PATH_BYTES];
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		int length = snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
		if (length < 0 || (size_t)length >= sizeof(path)) {
			return ENAMETOOLONG;
		}
		if (unlink(path) != 0 && errno != ENOENT) {
			return errno;
		}
	}
	return rmdir(folder) == 0 || errno == ENOENT ? 0 : errno;
}

int store_folder_remember(struct store *store)
{
	struct stat facts;
	if (stat(store->dir, &facts) != 0) {
		return store_fail(store, "looking for its folder", errno);
	}
	store->dir_device = facts.st_dev;
	store->dir_inode = facts.st_ino;
	return STORE_OK;
}

int store_folder_check(struct store *store)
{
	struct stat now;
	if (stat(store->dir, &now) != 0) {
		return errno == ENOENT || errno == ENOTDIR
			       ? store_gone(store, "the data folder was removed", FOLDER_REMEDY)
			       : store_fail(store, "looking for its folder", errno);
	}
	if (now.st_dev != store->dir_device || now.st_ino != store->dir_inode) {
		return store_gone(store, "the data folder was replaced", FOLDER_REMEDY);
	}
	return STORE_OK;
}

// It is not where it was: another is made if it was removed.
static int folder_again(struct store *store, int result)
{
	char why[STORE_WHY_BYTES / 2];
	if (result != STORE_GONE || store->folder == NULL) {
		return result;
	}
	int remade = datadir_remake(store->folder, why, sizeof(why));
	if (remade < 0) {
		return store_gone(store, why, FOLDER_REMEDY);
	}
	return remade == 0 ? store_folder_remember(store) : result;
}

// What an attempt that failed had made ready must not take the place of a store that goes on after
// it, at the next start; nor half of it. 0 or errno.
static int ready_remove(const char *ready, const char *unused)
{
	if (rename(ready, unused) != 0) {
		return errno == ENOENT ? 0 : errno;
	}
	return folder_remove(unused);
}

static int attach_beside(struct store *store)
{
	char ready[RENEW_PATH_BYTES];
	struct stat facts;
	int rc = folder_remove(store->path);
	if (rc == 0) {
		rc = path_of(store, "store.ready", ready);
	}
	// While there is no old one, what is ready is all that the next start would find.
	if (rc == 0 && stat(store->replaced_path, &facts) == 0) {
		rc = ready_remove(ready, store->path);
	}
	if (rc == 0 && mkdir(store->path, 0700) != 0) {
		rc = errno;
	}
	return rc == 0 ? store_attach(store) : store_fail(store, "creating the folder", rc);
}

void store_skip_blocks(struct store *store, uint64_t next_block)
{
	if (store->committed.next_block < next_block) {
		store->committed.next_block = next_block;
		store->now = store->committed;
	}
}

int store_renew_begin(struct store *store)
{
	char path[RENEW_PATH_BYTES];
	store_abort(store);
	store_replaced_keep(store);
	store->reopen = true;
	int result = folder_again(store, store_folder_check(store));
	int rc = path_of(store, "store.new", path);
	char *beside = result == STORE_OK && rc == 0 ? strdup(path) : NULL;
	if (result == STORE_OK && beside == NULL) {
		result = store_fail(store, "naming another one", rc != 0 ? rc : ENOMEM);
	}
	if (result != STORE_OK) {
		store_replaced_drop(store);
		return result;
	}
	store->replaced_path = store->path;
	store->replaced_is_lost = store->is_lost;
	store->is_lost = store->is_cramped = false;
	store->replaced = store->committed;
	store->path = beside;
	// Block numbers go on, so that a place in the old store never means one in the new.
	uint64_t first_block = store->replaced.next_block + STORE_UNKNOWN_BLOCKS;
	store->committed = (struct store_facts){
		.instance_id = store->replaced.instance_id,
		.oldest_block = first_block,
		.next_block = first_block,
	};
	result = attach_beside(store);
	if (result != STORE_OK) {
		store_renew_abandon(store);
	} else if (store->replaced_env == NULL && store->readers > 0) {
		(void)store_replaced_again(store); // whoever reads there will tell
	}
	return result;
}

void store_renew_abandon(struct store *store)
{
	if (store->replaced_path == NULL) {
		return;
	}
	store_abort(store);
	store_detach(store);
	store_replaced_drop(store);
	// What cannot be removed now is removed when the next one begins.
	(void)folder_remove(store->path);
	free(store->path);
	store->path = store->replaced_path;
	store->replaced_path = NULL;
	store->is_lost = store->replaced_is_lost;
	store->is_cramped = false;
	store->committed = store->replaced;
	store->now = store->replaced;
	store->reopen = true;
}

static int no_record(void *context, const struct kvs_record_view *view, const void *value,
		     uint64_t place)
{
	(void)context;
	(void)view;
	(void)value;
	(void)place;
	return 0;
}

// Out of the page cache with it: what is read to verify it is to come from the device. By read()
// first, for a page that cannot be read is an error there, and the loss of the environment later.
static int file_settle(const char *folder)
{
	struct stat facts;
	uint32_t unused_crc;
	char path[RENEW_PATH_BYTES];
	int length = snprintf(path, sizeof(path), "%s/data.mdb", folder);
	if (length < 0 || (size_t)length >= sizeof(path)) {
		return ENAMETOOLONG;
	}
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return errno;
	}
	int rc = fsync(fd) == 0 ? 0 : errno;
	if (rc == 0) {
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); // a hint
		rc = fstat(fd, &facts) == 0
			     ? seal_sum(fd, (uint64_t)facts.st_size, &unused_crc, NULL, NULL)
			     : errno;
	}
	if (close(fd) != 0 && rc == 0) {
		rc = errno;
	}
	return rc;
}

static int verify(struct store *store)
{
	struct store_facts written = store->committed;
	store_detach(store);
	int rc = file_settle(store->path);
	if (rc == 0) {
		rc = store_folder_sync(store->path);
	}
	if (rc != 0) {
		return store_fail(store, "syncing another one", rc);
	}
	int result = store_attach(store);
	if (result != STORE_OK) {
		return result;
	}
	const struct store_facts *found = &store->committed;
	if (found->durable_seq != written.durable_seq || found->next_block != written.next_block ||
	    found->oldest_block != written.oldest_block) {
		return store_damaged(store, "it does not hold what was just written");
	}
	struct store_walk walk = { .record = no_record, .check_records = true };
	return store_recover(store, &walk);
}

// Puts `fresh` into the place of `old`, which goes to `aside`. 0 or errno.
static int exchange(const struct store *store, const char *fresh, const char *old,
		    const char *aside)
{
	char ready[RENEW_PATH_BYTES];
	if (renameat2(AT_FDCWD, fresh, AT_FDCWD, old, RENAME_EXCHANGE) == 0) {
		return rename(fresh, aside) == 0 ? 0 : errno;
	}
	int failed = errno;
	int rc = path_of(store, "store.ready", ready);
	if (failed == ENOENT && rc == 0) {
		// No old one: an attempt may have failed between its names.
		return rename(fresh, old) == 0 ? ready_remove(ready, fresh) : errno;
	}
	if (failed != EINVAL && failed != ENOSYS) {
		return failed;
	}
	if (rc == 0 && rename(fresh, ready) != 0) {
		rc = errno;
	}
	// The name must last before the old one loses its own: not every file system keeps the
	// order, and `store.new` alone is what the next start removes.
	if (rc == 0) {
		rc = store_folder_sync(store->dir);
	}
	if (rc == 0 && (rename(old, aside) != 0 || rename(ready, old) != 0)) {
		rc = errno;
	}
	return rc;
}

int store_renew_finish(struct store *store, enum store_replaced replaced)
{
	char aside[RENEW_PATH_BYTES];
	char name[64];
	int result = verify(store);
	if (result == STORE_OK) {
		result = store_folder_check(store);
	}
	if (result != STORE_OK) {
		return result;
	}
	(void)snprintf(name, sizeof(name), "store.%s-%lld",
		       replaced == STORE_REPLACED_STAYS ? "before" : "failed",
		       (long long)time(NULL));
	int rc = path_of(store, name, aside);
	if (rc == 0) {
		rc = folder_remove(aside); // of an attempt in the same second
	}
	if (rc == 0) {
		rc = exchange(store, store->path, store->replaced_path, aside);
	}
	if (rc == 0) {
		rc = store_folder_sync(store->dir);
	}
	if (rc != 0) {
		return store_fail(store, "putting another one into its place", rc);
	}
	free(store->path);
	store->path = store->replaced_path;
	store->replaced_path = NULL;
	store_show(store);
	store_replaced_drop(store);
	if (replaced == STORE_REPLACED_GOES && !store->keep_failed) {
		(void)folder_remove(aside); // if it cannot be, its name tells what it is
	}
	return STORE_OK;
}

void store_keep_failed(struct store *store)
{
	store->keep_failed = true;
}

// Is this what store_renew_finish() left: a folder of its own with a store in it?
static int look_at_ready(const char *ready)
{
	char data[RENEW_PATH_BYTES + 16];
	struct stat facts;
	if (lstat(ready, &facts) != 0) {
		return errno == ENOENT || errno == ENOTDIR ? ENOENT : errno;
	}
	(void)snprintf(data, sizeof(data), "%s/data.mdb", ready);
	if (!S_ISDIR(facts.st_mode) || lstat(data, &facts) != 0 || !S_ISREG(facts.st_mode)) {
		return EEXIST;
	}
	int fd = open(data, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		return errno;
	}
	char why[256];
	errno = 0;
	bool good = store_pages_known(fd) &&
		    store_pages_check(fd, (uint64_t)facts.st_size, true, why, sizeof(why)) == 0;
	int error = errno == EIO ? EIO : EEXIST; // what cannot be read may be good
	(void)close(fd);
	return good ? 0 : error;
}

int store_renew_complete(const char *dir)
{
	char store[RENEW_PATH_BYTES];
	char ready[RENEW_PATH_BYTES];
	char aside[RENEW_PATH_BYTES];
	int length = snprintf(store, sizeof(store), "%s/store", dir);
	int ready_length = snprintf(ready, sizeof(ready), "%s/store.ready", dir);
	if (length < 0 || (size_t)length >= sizeof(store) || ready_length < 0 ||
	    (size_t)ready_length >= sizeof(ready)) {
		return ENAMETOOLONG;
	}
	int looked = look_at_ready(ready);
	if (looked != 0) {
		return looked == ENOENT ? 0 : looked;
	}
	// Where both are there the old one had not gone aside yet. It failed, the new one was
	// verified, and nothing was committed to the old one since.
	int aside_length =
		snprintf(aside, sizeof(aside), "%s/store.failed-%lld", dir, (long long)time(NULL));
	if (aside_length < 0 || (size_t)aside_length >= sizeof(aside)) {
		return ENAMETOOLONG;
	}
	if ((rename(store, aside) != 0 && errno != ENOENT) || rename(ready, store) != 0) {
		return errno;
	}
	return store_folder_sync(dir);
}
