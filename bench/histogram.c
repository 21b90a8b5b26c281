// SPDX-License-Identifier: MIT
//
// The first 64 steps are 1 ns wide; beyond, a step is the number's seven highest bits.
#include "bench/histogram.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define OCTAVE (1u << BENCH_OCTAVE_BITS)

static unsigned step_of(uint64_t ns)
{
	if (ns < OCTAVE) {
		return (unsigned)ns;
	}
	unsigned octave = 63u - (unsigned)__builtin_clzll(ns) - BENCH_OCTAVE_BITS;
	unsigned step = ((octave + 1) << BENCH_OCTAVE_BITS) + (unsigned)(ns >> octave) - OCTAVE;
	return step < BENCH_STEPS ? step : BENCH_STEPS - 1;
}

// The longest that falls into it.
static uint64_t step_last_ns(unsigned step)
{
	if (step < OCTAVE) {
		return step;
	}
	unsigned octave = (step >> BENCH_OCTAVE_BITS) - 1;
	return ((uint64_t)(step % OCTAVE + OCTAVE + 1) << octave) - 1;
}

void bench_histogram_reset(struct bench_histogram *histogram)
{
	memset(histogram, 0, sizeof(*histogram));
}

void bench_histogram_add(struct bench_histogram *histogram, uint64_t ns)
{
	histogram->total++;
	histogram->counts[step_of(ns)]++;
	if (ns > histogram->max_ns) {
		histogram->max_ns = ns;
	}
}

void bench_histogram_merge(struct bench_histogram *into, const struct bench_histogram *from)
{
	into->total += from->total;
	into->max_ns = into->max_ns > from->max_ns ? into->max_ns : from->max_ns;
	for (unsigned step = 0; step < BENCH_STEPS; step++) {
		into->counts[step] += from->counts[step];
	}
}

uint64_t bench_histogram_at(const struct bench_histogram *histogram, uint64_t per_million)
{
	if (per_million >= 1000000) {
		return histogram->max_ns;
	}
	uint64_t beyond = histogram->total * (1000000 - per_million) / 1000000;
	if (beyond < BENCH_BEYOND) {
		return 0;
	}
	uint64_t longer = 0;
	unsigned step = BENCH_STEPS;
	while (step > 0 && longer + histogram->counts[step - 1] <= beyond) {
		longer += histogram->counts[--step];
	}
	uint64_t last_ns = step > 0 ? step_last_ns(step - 1) : 0;
	return last_ns < histogram->max_ns ? last_ns : histogram->max_ns;
}

void bench_add_waits(struct bench_rows *rows, const char *id, const char *label,
		     const struct bench_histogram *histogram)
{
	static const struct {
		const char *id, *label;
		uint64_t per_million;
	} points[] = {
		{ "p50", "p50", 500000 },      { "p90", "p90", 900000 },
		{ "p99", "p99", 990000 },      { "p999", "p99.9", 999000 },
		{ "p9999", "p99.99", 999900 }, { "max", "longest", 1000000 },
	};
	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		uint64_t ns = bench_histogram_at(histogram, points[i].per_million);
		char row_id[64], row_label[80];
		if (ns == 0) {
			continue;
		}
		(void)snprintf(row_id, sizeof(row_id), "%s_%s", id, points[i].id);
		(void)snprintf(row_label, sizeof(row_label), "%s, %s", label, points[i].label);
		bench_add_one(rows, row_id, row_label, "us", (double)ns / 1e3);
	}
}

void bench_histogram_write(const struct bench_histogram *histogram, const char *name, FILE *file)
{
	uint64_t longer = histogram->total;
	if (histogram->total == 0) {
		return;
	}
	// Two empty lines stand between blocks, and the first line of each is its name.
	(void)fprintf(file, "%s\"%s\"\n", ftell(file) > 0 ? "\n\n" : "", name);
	for (unsigned step = 0; step < BENCH_STEPS; step++) {
		if (histogram->counts[step] == 0) {
			continue;
		}
		longer -= histogram->counts[step];
		(void)fprintf(file, "%.3f %.9g\n", (double)step_last_ns(step) / 1e3,
			      (double)longer / (double)histogram->total);
	}
}

FILE *bench_data_open(int *argc, char **argv)
{
	for (int i = 1; i + 1 < *argc; i++) {
		if (strcmp(argv[i], "--data") != 0) {
			continue;
		}
		FILE *file = fopen(argv[i + 1], "w");
		if (file == NULL) {
			bench_die("%s: %s", argv[i + 1], strerror(errno));
		}
		*argc -= 2;
		memmove(&argv[i], &argv[i + 2], (size_t)(*argc - i + 1) * sizeof(argv[0]));
		return file;
	}
	return NULL;
}

void bench_data_close(FILE *file)
{
	if (file != NULL && (ferror(file) || fclose(file) != 0)) {
		bench_die("not all of --data could be written: %s", strerror(errno));
	}
}
