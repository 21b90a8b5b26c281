// SPDX-License-Identifier: MIT
//
// What log.c needs from segments.c and nobody else does: taking a free segment and making several
// of them ready at once.
#pragma once

#include <stdint.h>

#include "shm/log.h"

/// Takes a free segment with pages. Returns its index, or KVS_SEGMENT_NONE.
uint32_t kvs_segments_take(struct kvs_log *log, enum kvs_segment_state state);

/// Makes at least `count` free segments have pages. Returns 0, -ENOSPC if there are not so many
/// free ones, or -ENOMEM / -errno if the machine is full.
int kvs_segments_prepare(struct kvs_log *log, uint32_t count);
