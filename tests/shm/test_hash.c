// SPDX-License-Identifier: MIT
//
// shm/hash.h: the hash is part of the layout (both sides compute it), so its values are fixed;
// seeds matter; and the bits that choose bucket and tag are spread evenly enough.
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
	test_spread(seed);
	return tap_done();
}
