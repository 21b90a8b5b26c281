// SPDX-License-Identifier: MIT
//
// A kvd for one benchmark, on top of the harness of the tests: see server.h.
#include "bench/server.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench/common.h"

#define SERVER_LOAD_PIPELINE 500u
#define SERVERS_MAX 4u

// Those that run, so that a program that ends early removes their folders.
static struct harness *servers[SERVERS_MAX];

static void servers_free(void)
{
	for (size_t i = 0; i < SERVERS_MAX; i++) {
		bench_server_free(servers[i]);
	}
}

static void servers_keep(struct harness *server)
{
	static bool registered;
	size_t i = 0;
	while (i < SERVERS_MAX && servers[i]) {
		i++;
	}
	if (i == SERVERS_MAX || (!registered && atexit(servers_free) != 0)) {
		harness_free(server);
		bench_die("too many servers");
	}
	registered = true;
	servers[i] = server;
}

void bench_server_free(struct harness *server)
{
	for (size_t i = 0; i < SERVERS_MAX; i++) {
		if (server && servers[i] == server) {
			servers[i] = NULL;
			harness_free(server);
		}
	}
}

// The harness looks where tests stand; a benchmark stands elsewhere.
static void program_find(void)
{
	char path[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 32);
	if (getenv("KVD_PROGRAM") || length <= 0) {
		return;
	}
	path[length] = '\0';
	char *slash = strrchr(path, '/');
	if (!slash) {
		return;
	}
	memcpy(slash, "/../daemon/kvd", sizeof("/../daemon/kvd"));
	if (setenv("KVD_PROGRAM", path, 0) != 0) {
		bench_die("setenv: %s", strerror(errno));
	}
}

static struct harness *server_start(const char *policy, uint64_t memory_bytes,
				    const char *const more[3])
{
	char memory[32];
	(void)snprintf(memory, sizeof(memory), "%lluMiB", (unsigned long long)(memory_bytes >> 20));
	program_find();
	struct harness *server =
		harness_start((const char *const[]){ "--persist", policy, "--memory", memory,
						     more[0], more[1], more[2], NULL });
	servers_keep(server);
	return server;
}

struct harness *bench_server_start(const char *policy, uint64_t memory_bytes)
{
	return server_start(policy, memory_bytes, (const char *const[3]){ NULL });
}

struct harness *bench_server_start_supervised(const char *policy, uint64_t memory_bytes)
{
	return server_start(policy, memory_bytes, (const char *const[3]){ "--supervise" });
}

struct harness *bench_server_start_cache(uint64_t memory_bytes, unsigned segments)
{
	char segment[48];
	uint64_t bytes = UINT64_C(1) << 16;
	while (bytes * 2 * segments <= memory_bytes) {
		bytes *= 2;
	}
	(void)snprintf(segment, sizeof(segment), "--segment=%llu", (unsigned long long)bytes);
	return server_start("memory", memory_bytes,
			    (const char *const[3]){ "--when-full=evict", segment });
}

struct harness *bench_server_start_pages(uint64_t memory_bytes, const char *huge_pages)
{
	char option[48];
	(void)snprintf(option, sizeof(option), "--huge-pages=%s", huge_pages);
	return server_start("memory", memory_bytes, (const char *const[3]){ option });
}

uint64_t bench_memory_for(uint64_t keys)
{
	uint64_t bytes = keys * 160 + (UINT64_C(64) << 20);
	uint64_t least = UINT64_C(256) << 20; // the default
	return bytes < least ? least : bytes;
}

kvc *bench_client(const char *socket_path)
{
	struct kvc_options options;
	kvc *client;
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.name = "kvbench";
	options.request_timeout_ms = 60000;
	int status = kvc_open(&client, &options);
	if (status != KVC_OK) {
		bench_die("%s: %s (%s)", socket_path, kvc_strerror(status), strerror(errno));
	}
	if (!kvc_is_mapped(client)) {
		bench_die("%s: kvd passed no mapping", socket_path);
	}
	return client;
}

kvc_reader *bench_reader(kvc *client)
{
	kvc_reader *reader;
	int status = kvc_reader_open(client, &reader);
	if (status != KVC_OK) {
		bench_die("kvc_reader_open: %s", kvc_strerror(status));
	}
	return reader;
}

