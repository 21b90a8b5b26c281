// SPDX-License-Identifier: MIT
//
// The matcher keeps one place to come back to, the last star: if the rest fails, the star takes one
// byte more. Stars before the last need no second try, because whatever they could match later the
// last one can, too; that is what bounds the work where a recursive matcher takes for ever.
#include "daemon/glob.h"

/// What is left of the pattern; reads beyond its end give 0, as the C strings of Redis do.
struct glob_pattern {
	const char *at;
	size_t bytes;
};

static char glob_byte(const struct glob_pattern *pattern, size_t index)
{
	return index < pattern->bytes ? pattern->at[index] : 0;
}

static void glob_skip(struct glob_pattern *pattern)
{
	if (pattern->bytes) {
		pattern->at++;
		pattern->bytes--;
	}
}

static int glob_fold(char byte)
{
	return byte >= 'A' && byte <= 'Z' ? byte - 'A' + 'a' : byte;
}

static bool glob_same(char a, char b, bool nocase)
{
	return a == b || (nocase && glob_fold(a) == glob_fold(b));
}

/// start-end at the head of `pattern` (its ends may stand the wrong way round): does `byte` lie in
/// it?
static bool glob_in_range(const struct glob_pattern *pattern, char byte, bool nocase)
{
	int start = (signed char)pattern->at[0];
	int end = (signed char)pattern->at[2];
	int wanted = (signed char)byte;
	if (start > end) {
		int other = start;
		start = end;
		end = other;
	}
	if (nocase) {
		start = glob_fold((char)start);
		end = glob_fold((char)end);
		wanted = glob_fold(byte);
	}
	return wanted >= start && wanted <= end;
}

/// The class after '[': consumes it with its ']' (an open class ends with the pattern).
static bool glob_class(struct glob_pattern *pattern, char byte, bool nocase)
{
	bool negated = glob_byte(pattern, 0) == '^';
	if (negated) {
		glob_skip(pattern);
	}
	bool found = false;
	while (pattern->bytes) {
		char head = pattern->at[0];
		if (head == '\\' && pattern->bytes >= 2) {
			glob_skip(pattern);
			found |= pattern->at[0] == byte;
		} else if (head == ']') {
			glob_skip(pattern);
			break;
		} else if (pattern->bytes >= 3 && pattern->at[1] == '-') {
			found |= glob_in_range(pattern, byte, nocase);
			glob_skip(pattern);
			glob_skip(pattern);
		} else {
			found |= glob_same(head, byte, nocase);
		}
		glob_skip(pattern);
	}
	return found != negated;
}

/// One element that is no star against one byte; consumes the element.
static bool glob_element(struct glob_pattern *pattern, char byte, bool nocase)
{
	char head = pattern->at[0];
	if (head == '[') {
		glob_skip(pattern);
		return glob_class(pattern, byte, nocase);
	}
	if (head == '\\' && pattern->bytes >= 2) {
		glob_skip(pattern);
		head = pattern->at[0];
	} else if (head == '?') {
		glob_skip(pattern);
		return true;
	}
	glob_skip(pattern);
	return glob_same(head, byte, nocase);
}

bool glob_match(const char *pattern_text, size_t pattern_bytes, const char *string,
		size_t string_bytes, bool nocase)
{
	struct glob_pattern pattern = { pattern_text, pattern_bytes };
	struct glob_pattern after_star = { NULL, 0 };
	size_t star_at = 0; // string byte up to which the last star reaches
	size_t at = 0;
	while (at < string_bytes) {
		if (glob_byte(&pattern, 0) == '*' && pattern.bytes) {
			while (pattern.bytes && pattern.at[0] == '*') {
				glob_skip(&pattern);
			}
			if (!pattern.bytes) {
				return true;
			}
			after_star = pattern;
			star_at = at;
		} else if (pattern.bytes && glob_element(&pattern, string[at], nocase)) {
			at++;
		} else if (after_star.at) {
			pattern = after_star;
			at = ++star_at;
		} else {
			return false;
		}
	}
	while (string_bytes && pattern.bytes && pattern.at[0] == '*') {
		glob_skip(&pattern);
	}
	return !pattern.bytes;
}
