// SPDX-License-Identifier: MIT
//
// The one hash of a key, the same on both sides of the mapping: XXH3, seeded per region. Readers
// must be able to compute it, so the seed is no secret from them; it keeps keys that arrive from
// outside from colliding on purpose. Low bits choose the bucket, the top 16 are the entry's tag.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/// Where `key_bytes` is known to lie in a small range and the caller is marked `flatten`, this is a
/// handful of instructions; otherwise a call.
static inline uint64_t kvs_hash(uint64_t seed, const void *key, size_t key_bytes)
{
	return XXH3_64bits_withSeed(key, key_bytes, seed);
}
