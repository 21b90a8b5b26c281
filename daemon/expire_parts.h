// SPDX-License-Identifier: MIT
//
// What expire.c and expire_walk.c share.
#pragma once

#include "daemon/expire.h"

#define EXPIRE_SLICE_NS 200000u
#define EXPIRE_CLOCK_NS 1000000000u // a look at the clock, which may be set
#define EXPIRE_WATCHED_NS UINT64_C(3600000000000) // the same where somebody tells
#define EXPIRE_RETRY_NS 10000000u   // after a removal that could not be logged

/// A slice of the walk that serves while the wheel is not whole. Returns when the next is due,
/// UINT64_MAX if the wheel is whole by now.
uint64_t expire_walk_turn(struct keyspace *keyspace, uint64_t now_ns);

/// In ns from now: how long until that time by the clock on the wall, as far as can be foreseen.
uint64_t expire_wait_ns(const struct keyspace *keyspace, uint64_t time_ms);
