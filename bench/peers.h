// SPDX-License-Identifier: MIT
//
// Other servers beside kvd in one run: redis-server and memcached as Debian has them, each on a
// Unix socket in a folder of the benchmark's, without persistence, one thread that serves. They die
// with the program.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum bench_peer_kind { BENCH_PEER_REDIS, BENCH_PEER_MEMCACHED };

struct bench_peer {
	pid_t pid;
	char socket_path[108];
	char version[64]; // one line
	unsigned memory_mib; // its bound; 0 = none, or 1024
};

/// Starts a peer with its socket in `dir` and waits until it answers. False: the program is not on
/// this machine.
bool bench_peer_start(struct bench_peer *peer, enum bench_peer_kind kind, const char *dir);
/// Ends it. A peer that was not started is fine.
void bench_peer_stop(struct bench_peer *peer);
