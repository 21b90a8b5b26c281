// SPDX-License-Identifier: MIT
//
// The table. It has a row for each layout that another build can have left in a keeper's hands.
#include "shm/layouts.h"

#include <stddef.h>
#include <string.h>

#include "shm/layout.h"

#define LAYOUT_1_SEED_OFFSET 48u // where the kind of the hash is now

// Version 1 had one seed of XXH3 for both sides of the table, and nothing where their keys are.
static bool lift_1(unsigned char *base, uint64_t bytes)
{
	struct kvs_region_header *header = (struct kvs_region_header *)(void *)base;
	uint64_t seed;
	(void)bytes; // more than a header
	memcpy(&seed, base + LAYOUT_1_SEED_OFFSET, sizeof(seed));
	header->hash_kind = KVS_HASH_XXH3;
	for (unsigned side = 0; side < 2; side++) {
		header->hash_sides[side] = (struct kvs_hash_side){ .key = { seed } };
	}
	return true;
}

static const struct kvs_layout former[] = {
	{ .version = 1, .fingerprint = 0xb107d19eu, .lift = lift_1 },
	{ .version = 0 },
};

const struct kvs_layout *kvs_layouts_former(void)
{
	return former;
}

const struct kvs_layout *kvs_layout_find(const struct kvs_layout *layouts, uint32_t version,
					 uint32_t fingerprint)
{
	for (; layouts->version != 0; layouts++) {
		if (layouts->version == version && layouts->fingerprint == fingerprint) {
			return layouts;
		}
	}
	return NULL;
}
