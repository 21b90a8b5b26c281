// SPDX-License-Identifier: MIT
//
// Durations in, sizes and durations out, and the progress line made of them.
#include "tests/tap/tap.h"
#include "tools/progress.h"
#include "tools/units.h"

static void test_parse(void)
{
	static const struct {
		const char *text;
		int64_t unit_ms;
		int64_t expected_ms; // -1 = refused
	} cases[] = {
		{ "500ms", 0, 500 },
		{ "30s", 0, 30000 },
		{ "1.5s", 0, 1500 },
		{ "5m", 0, 300000 },
		{ "5min", 0, 300000 },
		{ "2h", 0, 7200000 },
		{ "7d", 0, 604800000 },
		{ "0", 0, 0 },
		{ "0s", 0, 0 },
		{ "250", 1, 250 },
		{ "2s", 1, 2000 },
		{ "30", 0, -1 },
		{ "", 1, -1 },
		{ "-5s", 0, -1 },
		{ "+5s", 0, -1 },
		{ " 5s", 0, -1 },
		{ "5 s", 0, -1 },
		{ "5y", 0, -1 },
		{ "5ss", 0, -1 },
		{ "inf", 1, -1 },
		{ "nan", 1, -1 },
		{ "0x10s", 0, -1 },
		{ "1e300s", 0, -1 },
		{ "0.1ms", 0, -1 },
		{ "99999999999d", 0, -1 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		int64_t ms = -1;
		bool good = units_duration_parse(cases[i].text, cases[i].unit_ms, &ms);
		ok_int(good ? ms : -1, cases[i].expected_ms, "duration '%s'", cases[i].text);
	}
}

static void test_text(void)
{
	char text[32];
	static const struct {
		double bytes;
		const char *size;
		const char *count;
	} sizes[] = { { 0, "0 B", "0" },
		      { 812, "812 B", "812" },
		      { 999, "999 B", "999" },
		      { 999.6, "1.00 kB", "1.00k" },
		      { 63666, "63.7 kB", "63.7k" },
		      { 50164600, "50.2 MB", "50.2M" },
		      { 999950000, "1.00 GB", "1.00G" },
		      { 3e15, "3000 TB", "3000T" } };
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		units_size(text, sizeof text, sizes[i].bytes);
		ok_str(text, sizes[i].size, "size of %g", sizes[i].bytes);
		units_count(text, sizeof text, sizes[i].bytes);
		ok_str(text, sizes[i].count, "count of %g", sizes[i].bytes);
	}
	static const struct {
		double seconds;
		const char *text;
	} durations[] = { { 0.0000042, "4.20 us" }, { 0.0125, "12.5 ms" }, { 1, "1.00 s" },
			  { 119, "119 s" },	    { 120, "2.00 min" },   { 7200, "2.00 h" },
			  { 864000, "10.0 d" } };
	for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
		units_duration(text, sizeof text, durations[i].seconds);
		ok_str(text, durations[i].text, "duration of %g s", durations[i].seconds);
	}
}

static void test_progress(void)
{
	char line[200];
	progress_format(line, sizeof line, 120, 1000000, 250000, 300, 0.5);
	ok_str(line,
	       " 25% [#########............................] 250 kB  300 records  500 kB/s  1.50 s "
	       "left",
	       "a quarter, on a wide terminal");
	progress_format(line, sizeof line, 70, 1000000, 250000, 300, 0.5);
	ok_str(line, " 25% 250 kB  300 records  500 kB/s  1.50 s left", "no room for a bar");
	progress_format(line, sizeof line, 80, 0, 250000, 300, 0.5);
	ok_str(line, "250 kB  300 records  500 kB/s", "total unknown");
	progress_format(line, sizeof line, 120, 1000, 5000, 1, 1);
	ok(strstr(line, "100% [#####################################] ") == line,
	   "more than promised stays at 100 %%");
	progress_format(line, sizeof line, 120, 1000, 0, 0, 0);
	ok(strstr(line, "? left") != NULL, "nothing yet: no time is promised");
	progress_format(line, sizeof line, 20, 1000, 10, 0, 1);
	ok_u64(strlen(line), 19, "never as wide as the terminal");
}

int main(void)
{
	test_parse();
	test_text();
	test_progress();
	return tap_done();
}
