// SPDX-License-Identifier: MIT
//
// A pattern as a list of steps, with its classes as sets of bytes. The last star is the one place
// to come back to, as in glob.c; here it is also known how many bytes the steps behind a place need
// at least, so that a string that is too short for them is given up at once.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/glob.h"

enum glob_kind { GLOB_BYTE, GLOB_ANY, GLOB_CLASS, GLOB_STAR };

struct glob_step {
	uint8_t kind;
	uint8_t byte;	// GLOB_BYTE
	uint16_t class; // GLOB_CLASS: index
	uint32_t least; // bytes that this step and those behind it take at least
};

struct glob_set {
	uint64_t bits[4];
};

struct glob {
	size_t count;
	struct glob_set *sets;
	struct glob_step steps[]; // with one more at the end
};

static void glob_set_add(struct glob_set *set, char byte)
{
	unsigned char at = (unsigned char)byte;
	set->bits[at / 64] |= UINT64_C(1) << at % 64;
}

static void glob_set_add_range(struct glob_set *set, char from, char to)
{
	int low = (signed char)from;
	int high = (signed char)to;
	if (low > high) {
		int other = low;
		low = high;
		high = other;
	}
	for (int byte = low; byte <= high; byte++) {
		glob_set_add(set, (char)byte);
	}
}

/// The class whose first byte behind '[' is at `at`; returns where the pattern goes on.
static const char *glob_read_class(const char *at, const char *end, struct glob_set *set)
{
	bool negated = at < end && *at == '^';
	at += negated;
	memset(set, 0, sizeof(*set));
	while (at < end && *at != ']') {
		if (*at == '\\' && end - at >= 2) {
			glob_set_add(set, at[1]);
			at += 2;
		} else if (end - at >= 3 && at[1] == '-') {
			glob_set_add_range(set, at[0], at[2]);
			at += 3;
		} else {
			glob_set_add(set, *at++);
		}
	}
	for (int i = 0; i < 4; i++) {
		set->bits[i] = negated ? ~set->bits[i] : set->bits[i];
	}
	return at < end ? at + 1 : at;
}

static void glob_read(struct glob *glob, const char *at, const char *end)
{
	uint16_t sets = 0;
	while (at < end) {
		struct glob_step step = { .kind = GLOB_BYTE, .byte = (uint8_t)*at };
		bool starred = glob->count > 0 && glob->steps[glob->count - 1].kind == GLOB_STAR;
		char head = *at++;
		if (head == '*') {
			step.kind = GLOB_STAR;
		} else if (head == '?') {
			step.kind = GLOB_ANY;
		} else if (head == '[') {
			step.kind = GLOB_CLASS;
			step.class = sets;
			at = glob_read_class(at, end, &glob->sets[sets++]);
		} else if (head == '\\' && at < end) {
			step.byte = (uint8_t)*at++;
		}
		if (step.kind != GLOB_STAR || !starred) {
			glob->steps[glob->count++] = step;
		}
	}
}

struct glob *glob_prepare(const char *pattern, size_t pattern_bytes)
{
	struct glob *glob = calloc(1, sizeof(*glob) + (pattern_bytes + 1) * sizeof(*glob->steps));
	size_t sets = 1;
	for (size_t i = 0; i < pattern_bytes; i++) {
		sets += pattern[i] == '[';
	}
	if (glob) {
		glob->sets = calloc(sets, sizeof(*glob->sets));
	}
	if (!glob || !glob->sets || sets > UINT16_MAX) {
		glob_free(glob);
		return NULL;
	}
	glob_read(glob, pattern, pattern + pattern_bytes);
	for (size_t i = glob->count; i-- > 0;) {
		struct glob_step *step = &glob->steps[i];
		step->least = step[1].least + (step->kind != GLOB_STAR);
	}
	return glob;
}

void glob_free(struct glob *glob)
{
	if (glob) {
		free(glob->sets);
		free(glob);
	}
}

static bool glob_step_fits(const struct glob *glob, const struct glob_step *step, char byte)
{
	unsigned char at = (unsigned char)byte;
	switch (step->kind) {
	case GLOB_BYTE:
		return step->byte == at;
	case GLOB_ANY:
		return true;
	default:
		return glob->sets[step->class].bits[at / 64] >> at % 64 & 1;
	}
}

bool glob_fits(const struct glob *glob, const char *string, size_t string_bytes)
{
	const struct glob_step *step = glob->steps;
	const struct glob_step *end = glob->steps + glob->count;
	const struct glob_step *after_star = NULL;
	size_t star_at = 0; // string byte up to which the last star reaches
	size_t at = 0;
	while (at < string_bytes) {
		if (step < end && step->kind == GLOB_STAR) {
			if (++step == end) {
				return true;
			}
			after_star = step;
			star_at = at;
		} else if (step < end && glob_step_fits(glob, step, string[at])) {
			step++;
			at++;
		} else if (after_star && string_bytes - star_at > after_star->least) {
			step = after_star;
			at = ++star_at;
		} else {
			return false;
		}
	}
	return step == end || (string_bytes > 0 && step->kind == GLOB_STAR && step + 1 == end);
}
