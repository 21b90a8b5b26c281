// SPDX-License-Identifier: MIT
//
// A hit through the mapping beside LMDB's, in one run: the same keys in the same order, kvd and
// LMDB by turns, so that whatever else the machine does falls on both.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common.h"
#include "bench/get.h"
#include "bench/kvbench.h"
#include "bench/server.h"

struct comparison {
	uint64_t keys;
	size_t gets; // a pass
	unsigned repeats;
	uint64_t pair_ns;
	uint64_t seed;
	bool cpu_time;	  // of this thread instead of the clock on the wall
	const char *only; // one way, once: for a profiler
	bool json;
};

static double pass_ns(const struct comparison *comparison, struct get_side *side,
		      const struct get_way *way, const struct get_stream *stream)
{
	uint64_t (*clock_ns)(void) = comparison->cpu_time ? bench_thread_cpu_ns : bench_now_ns;
	uint64_t start_ns = clock_ns();
	uint64_t sum = way->run(side, stream->keys, stream->count);
	uint64_t end_ns = clock_ns();
	if (sum != stream->sum) {
		bench_die("%s returned wrong values", way->id);
	}
	return (double)(end_ns - start_ns) / (double)stream->count;
}

static void compare_ways(struct bench_rows *rows, const struct comparison *comparison,
			 struct get_side *side, const struct get_stream *stream)
{
	double ns[16][BENCH_REPEATS_MAX], ratio[BENCH_REPEATS_MAX];
	bench_pin(0);
	for (unsigned repeat = 0; repeat <= comparison->repeats; repeat++) {
		for (size_t way = 0; way < get_ways_count; way++) {
			double each_ns = pass_ns(comparison, side, &get_ways[way], stream);
			if (repeat > 0) { // the first pass maps pages
				ns[way][repeat - 1] = each_ns;
			}
		}
	}
	bench_unpin();
	static const char *const pairs[][2] = { { "kvd_view", "lmdb_renew" },
						{ "kvd_get", "lmdb_renew" },
						{ "kvd_view_100", "lmdb_renew_100" },
						{ "kvd_many", "lmdb_renew_100" } };
	size_t count = sizeof(pairs) / sizeof(pairs[0]);
	double ratios[sizeof(pairs) / sizeof(pairs[0])][BENCH_REPEATS_MAX];
	for (size_t i = 0; i < count; i++) {
		size_t kvd = (size_t)(get_way_find(pairs[i][0]) - get_ways);
		size_t lmdb = (size_t)(get_way_find(pairs[i][1]) - get_ways);
		for (unsigned repeat = 0; repeat < comparison->repeats; repeat++) {
			ratios[i][repeat] = ns[lmdb][repeat] / ns[kvd][repeat];
		}
	}
	for (size_t way = 0; way < get_ways_count; way++) {
		bench_add(rows, get_ways[way].id, get_ways[way].label, "ns", ns[way],
			  comparison->repeats);
	}
	for (size_t i = 0; i < count; i++) {
		char id[64], label[80];
		(void)snprintf(id, sizeof(id), "%s_to_%s", pairs[i][1], pairs[i][0]);
		(void)snprintf(label, sizeof(label), "%s / %s", pairs[i][1], pairs[i][0]);
		memcpy(ratio, ratios[i], sizeof(ratio));
		bench_add(rows, id, label, "times", ratio, comparison->repeats);
	}
}

static int usage(void)
{
	(void)fprintf(
		stderr,
		"usage: kvbench get_vs_lmdb [--keys N] [--gets N] [--repeats N] [--pair-ms N]\n"
		"                           [--seed N] [--cpu-time] [--only WAY] [--json]\n"
		"Nanoseconds a hit of N (1M) keys, uniform, passes of 4M gets, medians of 5;\n"
		"then one and two processes, 1000 ms a run (0 leaves that out), and the same of a\n"
		"loop in private memory: what the machine itself allows. --cpu-time counts the\n"
		"thread's processor time, which suffers less on a busy machine.\n");
	return 2;
}

