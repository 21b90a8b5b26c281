// SPDX-License-Identifier: MIT
//
// A backup: a store of one moment, written from memory whatever the policy is, read back by a child
// and sealed. As with a store that is written anew (persist_renew.c) the table is walked for the
// versions up to where the log stood at the beginning, and the log is followed from there; the
// moment is where the log ends when the walk is over, and not before what the walk met. No snapshot
// of LMDB is held, so the store does not grow; what the log must keep meanwhile is bounded
// (keyspace_follow.h).
//
// It is written to DIR/backup, since kvd may be able to write nowhere else, in a folder whose name
// ends in .new; only what is complete gets its name. kvctl takes it from there.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/job_internal.h"
#include "daemon/log.h"
#include "daemon/persist.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/storage/seal.h"
#include "daemon/storage/store.h"
#include "daemon/storage/store_read.h"
#include "daemon/storage/verify.h"
#include "shm/atomics.h"

#define BACKUP_COMMIT_BYTES (UINT64_C(8) << 20)
#define BACKUP_PATH_BYTES 4096u
#define BACKUP_FETCH_MS 60000u // long enough to open what is complete
#define BACKUP_NAMES_MAX 100u  // of one second

struct backup {
	struct job *job;
	struct store *store;
	struct store_reader *cold;  // of the store that kvd serves; NULL = there is none
	struct kvs_log_position at; // of the log
	uint64_t seq;		    // taken from it so far, or the beginning's
	uint64_t log_bytes;
	uint64_t records;
	uint64_t keys;
	uint64_t data_bytes;
	char folder[BACKUP_PATH_BYTES];
	char work[BACKUP_PATH_BYTES];
	char data[BACKUP_PATH_BYTES]; // in it
	char final[BACKUP_PATH_BYTES];
	char damage[256]; // the first, of the reading back
};

// ---- folders ----

static void remove_work(const char *work)
{
	static const char *const names[] = { "store/data.mdb", "store/lock.mdb", "store", "" };
	char path[BACKUP_PATH_BYTES + 32];
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", work, names[i]);
		// What cannot be has a name that tells what it is; the next one tries again.
		(void)remove(path);
	}
}

static bool ends_in(const char *name, const char *ending)
{
	size_t length = strlen(name);
	size_t ending_length = strlen(ending);
	return length > ending_length && strcmp(name + length - ending_length, ending) == 0;
}

// Whoever had it made to take it away opens it as soon as it is complete; from then on the name is
// of no use to him.
static bool is_forgotten(const char *path, uint64_t wall_ms)
{
	struct stat facts;
	return stat(path, &facts) == 0 && S_ISREG(facts.st_mode) &&
	       (wall_ms == 0 || (uint64_t)facts.st_mtime * 1000 + BACKUP_FETCH_MS < wall_ms);
}

void job_backup_tidy(const char *dir, uint64_t wall_ms)
{
	char at[BACKUP_PATH_BYTES];
	char path[BACKUP_PATH_BYTES];
	int bytes = snprintf(at, sizeof(at), "%s/backup", dir);
	DIR *folder = bytes > 0 && (size_t)bytes < sizeof(at) ? opendir(at) : NULL;
	const struct dirent *entry;
	while (folder != NULL && (entry = readdir(folder)) != NULL) {
		if (snprintf(path, sizeof(path), "%s/%s", at, entry->d_name) >= (int)sizeof(path)) {
			continue;
		}
		if (ends_in(entry->d_name, ".new")) {
			log_notice("removing %s, a backup that was cut off", path);
			remove_work(path);
		} else if (ends_in(entry->d_name, JOB_FETCH_ENDING) &&
			   is_forgotten(path, wall_ms)) {
			log_notice("removing %s, a backup that nobody came for", path);
			(void)unlink(path); // if it cannot be, the next one tries again
		}
	}
	if (folder != NULL) {
		(void)closedir(folder);
	}
}

