// SPDX-License-Identifier: MIT
//
// The Debian control parser: which bytes are a record, which its key, and nasty input; each input
// both from memory and from a pipe in seeded small pieces.
#include <sys/wait.h>
#include <unistd.h>

#include "tests/tap/tap.h"
#include "tools/deb822.h"

// What the parser made of an input: one line a result.
static char seen[8192];

static void see(enum item_result result, const struct item *item)
{
	size_t at = strlen(seen);
	switch (result) {
	case ITEM_READY:
		snprintf(seen + at, sizeof seen - at, "%" PRIu64 " [%.*s] {%.*s}\n", item->line,
			 (int)item->key_bytes, item->key, (int)item->value_bytes, item->value);
		break;
	case ITEM_BAD:
		snprintf(seen + at, sizeof seen - at, "%" PRIu64 " bad: %s\n", item->line,
			 item->error);
		break;
	case ITEM_FAILED:
		snprintf(seen + at, sizeof seen - at, "failed: %s\n", item->error);
		break;
	case ITEM_END:
		break;
	}
}

static void parse(struct source *source, size_t record_bytes_max)
{
	struct deb822 parser;
	struct item item = { 0 };
	enum item_result result;
	seen[0] = '\0';
	deb822_init(&parser, source, "Package");
	if (record_bytes_max > 0) {
		parser.record_bytes_max = record_bytes_max;
	}
	do {
		result = deb822_next(&parser, &item);
		see(result, &item);
	} while (result == ITEM_READY || result == ITEM_BAD);
	source_free(source);
}

// A child writes the input in pieces of 1 to 7 bytes, so that lines and records arrive in parts.
static void parse_pieces(const char *text, size_t bytes, size_t record_bytes_max, uint64_t *seed)
{
	int ends[2];
	struct source source;
	if (pipe(ends) != 0 || !source_init_fd(&source, ends[0])) {
		return;
	}
	uint64_t state = tap_random(seed);
	pid_t child = fork();
	if (child == 0) {
		while (bytes > 0) {
			size_t piece = 1 + tap_random(&state) % 7;
			ssize_t wrote = write(ends[1], text, piece < bytes ? piece : bytes);
			text += wrote > 0 ? wrote : 0;
			bytes -= wrote > 0 ? (size_t)wrote : bytes;
		}
		_exit(0);
	}
	close(ends[1]);
	parse(&source, record_bytes_max);
	close(ends[0]);
	waitpid(child, NULL, 0);
}

static void expect_limit(const char *text, size_t bytes, size_t record_bytes_max,
			 const char *expected, const char *name, uint64_t *seed)
{
	struct source source;
	if (!ok(source_init_memory(&source, text, bytes), "%s: source", name)) {
		return;
	}
	parse(&source, record_bytes_max);
	ok_str(seen, expected, "%s", name);
	parse_pieces(text, bytes, record_bytes_max, seed);
	ok_str(seen, expected, "%s, in pieces", name);
}

#define EXPECT(text, expected, name) expect_limit(text, sizeof text - 1, 0, expected, name, seed)

static void test_records(uint64_t *seed)
{
	EXPECT("", "", "nothing");
	EXPECT("\n\n \n\t\r\n", "", "only blank lines");
	EXPECT("Package: a\nX: 1\n\nPackage: b\n",
	       "1 [a] {Package: a\nX: 1\n}\n4 [b] {Package: b\n}\n", "two records");
	EXPECT("\n\nPackage: a\n\n\n \n\nX: 1\nPackage: b",
	       "3 [a] {Package: a\n}\n8 [b] {X: 1\nPackage: b}\n",
	       "blank lines around, no newline at the end");
	EXPECT("Package: a\r\nX: 1\r\n\r\nPackage: b\r\n\r\n",
	       "1 [a] {Package: a\r\nX: 1\r\n}\n4 [b] {Package: b\r\n}\n",
	       "CR LF stays in the value");
	EXPECT("pAcKaGe:\t  a b \t\n", "1 [a b] {pAcKaGe:\t  a b \t\n}\n",
	       "name without case, value trimmed");
	EXPECT("Package:a\nPackage: b\n", "1 [a] {Package:a\nPackage: b\n}\n",
	       "the first of two counts");
	EXPECT("D: x\n Package: no\nPackage: a\n", "1 [a] {D: x\n Package: no\nPackage: a\n}\n",
	       "a folded line is no field");
	EXPECT("Package:\n a\n\tb \nX: 1\n c\n", "1 [a b] {Package:\n a\n\tb \nX: 1\n c\n}\n",
	       "a folded key is joined");
}

