// SPDX-License-Identifier: MIT
//
// TAP for C tests: numbered results on standard output, diagnostics behind '#', one exit code. The
// plan is printed at the end, so a test that dies half-way fails for lack of it.
#pragma once

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tap_count;
static int tap_failed;

__attribute__((unused, format(printf, 1, 2))) static void tap_diag(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fputs("# ", stdout);
	vprintf(format, args);
	fputc('\n', stdout);
	va_end(args);
	fflush(stdout);
}

__attribute__((unused, format(printf, 4, 5))) static bool
tap_result(bool good, const char *file, int line, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("%sok %d - ", good ? "" : "not ", ++tap_count);
	vprintf(format, args);
	fputc('\n', stdout);
	va_end(args);
	if (!good) {
		tap_failed++;
		printf("#   failed at %s:%d\n", file, line);
	}
	fflush(stdout);
	return good;
}

/// One result with a name (printf form). Returns the condition.
#define ok(condition, ...) tap_result((condition), __FILE__, __LINE__, __VA_ARGS__)

/// Equal unsigned integers; both are shown when they differ.
#define ok_u64(got, expected, ...)                                                             \
	do {                                                                                   \
		uint64_t tap_got = (uint64_t)(got), tap_expected = (uint64_t)(expected);       \
		if (!ok(tap_got == tap_expected, __VA_ARGS__)) {                               \
			tap_diag("got %" PRIu64 ", expected %" PRIu64, tap_got, tap_expected); \
		}                                                                              \
	} while (0)

/// Equal signed integers.
#define ok_int(got, expected, ...)                                                             \
	do {                                                                                   \
		int64_t tap_got = (int64_t)(got), tap_expected = (int64_t)(expected);          \
		if (!ok(tap_got == tap_expected, __VA_ARGS__)) {                               \
			tap_diag("got %" PRId64 ", expected %" PRId64, tap_got, tap_expected); \
		}                                                                              \
	} while (0)

/// Equal strings.
#define ok_str(got, expected, ...)                                                        \
	do {                                                                              \
		const char *tap_got = (got), *tap_expected = (expected);                  \
		if (!ok(tap_got && strcmp(tap_got, tap_expected) == 0, __VA_ARGS__)) {    \
			tap_diag("got '%s', expected '%s'", tap_got ? tap_got : "(null)", \
				 tap_expected);                                           \
		}                                                                         \
	} while (0)

/// Skips one result, with the reason.
#define tap_skip(...)                                 \
	do {                                          \
		printf("ok %d # SKIP ", ++tap_count); \
		printf(__VA_ARGS__);                  \
		fputc('\n', stdout);                  \
		fflush(stdout);                       \
	} while (0)

/// Ends the test: the plan, and the exit code.
__attribute__((unused)) static int tap_done(void)
{
	printf("1..%d\n", tap_count);
	fflush(stdout);
	return tap_failed == 0 ? 0 : 1;
}

/// Seed of this run: KVD_TEST_SEED if set, else `fallback`; printed so that it can be replayed.
__attribute__((unused)) static uint64_t tap_seed(uint64_t fallback)
{
	const char *text = getenv("KVD_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : fallback;
	tap_diag("seed %" PRIu64 " (replay with KVD_TEST_SEED=%" PRIu64 ")", seed, seed);
	return seed;
}

/// How many times slower this run is than an ordinary one, by KVD_TEST_SLOW: 1 or more. What tries
/// much the same again and again does so many times less of it.
__attribute__((unused)) static unsigned tap_slowness(void)
{
	const char *text = getenv("KVD_TEST_SLOW");
	unsigned long slowness = text ? strtoul(text, NULL, 10) : 1;
	return slowness > 1 && slowness < 1000 ? (unsigned)slowness : 1;
}

/// So many rounds; in a slow run fewer, but at least `least`.
__attribute__((unused)) static unsigned tap_rounds(unsigned usual, unsigned least)
{
	unsigned rounds = usual / tap_slowness();
	return rounds > least ? rounds : least;
}

/// How far it is to the next that is tried: in a slow run further, up to `most`.
__attribute__((unused)) static unsigned tap_step(unsigned usual, unsigned most)
{
	unsigned step = usual * tap_slowness();
	return step < most ? step : most;
}

/// Small seeded generator (splitmix64).
__attribute__((unused)) static uint64_t tap_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}
