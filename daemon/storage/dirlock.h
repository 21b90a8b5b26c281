// SPDX-License-Identifier: MIT
//
// One kvd per data folder: an flock on DIR/kvd.lock, held as long as the process lives, whatever
// persistence it runs with.
#pragma once

#include <stddef.h>

/// Creates DIR (mode 0700, one level) if it is missing and takes its lock; waits for an owner that
/// is being killed. Returns the descriptor to keep open, or -1 with one line in `why` that names
/// the thing and the remedy; errno tells the kind (EWOULDBLOCK: another kvd has it).
int dirlock_take(const char *dir, char *why, size_t why_bytes);

/// The same for who only reads a folder on a file system that is mounted read-only: shared with
/// others who do, and nothing is created. A folder without a lock file is nobody's. Returns as
/// dirlock_take().
int dirlock_look(const char *dir, char *why, size_t why_bytes);

/// Lets go. The file stays: removing it would let two kvd hold two locks of one name.
void dirlock_release(int fd);
