// SPDX-License-Identifier: MIT
//
// What an entry costs in memory beyond its key and its value, counted by kvd itself: once with the
// bytes of current records, once with everything that is taken, half-filled segments included.
#include <getopt.h>
#include <stdio.h>

#include "bench/common.h"
#include "bench/kvbench.h"
#include "bench/server.h"

static void measure(struct bench_rows *rows, uint64_t keys)
{
	static char stats[BENCH_STATS_BYTES_MAX];
	char id[64], label[80];
	struct harness *server = bench_server_start("memory", UINT64_C(2) << 30);
	bench_load(harness_socket(server), keys);
	kvc *client = bench_client(harness_socket(server));
	bench_stats(client, stats);
	if (bench_stat(stats, "keys") != keys) {
		bench_die("kvd holds %llu keys, not %llu",
			  (unsigned long long)bench_stat(stats, "keys"), (unsigned long long)keys);
	}
	double payload = (double)keys * (BENCH_KEY_BYTES + BENCH_VALUE_BYTES);
	double table = (double)bench_stat(stats, "memory_table_bytes");
	double live = (double)bench_stat(stats, "memory_live_bytes");
	double used = (double)bench_stat(stats, "memory_used_bytes");
	unsigned long long count = keys;
	(void)snprintf(id, sizeof(id), "overhead_%llu", count);
	(void)snprintf(label, sizeof(label), "%llu keys: table + live records - keys - values",
		       count);
	bench_add_one(rows, id, label, "bytes", (table + live - payload) / (double)keys);
	(void)snprintf(id, sizeof(id), "overhead_used_%llu", count);
	(void)snprintf(label, sizeof(label), "%llu keys: all used memory - keys - values", count);
	bench_add_one(rows, id, label, "bytes", (used - payload) / (double)keys);
	(void)snprintf(id, sizeof(id), "table_%llu", count);
	(void)snprintf(label, sizeof(label), "%llu keys: of that the table", count);
	bench_add_one(rows, id, label, "bytes", table / (double)keys);
	if (kvc_close(client) != KVC_OK) {
		bench_die("kvc_close");
	}
	bench_server_free(server);
}

int overhead_main(int argc, char **argv)
{
	static const struct option options[] = { { "keys", required_argument, NULL, 'k' },
						 { "json", no_argument, NULL, 'j' },
						 { 0 } };
	static struct bench_rows rows;
	uint64_t keys[8] = { 1000000, 10000000 };
	size_t count = 0;
	bool json = false;
	int letter;
	while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (letter == 'k' && count < sizeof(keys) / sizeof(keys[0])) {
			keys[count++] = bench_number("--keys", optarg, 1, 1000000000);
		} else if (letter == 'j') {
			json = true;
		} else {
			optind = argc + 1;
			break;
		}
	}
	if (optind != argc) {
		(void)fprintf(stderr, "usage: kvbench overhead [--keys N] … [--json]\n"
				      "Bytes an entry with 1M and 10M keys of 16 and values of 64 "
				      "bytes, --memory 2GiB.\n");
		return 2;
	}
	count = count ? count : 2;
	for (size_t i = 0; i < count; i++) {
		measure(&rows, keys[i]);
	}
	bench_print("overhead", &rows, json);
	return 0;
}
