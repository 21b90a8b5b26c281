// SPDX-License-Identifier: MIT
//
// The kvd that a benchmark measures: its own, in a temporary folder, filled through the socket and
// asked for its counters. Starting and stopping is the tests' harness.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libclient/kvclient.h"
#include "tests/lib/harness.h"

#define BENCH_STATS_BYTES_MAX 262144u

/// Starts kvd with the given policy and bound on memory. $KVD_PROGRAM, else the one built beside
/// this program. Its folder is under $TMPDIR, else /tmp: for policies that write, that should be a
/// disk.
struct harness *bench_server_start(const char *policy, uint64_t memory_bytes);
/// The same under kvd --supervise: what the harness started watches the kvd that serves.
struct harness *bench_server_start_supervised(const char *policy, uint64_t memory_bytes);

/// One under the memory policy that evicts, its memory in about so many segments or more.
struct harness *bench_server_start_cache(uint64_t memory_bytes, unsigned segments);

/// One under the memory policy whose region has pages of that kind: a choice of --huge-pages.
struct harness *bench_server_start_pages(uint64_t memory_bytes, const char *huge_pages);

/// Kills it and removes its folder; also done when the program exits. NULL is fine.
void bench_server_free(struct harness *server);

/// A bound on memory that holds `keys` entries with room to spare.
uint64_t bench_memory_for(uint64_t keys);

/// A client of it; ends the program unless it reads through the mapping.
kvc *bench_client(const char *socket_path);
kvc_reader *bench_reader(kvc *client);

/// Stores the keys [0, keys) in their order through one pipelining connection.
void bench_load(const char *socket_path, uint64_t keys);

/// Reads KVD.STATS, NUL-terminated, into `text`.
void bench_stats(kvc *client, char text[static BENCH_STATS_BYTES_MAX]);
/// A counter in it.
uint64_t bench_stat(const char *text, const char *name);

/// One SET request of BENCH_KEY_BYTES and BENCH_VALUE_BYTES: its frame, and where key and value go.
#define BENCH_SET_HEAD "*3\r\n$3\r\nSET\r\n$16\r\n"
#define BENCH_SET_MIDDLE "\r\n$64\r\n"
#define BENCH_SET_KEY_AT (sizeof(BENCH_SET_HEAD) - 1)
#define BENCH_SET_VALUE_AT (BENCH_SET_KEY_AT + BENCH_KEY_BYTES + sizeof(BENCH_SET_MIDDLE) - 1)
#define BENCH_SET_BYTES (BENCH_SET_VALUE_AT + BENCH_VALUE_BYTES + 2)
#define BENCH_OK "+OK\r\n"
#define BENCH_OK_BYTES 5u

/// Fills in all of a request but key and value.
void bench_set_frame(char *request);
/// True if these bytes continue a stream of "+OK\r\n" of which `before` bytes have been seen.
bool bench_all_ok(const char *bytes, size_t count, uint64_t before);
int bench_connect(const char *socket_path, bool blocking);
