// SPDX-License-Identifier: MIT
//
// What must hold of whatever a crash left: kvd's own storage and recovery open it, and it is the
// state as of one version, not before what was promised and not after what was asked for. While a
// restore is under way it may be of either era. And whatever has a backup's name is a backup.
#pragma once

#include "tests/crash/crash_script.h"

struct crash_expected {
	const struct script *script; // it is over
	struct crash_promise promise;
	bool no_exchange; // the file system knows no flags of renameat2()
	uint64_t random;  // for what is done with it afterwards
};

/// Starts kvd's storage on what is under `root`, looks at everything, writes on, compacts, and
/// reads it again. Returns NULL if all is well, else what is wrong (static). *recovered_seq gets
/// what the store held.
const char *crash_check(const char *root, const struct crash_expected *expected,
			uint64_t *recovered_seq);

/// Are the records of the store those of its version in this history? NULL, or what is wrong.
const char *crash_check_store(struct store *store, const struct script_history *history);
