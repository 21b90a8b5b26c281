// SPDX-License-Identifier: MIT
//
// What must hold of whatever a crash left: kvd's own storage and recovery open it, and it is the
// state as of one version, not before what was promised and not after what was asked for.
#pragma once

#include "tests/crash/crash_script.h"

struct crash_expected {
	const struct script_history *history;
	uint64_t durable_seq;	// promised
	uint64_t submitted_seq; // handed out
	uint64_t random;	// for what is done with it afterwards
};

/// Starts kvd's storage on `dir`, looks at everything, writes on, compacts, and reads it again.
/// Returns NULL if all is well, else what is wrong (static). *recovered_seq gets what the store
/// held.
const char *crash_check(const char *dir, const struct crash_expected *expected,
			uint64_t *recovered_seq);
