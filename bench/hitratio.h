// SPDX-License-Identifier: MIT
//
// Hit ratios of caches: traces of gets, caches that are simulated, and servers that really are
// asked. Everybody is used as a cache aside is: a get, and on a miss a set.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Which keys are asked for, one after the other, and how large the value of each is.
struct hitratio_trace {
	char name[32];
	uint32_t *keys; // `count` of them, below keys_count
	uint64_t count;
	uint32_t keys_count;
	uint32_t *value_bytes; // of each key
};

/// `keys` of them by Zipf's law with that exponent, in random places; of `scan_percent` of all gets
/// each names a key that never came before, 2000 in a row.
void hitratio_zipf(struct hitratio_trace *trace, double exponent, uint32_t keys, uint64_t count,
		   unsigned scan_percent, uint64_t seed);
/// The same `keys` round and round.
void hitratio_loop(struct hitratio_trace *trace, uint32_t keys, uint64_t count);
/// Out of a file, one get a line: a number of 20 digits at most that names a key stands in the
/// `column`-th field (from 1), fields ending with commas or spaces; of `runs` the next field tells
/// how many keys from it on are asked for. Lines without are passed over.
void hitratio_file(struct hitratio_trace *trace, const char *path, unsigned column, bool runs,
		   uint64_t most);
void hitratio_free(struct hitratio_trace *trace);

/// Bytes that a key and its value take in kvd, its entry of the table included, about.
uint64_t hitratio_bytes(const struct hitratio_trace *trace, uint32_t key);

/// Share of the gets that hit in a cache of so many bytes.
double hitratio_lru(const struct hitratio_trace *trace, uint64_t bytes);
double hitratio_sieve(const struct hitratio_trace *trace, uint64_t bytes);
/// With a tenth for what is new, two gets to leave that, and as many ghosts as there is room for.
double hitratio_s3fifo(const struct hitratio_trace *trace, uint64_t bytes);

/// The same really asked: kvd with --when-full evict, reading through the mapping.
double hitratio_kvd(const struct hitratio_trace *trace, uint64_t bytes);
enum hitratio_peer { HITRATIO_REDIS_LRU, HITRATIO_REDIS_LFU, HITRATIO_MEMCACHED };
/// Negative if it is not on this machine. Asked by 32 keys at a time.
double hitratio_peer(const struct hitratio_trace *trace, uint64_t bytes, enum hitratio_peer peer);
