// SPDX-License-Identifier: MIT
//
// What every benchmark here needs: one clock, one seeded source of keys, medians with their spread,
// and one way to print results as a table or as JSON, so that figures of two programs can stand
// side by side in README.md.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BENCH_KEY_BYTES 16u
#define BENCH_VALUE_BYTES 64u
#define BENCH_REPEATS_MAX 31u
#define BENCH_ROWS_MAX 64u

/// Prints the sentence and ends the program with status 1; kvd dies with it.
__attribute__((noreturn, format(printf, 1, 2))) void bench_die(const char *format, ...);

uint64_t bench_now_ns(void); // monotonic
uint64_t bench_thread_cpu_ns(void);

/// Processor time that all threads of a process have used, ended ones included.
double bench_process_cpu_ms(pid_t pid);

/// Binds the calling thread to one processor, the `index`-th of those the program was started with.
void bench_pin(unsigned index);
/// Lets it run on all of them again.
void bench_unpin(void);

/// Next number of a splitmix64 stream.
static inline uint64_t bench_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/// Uniform in [0, bound), bound up to 2^32.
static inline uint64_t bench_random_below(uint64_t *state, uint64_t bound)
{
	return (bench_random(state) >> 32) * bound >> 32;
}

/// The key of an index, BENCH_KEY_BYTES and no NUL; sorts as the index does.
void bench_key(char *key, uint64_t index);
/// The value of an index: it differs at both ends, so that wrong values show in a sum.
void bench_value(char *value, uint64_t index);
/// What a hit of `index` adds to a reader's sum: the first and the last byte of its value.
uint64_t bench_value_sum(uint64_t index);

/// One measured thing.
struct bench_row {
	char id[64]; // in JSON
	char label[80];
	const char *unit;
	double median, min, max;
	unsigned samples;
};

struct bench_rows {
	struct bench_row row[BENCH_ROWS_MAX];
	size_t count;
};

/// Adds the median, least and greatest of `count` samples (they are sorted in place).
void bench_add(struct bench_rows *rows, const char *id, const char *label, const char *unit,
	       double *samples, size_t count);
/// Adds one figure.
void bench_add_one(struct bench_rows *rows, const char *id, const char *label, const char *unit,
		   double value);
/// The median under `id`; ends the program if there is none.
double bench_median(const struct bench_rows *rows, const char *id);

/// Prints the machine and all rows.
void bench_print(const char *title, const struct bench_rows *rows, bool json);

/// A number from the command line, with an optional k, M or G (powers of ten).
uint64_t bench_number(const char *name, const char *text, uint64_t least, uint64_t most);

/// Sends all of it, waiting for room.
void bench_send(int fd, const char *data, size_t bytes);

/// A number that may be given; `value` holds what it is otherwise.
struct bench_option {
	const char *name; // "--keys"
	uint64_t least, most;
	uint64_t *value;
};
#define BENCH_OPTIONS_MAX 8u

/// Reads the options of a benchmark and --json. False: something else was there, and `usage` was
/// printed to the standard error.
bool bench_options(int argc, char **argv, const struct bench_option *options, size_t count,
		   bool *json, const char *usage);
