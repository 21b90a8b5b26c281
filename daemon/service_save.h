// SPDX-License-Identifier: MIT
//
// Saving what only a kept region has into the store, for a start that cannot go on in that region.
#pragma once

#include <stdint.h>

struct kvd;
struct kvs_adopt;
struct store;

/// What is only in the region goes into the store, before the region is given up; nothing if
/// `store` is NULL. What of it cannot be read is counted in *lost, and the log names it. Returns
/// STORE_OK, or an enum store_error: then some of it may be there.
/// Call with: a plan of the region as it is. Thread must: own the store.
int service_save(const struct kvd *kvd, const struct kvs_adopt *plan, struct store *store,
		 uint64_t *lost);

/// The same for a region that does not verify: as much as can be read. What the store refuses is
/// lost, too, and said.
void service_salvage(const struct kvd *kvd, const struct kvs_adopt *plan, struct store *store,
		     uint64_t *lost);
