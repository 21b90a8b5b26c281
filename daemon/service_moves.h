// SPDX-License-Identifier: MIT
//
// Places in the store that change, between the persister and the keyspace.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct kvd;

/// Tells some keys where their records stand by now. True: there are more.
/// Call with: a persister. Thread must: be the loop's. Orders: persist_next_move()'s.
bool service_moves_turn(const struct kvd *kvd, uint64_t now_ns);
