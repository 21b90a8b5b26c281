// SPDX-License-Identifier: MIT
//
// Caches that are really asked. kvd reads through the mapping, one get after the other; the peers
// are asked for 32 keys by one pipeline, then given those that were missing by another: otherwise
// the waiting would take minutes. No key is asked for twice in a pipeline.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/common.h"
#include "bench/hitratio.h"
#include "bench/peers.h"
#include "bench/server.h"

#define ASK_SEGMENTS 128u
#define ASK_KEYS 32u
#define ASK_VALUE_BYTES_MAX 512u
#define ASK_REPLY_BYTES_MAX (ASK_KEYS * (ASK_VALUE_BYTES_MAX + 64))

double hitratio_kvd(const struct hitratio_trace *trace, uint64_t bytes)
{
	char key[BENCH_KEY_BYTES], value[ASK_VALUE_BYTES_MAX] = { 0 };
	struct harness *server = bench_server_start_cache(bytes, ASK_SEGMENTS);
	kvc *client = bench_client(harness_socket(server));
	kvc_reader *reader = bench_reader(client);
	uint64_t hits = 0;
	for (uint64_t i = 0; i < trace->count; i++) {
		uint32_t index = trace->keys[i];
		bench_key(key, index);
		int status = kvc_get(reader, key, sizeof(key), value, sizeof(value), NULL);
		hits += status == KVC_OK;
		if (status == KVC_NOT_FOUND) {
			status = kvc_set(client, key, sizeof(key), value, trace->value_bytes[index],
					 NULL, NULL);
		}
		if (status != KVC_OK) {
			bench_die("kvd: %s", kvc_strerror(status));
		}
	}
	(void)kvc_reader_close(reader);
	(void)kvc_close(client);
	bench_server_free(server);
	return (double)hits / (double)trace->count;
}

struct ask {
	int fd;
	bool redis;
	size_t out_bytes;
	char out[ASK_REPLY_BYTES_MAX];
	size_t in_bytes;
	char in[ASK_REPLY_BYTES_MAX];
};

static void ask_send(struct ask *ask)
{
	bench_send(ask->fd, ask->out, ask->out_bytes);
	ask->out_bytes = 0;
	ask->in_bytes = 0;
}

static void ask_more(struct ask *ask)
{
	ssize_t got =
		recv(ask->fd, ask->in + ask->in_bytes, sizeof(ask->in) - 1 - ask->in_bytes, 0);
	if (got <= 0) {
		bench_die("a peer is gone, or says too much: %s",
			  got ? strerror(errno) : "its end");
	}
	ask->in_bytes += (size_t)got;
	ask->in[ask->in_bytes] = '\0';
}

// The line at *at, which moves behind it; waits for it.
static const char *ask_line(struct ask *ask, size_t *at)
{
	size_t start = *at;
	char *end;
	while ((end = memchr(ask->in + start, '\n', ask->in_bytes - start)) == NULL) {
		ask_more(ask);
	}
	*end = '\0';
	*at = (size_t)(end - ask->in) + 1;
	return ask->in + start;
}

// One reply to a get. True if it was a hit.
static bool ask_hit(struct ask *ask, size_t *at)
{
	const char *line = ask_line(ask, at);
	size_t bytes = 0;
	if (ask->redis) {
		if (line[0] != '$') {
			bench_die("redis-server: %s", line);
		}
		bytes = line[1] == '-' ? 0 : strtoul(line + 1, NULL, 10);
	} else if (strncmp(line, "VALUE ", 6) == 0) {
		bytes = strtoul(strrchr(line, ' ') + 1, NULL, 10);
	}
	if (bytes == 0) {
		return false;
	}
	*at += bytes + 2;
	while (ask->in_bytes < *at) {
		ask_more(ask);
	}
	if (!ask->redis) {
		(void)ask_line(ask, at); // END
	}
	return true;
}

__attribute__((format(printf, 2, 3))) static void ask_append(struct ask *ask, const char *format,
							     ...)
{
	va_list arguments;
	va_start(arguments, format);
	ask->out_bytes += (size_t)vsnprintf(ask->out + ask->out_bytes,
					    sizeof(ask->out) - ask->out_bytes, format, arguments);
	va_end(arguments);
}

