// SPDX-License-Identifier: MIT
//
// Pages that the file has and nobody counts. A process that reads a hole of the file through a map
// has the kernel fill it with an empty page, which belongs to the file from then on. So what the
// writer knows to have populated is compared with the file's size on the machine, and what is too
// much is looked for and given back.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/large.h"
#include "shm/log.h"
#include "shm/table_write.h"

/// All that has pages in a region, outside its header and the table of users.
struct kvs_holes_parts {
	const struct kvs_log *log;
	const struct kvs_table *table;
	struct kvs_large *large;
};

/// Bytes of pages that the file should have. Exact while no segment is being prepared and no large
/// value is being copied, else more than it has.
uint64_t kvs_holes_expected_bytes(const struct kvs_holes_parts *parts);

/// Bytes of pages that it has; 0 if that cannot be found out.
uint64_t kvs_holes_file_bytes(const struct kvs_region *region);

/// Goes on behind *at, an offset in the file: finds the next pages there and gives up to 2 MiB of
/// them back if they should be a hole. Returns the bytes of pages given back. *at moves on; at the
/// end of the file, or if the kernel cannot tell, it becomes UINT64_MAX.
/// Call with: 0 to begin. Thread must: be the writer. Orders: nothing: nobody has a use for what is
/// there, and it reads as zero before and after.
uint64_t kvs_holes_step(const struct kvs_holes_parts *parts, uint64_t *at);
