// SPDX-License-Identifier: MIT
//
// How long things took, for as many of them as a run of any length has: a log-linear histogram, 64
// steps from one power of two to the next, so that what is printed is at most 1.6 % too much. Its
// memory is touched beforehand; adding costs a handful of instructions and no page.
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "bench/common.h"

#define BENCH_OCTAVE_BITS 6u
#define BENCH_OCTAVES 36u // up to 18 minutes; longer counts as that
#define BENCH_STEPS ((BENCH_OCTAVES - BENCH_OCTAVE_BITS + 1) << BENCH_OCTAVE_BITS)
#define BENCH_BEYOND 10u // samples that have to lie beyond a percentile for it to be told

struct bench_histogram {
	uint64_t total, max_ns;
	uint64_t counts[BENCH_STEPS];
};

/// Forgets all; touches every page of it.
void bench_histogram_reset(struct bench_histogram *histogram);

void bench_histogram_add(struct bench_histogram *histogram, uint64_t ns);

/// Adds all of `from`, of another thread or repetition that is over.
void bench_histogram_merge(struct bench_histogram *into, const struct bench_histogram *from);

/// Duration in ns that `per_million` of the samples do not exceed; 1000000 is the longest, exactly.
/// 0 if fewer than BENCH_BEYOND samples lie beyond: it would be chance.
uint64_t bench_histogram_at(const struct bench_histogram *histogram, uint64_t per_million);

/// Adds p50, p90, p99, p99.9, p99.99 and the longest in µs, those that there are samples for.
void bench_add_waits(struct bench_rows *rows, const char *id, const char *label,
		     const struct bench_histogram *histogram);

/// Writes its distribution for pauses.gnuplot, a block named `name`: µs, and the share of the
/// samples that took longer.
void bench_histogram_write(const struct bench_histogram *histogram, const char *name, FILE *file);

/// Takes `--data PATH` out of the arguments, before bench_options(), and opens that file for
/// writing; NULL without it. Ends the program if it cannot be opened.
FILE *bench_data_open(int *argc, char **argv);
/// Ends the program if not all of it is written.
void bench_data_close(FILE *file);