static bool join(struct job *job, char to[BACKUP_PATH_BYTES], const char *folder, const char *name,
		 const char *ending)
{
	int length = snprintf(to, BACKUP_PATH_BYTES, "%s/%s%s", folder, name, ending);
	return (length > 0 && (size_t)length < BACKUP_PATH_BYTES) ||
	       job_fail(job, "the path of the data folder is too long");
}

static bool name_paths(struct backup *backup, const char *name)
{
	struct job *job = backup->job;
	return join(job, backup->work, backup->folder, name, ".new") &&
	       join(job, backup->data, backup->work, "store/data.mdb", "") &&
	       join(job, backup->final, backup->folder, name, "");
}

// Named by the time, and by a number if there is one of this second.
static bool name_by_time(struct backup *backup)
{
	struct job *job = backup->job;
	struct stat facts;
	char when[32];
	char name[JOB_NAME_BYTES_MAX];
	time_t now = (time_t)(job->seam->wall_ms() / 1000);
	struct tm parts;
	if (gmtime_r(&now, &parts) == NULL ||
	    strftime(when, sizeof(when), "kvd-%Y%m%dT%H%M%SZ", &parts) == 0) {
		return job_fail(job, "the clock cannot be read");
	}
	(void)snprintf(name, sizeof(name), "%s.backup", when);
	for (unsigned i = 2; i < BACKUP_NAMES_MAX; i++) {
		if (!name_paths(backup, name)) {
			return false;
		}
		if (stat(backup->final, &facts) != 0) {
			return true;
		}
		(void)snprintf(name, sizeof(name), "%s-%u.backup", when, i);
	}
	return job_fail(job, "%s is there already", backup->final);
}

static bool make_folders(struct backup *backup)
{
	struct job *job = backup->job;
	struct stat facts;
	if (!join(job, backup->folder, job->dir, "backup", "")) {
		return false;
	}
	if (mkdir(backup->folder, 0700) != 0 && errno != EEXIST) {
		return job_fail(job, "cannot create %s: %s; %s", backup->folder, strerror(errno),
				remedy_of_errno(errno));
	}
	job_backup_tidy(job->dir, job->seam->wall_ms());
	if (job->name[0] == '\0') {
		return name_by_time(backup);
	}
	return name_paths(backup, job->name) &&
	       (stat(backup->final, &facts) != 0 ||
		job_fail(job, "%s is there already", backup->final));
}

// ---- writing ----

static bool store_failed(const struct backup *backup)
{
	return job_fail(backup->job, "%s", store_why(backup->store));
}

// A transaction's worth of the log. *more: there is more up to `end`.
static int follow_some(struct backup *backup, struct kvs_log_position end, bool *more)
{
	const struct job *job = backup->job;
	struct kvs_record_view view;
	uint64_t bytes = 0;
	int result = store_begin(backup->store);
	*more = true;
	while (result == STORE_OK && bytes < BACKUP_COMMIT_BYTES &&
	       (*more = kvs_log_follow(job->log, &backup->at, end, &view))) {
		const void *value;
		uint64_t place;
		backup->seq = view.seq;
		if (region_large_value(job->walk.map, &view, &value)) {
			result = store_append(backup->store, &view, value, &place);
			bytes += view.record_bytes + (value != NULL ? view.value_bytes : 0u);
		}
	}
	backup->log_bytes += bytes;
	// Release: all of it is read (partner: keyspace_passed_seq()).
	kvs_store_release(&backup->job->follower.passed_seq, backup->seq);
	return result == STORE_OK ? store_commit(backup->store, 0) : result;
}

