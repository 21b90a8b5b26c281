// SPDX-License-Identifier: MIT
//
// PUBLISH to many, beside redis-server in one run: the same messages to the same number of
// subscribers, the servers by turns. One thread publishes, reads every subscriber until all have
// what was sent, and compares it byte by byte; so the rates contain its own work, and the
// processor time that the server took for one PUBLISH is shown beside them.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/common.h"
#include "bench/kvbench.h"
#include "bench/peers.h"
#include "bench/server.h"

#define PUBLISH_CHANNEL "bench"
#define PUBLISH_SUBSCRIBERS_MAX 1000u
#define PUBLISH_MESSAGE_MAX 4096u
#define PUBLISH_INPUT_BYTES 65536u
#define PUBLISH_DEEP 50u
#define PUBLISH_FRAME_MAX (PUBLISH_MESSAGE_MAX + 128u)

enum { KVD, REDIS, SERVERS };
static const char *const server_ids[SERVERS] = { "kvd", "redis" };

struct connection {
	int fd;
	size_t seen; // bytes of this round
};

struct run {
	uint64_t run_ns;
	unsigned subscribers, repeats;
	size_t message_bytes;
	bool json;
	struct bench_peer peer;
	const char *socket_path[SERVERS]; // NULL = not on this machine
	pid_t pid[SERVERS];
	char request[PUBLISH_DEEP * PUBLISH_FRAME_MAX];
	size_t request_bytes;				      // of one PUBLISH
	char frames[PUBLISH_INPUT_BYTES + PUBLISH_FRAME_MAX]; // what comes, over and over
	size_t frame_bytes;
	char replies[PUBLISH_DEEP * 16];
	size_t reply_bytes;
	double rate[SERVERS][BENCH_REPEATS_MAX];
	double cpu_us[SERVERS][BENCH_REPEATS_MAX];
};

static size_t receive(int fd, char input[static PUBLISH_INPUT_BYTES])
{
	ssize_t got = recv(fd, input, PUBLISH_INPUT_BYTES, 0);
	if (got <= 0 && !(got < 0 && errno == EINTR)) {
		bench_die("the connection ended: %s", got ? strerror(errno) : "EOF");
	}
	return got > 0 ? (size_t)got : 0;
}

/// Writes the request, its reply and the frame of the message.
static void prepare(struct run *run)
{
	char message[PUBLISH_MESSAGE_MAX];
	memset(message, 'm', run->message_bytes);
	int head = snprintf(run->request, sizeof(run->request),
			    "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\n%s\r\n$%zu\r\n",
			    sizeof(PUBLISH_CHANNEL) - 1, PUBLISH_CHANNEL, run->message_bytes);
	memcpy(run->request + head, message, run->message_bytes);
	memcpy(run->request + head + run->message_bytes, "\r\n", 2);
	run->request_bytes = (size_t)head + run->message_bytes + 2;
	head = snprintf(run->frames, sizeof(run->frames),
			"*3\r\n$7\r\nmessage\r\n$%zu\r\n%s\r\n$%zu\r\n",
			sizeof(PUBLISH_CHANNEL) - 1, PUBLISH_CHANNEL, run->message_bytes);
	memcpy(run->frames + head, message, run->message_bytes);
	memcpy(run->frames + head + run->message_bytes, "\r\n", 2);
	run->frame_bytes = (size_t)head + run->message_bytes + 2;
	run->reply_bytes =
		(size_t)snprintf(run->replies, sizeof(run->replies), ":%u\r\n", run->subscribers);
	for (size_t at = run->frame_bytes; at < sizeof(run->frames); at++) {
		run->frames[at] = run->frames[at - run->frame_bytes];
	}
	for (size_t at = run->request_bytes; at < PUBLISH_DEEP * run->request_bytes; at++) {
		run->request[at] = run->request[at - run->request_bytes];
	}
	for (size_t at = run->reply_bytes; at < PUBLISH_DEEP * run->reply_bytes; at++) {
		run->replies[at] = run->replies[at - run->reply_bytes];
	}
}

static int subscribe(const struct run *run, int server)
{
	static const char request[] = "*2\r\n$9\r\nSUBSCRIBE\r\n$5\r\n" PUBLISH_CHANNEL "\r\n";
	static const char reply[] = "*3\r\n$9\r\nsubscribe\r\n$5\r\n" PUBLISH_CHANNEL "\r\n:1\r\n";
	char input[PUBLISH_INPUT_BYTES];
	int fd = bench_connect(run->socket_path[server], true);
	bench_send(fd, request, sizeof(request) - 1);
	size_t seen = 0;
	while (seen < sizeof(reply) - 1) {
		size_t got = receive(fd, input);
		if (seen + got > sizeof(reply) - 1 || memcmp(input, reply + seen, got) != 0) {
			bench_die("unexpected reply to SUBSCRIBE: %.*s", (int)got, input);
		}
		seen += got;
	}
	return fd;
}

/// Takes what one connection has got; true when it has all of the round.
static bool take(const struct run *run, struct connection *connection, bool subscriber,
		 unsigned deep)
{
	char input[PUBLISH_INPUT_BYTES];
	size_t got = receive(connection->fd, input);
	const char *expected = subscriber ? run->frames + connection->seen % run->frame_bytes
					  : run->replies + connection->seen;
	size_t all = (subscriber ? run->frame_bytes : run->reply_bytes) * deep;
	if (connection->seen + got > all || memcmp(input, expected, got) != 0) {
		bench_die("unexpected bytes: %.*s", (int)got, input);
	}
	connection->seen += got;
	return connection->seen == all;
}

