// SPDX-License-Identifier: MIT
//
// Counting uses the processor's instruction where there is one: it decides between 2 and 10 ms for
// a value of the largest usual size.
#include "daemon/bits.h"

#include <string.h>

#define BITS_WORD_BYTES 8u

static uint64_t bits_word(const unsigned char *at)
{
	uint64_t word;
	memcpy(&word, at, sizeof(word));
	return word;
}

static inline __attribute__((always_inline)) uint64_t bits_count_bytes(const unsigned char *at,
								       uint64_t bytes)
{
	uint64_t count = 0;
	for (; bytes >= BITS_WORD_BYTES; at += BITS_WORD_BYTES, bytes -= BITS_WORD_BYTES) {
		count += (uint64_t)__builtin_popcountll(bits_word(at));
	}
	for (; bytes > 0; at++, bytes--) {
		count += (uint64_t)__builtin_popcount(*at);
	}
	return count;
}

static uint64_t bits_count_portable(const unsigned char *at, uint64_t bytes)
{
	return bits_count_bytes(at, bytes);
}

#if defined(__x86_64__)
__attribute__((target("popcnt"))) static uint64_t bits_count_hardware(const unsigned char *at,
								      uint64_t bytes)
{
	return bits_count_bytes(at, bytes);
}

static bool bits_have_hardware(void)
{
	return __builtin_cpu_supports("popcnt") != 0;
}
#else
static uint64_t bits_count_hardware(const unsigned char *at, uint64_t bytes)
{
	return bits_count_bytes(at, bytes); // the compiler's own choice is the instruction
}

static bool bits_have_hardware(void)
{
	return true;
}
#endif

/// The bits of a byte from `first` on (0..7), or up to and including `last`.
static unsigned bits_from(uint64_t first)
{
	return 0xffu >> (first & 7);
}

static unsigned bits_up_to(uint64_t last)
{
	return 0xffu & (0xff00u >> ((last & 7) + 1));
}

uint64_t bits_count(const unsigned char *at, uint64_t first, uint64_t last)
{
	uint64_t first_byte = first / 8;
	uint64_t last_byte = last / 8;
	if (first_byte == last_byte) {
		return (uint64_t)__builtin_popcount(at[first_byte] & bits_from(first) &
						    bits_up_to(last));
	}
	uint64_t count = (uint64_t)__builtin_popcount(at[first_byte] & bits_from(first)) +
			 (uint64_t)__builtin_popcount(at[last_byte] & bits_up_to(last));
	const unsigned char *middle = at + first_byte + 1;
	uint64_t bytes = last_byte - first_byte - 1;
	return count + (bits_have_hardware() ? bits_count_hardware(middle, bytes)
					     : bits_count_portable(middle, bytes));
}

/// The first bit that is 1 in a byte that has one.
static int64_t bits_first_of(unsigned byte)
{
	return __builtin_clz(byte) - 24;
}

int64_t bits_find(const unsigned char *at, uint64_t first, uint64_t last, bool bit)
{
	uint64_t last_byte = last / 8;
	unsigned flip = bit ? 0 : 0xffu; // then the bit looked for is a 1
	uint64_t skip = bit ? 0 : UINT64_MAX;
	unsigned mask = bits_from(first);
	for (uint64_t i = first / 8; i <= last_byte; i++) {
		while (mask == 0xffu && last_byte - i >= BITS_WORD_BYTES &&
		       bits_word(at + i) == skip) {
			i += BITS_WORD_BYTES;
		}
		unsigned byte = (at[i] ^ flip) & mask;
		byte &= i == last_byte ? bits_up_to(last) : 0xffu;
		if (byte != 0) {
			return (int64_t)(i * 8) + bits_first_of(byte);
		}
		mask = 0xffu;
	}
	return -1;
}

__extension__ typedef unsigned __int128 bits_wide; // holds the nine bytes that 64 bits may touch

uint64_t bits_get(const unsigned char *at, uint64_t limit, uint64_t first, unsigned bits)
{
	uint64_t start = first / 8;
	unsigned shift = (unsigned)(first % 8);
	unsigned bytes = (shift + bits + 7) / 8;
	bits_wide wide = 0;
	for (unsigned k = 0; k < bytes; k++) {
		wide = wide << 8 | (start + k < limit ? at[start + k] : 0u);
	}
	wide >>= bytes * 8 - shift - bits;
	return (uint64_t)wide & (UINT64_MAX >> (64 - bits));
}

void bits_set(unsigned char *at, uint64_t first, unsigned bits, uint64_t number)
{
	uint64_t mask = UINT64_MAX >> (64 - bits);
	unsigned shift = (unsigned)(first % 8);
	unsigned bytes = (shift + bits + 7) / 8;
	unsigned spare = bytes * 8 - shift - bits;
	bits_wide wide = (bits_wide)(number & mask) << spare;
	bits_wide wide_mask = (bits_wide)mask << spare;
	at += first / 8;
	for (unsigned k = bytes; k-- > 0; wide >>= 8, wide_mask >>= 8) {
		at[k] = (unsigned char)((at[k] & ~(unsigned)wide_mask) | (unsigned)wide);
	}
}
