// SPDX-License-Identifier: MIT
//
// Opening: folders, the environment, the two databases and the record that says what is in them. An
// existing store has been walked by the probe child before kvd comes here; what is checked here
// again is what the probe could not know to stay true.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/storage/pages.h"
#include "daemon/storage/store_internal.h"
#include "shm/crc32c.h"

// Address space for the map, huge since it costs nothing; less where the big one is refused (ulimit
// -v, valgrind). An existing file larger than that still opens: LMDB takes the larger one.
static const uint64_t map_bytes_choices[] = {
	UINT64_C(1) << 40,
	UINT64_C(64) << 30,
	UINT64_C(4) << 30,
};
#define MAP_CHOICES (sizeof(map_bytes_choices) / sizeof(map_bytes_choices[0]))

#define LOCK_FILE_BYTES 8192 // LMDB's, for its default number of readers

// Is no other process in it? A mutex that was lost with an environment is made anew by LMDB then.
static bool lock_file_is_free(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

// Stores what stands at its start once more, by a call: what copies a page on each write (btrfs)
// has room for it from then on, or says that it has not.
static int lock_file_touch(int fd)
{
	uint32_t word = 0;
	return pread(fd, &word, sizeof(word), 0) < 0 || pwrite(fd, &word, sizeof(word), 0) < 0
		       ? errno
		       : 0;
}

// LMDB maps its lock file and writes into it: on a full disk a hole there would be a SIGBUS instead
// of an error. So the file gets its blocks first. What cannot be opened, LMDB will say better; but
// it would follow a symbolic link and write into whatever that names.
static int lock_file_reserve(const struct store *store)
{
	char path[4096];
	struct stat facts;
	(void)snprintf(path, sizeof(path), "%s/lock.mdb", store->path);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0) {
		return errno == ELOOP ? ELOOP : 0;
	}
	int rc = 0;
	if (fstat(fd, &facts) == 0 && !S_ISREG(facts.st_mode)) {
		(void)close(fd);
		return EEXIST;
	}
	if (fstat(fd, &facts) == 0) {
		off_t bytes = facts.st_size > LOCK_FILE_BYTES ? facts.st_size : LOCK_FILE_BYTES;
		rc = posix_fallocate(fd, 0, bytes);
	}
	// Who only reads is not alone with it.
	int touched = store->read_only ? 0 : lock_file_touch(fd);
	rc = touched != 0 ? touched : rc;
	if (store->is_lost && !lock_file_is_free(fd)) {
		rc = EIO; // somebody looks at it still
	}
	(void)close(fd);
	return rc == ENOSPC || rc == EDQUOT || rc == EFBIG || store->is_lost ? rc : 0;
}

// A crash while LMDB creates its file may leave it empty, or one of the two pages that it begins
// with, or zeroes in their place. LMDB calls that damage, but nothing can have been in it: they are
// synced before anything else is written. Then it is emptied, and made anew. *is_new tells whether
// it is to be. Before the environment is opened: LMDB's locks would end as this descriptor is
// closed.
static int data_file_settle(const struct store *store, bool *is_new)
{
	char path[4096];
	struct stat facts;
	*is_new = false;
	int length = snprintf(path, sizeof(path), "%s/data.mdb", store->path);
	if (store->read_only || length < 0 || (size_t)length >= sizeof(path)) {
		return 0;
	}
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		*is_new = errno == ENOENT;
		return 0; // LMDB will say it better
	}
	int rc = 0;
	if (fstat(fd, &facts) == 0 && !S_ISREG(facts.st_mode)) {
		rc = EEXIST;
	} else if (fstat(fd, &facts) == 0) {
		uint64_t bytes = (uint64_t)facts.st_size;
		*is_new = bytes == 0 || store_pages_unborn(fd, bytes);
		if (*is_new && ftruncate(fd, 0) != 0) {
			rc = errno;
		}
	}
	(void)close(fd);
	return rc;
}

