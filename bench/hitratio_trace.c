// SPDX-License-Identifier: MIT
//
// Traces for hitratio.c. All follow from a seed; values are 100 to 499 bytes, of each key always as
// many, for what public traces say of sizes are disk blocks.
#include "bench/hitratio.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common.h"

#define TRACE_SCAN_KEYS 2000u
#define TRACE_NAMES_BITS 23u

static void *trace_memory(size_t count, size_t bytes)
{
	void *memory = calloc(count, bytes);
	if (!memory) {
		bench_die("no memory for %zu keys", count);
	}
	return memory;
}

static void trace_sizes(struct hitratio_trace *trace)
{
	trace->value_bytes = trace_memory(trace->keys_count, sizeof(uint32_t));
	for (uint32_t i = 0; i < trace->keys_count; i++) {
		uint64_t state = i;
		trace->value_bytes[i] = 100 + (uint32_t)bench_random_below(&state, 400);
	}
}

void hitratio_free(struct hitratio_trace *trace)
{
	free(trace->keys);
	free(trace->value_bytes);
	*trace = (struct hitratio_trace){ 0 };
}

uint64_t hitratio_bytes(const struct hitratio_trace *trace, uint32_t key)
{
	// Record header, key, value to a multiple of 8, and 20 of the table.
	return ((32u + BENCH_KEY_BYTES + trace->value_bytes[key] + 7) & ~7u) + 20;
}

void hitratio_zipf(struct hitratio_trace *trace, double exponent, uint32_t keys, uint64_t count,
		   unsigned scan_percent, uint64_t seed)
{
	double *sums = trace_memory(keys, sizeof(double));
	uint32_t *places = trace_memory(keys, sizeof(uint32_t));
	uint64_t random = seed;
	double sum = 0;
	for (uint32_t i = 0; i < keys; i++) {
		sums[i] = sum += 1 / pow(i + 1, exponent);
		uint32_t j = (uint32_t)bench_random_below(&random, i + UINT64_C(1));
		places[i] = places[j];
		places[j] = i;
	}
	*trace = (struct hitratio_trace){ .count = count };
	(void)snprintf(trace->name, sizeof(trace->name), "zipf-%.2f%s", exponent,
		       scan_percent ? "-scans" : "");
	trace->keys = trace_memory(count, sizeof(uint32_t));
	uint32_t fresh = keys, left = 0;
	uint64_t period = scan_percent ? TRACE_SCAN_KEYS * (100 - scan_percent) / scan_percent : 0;
	for (uint64_t i = 0; i < count; i++) {
		if (period > 0 && left == 0 && bench_random_below(&random, period) == 0) {
			left = TRACE_SCAN_KEYS;
		}
		if (left > 0) {
			left--;
			trace->keys[i] = fresh++;
			continue;
		}
		double at = (double)(bench_random(&random) >> 11) * 0x1p-53 * sum;
		uint32_t low = 0, high = keys - 1;
		while (low < high) {
			uint32_t middle = (low + high) / 2;
			low = sums[middle] < at ? middle + 1 : low;
			high = sums[middle] < at ? high : middle;
		}
		trace->keys[i] = places[low];
	}
	trace->keys_count = fresh;
	trace_sizes(trace);
	free(places);
	free(sums);
}

void hitratio_loop(struct hitratio_trace *trace, uint32_t keys, uint64_t count)
{
	*trace = (struct hitratio_trace){ .name = "loop", .count = count, .keys_count = keys };
	trace->keys = trace_memory(count, sizeof(uint32_t));
	for (uint64_t i = 0; i < count; i++) {
		trace->keys[i] = (uint32_t)(i % keys);
	}
	trace_sizes(trace);
}

// Numbers of a file as indexes, in the order in which they come.
struct trace_names {
	uint64_t *names; // + 1; 0 = free
	uint32_t *indexes;
	uint32_t count;
};

static uint32_t trace_index(struct trace_names *names, uint64_t name)
{
	uint64_t state = ++name;
	uint64_t at = bench_random(&state) >> (64 - TRACE_NAMES_BITS);
	while (names->names[at] != 0 && names->names[at] != name) {
		at = (at + 1) & ((UINT64_C(1) << TRACE_NAMES_BITS) - 1);
	}
	if (names->names[at] == 0) {
		if (names->count >> (TRACE_NAMES_BITS - 1)) {
			bench_die("more than %u keys in the trace", names->count);
		}
		names->names[at] = name;
		names->indexes[at] = names->count++;
	}
	return names->indexes[at];
}

// The number in the `column`-th field, and the one behind it. False: there is none.
static bool trace_line(const char *line, unsigned column, uint64_t *number, uint64_t *behind)
{
	char *end;
	for (; column > 1 && *line; column--) {
		line += strcspn(line, ", ");
		line += *line != '\0';
	}
	errno = 0;
	*number = strtoull(line, &end, 10);
	bool there = end != line && errno == 0 && *number < UINT64_MAX / 2;
	*behind = there && *end ? strtoull(end + 1, NULL, 10) : 0;
	return there;
}

void hitratio_file(struct hitratio_trace *trace, const char *path, unsigned column, bool runs,
		   uint64_t most)
{
	char line[512];
	struct trace_names names = {
		.names = trace_memory((size_t)1 << TRACE_NAMES_BITS, sizeof(uint64_t)),
		.indexes = trace_memory((size_t)1 << TRACE_NAMES_BITS, sizeof(uint32_t)),
	};
	FILE *file = fopen(path, "re");
	if (!file) {
		bench_die("%s: %s", path, strerror(errno));
	}
	const char *slash = strrchr(path, '/');
	*trace = (struct hitratio_trace){ .keys = trace_memory(most, sizeof(uint32_t)) };
	(void)snprintf(trace->name, sizeof(trace->name), "%.31s", slash ? slash + 1 : path);
	while (trace->count < most && fgets(line, sizeof(line), file)) {
		uint64_t number, behind;
		if (!trace_line(line, column, &number, &behind)) {
			continue;
		}
		uint64_t gets = runs ? behind : 1;
		for (uint64_t i = 0; i < gets && trace->count < most; i++) {
			trace->keys[trace->count++] = trace_index(&names, number + i);
		}
	}
	(void)fclose(file);
	trace->keys_count = names.count;
	if (trace->count == 0) {
		bench_die("%s: no line has a number in field %u", path, column);
	}
	trace_sizes(trace);
	free(names.names);
	free(names.indexes);
}
