// SPDX-License-Identifier: MIT
//
// Where the memory goes: bytes an entry beyond key and value, by what they are for, at numbers of
// entries over a whole doubling of the table, and the whole memory of kvd, its own and the region,
// beside redis-server's and memcached's with the same data. Entries are 16 bytes of key and 64 of
// value.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/common.h"
#include "bench/kvbench.h"
#include "bench/peers.h"
#include "bench/server.h"

#define DENSITY_HEADER_BYTES 32.0
#define DENSITY_BUCKET_BYTES 64.0
#define DENSITY_PIPELINE 500u

#define DENSITY_SET_HEAD "set "
#define DENSITY_SET_MIDDLE " 0 0 64\r\n"
#define DENSITY_STORED "STORED\r\n"
#define DENSITY_STORED_BYTES (sizeof(DENSITY_STORED) - 1)
#define DENSITY_PEER_ENTRY_BYTES 256u // more than memcached takes for one

// A field of /proc/PID/status that is in kB, in bytes.
static double status_bytes(pid_t pid, const char *field)
{
	char path[64], line[256];
	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	FILE *file = fopen(path, "re");
	double bytes = -1;
	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, field, strlen(field)) == 0) {
			bytes = (double)strtoull(line + strlen(field), NULL, 10) * 1024;
		}
	}
	if (!file || bytes < 0) {
		bench_die("%s has no %s", path, field);
	}
	(void)fclose(file);
	return bytes;
}

static void add(struct bench_rows *rows, uint64_t keys, const char *id, const char *label,
		double bytes)
{
	char full_id[64], full_label[80];
	(void)snprintf(full_id, sizeof(full_id), "%s_%" PRIu64, id, keys);
	(void)snprintf(full_label, sizeof(full_label), "%" PRIu64 " entries: %s", keys, label);
	bench_add_one(rows, full_id, full_label, "bytes", bytes / (double)keys);
}

static void measure_kvd(struct bench_rows *rows, uint64_t keys)
{
	static char stats[BENCH_STATS_BYTES_MAX];
	double n = (double)keys, payload = n * (BENCH_KEY_BYTES + BENCH_VALUE_BYTES);
	struct harness *server = bench_server_start("memory", bench_memory_for(keys));
	bench_load(harness_socket(server), keys);
	kvc *client = bench_client(harness_socket(server));
	bench_stats(client, stats);
	if (bench_stat(stats, "keys") != keys) {
		bench_die("kvd does not hold all keys");
	}
	double live = (double)bench_stat(stats, "memory_live_bytes");
	double used = (double)bench_stat(stats, "memory_used_bytes");
	double table = (double)bench_stat(stats, "memory_table_bytes");
	double primary = DENSITY_BUCKET_BYTES * (double)bench_stat(stats, "table_buckets");
	double overflow =
		DENSITY_BUCKET_BYTES * (double)bench_stat(stats, "table_overflow_buckets");
	double own = status_bytes(harness_pid(server), "RssAnon:");
	double whole = status_bytes(harness_pid(server), "VmRSS:");
	add(rows, keys, "header", "header of a record", n * DENSITY_HEADER_BYTES);
	add(rows, keys, "alignment", "its alignment", live - payload - n * DENSITY_HEADER_BYTES);
	add(rows, keys, "table", "the table", primary);
	add(rows, keys, "overflow", "its overflow buckets", overflow);
	add(rows, keys, "ahead", "its chunks that are not full", table - primary - overflow);
	add(rows, keys, "tails", "segments that are not full", used - table - live);
	add(rows, keys, "used", "all of these", used - payload);
	add(rows, keys, "own", "kvd's own memory (RssAnon)", own);
	add(rows, keys, "whole", "kvd's RSS less keys and values", whole - payload);
	add(rows, keys, "kvd_rss", "kvd's RSS", whole);
	if (kvc_close(client) != KVC_OK) {
		bench_die("kvc_close");
	}
	bench_server_free(server);
}

