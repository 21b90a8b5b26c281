// SPDX-License-Identifier: MIT
//
// Cold start: the store is probed by a child, opened, and read into the keyspace.
#pragma once

#include <stddef.h>

struct kvd;
struct store;

/// Returns 0 with *store open and the keyspace filled, or an exit code with `why` filled.
int service_recover(struct kvd *kvd, struct store **store, char *why, size_t why_bytes);
