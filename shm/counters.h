// SPDX-License-Identifier: MIT
//
// The counters' enum, from shm/counters.tbl.h. The words live in the region's first page, written
// by kvd alone with relaxed stores, so that any process can read them without asking.
#pragma once

#include <assert.h>
#include <stdint.h>

#include "shm/atomics.h"
#include "shm/layout.h"

enum kvs_counter {
#define X(name, kind, help) KVS_COUNTER_##name,
#include "shm/counters.tbl.h"
#undef X
	KVS_COUNTERS_COUNT,
};
static_assert(KVS_COUNTERS_COUNT <= KVS_COUNTERS_MAX, "fits the first page");

struct kvs_counter_info {
	const char *name;
	const char *help;
	int is_gauge;
};

/// Names and help of all counters, KVS_COUNTERS_COUNT rows.
extern const struct kvs_counter_info kvs_counter_infos[KVS_COUNTERS_COUNT];

static inline uint64_t *kvs_counter_word(void *region_base, enum kvs_counter counter)
{
	return (uint64_t *)(void *)((unsigned char *)region_base + KVS_COUNTERS_OFFSET) + counter;
}
