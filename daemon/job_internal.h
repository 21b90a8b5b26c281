// SPDX-License-Identifier: MIT
//
// One job from inside, for job*.c: what it was given by the loop when it began, the words by which
// both talk, and what it found.
#pragma once

#include <sys/types.h>

#include "daemon/job.h"
#include "daemon/keyspace_follow.h"
#include "daemon/region_walk.h"
#include "daemon/text.h"
#include "shm/log.h"

#define JOB_ERROR_BYTES 768u
#define JOB_RESULT_BYTES_MAX (1u << 20)

enum job_phase {
	JOB_BEGINNING,
	JOB_WRITING,
	JOB_READING_BACK,
	JOB_SEALING,
	JOB_READING_MEMORY,
	JOB_READING_STORE,
	JOB_LOOKING_AGAIN,
};

enum job_store { JOB_STORE_NONE, JOB_STORE_GOOD, JOB_STORE_FAILED };

struct job {
	enum job_kind kind;
	// Of the loop, before the thread starts.
	const struct seam *seam;
	struct persist *persist; // NULL = none
	const struct kvs_log *log;
	char *dir; // the data folder, absolute
	char name[JOB_NAME_BYTES_MAX + 1];
	struct region_walk walk; // map, slot, hot, fenced
	uint64_t hash_seed;	 // of the comparison's own: the table's may change meanwhile
	uint64_t instance_id;
	uint64_t durable_seq;
	enum job_store store;
	struct kvs_log_position from; // backup: the log goes on here
	uint64_t seq;		      // backup: the last version before that
	uint64_t begun_ns;
	struct keyspace_follower follower;

	// Words of both.
	uint64_t cancelled;   // by the loop, relaxed
	uint64_t asked_ns;    // when somebody last asked; by the loop, relaxed
	uint64_t phase;	      // by the thread, relaxed: enum job_phase
	uint64_t done_bytes;  // by the thread, relaxed
	uint64_t total_bytes; // by the thread, relaxed
	uint64_t over;	      // by the thread, release: what follows may be read

	// The thread's, until it is over.
	bool good;
	char error[JOB_ERROR_BYTES];
	struct text result;
	char *made;		 // backup: its path; NULL = none, or memory is short
	uint64_t memory_damaged; // verify: places found
	uint64_t store_damaged;	 // verify: the same
	const char *remedy;	 // verify: for them, static; NULL = none is needed
};

/// Must it end? Then the reason is in job->error.
bool job_must_stop(struct job *job);
/// Sets job->error; returns false.
bool job_fail(struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
/// What it is about now, for those who ask.
void job_phase(struct job *job, enum job_phase phase, uint64_t total_bytes);
void job_progress(struct job *job, uint64_t done_bytes);

/// The jobs themselves: true with `result` filled (the members of a JSON object), or false with
/// `error`.
bool job_backup(struct job *job);
/// Removes what is unfinished in the folder of backups of the data folder `dir`: a kvd was killed
/// in the middle; and what was to be taken away (JOB_FETCH_ENDING) and was not within a minute
/// before `wall_ms`, or at all if that is 0: a kvctl was killed. No backup may be under way. Nobody
/// else writes there: the folder is locked.
void job_backup_tidy(const char *dir, uint64_t wall_ms);
bool job_verify(struct job *job);

// ---- job_child.c ----

/// A child that reads a store (daemon/storage/verify.h).
struct job_child {
	struct job *job;
	/// Gets each line but progress, without its newline; may cut it up.
	void (*line)(void *context, char *line);
	void *context;
	pid_t pid;
	int input_fd; // write what is expected here; -1 = none is wanted
	int output_fd;
};

/// Starts it for the store in `dir`, `how` as in store_verify_child(). False with job->error.
bool job_child_begin(struct job_child *child, const char *dir, const char *how);
/// Sends it bytes; false if it is not there to read them any more.
bool job_child_send(struct job_child *child, const void *data, size_t bytes);
#define JOB_CHILD_CRASHED (-2)

/// Reads all that it says, until it is over. Returns its enum verify_code, or with job->error
/// JOB_CHILD_CRASHED: it died of what it read; or -1: it was cut off.
int job_child_finish(struct job_child *child);
/// Ends it, whatever it is doing. Nothing if it was finished.
void job_child_kill(struct job_child *child);
