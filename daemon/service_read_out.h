// SPDX-License-Identifier: MIT
//
// Data that a kept region has and this life's region, or its store, has not.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct kvd;
struct kvs_adopt;
struct kvs_region;
struct store;

/// Loads all that is current in `from` (kvs_region_read_out()), what `plan` is yet to apply
/// included, into kvd->keyspace, which is empty. Versions go on where they stopped. Returns 0, or
/// an exit code with `why` filled; none that whoever keeps the region takes for lasting.
int service_read_out(struct kvd *kvd, struct kvs_region *from, struct kvs_adopt *plan,
		     const char *because, char *why, size_t why_bytes);

/// Writes all that kvd->keyspace has into a store of its own, which takes the place of `store`.
/// What that had is removed, or with `leave` put aside. Returns as above; then it is as it was.
/// Call with: nothing of it written since it was loaded or taken over.
int service_fill_store(struct kvd *kvd, struct store *store, bool leave, char *why,
		       size_t why_bytes);