int bench_connect(const char *socket_path, bool blocking)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int flags = SOCK_STREAM | SOCK_CLOEXEC;
	int fd = socket(AF_UNIX, flags, 0);
	if (strlen(socket_path) >= sizeof(address.sun_path)) {
		bench_die("%s: too long for a socket", socket_path);
	}
	memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
		bench_die("%s: %s", socket_path, strerror(errno));
	}
	if (!blocking && fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
		bench_die("fcntl: %s", strerror(errno));
	}
	return fd;
}

void bench_set_frame(char *request)
{
	memcpy(request, BENCH_SET_HEAD, BENCH_SET_KEY_AT);
	memcpy(request + BENCH_SET_KEY_AT + BENCH_KEY_BYTES, BENCH_SET_MIDDLE,
	       sizeof(BENCH_SET_MIDDLE) - 1);
	memcpy(request + BENCH_SET_VALUE_AT + BENCH_VALUE_BYTES, "\r\n", 2);
}

bool bench_all_ok(const char *bytes, size_t count, uint64_t before)
{
	static const char expected[] = BENCH_OK BENCH_OK BENCH_OK BENCH_OK BENCH_OK BENCH_OK
		BENCH_OK BENCH_OK BENCH_OK BENCH_OK BENCH_OK BENCH_OK BENCH_OK;
	const size_t window = 12 * BENCH_OK_BYTES; // from any phase there is so much of the pattern
	size_t phase = before % BENCH_OK_BYTES;
	while (count > 0) {
		size_t part = count < window ? count : window;
		if (memcmp(bytes, expected + phase, part) != 0) {
			return false;
		}
		bytes += part;
		count -= part;
	}
	return true;
}

static void receive_oks(int fd, uint64_t replies)
{
	char input[SERVER_LOAD_PIPELINE * BENCH_OK_BYTES];
	uint64_t wanted = replies * BENCH_OK_BYTES, seen = 0;
	while (seen < wanted) {
		ssize_t got = recv(fd, input, sizeof(input) - 1, 0);
		if (got <= 0) {
			bench_die("kvd closed the connection: %s", got ? strerror(errno) : "EOF");
		}
		if (!bench_all_ok(input, (size_t)got, seen)) {
			bench_die("kvd refused a SET: %.*s", (int)got, input);
		}
		seen += (uint64_t)got;
	}
}

void bench_load(const char *socket_path, uint64_t keys)
{
	int fd = bench_connect(socket_path, true);
	size_t bytes = SERVER_LOAD_PIPELINE * BENCH_SET_BYTES;
	char *requests = malloc(bytes);
	if (!requests) {
		bench_die("out of memory");
	}
	for (uint64_t first = 0; first < keys; first += SERVER_LOAD_PIPELINE) {
		uint64_t left = keys - first;
		uint64_t count = left < SERVER_LOAD_PIPELINE ? left : SERVER_LOAD_PIPELINE;
		for (uint64_t i = 0; i < count; i++) {
			char *request = requests + i * BENCH_SET_BYTES;
			bench_set_frame(request);
			bench_key(request + BENCH_SET_KEY_AT, first + i);
			bench_value(request + BENCH_SET_VALUE_AT, first + i);
		}
		bench_send(fd, requests, count * BENCH_SET_BYTES);
		receive_oks(fd, count);
	}
	free(requests);
	if (close(fd) != 0) {
		bench_die("close: %s", strerror(errno));
	}
}

void bench_stats(kvc *client, char text[static BENCH_STATS_BYTES_MAX])
{
	const struct kvc_reply *reply;
	int status = kvc_command(client, 1, (const void *const[]){ "KVD.STATS" },
				 (const size_t[]){ strlen("KVD.STATS") }, &reply);
	if (status != KVC_OK || reply->type != KVC_REPLY_STRING ||
	    reply->text_bytes >= BENCH_STATS_BYTES_MAX) {
		bench_die("KVD.STATS: %s",
			  status ? kvc_strerror(status) : "not the expected reply");
	}
	memcpy(text, reply->text, reply->text_bytes);
	text[reply->text_bytes] = '\0';
}

uint64_t bench_stat(const char *text, const char *name)
{
	char quoted[80];
	(void)snprintf(quoted, sizeof(quoted), "\"%s\":", name);
	const char *found = strstr(text, quoted);
	if (!found) {
		bench_die("KVD.STATS has no %s", name);
	}
	return strtoull(found + strlen(quoted), NULL, 10);
}
