// SPDX-License-Identifier: MIT
//
// A large value on its way in. It takes its run before it has come, and its bytes go from where
// they are received into that run and nowhere else; so kvd never holds a second copy of it. Nobody
// sees the run before a write names it, and one that is given up leaves nothing.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keyspace;

/// All zero: there is none.
struct keyspace_intake {
	uint64_t run_offset; // of the run, which is held; 0 = none
	uint64_t bytes;	     // of the value
	uint64_t done;	     // of them, so many came
	uint64_t populated;  // bytes of the run that have pages
	uint32_t crc;	     // of what came
};

/// Will a value of so many bytes be a large one?
bool keyspace_intake_is_large(const struct keyspace *keyspace, size_t value_bytes);

/// Takes a run for a large value; makes room for it as a write does, in bounded time. OK, WAIT or
/// FULL; other than OK: nothing was taken. Call with: no batch open.
int keyspace_intake_begin(struct keyspace *keyspace, struct keyspace_intake *intake,
			  size_t value_bytes);

/// Where the next bytes belong, up to *bytes of them. NULL: the machine has no memory. Call with:
/// not all have come.
unsigned char *keyspace_intake_room(struct keyspace *keyspace, struct keyspace_intake *intake,
				    size_t *bytes);

/// The first `bytes` there are the value's next.
void keyspace_intake_came(struct keyspace *keyspace, struct keyspace_intake *intake, size_t bytes);

/// Have all of them come? Then a write of exactly these bytes takes the run.
static inline bool keyspace_intake_is_whole(const struct keyspace_intake *intake)
{
	return intake->run_offset != 0 && intake->done == intake->bytes;
}

/// The value, as far as it came.
const unsigned char *keyspace_intake_value(const struct keyspace *keyspace,
					   const struct keyspace_intake *intake);

/// It is over: nobody asks for it any more. What a write has taken stays; else the run is given
/// back. Nothing if there is none.
void keyspace_intake_end(struct keyspace *keyspace, struct keyspace_intake *intake);
