// SPDX-License-Identifier: MIT
//
// A region's pages held against what is counted of them: for regions of small and of huge pages.
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
