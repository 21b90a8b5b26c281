// SPDX-License-Identifier: MIT
//
// Parsing and printing of option values. Everything is refused that is not wholly understood: a
// unit that is guessed wrong makes a cache a thousand times too small.
#include "daemon/config_text.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONFIG_TEXT_NAME_BYTES_MAX 63

struct unit {
	const char *name;
	uint64_t factor;
};

// Ascending, the preferred spelling of each factor first.
static const struct unit size_units[] = {
	{ "", 1 },
	{ "b", 1 },
	{ "KiB", UINT64_C(1) << 10 },
	{ "KB", UINT64_C(1) << 10 },
	{ "k", UINT64_C(1) << 10 },
	{ "MiB", UINT64_C(1) << 20 },
	{ "MB", UINT64_C(1) << 20 },
	{ "m", UINT64_C(1) << 20 },
	{ "GiB", UINT64_C(1) << 30 },
	{ "GB", UINT64_C(1) << 30 },
	{ "g", UINT64_C(1) << 30 },
	{ "TiB", UINT64_C(1) << 40 },
	{ "TB", UINT64_C(1) << 40 },
	{ "t", UINT64_C(1) << 40 },
};

static const struct unit duration_units[] = {
	{ "ms", 1 }, { "", 1 }, { "s", 1000 }, { "m", 60 * 1000 }, { "h", 60 * 60 * 1000 },
};

/// Decimal digits from the start of `text`; *end is behind them. False without digits or on
/// overflow.
static bool digits_parse(const char *text, const char **end, uint64_t *number)
{
	char *stop = NULL;
	if (!isdigit((unsigned char)text[0])) {
		return false;
	}
	errno = 0;
	unsigned long long value = strtoull(text, &stop, 10);
	if (errno) {
		return false;
	}
	*end = stop;
	*number = value;
	return true;
}

static bool with_unit(const char *text, const struct unit *units, size_t count, uint64_t *out)
{
	const char *unit = NULL;
	uint64_t number = 0;
	if (!digits_parse(text, &unit, &number)) {
		return false;
	}
	while (*unit == ' ') {
		unit++;
	}
	for (size_t i = 0; i < count; i++) {
		if (strcasecmp(unit, units[i].name) == 0) {
			return !__builtin_mul_overflow(number, units[i].factor, out);
		}
	}
	return false;
}

bool config_text_size(const char *text, uint64_t *bytes)
{
	return with_unit(text, size_units, sizeof(size_units) / sizeof(size_units[0]), bytes);
}

bool config_text_duration(const char *text, uint64_t *ms)
{
	return with_unit(text, duration_units, sizeof(duration_units) / sizeof(duration_units[0]),
			 ms);
}

bool config_text_number(const char *text, uint64_t *number)
{
	const char *end = NULL;
	return digits_parse(text, &end, number) && *end == '\0';
}

bool config_text_mode(const char *text, uint64_t *mode)
{
	uint64_t value = 0;
	size_t length = strlen(text);
	if (length == 0 || length > 5 || strspn(text, "01234567") != length) {
		return false;
	}
	for (size_t i = 0; i < length; i++) {
		value = value * 8 + (uint64_t)(text[i] - '0');
	}
	*mode = value;
	return value <= 0777;
}

bool config_text_choice(const char *text, const char *choices, uint64_t *index)
{
	size_t length = strlen(text);
	uint64_t i = 0;
	for (const char *at = choices; length > 0 && at; i++) {
		const char *bar = strchr(at, '|');
		size_t choice_bytes = bar ? (size_t)(bar - at) : strlen(at);
		if (choice_bytes == length && strncasecmp(text, at, length) == 0) {
			*index = i;
			return true;
		}
		at = bar ? bar + 1 : NULL;
	}
	return false;
}

static void print_with_unit(uint64_t value, const struct unit *units, size_t count, char *out,
			    size_t out_bytes)
{
	const struct unit *best = &units[0];
	for (size_t i = 1; i < count && value != 0; i++) {
		if (units[i].factor > best->factor && value % units[i].factor == 0) {
			best = &units[i];
		}
	}
	(void)snprintf(out, out_bytes, "%llu%s", (unsigned long long)(value / best->factor),
		       best->name);
}

void config_text_print_size(uint64_t bytes, char *out, size_t out_bytes)
{
	print_with_unit(bytes, size_units, sizeof(size_units) / sizeof(size_units[0]), out,
			out_bytes);
}

void config_text_print_duration(uint64_t ms, char *out, size_t out_bytes)
{
	print_with_unit(ms, duration_units, sizeof(duration_units) / sizeof(duration_units[0]), out,
			out_bytes);
}

void config_text_print_choice(const char *choices, uint64_t index, char *out, size_t out_bytes)
{
	const char *at = choices;
	for (; index > 0 && at; index--) {
		at = strchr(at, '|');
		at = at ? at + 1 : NULL;
	}
	int length = at ? (int)strcspn(at, "|") : 0;
	(void)snprintf(out, out_bytes, "%.*s", length, at ? at : "");
}

size_t config_text_distance(const char *a, const char *b)
{
	size_t row[CONFIG_TEXT_NAME_BYTES_MAX + 1];
	size_t a_length = strlen(a);
	size_t b_length = strlen(b);
	if (a_length > CONFIG_TEXT_NAME_BYTES_MAX || b_length > CONFIG_TEXT_NAME_BYTES_MAX) {
		return a_length + b_length;
	}
	for (size_t j = 0; j <= b_length; j++) {
		row[j] = j;
	}
	for (size_t i = 1; i <= a_length; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= b_length; j++) {
			size_t cost = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			cost = row[j] + 1 < cost ? row[j] + 1 : cost;
			row[j] = row[j - 1] + 1 < cost ? row[j - 1] + 1 : cost;
		}
	}
	return row[b_length];
}
