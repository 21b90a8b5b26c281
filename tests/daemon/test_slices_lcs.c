// SPDX-License-Identifier: MIT
//
// LCS in slices tells what it tells in one turn of both values as they were when it began, whatever
// becomes of them between any two slices.
#include "tests/daemon/slices_fixture.h"

#define BYTES 1000u
#define LONG_BYTES 300000u // large: pinned

static unsigned char *others;
static unsigned char *value;

static void test_line(const char *line, size_t bytes, size_t second_bytes)
{
	slices_hurried = false;
	unsigned wrong = 0;
	unsigned last = 0;
	slices_set("key", value, bytes);
	slices_set("two", value + 77, second_bytes);
	char *expected = strdup(slices_ask(false, line));
	ok_u64(slices.cuts, 0, "%s in one turn", line);
	for (int change = 0; change < SLICES_CHANGES; change++) {
		bool more = true;
		for (unsigned at = 1; more; at += tap_step(1, 16)) {
			slices_set("key", value, bytes);
			slices_set("two", value + 77, second_bytes);
			slices_hurried = true;
			slices_send(line);
			for (unsigned i = 0; i < at && more; i++) {
				more = slices_step();
			}
			if (more) {
				slices_change((enum slices_change)change, others, bytes);
			}
			const char *got = slices_finish();
			wrong += !got || strcmp(got, expected) != 0;
			last = at > last ? at : last;
		}
	}
	ok(last > 1 && wrong == 0, "A: the same in up to %u slices", last);
	free(expected);
}

int main(void)
{
	slices_open();
	value = malloc(LONG_BYTES + 100);
	others = malloc(3000000);
	memset(others, 'o', 3000000);
	for (size_t i = 0; i < LONG_BYTES + 100; i++) {
		value[i] = (unsigned char)('a' + (i * 7 + (i >> 5) + i * i % 11) % 26);
	}
	test_line("LCS key two", BYTES, BYTES);
	test_line("LCS key two LEN", BYTES, BYTES - 9);
	test_line("LCS key two IDX MINMATCHLEN 2 WITHMATCHLEN", BYTES, BYTES);
	test_line("LCS key two", LONG_BYTES, 2);
	test_line("LCS two key IDX", LONG_BYTES, 2);
	ok(slices.session->buffer_bytes ==
		   slices.session->output_bytes + slices.session->input_bytes,
	   "G: nothing is charged any more");
	slices_close();
	free(value);
	free(others);
	return tap_done();
}
