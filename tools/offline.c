// SPDX-License-Identifier: MIT
//
// The parent's side parses lines (daemon/storage/verify.h) into the JSON that kvd itself would
// give.
#include "tools/offline.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/storage/dirlock.h"
#include "daemon/storage/verify.h"
#include "tools/job.h"
#include "tools/kvctl.h"
#include "tools/progress.h"

struct offline {
	struct kvctl *kvctl;
	struct progress progress;
	cJSON *result;
	cJSON *damage; // in it
	char failed[512];
	bool done;
	bool no_memory; // the result is not whole
};

// Notes one member of the result.
static void offline_added(struct offline *offline, const cJSON *member)
{
	offline->no_memory = offline->no_memory || !member;
}

static void offline_damage(struct offline *offline, char *rest)
{
	char *block = strsep(&rest, " ");
	char *seq = strsep(&rest, " ");
	char *key = strsep(&rest, " ");
	if (!key || !rest) {
		return;
	}
	cJSON *one = cJSON_CreateObject();
	offline_added(offline, cJSON_AddStringToObject(one, "where", "store"));
	if (strcmp(block, "0") != 0) {
		offline_added(offline, cJSON_AddNumberToObject(one, "block", strtod(block, NULL)));
	}
	if (strcmp(seq, "0") != 0) {
		offline_added(offline, cJSON_AddNumberToObject(one, "version", strtod(seq, NULL)));
	}
	if (strcmp(key, "-") != 0) {
		offline_added(offline, cJSON_AddStringToObject(one, "key_hex", key));
	}
	offline_added(offline, cJSON_AddStringToObject(one, "what", rest));
	if (!cJSON_AddItemToArray(offline->damage, one)) {
		cJSON_Delete(one);
		offline->no_memory = true;
	}
}

static void offline_done(struct offline *offline, const char *rest)
{
	static const char *const names[] = { "store_blocks", "store_records", "store_bytes",
					     "store_keys", "durable_version" };
	double numbers[5];
	if (sscanf(rest, "%lf %lf %lf %lf %lf", &numbers[0], &numbers[1], &numbers[2], &numbers[3],
		   &numbers[4]) != 5) {
		return;
	}
	for (size_t i = 0; i < 5; i++) {
		offline_added(offline,
			      cJSON_AddNumberToObject(offline->result, names[i], numbers[i]));
	}
	offline->done = true;
}

static void offline_line(struct offline *offline, char *line)
{
	line[strcspn(line, "\n")] = '\0';
	char *word = strsep(&line, " ");
	double done;
	double total;
	if (!line) {
		return;
	}
	if (strcmp(word, "damage") == 0) {
		offline_damage(offline, line);
	} else if (strcmp(word, "damaged") == 0) {
		offline_added(offline, cJSON_AddNumberToObject(offline->result, "damaged",
							       strtod(line, NULL)));
	} else if (strcmp(word, "done") == 0) {
		offline_done(offline, line);
	} else if (strcmp(word, "failed") == 0) {
		(void)snprintf(offline->failed, sizeof(offline->failed), "%s", line);
	} else if (sscanf(line, "%lf %lf", &done, &total) == 2) {
		offline->progress.total_bytes = (uint64_t)total;
		progress_update(&offline->progress, (uint64_t)done, 0);
	}
}

static int offline_child(int fd, const struct verify_options *asked, uint64_t bytes)
{
	struct verify_options options = *asked;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	// A terminal sends these to both: the parent decides, and its end is the child's.
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGTERM, SIG_IGN);
	options.out = fdopen(fd, "w");
	if (!options.out) {
		return VERIFY_FAILED;
	}
	store_verify_limit(bytes);
	return store_verify(&options);
}

// Until the child's end, or until a signal came: then the child is not asked any further.
static void offline_read(struct offline *offline, int fd)
{
	char *line = NULL;
	size_t capacity = 0;
	FILE *in = fdopen(fd, "r");
	while (in && !job_interrupted() && getline(&line, &capacity, in) > 0) {
		offline_line(offline, line);
	}
	free(line);
	if (in) {
		(void)fclose(in);
	}
}

static int offline_interrupted(const char *path)
{
	return kvctl_error(KVCTL_NO, "interrupted while %s was read: nothing was changed", path);
}

// Does it say something of what was read, and not of who sent it?
static bool offline_is_crash(int number)
{
	return number == SIGBUS || number == SIGSEGV || number == SIGABRT || number == SIGFPE ||
	       number == SIGILL || number == SIGTRAP || number == SIGSYS || number == SIGXCPU;
}

// What the child's end says.
static int offline_judge(struct offline *offline, int status, const char *path)
{
	if (job_interrupted()) {
		return offline_interrupted(path);
	}
	if (WIFSIGNALED(status) && !offline_is_crash(WTERMSIG(status))) {
		return kvctl_error(
			KVCTL_NO,
			"cannot read %s: its reader was ended by signal %d, which says "
			"nothing about it: try again, with more memory if it was SIGKILL",
			path, WTERMSIG(status));
	}
	if (WIFSIGNALED(status)) {
		char text[128];
		(void)snprintf(text, sizeof(text), "reading it ended with signal %d",
			       WTERMSIG(status));
		char line[160];
		(void)snprintf(line, sizeof(line), "0 0 - %s", text);
		offline_damage(offline, line);
		cJSON_DeleteItemFromObject(offline->result, "damaged");
		offline_added(offline,
			      cJSON_AddNumberToObject(offline->result, "damaged",
						      cJSON_GetArraySize(offline->damage)));
		return KVCTL_CORRUPT;
	}
	if (WEXITSTATUS(status) == VERIFY_FAILED || !offline->done) {
		return kvctl_error(KVCTL_USAGE, "cannot read %s: %s", path,
				   offline->failed[0] ? offline->failed : "its reader failed");
	}
	return WEXITSTATUS(status) == VERIFY_GOOD ? KVCTL_OK : KVCTL_CORRUPT;
}

