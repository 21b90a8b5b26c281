// SPDX-License-Identifier: MIT
//
// BITOP in slices: the result is that of the keys as they are when it is written, whatever becomes
// of one of them between any two slices, and it is written once; changes of other keys do not
// matter.
#include "daemon/keyspace_guard.h"
#include "tests/daemon/slices_fixture.h"

#define LARGE_BYTES 600003u
#define OTHER_BYTES 300001u
#define SMALL_BYTES 1000u
#define MANY 200u
#define MODEL_WORDS 400000u

static unsigned char *value;
static unsigned char *second;
static unsigned char *others;
static uint64_t *model;
static size_t model_bytes;

/// The obvious, by words: the next source into the result.
static void model_add(const char *op, const char *key, bool first)
{
	static uint64_t from[MODEL_WORDS];
	struct keyspace_value got = { 0 };
	(void)keyspace_get(slices.kvd.keyspace, key, strlen(key), &got);
	size_t bytes = got.value_bytes > model_bytes ? got.value_bytes : model_bytes;
	memset(from, 0, bytes + sizeof(*from));
	memset((char *)model + model_bytes, 0, bytes + sizeof(*model) - model_bytes);
	if (got.value_bytes > 0) {
		memcpy(from, got.value, got.value_bytes);
	}
	for (size_t i = 0; i < bytes / sizeof(*model) + 1; i++) {
		uint64_t both = *op == 'A'   ? model[i] & from[i]
				: *op == 'O' ? model[i] | from[i]
					     : model[i] ^ from[i];
		model[i] = *op == 'N' ? ~from[i] : first ? from[i] : both;
	}
	model_bytes = bytes;
}

/// "BITOP op dest source source …" of what the keys are now.
static void model_of(const char *line)
{
	char op[8] = "";
	char key[32] = "";
	char target[32];
	int used = 0;
	bool first = true;
	(void)sscanf(line, "BITOP %7s %31s%n", op, target, &used);
	model_bytes = 0;
	for (const char *at = line + used; sscanf(at, " %31s%n", key, &used) == 1; at += used) {
		model_add(op, key, first);
		first = false;
	}
}

static void prepare(void)
{
	slices_hurried = false;
	slices_set("key", value, LARGE_BYTES);
	slices_set("two", second, OTHER_BYTES);
	slices_set("six", value + 9, SMALL_BYTES);
	slices_set("dest", "x", 1);
}

/// True as long as there is a slice `at`.
static bool try_change(const char *line, enum slices_change change, unsigned at, unsigned *wrong)
{
	char expected[32];
	prepare();
	if (change != SLICES_NONE && at == 0) {
		slices_change(change, others, LARGE_BYTES);
	}
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
	if (at > 0) {
		slices_change(change, others, LARGE_BYTES);
	}
	model_of(line);
	const char *got = slices_finish();
	(void)snprintf(expected, sizeof(expected), ":%zu\r\n", model_bytes);
	struct keyspace_value none;
	bool good = got && strcmp(got, expected) == 0 &&
		    (model_bytes > 0 ? slices_is("dest", model, model_bytes)
				     : keyspace_get(slices.kvd.keyspace, "dest", 4, &none) ==
					       KEYSPACE_ABSENT);
	if (!good) {
		tap_diag("%.40s, change %d in slice %u: '%s', expected '%s'", line, (int)change, at,
			 got ? got : "nothing", expected);
	}
	*wrong += !good;
	return true;
}

static void test_line(const char *line)
{
	unsigned wrong = 0;
	unsigned last = 0;
	for (int change = 0; change < SLICES_CHANGES; change++) {
		unsigned at = 0;
		while (try_change(line, (enum slices_change)change, at, &wrong)) {
			at += at < 4 ? tap_step(1, 4) : tap_step(4, 24);
			last = at > last ? at : last;
		}
	}
	ok(last >= 4 && wrong == 0, "A: %.40s: up to %u slices, whatever changes meanwhile", line,
	   last);
}

static void test_into_itself(void)
{
	prepare();
	model_of("BITOP XOR key key two");
	(void)slices_ask(true, "BITOP XOR key key two");
	ok(slices.cuts > 5 && slices_is("key", model, model_bytes),
	   "A: one of the keys may be what is written");
}

/// A line with `count` times `key` in it, or key0, key1, … of small values.
static char *make_line(const char *head, const char *key, unsigned count)
{
	size_t room = 64 + count * 16;
	char *line = malloc(room);
	size_t end = (size_t)snprintf(line, room, "%s", head);
	for (unsigned i = 0; i < count; i++) {
		end += (size_t)snprintf(line + end, room - end, " %s", key);
		if (strcmp(key, "small") == 0) {
			char name[16];
			end += (size_t)snprintf(line + end, room - end, "%u", i);
			(void)snprintf(name, sizeof(name), "small%u", i);
			slices_set(name, second + i, i);
		}
	}
	return line;
}

static void test_restless(void)
{
	prepare();
	char *line = make_line("BITOP OR dest", "key", 3);
	slices_hurried = true;
	slices_send(line);
	unsigned turns = 0;
	for (; slices_step() && turns < 5000; turns++) {
		value[0]++;
		slices_set("key", value, LARGE_BYTES);
	}
	(void)slices_finish();
	ok(turns > 10 && turns < 100 && slices_is("dest", value, LARGE_BYTES),
	   "G: where a key changes all the time it is done after %u turns", turns);
	free(line);
	line = make_line("BITOP OR dest", "key", 450);
	slices_send(line);
	for (turns = 0; slices_step() && turns < 5000; turns++) {
		slices_set("key", value, LARGE_BYTES);
	}
	ok(turns > 10 && strncmp(slices_finish(), "-TRYAGAIN ", 10) == 0,
	   "G: and refused, if that would keep others waiting for long");
	free(line);
}

