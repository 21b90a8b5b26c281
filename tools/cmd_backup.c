// SPDX-License-Identifier: MIT
//
// kvctl backup: kvd writes it, in the one place where it surely may, DIR/backup, and kvctl takes it
// from there to where it is wanted: by renaming, or by copying, syncing and reading it back. Until
// the last step nothing has the final name, and whatever goes wrong leaves nothing behind.
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/filecopy.h"
#include "tools/job.h"
#include "tools/jsonl.h"
#include "tools/kvctl.h"
#include "tools/offline.h"
#include "tools/progress.h"
#include "tools/units.h"

#define BACKUP_NAME_BYTES 80u

static bool backup_copied(void *context, uint64_t done)
{
	progress_update(context, done, 0);
	return !job_interrupted();
}

static int backup_copy_failed(const char *path, const struct filecopy_error *error)
{
	if (error->damaged) {
		return kvctl_error(KVCTL_CORRUPT,
				   "%s: what was written reads differently: check that disk", path);
	}
	if (error->error == ECANCELED) {
		return kvctl_error(KVCTL_NO, "interrupted: nothing was kept");
	}
	return kvctl_error(KVCTL_USAGE, "cannot %s %s: %s", error->what, path,
			   strerror(error->error));
}

// The sum over the data is the seal's; over the seal too it is made here.
static int backup_copy_to(struct kvctl *kvctl, int from, int to, const char *path)
{
	struct stat facts;
	struct progress progress;
	struct filecopy_error error;
	uint32_t crc;
	if (fstat(from, &facts) != 0) {
		return kvctl_error(KVCTL_USAGE, "%s: %s", path, strerror(errno));
	}
	int code = seal_sum(from, (uint64_t)facts.st_size, &crc, NULL, NULL);
	if (code != 0) {
		return kvctl_error(KVCTL_USAGE, "cannot read the backup: %s", strerror(code));
	}
	progress_start(&progress, !kvctl->quiet, 2 * (uint64_t)facts.st_size);
	bool good =
		filecopy(from, to, (uint64_t)facts.st_size, crc, backup_copied, &progress, &error);
	(void)progress_stop(&progress);
	return good ? KVCTL_OK : backup_copy_failed(path, &error);
}

static int backup_copy(struct kvctl *kvctl, int from, const char *path)
{
	struct filecopy_target to;
	int error = filecopy_target_open(&to, path);
	if (error != 0) {
		return kvctl_error(KVCTL_USAGE, "cannot write %s: %s", path, strerror(error));
	}
	int code = backup_copy_to(kvctl, from, to.fd, path);
	error = code == KVCTL_OK ? filecopy_target_name(&to, path) : 0;
	if (error != 0) {
		code = kvctl_error(KVCTL_USAGE, "cannot name it %s: %s", path, strerror(error));
	}
	error = filecopy_target_close(&to);
	if (error != 0 && code == KVCTL_OK) {
		code = kvctl_error(KVCTL_USAGE, "cannot write %s: %s", path, strerror(error));
	}
	return code;
}

static int backup_sync(const char *path)
{
	int error = filecopy_sync_folder(path);
	return error == 0 ? KVCTL_OK
			  : kvctl_error(KVCTL_USAGE, "cannot sync the folder of %s: %s", path,
					strerror(error));
}

// From kvd's folder to `path`.
static int backup_take(struct kvctl *kvctl, const char *made, const char *path)
{
	struct seal_facts facts;
	char why[256];
	int from = open(made, O_RDONLY | O_CLOEXEC);
	if (from < 0) {
		return kvctl_error(KVCTL_USAGE,
				   "the backup is complete, but kvctl cannot open %s: %s; run it "
				   "as root or as kvd's user, and where kvd's files are",
				   made, strerror(errno));
	}
	int code = KVCTL_OK;
	if (seal_read(from, &facts, why, sizeof why) != 0) {
		code = kvctl_error(KVCTL_CORRUPT, "%s: %s", made, why);
	} else if (rename(made, path) == 0) {
		code = backup_sync(path);
	} else {
		code = backup_copy(kvctl, from, path); // another file system
		// kvd's own goes when the copy and its name last, or when there is none.
		bool copied = code == KVCTL_OK;
		code = copied ? backup_sync(path) : code;
		bool goes = code == KVCTL_OK || !copied;
		if (goes && unlink(made) != 0 && errno != ENOENT && code == KVCTL_OK) {
			(void)kvctl_remark(kvctl, 0, "%s is left behind: %s", made,
					   strerror(errno));
		}
	}
	(void)close(from);
	return code;
}

