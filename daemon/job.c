// SPDX-License-Identifier: MIT
//
// The thread and the words between it and the loop.
#include "daemon/job.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/job_internal.h"
#include "daemon/keyspace.h"
#include "daemon/keyspace_create.h"
#include "daemon/kvd.h"
#include "daemon/log.h"
#include "daemon/persist.h"
#include "daemon/readers.h"
#include "daemon/remedy.h"
#include "daemon/seam.h"
#include "daemon/storage/map_guard.h"
#include "shm/counters.h"
#include "shm/table.h"

struct jobs {
	struct kvd *kvd;
	struct kvs_slot *slot; // NULL = not asked for yet
	bool fenced;
	pthread_t thread;
	bool started;	 // there is a thread to join
	struct job *job; // the last one, NULL = none yet
};

static const char *const job_names[] = {
	[JOB_BACKUP] = "backup",
	[JOB_VERIFY] = "verification",
};

static const char *const phase_names[] = {
	[JOB_BEGINNING] = "beginning",		 [JOB_WRITING] = "writing",
	[JOB_READING_BACK] = "reading it back",	 [JOB_SEALING] = "sealing it",
	[JOB_READING_MEMORY] = "reading memory", [JOB_READING_STORE] = "reading the store",
	[JOB_LOOKING_AGAIN] = "looking again",
};

// ---- for the job's thread ----

bool job_fail(struct job *job, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	if (job->error[0] == '\0') { // the first reason is the one that counts
		(void)vsnprintf(job->error, sizeof(job->error), format, args);
	}
	va_end(args);
	return false;
}

bool job_must_stop(struct job *job)
{
	// Relaxed: words that stand for themselves (partner: the loop).
	if (kvs_load_relaxed(&job->cancelled) != 0) {
		(void)job_fail(job, "cancelled");
	} else if (kvs_load_relaxed(&job->follower.give_up) != 0) {
		(void)job_fail(job,
			       "writes come faster than the disk takes the backup: given up, so "
			       "that nobody waits; try again when less is written, or give kvd "
			       "more --memory");
	} else if (job->seam->monotonic_ns() > kvs_load_relaxed(&job->asked_ns) + JOB_LEASE_NS) {
		(void)job_fail(job, "cancelled: nobody asks for it any more");
	} else {
		return false;
	}
	return true;
}

void job_progress(struct job *job, uint64_t done_bytes)
{
	kvs_store_relaxed(&job->done_bytes, done_bytes); // for who asks
}

void job_phase(struct job *job, enum job_phase phase, uint64_t total_bytes)
{
	// Relaxed: for who asks.
	kvs_store_relaxed(&job->phase, phase);
	kvs_store_relaxed(&job->total_bytes, total_bytes);
	job_progress(job, 0);
}

static void *job_main(void *argument)
{
	struct job *job = argument;
	sigset_t all;
	sigfillset(&all);
	map_guard_unblock(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, NULL);
	(void)pthread_setname_np(pthread_self(), "kvd-job");
	job->good = job->kind == JOB_BACKUP ? job_backup(job) : job_verify(job);
	// Release: result and error (partner: is_over()).
	kvs_store_release(&job->over, 1);
	return NULL;
}

// ---- for the loop ----

static bool is_over(const struct job *job)
{
	return kvs_load_acquire(&job->over) != 0; // partner: job_main()
}

struct jobs *jobs_create(struct kvd *kvd)
{
	struct jobs *jobs = calloc(1, sizeof(*jobs));
	if (jobs != NULL) {
		jobs->kvd = kvd;
		job_backup_tidy(kvd->config.dir, 0);
	}
	return jobs;
}

static void job_free(struct job *job)
{
	if (job != NULL) {
		text_fini(&job->result);
		free(job->made);
		free(job->dir);
		free(job);
	}
}

// Damage is said and counted; a store that memory can replace is not trusted any more.
static void conclude(const struct jobs *jobs)
{
	const struct kvd *kvd = jobs->kvd;
	const struct job *job = jobs->job;
	if (job->remedy == NULL) {
		return;
	}
	char why[160];
	void *base = job->walk.map->base;
	kvs_count(kvs_counter_word(base, KVS_COUNTER_verify_damaged_store), job->store_damaged);
	kvs_count(kvs_counter_word(base, KVS_COUNTER_verify_damaged_memory), job->memory_damaged);
	(void)snprintf(why, sizeof(why),
		       "a verification found %llu damaged places in the store, %llu in memory",
		       (unsigned long long)job->store_damaged,
		       (unsigned long long)job->memory_damaged);
	log_error("%s; %s", why, job->remedy);
	if (job->memory_damaged == 0 && kvd->persist != NULL) {
		persist_distrust(kvd->persist, why);
	}
}

static void join(struct jobs *jobs)
{
	if (!jobs->started) {
		return;
	}
	(void)pthread_join(jobs->thread, NULL); // ours, and not joined before
	jobs->started = false;
	if (jobs->job->kind == JOB_BACKUP) {
		keyspace_unfollow(jobs->kvd->keyspace);
	}
	if (jobs->job->good) {
		log_notice("a %s is done%s%s", job_names[jobs->job->kind],
			   jobs->job->made != NULL ? ": " : "",
			   jobs->job->made != NULL ? jobs->job->made : "");
		conclude(jobs);
	} else {
		log_warning("a %s failed: %s", job_names[jobs->job->kind], jobs->job->error);
	}
}

void jobs_turn(struct jobs *jobs)
{
	if (jobs != NULL && jobs->started && is_over(jobs->job)) {
		join(jobs);
	}
}

