// SPDX-License-Identifier: MIT
//
// Glob patterns: Redis's corners one by one, then generated patterns against a matcher that says
// the same recursively and slowly, then patterns that make recursive matchers run for ever. G:
// matching is bounded by pattern times string.
#include "daemon/glob.h"

#include <time.h>

#include "tests/tap/tap.h"

struct glob_case {
	const char *pattern;
	const char *string;
	bool nocase;
	bool matches;
};

static const struct glob_case cases[] = {
	{ "*", "anything", false, true },
	// Redis: a star alone does not match nothing; keys are never empty
	{ "*", "", false, false },
	{ "", "", false, true },
	{ "", "a", false, false },
	{ "a", "", false, false },
	{ "h?llo", "hello", false, true },
	{ "h?llo", "hllo", false, false },
	{ "h*llo", "heeeello", false, true },
	{ "h*llo", "hllo", false, true },
	{ "h*llo", "hll", false, false },
	{ "h[ae]llo", "hallo", false, true },
	{ "h[ae]llo", "hillo", false, false },
	{ "h[^e]llo", "hallo", false, true },
	{ "h[^e]llo", "hello", false, false },
	{ "h[a-c]llo", "hbllo", false, true },
	{ "h[c-a]llo", "hbllo", false, true }, // ends the wrong way round
	{ "h[a-c]llo", "hdllo", false, false },
	{ "h\\*llo", "h*llo", false, true },
	{ "h\\*llo", "hello", false, false },
	{ "h[\\]]llo", "h]llo", false, true },
	{ "h[\\^a]llo", "h^llo", false, true },
	{ "[a-z]", "-", false, false },
	{ "[a-]", "a", false, true }, // the range ends at ']', the class with the pattern
	{ "[", "[", false, false },
	{ "[abc", "b", false, true }, // open class
	{ "[^", "x", false, true },
	{ "\\", "\\", false, true }, // a backslash at the end is itself
	{ "a\\", "a\\", false, true },
	{ "HELLO", "hello", true, true },
	{ "HELLO", "hello", false, false },
	{ "h[A-C]llo", "hbllo", true, true },
	{ "h[\\A]llo", "hallo", true, false }, // escaped in a class: case counts
	{ "**a**", "bab", false, true },
	{ "a*b*c", "aXbXbXc", false, true },
	{ "a*b*c", "aXbXbX", false, false },
	{ "?", "ab", false, false },
	{ "a**", "a", false, true },
	{ "*?", "a", false, true },
	{ "*?*?", "a", false, false },
};

static bool reference_class(const char **pattern, const char *end, char byte)
{
	const char *at = *pattern;
	bool negated = at < end && *at == '^';
	bool found = false;
	at += negated;
	for (; at < end; at++) {
		if (*at == '\\' && at + 1 < end) {
			at++;
			found |= *at == byte;
		} else if (*at == ']') {
			at++;
			break;
		} else if (end - at >= 3 && at[1] == '-') {
			signed char low = (signed char)at[0], high = (signed char)at[2];
			found |= low <= high
					 ? (signed char)byte >= low && (signed char)byte <= high
					 : (signed char)byte >= high && (signed char)byte <= low;
			at += 2;
		} else {
			found |= *at == byte;
		}
	}
	*pattern = at;
	return found != negated;
}

/// The definition, without any cleverness: a star matches nothing, or one byte and again a star.
static bool reference_match(const char *pattern, const char *pattern_end, const char *string,
			    const char *string_end)
{
	if (pattern == pattern_end) {
		return string == string_end;
	}
	if (*pattern == '*') {
		return reference_match(pattern + 1, pattern_end, string, string_end) ||
		       (string < string_end &&
			reference_match(pattern, pattern_end, string + 1, string_end));
	}
	if (string == string_end) {
		return false;
	}
	char byte = *string;
	bool same;
	if (*pattern == '[') {
		pattern++;
		same = reference_class(&pattern, pattern_end, byte);
	} else if (*pattern == '?') {
		pattern++;
		same = true;
	} else {
		if (*pattern == '\\' && pattern + 1 < pattern_end) {
			pattern++;
		}
		same = *pattern++ == byte;
	}
	return same && reference_match(pattern, pattern_end, string + 1, string_end);
}

