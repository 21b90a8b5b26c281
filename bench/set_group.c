// SPDX-License-Identifier: MIT
//
// Durable writes: many connections, each with one pipeline of SETs under way, under the group
// policy, where a reply leaves kvd only after the commit that covers it. The load is one thread
// that patches keys into ready requests and counts replies by their bytes, so that it takes little
// of the machine that it measures. Overwriting the same keys for as long as wanted keeps compaction
// at work.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bench/common.h"
#include "bench/kvbench.h"
#include "bench/server.h"

#define GROUP_CONNECTIONS_MAX 1000u
#define GROUP_PIPELINE_MAX 10000u
#define GROUP_LATENCIES_MAX (1u << 22)
#define GROUP_SECONDS_MAX 3600u

struct connection {
	int fd;
	char *requests; // a pipeline, framed; keys are patched in
	size_t sent;	// bytes of it
	uint64_t seen;	// bytes of its replies
	uint64_t start_ns;
};

struct load {
	uint64_t keys;
	uint64_t seed;
	unsigned connections;
	unsigned pipeline;
	unsigned seconds;
	const char *policy;
	bool json;

	int epoll;
	struct connection *connection;
	size_t request_bytes; // of a pipeline
	char *input;
	size_t input_bytes;
	uint64_t sets; // durable
	float *latency_ms;
	size_t latencies;
};

// What the store looked like once a second.
struct samples {
	double sets_per_s[GROUP_SECONDS_MAX];
	double store_to_live[GROUP_SECONDS_MAX];
	double file_to_live[GROUP_SECONDS_MAX];
	size_t count;
};

// ---- the load -----------------------------------------------------------------------------------

static void pipeline_send(struct load *load, struct connection *c)
{
	while (c->sent < load->request_bytes) {
		ssize_t sent = send(c->fd, c->requests + c->sent, load->request_bytes - c->sent,
				    MSG_NOSIGNAL);
		if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
			return; // edge triggered: it will be told when there is room
		}
		if (sent <= 0) {
			bench_die("send: %s", strerror(errno));
		}
		c->sent += (size_t)sent;
	}
}

static void pipeline_begin(struct load *load, struct connection *c)
{
	for (unsigned i = 0; i < load->pipeline; i++) {
		bench_key(c->requests + i * BENCH_SET_BYTES + BENCH_SET_KEY_AT,
			  bench_random_below(&load->seed, load->keys));
	}
	c->sent = 0;
	c->seen = 0;
	c->start_ns = bench_now_ns();
	pipeline_send(load, c);
}

// Takes what has come. True if that was the last of the pipeline.
static bool pipeline_receive(struct load *load, struct connection *c)
{
	uint64_t wanted = (uint64_t)load->pipeline * BENCH_OK_BYTES;
	while (c->seen < wanted) {
		ssize_t got = recv(c->fd, load->input, load->input_bytes, 0);
		if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
			return false;
		}
		if (got <= 0) {
			bench_die("kvd closed the connection: %s", got ? strerror(errno) : "EOF");
		}
		if (!bench_all_ok(load->input, (size_t)got, c->seen)) {
			bench_die("kvd refused a SET: %.*s", (int)got, load->input);
		}
		c->seen += (uint64_t)got;
	}
	if (c->seen > wanted) {
		bench_die("more replies than requests");
	}
	return true;
}

static void pipeline_done(struct load *load, const struct connection *c)
{
	load->sets += load->pipeline;
	if (load->latencies < GROUP_LATENCIES_MAX) {
		load->latency_ms[load->latencies++] =
			(float)((double)(bench_now_ns() - c->start_ns) / 1e6);
	}
}

static void turn(struct load *load)
{
	struct epoll_event events[64];
	int count = epoll_wait(load->epoll, events, 64, 100);
	if (count < 0 && errno != EINTR) {
		bench_die("epoll_wait: %s", strerror(errno));
	}
	for (int i = 0; i < count; i++) {
		struct connection *c = events[i].data.ptr;
		pipeline_send(load, c);
		if (pipeline_receive(load, c)) {
			pipeline_done(load, c);
			pipeline_begin(load, c);
		}
	}
}

