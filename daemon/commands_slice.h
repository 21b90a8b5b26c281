// SPDX-License-Identifier: MIT
//
// For commands that are cut and read a value meanwhile: its bytes stay as they were at the one
// moment that the command stands for, whatever becomes of the key between two slices.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/commands.h"

#define COMMANDS_SLICE_BYTES (128u << 10) // worked on between two looks at the clock

/// Bytes that outlast a slice. All zero = none.
struct slice_bytes {
	const unsigned char *data;
	size_t bytes;
	uint64_t pin;
	bool pinned;
	void *copy; // of what cannot be pinned: at most a quarter segment
};

/// Keeps the bytes of a value: where they stand if they can be pinned, else a copy. False if memory
/// is short.
bool slice_bytes_take(struct session *session, const struct keyspace_value *value,
		      struct slice_bytes *bytes);
void slice_bytes_drop(struct session *session, struct slice_bytes *bytes);
