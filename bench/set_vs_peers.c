// SPDX-License-Identifier: MIT
//
// Writes through the socket, beside redis-server and memcached in one run: the same keys in the
// same order, the servers by turns, so that whatever else the machine does falls on all of them.
// The load is one thread that patches keys into ready requests and compares replies byte by byte.
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

#define WAYS_CONNECTIONS_MAX 64u
#define WAYS_GROUP 50u // keys of an MSET or of a transaction

enum server { KVD, REDIS, MEMCACHED, SERVERS };
static const char *const server_ids[SERVERS] = { "kvd", "redis", "memcached" };

enum shape { SINGLE, MSET, EXEC };

/// One way of writing.
struct way {
	const char *id, *label;
	enum shape shape;
	unsigned connections;
	unsigned deep; // requests under way on a connection: that many SETs, or one group
};

static const struct way ways[] = {
	{ "closed", "SET, one at a time", SINGLE, 1, 1 },
	{ "pipelined", "SET, 100 deep", SINGLE, 1, 100 },
	{ "mset", "MSET of 50, two deep", MSET, 1, 2 },
	{ "exec", "MULTI, 50 SETs, EXEC", EXEC, 1, 1 },
	{ "connections", "SET, 8 connections, 100 deep", SINGLE, 8, 100 },
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

/// What is sent at once on a connection, and what has to come back.
struct exchange {
	char *request, *reply;
	size_t request_bytes, reply_bytes;
	size_t *key_at; // offsets of keys in the request
	size_t keys;
};

struct run {
	uint64_t keys, seed, run_ns;
	unsigned repeats;
	bool json;
	struct bench_peer peer[SERVERS];
	const char *socket_path[SERVERS]; // NULL = not on this machine
	double sets_per_s[SERVERS][BENCH_REPEATS_MAX];
};

// ---- requests -----------------------------------------------------------------------------------

static void put_bytes(char **data, size_t *bytes, const char *from, size_t length)
{
	char *grown = realloc(*data, *bytes + length);
	if (!grown) {
		bench_die("out of memory");
	}
	memcpy(grown + *bytes, from, length);
	*data = grown;
	*bytes += length;
}

static void put(char **data, size_t *bytes, const char *text)
{
	put_bytes(data, bytes, text, strlen(text));
}

static void put_key_value(struct exchange *exchange, const char *middle)
{
	char key[BENCH_KEY_BYTES], value[BENCH_VALUE_BYTES];
	bench_key(key, 0);
	bench_value(value, exchange->keys);
	exchange->key_at[exchange->keys++] = exchange->request_bytes;
	put_bytes(&exchange->request, &exchange->request_bytes, key, sizeof(key));
	put(&exchange->request, &exchange->request_bytes, middle);
	put_bytes(&exchange->request, &exchange->request_bytes, value, sizeof(value));
	put(&exchange->request, &exchange->request_bytes, "\r\n");
}

static void put_set(struct exchange *exchange, enum server server, const char *reply)
{
	if (server == MEMCACHED) {
		put(&exchange->request, &exchange->request_bytes, "set ");
		put_key_value(exchange, " 0 0 64\r\n");
		put(&exchange->reply, &exchange->reply_bytes, "STORED\r\n");
	} else {
		put(&exchange->request, &exchange->request_bytes, BENCH_SET_HEAD);
		put_key_value(exchange, BENCH_SET_MIDDLE);
		put(&exchange->reply, &exchange->reply_bytes, reply);
	}
}

static void put_mset(struct exchange *exchange)
{
	char head[64];
	(void)snprintf(head, sizeof(head), "*%u\r\n$4\r\nMSET\r\n", 1 + 2 * WAYS_GROUP);
	put(&exchange->request, &exchange->request_bytes, head);
	for (unsigned i = 0; i < WAYS_GROUP; i++) {
		put(&exchange->request, &exchange->request_bytes, "$16\r\n");
		put_key_value(exchange, BENCH_SET_MIDDLE);
	}
	put(&exchange->reply, &exchange->reply_bytes, BENCH_OK);
}

static void put_exec(struct exchange *exchange, enum server server)
{
	char head[32];
	put(&exchange->request, &exchange->request_bytes, "*1\r\n$5\r\nMULTI\r\n");
	put(&exchange->reply, &exchange->reply_bytes, BENCH_OK);
	for (unsigned i = 0; i < WAYS_GROUP; i++) {
		put_set(exchange, server, "+QUEUED\r\n");
	}
	put(&exchange->request, &exchange->request_bytes, "*1\r\n$4\r\nEXEC\r\n");
	(void)snprintf(head, sizeof(head), "*%u\r\n", WAYS_GROUP);
	put(&exchange->reply, &exchange->reply_bytes, head);
	for (unsigned i = 0; i < WAYS_GROUP; i++) {
		put(&exchange->reply, &exchange->reply_bytes, BENCH_OK);
	}
}

static struct exchange exchange_new(const struct way *way, enum server server)
{
	struct exchange exchange = { 0 };
	exchange.key_at = calloc((size_t)way->deep * WAYS_GROUP, sizeof(exchange.key_at[0]));
	if (!exchange.key_at) {
		bench_die("out of memory");
	}
	for (unsigned i = 0; i < way->deep; i++) {
		switch (way->shape) {
		case SINGLE:
			put_set(&exchange, server, BENCH_OK);
			break;
		case MSET:
			put_mset(&exchange);
			break;
		case EXEC:
			put_exec(&exchange, server);
			break;
		}
	}
	return exchange;
}

static void exchange_free(struct exchange *exchange)
{
	free(exchange->request);
	free(exchange->reply);
	free(exchange->key_at);
}

// ---- the load -----------------------------------------------------------------------------------

// Requests fit the socket's buffer, so that sending all before receiving does not block for ever.
static void exchange_send(struct exchange *exchange, struct run *run, int fd)
{
	for (size_t i = 0; i < exchange->keys; i++) {
		bench_key(exchange->request + exchange->key_at[i],
			  bench_random_below(&run->seed, run->keys));
	}
	bench_send(fd, exchange->request, exchange->request_bytes);
}

// Takes what has come; true when the whole reply has.
static bool exchange_receive(const struct exchange *exchange, int fd, size_t *seen)
{
	char input[16384];
	size_t wanted = exchange->reply_bytes - *seen;
	ssize_t got = recv(fd, input, wanted < sizeof(input) ? wanted : sizeof(input), 0);
	if (got < 0 && errno == EINTR) {
		return false;
	}
	if (got <= 0) {
		bench_die("the connection ended: %s", got ? strerror(errno) : "EOF");
	}
	if (memcmp(input, exchange->reply + *seen, (size_t)got) != 0) {
		bench_die("unexpected reply: %.*s", (int)got, input);
	}
	*seen += (size_t)got;
	if (*seen < exchange->reply_bytes) {
		return false;
	}
	*seen = 0;
	return true;
}

static double way_run(struct run *run, const struct way *way, enum server server)
{
	struct exchange exchange = exchange_new(way, server);
	int fd[WAYS_CONNECTIONS_MAX];
	size_t seen[WAYS_CONNECTIONS_MAX] = { 0 };
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	for (unsigned i = 0; i < way->connections; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.u32 = i };
		fd[i] = bench_connect(run->socket_path[server], true);
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd[i], &event) != 0) {
			bench_die("epoll_ctl: %s", strerror(errno));
		}
	}
	uint64_t sets = 0, start_ns = bench_now_ns(), now_ns = start_ns;
	for (unsigned i = 0; i < way->connections; i++) {
		exchange_send(&exchange, run, fd[i]);
	}
	while (now_ns - start_ns < run->run_ns) {
		struct epoll_event events[WAYS_CONNECTIONS_MAX] = { { .data.u32 = 0 } };
		// One connection is simply read from: no call more than a plain client makes.
		int count = way->connections == 1
				    ? 1
				    : epoll_wait(epoll, events, WAYS_CONNECTIONS_MAX, -1);
		for (int i = 0; i < count; i++) {
			uint32_t at = events[i].data.u32;
			if (exchange_receive(&exchange, fd[at], &seen[at])) {
				sets += exchange.keys;
				exchange_send(&exchange, run, fd[at]);
			}
		}
		now_ns = bench_now_ns();
	}
	for (unsigned i = 0; i < way->connections; i++) {
		(void)close(fd[i]);
	}
	(void)close(epoll);
	exchange_free(&exchange);
	return (double)sets * 1e9 / (double)(now_ns - start_ns);
}

