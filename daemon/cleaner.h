// SPDX-License-Identifier: MIT
//
// Background work of the writer, in slices between the loop's turns: following durability, grace
// periods, cleaning, expiry, and the gauges. Nothing here runs on a timer unless something is
// pending.
#pragma once

#include <stdint.h>

struct keyspace;

/// One slice. The loop calls it once a turn.
/// Call with: no batch open. Thread must: be the writer. Orders: what the functions it calls order.
void cleaner_turn(struct keyspace *keyspace, uint64_t now_ns);

/// When the loop should call cleaner_turn() even if nothing else happens (monotonic), UINT64_MAX =
/// never. To be asked right before the loop sleeps: the turn's own answer is only believed while
/// nothing has been done since it began.
uint64_t cleaner_next_ns(const struct keyspace *keyspace);