static void load_open(struct load *load, const char *socket_path)
{
	load->request_bytes = load->pipeline * BENCH_SET_BYTES;
	load->input_bytes = load->pipeline * BENCH_OK_BYTES + 1;
	load->epoll = epoll_create1(EPOLL_CLOEXEC);
	load->connection = calloc(load->connections, sizeof(load->connection[0]));
	load->input = malloc(load->input_bytes);
	load->latency_ms = malloc(GROUP_LATENCIES_MAX * sizeof(load->latency_ms[0]));
	if (load->epoll < 0 || !load->connection || !load->input || !load->latency_ms) {
		bench_die("%s", strerror(errno));
	}
	for (unsigned i = 0; i < load->connections; i++) {
		struct connection *c = &load->connection[i];
		struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET,
					     .data.ptr = c };
		c->requests = malloc(load->request_bytes);
		if (!c->requests) {
			bench_die("out of memory");
		}
		for (unsigned j = 0; j < load->pipeline; j++) {
			bench_set_frame(c->requests + j * BENCH_SET_BYTES);
			bench_value(c->requests + j * BENCH_SET_BYTES + BENCH_SET_VALUE_AT, i);
		}
		c->fd = bench_connect(socket_path, false);
		if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &event) != 0) {
			bench_die("epoll_ctl: %s", strerror(errno));
		}
		pipeline_begin(load, c);
	}
}

static void load_close(struct load *load)
{
	for (unsigned i = 0; i < load->connections; i++) {
		(void)close(load->connection[i].fd);
		free(load->connection[i].requests);
	}
	(void)close(load->epoll);
	free(load->connection);
	free(load->input);
	free(load->latency_ms);
}

// ---- measuring ----------------------------------------------------------------------------------

static double file_bytes(const struct harness *server)
{
	char path[160];
	struct stat facts;
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", harness_dir(server));
	if (stat(path, &facts) != 0) {
		bench_die("%s: %s", path, strerror(errno));
	}
	return (double)facts.st_blocks * 512;
}

static void sample(struct samples *samples, const struct harness *server, kvc *client,
		   double sets_per_s)
{
	static char stats[BENCH_STATS_BYTES_MAX];
	bench_stats(client, stats);
	double live = (double)bench_stat(stats, "memory_live_bytes");
	samples->sets_per_s[samples->count] = sets_per_s;
	samples->store_to_live[samples->count] = (double)bench_stat(stats, "store_bytes") / live;
	samples->file_to_live[samples->count] = file_bytes(server) / live;
	samples->count++;
}

static void run_seconds(struct load *load, struct samples *samples, const struct harness *server,
			kvc *client)
{
	uint64_t last_ns = bench_now_ns(), last_sets = load->sets;
	for (unsigned second = 0; second < load->seconds; second++) {
		uint64_t now_ns = last_ns;
		while (now_ns - last_ns < 1000000000) {
			turn(load);
			now_ns = bench_now_ns();
		}
		sample(samples, server, client,
		       (double)(load->sets - last_sets) * 1e9 / (double)(now_ns - last_ns));
		last_ns = now_ns;
		last_sets = load->sets;
	}
}

static int compare_floats(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

static void report_counters(struct bench_rows *rows, kvc *client, const char *before)
{
	static char after[BENCH_STATS_BYTES_MAX];
	static const struct {
		const char *name, *label, *unit;
		bool rises;
	} wanted[] = {
		{ "memory_live_bytes", "live bytes in memory", "bytes", false },
		{ "store_bytes", "store, bytes of blocks", "bytes", false },
		{ "store_live_bytes", "store, bytes of current records", "bytes", false },
		{ "commits", "commits", "", true },
		{ "commits_failed", "commits that failed", "", true },
		{ "commit_records", "records committed", "", true },
		{ "commit_skipped_records", "records superseded, not written", "", true },
		{ "compaction_blocks", "blocks compacted", "", true },
		{ "compaction_rewritten_bytes", "bytes rewritten by compaction", "bytes", true },
		{ "cleaner_copied_bytes", "bytes copied by the cleaner", "bytes", true },
		{ "writes_waited", "writes that waited for memory", "", true },
	};
	bench_stats(client, after);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		double value = (double)bench_stat(after, wanted[i].name);
		if (wanted[i].rises) {
			value -= (double)bench_stat(before, wanted[i].name);
		}
		bench_add_one(rows, wanted[i].name, wanted[i].label, wanted[i].unit, value);
	}
}

