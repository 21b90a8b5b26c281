// SPDX-License-Identifier: MIT
//
// Overwriting at random in memory that is so full: values of 32 bytes to 64 KiB, mixed, and of
// sizes that drift between small and large, so that space of one kind has to become space of
// another. How much is live is kept where it was asked for: what would be too much is removed
// instead. Meanwhile a thread reads through the mapping, a key each 50 us whether or not the last
// get was over.
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/common.h"
#include "bench/histogram.h"
#include "bench/kvbench.h"
#include "bench/server.h"

#define CHURN_SIZE_MAX 65536u
#define CHURN_OCTAVES 8u // between the smallest and the largest at a time; they drift by three
#define CHURN_DRIFTS 3u
#define CHURN_MEAN_BYTES 1500u // of a value while they are small
#define CHURN_RECORD_BYTES 56u // of a record, beyond its value
#define CHURN_READ_NS 50000u
#define CHURN_REFUSED_MOST 3u // before it is measured

struct churn {
	int fd;
	uint64_t random;
	uint32_t *bytes; // of each key's value, 0 = absent
	uint64_t keys;
	uint64_t live_bytes, live_most;
	uint64_t refused;
	struct bench_histogram waits;
};

struct reader {
	pthread_t thread;
	kvc_reader *reader;
	_Atomic bool over;
	uint64_t keys;
	struct bench_histogram waits;
};

static char churn_request[CHURN_SIZE_MAX + 256];

// One reply, a line. True unless it is an error.
static bool churn_reply(int fd)
{
	char line[512];
	size_t have = 0;
	while (have == 0 || line[have - 1] != '\n') {
		ssize_t got = recv(fd, line + have, sizeof(line) - have, 0);
		if (got <= 0) {
			bench_die("kvd is gone");
		}
		have += (size_t)got;
		if (have == sizeof(line)) {
			bench_die("kvd: %.100s", line);
		}
	}
	return line[0] != '-';
}

static void churn_set(struct churn *churn, uint64_t index, uint32_t bytes)
{
	char key[BENCH_KEY_BYTES + 1] = { 0 };
	bench_key(key, index);
	int head = bytes > 0
			   ? snprintf(churn_request, 128, "*3\r\n$3\r\nSET\r\n$16\r\n%s\r\n$%u\r\n",
				      key, bytes)
			   : snprintf(churn_request, 128, "*2\r\n$3\r\nDEL\r\n$16\r\n%s\r\n", key);
	size_t all = (size_t)head;
	if (bytes > 0) {
		memset(churn_request + all, 'v', bytes);
		memcpy(churn_request + all + bytes, "\r\n", 2);
		all += bytes + 2;
	}
	uint64_t began_ns = bench_now_ns();
	bench_send(churn->fd, churn_request, all);
	bool good = churn_reply(churn->fd);
	uint64_t took_ns = bench_now_ns() - began_ns;
	if (bytes > 0) {
		bench_histogram_add(&churn->waits, took_ns);
	}
	churn->refused += !good;
	if (good) {
		uint32_t before = churn->bytes[index];
		churn->live_bytes -= before ? before + CHURN_RECORD_BYTES : 0;
		churn->live_bytes += bytes ? bytes + CHURN_RECORD_BYTES : 0;
		churn->bytes[index] = bytes;
	}
}

// Sizes spread evenly over the octaves from the smallest of the present ones.
static uint32_t churn_size(struct churn *churn, unsigned drift)
{
	uint32_t low = 32u << drift << bench_random_below(&churn->random, CHURN_OCTAVES);
	uint32_t bytes = low + (uint32_t)bench_random_below(&churn->random, low);
	return bytes < CHURN_SIZE_MAX ? bytes : CHURN_SIZE_MAX;
}

static void churn_step(struct churn *churn, unsigned drift)
{
	uint64_t index = bench_random_below(&churn->random, churn->keys);
	uint32_t bytes = churn_size(churn, drift);
	if (churn->live_bytes + bytes > churn->live_most) {
		bytes = 0;
	}
	if (bytes > 0 || churn->bytes[index] > 0) {
		churn_set(churn, index, bytes);
	}
}

static void *reader_thread(void *argument)
{
	struct reader *reader = argument;
	static char value[CHURN_SIZE_MAX];
	uint64_t random = 7;
	uint64_t due_ns = bench_now_ns();
	while (!atomic_load(&reader->over)) {
		char key[BENCH_KEY_BYTES];
		struct kvc_meta meta;
		due_ns += CHURN_READ_NS;
		bench_key(key, bench_random_below(&random, reader->keys));
		while (bench_now_ns() < due_ns) {
		}
		(void)kvc_get(reader->reader, key, sizeof(key), value, sizeof(value), &meta);
		bench_histogram_add(&reader->waits, bench_now_ns() - due_ns);
	}
	return NULL;
}

static void report_waits(struct bench_rows *rows, uint64_t percent, const char *what,
			 const struct bench_histogram *waits, FILE *data)
{
	char id[32], label[40];
	(void)snprintf(id, sizeof(id), "live%" PRIu64 "_%s", percent, what);
	(void)snprintf(label, sizeof(label), "%" PRIu64 " %% live: %s", percent, what);
	bench_add_waits(rows, id, label, waits);
	if (data != NULL) {
		bench_histogram_write(waits, label, data);
	}
}

