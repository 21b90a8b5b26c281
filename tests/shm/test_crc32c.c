// SPDX-License-Identifier: MIT
//
// shm/crc32c.c: published vectors, and the processor's path against the portable one at every
// length and alignment that matters.
#include "shm/crc32c.h"

#include "tests/tap/tap.h"

static void test_vectors(void)
{
	unsigned char bytes[32];
	// From RFC 3720, B.4.
	memset(bytes, 0, sizeof(bytes));
	ok_u64(kvs_crc32c(0, bytes, 32), 0x8a9136aau, "32 zero bytes");
	memset(bytes, 0xff, sizeof(bytes));
	ok_u64(kvs_crc32c(0, bytes, 32), 0x62a8ab43u, "32 bytes of ff");
	for (unsigned i = 0; i < 32; i++) {
		bytes[i] = (unsigned char)i;
	}
	ok_u64(kvs_crc32c(0, bytes, 32), 0x46dd794eu, "0 to 31");
	for (unsigned i = 0; i < 32; i++) {
		bytes[i] = (unsigned char)(31 - i);
	}
	ok_u64(kvs_crc32c(0, bytes, 32), 0x113fdb5cu, "31 to 0");
	ok_u64(kvs_crc32c(0, "123456789", 9), 0xe3069283u, "the check value");
	ok_u64(kvs_crc32c_portable(0, "123456789", 9), 0xe3069283u, "the check value, portable");
	ok_u64(kvs_crc32c(0, bytes, 0), 0, "nothing");
}

static void test_paths_agree(uint64_t *random)
{
	unsigned char bytes[600];
	for (unsigned i = 0; i < sizeof(bytes); i++) {
		bytes[i] = (unsigned char)tap_random(random);
	}
	unsigned different = 0;
	for (unsigned start = 0; start < 9; start++) {
		for (unsigned length = 0; length < 300; length++) {
			uint32_t seed = (uint32_t)tap_random(random);
			different += kvs_crc32c(seed, bytes + start, length) !=
				     kvs_crc32c_portable(seed, bytes + start, length);
		}
	}
	ok_u64(different, 0, "both paths agree at every length and alignment");

	unsigned uneven = 0;
	uint32_t whole = kvs_crc32c(0, bytes, sizeof(bytes));
	for (unsigned cut = 0; cut <= sizeof(bytes); cut++) {
		uint32_t first = kvs_crc32c(0, bytes, cut);
		uneven += kvs_crc32c(first, bytes + cut, sizeof(bytes) - cut) != whole;
	}
	ok_u64(uneven, 0, "a checksum continued at any cut is that of the whole");
}

static void test_lanes_agree(uint64_t *random)
{
	static unsigned char bytes[3 * 3072 + 100];
	for (unsigned i = 0; i < sizeof(bytes); i++) {
		bytes[i] = (unsigned char)tap_random(random);
	}
	unsigned different = 0;
	for (unsigned round = 0; round < 300; round++) {
		uint32_t seed = (uint32_t)tap_random(random);
		unsigned start = round % 9;
		unsigned length = round < 20 ? 3072 * (round % 3 + 1) - 8 + round :
					       (unsigned)(tap_random(random) % (sizeof(bytes) - 9));
		different += kvs_crc32c(seed, bytes + start, length) !=
			     kvs_crc32c_portable(seed, bytes + start, length);
	}
	ok_u64(different, 0, "both paths agree over lengths that are summed in lanes");
}

int main(void)
{
	uint64_t random = tap_seed(1);
	test_vectors();
	test_paths_agree(&random);
	test_lanes_agree(&random);
	return tap_done();
}
