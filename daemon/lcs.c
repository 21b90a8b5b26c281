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

enum lcs_phase { LCS_NUMBER, LCS_MASK, LCS_ROWS, LCS_LENGTH, LCS_DONE, LCS_FAILED };

struct lcs {
	const unsigned char *a;
	const unsigned char *b;
	uint32_t a_bytes;
	uint32_t b_bytes;
	enum lcs_phase phase;
	uint32_t numbered; // bytes of a that have a number
	uint32_t numbers;
	uint32_t masked; // bytes of b that the masks know
	uint32_t row;	 // how many are done
	size_t word;	 // of the row that is under way
	uint64_t carry;	 // into that word
	size_t words;	 // of a row
	bool keep;
	uint64_t *rows;		     // all of them, or the one that counts
	uint64_t *masks;	     // for each byte that occurs in a: where it stands in b
	uint32_t mask_of[LCS_BYTES]; // its number + 1
	uint32_t length;	     // of what is found, as far as it is counted
	size_t counted;		     // words of the last row
	// The way back: from here on.
	uint32_t i;
	uint32_t j;
	uint32_t left;
	struct lcs_range range;
};

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
	if (lcs->rows == NULL) {
		lcs_free(lcs);
		return NULL;
	}
	lcs->phase = a_bytes > 0 && b_bytes > 0 ? LCS_NUMBER : LCS_DONE;
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

/// Numbers up to `bytes` bytes of a; when all are, makes room for a mask for each.
static void lcs_number(struct lcs *lcs, uint64_t bytes)
{
	uint32_t left = lcs->a_bytes - lcs->numbered;
	uint32_t end = lcs->numbered + (bytes < left ? (uint32_t)bytes : left);
	for (; lcs->numbered < end; lcs->numbered++) {
		if (lcs->mask_of[lcs->a[lcs->numbered]] == 0) {
			lcs->mask_of[lcs->a[lcs->numbered]] = ++lcs->numbers;
		}
	}
	if (end == lcs->a_bytes) {
		lcs->masks = calloc(lcs->numbers, (lcs->words + 1) * sizeof(*lcs->masks));
		lcs->phase = lcs->masks != NULL ? LCS_MASK : LCS_FAILED;
	}
}

