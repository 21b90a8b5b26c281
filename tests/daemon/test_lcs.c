// SPDX-License-Identifier: MIT
//
// The bit-parallel longest common subsequence against the table of lengths that it replaces: the
// same length, the same choice among equally long subsequences, the same ranges, whatever the size
// of the steps.
#include "daemon/lcs.h"

#include <stdlib.h>
#include <string.h>

#include "tests/tap/tap.h"

#define BYTES_MAX 300u
#define ROUNDS 3000u

struct told {
	struct lcs_range ranges[BYTES_MAX];
	unsigned count;
};

static uint32_t lengths[BYTES_MAX + 1][BYTES_MAX + 1];

static void tell(void *context, const struct lcs_range *range)
{
	struct told *told = context;
	told->ranges[told->count++] = *range;
}

// The table, and the way back through it: up where that is longer, else to the left.
static uint32_t slow_lcs(const unsigned char *a, uint32_t a_bytes, const unsigned char *b,
			 uint32_t b_bytes, unsigned char *out, struct told *told)
{
	for (uint32_t i = 1; i <= a_bytes; i++) {
		for (uint32_t j = 1; j <= b_bytes; j++) {
			uint32_t up = lengths[i - 1][j];
			uint32_t left = lengths[i][j - 1];
			lengths[i][j] = up > left ? up : left;
			if (a[i - 1] == b[j - 1]) {
				lengths[i][j] = lengths[i - 1][j - 1] + 1;
			}
		}
	}
	uint32_t length = lengths[a_bytes][b_bytes];
	uint32_t at = length;
	told->count = 0;
	for (uint32_t i = a_bytes, j = b_bytes; i > 0 && j > 0;) {
		if (a[i - 1] != b[j - 1]) {
			if (lengths[i - 1][j] > lengths[i][j - 1]) {
				i--;
			} else {
				j--;
			}
			continue;
		}
		struct lcs_range *last = &told->ranges[told->count - (told->count > 0)];
		out[--at] = a[i - 1];
		if (told->count > 0 && last->a == i && last->b == j) {
			last->length++;
		} else {
			last = &told->ranges[told->count++];
			last->length = 1;
		}
		last->a = --i;
		last->b = --j;
	}
	return length;
}

static uint32_t make(unsigned char *out, uint64_t *random, unsigned letters)
{
	uint32_t bytes = (uint32_t)(tap_random(random) % (tap_random(random) % 2 ? 9 : BYTES_MAX));
	for (uint32_t i = 0; i < bytes; i++) {
		out[i] = (unsigned char)(250 + tap_random(random) % letters);
	}
	return bytes;
}

static bool agrees(uint64_t *random)
{
	static unsigned char a[BYTES_MAX], b[BYTES_MAX], wanted[BYTES_MAX], got[BYTES_MAX];
	static struct told wanted_ranges, got_ranges;
	unsigned letters = 1 + (unsigned)(tap_random(random) % 40);
	uint32_t a_bytes = make(a, random, letters);
	uint32_t b_bytes = make(b, random, letters);
	uint32_t length = slow_lcs(a, a_bytes, b, b_bytes, wanted, &wanted_ranges);
	uint64_t cells = 1 + tap_random(random) % (tap_random(random) % 2 ? 4 : 2000);
	bool same = true;
	for (int keep = 0; keep < 2; keep++) {
		struct lcs *lcs = lcs_begin(a, a_bytes, b, b_bytes, keep);
		while (lcs_step(lcs, cells)) {
		}
		same = same && lcs_length(lcs) == length;
		if (keep) {
			got_ranges.count = 0;
			while (lcs_walk(lcs, cells, got, tell, &got_ranges)) {
			}
			same = same && memcmp(got, wanted, length) == 0 &&
			       got_ranges.count == wanted_ranges.count &&
			       memcmp(got_ranges.ranges, wanted_ranges.ranges,
				      got_ranges.count * sizeof(struct lcs_range)) == 0;
		}
		lcs_free(lcs);
	}
	return same;
}

int main(void)
{
	uint64_t random = tap_seed(1);
	unsigned wrong = 0;
	for (unsigned round = 0; round < ROUNDS; round++) {
		wrong += !agrees(&random);
	}
	ok_u64(wrong, 0, "%u pairs of strings: length, subsequence and ranges as by the table",
	       ROUNDS);
	struct lcs *lcs =
		lcs_begin((const unsigned char *)"", 0, (const unsigned char *)"", 0, true);
	ok(!lcs_step(lcs, 1) && lcs_length(lcs) == 0, "of nothing and nothing");
	lcs_free(lcs);
	return tap_done();
}
