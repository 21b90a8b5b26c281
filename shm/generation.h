// SPDX-License-Identifier: MIT
//
// DIR/kvd.gen: which region was the last to serve from a data folder. A file and not memory, for
// what it says must outlast kvd and its region; read and written by calls, never mapped, so that
// whoever cuts it short, or a disk that fails, is an error for who asks and nobody's SIGBUS.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// The file's first bytes, in the machine's byte order; the rest of its page is zero. The first
/// word is frozen for ever. A kvd that knows no more than that one raises it and leaves `named`
/// behind, which is how others see that `instance_id` is not of what serves.
struct kvs_generation {
	uint64_t generation;  // raised by each kvd that serves with a new region; 0: none has
	uint64_t version;     // kvd's own: no version above it was handed out
	uint64_t named;	      // the generation that instance_id belongs to
	uint64_t instance_id; // of the region that serves; 0: nobody's, its data was replaced
};

/// Reads it. False: the file is too short to say anything (errno 0), or cannot be read (errno).
/// Thread must: any.
bool kvs_generation_read(int fd, struct kvs_generation *out);

/// Does it name this region? Where it was written by a kvd that named none, the count decides.
static inline bool kvs_generation_names(const struct kvs_generation *said, uint64_t generation,
					uint64_t instance_id)
{
	return said->generation == generation &&
	       (said->named != generation || said->instance_id == instance_id);
}
