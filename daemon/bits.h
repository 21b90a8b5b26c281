// SPDX-License-Identifier: MIT
//
// Bits in long values: counting and finding. Bit 0 is the highest bit of the first byte. Whoever
// must not work for long at a time calls these for one stretch of the value after the other.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// How many bits from `first` up to and including `last` are 1.
uint64_t bits_count(const unsigned char *at, uint64_t first, uint64_t last);

/// The first bit from `first` up to and including `last` that is `bit`, -1 if there is none.
int64_t bits_find(const unsigned char *at, uint64_t first, uint64_t last, bool bit);

/// The `bits` (1..64) bits from bit `first` on as a number, the highest first; bytes from `limit`
/// on count as 0.
uint64_t bits_get(const unsigned char *at, uint64_t limit, uint64_t first, unsigned bits);

/// Writes the low `bits` bits of `number` from bit `first` on.
void bits_set(unsigned char *at, uint64_t first, unsigned bits, uint64_t number);
