// SPDX-License-Identifier: MIT
//
// BITCOUNT and BITPOS in slices: what they tell is what one look at the value as it was when they
// began tells, whatever becomes of its key between any two slices.
#include "tests/daemon/slices_fixture.h"

#define LARGE_BYTES 2000003u // pinned
#define SMALL_BYTES 250001u  // in the log: copied

static unsigned char *value;
static unsigned char *others;

static unsigned ask_with(const char *line, size_t bytes, enum slices_change change, unsigned at,
			 const char *expected)
{
	slices_hurried = false;
	slices_set("key", value, bytes);
	slices_hurried = true;
	slices_send(line);
	bool more = true;
	for (unsigned i = 0; i < at && more; i++) {
		more = slices_step();
	}
	if (more && at > 0) {
		slices_change(change, others, bytes);
	}
	const char *got = slices_finish();
	if (!got || strcmp(got, expected) != 0) {
		tap_diag("%s, change %d in slice %u: got '%s', expected '%s'", line, (int)change,
			 at, got ? got : "nothing", expected);
		return 1;
	}
	return 0;
}

static void test_line(const char *line, size_t bytes)
{
	char expected[64];
	unsigned wrong = 0;
	slices_set("key", value, bytes);
	(void)snprintf(expected, sizeof(expected), "%s", slices_ask(false, line));
	ok_u64(slices.cuts, 0, "%s with time", line);
	(void)slices_ask(true, line);
	unsigned cuts = slices.cuts;
	for (int change = 0; change < SLICES_CHANGES; change++) {
		for (unsigned at = 0; at <= 3; at += tap_step(1, 3)) {
			wrong += ask_with(line, bytes, (enum slices_change)change, at, expected);
		}
	}
	ok(cuts >= (bytes > 1000000 ? 10 : 1), "G: it is cut %u times", cuts);
	ok_u64(wrong, 0, "A: and tells of one moment, whatever changes meanwhile");
}

static void test_tracking(void)
{
	slices_set("key", value, LARGE_BYTES);
	(void)slices_ask(false, "HELLO 3");
	(void)slices_ask(false, "CLIENT TRACKING ON");
	slices_hurried = true;
	slices_send("BITCOUNT key");
	ok(slices_step() && slices_step(), "A: a client that caches what it reads in slices");
	slices_interrupt("SET key x");
	const char *got = slices_finish();
	ok(got && strstr(got, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n") && got[0] == ':',
	   "A: is told of a change that came between, behind the reply");
	(void)slices_ask(false, "CLIENT TRACKING OFF");
	(void)slices_ask(false, "HELLO 2");
}

int main(void)
{
	slices_open();
	value = calloc(1, LARGE_BYTES);
	others = malloc(3000000);
	memset(others, 0xaa, 3000000);
	for (size_t i = 0; i < LARGE_BYTES; i++) {
		value[i] = (unsigned char)(i * 7 + (i >> 9));
	}
	test_line("BITCOUNT key", LARGE_BYTES);
	test_line("BITCOUNT key 3 -17 BIT", LARGE_BYTES);
	test_line("BITCOUNT key", SMALL_BYTES);
	memset(value, 0, LARGE_BYTES);
	value[LARGE_BYTES - 2] = 1;
	test_line("BITPOS key 1", LARGE_BYTES);
	test_line("BITPOS key 1 5 -2", LARGE_BYTES);
	memset(value, 0xff, LARGE_BYTES);
	test_line("BITPOS key 0", LARGE_BYTES);
	test_line("BITPOS key 0 0 -1", LARGE_BYTES);
	test_line("BITPOS key 0 9", SMALL_BYTES);
	test_tracking();
	slices_set("key", others, 10);
	slices_set("log", others, 10);
	slices_set("run", others, 10);
	for (int i = 0; i < 20; i++) {
		slices_set("small", others, 10);
		(void)loop_turn(slices.kvd.loop, 0);
		(void)keyspace_admit(slices.kvd.keyspace, 200000);
	}
	ok_u64(slices.session->buffer_bytes - slices.session->output_bytes -
		       slices.session->input_bytes,
	       0, "G: nothing is charged any more");
	slices_close();
	free(value);
	free(others);
	return tap_done();
}