static void test_bytes(void)
{
	static const char text[] = "Package: a\0b\nX: \xff\0\n";
	struct source source;
	struct deb822 parser;
	struct item item = { 0 };
	if (!ok(source_init_memory(&source, text, sizeof text - 1), "a record with NUL bytes")) {
		return;
	}
	deb822_init(&parser, &source, "Package");
	ok(deb822_next(&parser, &item) == ITEM_READY, "it is a record");
	ok(item.key_bytes == 3 && memcmp(item.key, "a\0b", 3) == 0, "its key has the NUL");
	ok(item.value_bytes == sizeof text - 1 && memcmp(item.value, text, item.value_bytes) == 0,
	   "its value is every byte");
	source_free(&source);
}

static void test_bad(uint64_t *seed)
{
	EXPECT("X: 1\n\nPackage: a\n",
	       "1 bad: record has no field 'Package'\n3 [a] {Package: a\n}\n", "no key field");
	EXPECT("Package:  \nX: 1\n", "1 bad: record has no field 'Package'\n",
	       "an empty key field");
	EXPECT("Packages: a\n\nPackage a\n\nPackage\n",
	       "1 bad: record has no field 'Package'\n3 bad: record has no field 'Package'\n"
	       "5 bad: record has no field 'Package'\n",
	       "longer names, no colon, only the name");
	EXPECT(" Package: a\n", "1 bad: record has no field 'Package'\n",
	       "a record that begins folded");
}

// The parser's own result for the longest key, and one more.
static void test_key_limit(void)
{
	for (size_t key_bytes = 510; key_bytes <= 513; key_bytes++) {
		char text[700];
		struct source source;
		struct deb822 parser;
		struct item item = { 0 };
		memset(text, 'k', sizeof text);
		memcpy(text, "Package: ", 9);
		if (!source_init_memory(&source, text, 9 + key_bytes)) {
			continue;
		}
		deb822_init(&parser, &source, "Package");
		enum item_result result = deb822_next(&parser, &item);
		ok(key_bytes <= 511 ? result == ITEM_READY && item.key_bytes == key_bytes
				    : result == ITEM_BAD && strstr(item.error, "at most 511"),
		   "key of %zu bytes", key_bytes);
		source_free(&source);
	}
}

static void test_record_limit(uint64_t *seed)
{
	static const char text[] = "Package: a\nX: 1\n\nPackage: b\nX: 12\n\nPackage: c\n";
	expect_limit(text, sizeof text - 1, 16,
		     "1 [a] {Package: a\nX: 1\n}\n"
		     "4 bad: record is longer than 16 bytes, the largest value\n"
		     "7 [c] {Package: c\n}\n",
		     "a record over the limit is one error, the next is read", seed);
	static const char line[] = "Package: abcdefghijklmnopqrstuvwxyz\nX: 1\n\nPackage: c\n";
	expect_limit(line, sizeof line - 1, 16,
		     "1 bad: record is longer than 16 bytes, the largest value\n"
		     "4 [c] {Package: c\n}\n",
		     "a line over the limit too", seed);
	expect_limit(line, 30, 16, "1 bad: record is longer than 16 bytes, the largest value\n",
		     "also the last one", seed);
}

static void test_failing_source(void)
{
	struct source source;
	if (ok(source_init_fd(&source, -1), "a source on a bad descriptor")) {
		parse(&source, 0);
		ok_str(seen, "failed: cannot read: Bad file descriptor\n", "a read error is told");
	}
}

int main(void)
{
	uint64_t seed = tap_seed(1);
	test_records(&seed);
	test_bytes();
	test_bad(&seed);
	test_key_limit();
	test_record_limit(&seed);
	test_failing_source();
	return tap_done();
}