/// Matches the pattern as it is, and made ready beforehand: both say the same.
static bool both_match(const char *pattern, size_t n, const char *string, size_t m, bool *same)
{
	bool matches = glob_match(pattern, n, string, m, false);
	struct glob *glob = glob_prepare(pattern, n);
	*same = glob != NULL && glob_fits(glob, string, m) == matches;
	glob_free(glob);
	return matches;
}

static void test_generated(void)
{
	static const char pattern_bytes[] = "ab**?[]^-\\c\xff";
	static const char string_bytes[] = "abc-]\\\xff";
	uint64_t seed = tap_seed(1);
	unsigned different = 0;
	unsigned matched = 0;
	for (unsigned round = 0; round < 300000; round++) {
		char pattern[10], string[8];
		size_t n = tap_random(&seed) % (sizeof(pattern) + 1);
		size_t m = 1 + tap_random(&seed) % sizeof(string);
		for (size_t i = 0; i < n; i++) {
			pattern[i] = pattern_bytes[tap_random(&seed) % (sizeof(pattern_bytes) - 1)];
		}
		for (size_t i = 0; i < m; i++) {
			string[i] = string_bytes[tap_random(&seed) % (sizeof(string_bytes) - 1)];
		}
		bool expected = reference_match(pattern, pattern + n, string, string + m);
		matched += expected;
		bool same;
		bool got = both_match(pattern, n, string, m, &same);
		if ((got != expected || !same) && different++ < 5) {
			tap_diag("'%.*s' against '%.*s': expected %d", (int)n, pattern, (int)m,
				 string, expected);
		}
	}
	ok_u64(different, 0, "300000 generated patterns match as the definition says");
	ok(matched > 10000, "%u of them do match", matched);
}

static void test_bounded(void)
{
	char pattern[401], string[512];
	struct timespec start, end;
	memset(string, 'a', sizeof(string));
	for (size_t i = 0; i < 400; i += 2) {
		memcpy(pattern + i, "*a", 2);
	}
	pattern[400] = 'b';
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
	bool matches = glob_match(pattern, sizeof(pattern), string, sizeof(string) - 1, false);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
	double seconds =
		(double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
	ok(!matches, "G: 200 stars before a byte that is not there");
	ok(seconds < 10.0, "G: decided in %.6f s of CPU", seconds);
	char classes[4096];
	memset(classes, 'b', sizeof(classes));
	memcpy(classes, "*[", 2);
	memcpy(classes + sizeof(classes) - 2, "]c", 2);
	struct glob *glob = glob_prepare(classes, sizeof(classes));
	matches = false;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
	for (int i = 0; i < 1000; i++) {
		matches = glob_fits(glob, string, sizeof(string)) || matches;
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
	seconds = (double)(end.tv_sec - start.tv_sec) +
		  (double)(end.tv_nsec - start.tv_nsec) / 1e9;
	glob_free(glob);
	ok(!matches && seconds < 10.0, "G: a class of 4 KiB, 1000 strings: %.6f s", seconds);
}

int main(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct glob_case *c = &cases[i];
		ok(glob_match(c->pattern, strlen(c->pattern), c->string, strlen(c->string),
			      c->nocase) == c->matches,
		   "'%s' %s '%s'", c->pattern, c->matches ? "matches" : "does not match",
		   c->string);
		bool same;
		(void)both_match(c->pattern, strlen(c->pattern), c->string, strlen(c->string),
				 &same);
		ok(same, "and so it does made ready");
	}
	test_generated();
	test_bounded();
	return tap_done();
}
