// SPDX-License-Identifier: MIT
//
// kvctl restore: a backup becomes the store of a data folder that no kvd uses. Everything is
// verified first. The store is copied to DIR/store.restore and takes its place in one step; kvd
// does not start on a folder where that was cut off. kvd.gen is raised, so that a memory that was
// kept is not taken over and readers come to the new one.
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/storage/restored.h"
#include "tools/filecopy.h"
#include "tools/job.h"
#include "tools/kvctl.h"
#include "tools/offline.h"
#include "tools/progress.h"
#include "tools/units.h"

#define RESTORE_PATH_BYTES 4096u

struct restore {
	struct kvctl *kvctl;
	const char *backup;
	const char *dir;
	int from;
	int lock;
	struct seal_facts facts;
	struct stat folder; // DIR, for owner and group
	bool made_folder;
	char store[RESTORE_PATH_BYTES]; // DIR/store
	char work[RESTORE_PATH_BYTES];	// DIR/store.restore
	char data[RESTORE_PATH_BYTES];	// in it
	char aside[RESTORE_PATH_BYTES]; // where an old store goes; empty = there is none
};

static int restore_paths(struct restore *restore)
{
	const struct {
		char *to;
		const char *name;
	} paths[] = {
		{ restore->store, "store" },
		{ restore->work, RESTORED_WORK_NAME },
		{ restore->data, RESTORED_WORK_NAME "/data.mdb" },
	};
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
		int length = snprintf(paths[i].to, RESTORE_PATH_BYTES, "%s/%s", restore->dir,
				      paths[i].name);
		if (length < 0 || (size_t)length >= RESTORE_PATH_BYTES) {
			return kvctl_error(KVCTL_USAGE, "%s: the path is too long", restore->dir);
		}
	}
	return KVCTL_OK;
}

// The backup itself: seal, sum, and all of the store in it.
static int restore_verify(struct restore *restore)
{
	cJSON *result = NULL;
	int code = offline_backup_open(restore->kvctl, restore->backup, &restore->from,
				       &restore->facts);
	if (code != KVCTL_OK) {
		return code;
	}
	code = offline_verify(restore->kvctl, NULL, restore->backup, restore->facts.data_bytes,
			      &result);
	if (code == KVCTL_CORRUPT) {
		(void)kvctl_error(code,
				  "%s: it is damaged: nothing was restored; kvctl verify %s "
				  "names what",
				  restore->backup, restore->backup);
	}
	cJSON_Delete(result);
	return code;
}

static int restore_folder(struct restore *restore)
{
	restore->made_folder = mkdir(restore->dir, 0700) == 0;
	if (!restore->made_folder && errno != EEXIST) {
		return kvctl_error(KVCTL_USAGE, "cannot create %s: %s", restore->dir,
				   strerror(errno));
	}
	int code = offline_lock(restore->dir, false, &restore->lock);
	if (code == KVCTL_OK && stat(restore->dir, &restore->folder) != 0) {
		code = kvctl_error(KVCTL_USAGE, "%s: %s", restore->dir, strerror(errno));
	}
	return code;
}

// Data that is there stays, unless --force moves it aside.
static int restore_old(struct restore *restore)
{
	struct stat facts;
	char ready[RESTORE_PATH_BYTES];
	(void)snprintf(ready, sizeof ready, "%s/store.ready", restore->dir);
	if (stat(ready, &facts) == 0) {
		return kvctl_error(KVCTL_NO,
				   "%s is there: start kvd once so that it completes its "
				   "store, or move that folder away",
				   ready);
	}
	if (lstat(restore->store, &facts) != 0) {
		return errno == ENOENT ? KVCTL_OK
				       : kvctl_error(KVCTL_USAGE, "%s: %s", restore->store,
						     strerror(errno));
	}
	if (!restore->kvctl->options.value[OPTION_force]) {
		return kvctl_error(KVCTL_NO,
				   "%s holds data: --force keeps it as %s.replaced-TIME "
				   "and restores the backup",
				   restore->dir, restore->store);
	}
	time_t now = time(NULL);
	struct tm parts;
	char when[32] = "old";
	if (gmtime_r(&now, &parts)) {
		(void)strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", &parts);
	}
	int length = snprintf(restore->aside, sizeof restore->aside, "%s.replaced-%s",
			      restore->store, when);
	bool free_name = length > 0 && (size_t)length < sizeof restore->aside &&
			 lstat(restore->aside, &facts) != 0;
	return free_name
		       ? KVCTL_OK
		       : kvctl_error(KVCTL_USAGE, "%s is there already: try again", restore->aside);
}

static void restore_clear(const struct restore *restore)
{
	char lock[RESTORE_PATH_BYTES + 16];
	(void)snprintf(lock, sizeof lock, "%s/lock.mdb", restore->work);
	(void)unlink(restore->data);
	(void)unlink(lock);
	(void)rmdir(restore->work); // if it cannot be, kvd says what it is
}

static bool restore_copied(void *context, uint64_t done)
{
	progress_update(context, done, 0);
	return !job_interrupted();
}

static int restore_copy_failed(const struct restore *restore, const struct filecopy_error *error)
{
	if (error->damaged) {
		return kvctl_error(KVCTL_CORRUPT,
				   "%s: what was written reads differently: check "
				   "that disk",
				   restore->data);
	}
	if (error->error == ECANCELED) {
		return kvctl_error(KVCTL_NO, "interrupted: nothing was restored");
	}
	return kvctl_error(KVCTL_USAGE, "cannot %s %s: %s; nothing was restored", error->what,
			   restore->data, strerror(error->error));
}

