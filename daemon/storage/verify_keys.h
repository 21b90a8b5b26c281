// SPDX-License-Identifier: MIT
//
// Which version of each key counts, by the rules of recovery (recover.h): one entry a key, found by
// its hash. Two keys of one hash would be taken for one (1 in 10^6 with 10 M keys); whoever acts on
// what is said here looks again by the key itself.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct verify_key {
	uint64_t hash;	 // 0 = empty
	uint64_t known;	 // as struct verify_expected.seq; 0 = memory did not name it
	uint64_t winner; // newest seq met << 1 | is a value; 0 = none met
};

struct verify_keys {
	struct verify_key *slots;
	size_t capacity; // power of two
	size_t count;
	uint64_t flush_seq; // newest FLUSHALL met
};

bool verify_keys_init(struct verify_keys *keys);
void verify_keys_fini(struct verify_keys *keys);

/// The entry of a hash, made if need be. NULL if memory is short. Good until the next call.
struct verify_key *verify_keys_at(struct verify_keys *keys, uint64_t hash);

/// A version was met.
static inline void verify_key_meet(struct verify_key *key, uint64_t seq, bool is_value)
{
	if (seq >= key->winner >> 1) {
		key->winner = seq << 1 | is_value;
	}
}

/// Does it count, and as a value?
static inline bool verify_key_lives(const struct verify_keys *keys, const struct verify_key *key)
{
	return (key->winner & 1) != 0 && key->winner >> 1 >= keys->flush_seq;
}
