// SPDX-License-Identifier: MIT
//
// Which share of the gets hits in a cache that is full: kvd, caches that are simulated, Redis and
// memcached, each with the same bytes of memory, over the same traces. Sizes: kvd's whole region
// (--memory), Redis's maxmemory and memcached's -m have so many bytes; a simulated cache holds so
// many bytes of keys and values with what an entry takes in kvd (hitratio_bytes()), none of it
// reserved. One row a trace and size, the same for gnuplot (hitratio.gnuplot) on request.
#include "bench/hitratio.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common.h"
#include "bench/kvbench.h"

#define MIB (UINT64_C(1) << 20)

static const char usage[] =
	"usage: kvbench hitratio [--only TRACE] [--memory MIB] [--keys N] [--gets N] [--seed N]\n"
	"         [--file PATH [--column N] [--runs]] [--data PATH]\n"
	"  --only    zipf-0.80, zipf-0.99, zipf-1.20, zipf-0.99-scans, loop; default all\n"
	"  --memory  of each cache; default 8, 16 and 32\n"
	"  --file    instead: a trace, the key's number in field N (1); with --runs the field\n"
	"            behind tells how many keys from it on\n"
	"  --data    writes the rows there, too\n";

struct hitratio_run {
	const char *only, *file, *data_path;
	uint64_t memory_mib, keys, gets, seed, column;
	bool runs;
	FILE *data;
};

static void run_size(const struct hitratio_run *run, const struct hitratio_trace *trace,
		     uint64_t memory_bytes)
{
	const double ratios[] = {
		hitratio_kvd(trace, memory_bytes),
		hitratio_s3fifo(trace, memory_bytes),
		hitratio_sieve(trace, memory_bytes),
		hitratio_lru(trace, memory_bytes),
		hitratio_peer(trace, memory_bytes, HITRATIO_REDIS_LRU),
		hitratio_peer(trace, memory_bytes, HITRATIO_REDIS_LFU),
		hitratio_peer(trace, memory_bytes, HITRATIO_MEMCACHED),
	};
	FILE *outs[] = { stdout, run->data };
	for (size_t i = 0; i < 2 && outs[i]; i++) {
		(void)fprintf(outs[i], "%-18s %6" PRIu64, trace->name, memory_bytes / MIB);
		for (size_t j = 0; j < sizeof(ratios) / sizeof(ratios[0]); j++) {
			if (ratios[j] < 0) {
				(void)fprintf(outs[i], " %9s", "-");
			} else {
				(void)fprintf(outs[i], " %9.2f", ratios[j] * 100);
			}
		}
		(void)fprintf(outs[i], "\n");
		(void)fflush(outs[i]);
	}
}

static void run_trace(const struct hitratio_run *run, struct hitratio_trace *trace)
{
	if (!run->only || strcmp(run->only, trace->name) == 0) {
		uint64_t first = run->memory_mib ? run->memory_mib : 8;
		uint64_t last = run->memory_mib ? run->memory_mib : 32;
		for (uint64_t mib = first; mib <= last; mib *= 2) {
			run_size(run, trace, mib * MIB);
		}
	}
	if (run->data) {
		(void)fprintf(run->data, "\n\n"); // an index of gnuplot's
	}
	hitratio_free(trace);
}

static void run_all(const struct hitratio_run *run)
{
	struct hitratio_trace trace;
	uint32_t keys = (uint32_t)run->keys;
	if (run->file) {
		hitratio_file(&trace, run->file, (unsigned)run->column, run->runs, run->gets);
		run_trace(run, &trace);
		return;
	}
	static const struct {
		double exponent;
		unsigned scan_percent;
	} zipfs[] = { { 0.8, 0 }, { 0.99, 0 }, { 1.2, 0 }, { 0.99, 30 } };
	for (size_t i = 0; i < sizeof(zipfs) / sizeof(zipfs[0]); i++) {
		hitratio_zipf(&trace, zipfs[i].exponent, keys, run->gets, zipfs[i].scan_percent,
			      run->seed + i);
		run_trace(run, &trace);
	}
	hitratio_loop(&trace, keys, run->gets);
	run_trace(run, &trace);
}

static bool run_options(int argc, char **argv, struct hitratio_run *run)
{
	static const struct option known[] = {
		{ "only", required_argument, NULL, 'o' },
		{ "memory", required_argument, NULL, 'm' },
		{ "keys", required_argument, NULL, 'k' },
		{ "gets", required_argument, NULL, 'g' },
		{ "seed", required_argument, NULL, 's' },
		{ "file", required_argument, NULL, 'f' },
		{ "column", required_argument, NULL, 'c' },
		{ "runs", no_argument, NULL, 'r' },
		{ "data", required_argument, NULL, 'd' },
		{ NULL, 0, NULL, 0 },
	};
	int letter;
	bool good = true;
	while (good && (letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (letter) {
		case 'o':
			run->only = optarg;
			break;
		case 'm':
			run->memory_mib = bench_number("--memory", optarg, 8, 1u << 16);
			break;
		case 'k':
			run->keys = bench_number("--keys", optarg, 1, 100000000);
			break;
		case 'g':
			run->gets = bench_number("--gets", optarg, 1, 1000000000);
			break;
		case 's':
			run->seed = bench_number("--seed", optarg, 0, UINT32_MAX);
			break;
		case 'f':
			run->file = optarg;
			break;
		case 'c':
			run->column = bench_number("--column", optarg, 1, 64);
			break;
		case 'r':
			run->runs = true;
			break;
		case 'd':
			run->data_path = optarg;
			break;
		default:
			good = false;
			break;
		}
	}
	return good && optind == argc;
}

int hitratio_main(int argc, char **argv)
{
	struct hitratio_run run = { .keys = 100000, .gets = 500000, .seed = 1, .column = 1 };
	if (!run_options(argc, argv, &run)) {
		(void)fprintf(stderr, "%s", usage);
		return 2;
	}
	run.data = run.data_path ? fopen(run.data_path, "we") : NULL;
	if (run.data_path && !run.data) {
		bench_die("%s: %s", run.data_path, strerror(errno));
	}
	static const char heads[] =
		"# trace              MiB       kvd   S3-FIFO     SIEVE       LRU"
		" redis-lru redis-lfu memcached\n";
	(void)printf("%s", heads);
	if (run.data) {
		(void)fprintf(run.data, "%s", heads);
	}
	run_all(&run);
	return run.data && fclose(run.data) != 0;
}