static void report(struct bench_rows *rows, uint64_t percent, const char *id_end, const char *what,
		   const char *unit, double value)
{
	char id[64], label[80];
	(void)snprintf(id, sizeof(id), "live%" PRIu64 "_%s", percent, id_end);
	(void)snprintf(label, sizeof(label), "%" PRIu64 " %% live: %s", percent, what);
	bench_add_one(rows, id, label, unit, value);
}

static void measure(struct bench_rows *rows, struct churn *churn, kvc *client, uint64_t percent,
		    uint64_t seconds, FILE *data)
{
	static char stats[BENCH_STATS_BYTES_MAX];
	static struct reader reader;
	reader = (struct reader){ .reader = bench_reader(client), .keys = churn->keys };
	bench_histogram_reset(&reader.waits);
	bench_stats(client, stats);
	uint64_t appended = bench_stat(stats, "log_appended_bytes");
	uint64_t copied = bench_stat(stats, "cleaner_copied_bytes");
	if (pthread_create(&reader.thread, NULL, reader_thread, &reader) != 0) {
		bench_die("no reader");
	}
	bench_histogram_reset(&churn->waits);
	uint64_t began_ns = bench_now_ns(), took_ns = 0;
	while ((took_ns = bench_now_ns() - began_ns) < seconds * UINT64_C(1000000000)) {
		churn_step(churn, (unsigned)(took_ns * 2 * CHURN_DRIFTS /
					     (seconds * UINT64_C(1000000000))) %
					  (CHURN_DRIFTS + 1));
	}
	atomic_store(&reader.over, true);
	if (pthread_join(reader.thread, NULL) != 0) {
		bench_die("pthread_join");
	}
	bench_stats(client, stats);
	appended = bench_stat(stats, "log_appended_bytes") - appended;
	copied = bench_stat(stats, "cleaner_copied_bytes") - copied;
	report(rows, percent, "rate", "SETs", "1/s",
	       (double)churn->waits.total * 1e9 / (double)took_ns);
	report(rows, percent, "bytes", "written", "MB/s", (double)appended * 1e3 / (double)took_ns);
	report(rows, percent, "refused", "refused writes", "", (double)churn->refused);
	report(rows, percent, "amplification", "written in all for one", "x",
	       appended > 0 ? (double)(appended + copied) / (double)appended : 1);
	report(rows, percent, "slice", "longest go of the cleaner", "us",
	       (double)bench_stat(stats, "cleaner_slice_longest_us"));
	report_waits(rows, percent, "SET", &churn->waits, data);
	report_waits(rows, percent, "get", &reader.waits, data);
	if (kvc_reader_close(reader.reader) != KVC_OK) {
		bench_die("kvc_reader_close");
	}
}

static void churn_run(struct bench_rows *rows, uint64_t percent, uint64_t memory_bytes,
		      uint64_t seconds, FILE *data)
{
	static struct churn churn;
	struct harness *server = bench_server_start("memory", memory_bytes);
	kvc *client = bench_client(harness_socket(server));
	churn = (struct churn){ .fd = bench_connect(harness_socket(server), true), .random = 1 };
	churn.live_most = memory_bytes / 100 * percent;
	churn.keys = memory_bytes / CHURN_MEAN_BYTES;
	churn.bytes = calloc(churn.keys, sizeof(*churn.bytes));
	if (!churn.bytes) {
		bench_die("out of memory");
	}
	while (churn.live_bytes + CHURN_SIZE_MAX < churn.live_most) {
		churn_step(&churn, CHURN_DRIFTS);
		if (churn.refused > CHURN_REFUSED_MOST) {
			bench_die("kvd refuses before %" PRIu64 " %% of so little memory are live: "
				  "give it more",
				  percent);
		}
	}
	measure(rows, &churn, client, percent, seconds, data);
	free(churn.bytes);
	(void)close(churn.fd);
	if (kvc_close(client) != KVC_OK) {
		bench_die("kvc_close");
	}
	bench_server_free(server);
}

int churn_main(int argc, char **argv)
{
	static struct bench_rows rows;
	uint64_t seconds = 60, memory_mib = 1024, live_percent = 0;
	bool json;
	FILE *data = bench_data_open(&argc, argv);
	const struct bench_option options[] = { { "--seconds", 1, 86400, &seconds },
						{ "--memory-mib", 64, 1u << 20, &memory_mib },
						{ "--live", 0, 99, &live_percent } };
	if (!bench_options(
		    argc, argv, options, 3, &json,
		    "usage: kvbench churn [--seconds N] [--memory-mib N] [--live PERCENT] "
		    "[--data PATH] [--json]\nRandom overwriting of mixed, drifting sizes with "
		    "50 and 90 percent of the memory live, or as many\nas given; --data for "
		    "pauses.gnuplot.\n")) {
		return 2;
	}
	if (live_percent > 0) {
		churn_run(&rows, live_percent, memory_mib << 20, seconds, data);
	} else {
		churn_run(&rows, 50, memory_mib << 20, seconds, data);
		churn_run(&rows, 90, memory_mib << 20, seconds, data);
	}
	bench_print("churn", &rows, json);
	bench_data_close(data);
	return 0;
}