/// Publishes `deep` messages and waits until all of them have arrived everywhere.
static void publish_round(const struct run *run, int epoll, struct connection *connections,
			  unsigned deep)
{
	unsigned waiting = run->subscribers + 1;
	for (unsigned i = 0; i < waiting; i++) {
		connections[i].seen = 0;
	}
	bench_send(connections[run->subscribers].fd, run->request, deep * run->request_bytes);
	while (waiting > 0) {
		struct epoll_event events[256] = { { .data.u32 = 0 } };
		int count = epoll_wait(epoll, events, 256, -1);
		for (int i = 0; i < count; i++) {
			uint32_t at = events[i].data.u32;
			waiting -= take(run, &connections[at], at < run->subscribers, deep);
		}
	}
}

static void way_run(struct run *run, int server, unsigned deep, unsigned repeat)
{
	static struct connection connections[PUBLISH_SUBSCRIBERS_MAX + 1];
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	for (unsigned i = 0; i <= run->subscribers; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.u32 = i };
		connections[i].fd = i < run->subscribers
					    ? subscribe(run, server)
					    : bench_connect(run->socket_path[server], true);
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, connections[i].fd, &event) != 0) {
			bench_die("epoll_ctl: %s", strerror(errno));
		}
	}
	publish_round(run, epoll, connections, deep);
	uint64_t messages = 0, start_ns = bench_now_ns(), now_ns = start_ns;
	double cpu_ms = bench_process_cpu_ms(run->pid[server]);
	while (now_ns - start_ns < run->run_ns) {
		publish_round(run, epoll, connections, deep);
		messages += deep;
		now_ns = bench_now_ns();
	}
	cpu_ms = bench_process_cpu_ms(run->pid[server]) - cpu_ms;
	run->rate[server][repeat] = (double)messages * 1e9 / (double)(now_ns - start_ns);
	run->cpu_us[server][repeat] = cpu_ms * 1000.0 / (double)messages;
	for (unsigned i = 0; i <= run->subscribers; i++) {
		(void)close(connections[i].fd);
	}
	(void)close(epoll);
}

static void report(struct bench_rows *rows, struct run *run, unsigned deep)
{
	char id[64], label[80];
	const char *way = deep == 1 ? "closed" : "pipelined";
	if (run->socket_path[REDIS]) {
		double ratio[BENCH_REPEATS_MAX];
		for (unsigned i = 0; i < run->repeats; i++) {
			ratio[i] = run->rate[KVD][i] / run->rate[REDIS][i];
		}
		(void)snprintf(id, sizeof(id), "%s_kvd_to_redis", way);
		(void)snprintf(label, sizeof(label), "PUBLISH, %u deep: kvd / redis", deep);
		bench_add(rows, id, label, "times", ratio, run->repeats);
	}
	for (int server = 0; server < SERVERS; server++) {
		if (!run->socket_path[server]) {
			continue;
		}
		(void)snprintf(id, sizeof(id), "%s_%s", way, server_ids[server]);
		(void)snprintf(label, sizeof(label), "PUBLISH, %u deep: %s", deep,
			       server_ids[server]);
		bench_add(rows, id, label, "PUBLISHs/s", run->rate[server], run->repeats);
		(void)snprintf(id, sizeof(id), "%s_cpu_%s", way, server_ids[server]);
		(void)snprintf(label, sizeof(label), "PUBLISH, %u deep: %s, processor time", deep,
			       server_ids[server]);
		bench_add(rows, id, label, "us", run->cpu_us[server], run->repeats);
	}
}

static void measure(struct run *run)
{
	static struct bench_rows rows;
	struct harness *server = bench_server_start("memory", bench_memory_for(1000));
	run->socket_path[KVD] = harness_socket(server);
	run->pid[KVD] = harness_pid(server);
	if (bench_peer_start(&run->peer, BENCH_PEER_REDIS, harness_root(server))) {
		run->socket_path[REDIS] = run->peer.socket_path;
		run->pid[REDIS] = run->peer.pid;
		(void)fprintf(stderr, "%s\n", run->peer.version);
	} else {
		(void)fprintf(stderr, "no redis-server on this machine\n");
	}
	prepare(run);
	for (unsigned deep = 1; deep <= PUBLISH_DEEP; deep += PUBLISH_DEEP - 1) {
		for (unsigned repeat = 0; repeat < run->repeats; repeat++) {
			for (int each = 0; each < SERVERS; each++) {
				if (run->socket_path[each]) {
					way_run(run, each, deep, repeat);
				}
			}
		}
		report(&rows, run, deep);
	}
	bench_print("publish", &rows, run->json);
	bench_peer_stop(&run->peer);
	bench_server_free(server);
}

int publish_main(int argc, char **argv)
{
	static struct run run;
	uint64_t subscribers = 100, bytes = 64, run_ms = 2000, repeats = 5;
	const struct bench_option options[] = {
		{ "--subscribers", 1, PUBLISH_SUBSCRIBERS_MAX, &subscribers },
		{ "--bytes", 1, PUBLISH_MESSAGE_MAX, &bytes },
		{ "--run-ms", 1, 3600000, &run_ms },
		{ "--repeats", 1, BENCH_REPEATS_MAX, &repeats },
	};
	if (!bench_options(argc, argv, options, sizeof(options) / sizeof(options[0]), &run.json,
			   "usage: kvbench publish [--subscribers 100] [--bytes 64] "
			   "[--run-ms 2000] [--repeats 5] [--json]\n"
			   "Messages to a channel with so many subscribers, beside "
			   "redis-server.\n")) {
		return 2;
	}
	run.subscribers = (unsigned)subscribers;
	run.repeats = (unsigned)repeats;
	run.message_bytes = bytes;
	run.run_ns = run_ms * 1000000;
	measure(&run);
	return 0;
}