/// Lets the masks know up to `bytes` more of b.
static void lcs_mask(struct lcs *lcs, uint64_t bytes)
{
	uint32_t left = lcs->b_bytes - lcs->masked;
	uint32_t end = lcs->masked + (bytes < left ? (uint32_t)bytes : left);
	for (uint32_t j = lcs->masked; j < end; j++) {
		uint32_t number = lcs->mask_of[lcs->b[j]];
		if (number != 0) {
			lcs->masks[(number - 1) * lcs->words + j / 64] |= UINT64_C(1) << j % 64;
		}
	}
	lcs->masked = end;
	lcs->phase = end == lcs->b_bytes ? LCS_ROWS : LCS_MASK;
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

/// Up to `words` words of a row. Above the first there is one in which nothing grows: only ones.
static void lcs_row_words(struct lcs *lcs, uint64_t words)
{
	const uint64_t *mask = lcs_mask_of(lcs, lcs->row);
	const uint64_t *before = lcs->row > 0 ? lcs_row(lcs, lcs->row - 1) : NULL;
	uint64_t *after = lcs_row(lcs, lcs->row);
	uint64_t carry = lcs->carry;
	size_t left = lcs->words - lcs->word;
	size_t end = lcs->word + (words < left ? (size_t)words : left);
	for (size_t k = lcs->word; k < end; k++) {
		uint64_t old = before != NULL ? before[k] : UINT64_MAX;
		uint64_t hit = old & mask[k];
		uint64_t sum;
		uint64_t over = __builtin_add_overflow(old, hit, &sum);
		over |= __builtin_add_overflow(sum, carry, &sum);
		carry = over;
		after[k] = sum | (old & ~mask[k]);
	}
	lcs->word = end;
	lcs->carry = carry;
	if (end == lcs->words) {
		lcs->word = 0;
		lcs->carry = 0;
		lcs->row++;
		lcs->phase = lcs->row == lcs->a_bytes ? LCS_LENGTH : LCS_ROWS;
	}
}

/// Counts where the length grows in up to `words` words of the last row.
static void lcs_count(struct lcs *lcs, uint64_t words)
{
	const uint64_t *row = lcs_row(lcs, lcs->a_bytes - 1);
	size_t left = lcs->words - lcs->counted;
	size_t end = lcs->counted + (words < left ? (size_t)words : left);
	for (size_t k = lcs->counted; k < end; k++) {
		uint32_t bits = lcs->b_bytes - (uint32_t)k * 64;
		uint64_t used = bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
		lcs->length += (uint32_t)__builtin_popcountll(~row[k] & used);
	}
	lcs->counted = end;
	if (end == lcs->words) {
		lcs->phase = LCS_DONE;
		lcs->i = lcs->a_bytes;
		lcs->j = lcs->b_bytes;
		lcs->left = lcs->length;
	}
}

bool lcs_step(struct lcs *lcs, uint64_t words)
{
	while (words > 0 && lcs->phase < LCS_DONE) {
		uint64_t most = lcs->phase == LCS_ROWS ? lcs->words - lcs->word : words;
		most = most < words ? most : words;
		if (lcs->phase == LCS_NUMBER) {
			lcs_number(lcs, most);
		} else if (lcs->phase == LCS_MASK) {
			lcs_mask(lcs, most);
		} else if (lcs->phase == LCS_ROWS) {
			lcs_row_words(lcs, most);
		} else {
			lcs_count(lcs, most);
		}
		words -= most;
	}
	return lcs->phase < LCS_DONE;
}

bool lcs_failed(const struct lcs *lcs)
{
	return lcs->phase == LCS_FAILED;
}

uint32_t lcs_length(const struct lcs *lcs)
{
	return lcs->length;
}

/// The way back from (i, j): the greatest p up to j where byte p - 1 of b matches byte i - 1 of a,
/// or where the length grows in row i; 0 if there is none. What lies between is passed word by
/// word, of which *words may be looked at; false if they did not suffice: *p is then how far it
/// came.
static bool lcs_stop(const struct lcs *lcs, uint32_t i, uint32_t *p, uint64_t *words)
{
	const uint64_t *row = lcs_row(lcs, i - 1);
	const uint64_t *mask = lcs_mask_of(lcs, i - 1);
	size_t k = (*p - 1) / 64;
	uint64_t stops = (~row[k] | mask[k]) & (UINT64_MAX >> (63 - (*p - 1) % 64));
	for (*words -= 1; stops == 0 && k > 0; *words -= 1) {
		if (*words == 0) {
			*p = (uint32_t)k * 64;
			return false;
		}
		k--;
		stops = ~row[k] | mask[k];
	}
	*p = stops != 0 ? (uint32_t)k * 64 + 64 - (uint32_t)__builtin_clzll(stops) : 0;
	return true;
}

static void lcs_tell(struct lcs *lcs, void (*visit)(void *, const struct lcs_range *),
		     void *context)
{
	if (lcs->range.length > 0 && visit != NULL) {
		visit(context, &lcs->range);
	}
	lcs->range.length = 0;
}

bool lcs_walk(struct lcs *lcs, uint64_t words, unsigned char *subsequence,
	      void (*visit)(void *context, const struct lcs_range *range), void *context)
{
	while (lcs->i > 0 && lcs->j > 0) {
		if (words == 0 || !lcs_stop(lcs, lcs->i, &lcs->j, &words)) {
			return true;
		}
		bool match = lcs->j > 0 && lcs->a[lcs->i - 1] == lcs->b[lcs->j - 1];
		if (!match || lcs->range.a != lcs->i || lcs->range.b != lcs->j) {
			lcs_tell(lcs, visit, context);
		}
		lcs->i--;
		if (match) {
			lcs->j--;
			lcs->left--;
			lcs->range = (struct lcs_range){ lcs->i, lcs->j, lcs->range.length + 1 };
			if (subsequence != NULL) {
				subsequence[lcs->left] = lcs->a[lcs->i];
			}
		}
	}
	lcs_tell(lcs, visit, context);
	return false;
}