// Writes one request of memcached's. Returns the place behind it.
static char *put_set(char *at, uint64_t key)
{
	at = (char *)memcpy(at, DENSITY_SET_HEAD, strlen(DENSITY_SET_HEAD)) +
	     strlen(DENSITY_SET_HEAD);
	bench_key(at, key);
	at += BENCH_KEY_BYTES;
	at = (char *)memcpy(at, DENSITY_SET_MIDDLE, strlen(DENSITY_SET_MIDDLE)) +
	     strlen(DENSITY_SET_MIDDLE);
	bench_value(at, key);
	at += BENCH_VALUE_BYTES;
	return (char *)memcpy(at, "\r\n", 2) + 2;
}

// bench_load() for memcached, in its own protocol.
static void load_memcached(const char *socket_path, uint64_t keys)
{
	static char requests[DENSITY_PIPELINE * DENSITY_PEER_ENTRY_BYTES];
	static char replies[DENSITY_PIPELINE * DENSITY_STORED_BYTES];
	int fd = bench_connect(socket_path, true);
	for (uint64_t first = 0; first < keys; first += DENSITY_PIPELINE) {
		uint64_t left = keys - first;
		uint64_t count = left < DENSITY_PIPELINE ? left : DENSITY_PIPELINE;
		char *end = requests;
		for (uint64_t i = 0; i < count; i++) {
			end = put_set(end, first + i);
		}
		bench_send(fd, requests, (size_t)(end - requests));
		size_t bytes = count * DENSITY_STORED_BYTES;
		if (recv(fd, replies, bytes, MSG_WAITALL) != (ssize_t)bytes) {
			bench_die("memcached is gone");
		}
		for (uint64_t i = 0; i < count; i++) {
			if (memcmp(replies + i * DENSITY_STORED_BYTES, DENSITY_STORED,
				   DENSITY_STORED_BYTES) != 0) {
				bench_die("memcached refused a key");
			}
		}
	}
	(void)close(fd);
}

static void measure_peer(struct bench_rows *rows, enum bench_peer_kind kind, uint64_t keys)
{
	char dir[] = "/tmp/kvbench-XXXXXX";
	bool redis = kind == BENCH_PEER_REDIS;
	// Enough that nothing is evicted; memcached takes no more of it than it needs.
	struct bench_peer peer = { .memory_mib =
					   64 + (unsigned)(keys * DENSITY_PEER_ENTRY_BYTES >> 20) };
	if (!mkdtemp(dir)) {
		bench_die("no folder for another server");
	}
	if (bench_peer_start(&peer, kind, dir)) {
		(redis ? bench_load : load_memcached)(peer.socket_path, keys);
		add(rows, keys, redis ? "redis_rss" : "memcached_rss",
		    redis ? "redis-server's RSS" : "memcached's RSS",
		    status_bytes(peer.pid, "VmRSS:"));
	}
	bench_peer_stop(&peer);
	(void)remove(dir);
}

int density_main(int argc, char **argv)
{
	static struct bench_rows rows;
	uint64_t keys = 1000000, phases = 1;
	bool json;
	const struct bench_option options[] = { { "--keys", 10000, 100000000, &keys },
						{ "--phases", 1, 4, &phases } };
	if (!bench_options(
		    argc, argv, options, 2, &json,
		    "usage: kvbench density [--keys N] [--phases N] [--json]\n"
		    "Bytes an entry by what they are for, and RSS beside redis-server's "
		    "and memcached's;\n"
		    "--phases spreads so many numbers of entries from N over a doubling.\n")) {
		return 2;
	}
	for (uint64_t i = 0; i < phases; i++) {
		measure_kvd(&rows, keys + keys * i / phases);
		measure_peer(&rows, BENCH_PEER_REDIS, keys + keys * i / phases);
		measure_peer(&rows, BENCH_PEER_MEMCACHED, keys + keys * i / phases);
	}
	bench_print("density", &rows, json);
	return 0;
}
