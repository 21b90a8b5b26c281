// SPDX-License-Identifier: MIT
//
// What a hit costs by the pages of the region: a kvd of each kind with the same keys, read by turns
// in the same order, so that whatever else the machine does falls on all.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common.h"
#include "bench/get.h"
#include "bench/kvbench.h"
#include "bench/server.h"
#include "daemon/hugetlb.h"

#define PAGES_KINDS 3u
#define PAGES_WAYS 2u

static const struct pages_kind {
	const char *id;
	const char *option; // of --huge-pages
	const char *label;
} pages_kinds[PAGES_KINDS] = {
	{ "small", "off", "4 KiB" },
	{ "joined", "transparent", "2 MiB, joined" },
	{ "pool", "hugetlb", "2 MiB, of the pool" },
};
static const char *const pages_ways[PAGES_WAYS] = { "kvd_view", "kvd_get" };

struct pages {
	struct harness *server[PAGES_KINDS]; // NULL = there is none of that kind
	struct get_side side[PAGES_KINDS];
	struct get_stream stream;
	double ns[PAGES_WAYS][PAGES_KINDS][BENCH_REPEATS_MAX];
	bool cpu_time;
};

static void pages_start(struct pages *pages, uint64_t keys)
{
	uint64_t memory_bytes = bench_memory_for(keys);
	struct hugetlb_pool pool = hugetlb_pool_find("");
	uint64_t wanted = hugetlb_pages_for(memory_bytes);
	for (unsigned kind = 0; kind < PAGES_KINDS; kind++) {
		if (strcmp(pages_kinds[kind].id, "pool") == 0 && pool.available < wanted) {
			(void)fprintf(stderr,
				      "kvbench pages: no row for the pool, which can give %llu "
				      "pages of the %llu wanted: sysctl vm.nr_hugepages=%llu\n",
				      (unsigned long long)pool.available,
				      (unsigned long long)wanted,
				      (unsigned long long)(pool.total + wanted - pool.available));
			continue;
		}
		pages->server[kind] =
			bench_server_start_pages(memory_bytes, pages_kinds[kind].option);
		bench_load(harness_socket(pages->server[kind]), keys);
		get_side_open(&pages->side[kind], harness_socket(pages->server[kind]), NULL);
	}
}

static double pages_pass_ns(struct pages *pages, const struct get_way *way, unsigned kind)
{
	uint64_t (*clock_ns)(void) = pages->cpu_time ? bench_thread_cpu_ns : bench_now_ns;
	uint64_t start_ns = clock_ns();
	uint64_t sum = way->run(&pages->side[kind], pages->stream.keys, pages->stream.count);
	uint64_t end_ns = clock_ns();
	if (sum != pages->stream.sum) {
		bench_die("%s returned wrong values", way->id);
	}
	return (double)(end_ns - start_ns) / (double)pages->stream.count;
}

static void pages_measure(struct pages *pages, unsigned repeats)
{
	bench_pin(0);
	for (unsigned repeat = 0; repeat <= repeats; repeat++) {
		for (unsigned way = 0; way < PAGES_WAYS; way++) {
			for (unsigned kind = 0; kind < PAGES_KINDS; kind++) {
				double ns = pages->server[kind] == NULL
						    ? 0
						    : pages_pass_ns(pages,
								    get_way_find(pages_ways[way]),
								    kind);
				if (repeat > 0) { // the first pass maps pages
					pages->ns[way][kind][repeat - 1] = ns;
				}
			}
		}
	}
	bench_unpin();
}

static void pages_add(struct bench_rows *rows, const struct pages *pages, unsigned repeats)
{
	char id[64], label[80];
	double samples[BENCH_REPEATS_MAX];
	for (unsigned way = 0; way < PAGES_WAYS; way++) {
		for (unsigned kind = 0; kind < PAGES_KINDS; kind++) {
			const double *ns = pages->ns[way][kind];
			if (pages->server[kind] == NULL) {
				continue;
			}
			(void)snprintf(id, sizeof(id), "%s_%s", pages_ways[way],
				       pages_kinds[kind].id);
			(void)snprintf(label, sizeof(label), "%s, pages of %s", pages_ways[way],
				       pages_kinds[kind].label);
			memcpy(samples, ns, sizeof(samples));
			bench_add(rows, id, label, "ns", samples, repeats);
			for (unsigned i = 0; i < repeats; i++) {
				samples[i] = pages->ns[way][0][i] / ns[i];
			}
			(void)snprintf(id, sizeof(id), "%s_%s_gain", pages_ways[way],
				       pages_kinds[kind].id);
			(void)snprintf(label, sizeof(label), "%s, small / %s", pages_ways[way],
				       pages_kinds[kind].id);
			if (kind > 0) {
				bench_add(rows, id, label, "times", samples, repeats);
			}
		}
	}
}

int pages_main(int argc, char **argv)
{
	static struct pages pages;
	static struct bench_rows rows;
	uint64_t keys = 1000000, gets = UINT64_C(4) << 20, repeats = 5, seed = 1, cpu_time = 0;
	bool json = false;
	char title[96];
	const struct bench_option options[] = {
		{ "--keys", 1, 1000000000, &keys },
		{ "--gets", 32, UINT64_C(1) << 30, &gets },
		{ "--repeats", 1, BENCH_REPEATS_MAX, &repeats },
		{ "--seed", 0, UINT64_MAX, &seed },
		{ "--cpu-time", 0, 1, &cpu_time },
	};
	if (!bench_options(argc, argv, options, sizeof(options) / sizeof(options[0]), &json,
			   "usage: kvbench pages [--keys N] [--gets N] [--repeats N] [--seed N]\n"
			   "                     [--cpu-time 1] [--json]\n"
			   "Nanoseconds a hit of N (1M) keys, uniform, passes of 4M gets, medians "
			   "of 5, of\nregions of small pages, of huge ones joined of small ones, "
			   "and of huge ones of the\nsystem's pool, if it has enough. --cpu-time 1 "
			   "counts the thread's processor time.\n")) {
		return 2;
	}
	pages.cpu_time = cpu_time != 0;
	pages.stream = get_stream_new(keys, gets, seed);
	pages_start(&pages, keys);
	pages_measure(&pages, (unsigned)repeats);
	pages_add(&rows, &pages, (unsigned)repeats);
	(void)snprintf(title, sizeof(title), "pages, %llu keys", (unsigned long long)keys);
	bench_print(title, &rows, json);
	for (unsigned kind = 0; kind < PAGES_KINDS; kind++) {
		if (pages.server[kind]) {
			get_side_close(&pages.side[kind]);
			bench_server_free(pages.server[kind]);
		}
	}
	free(pages.stream.keys);
	return 0;
}
