// SPDX-License-Identifier: MIT
//
// A store without its kvd: a data folder that is locked for as long as it is looked at, or a
// backup. What reads the store is a child, so that a damaged file can do no more than end it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/storage/seal.h"

struct cJSON;
struct kvctl;

/// Reads all of the store in the data folder `dir`, or (`dir` NULL) of the first `file_bytes` bytes
/// of `file`. Returns KVCTL_OK or KVCTL_CORRUPT with *result, which the caller deletes: the members
/// that KVD.VERIFY gives of a store. Else the exit code after saying the error.
int offline_verify(struct kvctl *kvctl, const char *dir, const char *file, uint64_t file_bytes,
		   struct cJSON **result);

/// Opens a backup and looks at its seal and its checksum. Returns KVCTL_OK with *fd open, or the
/// exit code after saying what is wrong with it.
int offline_backup_open(struct kvctl *kvctl, const char *path, int *fd, struct seal_facts *facts);

/// Takes the lock of a data folder that is there, so that no kvd starts on it; `reads`: and where
/// nothing can be written, so that none is writing. Returns KVCTL_OK with *fd, or the exit code
/// after saying who has it.
int offline_lock(const char *dir, bool reads, int *fd);
