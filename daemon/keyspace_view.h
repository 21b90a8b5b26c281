// SPDX-License-Identifier: MIT
//
// All keys as commands see them: outside a batch the table, inside one (SCAN, KEYS, DBSIZE between
// MULTI and EXEC) what the batch makes of it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/keyspace.h"

/// As keyspace_count(), with what an open batch adds and removes.
uint64_t keyspace_view_count(struct keyspace *keyspace);

/// As keyspace_scan(): keys that an open batch touched come as it left them, with the last
/// position.
uint64_t keyspace_view_scan(struct keyspace *keyspace, uint64_t cursor,
			    void (*visit)(void *context, const void *key, size_t key_bytes,
					  const struct keyspace_value *value),
			    void *context);

/// The cursor that finds what stands at a position of the table, any number.
uint64_t keyspace_view_cursor(const struct keyspace *keyspace, uint64_t position);

/// For walks in plain order, position by position, through a table that is nearly empty: the first
/// from `cursor` on, at most `limit` further, that may find something, or the table's last one.
uint64_t keyspace_view_skip(const struct keyspace *keyspace, uint64_t cursor, uint64_t limit);