void jobs_destroy(struct jobs *jobs)
{
	if (jobs == NULL) {
		return;
	}
	if (jobs->started) {
		kvs_store_relaxed(&jobs->job->cancelled, 1); // partner: job_must_stop()
	}
	join(jobs);
	job_free(jobs->job);
	free(jobs);
}

static void take_store_state(const struct kvd *kvd, struct job *job)
{
	const char *why;
	job->store = JOB_STORE_NONE;
	if (kvd->persist != NULL) {
		bool failed = persist_state(kvd->persist, &why) == PERSIST_STATE_FAILED;
		job->store = failed ? JOB_STORE_FAILED : JOB_STORE_GOOD;
	}
}

// 0 or errno; ENOMEM or what the data folder's path failed with.
static int fill(struct jobs *jobs, struct job *job)
{
	struct kvd *kvd = jobs->kvd;
	const struct kvs_map *map = keyspace_map(kvd->keyspace);
	uint64_t now_ns = kvd->seam->monotonic_ns();
	job->seam = kvd->seam;
	job->persist = kvd->persist;
	job->log = keyspace_log(kvd->keyspace);
	job->walk = (struct region_walk){
		.map = map,
		.slot = jobs->slot,
		.hot = &kvs_map_header(map)->hot,
		.fenced = jobs->fenced,
	};
	kvd->seam->random_bytes(&job->hash_seed, sizeof(job->hash_seed));
	job->instance_id = kvd->instance_id;
	job->durable_seq = keyspace_durable_seq(kvd->keyspace);
	job->total_bytes = keyspace_live_bytes(kvd->keyspace);
	job->begun_ns = now_ns;
	job->asked_ns = now_ns;
	job->dir = realpath(kvd->config.dir, NULL);
	int error = job->dir != NULL ? 0 : errno;
	take_store_state(kvd, job);
	text_init(&job->result, JOB_RESULT_BYTES_MAX);
	return error;
}

static bool start(struct jobs *jobs, struct job *job, char *why, size_t why_bytes)
{
	if (job->kind == JOB_BACKUP) {
		// There is no other follower: there is no other job.
		(void)keyspace_follow(jobs->kvd->keyspace, &job->follower, &job->from, &job->seq);
	}
	int error = pthread_create(&jobs->thread, NULL, job_main, job);
	if (error != 0) {
		if (job->kind == JOB_BACKUP) {
			keyspace_unfollow(jobs->kvd->keyspace);
		}
		(void)snprintf(why, why_bytes, "cannot start a thread: %s; %s", strerror(error),
			       remedy_of_errno(error));
		return false;
	}
	jobs->started = true;
	return true;
}

bool jobs_begin(struct jobs *jobs, enum job_kind kind, const char *name, char *why,
		size_t why_bytes)
{
	jobs_turn(jobs);
	if (jobs->started) {
		(void)snprintf(why, why_bytes,
			       "a %s is under way: wait for it, or end it with %s CANCEL",
			       job_names[jobs->job->kind],
			       jobs->job->kind == JOB_BACKUP ? "KVD.BACKUP" : "KVD.VERIFY");
		return false;
	}
	if (jobs->slot == NULL) {
		jobs->slot = readers_own_slot(jobs->kvd->readers);
		jobs->fenced = region_walk_must_fence(keyspace_map(jobs->kvd->keyspace));
	}
	struct job *job = calloc(1, sizeof(*job));
	int error = job == NULL || jobs->slot == NULL ? ENOMEM : fill(jobs, job);
	if (error == ENOMEM) {
		(void)snprintf(why, why_bytes, "out of memory");
	} else if (error != 0) {
		(void)snprintf(why, why_bytes,
			       "the data folder %s cannot be found: %s; bring it back, or save the "
			       "data with kvctl dump and restart kvd",
			       jobs->kvd->config.dir, strerror(error));
	}
	if (error != 0) {
		job_free(job);
		return false;
	}
	job->kind = kind;
	(void)snprintf(job->name, sizeof(job->name), "%s", name != NULL ? name : "");
	if (!start(jobs, job, why, why_bytes)) {
		job_free(job);
		return false;
	}
	job_free(jobs->job);
	jobs->job = job;
	return true;
}

void jobs_tell(struct jobs *jobs, enum job_kind kind, struct text *text)
{
	jobs_turn(jobs);
	struct job *job = jobs->job;
	if (job == NULL || job->kind != kind) {
		text_printf(text, "{\"state\":\"none\"}");
		return;
	}
	// Relaxed: single values (partner: job_must_stop(), job_progress()).
	kvs_store_relaxed(&job->asked_ns, jobs->kvd->seam->monotonic_ns());
	if (!is_over(job)) {
		text_printf(text,
			    "{\"state\":\"running\",\"phase\":\"%s\",\"done_bytes\":%llu,"
			    "\"total_bytes\":%llu}",
			    phase_names[kvs_load_relaxed(&job->phase)],
			    (unsigned long long)kvs_load_relaxed(&job->done_bytes),
			    (unsigned long long)kvs_load_relaxed(&job->total_bytes));
		return;
	}
	text_printf(text, "{\"state\":\"%s\"", job->good ? "done" : "failed");
	if (job->good) {
		text_printf(text, ",\"result\":{");
		text_add(text, job->result.data, job->result.bytes);
		text_printf(text, "}");
	} else {
		text_printf(text, ",\"error\":");
		text_json_string(text, job->error);
	}
	text_printf(text, "}");
}

void jobs_cancel(struct jobs *jobs, enum job_kind kind)
{
	if (jobs->started && jobs->job->kind == kind) {
		kvs_store_relaxed(&jobs->job->cancelled, 1); // partner: job_must_stop()
	}
}