/// The first slice ends at the `looks`-th look at the clock, when no guard can be had. Then a key
/// changes, and a guard can. Returns false if it was over before.
static bool try_without_guard(unsigned looks, unsigned *wrong)
{
	struct keyspace *keyspace = slices.kvd.keyspace;
	struct keyspace_guard taken[KEYSPACE_GUARDS_MAX] = { 0 };
	uint64_t places[KEYSPACE_GUARDS_MAX][2] = { 0 };
	unsigned count = 0;
	prepare();
	while (count < KEYSPACE_GUARDS_MAX &&
	       keyspace_guard_open(keyspace, &taken[count], places[count], 2)) {
		count++;
	}
	slices_hurry_after = looks;
	slices_hurried = true;
	slices_send("BITOP OR dest key");
	bool more = slices_step();
	slices_hurry_after = 0;
	if (more) {
		slices_set("key", others, LARGE_BYTES);
	}
	for (unsigned i = 0; i < count; i++) {
		keyspace_guard_close(&taken[i]);
	}
	(void)slices_finish();
	*wrong += !slices_is("dest", more ? others : value, LARGE_BYTES);
	return more;
}

/// It begins anew when it has a guard, and nothing of what was staged of its result before is in
/// what it writes.
static void test_without_guard(void)
{
	unsigned looks = 0;
	unsigned wrong = 0;
	while (try_without_guard(looks, &wrong)) {
		looks++;
	}
	ok(looks > 8 && wrong == 0, "A: without a guard (%u places) it waits, and is made anew",
	   looks);
}

static void test_beside(void)
{
	prepare();
	const char *line = "BITOP OR dest key two";
	(void)slices_ask(true, line);
	unsigned cuts = slices.cuts;
	slices_send(line);
	for (unsigned i = 0; slices_step(); i++) {
		slices_set(i % 2 ? "dest" : "three", "beside", i % 6);
	}
	(void)slices_finish();
	model_of(line);
	ok(slices.cuts == cuts && slices_is("dest", model, model_bytes),
	   "what becomes of other keys does not hold it up");
}

static void test_ends(void)
{
	const char *line = "BITOP OR dest key two";
	unsigned wrong = 0;
	unsigned at = 1;
	for (bool more = true; more; at += tap_step(1, 8)) {
		prepare();
		(void)keyspace_expire(slices.kvd.keyspace, "key", 3, slices_wall_now_ms + 50);
		slices_hurried = true;
		slices_send(line);
		for (unsigned i = 0; i < at && more; i++) {
			more = slices_step();
		}
		slices_wall_now_ms += more ? 100 : 0; // nobody touches it, nothing is written
		(void)slices_finish();
		wrong += more && !slices_is("dest", second, OTHER_BYTES);
	}
	ok(at > 10 && wrong == 0, "A: a key that ends meanwhile, unnoticed, counts as absent");
}

static void test_guards(void)
{
	struct keyspace_guard guards[KEYSPACE_GUARDS_WRITER_MAX + 1] = { 0 };
	uint64_t places[2] = { 0 };
	unsigned opened = 0;
	prepare();
	while (keyspace_guard_open(slices.kvd.keyspace, &guards[opened], places, 2)) {
		opened++;
	}
	ok_u64(opened, KEYSPACE_GUARDS_WRITER_MAX, "G: one user's have a bound");
	keyspace_guard_add(slices.kvd.keyspace, &guards[0], "two", 3);
	slices_set("key", value, 10);
	ok(!guards[0].broken, "another key");
	slices_set("two", second, OTHER_BYTES);
	ok(guards[0].broken, "the key");
	slices_hurried = true;
	slices_set("key", value, LARGE_BYTES);
	slices_send("BITOP OR dest key two");
	unsigned turns = 0;
	while (turns < 100 && slices_step()) {
		turns++;
	}
	ok_u64(turns, 100, "who cannot watch over its keys waits");
	slices_set("key", second, LARGE_BYTES - 5);
	keyspace_guard_close(&guards[1]);
	(void)slices_finish();
	model_of("BITOP OR dest key two");
	ok(slices_is("dest", model, model_bytes), "A: and begins when it can");
	for (unsigned i = 0; i < opened; i++) {
		keyspace_guard_close(&guards[i]);
	}
}

int main(void)
{
	slices_open();
	value = malloc(LARGE_BYTES);
	second = malloc(LARGE_BYTES);
	others = malloc(3000000);
	model = malloc(MODEL_WORDS * sizeof(*model));
	for (size_t i = 0; i < 3000000; i++) {
		others[i] = (unsigned char)(i * 13 + (i >> 11));
		value[i % LARGE_BYTES] = (unsigned char)(i * 7 + (i >> 9));
		second[i % LARGE_BYTES] = (unsigned char)(i * 31 + (i >> 5) + 3);
	}
	test_line("BITOP AND dest key two");
	test_line("BITOP AND dest two key");
	test_line("BITOP OR dest six key two none");
	test_line("BITOP XOR dest two key six key key");
	test_line("BITOP NOT dest key");
	char *line = make_line("BITOP XOR dest key", "small", MANY);
	test_line(line);
	free(line);
	line = make_line("BITOP OR dest", "none", MANY);
	test_line(line);
	free(line);
	test_into_itself();
	test_restless();
	test_without_guard();
	test_beside();
	test_ends();
	test_guards();
	ok(slices.session->buffer_bytes ==
		   slices.session->output_bytes + slices.session->input_bytes,
	   "G: nothing is charged any more");
	slices_close();
	free(value);
	free(second);
	free(others);
	free(model);
	return tap_done();
}