int store_open_env(struct env **env, struct env_options *options)
{
	int rc = ENOMEM;
	for (size_t i = 0; i < MAP_CHOICES && (rc == ENOMEM || rc == EINVAL); i++) {
		options->map_bytes = map_bytes_choices[i];
		rc = env_open(env, options);
	}
	return rc;
}

static int open_env(struct store *store)
{
	struct env_options options = {
		.path = store->path,
		.read_only = store->read_only,
		.alone = store->alone,
		.single = store->single,
	};
	return store_open_env(&store->env, &options);
}

int store_meta_read(struct store *store, struct store_facts *facts)
{
	struct store_meta meta = { 0 };
	struct env_value value = { .out = &meta, .out_bytes = sizeof(meta) };
	int rc = env_read(store->env, ENV_META, STORE_META_KEY, strlen(STORE_META_KEY), &value);
	if (rc == MDB_NOTFOUND) {
		return 1;
	}
	if (rc != 0) {
		return store_fail(store, "reading its state", rc);
	}
	if (value.bytes < 16) {
		return store_damaged(store, "its state is cut short");
	}
	if (memcmp(meta.marker, "kvd-sto", 7) != 0) {
		return store_damaged(store, "its state is not kvd's");
	}
	if (memcmp(meta.marker, STORE_META_MARKER, 8) != 0 || meta.version != STORE_META_VERSION) {
		return store_fail(store, "format differs from this kvd's", MDB_VERSION_MISMATCH);
	}
	uint32_t crc = kvs_crc32c(0, (const char *)&meta + 16, sizeof(meta) - 16);
	if (value.bytes != sizeof(meta) || crc != meta.crc || meta.oldest_block > meta.next_block ||
	    meta.oldest_block == 0 || meta.durable_seq > KVS_SEQ_MAX) {
		return store_damaged(store, "its state contradicts itself");
	}
	*facts = (struct store_facts){
		.instance_id = meta.instance_id,
		.durable_seq = meta.durable_seq,
		.oldest_block = meta.oldest_block,
		.next_block = meta.next_block,
		.log_bytes = meta.log_bytes,
		.ended = (meta.flags & STORE_META_ENDED) != 0,
	};
	return STORE_OK;
}

int store_meta_write(struct store *store, const struct store_facts *facts)
{
	struct store_meta meta = {
		.version = STORE_META_VERSION,
		.instance_id = facts->instance_id,
		.durable_seq = facts->durable_seq,
		.oldest_block = facts->oldest_block,
		.next_block = facts->next_block,
		.log_bytes = facts->log_bytes,
		.flags = facts->ended ? STORE_META_ENDED : 0,
	};
	memcpy(meta.marker, STORE_META_MARKER, sizeof(meta.marker));
	meta.crc = kvs_crc32c(0, (const char *)&meta + 16, sizeof(meta) - 16);
	return env_write(store->env, ENV_META, STORE_META_KEY, strlen(STORE_META_KEY), &meta,
			 sizeof(meta));
}

// The log must hold exactly the blocks that the state names.
static int log_agrees(struct store *store)
{
	size_t entries;
	int rc = env_count(store->env, ENV_LOG, &entries);
	if (rc != 0) {
		return store_fail(store, "reading the log", rc);
	}
	uint64_t expected = store->committed.next_block - store->committed.oldest_block;
	if (entries != expected) {
		return store_damaged(store, "%zu blocks instead of %llu", entries,
				     (unsigned long long)expected);
	}
	return STORE_OK;
}