// As kvd's user would have made it.
static int restore_own(const struct restore *restore, const char *path)
{
	if (lchown(path, restore->folder.st_uid, restore->folder.st_gid) != 0 && geteuid() == 0) {
		return kvctl_error(KVCTL_USAGE, "cannot give %s to the owner of %s: %s", path,
				   restore->dir, strerror(errno));
	}
	return KVCTL_OK;
}

static int restore_copy(struct restore *restore)
{
	struct progress progress;
	struct filecopy_error error;
	restore_clear(restore); // of one that was cut off
	if (mkdir(restore->work, 0700) != 0) {
		return kvctl_error(KVCTL_USAGE, "cannot create %s: %s", restore->work,
				   strerror(errno));
	}
	int to = open(restore->data, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (to < 0) {
		return kvctl_error(KVCTL_USAGE, "cannot create %s: %s", restore->data,
				   strerror(errno));
	}
	progress_start(&progress, !restore->kvctl->quiet, 2 * restore->facts.data_bytes);
	bool good = filecopy(restore->from, to, restore->facts.data_bytes, restore->facts.data_crc,
			     restore_copied, &progress, &error);
	(void)progress_stop(&progress);
	int code = good ? KVCTL_OK : restore_copy_failed(restore, &error);
	if (close(to) != 0 && code == KVCTL_OK) {
		code = kvctl_error(KVCTL_USAGE, "cannot write %s: %s", restore->data,
				   strerror(errno));
	}
	if (code == KVCTL_OK) {
		code = restore_own(restore, restore->data);
	}
	if (code == KVCTL_OK) {
		code = restore_own(restore, restore->work);
	}
	int failed = code == KVCTL_OK ? filecopy_sync_folder(restore->data) : 0;
	// Its name must last before an old store loses its own: not every file system keeps the
	// order, and with neither name there kvd would start empty.
	if (code == KVCTL_OK && failed == 0) {
		failed = filecopy_sync_folder(restore->work);
	}
	return failed == 0 ? code
			   : kvctl_error(KVCTL_USAGE, "cannot sync %s: %s", restore->work,
					 strerror(failed));
}

// DIR may be new. What it stands in need not be the user's to open: as with kvd itself, only a
// device that fails counts there.
static int restore_sync_above(const struct restore *restore)
{
	char above[RESTORE_PATH_BYTES];
	int length = snprintf(above, sizeof above, "%s/../.", restore->dir);
	if (length < 0 || (size_t)length >= sizeof above) {
		return ENAMETOOLONG;
	}
	return filecopy_sync_folder(above) == EIO ? EIO : 0;
}

// The one step. Before it the old data are served, if there are any; after it the restored.
static int restore_publish(const struct restore *restore)
{
	bool old = restore->aside[0] != '\0';
	int error = restored_raise_generation(restore->dir, restore->folder.st_uid,
					      restore->folder.st_gid);
	if (error != 0) {
		return kvctl_error(KVCTL_USAGE, "cannot raise %s/kvd.gen: %s", restore->dir,
				   strerror(error));
	}
	error = restored_publish(restore->work, restore->store, old ? restore->aside : NULL);
	if (error == 0) {
		error = filecopy_sync_folder(restore->store);
	}
	if (error == 0) {
		error = restore_sync_above(restore);
	}
	return error == 0 ? KVCTL_OK
			  : kvctl_error(KVCTL_USAGE, "cannot put %s into its place: %s",
					restore->work, strerror(error));
}

static int restore_done(const struct restore *restore)
{
	char size[16];
	units_size(size, sizeof size, (double)restore->facts.data_bytes);
	if (restore->kvctl->json) {
		printf("{\"keys\":%llu,\"version\":%llu,\"bytes\":%llu,\"created_ms\":%llu}\n",
		       (unsigned long long)restore->facts.keys,
		       (unsigned long long)restore->facts.durable_seq,
		       (unsigned long long)restore->facts.data_bytes,
		       (unsigned long long)restore->facts.created_ms);
		return KVCTL_OK;
	}
	if (restore->made_folder) {
		(void)kvctl_remark(restore->kvctl, 0,
				   "%s is new and belongs to who runs kvctl: "
				   "chown -R it to kvd's user before kvd starts",
				   restore->dir);
	}
	if (restore->aside[0] != '\0') {
		(void)kvctl_remark(restore->kvctl, 0, "the old store is kept as %s",
				   restore->aside);
	}
	return kvctl_remark(restore->kvctl, KVCTL_OK,
			    "%s: %llu keys, everything up to version %llu, %s; start kvd on it",
			    restore->dir, (unsigned long long)restore->facts.keys,
			    (unsigned long long)restore->facts.durable_seq, size);
}

static int restore_run(struct restore *restore)
{
	int code = restore_paths(restore);
	if (code == KVCTL_OK) {
		code = restore_verify(restore);
	}
	if (code == KVCTL_OK) {
		code = restore_folder(restore);
	}
	if (code == KVCTL_OK) {
		code = restore_old(restore);
	}
	if (code != KVCTL_OK) {
		return code;
	}
	code = restore_copy(restore);
	if (code == KVCTL_OK) {
		code = restore_publish(restore);
	}
	if (code != KVCTL_OK) {
		restore_clear(restore);
	}
	return code;
}

int cmd_restore(struct kvctl *kvctl)
{
	struct restore restore = {
		.kvctl = kvctl,
		.backup = kvctl->options.argument[0],
		.dir = kvctl->options.argument[1],
		.from = -1,
		.lock = -1,
	};
	if (!job_watch_signals()) {
		return KVCTL_NO;
	}
	int code = restore_run(&restore);
	if (restore.from >= 0) {
		(void)close(restore.from);
	}
	if (code == KVCTL_OK) {
		code = restore_done(&restore);
	}
	if (restore.lock >= 0) {
		(void)close(restore.lock); // after all: until here no kvd may start
	}
	return code;
}