static int offline_run(struct offline *offline, const struct verify_options *options,
		       uint64_t bytes)
{
	const char *path = options->file ? options->file : options->dir;
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0) {
		return kvctl_error(KVCTL_NO, "cannot read %s: %s", path, strerror(errno));
	}
	// A plain fork: kvctl has one thread, and the child is all that touches LMDB.
	pid_t pid = fork();
	if (pid == 0) {
		(void)close(ends[0]);
		_exit(offline_child(ends[1], options, bytes));
	}
	(void)close(ends[1]);
	if (pid < 0) {
		(void)close(ends[0]);
		return kvctl_error(KVCTL_NO, "cannot read %s: %s", path, strerror(errno));
	}
	offline_read(offline, ends[0]);
	int status = 0;
	if (job_interrupted()) {
		(void)kill(pid, SIGKILL); // not waited for yet: it is ours
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
	}
	return offline_judge(offline, status, path);
}

int offline_verify(struct kvctl *kvctl, const char *dir, const char *file, uint64_t file_bytes,
		   cJSON **result)
{
	struct offline offline = { .kvctl = kvctl, .result = cJSON_CreateObject() };
	struct verify_options options = {
		.dir = dir, .file = file, .file_bytes = file_bytes, .alone = true
	};
	offline.damage = cJSON_CreateArray();
	*result = NULL;
	(void)fflush(stdout);
	progress_start(&offline.progress, !kvctl->quiet, 0);
	int code = offline_run(&offline, &options, file_bytes);
	double seconds = progress_stop(&offline.progress);
	offline_added(&offline, cJSON_AddNumberToObject(offline.result, "seconds", seconds));
	offline_added(&offline, cJSON_AddStringToObject(offline.result, "store", "checked"));
	if (!cJSON_AddItemToObject(offline.result, "damage", offline.damage)) {
		cJSON_Delete(offline.damage);
		offline.no_memory = true;
	}
	if (offline.no_memory && (code == KVCTL_OK || code == KVCTL_CORRUPT)) {
		code = kvctl_error(KVCTL_NO, "out of memory: what was found cannot be told");
	}
	if (code == KVCTL_OK || code == KVCTL_CORRUPT) {
		*result = offline.result;
	} else {
		cJSON_Delete(offline.result);
	}
	return code;
}

static bool offline_summed(void *context, uint64_t done)
{
	progress_update(context, done, 0);
	return !job_interrupted();
}

int offline_backup_open(struct kvctl *kvctl, const char *path, int *fd, struct seal_facts *facts)
{
	char why[256];
	struct progress progress;
	struct stat file;
	uint32_t crc = 0;
	// Without waiting: a pipe that nobody writes to would be waited for without end.
	*fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (*fd < 0) {
		return kvctl_error(KVCTL_USAGE, "cannot open %s: %s", path, strerror(errno));
	}
	int code = KVCTL_OK;
	if (fstat(*fd, &file) != 0 || !S_ISREG(file.st_mode)) {
		code = kvctl_error(KVCTL_USAGE, "%s is not a file: a backup is one", path);
	} else if (seal_read(*fd, facts, why, sizeof why) != 0) {
		code = kvctl_error(KVCTL_CORRUPT, "%s: %s", path, why);
	} else {
		progress_start(&progress, !kvctl->quiet, facts->data_bytes);
		int error = seal_sum(*fd, facts->data_bytes, &crc, offline_summed, &progress);
		(void)progress_stop(&progress);
		if (error == ECANCELED) {
			code = offline_interrupted(path);
		} else if (error != 0) {
			code = kvctl_error(KVCTL_NO, "cannot read %s: %s", path, strerror(error));
		} else if (crc != facts->data_crc) {
			code = kvctl_error(KVCTL_CORRUPT,
					   "%s: its checksum is wrong: the backup is damaged",
					   path);
		}
	}
	if (code != KVCTL_OK) {
		(void)close(*fd);
		*fd = -1;
	}
	return code;
}

static void offline_waits(void *context, const char *text)
{
	(void)kvctl_error(KVCTL_OK, "%s: %s", (const char *)context, text);
}

int offline_lock(const char *dir, bool reads, int *fd)
{
	const struct dirlock_patience patience = { .tell = offline_waits,
						   .context = (void *)(uintptr_t)dir };
	char why[512];
	char path[4096];
	struct stat folder;
	struct stat lock;
	*fd = -1;
	if (stat(dir, &folder) != 0) {
		return kvctl_error(KVCTL_USAGE, "%s: %s", dir, strerror(errno));
	}
	(void)snprintf(path, sizeof path, "%s/kvd.lock", dir);
	bool made = stat(path, &lock) != 0;
	*fd = dirlock_take(dir, &patience, why, sizeof why);
	if (*fd < 0 && errno == EROFS && reads) {
		made = false;
		*fd = dirlock_look(dir, why, sizeof why);
	}
	if (*fd < 0) {
		return kvctl_error(errno == EWOULDBLOCK ? KVCTL_NO : KVCTL_USAGE, "%s", why);
	}
	// Made by root, it would keep kvd's own user from starting.
	if (made && fchown(*fd, folder.st_uid, folder.st_gid) != 0 && geteuid() == 0) {
		return kvctl_error(KVCTL_USAGE, "%s: %s", path, strerror(errno));
	}
	return KVCTL_OK;
}