static int databases_open(struct store *store)
{
	int rc = env_open_databases(store->env, !store->read_only);
	if (rc != 0) {
		return store_fail(store, "opening its databases", rc);
	}
	int result = store_meta_read(store, &store->committed);
	if (result < 0) {
		return result;
	}
	if (result == 0) {
		return log_agrees(store);
	}
	if (store->read_only) {
		return store_damaged(store, "it has no state");
	}
	if (store->replaced_path == NULL) {
		store->committed.oldest_block = 1; // 0 stays free: a place of 0 means none
		store->committed.next_block = 1;
	}
	result = log_agrees(store);
	if (result == STORE_OK) {
		rc = store_meta_write(store, &store->committed);
		result = rc == 0 ? STORE_OK : store_fail(store, "writing its state", rc);
	}
	return result;
}

static off_t file_bytes(const struct store *store)
{
	int fd;
	struct stat facts;
	bool known = env_data_fd(store->env, &fd) == 0 && fstat(fd, &facts) == 0;
	return known ? facts.st_size : 0; // then the first transaction looks
}

int store_attach(struct store *store)
{
	if (store->is_lost && !store->is_cramped) {
		// Waiting for a lock that is held for ever would be worse.
		return store_fail(store, "opening it once more", EIO);
	}
	int rc = store->alone ? 0 : lock_file_reserve(store);
	if (rc != 0) {
		return store_fail(store, "creating its lock file, lock.mdb", rc);
	}
	bool is_new;
	rc = data_file_settle(store, &is_new);
	if (rc != 0) {
		return store_fail(
			store, rc == EEXIST ? "opening its file, data.mdb" : "making it anew", rc);
	}
	rc = open_env(store);
	if (rc == 0 && is_new) {
		rc = env_sync(store->env); // see data_file_settle()
	}
	if (rc == 0) {
		rc = env_begin(store->env, !store->read_only);
	}
	if (rc != 0) {
		int result = store_fail(store, "opening it", rc);
		store_detach(store);
		return result;
	}
	int result = databases_open(store);
	if (result == STORE_OK) {
		rc = env_commit(store->env); // keeps the handles, and a new store's state lasts
		result = rc == 0 ? STORE_OK : store_fail(store, "creating it", rc);
	}
	if (result == STORE_OK) {
		rc = env_open_readers(store->env, store->readers);
		result = rc == 0 ? STORE_OK : store_fail(store, "opening it for readers", rc);
	}
	if (result != STORE_OK) {
		store_detach(store);
		return result;
	}
	store->now = store->committed;
	store->file_bytes = file_bytes(store);
	store->reopen = store->is_lost = store->is_cramped = false;
	if (store->replaced_path == NULL) {
		store_show(store); // else when it takes the other one's place
	}
	return STORE_OK;
}

void store_detach(struct store *store)
{
	if (store->env != NULL) {
		if (store->read_env == store->env) { // which this thread alone changes
			store_hide(store);
		}
		store->is_lost = !env_close(store->env) || store->is_lost;
		store->env = NULL;
	}
}

int store_folder_sync(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		return errno;
	}
	int rc = fsync(fd) == 0 ? 0 : errno;
	if (close(fd) != 0 && rc == 0) {
		rc = errno;
	}
	return rc;
}

// All names on the way to the store, that of the data folder too: kvd may just have made it. What
// is above that need not be kvd's, nor a file system that syncs folders: only a device that fails
// counts there.
static int folders_sync(const struct store *store)
{
	char above[4096];
	int length = snprintf(above, sizeof(above), "%s/..", store->dir);
	if (length < 0 || (size_t)length >= sizeof(above)) {
		return ENAMETOOLONG;
	}
	int rc = store_folder_sync(store->path);
	if (rc == 0) {
		rc = store_folder_sync(store->dir);
	}
	if (rc != 0) {
		return rc;
	}
	rc = store_folder_sync(above);
	return rc == EIO ? rc : 0;
}

static int folders_make(struct store *store)
{
	if ((mkdir(store->dir, 0700) != 0 && errno != EEXIST) ||
	    (mkdir(store->path, 0700) != 0 && errno != EEXIST)) {
		return store_fail(store, "creating the folder", errno);
	}
	return STORE_OK;
}

