// SPDX-License-Identifier: MIT
//
// Pages for what is no segment, taken from free segments where these have all there are (prefault).
// Call both from the loop's thread, or before it runs.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct keyspace;

/// Before `bytes` are populated for anything but a segment, and after they are counted: where all
/// free segments have their pages, these give back what is then too much.
void keyspace_make_way(struct keyspace *keyspace, uint64_t bytes);
/// A run with pages, held once, for a value of so many bytes. False: the machine is full.
bool keyspace_take_run(struct keyspace *keyspace, uint64_t value_bytes, uint64_t *offset);
