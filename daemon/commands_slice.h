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
// So often a write begins anew because what it is made from changed; then it is done in one go.
#define COMMANDS_SLICE_RESTARTS_MAX 16u

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

/// Between these a large value may be written from `memory`, of which the command keeps `bytes`
/// until it is over: it is copied in slices, unless the call must not be cut.
void commands_slice_write_begin(struct call *call, const void *memory, size_t bytes);
void commands_slice_write_end(struct call *call);

/// Memory is too short for what a command has to keep: it is over, with an error.
void commands_slice_fail(struct call *call);
