// SPDX-License-Identifier: MIT
//
// Names and help of the counters, expanded from the one table.
#include "shm/counters.h"

#define COUNTER 0
#define GAUGE 1

const struct kvs_counter_info kvs_counter_infos[KVS_COUNTERS_COUNT] = {
#define X(name, kind, help) { #name, help, kind },
#include "shm/counters.tbl.h"
#undef X
};
