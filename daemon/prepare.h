// SPDX-License-Identifier: MIT
//
// A helper thread that gives pages to what the writer will need next, segments of the log and parts
// of the table: populating (and zeroing) a huge page takes hundreds of microseconds, and in a
// virtual machine milliseconds, that no client should wait for.
#pragma once

#include <stdint.h>

struct keyspace;
struct kvs_region;
struct prepare;

#define PREPARE_AHEAD 4u // segments kept ready

/// Starts the thread. Returns 0 or -errno.
int prepare_start(struct prepare **out, const struct kvs_region *region);

/// Collects what the thread of keyspace->prepare (NULL = none) has done and hands it the next part
/// of the table or segment, if one is needed and the memory bound allows it.
/// Call with: any time. Thread must: be the writer. Orders: by a mutex, held for a few words.
void prepare_turn(struct keyspace *keyspace);

/// Waits for the thread and frees; NULL is fine.
void prepare_stop(struct prepare *prepare);
