// SPDX-License-Identifier: MIT
//
// One program for all benchmarks; README.md has the method and the figures.
#include "bench/kvbench.h"

#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} benchmarks[] = {
	{ "get_vs_lmdb", get_vs_lmdb_main, "a hit through the mapping beside LMDB's" },
	{ "pages", pages_main, "a hit by the pages of the region: small, joined, of the pool" },
	{ "set_group", set_group_main, "durable SETs a second, and the size of the store" },
	{ "set_vs_peers", set_vs_peers_main, "writes beside redis-server and memcached" },
	{ "publish", publish_main, "a message to many subscribers, beside redis-server" },
	{ "cold", cold_main, "values that are in the store alone, of data larger than memory" },
	{ "expire", expire_main, "very many keys whose time comes within one second" },
	{ "overhead", overhead_main, "bytes of memory an entry beyond key and value" },
	{ "density", density_main, "where the memory of an entry goes, beside redis-server" },
	{ "churn", churn_main, "random overwriting in memory that is nearly full" },
	{ "grow", grow_main, "longest turns while the table grows and shrinks" },
	{ "idle_cpu", idle_cpu_main, "processor time of an idle kvd" },
	{ "restart", restart_main, "what a death of kvd costs under --supervise" },
	{ "hitratio", hitratio_main, "gets that hit in a full cache, beside others of its size" },
};

int main(int argc, char **argv)
{
	size_t count = sizeof(benchmarks) / sizeof(benchmarks[0]);
	for (size_t i = 0; argc > 1 && i < count; i++) {
		if (strcmp(argv[1], benchmarks[i].name) == 0) {
			return benchmarks[i].run(argc - 1, argv + 1);
		}
	}
	(void)fprintf(stderr, "usage: kvbench BENCHMARK [OPTION …] [--json]\n");
	for (size_t i = 0; i < count; i++) {
		(void)fprintf(stderr, "  %-12s %s\n", benchmarks[i].name, benchmarks[i].help);
	}
	return 2;
}
