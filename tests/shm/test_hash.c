// SPDX-License-Identifier: MIT
//
// shm/hash.h and shm/siphash.h: the hash is part of the layout (both sides compute it), so its
// values are fixed; seeds matter; and the bits that choose bucket and tag are spread evenly enough.
#include "shm/hash.h"

#include "tests/tap/tap.h"

#define KEYS 65536u
#define BUCKETS 256u

static void test_fixed_values(void)
{
	ok_u64(kvs_hash(0, "", 0), UINT64_C(0x2d06800538d394c2), "XXH3-64 of nothing, seed 0");
	ok(kvs_hash(0, "key", 3) == kvs_hash(0, "key", 3), "same key, same seed, same hash");
	ok(kvs_hash(1, "key", 3) != kvs_hash(2, "key", 3), "the seed matters");
	ok(kvs_hash(1, "key", 3) != kvs_hash(1, "key\0", 4), "the length matters");
}

// What readers compute in line is the same hash.
static void test_short(uint64_t seed)
{
	unsigned same = 0, tried = 0;
	for (unsigned i = 0; i < 4096; i++) {
		unsigned char key[16];
		uint64_t region_seed = i < 64 ? (i < 32 ? i : UINT64_MAX - i) : tap_random(&seed);
		struct kvs_hash_flips flips = kvs_hash_flips(region_seed);
		for (unsigned j = 0; j < sizeof(key); j++) {
			key[j] = (unsigned char)tap_random(&seed);
		}
		for (size_t bytes = 9; bytes <= sizeof(key); bytes++) {
			tried++;
			same += kvs_hash_short(&flips, key, bytes) ==
				kvs_hash(region_seed, key, bytes);
		}
	}
	ok_u64(same, tried, "9 to 16 bytes by the seed's flips: the same hash");
}

struct vector {
	unsigned bytes; // 00 01 02 …
	uint64_t hash;
};

static unsigned count_same(unsigned word_rounds, unsigned last_rounds, const uint64_t key[2],
			   const struct vector *vectors, unsigned count)
{
	unsigned char text[64];
	unsigned same = 0;
	for (unsigned i = 0; i < sizeof(text); i++) {
		text[i] = (unsigned char)i;
	}
	for (unsigned i = 0; i < count; i++) {
		same += kvs_siphash_any(word_rounds, last_rounds, key, text, vectors[i].bytes) ==
			vectors[i].hash;
	}
	return same;
}

static void test_siphash(void)
{
	// From the reference implementation (vectors_sip64).
	static const struct vector reference[] = {
		{ 0, UINT64_C(0x726fdb47dd0e0e31) },  { 1, UINT64_C(0x74f839c593dc67fd) },
		{ 2, UINT64_C(0x0d6c8009d9a94f5a) },  { 3, UINT64_C(0x85676696d7fb7e2d) },
		{ 4, UINT64_C(0xcf2794e0277187b7) },  { 5, UINT64_C(0x18765564cd99a68d) },
		{ 6, UINT64_C(0xcbc9466e58fee3ce) },  { 7, UINT64_C(0xab0200f58b01d137) },
		{ 8, UINT64_C(0x93f5f5799a932462) },  { 15, UINT64_C(0xa129ca6149be45e5) },
		{ 16, UINT64_C(0x3f2acc7f57c29bdb) }, { 63, UINT64_C(0x958a324ceb064572) },
	};
	// CPython hashes bytes by SipHash-1-3: with PYTHONHASHSEED 0, whose key is zero, and 1.
	static const struct vector zero[] = {
		{ 1, UINT64_C(0x68a914128e01e473) },  { 7, UINT64_C(0x2f098ab0c751325a) },
		{ 8, UINT64_C(0xead411e67ebe2eea) },  { 9, UINT64_C(0x75927f9d95124362) },
		{ 15, UINT64_C(0xf30eb725bb91c9ea) }, { 16, UINT64_C(0x8972188433a5c5b7) },
		{ 17, UINT64_C(0x4883c49a2c009c1d) }, { 63, UINT64_C(0x385d3e39e5f37359) },
	};
	static const struct vector one[] = {
		{ 1, UINT64_C(0xecd3e5afcecda4b9) },  { 7, UINT64_C(0xfd15e78052a69ddf) },
		{ 8, UINT64_C(0xc0b5739e7e28dd01) },  { 9, UINT64_C(0x208a1a5a0cbbf778) },
		{ 15, UINT64_C(0xfa87985f39e97a53) }, { 16, UINT64_C(0x12e9d283f9f37002) },
		{ 17, UINT64_C(0x9f5bb4237f61907f) }, { 63, UINT64_C(0x542052345bc68274) },
	};
	const uint64_t key[] = { UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908) };
	const uint64_t key_zero[] = { 0, 0 };
	const uint64_t key_one[] = { UINT64_C(0xaed66ce184be2329), UINT64_C(0xebe9bbf1f1499052) };
	ok_u64(count_same(2, 4, key, reference, 12), 12, "SipHash-2-4 as the reference has it");
	ok_u64(count_same(1, 3, key_zero, zero, 8), 8, "SipHash-1-3 as CPython has it");
	ok_u64(count_same(1, 3, key_one, one, 8), 8, "with another key, too");
	ok_u64(kvs_hash_keyed(KVS_HASH_SIPHASH, key_zero, "siphash", 7),
	       UINT64_C(0x8264ceeccb16bcbe), "and that is what a region of this kind has");
	ok_u64(kvs_hash_keyed(KVS_HASH_XXH3, key, "siphash", 7), kvs_hash(key[0], "siphash", 7),
	       "XXH3 takes the first word of the key");
}

static void test_spread(uint64_t seed)
{
	static unsigned low[BUCKETS], high[BUCKETS];
	for (unsigned i = 0; i < KEYS; i++) {
		char key[17];
		(void)snprintf(key, sizeof(key), "key:%012u", i);
		uint64_t hash = kvs_hash(seed, key, 16);
		low[hash & (BUCKETS - 1)]++;
		high[hash >> 56]++;
	}
	// Chi square with 255 degrees of freedom: 400 is beyond any chance.
	double square_low = 0, square_high = 0, expected = (double)KEYS / BUCKETS;
	for (unsigned i = 0; i < BUCKETS; i++) {
		square_low += (low[i] - expected) * (low[i] - expected) / expected;
		square_high += (high[i] - expected) * (high[i] - expected) / expected;
	}
	ok(square_low < 400, "bucket bits are even (chi square %.0f)", square_low);
	ok(square_high < 400, "tag bits are even (chi square %.0f)", square_high);
}

int main(void)
{
	uint64_t seed = tap_seed(3);
	test_fixed_values();
	test_short(seed);
	test_siphash();
	test_spread(seed);
	return tap_done();
}
