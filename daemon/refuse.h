// SPDX-License-Identifier: MIT
//
// Refusals: one way to count them and to say them in the log, whatever is refused. A line names
// what, whose, and what to change; lines are limited for each reason and user, so that nobody can
// fill a disk, or hide what happens to another user; only beyond 16 users who are refused for one
// reason within a minute the others share a limit.
#pragma once

#include <stdint.h>

struct kvd;
struct session;

/// Why; rows of daemon/refusals.tbl.h.
enum refusal {
#define X(name, counter, what) REFUSAL_##name,
#include "daemon/refusals.tbl.h"
#undef X
	REFUSALS_COUNT,
};

/// Who is refused; id 0 = a connection that was not taken, pid 0 = it cannot be seen from here.
struct refused {
	uint64_t id;
	uint32_t uid;
	int32_t pid;
};

/// Counts a refusal and writes its line: `format` is the reason, and what to change. Control
/// characters in it are replaced by the log. The loop's thread only.
void refuse_peer(struct kvd *kvd, enum refusal why, const struct refused *who, const char *format,
		 ...) __attribute__((format(printf, 4, 5)));
/// The same for a connection.
void refuse(const struct session *session, enum refusal why, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