static void ask_get(struct ask *ask, const char *key)
{
	if (ask->redis) {
		ask_append(ask, "*2\r\n$3\r\nGET\r\n$16\r\n%.16s\r\n", key);
	} else {
		ask_append(ask, "get %.16s\r\n", key);
	}
}

static void ask_set(struct ask *ask, const char *key, uint32_t bytes)
{
	if (ask->redis) {
		ask_append(ask, "*3\r\n$3\r\nSET\r\n$16\r\n%.16s\r\n$%u\r\n", key, bytes);
	} else {
		ask_append(ask, "set %.16s 0 0 %u\r\n", key, bytes);
	}
	memset(ask->out + ask->out_bytes, 'v', bytes);
	memcpy(ask->out + ask->out_bytes + bytes, "\r\n", 2);
	ask->out_bytes += bytes + 2;
}

// Asks for `count` keys, then sets those that were missing. Returns how many were there.
static uint64_t ask_some(struct ask *ask, const struct hitratio_trace *trace, uint64_t from,
			 unsigned count)
{
	char key[ASK_KEYS][BENCH_KEY_BYTES];
	bool hit[ASK_KEYS];
	uint64_t hits = 0;
	size_t at = 0;
	for (unsigned i = 0; i < count; i++) {
		bench_key(key[i], trace->keys[from + i]);
		ask_get(ask, key[i]);
	}
	ask_send(ask);
	for (unsigned i = 0; i < count; i++) {
		hit[i] = ask_hit(ask, &at);
		hits += hit[i];
	}
	for (unsigned i = 0; i < count; i++) {
		if (!hit[i]) {
			ask_set(ask, key[i], trace->value_bytes[trace->keys[from + i]]);
		}
	}
	ask_send(ask);
	at = 0;
	for (uint64_t i = hits; i < count; i++) {
		const char *line = ask_line(ask, &at);
		if (strncmp(line, "+OK", 3) != 0 && strncmp(line, "STORED", 6) != 0) {
			bench_die("a peer: %s", line);
		}
	}
	return hits;
}

static unsigned ask_together(const struct hitratio_trace *trace, uint64_t from)
{
	unsigned count = 0;
	for (; count < ASK_KEYS && from + count < trace->count; count++) {
		for (unsigned i = 0; i < count; i++) {
			if (trace->keys[from + i] == trace->keys[from + count]) {
				return count;
			}
		}
	}
	return count;
}

static void ask_configure(struct ask *ask, uint64_t bytes, enum hitratio_peer kind)
{
	const char *policy = kind == HITRATIO_REDIS_LFU ? "allkeys-lfu" : "allkeys-lru";
	size_t at = 0;
	ask_append(ask, "CONFIG SET maxmemory %llu\r\nCONFIG SET maxmemory-policy %s\r\n",
		   (unsigned long long)bytes, policy);
	ask_send(ask);
	for (unsigned i = 0; i < 2; i++) {
		const char *line = ask_line(ask, &at);
		if (strncmp(line, "+OK", 3) != 0) {
			bench_die("redis-server: %s", line);
		}
	}
}

double hitratio_peer(const struct hitratio_trace *trace, uint64_t bytes, enum hitratio_peer kind)
{
	char dir[] = "/tmp/kvbench-XXXXXX";
	struct bench_peer peer = { .memory_mib = (unsigned)(bytes >> 20) };
	enum bench_peer_kind server =
		kind == HITRATIO_MEMCACHED ? BENCH_PEER_MEMCACHED : BENCH_PEER_REDIS;
	if (!mkdtemp(dir)) {
		bench_die("%s: %s", dir, strerror(errno));
	}
	double ratio = -1;
	if (bench_peer_start(&peer, server, dir)) {
		static struct ask ask;
		uint64_t hits = 0;
		ask = (struct ask){ .fd = bench_connect(peer.socket_path, true),
				    .redis = server == BENCH_PEER_REDIS };
		if (ask.redis) {
			ask_configure(&ask, bytes, kind);
		}
		for (uint64_t i = 0; i < trace->count;) {
			unsigned count = ask_together(trace, i);
			hits += ask_some(&ask, trace, i, count);
			i += count;
		}
		ratio = (double)hits / (double)trace->count;
		(void)close(ask.fd);
		bench_peer_stop(&peer);
	}
	(void)rmdir(dir);
	return ratio;
}