// The log up to what is published now.
static bool follow(struct backup *backup, const struct table_copy *copy)
{
	struct job *job = backup->job;
	struct kvs_log_position end = kvs_log_published(job->log);
	bool more = end.segment != backup->at.segment || end.offset != backup->at.offset;
	while (more) {
		if (follow_some(backup, end, &more) != STORE_OK) {
			return store_failed(backup);
		}
		job_progress(job, copy->bytes + backup->log_bytes);
		if (job_must_stop(job)) {
			return false;
		}
	}
	return (backup->at.segment == end.segment && backup->at.offset == end.offset) ||
	       job_fail(job, "the log in memory is damaged: save the data with kvctl dump and "
			     "restart kvd");
}

static bool write_all(struct backup *backup)
{
	struct job *job = backup->job;
	struct table_copy copy = {
		.walk = job->walk,
		.store = backup->store,
		.cold = backup->cold,
		.upto_seq = job->seq,
	};
	while (!copy.walk.done) {
		if (job_must_stop(job)) {
			return false;
		}
		if (table_copy_some(&copy) != STORE_OK) {
			return copy.unreadable != NULL ? job_fail(job, "%s", copy.unreadable)
						       : store_failed(backup);
		}
		if (!follow(backup, &copy)) {
			return false;
		}
	}
	// What was published when the walk was over is the moment, but not before what it met.
	enum table_copy_reach reach;
	do {
		if (job_must_stop(job) || !follow(backup, &copy)) {
			return false;
		}
		reach = table_copy_reach(&copy, backup->seq);
	} while (reach == TABLE_COPY_NOT_YET);
	if (reach == TABLE_COPY_NEVER) {
		return job_fail(job, "memory has versions that were never published: save the "
				     "data with kvctl dump and restart kvd");
	}
	int result = store_begin(backup->store);
	if (result == STORE_OK) {
		result = region_put_writers(job->walk.map->base, backup->store);
	}
	if (result == STORE_OK) {
		result = store_commit(backup->store, backup->seq);
	}
	return result == STORE_OK || store_failed(backup);
}

// Values that are in the store alone come from there.
static bool open_cold(struct backup *backup)
{
	struct job *job = backup->job;
	if (job->persist == NULL) {
		return true;
	}
	int result =
		store_reader_open(&backup->cold, persist_store(job->persist), STORE_READER_JOB);
	return result == STORE_OK || job_fail(job, "out of memory");
}

static bool write_store(struct backup *backup)
{
	struct job *job = backup->job;
	char why[512];
	struct store_options options = { .dir = backup->work, .instance_id = job->instance_id };
	if (store_open(&backup->store, &options, why, sizeof(why)) != STORE_OK) {
		return job_fail(job, "%s", why);
	}
	bool good = open_cold(backup) && write_all(backup);
	if (backup->cold != NULL) {
		store_reader_close(backup->cold);
	}
	store_close(backup->store);
	// Release: the log is not read any more.
	kvs_store_release(&job->follower.passed_seq, UINT64_MAX);
	return good;
}

// ---- reading back, sealing ----

static void read_back_line(void *context, char *line)
{
	struct backup *backup = context;
	unsigned long long blocks;
	unsigned long long records;
	unsigned long long bytes;
	unsigned long long keys;
	if (strncmp(line, "damage ", 7) == 0 || strncmp(line, "failed ", 7) == 0) {
		if (backup->damage[0] == '\0') {
			(void)snprintf(backup->damage, sizeof(backup->damage), "%s", line);
		}
	} else if (sscanf(line, "done %llu %llu %llu %llu", &blocks, &records, &bytes, &keys) ==
		   4) {
		backup->records = records;
		backup->keys = keys;
	}
}

// From the device, not from the page cache.
static bool read_back(struct backup *backup)
{
	struct job *job = backup->job;
	struct job_child child = { .job = job, .line = read_back_line, .context = backup };
	int fd = open(backup->data, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0) {
		int error = errno;
		(void)close(fd);
		return job_fail(job, "cannot sync %s: %s; %s", backup->data, strerror(error),
				remedy_of_errno(error));
	}
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); // a hint
	(void)close(fd);
	job_phase(job, JOB_READING_BACK, 0);
	if (!job_child_begin(&child, backup->work, "alone")) {
		return false;
	}
	int code = job_child_finish(&child);
	if (code < 0) {
		return false;
	}
	return code == VERIFY_GOOD ||
	       job_fail(job,
			"what was written cannot be read back: %s; kvctl verify tells whether "
			"memory is damaged, else it is the disk of %s",
			backup->damage[0] != '\0' ? backup->damage : "no reason is known",
			backup->folder);
}

