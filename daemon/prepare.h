// SPDX-License-Identifier: MIT
//
// A helper thread that gives pages to the segments the writer will need next: populating (and
// zeroing) a huge page takes hundreds of microseconds that no client should wait for.
#pragma once

#include <stdint.h>

struct kvs_log;
struct kvs_region;
struct prepare;

#define PREPARE_AHEAD 4u // segments kept ready

/// Starts the thread. Returns 0 or -errno.
int prepare_start(struct prepare **out, const struct kvs_region *region);

/// Collects what the thread has done and hands it the next segment, if one is needed.
/// Call with: the log it works for. Thread must: be the writer. Orders: by a mutex, held for a few
/// words.
void prepare_turn(struct prepare *prepare, struct kvs_log *log);

/// Waits for the thread and frees; NULL is fine.
void prepare_stop(struct prepare *prepare);