// Its name in kvd's folder if it is to be taken from there: what is in front of the last two words
// is what it is called in a folder.
static bool backup_name(char name[BACKUP_NAME_BYTES])
{
	char when[32];
	struct tm parts;
	time_t now = time(NULL);
	if (gmtime_r(&now, &parts) == NULL ||
	    strftime(when, sizeof when, "kvd-%Y%m%dT%H%M%SZ", &parts) == 0) {
		return false;
	}
	(void)snprintf(name, BACKUP_NAME_BYTES, "%s.backup.%ld.fetch", when, (long)getpid());
	return true;
}

// Where it goes: the caller's. NULL if memory is short.
static char *backup_path(const char *made, const char *wanted, bool folder)
{
	char *path;
	if (!wanted || !folder) {
		return strdup(wanted ? wanted : made);
	}
	const char *name = strrchr(made, '/');
	name = name ? name + 1 : made;
	const char *end = strstr(name, ".backup.");
	int length = end ? (int)(end - name) + (int)strlen(".backup") : (int)strlen(name);
	return asprintf(&path, "%s/%.*s", wanted, length, name) < 0 ? NULL : path;
}

static int backup_done(const struct kvctl *kvctl, const cJSON *result, const char *path)
{
	char size[16];
	char rate[16];
	double bytes = job_number(result, "bytes");
	double seconds = job_number(result, "seconds");
	if (kvctl->json) {
		printf("{\"file\":");
		jsonl_write_string(stdout, path, strlen(path));
		printf(",\"bytes\":%.0f,\"keys\":%.0f,\"version\":%.0f,\"seconds\":%.3f}\n", bytes,
		       job_number(result, "keys"), job_number(result, "version"), seconds);
		return KVCTL_OK;
	}
	units_size(size, sizeof size, bytes);
	units_size(rate, sizeof rate, seconds > 0 ? bytes / seconds : 0);
	if (!kvctl->options.argument[0]) {
		puts(path);
	}
	return kvctl_remark(kvctl, KVCTL_OK,
			    "%s: %.0f keys, everything up to version %.0f, %s, in %.2f s (%s/s)",
			    path, job_number(result, "keys"), job_number(result, "version"), size,
			    seconds, rate);
}

int cmd_backup(struct kvctl *kvctl)
{
	const char *wanted = kvctl->options.argument[0];
	struct stat facts;
	cJSON *result;
	char *path = NULL;
	char name[BACKUP_NAME_BYTES];
	if (wanted && !*wanted) {
		return kvctl_error(KVCTL_USAGE, "'' is no file");
	}
	bool folder = wanted && stat(wanted, &facts) == 0 && S_ISDIR(facts.st_mode);
	// A link too, wherever it leads: it would be replaced, not what it names.
	if (wanted && !folder && !kvctl->options.value[OPTION_force] &&
	    lstat(wanted, &facts) == 0) {
		return kvctl_error(KVCTL_NO, "%s is there already: --force replaces it", wanted);
	}
	if (wanted && !backup_name(name)) {
		return kvctl_error(KVCTL_NO, "the clock cannot be read");
	}
	int code = job_run(kvctl, "KVD.BACKUP", wanted ? name : NULL, &result);
	if (code != KVCTL_OK) {
		return code;
	}
	const char *made = cJSON_GetStringValue(cJSON_GetObjectItem(result, "file"));
	if (!made) {
		code = kvctl_error(KVCTL_UNREACHABLE, "KVD.BACKUP: the reply names no file");
	} else {
		path = backup_path(made, wanted, folder);
	}
	if (code == KVCTL_OK && !path) {
		code = kvctl_error(KVCTL_NO, "out of memory: the backup is in %s", made);
	}
	if (code == KVCTL_OK && wanted) {
		code = backup_take(kvctl, made, path);
	}
	if (code == KVCTL_OK) {
		code = backup_done(kvctl, result, path);
	}
	free(path);
	cJSON_Delete(result);
	return code;
}
