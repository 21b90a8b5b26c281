// SPDX-License-Identifier: MIT
//
// The one hash of a key, the same on both sides of the mapping: XXH3 or SipHash, with a key that is
// random for each region and changed when keys collide (shm/table_reseed.c). Readers must be able
// to compute it, so it is no secret from them; it keeps keys that arrive from outside from
// colliding on purpose. Low bits choose the bucket, the top 16 are the entry's tag.
#pragma once

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "shm/layout.h"
#include "shm/siphash.h"

/// Where `key_bytes` is known to lie in a small range and the caller is marked `flatten`, this is a
/// handful of instructions; otherwise a call.
static inline uint64_t kvs_hash(uint64_t seed, const void *key, size_t key_bytes)
{
	return XXH3_64bits_withSeed(key, key_bytes, seed);
}

/// The hash of a region: its kind, and the key of the side that is searched.
static inline uint64_t kvs_hash_keyed(enum kvs_hash_kind kind, const uint64_t hash_key[2],
				      const void *key, size_t key_bytes)
{
	return kind == KVS_HASH_SIPHASH ? kvs_siphash(hash_key, key, key_bytes)
					: kvs_hash(hash_key[0], key, key_bytes);
}

/// What XXH3 makes of the seed for a short key: a reader works it out once.
struct kvs_hash_flips {
	uint64_t low, high;
};

static inline struct kvs_hash_flips kvs_hash_flips(uint64_t seed)
{
	// Words of XXH3's fixed secret, which is as much a part of it as its primes.
	return (struct kvs_hash_flips){ .low = UINT64_C(0x6782737bea4239b9) + seed,
					.high = UINT64_C(0xaf56bc3b0996523a) - seed };
}

static inline uint64_t kvs_hash_word(const unsigned char *at)
{
	uint64_t word;
	memcpy(&word, at, sizeof(word));
	return le64toh(word);
}

/// kvs_hash() of a key of 9 to 16 bytes, by the seed's flips: XXH3 itself for these lengths.
static inline __attribute__((always_inline)) uint64_t
kvs_hash_short(const struct kvs_hash_flips *flips, const void *key, size_t key_bytes)
{
	const unsigned char *bytes = key;
	uint64_t low = kvs_hash_word(bytes) ^ flips->low;
	uint64_t high = kvs_hash_word(bytes + key_bytes - 8) ^ flips->high;
	unsigned __int128 product = (unsigned __int128)low * high;
	uint64_t hash = key_bytes + __builtin_bswap64(low) + high +
			((uint64_t)product ^ (uint64_t)(product >> 64));
	hash = (hash ^ hash >> 37) * UINT64_C(0x165667919e3779f9);
	return hash ^ hash >> 32;
}
