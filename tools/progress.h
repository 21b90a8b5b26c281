// SPDX-License-Identifier: MIT
//
// One line on standard error that shows how far a long transfer is: bar, bytes, records, rate, time
// to go. Drawn only when standard error is a terminal, at most ten times a second, wiped at the
// end.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
	bool on;
	bool drawn;
	uint64_t total_bytes; // 0 = unknown: no bar, no time to go
	uint64_t start_ns;
	uint64_t next_ns; // not drawn again before this moment
};

/// `wanted` false keeps it silent also on a terminal.
void progress_start(struct progress *progress, bool wanted, uint64_t total_bytes);
void progress_update(struct progress *progress, uint64_t bytes, uint64_t records);
/// Wipes the line. Returns the seconds since progress_start().
double progress_stop(struct progress *progress);

/// The line's text for `columns` columns into `out`; pure, for tests.
void progress_format(char *out, size_t out_bytes, unsigned columns, uint64_t total_bytes,
		     uint64_t bytes, uint64_t records, double seconds);
