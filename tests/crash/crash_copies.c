// SPDX-License-Identifier: MIT
//
// See the header. The few functions of kvctl.c and job.c that kvctl's verb calls are here.
#include "tests/crash/crash_copies.h"

#include <sys/stat.h>

#include "daemon/job_internal.h"
#include "daemon/keyspace_follow.h"
#include "daemon/storage/seal.h"
#include "tests/crash/crash_check.h"
#include "tools/job.h"
#include "tools/kvctl.h"

// ---- in the place of kvctl ----------------------------------------------------------------------

__attribute__((format(printf, 2, 3))) int kvctl_error(int code, const char *format, ...)
{
	char text[1024];
	va_list args;
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	tap_diag("kvctl: %s", text);
	return code;
}

__attribute__((format(printf, 3, 4))) int kvctl_remark(const struct kvctl *kvctl, int code,
						       const char *format, ...)
{
	(void)kvctl;
	(void)format;
	return code;
}

bool job_watch_signals(void)
{
	return true;
}

bool job_interrupted(void)
{
	return false;
}

// ---- backups ------------------------------------------------------------------------------------

static bool run_job(struct script *script, struct job *job)
{
	struct life *life = &script->life;
	const struct kvs_map *map = keyspace_map(life->keyspace);
	job->kind = JOB_BACKUP;
	job->seam = &seam_system;
	job->log = keyspace_log(life->keyspace);
	job->dir = realpath(script->options.dir, NULL);
	job->walk = (struct region_walk){
		.map = map,
		.slot = &life->page->slot[1], // 0 is the persister's
		.hot = &kvs_map_header(map)->hot,
		.fenced = region_walk_must_fence(map),
	};
	job->instance_id = 77;
	job->asked_ns = UINT64_MAX / 2; // somebody always wants it
	text_init(&job->result, JOB_RESULT_BYTES_MAX);
	bool good = job->dir != NULL &&
		    keyspace_follow(life->keyspace, &job->follower, &job->from, &job->seq) &&
		    job_backup(job);
	keyspace_unfollow(life->keyspace);
	text_fini(&job->result);
	free(job->made);
	free(job->dir);
	return good;
}

bool script_backup(struct script *script)
{
	static struct job job;
	if (script->backups_count == SCRIPT_BACKUPS_MAX) {
		return true;
	}
	unsigned number = script->backups_count++;
	struct script_backup *backup = &script->backups[number];
	char folder[SCRIPT_FOLDER_BYTES];
	memcpy(folder, script->eras[script->restores].folder, sizeof(folder));
	job = (struct job){ 0 };
	(void)snprintf(job.name, sizeof(job.name), "b%u.backup", number);
	(void)snprintf(backup->path, sizeof(backup->path), "%s/backup/b%u.backup", folder, number);
	backup->seq = keyspace_last_seq(script->life.keyspace);
	script_history_copy(&backup->history, &script->history);
	script_rare(script, true);
	bool good = run_job(script, &job);
	if (!good) {
		tap_diag("a backup: %s", job.error);
	} else if (script->record != NULL) {
		script->record->promise.backups = script->backups_count;
	}
	script_rare(script, false);
	return good;
}

const char *script_backup_check(const struct script_backup *backup, const char *root)
{
	static char why[512];
	char path[FIXTURE_PATH_BYTES + SCRIPT_BACKUP_PATH_BYTES + 1];
	struct seal_facts facts;
	struct store *store;
	uint32_t crc = 0;
	(void)snprintf(path, sizeof(path), "%s/%s", root, backup->path);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return "a backup that was complete is not there";
	}
	bool sealed = seal_read(fd, &facts, why, sizeof(why)) == 0;
	bool read = sealed && seal_sum(fd, facts.data_bytes, &crc, NULL, NULL) == 0;
	(void)close(fd);
	if (!sealed) {
		return why;
	}
	if (!read || crc != facts.data_crc || facts.durable_seq != backup->seq) {
		return "a backup has its name and is not whole";
	}
	struct store_options options = { .file = path, .read_only = true };
	if (store_open(&store, &options, why, sizeof(why)) != STORE_OK) {
		return why;
	}
	const char *wrong = crash_check_store(store, &backup->history);
	store_close(store);
	return wrong;
}

// ---- restores -----------------------------------------------------------------------------------

static bool restore(const struct script_era *era, const char *root)
{
	char backup[FIXTURE_PATH_BYTES + SCRIPT_BACKUP_PATH_BYTES + 1];
	char dir[FIXTURE_PATH_BYTES + SCRIPT_FOLDER_BYTES + 1];
	char *arguments[] = { backup, dir, NULL };
	struct kvctl kvctl = {
		.options = { .argument = arguments, .arguments = 2 },
		.quiet = true,
	};
	kvctl.options.value[OPTION_force] = "";
	(void)snprintf(backup, sizeof(backup), "%s/%s", root, era->backup->path);
	(void)snprintf(dir, sizeof(dir), "%s/%s", root, era->folder);
	return cmd_restore(&kvctl) == KVCTL_OK;
}

bool script_restore_again(const struct script *script, unsigned number, const char *root)
{
	return restore(&script->eras[number + 1], root);
}

static void begin_era(struct script *script)
{
	struct script_era *old = &script->eras[script->restores++];
	const struct script_era *era = &script->eras[script->restores];
	old->history = script->history; // its memory too
	script->history = (struct script_history){ 0 };
	script_history_copy(&script->history, &era->backup->history);
	char folder[SCRIPT_FOLDER_BYTES];
	memcpy(folder, era->folder, sizeof(folder));
	(void)snprintf(script->dir, sizeof(script->dir), "%s/%s", script->root, folder);
	if (script->record != NULL) {
		script->record->promise.restores = script->restores;
		script->record->promise.durable_seq = era->backup->seq;
		script->record->promise.submitted_seq = era->backup->seq;
	}
}

bool script_restore(struct script *script)
{
	unsigned next = script->restores + 1;
	if (next == SCRIPT_ERAS_MAX || script->backups_count == 0) {
		return true;
	}
	const struct script_era *old = &script->eras[script->restores];
	struct script_era *era = &script->eras[next];
	era->backup = &script->backups[script->backups_count - 1];
	memcpy(era->folder, old->folder, sizeof(era->folder));
	// In place once: an old store goes aside under a name with a time.
	if (script->restored_in_place || script_pick(script, 2) == 0) {
		(void)snprintf(era->folder, sizeof(era->folder), "data%u", next);
	} else {
		script->restored_in_place = true;
	}
	script_rare(script, true);
	if (script->record != NULL) {
		script->record->promise.restoring = true;
	}
	bool good = restore(era, script->root);
	if (good) {
		begin_era(script);
	}
	if (script->record != NULL) {
		script->record->promise.restoring = false;
	}
	script_rare(script, false);
	return good;
}