// ---- measuring ----------------------------------------------------------------------------------

// Every key once, so that what is measured are overwrites.
static void fill(struct run *run, enum server server)
{
	const struct way way = { "", "", SINGLE, 1, 100 };
	struct exchange exchange = exchange_new(&way, server);
	int fd = bench_connect(run->socket_path[server], true);
	for (uint64_t key = 0; key < run->keys; key += exchange.keys) {
		for (size_t i = 0; i < exchange.keys; i++) {
			bench_key(exchange.request + exchange.key_at[i], (key + i) % run->keys);
		}
		bench_send(fd, exchange.request, exchange.request_bytes);
		size_t seen = 0;
		while (!exchange_receive(&exchange, fd, &seen)) {
		}
	}
	(void)close(fd);
	exchange_free(&exchange);
}

static void report(struct bench_rows *rows, struct run *run, const struct way *way)
{
	char id[64], label[80];
	double ratio[BENCH_REPEATS_MAX];
	for (int peer = REDIS; peer < SERVERS; peer++) {
		if (!run->socket_path[peer] || run->sets_per_s[peer][0] == 0) {
			continue;
		}
		for (unsigned i = 0; i < run->repeats; i++) {
			ratio[i] = run->sets_per_s[KVD][i] / run->sets_per_s[peer][i];
		}
		(void)snprintf(id, sizeof(id), "%s_kvd_to_%s", way->id, server_ids[peer]);
		(void)snprintf(label, sizeof(label), "%s: kvd / %s", way->label, server_ids[peer]);
		bench_add(rows, id, label, "times", ratio, run->repeats);
	}
	for (int server = 0; server < SERVERS; server++) {
		if (!run->socket_path[server] || run->sets_per_s[server][0] == 0) {
			continue;
		}
		(void)snprintf(id, sizeof(id), "%s_%s", way->id, server_ids[server]);
		(void)snprintf(label, sizeof(label), "%s: %s", way->label, server_ids[server]);
		bench_add(rows, id, label, "SETs/s", run->sets_per_s[server], run->repeats);
	}
}

