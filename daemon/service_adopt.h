// SPDX-License-Identifier: MIT
//
// Starting warm: is there a region of the life before, and may this life go on with it?
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct kvd;
struct kvs_adopt;
struct kvs_region;
struct store;

/// The name under which the keeper of descriptors has the region.
#define SERVICE_REGION_NAME "kvd-region"

/// Takes a kept region, if the keeper has one that is of this layout, and sets kvd->instance_id.
/// *alike: it is laid out as this life is configured, too; otherwise it can only be read out.
/// False: there is none; what was there is closed, and the log says why. The caller closes it.
bool service_adopt_open(struct kvd *kvd, struct kvs_region *region, bool *alike);

/// Looks at all of it. True: `plan` can be carried out, and nothing acknowledged is lost by it.
/// False: a new region is needed; what the kept one has and the store has not is in the store now,
/// as far as it could be read, and the log says why. `store` is NULL under the memory policy. In
/// either case kvs_adopt_fini() frees the plan. `alike` as from service_adopt_open().
/// `generation` is what kvd.gen says now.
bool service_adopt_look(struct kvd *kvd, struct kvs_region *region, struct store *store, bool alike,
			uint64_t generation, struct kvs_adopt *plan);

/// Hands the region to the keeper, for the next life; `is_new`: what it had before goes.
void service_adopt_keep(struct kvd *kvd, const struct kvs_region *region, bool is_new);
