// SPDX-License-Identifier: MIT
//
// Many keys as they were at one moment, read in several turns. While a moment is open the writer
// leaves a note of what a wanted key was, before it changes it for the first time; whoever reads
// looks there first. The keys are known beforehand, so notes have a bound: one for each of them,
// whatever is written. Everything belongs to the writer's thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/keyspace.h"
#include "shm/resp.h"

/// So many may be open at once: each costs every write a look. And so many of one writer's uid.
#define KEYSPACE_MOMENTS_MAX 16u
#define KEYSPACE_MOMENTS_WRITER_MAX 4u

struct keyspace_moment;

/// For `count` keys (at most KVS_COMMAND_ARGS_MAX - 1), whose array and bytes stay until
/// keyspace_moment_close(). With `values` false only their being there is of interest. `seed` is
/// one that no client knows. NULL if memory is short.
struct keyspace_moment *keyspace_moment_create(struct keyspace *keyspace,
					       const struct resp_arg *keys, uint32_t count,
					       bool values, uint64_t seed);

/// Enters some of the keys (microseconds). True when all are.
bool keyspace_moment_enter(struct keyspace_moment *moment);

/// The moment is now: what was written before is seen, and a time to live that ends later has not
/// ended. False if no more may be open at present: ask again later.
/// Call with: all keys entered, no batch open.
bool keyspace_moment_open(struct keyspace_moment *moment);

/// Takes some of what writers noted to where it does not hinder the cleaner (up to 100 us); call it
/// at the beginning of every turn. True when nothing is left to be taken.
bool keyspace_moment_settle(struct keyspace_moment *moment);

/// Was there a FLUSHALL? Then the moment is now behind it, and keyspace_moment_next() begins again
/// with the first key. True once, at most one time in all; call it at the beginning of every turn.
bool keyspace_moment_begins_anew(struct keyspace_moment *moment);

/// The first `count` keys were read already, in this turn.
void keyspace_moment_skip(struct keyspace_moment *moment, uint32_t count);

/// Was memory short for a note? Then the moment is lost.
bool keyspace_moment_is_lost(const struct keyspace_moment *moment);

/// Was a value replaced that is in the store alone? It may be gone there: whoever reads begins anew
/// with another moment, as if it had met KEYSPACE_COLD.
bool keyspace_moment_is_torn(const struct keyspace_moment *moment);

/// The next key's value; only `value` and `value_bytes` are set, good until the next write.
/// *changed: it is no longer what it was. Returns KEYSPACE_OK, KEYSPACE_ABSENT or KEYSPACE_COLD.
/// Call with: keys left; opened, settled, not lost and not torn.
int keyspace_moment_next(struct keyspace_moment *moment, struct keyspace_value *value,
			 bool *changed);

/// Memory that it takes now.
size_t keyspace_moment_bytes(const struct keyspace_moment *moment);

/// Ends it, open or not, read to the end or not. NULL is fine.
void keyspace_moment_close(struct keyspace_moment *moment);
