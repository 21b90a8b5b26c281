// SPDX-License-Identifier: MIT
//
// BITFIELD in slices: replies and value are those of one turn, made from one version of the value,
// and from the newest one if it writes, whatever becomes of the key between any two slices.
#include "tests/daemon/slices_fixture.h"

#define LARGE_BYTES 2000003u
#define SMALL_BYTES 200001u // in the log
#define OPS 400u

static unsigned char *value;
static unsigned char *others;

/// What a call is to answer and to leave behind.
struct result {
	char *reply;
	unsigned char *value;
	size_t bytes; // 0 = no such key
};

static void result_take(struct result *result, const char *reply)
{
	struct keyspace_value got = { 0 };
	(void)keyspace_get(slices.kvd.keyspace, "key", 3, &got);
	result->reply = strdup(reply ? reply : "nothing");
	result->bytes = got.value_bytes;
	result->value = malloc(got.value_bytes + 1);
	if (got.value_bytes > 0) {
		memcpy(result->value, got.value, got.value_bytes);
	}
}

static void result_free(struct result *result)
{
	free(result->reply);
	free(result->value);
}

static bool result_same(const struct result *a, const struct result *b)
{
	return strcmp(a->reply, b->reply) == 0 && a->bytes == b->bytes &&
	       memcmp(a->value, b->value, a->bytes) == 0;
}

/// In one turn, of this value.
static void result_expect(struct result *result, const char *line, const void *from, size_t bytes)
{
	(void)keyspace_delete(slices.kvd.keyspace, "key", 3);
	if (bytes > 0) {
		slices_set("key", from, bytes);
	}
	const char *reply = slices_ask(false, line);
	ok_u64(slices.cuts, 0, "in one turn");
	result_take(result, reply);
}

/// A call that the change meets in slice `at`; true as long as there is such a slice.
static bool try_change(const char *line, size_t bytes, enum slices_change change, unsigned at,
		       bool writes, const struct result expected[3], unsigned *wrong)
{
	slices_hurried = false;
	slices_set("key", value, bytes);
	slices_hurried = true;
	slices_send(line);
	bool more = true;
	for (unsigned i = 0; i < at && more; i++) {
		more = slices_step();
	}
	if (!more) {
		(void)slices_finish();
		return false;
	}
	slices_change(change, others, bytes);
	struct result got;
	result_take(&got, slices_finish());
	const struct result *best = &expected[0];
	if (change != SLICES_NONE) {
		best = &expected[change == SLICES_SET ? 1 : 2];
	}
	bool good = writes ? result_same(&got, best) : strcmp(got.reply, best->reply) == 0;
	// What reads goes through its arguments first: then it is all as it was, or all as it is.
	good = good || (!writes && strcmp(got.reply, expected[0].reply) == 0);
	if (!good) {
		tap_diag("change %d in slice %u: %zu bytes, '%.60s', expected %zu, '%.60s'",
			 (int)change, at, got.bytes, got.reply, best->bytes, best->reply);
	}
	*wrong += !good;
	result_free(&got);
	return true;
}

static void test_line(const char *what, const char *line, size_t bytes, bool writes)
{
	struct result expected[3];
	unsigned wrong = 0;
	unsigned last = 0;
	result_expect(&expected[0], line, value, bytes);
	result_expect(&expected[1], line, others, bytes);
	result_expect(&expected[2], line, NULL, 0);
	for (int change = 0; change < SLICES_CHANGES; change++) {
		unsigned at = 1;
		while (try_change(line, bytes, (enum slices_change)change, at, writes, expected,
				  &wrong)) {
			at += at < 8 || change == 0 ? tap_step(1, 40) : tap_step(5, 40);
			last = at > last ? at : last;
		}
	}
	ok(last > 4, "G: %s: up to %u slices", what, last);
	ok_u64(wrong, 0, "A: replies and value are those of one turn, whatever changes meanwhile");
	for (int i = 0; i < 3; i++) {
		result_free(&expected[i]);
	}
}

/// One that never comes to an end in slices, for the key changes before each.
static void test_restless(const char *line)
{
	slices_hurried = true;
	slices_set("key", value, LARGE_BYTES);
	slices_send(line);
	unsigned turns = 0;
	for (; slices_step() && turns < 5000; turns++) {
		value[0]++;
		slices_set("key", value, LARGE_BYTES);
	}
	struct result got;
	struct result expected;
	result_take(&got, slices_finish());
	result_expect(&expected, line, value, LARGE_BYTES);
	ok(turns > 10 && turns < 100 && result_same(&got, &expected),
	   "G: where the key changes all the time it is done after %u turns", turns);
	result_free(&got);
	result_free(&expected);
}

/// OPS operations on places up to `bytes`.
static char *make_line(const char *command, const char *verb, size_t bytes, bool number)
{
	size_t room = OPS * 64;
	char *line = malloc(room);
	size_t end = (size_t)snprintf(line, room, "%s key", command);
	for (unsigned i = 0; i < OPS; i++) {
		size_t bit = ((size_t)i * 7919 * 631) % (bytes * 8);
		end += (size_t)snprintf(line + end, room - end, " %s %c%u %zu", verb,
					i % 2 ? 'u' : 'i', 1 + i * 5 % 63, bit);
		end += number ? (size_t)snprintf(line + end, room - end, " %u", i * 12345) : 0;
	}
	return line;
}

int main(void)
{
	slices_open();
	value = malloc(LARGE_BYTES);
	others = malloc(3000000);
	for (size_t i = 0; i < LARGE_BYTES; i++) {
		value[i] = (unsigned char)(i * 7 + (i >> 9));
	}
	for (size_t i = 0; i < 3000000; i++) {
		others[i] = (unsigned char)(i * 13 + (i >> 11));
	}
	char *line = make_line("BITFIELD_RO", "GET", LARGE_BYTES + 100, false);
	test_line("reads", line, LARGE_BYTES, false);
	test_line("reads of a value in the log", line, SMALL_BYTES, false);
	free(line);
	line = make_line("BITFIELD", "INCRBY", LARGE_BYTES + 100, true);
	test_line("far apart", line, LARGE_BYTES, true);
	test_restless(line);
	free(line);
	line = make_line("BITFIELD", "SET", 5000, true);
	test_line("close together", line, LARGE_BYTES, true);
	test_line("in a value in the log", line, SMALL_BYTES, true);
	free(line);
	test_line("past the end", "BITFIELD key GET u8 5 SET u8 16000000 1 GET i5 7", SMALL_BYTES,
		  true);
	ok(!slices.session->dead && slices.session->slice.scratch == NULL, "all over");
	ok(slices.session->buffer_bytes ==
		   slices.session->output_bytes + slices.session->input_bytes,
	   "G: nothing is charged any more");
	slices_close();
	free(value);
	free(others);
	return tap_done();
}
