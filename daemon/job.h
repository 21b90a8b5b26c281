// SPDX-License-Identifier: MIT
//
// Work that takes seconds and touches nobody: a backup, a verification. One thread, one job at a
// time, begun and asked about by commands (KVD.BACKUP, KVD.VERIFY). A job lives as long as somebody
// asks how it is: a kvctl that was killed leaves none behind.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jobs;
struct kvd;
struct text;

/// Names of backups that somebody takes away end so; kvd removes what he forgets.
#define JOB_FETCH_ENDING ".fetch"

enum job_kind { JOB_BACKUP, JOB_VERIFY };

/// So long nobody asked: the job is cancelled.
#define JOB_LEASE_NS UINT64_C(10000000000)
#define JOB_NAME_BYTES_MAX 100u

/// NULL if memory is short. `kvd` must outlive it; keyspace and readers must be there, and the data
/// folder locked: a backup that was cut off is removed from it.
struct jobs *jobs_create(struct kvd *kvd);
/// Cancels what is under way, and waits for it. NULL is fine.
void jobs_destroy(struct jobs *jobs);

/// Begins a job; a backup under the name `name` (NULL: from the time). False with `why` filled, if
/// there is one already, or it cannot begin.
/// Thread must: be the loop's, as for all of these.
bool jobs_begin(struct jobs *jobs, enum job_kind kind, const char *name, char *why,
		size_t why_bytes);

/// How the last job of this kind is doing, as JSON: `state` (none, running, done, failed), `phase`,
/// `done_bytes`, `total_bytes`, and, once it is over, `error`, or `result`.
void jobs_tell(struct jobs *jobs, enum job_kind kind, struct text *text);

/// Asks it to end; it is over soon, not now.
void jobs_cancel(struct jobs *jobs, enum job_kind kind);

/// Takes note of a job that is over. Cheap; once a turn.
void jobs_turn(struct jobs *jobs);
