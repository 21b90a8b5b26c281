// SPDX-License-Identifier: MIT
//
// Does anybody notice that the table grows and shrinks? It grows to N keys, is emptied by FLUSHALL,
// grows again, and shrinks as every key is removed. For each of these, the longest turn of kvd's
// loop in processor time, which is what it makes others wait, and the waits of a writer that sets
// a key each 500 us whether or not it was answered (open loop: a wait counts from when the request
// was due). The waits contain what the machine does with two programs that are always busy.
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bench/common.h"
#include "bench/kvbench.h"
#include "bench/server.h"

#define GROW_EVERY_NS UINT64_C(500000)
#define GROW_WAITS_MAX (1u << 20)
#define GROW_PIPELINE 500u
#define GROW_QUIET_NS UINT64_C(300000000) // the table is left alone for so long: it has its size
#define GROW_SHRINK_NS UINT64_C(60000000000)

#define GROW_DEL_HEAD "*2\r\n$3\r\nDEL\r\n$16\r\n"
#define GROW_DEL_KEY_AT (sizeof(GROW_DEL_HEAD) - 1)
#define GROW_DEL_BYTES (GROW_DEL_KEY_AT + BENCH_KEY_BYTES + 2)

struct writer {
	pthread_t thread;
	const char *socket_path;
	_Atomic bool over;
	uint32_t *waits_us; // GROW_WAITS_MAX of them
	size_t count;
};

static void receive_exactly(int fd, size_t bytes)
{
	char input[GROW_PIPELINE * 8];
	while (bytes > 0) {
		ssize_t got = recv(fd, input, bytes < sizeof(input) ? bytes : sizeof(input), 0);
		if (got <= 0 || memchr(input, '-', (size_t)got)) {
			bench_die("kvd refused a write, or is gone");
		}
		bytes -= (size_t)got;
	}
}