static bool sum_told(void *context, uint64_t done)
{
	struct job *job = context;
	job_progress(job, done);
	return !job_must_stop(job);
}

static bool seal(struct backup *backup)
{
	struct job *job = backup->job;
	struct stat file;
	int fd = open(backup->data, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &file) != 0) {
		int error = errno;
		(void)close(fd);
		return job_fail(job, "cannot open %s: %s", backup->data, strerror(error));
	}
	backup->data_bytes = (uint64_t)file.st_size;
	struct seal_facts facts = {
		.data_bytes = backup->data_bytes,
		.instance_id = job->instance_id,
		.durable_seq = backup->seq,
		.keys = backup->keys,
		.records = backup->records,
		.created_ms = job->seam->wall_ms(),
	};
	(void)snprintf(facts.kvd_version, sizeof(facts.kvd_version), "%s", KVD_VERSION);
	job_phase(job, JOB_SEALING, backup->data_bytes);
	int error = seal_sum(fd, backup->data_bytes, &facts.data_crc, sum_told, job);
	if (error == 0) {
		error = seal_write(fd, &facts);
	}
	if (close(fd) != 0 && error == 0) {
		error = errno;
	}
	if (error == ECANCELED) {
		return false;
	}
	return error == 0 || job_fail(job, "cannot seal %s: %s; %s", backup->data, strerror(error),
				      remedy_of_errno(error));
}

// 0 or errno.
static int sync_folder(const struct job *job, const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		return errno;
	}
	int error = job->seam->fsync(fd) == 0 ? 0 : errno;
	(void)close(fd);
	return error;
}

// The data folder too: DIR/backup itself may be new, by this backup or one that failed.
static bool publish(struct backup *backup)
{
	struct job *job = backup->job;
	int error = sync_folder(job, job->dir);
	// The name was free, and nobody else writes in this folder.
	if (error == 0 && job->seam->rename(backup->data, backup->final) != 0) {
		error = errno;
	}
	if (error == 0) {
		error = sync_folder(job, backup->folder);
	}
	if (error != 0) {
		(void)unlink(backup->final);
		return job_fail(job, "cannot name it %s: %s; %s", backup->final, strerror(error),
				remedy_of_errno(error));
	}
	return true;
}

bool job_backup(struct job *job)
{
	struct backup backup = { .job = job, .at = job->from, .seq = job->seq };
	job_phase(job, JOB_WRITING, kvs_load_relaxed(&job->total_bytes));
	bool good = make_folders(&backup) && write_store(&backup) && read_back(&backup) &&
		    seal(&backup) && publish(&backup);
	kvs_store_release(&job->follower.passed_seq, UINT64_MAX); // whatever happened
	if (backup.work[0] != '\0') {
		remove_work(backup.work);
	}
	if (!good) {
		return false;
	}
	job->made = strdup(backup.final); // for the log; without memory it says less
	double seconds = (double)(job->seam->monotonic_ns() - job->begun_ns) / 1e9;
	text_printf(&job->result, "\"file\":");
	text_json_string(&job->result, backup.final);
	text_printf(&job->result,
		    ",\"bytes\":%llu,\"keys\":%llu,\"records\":%llu,\"version\":%llu,"
		    "\"seconds\":%.3f",
		    (unsigned long long)backup.data_bytes + SEAL_BYTES,
		    (unsigned long long)backup.keys, (unsigned long long)backup.records,
		    (unsigned long long)backup.seq, seconds);
	return true;
}
