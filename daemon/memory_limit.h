// SPDX-License-Identifier: MIT
//
// How much memory there is for this process: the machine's, or what a control group above it may
// use. The shared memory counts as kvd's. Beyond the limit of a group the kernel kills, and it does
// so when the memory fills, months after somebody chose the size: so that is compared at the start.
#pragma once

#include <stdint.h>

struct memory_limit {
	uint64_t bytes; // UINT64_MAX = nothing is known
	char what[256]; // the file that says so; empty = the machine's own
	// What no group would have to give back something for; UINT64_MAX = none limits.
	uint64_t room_bytes;
};

/// The least of what files below `root` say, "" for the system's: proc/meminfo, and the control
/// groups of proc/self/cgroup, of either version, with all groups above them that can be seen.
struct memory_limit memory_limit_find(const char *root);
/// The same for another process; 0 is this one. Its groups are looked for where this one sees them.
struct memory_limit memory_limit_find_of(const char *root, int pid);

/// What kvd takes of it if nobody says how much: at most `wanted`, and half of the limit.
uint64_t memory_limit_default(const struct memory_limit *limit, uint64_t wanted, uint64_t least);
