// SPDX-License-Identifier: MIT
//
// The longest common subsequence of two byte strings, 64 positions at a time: for each byte of the
// first string one row of bits says where, along the second, the length grows. The rows are kept if
// the subsequence itself is wanted. The work can be cut anywhere, so that the caller decides how
// long it goes on at a time.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lcs;

/// A match of bytes [a, a + length) of the first string and [b, b + length) of the second.
struct lcs_range {
	uint32_t a;
	uint32_t b;
	uint32_t length;
};

/// Begins; the strings (under 2^31 bytes) must stay until lcs_free(). `keep` if lcs_walk() will be
/// called. Takes about (a_bytes + 256) * b_bytes / 8 bytes, 256 * b_bytes / 8 without `keep`. NULL
/// if memory is short.
struct lcs *lcs_begin(const unsigned char *a, size_t a_bytes, const unsigned char *b,
		      size_t b_bytes, bool keep);
void lcs_free(struct lcs *lcs);

/// Goes on for about `words` words of 64 products of a byte and a byte (a nanosecond or two each);
/// false once all is done, or memory was short.
bool lcs_step(struct lcs *lcs, uint64_t words);
bool lcs_failed(const struct lcs *lcs);

/// When done: the length of the longest common subsequence.
uint32_t lcs_length(const struct lcs *lcs);

/// When done, and kept: tells the matches from the end of the strings to their beginning, as Redis
/// chooses among equally long ones. `subsequence` (lcs_length() bytes) may be NULL, as may `visit`.
/// Goes on for about `words` words or bytes; false once all are told.
bool lcs_walk(struct lcs *lcs, uint64_t words, unsigned char *subsequence,
	      void (*visit)(void *context, const struct lcs_range *range), void *context);
