// SPDX-License-Identifier: MIT
//
// Processor time of a kvd that has nothing to do: one attached client that reads and writes
// nothing. One kvd for each policy, side by side, because waiting for one costs as much as waiting
// for two.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench/common.h"
#include "bench/kvbench.h"
#include "bench/server.h"

#define IDLE_SETTLE_S 3 // the writes below are committed and everything has settled by then

struct idle {
	const char *policy;
	struct harness *server;
	kvc *client;
	kvc_reader *reader;
	double start_ms;
};

static void idle_begin(struct idle *idle)
{
	char key[BENCH_KEY_BYTES], value[BENCH_VALUE_BYTES];
	idle->server = bench_server_start(idle->policy, bench_memory_for(0));
	bench_load(harness_socket(idle->server), 100000);
	idle->client = bench_client(harness_socket(idle->server));
	idle->reader = bench_reader(idle->client);
	bench_key(key, 1);
	if (kvc_get(idle->reader, key, sizeof(key), value, sizeof(value), NULL) != KVC_OK) {
		bench_die("kvc_get");
	}
}

static void idle_end(struct idle *idle)
{
	if (kvc_close(idle->client) != KVC_OK) {
		bench_die("kvc_close");
	}
	bench_server_free(idle->server);
}

static void wait_s(time_t seconds)
{
	struct timespec left = { .tv_sec = seconds };
	while (nanosleep(&left, &left) != 0) {
		if (errno != EINTR) {
			bench_die("nanosleep: %s", strerror(errno));
		}
	}
}

static void measure(struct bench_rows *rows, time_t seconds)
{
	struct idle idle[] = { { .policy = "lazy" },
			       { .policy = "memory" },
			       { .policy = "group" } };
	size_t count = sizeof(idle) / sizeof(idle[0]);
	for (size_t i = 0; i < count; i++) {
		idle_begin(&idle[i]);
	}
	wait_s(IDLE_SETTLE_S);
	for (size_t i = 0; i < count; i++) {
		idle[i].start_ms = bench_process_cpu_ms(harness_pid(idle[i].server));
	}
	wait_s(seconds);
	for (size_t i = 0; i < count; i++) {
		char id[64], label[80];
		double used_ms =
			bench_process_cpu_ms(harness_pid(idle[i].server)) - idle[i].start_ms;
		(void)snprintf(id, sizeof(id), "idle_%s", idle[i].policy);
		(void)snprintf(label, sizeof(label), "--persist %s, %lld s idle", idle[i].policy,
			       (long long)seconds);
		bench_add_one(rows, id, label, "ms", used_ms);
	}
	for (size_t i = 0; i < count; i++) {
		idle_end(&idle[i]);
	}
}

int idle_cpu_main(int argc, char **argv)
{
	static struct bench_rows rows;
	uint64_t seconds = 60;
	bool json = false;
	const struct bench_option option = { "--seconds", 1, 86400, &seconds };
	if (!bench_options(argc, argv, &option, 1, &json,
			   "usage: kvbench idle_cpu [--seconds N] [--json]\n"
			   "Processor time of an idle kvd with one attached client in 60 s.\n")) {
		return 2;
	}
	measure(&rows, (time_t)seconds);
	bench_print("idle_cpu", &rows, json);
	return 0;
}
