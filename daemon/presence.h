// SPDX-License-Identifier: MIT
//
// The region's word that says whether the kvd that writes it is there (`writer` in its hot line).
// It is a robust futex of a thread that does nothing else: the kernel marks it when that thread
// ends, however kvd ends, before the data folder's lock goes and another kvd can serve. So readers
// learn from a line that they load anyway that a region may have been replaced, and nobody has to
// map a file for that.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct presence;

/// Puts a thread's number into `word` and has the kernel take it back. The word must stay mapped
/// and in place until presence_end(); a forked child has no part in it. Where the kernel knows no
/// robust futexes the word stays 0, with a line in the log: readers then ask kvd.gen each time.
/// Returns 0 or -errno; then *out is NULL.
/// Call with: the data folder's lock held; nobody else's word. Thread must: any. Orders: release;
/// partner the client's load at begin.
int presence_start(struct presence **out, uint32_t *word);

/// Says that kvd goes: the word is 0 from here on. NULL is fine.
/// Call with: the data folder's lock still held. Thread must: as above. Orders: as above.
void presence_end(struct presence *presence);
