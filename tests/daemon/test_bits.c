// SPDX-License-Identifier: MIT
//
// Bits against the obvious: every function beside a loop over single bits, on random strings and
// ranges, aligned and not.
#include "daemon/bits.h"

#include <string.h>

#include "tests/tap/tap.h"

#define BYTES 200u
#define ROUNDS 20000u

static bool bit_at(const unsigned char *at, uint64_t i)
{
	return (at[i / 8] >> (7 - i % 8) & 1) != 0;
}

static uint64_t slow_count(const unsigned char *at, uint64_t first, uint64_t last)
{
	uint64_t count = 0;
	for (uint64_t i = first; i <= last; i++) {
		count += bit_at(at, i);
	}
	return count;
}

static int64_t slow_find(const unsigned char *at, uint64_t first, uint64_t last, bool bit)
{
	for (uint64_t i = first; i <= last; i++) {
		if (bit_at(at, i) == bit) {
			return (int64_t)i;
		}
	}
	return -1;
}

// Mostly one kind of bit, so that searches go far.
static void fill(unsigned char *at, uint64_t *random)
{
	memset(at, tap_random(random) % 2 ? 0xff : 0, BYTES);
	for (uint64_t n = tap_random(random) % 4; n > 0; n--) {
		at[tap_random(random) % BYTES] = (unsigned char)tap_random(random);
	}
}

int main(void)
{
	uint64_t random = tap_seed(1);
	unsigned char memory[BYTES + 8];
	unsigned wrong_counts = 0;
	unsigned wrong_finds = 0;
	unsigned wrong_numbers = 0;
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned char *at = memory + tap_random(&random) % 8;
		uint64_t first = tap_random(&random) % (BYTES * 8);
		uint64_t last = first + tap_random(&random) % (BYTES * 8 - first);
		bool bit = tap_random(&random) % 2;
		fill(at, &random);
		wrong_counts += bits_count(at, first, last) != slow_count(at, first, last);
		wrong_finds += bits_find(at, first, last, bit) != slow_find(at, first, last, bit);

		unsigned bits = 1 + (unsigned)(tap_random(&random) % 64);
		uint64_t number = tap_random(&random);
		uint64_t place = tap_random(&random) % (BYTES * 8 - 64);
		uint64_t before = bits_count(at, 0, BYTES * 8 - 1);
		uint64_t former = bits_get(at, BYTES, place, bits);
		bits_set(at, place, bits, number);
		number = number << (64 - bits) >> (64 - bits);
		wrong_numbers += bits_get(at, BYTES, place, bits) != number;
		wrong_numbers +=
			bits_count(at, 0, BYTES * 8 - 1) + (uint64_t)__builtin_popcountll(former) !=
			before + (uint64_t)__builtin_popcountll(number);
	}
	ok_u64(wrong_counts, 0, "bits_count()");
	ok_u64(wrong_finds, 0, "bits_find()");
	ok_u64(wrong_numbers, 0, "bits_set() and bits_get(), and nothing beside is touched");
	ok_u64(bits_get((const unsigned char *)"\xff\xff", 1, 4, 8), 0xf0, "zeroes follow the end");
	return tap_done();
}
