// SPDX-License-Identifier: MIT
//
// One table of units each way; numbers are shown with three digits that mean something.
#include "tools/units.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNITS_DURATION_MS_MAX 9e15 // well inside int64 and what kvd adds to the clock

bool units_duration_parse(const char *text, int64_t unit_ms, int64_t *duration_ms)
{
	static const struct {
		const char *name;
		int64_t ms;
	} units[] = { { "ms", 1 },	{ "s", 1000 },	  { "m", 60000 },
		      { "min", 60000 }, { "h", 3600000 }, { "d", 86400000 } };
	if (!isdigit((unsigned char)text[0])) {
		return false; // strtod would take spaces, signs, "inf"
	}
	char *unit;
	double number = strtod(text, &unit);
	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
		return false;
	}
	if (*unit == '\0' && unit_ms == 0 && number > 0) {
		return false;
	}
	for (size_t i = 0; *unit != '\0' && i < sizeof units / sizeof units[0]; i++) {
		if (strcmp(unit, units[i].name) == 0) {
			unit_ms = units[i].ms;
			unit += strlen(unit);
		}
	}
	double ms = round(number * (double)unit_ms);
	if (*unit != '\0' || !(ms <= UNITS_DURATION_MS_MAX) || (ms < 1 && number > 0)) {
		return false;
	}
	*duration_ms = (int64_t)ms;
	return true;
}

// Three digits that mean something: 1.23, 12.3, 123.
static void units_number(char *out, size_t out_bytes, double number, const char *unit)
{
	int decimals = number < 9.995 ? 2 : number < 99.95 ? 1 : 0;
	snprintf(out, out_bytes, "%.*f%s", decimals, number, unit);
}

void units_duration(char *out, size_t out_bytes, double seconds)
{
	if (seconds < 1e-3) {
		units_number(out, out_bytes, seconds * 1e6, " us");
	} else if (seconds < 1) {
		units_number(out, out_bytes, seconds * 1e3, " ms");
	} else if (seconds < 120) {
		units_number(out, out_bytes, seconds, " s");
	} else if (seconds < 7200) {
		units_number(out, out_bytes, seconds / 60, " min");
	} else if (seconds < 48 * 3600.0) {
		units_number(out, out_bytes, seconds / 3600, " h");
	} else {
		units_number(out, out_bytes, seconds / 86400, " d");
	}
}

static void units_scaled(char *out, size_t out_bytes, double number,
			 const char *const units[static 5])
{
	size_t power = 0;
	while (power < 4 && number >= 999.5) {
		number /= 1000;
		power++;
	}
	if (power == 0) {
		snprintf(out, out_bytes, "%.0f%s", number, units[0]);
	} else {
		units_number(out, out_bytes, number, units[power]);
	}
}

void units_size(char *out, size_t out_bytes, double bytes)
{
	static const char *const units[] = { " B", " kB", " MB", " GB", " TB" };
	units_scaled(out, out_bytes, bytes, units);
}

void units_count(char *out, size_t out_bytes, double count)
{
	static const char *const units[] = { "", "k", "M", "G", "T" };
	units_scaled(out, out_bytes, count, units);
}