static struct store *store_new(const struct store_options *options)
{
	struct store *store = calloc(1, sizeof(*store));
	if (store == NULL || store_read_init(store) != 0) {
		free(store);
		return NULL;
	}
	store->read_only = options->read_only;
	store->single = options->file != NULL;
	store->alone = options->read_only && (options->alone || store->single);
	store->renewable = options->renewable;
	store->readers = options->readers;
	store->folder = options->folder;
	store->committed.instance_id = options->instance_id;
	store->dir = strdup(store->single ? options->file : options->dir);
	if (store->single) {
		store->path = strdup(options->file);
	} else if (asprintf(&store->path, "%s/store", options->dir) < 0) {
		store->path = NULL;
	}
	store->builder.bytes = aligned_alloc(64, (STORE_BLOCK_BYTES_MAX + 63) & ~63u);
	if (store->dir == NULL || store->path == NULL || store->builder.bytes == NULL) {
		store_close(store);
		return NULL;
	}
	store_builder_reset(&store->builder);
	return store;
}

// LMDB follows whatever its pages say, and reads what a file that was cut short does not have: that
// would end kvd, and each one that is started after it.
int store_trees_check(struct store *store, const char *folder)
{
	char path[4096];
	char detail[160];
	struct stat facts;
	int length = snprintf(path, sizeof(path), "%s/data.mdb", folder);
	if (length < 0 || (size_t)length >= sizeof(path)) {
		return store_fail(store, "looking at its pages", ENAMETOOLONG);
	}
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return STORE_OK; // LMDB will say it better
	}
	int result = STORE_OK;
	if (fstat(fd, &facts) == 0 && facts.st_size > 0 &&
	    store_pages_check(fd, (uint64_t)facts.st_size, true, detail, sizeof(detail)) < 0) {
		result = store_damaged(store, "%s", detail);
	}
	(void)close(fd);
	return result;
}

static int attach(struct store *store)
{
	int result = store->renewable ? store_trees_check(store, store->path) : STORE_OK;
	if (result == STORE_OK) {
		result = store_attach(store);
	}
	if (result == STORE_OK && !store->read_only) {
		int rc = folders_sync(store);
		result = rc == 0 ? STORE_OK : store_fail(store, "syncing the folder", rc);
	}
	return result;
}

// It stays as it is; another one is to take its place.
static void leave_damaged(struct store *store, uint64_t instance_id)
{
	store_detach(store);
	store->reopen = true;
	store->committed = (struct store_facts){
		.instance_id = instance_id,
		.oldest_block = 1,
		.next_block = 1,
	};
	store->now = store->committed;
}

int store_open(struct store **out, const struct store_options *options, char *why, size_t why_bytes)
{
	*out = NULL;
	struct store *store = store_new(options);
	if (store == NULL) {
		(void)snprintf(why, why_bytes, "%s: out of memory",
			       options->file != NULL ? options->file : options->dir);
		return STORE_NO_MEMORY;
	}
	int result = store->read_only ? STORE_OK : folders_make(store);
	if (result == STORE_OK) {
		result = store_folder_remember(store);
	}
	bool is_there = result == STORE_OK;
	if (is_there) {
		result = attach(store);
	}
	if (result != STORE_OK) {
		(void)snprintf(why, why_bytes, "%s", store->why);
	}
	bool is_left =
		is_there && store->renewable && (result == STORE_DAMAGED || result == STORE_IO);
	if (result != STORE_OK && !is_left) {
		store_close(store);
		return result;
	}
	if (is_left) {
		leave_damaged(store, options->instance_id);
	}
	*out = store;
	return result;
}

void store_close(struct store *store)
{
	if (store == NULL) {
		return;
	}
	store_renew_abandon(store);
	store_abort(store);
	store_detach(store);
	store_replaced_drop(store);
	(void)pthread_rwlock_destroy(&store->read_lock); // nobody holds it
	free(store->builder.bytes);
	free(store->path);
	free(store->dir);
	free(store);
}
