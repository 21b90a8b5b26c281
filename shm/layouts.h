// SPDX-License-Identifier: MIT
//
// Layouts of other builds that this one can read out. A kept region of another layout cannot be
// taken over in place, for its readers go by it; but if the layout is listed here, all that is in
// it can be loaded into a new one. Whoever raises KVS_LAYOUT_VERSION adds the former layout, with
// the step that makes today's of it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct kvs_layout {
	uint32_t version;
	uint32_t fingerprint; // as its builds wrote it into the header
	/// Makes today's layout of a private copy: all of the file is at `base`, and may be written
	/// where it has to be; nobody else sees it. Version and fingerprint are set by the caller.
	/// False if it holds something that today's cannot say. What is there may be anything:
	/// offsets are to be checked against `bytes`, the size of the file.
	bool (*lift)(unsigned char *base, uint64_t bytes);
};

/// The former layouts, up to one of version 0.
const struct kvs_layout *kvs_layouts_former(void);

/// The one of them that a header names, or NULL.
const struct kvs_layout *kvs_layout_find(const struct kvs_layout *layouts, uint32_t version,
					 uint32_t fingerprint);
