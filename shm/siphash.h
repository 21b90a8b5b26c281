// SPDX-License-Identifier: MIT
//
// SipHash by Aumasson and Bernstein, for regions whose keys come from suppliers that nobody trusts:
// without its 128-bit key nobody can say which keys collide, which holds for XXH3 only as long as
// nobody tries hard. One round a word and three at the end (SipHash-1-3) is what hash tables use.
// No small library in Debian has it; the rounds are parameters, so that the test can hold the same
// code to the reference's vectors, which are for 2 and 4.
#pragma once

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct kvs_siphash {
	uint64_t v[4];
};

static inline uint64_t kvs_siphash_left(uint64_t word, unsigned bits)
{
	return word << bits | word >> (64 - bits);
}

static inline void kvs_siphash_rounds(struct kvs_siphash *state, unsigned rounds)
{
	uint64_t *v = state->v;
	for (unsigned i = 0; i < rounds; i++) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = kvs_siphash_left(v[1], 13) ^ v[0];
		v[3] = kvs_siphash_left(v[3], 16) ^ v[2];
		v[0] = kvs_siphash_left(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = kvs_siphash_left(v[1], 17) ^ v[2];
		v[3] = kvs_siphash_left(v[3], 21) ^ v[0];
		v[2] = kvs_siphash_left(v[2], 32);
	}
}

static inline void kvs_siphash_word(struct kvs_siphash *state, uint64_t word, unsigned rounds)
{
	state->v[3] ^= word;
	kvs_siphash_rounds(state, rounds);
	state->v[0] ^= word;
}

/// SipHash-`word_rounds`-`last_rounds` of `bytes` bytes. The same on machines of either byte order.
static inline uint64_t kvs_siphash_any(unsigned word_rounds, unsigned last_rounds,
				       const uint64_t key[2], const void *data, size_t bytes)
{
	struct kvs_siphash state = { {
		key[0] ^ UINT64_C(0x736f6d6570736575),
		key[1] ^ UINT64_C(0x646f72616e646f6d),
		key[0] ^ UINT64_C(0x6c7967656e657261),
		key[1] ^ UINT64_C(0x7465646279746573),
	} };
	const unsigned char *at = data;
	uint64_t word;
	for (size_t left = bytes / 8; left > 0; left--, at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		kvs_siphash_word(&state, le64toh(word), word_rounds);
	}
	word = (uint64_t)bytes << 56;
	for (size_t i = 0; i < bytes % 8; i++) {
		word |= (uint64_t)at[i] << (8 * i);
	}
	kvs_siphash_word(&state, word, word_rounds);
	state.v[2] ^= 0xff;
	kvs_siphash_rounds(&state, last_rounds);
	return state.v[0] ^ state.v[1] ^ state.v[2] ^ state.v[3];
}

/// SipHash-1-3.
static inline uint64_t kvs_siphash(const uint64_t key[2], const void *data, size_t bytes)
{
	return kvs_siphash_any(1, 3, key, data, bytes);
}
