// SPDX-License-Identifier: MIT
//
// kvctl's end of a job of kvd (KVD.BACKUP, KVD.VERIFY): begins it, shows how far it is, cancels it
// on a signal, and brings the result.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;
struct kvctl;

/// Runs `command` with `name` (NULL = none) and waits for its end. Returns KVCTL_OK with *result,
/// which the caller deletes, or the exit code after saying the error.
int job_run(struct kvctl *kvctl, const char *command, const char *name, struct cJSON **result);

/// From now on a first SIGINT or SIGTERM is remembered, and a second one ends kvctl; a file size
/// limit is an error of a write. False after saying why not.
bool job_watch_signals(void);
/// Has one come?
bool job_interrupted(void);

/// Member `name` of an object as a number; 0 if there is none.
double job_number(const struct cJSON *object, const char *name);