// One key over and over, which is not among those that come and go.
static void *writer_thread(void *argument)
{
	struct writer *writer = argument;
	char request[BENCH_SET_BYTES];
	int fd = bench_connect(writer->socket_path, true);
	bench_set_frame(request);
	memset(request + BENCH_SET_KEY_AT, 'w', BENCH_KEY_BYTES);
	bench_value(request + BENCH_SET_VALUE_AT, 0);
	uint64_t due_ns = bench_now_ns();
	while (!atomic_load(&writer->over) && writer->count < GROW_WAITS_MAX) {
		due_ns += GROW_EVERY_NS;
		const struct timespec due = { .tv_sec = (time_t)(due_ns / 1000000000),
					      .tv_nsec = (long)(due_ns % 1000000000) };
		(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
		bench_send(fd, request, sizeof(request));
		receive_exactly(fd, BENCH_OK_BYTES);
		writer->waits_us[writer->count++] = (uint32_t)((bench_now_ns() - due_ns) / 1000);
	}
	(void)close(fd);
	return NULL;
}

static int by_wait(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
	return (left > right) - (left < right);
}

static void run(kvc *client, const char *first, const char *second)
{
	const struct kvc_reply *reply;
	const void *argv[] = { first, second };
	const size_t bytes[] = { strlen(first), second ? strlen(second) : 0 };
	if (kvc_command(client, second ? 2 : 1, argv, bytes, &reply) != KVC_OK) {
		bench_die("%s failed", first);
	}
}

static void delete_all(const char *socket_path, uint64_t keys)
{
	static char requests[GROW_PIPELINE * GROW_DEL_BYTES];
	int fd = bench_connect(socket_path, true);
	for (uint64_t first = 0; first < keys; first += GROW_PIPELINE) {
		uint64_t left = keys - first;
		uint64_t count = left < GROW_PIPELINE ? left : GROW_PIPELINE;
		for (uint64_t i = 0; i < count; i++) {
			char *request = requests + i * GROW_DEL_BYTES;
			memcpy(request, GROW_DEL_HEAD, GROW_DEL_KEY_AT);
			bench_key(request + GROW_DEL_KEY_AT, first + i);
			memcpy(request + GROW_DEL_KEY_AT + BENCH_KEY_BYTES, "\r\n", 2);
		}
		bench_send(fd, requests, count * GROW_DEL_BYTES);
		receive_exactly(fd, count * strlen(":1\r\n"));
	}
	(void)close(fd);
}

// Until the table, and the memory that it has, stay as they are.
static void settle(kvc *client)
{
	static char stats[BENCH_STATS_BYTES_MAX];
	uint64_t end_ns = bench_now_ns() + GROW_SHRINK_NS, since_ns = bench_now_ns(), before = 0;
	do {
		const struct timespec pause = { .tv_nsec = 20000000 };
		(void)nanosleep(&pause, NULL);
		bench_stats(client, stats);
		uint64_t now = bench_stat(stats, "table_buckets") +
			       bench_stat(stats, "memory_table_bytes");
		since_ns = now == before ? since_ns : bench_now_ns();
		before = now;
	} while (bench_now_ns() < since_ns + GROW_QUIET_NS && bench_now_ns() < end_ns);
}

enum { GROW, FLUSH, REGROW, SHRINK, PHASES };
static const char *const phase_names[PHASES] = { "grow", "flushall", "grow_again", "remove_all" };

static void phase_play(int phase, kvc *client, const char *socket_path, uint64_t keys)
{
	if (phase == FLUSH) {
		run(client, "FLUSHALL", NULL);
	} else if (phase == SHRINK) {
		delete_all(socket_path, keys);
	} else {
		bench_load(socket_path, keys);
	}
	settle(client);
}

// What is told of each phase: its name, its unit, and which of the sorted waits it is.
static const struct {
	const char *id, *label, *unit;
	unsigned per_10000;
} parts[] = {
	{ "turn", "longest turn, processor time", "us", 0 },
	{ "p50", "a writer's wait, p50", "us", 5000 },
	{ "p99", "a writer's wait, p99", "us", 9900 },
	{ "p99.9", "a writer's wait, p99.9", "us", 9990 },
	{ "max", "a writer's longest wait", "us", 10000 },
	{ "table", "memory of the table afterwards", "MiB", 0 },
};
#define GROW_PARTS (sizeof(parts) / sizeof(parts[0]))

static double samples[PHASES][GROW_PARTS][BENCH_REPEATS_MAX];

static void phase_note(int phase, uint64_t repeat, const char *stats, struct writer *writer)
{
	qsort(writer->waits_us, writer->count, sizeof(*writer->waits_us), by_wait);
	for (size_t i = 0; i < GROW_PARTS; i++) {
		size_t at =
			writer->count > 0 ? (writer->count - 1) * parts[i].per_10000 / 10000 : 0;
		samples[phase][i][repeat] = writer->count > 0 ? writer->waits_us[at] : 0;
	}
	samples[phase][0][repeat] = (double)bench_stat(stats, "turn_longest_us");
	samples[phase][GROW_PARTS - 1][repeat] =
		(double)bench_stat(stats, "memory_table_bytes") / (1 << 20);
}

static void report(struct bench_rows *rows, uint64_t repeats)
{
	for (int phase = 0; phase < PHASES; phase++) {
		for (size_t i = 0; i < GROW_PARTS; i++) {
			char id[64], label[80];
			(void)snprintf(id, sizeof(id), "%s_%s", phase_names[phase], parts[i].id);
			(void)snprintf(label, sizeof(label), "%s: %s", phase_names[phase],
				       parts[i].label);
			bench_add(rows, id, label, parts[i].unit, samples[phase][i], repeats);
		}
	}
}

static void phase_measure(int phase, uint64_t repeat, kvc *client, const char *socket_path,
			  uint64_t keys)
{
	static char stats[BENCH_STATS_BYTES_MAX];
	struct writer writer = { .socket_path = socket_path };
	writer.waits_us = malloc(GROW_WAITS_MAX * sizeof(*writer.waits_us));
	run(client, "CONFIG", "RESETSTAT");
	if (!writer.waits_us || pthread_create(&writer.thread, NULL, writer_thread, &writer) != 0) {
		bench_die("no writer");
	}
	phase_play(phase, client, socket_path, keys);
	atomic_store(&writer.over, true);
	if (pthread_join(writer.thread, NULL) != 0) {
		bench_die("pthread_join");
	}
	bench_stats(client, stats);
	phase_note(phase, repeat, stats, &writer);
	free(writer.waits_us);
}

int grow_main(int argc, char **argv)
{
	static struct bench_rows rows;
	uint64_t keys = 1000000, repeats = 5;
	bool json;
	const struct bench_option options[] = { { "--keys", 1000, 100000000, &keys },
						{ "--repeats", 1, BENCH_REPEATS_MAX, &repeats } };
	if (!bench_options(argc, argv, options, 2, &json,
			   "usage: kvbench grow [--keys N] [--repeats N] [--json]\n"
			   "Longest turns of kvd, and what a writer waits, while the table grows "
			   "and shrinks.\n")) {
		return 2;
	}
	struct harness *server = bench_server_start("memory", bench_memory_for(keys) * 2);
	kvc *client = bench_client(harness_socket(server));
	for (uint64_t i = 0; i < repeats * PHASES; i++) {
		phase_measure((int)(i % PHASES), i / PHASES, client, harness_socket(server), keys);
	}
	report(&rows, repeats);
	if (kvc_close(client) != KVC_OK) {
		bench_die("kvc_close");
	}
	bench_server_free(server);
	bench_print("grow", &rows, json);
	return 0;
}
