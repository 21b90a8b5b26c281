// SPDX-License-Identifier: MIT
//
// Backups that a script takes, by kvd's own job, and those that it restores, by kvctl's own verb,
// while their calls are recorded; and what must be there of them after a crash.
#pragma once

#include "tests/crash/crash_script.h"

/// A backup from the memory of the life as it is: it may hold what is not durable. False, with a
/// diagnostic, if kvd refuses.
bool script_backup(struct script *script);

/// Between two lives: the last backup takes the place of the data, or comes into a new folder; what
/// follows happens there. False, with a diagnostic, if kvctl refuses.
bool script_restore(struct script *script);

/// The restore number `restore` of a script again, on what a crash left of it under `root`. False,
/// with a diagnostic, if kvctl refuses.
bool script_restore_again(const struct script *script, unsigned restore, const char *root);

/// What is wrong with a backup under `root`, whose name must be there: NULL if all is well.
const char *script_backup_check(const struct script_backup *backup, const char *root);
