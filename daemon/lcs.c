// SPDX-License-Identifier: MIT
//
// Hyyrö's bit-parallel rows: bit j of row i is 0 where the length of the longest common subsequence
// of a[0..i] and b[0..j] is greater than that of a[0..i] and b[0..j-1]. That bit is also all that
// finding the way back needs: where two bytes differ, the length came from the shorter b if it does
// not grow at j, and from the shorter a if it does.
#include "daemon/lcs.h"

#include <stdlib.h>
#include <string.h>

#define LCS_BYTES 256u

struct lcs {
	const unsigned char *a;
	const unsigned char *b;
	uint32_t a_bytes;
	uint32_t b_bytes;
	uint32_t masked; // bytes of b that the masks know
	uint32_t row;	 // how many are done
	size_t words;	 // of a row
	bool keep;
	uint64_t *rows;		     // all of them, or the one that counts
	uint64_t *masks;	     // for each byte that occurs in a: where it stands in b
	uint32_t mask_of[LCS_BYTES]; // its number + 1
};

/// Numbers the bytes of a, and makes room for a mask for each.
static bool lcs_number(struct lcs *lcs)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < lcs->a_bytes; i++) {
		if (lcs->mask_of[lcs->a[i]] == 0) {
			lcs->mask_of[lcs->a[i]] = ++count;
		}
	}
	lcs->masks = calloc(count > 0 ? count : 1, (lcs->words + 1) * sizeof(*lcs->masks));
	return lcs->masks != NULL;
}

/// Lets the masks know up to `bytes` more of b.
static void lcs_mask(struct lcs *lcs, uint64_t bytes)
{
	uint64_t end = lcs->masked + bytes < lcs->b_bytes ? lcs->masked + bytes : lcs->b_bytes;
	for (uint32_t j = lcs->masked; j < end; j++) {
		uint32_t number = lcs->mask_of[lcs->b[j]];
		if (number != 0) {
			lcs->masks[(number - 1) * lcs->words + j / 64] |= UINT64_C(1) << j % 64;
		}
	}
	lcs->masked = (uint32_t)end;
}

struct lcs *lcs_begin(const unsigned char *a, size_t a_bytes, const unsigned char *b,
		      size_t b_bytes, bool keep)
{
	struct lcs *lcs = calloc(1, sizeof(*lcs));
	if (lcs == NULL) {
		return NULL;
	}
	lcs->a = a;
	lcs->b = b;
	lcs->a_bytes = (uint32_t)a_bytes;
	lcs->b_bytes = (uint32_t)b_bytes;
	lcs->words = (b_bytes + 63) / 64;
	lcs->keep = keep;
	size_t rows = keep && a_bytes > 0 ? a_bytes : 1;
	lcs->rows = malloc((rows * lcs->words + 1) * sizeof(*lcs->rows));
	if (lcs->rows == NULL || !lcs_number(lcs)) {
		lcs_free(lcs);
		return NULL;
	}
	memset(lcs->rows, 0xff, (lcs->words + 1) * sizeof(*lcs->rows));
	return lcs;
}

void lcs_free(struct lcs *lcs)
{
	if (lcs != NULL) {
		free(lcs->rows);
		free(lcs->masks);
		free(lcs);
	}
}

static uint64_t *lcs_row(const struct lcs *lcs, uint32_t row)
{
	return lcs->rows + (lcs->keep ? row * lcs->words : 0);
}

/// Where byte `i` of a stands in b.
static const uint64_t *lcs_mask_of(const struct lcs *lcs, uint32_t i)
{
	return lcs->masks + (lcs->mask_of[lcs->a[i]] - 1) * lcs->words;
}

bool lcs_step(struct lcs *lcs, uint64_t cells)
{
	uint64_t rows = lcs->b_bytes > 0 ? cells / lcs->b_bytes : lcs->a_bytes;
	if (lcs->masked < lcs->b_bytes) {
		lcs_mask(lcs, cells / 64 + 1); // a byte there costs as much as a word in a row
		return true;
	}
	for (; lcs->row < lcs->a_bytes; lcs->row++) {
		const uint64_t *mask = lcs_mask_of(lcs, lcs->row);
		const uint64_t *before = lcs_row(lcs, lcs->row > 0 ? lcs->row - 1 : 0);
		uint64_t *after = lcs_row(lcs, lcs->row);
		uint64_t carry = 0;
		for (size_t k = 0; k < lcs->words; k++) {
			uint64_t old = before[k];
			uint64_t hit = old & mask[k];
			uint64_t sum;
			uint64_t over = __builtin_add_overflow(old, hit, &sum);
			over |= __builtin_add_overflow(sum, carry, &sum);
			carry = over;
			after[k] = sum | (old & ~mask[k]);
		}
		if (rows-- <= 1) {
			lcs->row++;
			break;
		}
	}
	return lcs->row < lcs->a_bytes;
}

uint32_t lcs_length(const struct lcs *lcs)
{
	uint32_t length = 0;
	const uint64_t *row = lcs->a_bytes > 0 ? lcs_row(lcs, lcs->a_bytes - 1) : lcs->rows;
	for (size_t k = 0; k < lcs->words; k++) {
		uint32_t left = lcs->b_bytes - (uint32_t)k * 64;
		uint64_t used = left >= 64 ? UINT64_MAX : (UINT64_C(1) << left) - 1;
		length += (uint32_t)__builtin_popcountll(~row[k] & used);
	}
	return length;
}

/// The way back from (i, j): the greatest p up to j where byte p - 1 of b matches byte i - 1 of a,
/// or where the length grows in row i; 0 if there is none. What lies between is passed one by one.
static uint32_t lcs_stop(const struct lcs *lcs, uint32_t i, uint32_t j)
{
	const uint64_t *row = lcs_row(lcs, i - 1);
	const uint64_t *mask = lcs_mask_of(lcs, i - 1);
	size_t k = (j - 1) / 64;
	uint64_t stops = (~row[k] | mask[k]) & (UINT64_MAX >> (63 - (j - 1) % 64));
	while (stops == 0 && k > 0) {
		k--;
		stops = ~row[k] | mask[k];
	}
	return stops != 0 ? (uint32_t)k * 64 + 64 - (uint32_t)__builtin_clzll(stops) : 0;
}

void lcs_walk(const struct lcs *lcs, unsigned char *subsequence,
	      void (*visit)(void *context, const struct lcs_range *range), void *context)
{
	uint32_t i = lcs->a_bytes;
	uint32_t j = lcs->b_bytes;
	uint32_t left = lcs_length(lcs);
	struct lcs_range range = { 0 };
	while (i > 0 && j > 0) {
		j = lcs_stop(lcs, i, j);
		bool match = j > 0 && lcs->a[i - 1] == lcs->b[j - 1];
		bool joins = match && range.a == i && range.b == j;
		if (range.length > 0 && !joins) {
			if (visit != NULL) {
				visit(context, &range);
			}
			range.length = 0;
		}
		i--;
		if (match) {
			j--;
			left--;
			range = (struct lcs_range){ i, j, range.length + 1 };
			if (subsequence != NULL) {
				subsequence[left] = lcs->a[i];
			}
		}
	}
	if (range.length > 0 && visit != NULL) {
		visit(context, &range);
	}
}
