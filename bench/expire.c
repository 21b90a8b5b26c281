// SPDX-License-Identifier: MIT
//
// Very many keys whose time comes within one second: how long the longest turn of kvd is meanwhile,
// what that does to one client that goes on writing, and how long it takes until all are gone. The
// turn's length is kvd's own counter, begun anew right before; once without a store and once with
// one, because there each removal is a record that has to become durable.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bench/common.h"
#include "bench/kvbench.h"
#include "bench/server.h"

#define EXPIRE_HEAD "*5\r\n$3\r\nSET\r\n$16\r\n"
#define EXPIRE_MIDDLE "\r\n$64\r\n"
#define EXPIRE_TAIL "\r\n$4\r\nPXAT\r\n$13\r\n"
#define EXPIRE_KEY_AT (sizeof(EXPIRE_HEAD) - 1)
#define EXPIRE_VALUE_AT (EXPIRE_KEY_AT + BENCH_KEY_BYTES + sizeof(EXPIRE_MIDDLE) - 1)
#define EXPIRE_TAIL_AT (EXPIRE_VALUE_AT + BENCH_VALUE_BYTES)
#define EXPIRE_TIME_AT (EXPIRE_TAIL_AT + sizeof(EXPIRE_TAIL) - 1)
#define EXPIRE_BYTES (EXPIRE_TIME_AT + 13 + 2)
#define EXPIRE_DEEP 128u
#define EXPIRE_WRITTEN 1000u // keys without a time, written all the while
#define EXPIRE_SAMPLES_MAX 4000000u
#define EXPIRE_LOOK_NS 10000000u
#define EXPIRE_GIVE_UP_MS 60000u

struct run {
	uint64_t keys, lead_ms, within_ms, seed;
	bool json;
	int fd;
	uint32_t *samples; // ns of each SET
	size_t count;
};

static uint64_t wall_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

// One request and its reply, which is short. Returns the reply's length.
static size_t ask(const struct run *run, const char *request, size_t bytes, char reply[64])
{
	bench_send(run->fd, request, bytes);
	ssize_t got = recv(run->fd, reply, 63, 0);
	if (got <= 0) {
		bench_die("the connection ended");
	}
	reply[got] = '\0';
	return (size_t)got;
}

static void load(const struct run *run, uint64_t first_ms)
{
	static char requests[EXPIRE_DEEP * EXPIRE_BYTES];
	uint64_t random = run->seed;
	for (uint64_t first = 0; first < run->keys; first += EXPIRE_DEEP) {
		uint64_t left = run->keys - first;
		uint64_t count = left < EXPIRE_DEEP ? left : EXPIRE_DEEP;
		for (uint64_t i = 0; i < count; i++) {
			char *at = requests + i * EXPIRE_BYTES;
			char time[16];
			memcpy(at, EXPIRE_HEAD, sizeof(EXPIRE_HEAD) - 1);
			bench_key(at + EXPIRE_KEY_AT, first + i);
			memcpy(at + EXPIRE_KEY_AT + BENCH_KEY_BYTES, EXPIRE_MIDDLE,
			       sizeof(EXPIRE_MIDDLE) - 1);
			bench_value(at + EXPIRE_VALUE_AT, first + i);
			memcpy(at + EXPIRE_TAIL_AT, EXPIRE_TAIL, sizeof(EXPIRE_TAIL) - 1);
			uint64_t ms = first_ms + bench_random_below(&random, run->within_ms);
			(void)snprintf(time, sizeof(time), "%013llu", (unsigned long long)ms);
			memcpy(at + EXPIRE_TIME_AT, time, 13);
			memcpy(at + EXPIRE_TIME_AT + 13, "\r\n", 2);
		}
		bench_send(run->fd, requests, count * EXPIRE_BYTES);
		for (uint64_t seen = 0; seen < count * BENCH_OK_BYTES;) {
			char reply[EXPIRE_DEEP * BENCH_OK_BYTES];
			ssize_t got = recv(run->fd, reply, sizeof(reply), 0);
			if (got <= 0 || !bench_all_ok(reply, (size_t)got, seen)) {
				bench_die("not the expected reply to SET");
			}
			seen += (uint64_t)got;
		}
	}
}

static uint64_t keys_left(const struct run *run)
{
	char reply[64];
	static const char request[] = "*1\r\n$6\r\nDBSIZE\r\n";
	(void)ask(run, request, sizeof(request) - 1, reply);
	return reply[0] == ':' ? strtoull(reply + 1, NULL, 10) : 0;
}

