// SPDX-License-Identifier: MIT
//
// Arrays that may become very large are maps of their own from a size on: they come zeroed from the
// kernel, grow without a copy, and go as a whole or from their ends. malloc() takes large pieces
// from its heap as soon as enough was freed there, where calloc() clears by hand and realloc()
// copies: milliseconds that everybody waits for. Smaller ones are malloc()'s.
#pragma once

#include <stddef.h>

#define KVS_MAPPED_BYTES (256u << 10) // from here on

/// `bytes` zero bytes, NULL if memory is short. The size must be said again to whatever is called
/// with them, for it tells what they are.
void *kvs_mapped_alloc(size_t bytes);

/// Makes `bytes` (0 = none yet, `memory` is NULL then) into more, which keep what was in them; what
/// is new may be anything. NULL if memory is short: then nothing has changed.
void *kvs_mapped_grow(void *memory, size_t bytes, size_t new_bytes);

/// Gives them back at once. NULL is fine.
void kvs_mapped_free(void *memory, size_t bytes);
