// SPDX-License-Identifier: MIT
//
// What making a region (region.c) and taking one over (region_adopt.c) do alike. For those two.
#pragma once

#include "shm/region.h"

#define REGION_SEGMENTS_MIN 8u

/// Lays out the ranges one behind the other, each at a huge-page boundary. Returns the file's size.
uint64_t kvs_region_geometry(const struct kvs_region_options *options,
			     struct kvs_region_header *header);

/// The same file for reading alone; -1 with errno.
int kvs_region_reopen_readonly(int fd);

/// Maps region->fd, of which region->bytes are known, and sets what follows from the options.
/// `sharing` is MAP_SHARED or MAP_PRIVATE. Returns an enum kvs_region_error.
int kvs_region_open_file(struct kvs_region *region, const struct kvs_region_options *options,
			 int sharing);

/// Fills in what follows from a header that is complete and checked.
void kvs_region_place_directory(struct kvs_region *region,
				const struct kvs_region_header *geometry);
void kvs_region_fill_map(struct kvs_region *region);
/// Asks for huge pages, if they are wanted.
void kvs_region_advise(const struct kvs_region *region);