static void report(struct bench_rows *rows, struct load *load, struct samples *samples,
		   double seconds)
{
	qsort(load->latency_ms, load->latencies, sizeof(load->latency_ms[0]), compare_floats);
	bench_add_one(rows, "sets_per_s", "durable SETs a second, whole run", "SETs/s",
		      (double)load->sets / seconds);
	bench_add(rows, "sets_per_s_by_second", "durable SETs a second, by second", "SETs/s",
		  samples->sets_per_s, samples->count);
	bench_add_one(rows, "pipeline_p50_ms", "latency of a pipeline, p50", "ms",
		      (double)load->latency_ms[load->latencies / 2]);
	bench_add_one(rows, "pipeline_p99_ms", "latency of a pipeline, p99", "ms",
		      (double)load->latency_ms[load->latencies * 99 / 100]);
	bench_add_one(rows, "pipeline_max_ms", "latency of a pipeline, greatest", "ms",
		      (double)load->latency_ms[load->latencies - 1]);
	bench_add(rows, "store_to_live", "store_bytes / live bytes, by second", "times",
		  samples->store_to_live, samples->count);
	bench_add(rows, "file_to_live", "size of data.mdb / live bytes, by second", "times",
		  samples->file_to_live, samples->count);
}

static void measure(struct load *load)
{
	static struct bench_rows rows;
	static struct samples samples;
	static char before[BENCH_STATS_BYTES_MAX];
	char title[96];
	struct harness *server = bench_server_start(load->policy, bench_memory_for(2 * load->keys));
	bench_load(harness_socket(server), load->keys);
	kvc *client = bench_client(harness_socket(server));
	bench_stats(client, before);
	double load_cpu_ms = (double)clock() * 1e3 / CLOCKS_PER_SEC;
	double kvd_cpu_ms = bench_process_cpu_ms(harness_pid(server));
	uint64_t start_ns = bench_now_ns();
	load_open(load, harness_socket(server));
	run_seconds(load, &samples, server, client);
	double seconds = (double)(bench_now_ns() - start_ns) / 1e9;
	load_cpu_ms = (double)clock() * 1e3 / CLOCKS_PER_SEC - load_cpu_ms;
	kvd_cpu_ms = bench_process_cpu_ms(harness_pid(server)) - kvd_cpu_ms;
	if (load->latencies == 0) {
		bench_die("not one pipeline was answered");
	}
	report(&rows, load, &samples, seconds);
	report_counters(&rows, client, before);
	bench_add_one(&rows, "kvd_cpu", "processors busy in kvd", "", kvd_cpu_ms / 1e3 / seconds);
	bench_add_one(&rows, "load_cpu", "processors busy in the load", "",
		      load_cpu_ms / 1e3 / seconds);
	(void)snprintf(title, sizeof(title), "set_group, %s, %u connections of %u SETs, %u s",
		       load->policy, load->connections, load->pipeline, load->seconds);
	bench_print(title, &rows, load->json);
	load_close(load);
	if (kvc_close(client) != KVC_OK) {
		bench_die("kvc_close");
	}
	bench_server_free(server);
}

static bool arguments(struct load *load, int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 's' },
		{ "connections", required_argument, NULL, 'c' },
		{ "pipeline", required_argument, NULL, 'p' },
		{ "keys", required_argument, NULL, 'k' },
		{ "policy", required_argument, NULL, 'P' },
		{ "json", no_argument, NULL, 'j' },
		{ 0 },
	};
	int letter;
	while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (letter) {
		case 's':
			load->seconds =
				(unsigned)bench_number("--seconds", optarg, 1, GROUP_SECONDS_MAX);
			break;
		case 'c':
			load->connections = (unsigned)bench_number("--connections", optarg, 1,
								   GROUP_CONNECTIONS_MAX);
			break;
		case 'p':
			load->pipeline =
				(unsigned)bench_number("--pipeline", optarg, 1, GROUP_PIPELINE_MAX);
			break;
		case 'k':
			load->keys = bench_number("--keys", optarg, 1, 1000000000);
			break;
		case 'P':
			load->policy = optarg;
			break;
		case 'j':
			load->json = true;
			break;
		default:
			return false;
		}
	}
	return optind == argc;
}

int set_group_main(int argc, char **argv)
{
	struct load load = { .keys = 1000000,
			     .seed = 1,
			     .connections = 50,
			     .pipeline = 100,
			     .seconds = 60,
			     .policy = "group" };
	if (!arguments(&load, argc, argv)) {
		(void)fprintf(stderr,
			      "usage: kvbench set_group [--seconds 60] [--connections 50] "
			      "[--pipeline 100]\n"
			      "                         [--keys 1M] [--policy group|sync|lazy] "
			      "[--json]\n"
			      "SETs of 16-byte keys and 64-byte values, answered when durable.\n");
		return 2;
	}
	measure(&load);
	return 0;
}