// SETs one after the other until that time (by the wall), or until only they are left. Returns when
// that was, in ms since the epoch.
static uint64_t write_until(struct run *run, uint64_t until_ms, bool gone)
{
	char request[BENCH_SET_BYTES];
	char reply[64];
	uint64_t now_ns = bench_now_ns(), looked_ns = now_ns;
	bench_set_frame(request);
	run->count = 0;
	for (uint64_t i = 0;; i++) {
		bench_key(request + BENCH_SET_KEY_AT, run->keys + i % EXPIRE_WRITTEN);
		bench_value(request + BENCH_SET_VALUE_AT, i);
		size_t got = ask(run, request, sizeof(request), reply);
		if (got != BENCH_OK_BYTES || !bench_all_ok(reply, got, 0)) {
			bench_die("not the expected reply to SET: %s", reply);
		}
		uint64_t end_ns = bench_now_ns();
		if (run->count < EXPIRE_SAMPLES_MAX) {
			uint64_t ns = end_ns - now_ns;
			run->samples[run->count++] = (uint32_t)(ns < UINT32_MAX ? ns : UINT32_MAX);
		}
		now_ns = end_ns;
		if (now_ns - looked_ns < EXPIRE_LOOK_NS) {
			continue;
		}
		uint64_t now_ms = wall_ms();
		if (now_ms >= until_ms || (gone && keys_left(run) <= EXPIRE_WRITTEN)) {
			return now_ms;
		}
		looked_ns = bench_now_ns();
		now_ns = looked_ns;
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static void add_samples(struct run *run, struct bench_rows *rows, const char *policy,
			const char *when)
{
	char id[64], label[80];
	static const struct {
		const char *name;
		double share;
	} points[] = { { "p50", 0.5 }, { "p99.9", 0.999 }, { "longest", 1.0 } };
	qsort(run->samples, run->count, sizeof(run->samples[0]), compare);
	for (unsigned i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		size_t at = (size_t)((double)(run->count - 1) * points[i].share);
		(void)snprintf(id, sizeof(id), "%s_set_%s_%s", policy, when, points[i].name);
		(void)snprintf(label, sizeof(label), "%s: a SET %s, %s", policy, when,
			       points[i].name);
		bench_add_one(rows, id, label, "us", (double)run->samples[at] / 1000.0);
	}
}

static void add(struct bench_rows *rows, const char *policy, const char *name, const char *what,
		const char *unit, double value)
{
	char id[64], label[80];
	(void)snprintf(id, sizeof(id), "%s_%s", policy, name);
	(void)snprintf(label, sizeof(label), "%s: %s", policy, what);
	bench_add_one(rows, id, label, unit, value);
}

static void measure(struct run *run, struct bench_rows *rows, const char *policy)
{
	static char stats[BENCH_STATS_BYTES_MAX];
	static const char reset[] = "*2\r\n$6\r\nCONFIG\r\n$9\r\nRESETSTAT\r\n";
	char reply[64];
	struct harness *server = bench_server_start(policy, bench_memory_for(2 * run->keys));
	kvc *client = bench_client(harness_socket(server));
	run->fd = bench_connect(harness_socket(server), true);
	uint64_t first_ms = wall_ms() + run->lead_ms;
	load(run, first_ms);
	if (wall_ms() + 1500 > first_ms) {
		bench_die("loading took longer than --lead-ms leaves");
	}
	bench_stats(client, stats);
	add(rows, policy, "index", "memory of the index a key", "bytes",
	    (double)bench_stat(stats, "memory_expiry_bytes") / (double)run->keys);
	(void)write_until(run, first_ms - 200, false);
	add_samples(run, rows, policy, "before");
	(void)ask(run, reset, sizeof(reset) - 1, reply);
	uint64_t last_ms = first_ms + run->within_ms;
	uint64_t over_ms = write_until(run, last_ms + EXPIRE_GIVE_UP_MS, true);
	bench_stats(client, stats);
	if (bench_stat(stats, "keys_with_expiry") != 0 || bench_stat(stats, "expiry_walks") != 0) {
		bench_die("keys are left, or the table was walked");
	}
	add_samples(run, rows, policy, "meanwhile");
	add(rows, policy, "gone", "from the last key's time until all are gone", "ms",
	    over_ms > last_ms ? (double)(over_ms - last_ms) : 0);
	add(rows, policy, "turn", "longest turn, processor time", "us",
	    (double)bench_stat(stats, "turn_longest_us"));
	add(rows, policy, "turn_wall", "longest turn by the clock", "us",
	    (double)bench_stat(stats, "turn_longest_wall_us"));
	(void)close(run->fd);
	kvc_close(client);
	bench_server_free(server);
}

int expire_main(int argc, char **argv)
{
	static struct run run;
	static struct bench_rows rows;
	run.keys = 1000000;
	run.lead_ms = 10000;
	run.within_ms = 1000;
	run.seed = 1;
	const struct bench_option options[] = {
		{ "--keys", 1, 100000000, &run.keys },
		{ "--lead-ms", 2000, 600000, &run.lead_ms },
		{ "--within-ms", 1, 3600000, &run.within_ms },
		{ "--seed", 0, UINT32_MAX, &run.seed },
	};
	if (!bench_options(argc, argv, options, sizeof(options) / sizeof(options[0]), &run.json,
			   "usage: kvbench expire [--keys 1000000] [--lead-ms 10000] "
			   "[--within-ms 1000]\n       [--seed 1] [--json]\n"
			   "Keys that all end within that time; those are written within "
			   "--lead-ms.\n")) {
		return 2;
	}
	run.samples = malloc(EXPIRE_SAMPLES_MAX * sizeof(run.samples[0]));
	if (run.samples == NULL) {
		bench_die("out of memory");
	}
	measure(&run, &rows, "memory");
	measure(&run, &rows, "lazy");
	bench_print("expire", &rows, run.json);
	free(run.samples);
	return 0;
}