static void measure(struct run *run)
{
	static struct bench_rows rows;
	struct harness *server = bench_server_start("memory", bench_memory_for(2 * run->keys));
	run->socket_path[KVD] = harness_socket(server);
	for (int peer = REDIS; peer < SERVERS; peer++) {
		if (bench_peer_start(&run->peer[peer],
				     peer == REDIS ? BENCH_PEER_REDIS : BENCH_PEER_MEMCACHED,
				     harness_root(server))) {
			run->socket_path[peer] = run->peer[peer].socket_path;
			(void)fprintf(stderr, "%s\n", run->peer[peer].version);
		} else {
			(void)fprintf(stderr, "no %s on this machine\n", server_ids[peer]);
		}
	}
	for (enum server each = KVD; each < SERVERS; each++) {
		if (run->socket_path[each]) {
			fill(run, each);
		}
	}
	for (size_t w = 0; w < WAYS; w++) {
		memset(run->sets_per_s, 0, sizeof(run->sets_per_s));
		for (unsigned repeat = 0; repeat < run->repeats; repeat++) {
			for (enum server each = KVD; each < SERVERS; each++) {
				bool able = each != MEMCACHED || ways[w].shape == SINGLE;
				if (run->socket_path[each] && able) {
					run->sets_per_s[each][repeat] =
						way_run(run, &ways[w], each);
				}
			}
		}
		report(&rows, run, &ways[w]);
	}
	bench_print("set_vs_peers", &rows, run->json);
	for (int peer = REDIS; peer < SERVERS; peer++) {
		bench_peer_stop(&run->peer[peer]);
	}
	bench_server_free(server);
}

int set_vs_peers_main(int argc, char **argv)
{
	static struct run run = { .keys = 1000000, .seed = 1 };
	uint64_t run_ms = 2000, repeats = 5;
	const struct bench_option options[] = {
		{ "--keys", 100, 1000000000, &run.keys },
		{ "--run-ms", 1, 3600000, &run_ms },
		{ "--repeats", 1, BENCH_REPEATS_MAX, &repeats },
	};
	if (!bench_options(
		    argc, argv, options, sizeof(options) / sizeof(options[0]), &run.json,
		    "usage: kvbench set_vs_peers [--keys 1M] [--run-ms 2000] [--repeats 5] "
		    "[--json]\n"
		    "SETs of 16-byte keys and 64-byte values, uniform, memory policy, beside\n"
		    "redis-server without persistence and memcached with one thread.\n")) {
		return 2;
	}
	run.repeats = (unsigned)repeats;
	run.run_ns = run_ms * 1000000;
	measure(&run);
	return 0;
}
