// SPDX-License-Identifier: MIT
//
// The first large thing that kvd needs from the machine: its region, from its settings.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "shm/region.h"

struct config;
struct kvd;

/// Creates the region that kvd->config asks for and sets kvd->instance_id. Returns 0, or an exit
/// code with one line in `why` that names what is missing and the remedy. The caller closes the
/// region.
int service_region_create(struct kvd *kvd, struct kvs_region *region, char *why, size_t why_bytes);

/// What the memory of a region is made of, as huge-pages says.
enum kvs_region_pages service_region_pages(const struct config *config);

/// Is reclaimed memory overwritten (KVD_POISON=1), for tests whose readers look for that?
bool service_region_poisons(void);
