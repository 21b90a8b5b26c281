// SPDX-License-Identifier: MIT
//
// Reading the same keys through kvd's mapping and out of LMDB, each in the ways a program would do
// it. A way is a function over a slice of a stream of keys that returns the sum of the first and
// last bytes of all values, so that nothing can be optimised away and no side can be wrong
// unnoticed.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "libclient/kvclient.h"

struct bench_rows;
typedef struct MDB_env MDB_env;
typedef struct MDB_txn MDB_txn;

#define GET_BATCH 32u	     // keys of one kvc_get_many
#define GET_PER_SECTION 100u // gets of one section or transaction, where they share one

/// What one process reads with. Made in the process that uses it.
struct get_side {
	kvc *client;
	kvc_reader *reader;
	MDB_env *env;
	MDB_txn *txn; // of reading, reset
	unsigned dbi;
};

/// Keys in the order in which they are asked for, one after the other.
struct get_stream {
	char *keys;
	size_t count;
	uint64_t sum; // what reading all of them returns
};

struct get_way {
	const char *id;
	const char *label;
	bool is_lmdb;
	/// Adds what it read of `count` keys; ends the program at a miss.
	uint64_t (*run)(struct get_side *side, const char *keys, size_t count);
};

/// kvd's and LMDB's ways by turns.
extern const struct get_way get_ways[];
extern const size_t get_ways_count;
const struct get_way *get_way_find(const char *id);
/// Nothing but arithmetic and a table in the process's own memory, as long as a get or so: what
/// this machine gives two processes that share nothing at all.
extern const struct get_way get_way_own;

/// Opens both sides; `lmdb_path` NULL leaves LMDB out.
void get_side_open(struct get_side *side, const char *socket_path, const char *lmdb_path);
void get_side_close(struct get_side *side);

/// Puts the keys [0, keys) into a new LMDB folder: sorted, so that its pages are full.
void get_lmdb_load(const char *path, uint64_t keys);

/// `count` keys of [0, keys), uniform. Freed by the caller.
struct get_stream get_stream_new(uint64_t keys, size_t count, uint64_t seed);

/// Reading processes, each on a processor of its own.
struct get_pair {
	const struct get_stream *stream;
	const char *socket_path;
	const char *lmdb_path;
	uint64_t run_ns; // each time
	unsigned repeats;
	bool cpu_time; // a second is one of the thread's processor time
};

/// How two do beside one. Adds rows of reads a second and the ratio.
void get_pair(struct bench_rows *rows, const struct get_way *way, const struct get_pair *pair);
