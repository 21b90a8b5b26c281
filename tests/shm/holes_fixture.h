// SPDX-License-Identifier: MIT
//
// A region's pages held against what is counted of them, and the keys of a test that frees some:
// for regions of small and of huge pages.
#pragma once

#include "shm/holes.h"
#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

static struct kvs_holes_parts parts_of(struct fixture *f)
{
	return (struct kvs_holes_parts){ .log = &f->log, .table = &f->table, .large = &f->large };
}

static void equal(struct fixture *f, const char *when)
{
	struct kvs_holes_parts parts = parts_of(f);
	ok_u64(kvs_holes_file_bytes(&f->region), kvs_holes_expected_bytes(&parts),
	       "G: the file has what is counted %s", when);
}

/// How many of the keys `key:0` and on are there, whole.
static unsigned keys_in(const struct kvs_map *map, unsigned keys)
{
	unsigned found = 0;
	for (unsigned i = 0; i < keys; i++) {
		char key[16];
		struct kvs_hit hit;
		int n = snprintf(key, sizeof(key), "key:%u", i);
		found += fixture_find(map, key, (size_t)n, &hit) == KVS_FIND_HIT &&
			 kvs_record_crc_ok(&hit.view);
	}
	return found;
}
