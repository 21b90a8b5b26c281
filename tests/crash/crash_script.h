// SPDX-License-Identifier: MIT
//
// What a kvd is asked to do while its calls are recorded, and what must be there after a crash. A
// script is made from a seed: a few lives, some that end in order and some that do not, with
// commits of each policy, compaction, batches, FLUSHALLs, a store that is written anew, backups
// (crash_copies.h), and restores: each begins an era, with a history of its own.
#pragma once

#include "tests/crash/recorder.h"
#include "tests/daemon/persist_fixture.h"

#define SCRIPT_KEYS 72u
#define SCRIPT_LARGE_BYTES 40000u
#define SCRIPT_BACKUPS_MAX 4u
#define SCRIPT_BACKUP_PATH_BYTES 48u
#define SCRIPT_ERAS_MAX 3u
#define SCRIPT_FOLDER_BYTES 16u

/// Variants of kvd that are known to be wrong. Those that forget a sync are in recorder_faults.
struct script_faults {
	bool acknowledged_early; // before the commit that makes it true
	bool word_kept;		 // a life does not take back that the one before ended in order
	bool trusts_memory;	 // compaction takes what is only in memory for durable
	bool deletes_too_much;	 // it deletes a block that it has not looked at
};

/// What was made of a key: at version `seq` it got this value, or was removed (stamp 0). The seq of
/// a batch's last write stands for all of them.
struct script_version {
	uint64_t seq;
	uint64_t stamp;
	uint32_t bytes;
};

struct script_versions {
	struct script_version *all;
	size_t count;
	size_t capacity;
};

/// All that was ever asked for.
struct script_history {
	struct script_versions keys[SCRIPT_KEYS];
	struct script_versions flushes;
	struct script_versions batches; // `stamp` is the first version, `seq` the last
};

struct script_backup {
	char path[SCRIPT_BACKUP_PATH_BYTES]; // under the root
	uint64_t seq;			     // it is the state as of this version
	struct script_history history;
};

struct script_era {
	char folder[SCRIPT_FOLDER_BYTES];   // of the data, under the root
	const struct script_backup *backup; // it began with that; NULL = with nothing
	struct script_history history;	    // once it is over
};

struct script {
	struct life life;
	struct life_options options;
	struct script_history history; // of this era
	struct script_era eras[SCRIPT_ERAS_MAX];
	unsigned restores; // the number of this era
	bool restored_in_place;
	struct script_backup backups[SCRIPT_BACKUPS_MAX];
	unsigned backups_count; // begun
	const char *root;
	char dir[FIXTURE_PATH_BYTES]; // of the data
	struct script_faults faults;
	struct crash_record *record; // gets what was promised and submitted; may be NULL
	uint64_t random;
	uint64_t stamp;
	unsigned waits; // writes that found no room
	unsigned commits;
	unsigned renewals;
	unsigned compacted; // blocks
};

/// Runs the script of `script->random` under `root`, a folder. Returns false, with a diagnostic, if
/// kvd or kvctl refuses anything: nothing fails here but what a mutant makes fail.
bool script_run(struct script *script, const char *root);

/// Makes ready for lives under `root`; script_run() does it by itself.
void script_prepare(struct script *script, const char *root);
/// Begins a life as kvd does: recovers, and takes back the word of the last one that it ended in
/// order. Bails out if the store cannot be opened. False, with a diagnostic, if the commit fails.
bool script_begin(struct script *script);

/// Random writes on the life as it is, the same as in a script.
void script_write(struct script *script, unsigned writes);
/// A number below `below`.
uint64_t script_pick(struct script *script, uint64_t below);
/// What it does from now on it does seldom, or not any more.
void script_rare(const struct script *script, bool rare);
/// Commits what was published at `position`. False, with a diagnostic, if that fails.
bool script_commit(struct script *script, uint64_t position);

/// What a key is at a version: NULL if absent.
const struct script_version *script_at(const struct script_history *history, unsigned key,
				       uint64_t seq);
/// Does a batch end beyond `seq` that began before or at it?
bool script_splits_batch(const struct script_history *history, uint64_t seq);
/// Forgets what came after `seq`: a crash has.
void script_history_cut(struct script_history *history, uint64_t seq);
void script_history_copy(struct script_history *to, const struct script_history *from);
/// Frees the histories of a script.
void script_free(struct script *script);

size_t script_key(char key[32], unsigned number);
/// The bytes of a value.
void script_value(unsigned char *to, unsigned key, const struct script_version *version);