static bool arguments(struct comparison *out, int argc, char **argv)
{
	static const struct option options[] = {
		{ "keys", required_argument, NULL, 'k' },
		{ "gets", required_argument, NULL, 'g' },
		{ "repeats", required_argument, NULL, 'r' },
		{ "seed", required_argument, NULL, 's' },
		{ "pair-ms", required_argument, NULL, 'p' },
		{ "only", required_argument, NULL, 'o' },
		{ "cpu-time", no_argument, NULL, 'c' },
		{ "json", no_argument, NULL, 'j' },
		{ 0 },
	};
	int letter;
	while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (letter) {
		case 'k':
			out->keys = bench_number("--keys", optarg, 1, 1000000000);
			break;
		case 'g':
			out->gets = bench_number("--gets", optarg, 32, 1u << 30);
			break;
		case 'r':
			out->repeats =
				(unsigned)bench_number("--repeats", optarg, 1, BENCH_REPEATS_MAX);
			break;
		case 's':
			out->seed = bench_number("--seed", optarg, 0, UINT64_MAX);
			break;
		case 'p':
			out->pair_ns = bench_number("--pair-ms", optarg, 0, 3600000) * 1000000;
			break;
		case 'o':
			out->only = optarg;
			break;
		case 'c':
			out->cpu_time = true;
			break;
		case 'j':
			out->json = true;
			break;
		default:
			return false;
		}
	}
	return optind == argc;
}

// One way, one pass after a warm one.
static void run_only(struct bench_rows *rows, const struct comparison *comparison,
		     struct get_side *side, const struct get_stream *stream)
{
	const struct get_way *way = get_way_find(comparison->only);
	double ns[BENCH_REPEATS_MAX];
	bench_pin(0);
	(void)pass_ns(comparison, side, way, stream);
	for (unsigned i = 0; i < comparison->repeats; i++) {
		ns[i] = pass_ns(comparison, side, way, stream);
	}
	bench_unpin();
	bench_add(rows, way->id, way->label, "ns", ns, comparison->repeats);
}

int get_vs_lmdb_main(int argc, char **argv)
{
	struct comparison comparison = {
		.keys = 1000000, .gets = 4u << 20, .repeats = 5, .pair_ns = 1000000000, .seed = 1
	};
	static struct bench_rows rows;
	struct get_side side;
	char lmdb_path[128], title[96];
	if (!arguments(&comparison, argc, argv)) {
		return usage();
	}
	struct harness *server = bench_server_start("memory", bench_memory_for(comparison.keys));
	const char *socket_path = harness_socket(server);
	(void)snprintf(lmdb_path, sizeof(lmdb_path), "%s/lmdb", harness_root(server));
	bench_load(socket_path, comparison.keys);
	get_lmdb_load(lmdb_path, comparison.keys);
	struct get_stream stream =
		get_stream_new(comparison.keys, comparison.gets, comparison.seed);
	get_side_open(&side, socket_path, lmdb_path);
	if (comparison.only) {
		run_only(&rows, &comparison, &side, &stream);
	} else {
		compare_ways(&rows, &comparison, &side, &stream);
	}
	get_side_close(&side);
	struct get_pair pair = { &stream,
				 socket_path,
				 lmdb_path,
				 comparison.pair_ns,
				 comparison.repeats,
				 comparison.cpu_time };
	for (size_t way = 0; pair.run_ns > 0 && !comparison.only && way < 4; way++) {
		get_pair(&rows, way < 3 ? &get_ways[way] : &get_way_own, &pair);
	}
	(void)snprintf(title, sizeof(title), "get_vs_lmdb, %llu keys",
		       (unsigned long long)comparison.keys);
	bench_print(title, &rows, comparison.json);
	free(stream.keys);
	bench_server_free(server);
	return 0;
}
