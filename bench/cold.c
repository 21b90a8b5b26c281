// SPDX-License-Identifier: MIT
//
// A data set many times larger than the memory: what a value costs that is in the store alone,
// beside one in memory and beside LMDB with the same data and without a server, and what the hits
// of those who read what is hot have of it. Each value that comes is looked at, and a write that is
// refused ends the program.
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/common.h"
#include "bench/histogram.h"
#include "bench/kvbench.h"
#include "bench/server.h"

#define COLD_VALUE_BYTES 4000u // their stubs have 56
#define COLD_BATCH 64u
#define COLD_SHARE_HOT 8u    // of the memory is read all the time
#define COLD_HOT_EVERY 1024u // keys written between two readings of that
#define COLD_PASSES 7u	     // over what is hot, for a median
#define COLD_MAP_BYTES (UINT64_C(64) << 30)

struct run {
	uint64_t memory_mib, times, gets, seed;
	bool json;
	uint64_t keys, hot;
	kvc *client;
	kvc_reader *reader;
	struct bench_rows rows;
	struct bench_histogram took;
};

static void value_of(unsigned char value[COLD_VALUE_BYTES], uint64_t index)
{
	uint64_t state = index;
	for (size_t at = 0; at < COLD_VALUE_BYTES; at += sizeof(uint64_t)) {
		uint64_t word = bench_random(&state);
		memcpy(value + at, &word, sizeof(word));
	}
}

static void look(const void *value, size_t bytes, uint64_t index)
{
	unsigned char expected[COLD_VALUE_BYTES];
	value_of(expected, index);
	if (bytes != sizeof(expected) || memcmp(value, expected, sizeof(expected)) != 0) {
		bench_die("a wrong value of key %llu", (unsigned long long)index);
	}
}

// One pass over what is hot, in a section each; ns for one of them. *by_socket counts.
static double read_hot(struct run *run, uint64_t *by_socket)
{
	uint64_t sum = 0;
	char key[BENCH_KEY_BYTES];
	uint64_t begun_ns = bench_now_ns();
	for (uint64_t i = 0; i < run->hot; i++) {
		struct kvc_view view;
		bench_key(key, i);
		if (kvc_begin(run->reader) != KVC_OK ||
		    kvc_view(run->reader, key, sizeof(key), &view) != KVC_OK) {
			bench_die("a hot key is not there");
		}
		sum += *(const unsigned char *)view.value;
		*by_socket += (view.meta.flags & KVC_META_SOCKET) != 0;
		if (kvc_end(run->reader) != KVC_OK) {
			bench_die("a view was revoked");
		}
	}
	uint64_t took_ns = bench_now_ns() - begun_ns;
	if (sum == 0) {
		bench_die("all hot values begin with zero");
	}
	return (double)took_ns / (double)run->hot;
}

static void write_keys(struct run *run, uint64_t from, uint64_t to)
{
	unsigned char value[COLD_VALUE_BYTES];
	char key[BENCH_KEY_BYTES];
	uint64_t by_socket = 0;
	kvc_batch *batch;
	if (kvc_batch_new(&batch) != KVC_OK) {
		bench_die("out of memory");
	}
	for (uint64_t i = from; i < to; i++) {
		bench_key(key, i);
		value_of(value, i);
		if (kvc_batch_set(batch, key, sizeof(key), value, sizeof(value), 0) != KVC_OK) {
			bench_die("out of memory");
		}
		if ((i + 1) % COLD_BATCH == 0 || i + 1 == to) {
			if (kvc_batch_commit(run->client, batch) != KVC_OK) {
				bench_die("a write is refused: %s", kvc_error_text(run->client));
			}
			kvc_batch_reset(batch);
		}
		if (i >= run->hot && i % COLD_HOT_EVERY == 0) {
			(void)read_hot(run, &by_socket);
		}
	}
	kvc_batch_free(batch);
}

static void add_hot(struct run *run, const char *id, const char *label)
{
	double samples[COLD_PASSES];
	char text[80];
	uint64_t by_socket = 0;
	for (unsigned i = 0; i < COLD_PASSES; i++) {
		samples[i] = read_hot(run, &by_socket);
	}
	bench_add(&run->rows, id, label, "ns", samples, COLD_PASSES);
	(void)snprintf(text, sizeof(text), "%s_socket", id);
	bench_add_one(&run->rows, text, "of them not by the mapping", "%",
		      100.0 * (double)by_socket / (double)(run->hot * COLD_PASSES));
}

static void add_took(struct run *run, const char *id, const char *label)
{
	char name[64], text[80];
	(void)snprintf(name, sizeof(name), "%s_p50", id);
	bench_add_one(&run->rows, name, label, "us",
		      (double)bench_histogram_at(&run->took, 500000) / 1000.0);
	(void)snprintf(name, sizeof(name), "%s_p99", id);
	(void)snprintf(text, sizeof(text), "%s, p99", label);
	bench_add_one(&run->rows, name, text, "us",
		      (double)bench_histogram_at(&run->took, 990000) / 1000.0);
}

// Any key but a hot one.
static uint64_t cold_key(struct run *run, char key[BENCH_KEY_BYTES])
{
	uint64_t index = run->hot + bench_random_below(&run->seed, run->keys - run->hot);
	bench_key(key, index);
	return index;
}

// Gets of keys that nobody has read: those that came from the store, apart.
static void add_cold(struct run *run)
{
	unsigned char value[COLD_VALUE_BYTES];
	char key[BENCH_KEY_BYTES];
	uint64_t cold = 0;
	bench_histogram_reset(&run->took);
	for (uint64_t i = 0; i < run->gets; i++) {
		struct kvc_meta meta = { .flags = 0 };
		uint64_t index = cold_key(run, key);
		uint64_t begun_ns = bench_now_ns();
		if (kvc_get(run->reader, key, sizeof(key), value, sizeof(value), &meta) != KVC_OK) {
			bench_die("key %llu: %s", (unsigned long long)index,
				  kvc_reader_error_text(run->reader));
		}
		if ((meta.flags & KVC_META_SOCKET) != 0) {
			bench_histogram_add(&run->took, bench_now_ns() - begun_ns);
			cold++;
		}
		look(value, meta.value_bytes, index);
	}
	bench_add_one(&run->rows, "cold_share", "gets of other keys: from the store", "%",
		      100.0 * (double)cold / (double)run->gets);
	add_took(run, "cold_get", "such a get");
}

// The round trip by itself: of a value that is in memory.
static void add_trip(struct run *run)
{
	static const char get[] = "GET";
	char key[BENCH_KEY_BYTES];
	const void *const argv[] = { get, key };
	const size_t argv_bytes[] = { sizeof(get) - 1, sizeof(key) };
	bench_histogram_reset(&run->took);
	for (uint64_t i = 0; i < run->gets; i++) {
		const struct kvc_reply *reply;
		uint64_t index = bench_random_below(&run->seed, run->hot);
		bench_key(key, index);
		uint64_t begun_ns = bench_now_ns();
		if (kvc_command(run->client, 2, argv, argv_bytes, &reply) != KVC_OK) {
			bench_die("GET: %s", kvc_error_text(run->client));
		}
		bench_histogram_add(&run->took, bench_now_ns() - begun_ns);
	}
	add_took(run, "trip", "GET of a hot key by the socket");
}

static void check_mdb(int rc, const char *what)
{
	if (rc != 0) {
		bench_die("LMDB: %s: %s", what, mdb_strerror(rc));
	}
}

static void lmdb_fill(const struct run *run, MDB_env *env, MDB_dbi *dbi)
{
	unsigned char bytes[COLD_VALUE_BYTES];
	char text[BENCH_KEY_BYTES];
	MDB_txn *txn;
	MDB_val key = { sizeof(text), text }, value = { sizeof(bytes), bytes };
	check_mdb(mdb_txn_begin(env, NULL, 0, &txn), "begin");
	check_mdb(mdb_dbi_open(txn, NULL, 0, dbi), "open");
	for (uint64_t i = 0; i < run->keys; i++) {
		bench_key(text, i);
		value_of(bytes, i);
		check_mdb(mdb_put(txn, *dbi, &key, &value, MDB_APPEND), "put");
		if (i % 50000 == 49999) {
			check_mdb(mdb_txn_commit(txn), "commit");
			check_mdb(mdb_txn_begin(env, NULL, 0, &txn), "begin");
		}
	}
	check_mdb(mdb_txn_commit(txn), "commit");
}

// The same data in LMDB, read by its own library in this process.
static void add_lmdb(struct run *run, const char *folder)
{
	char path[512], text[BENCH_KEY_BYTES];
	MDB_env *env;
	MDB_dbi dbi;
	MDB_txn *txn;
	(void)snprintf(path, sizeof(path), "%s/cold.mdb", folder);
	check_mdb(mdb_env_create(&env), "create");
	check_mdb(mdb_env_set_mapsize(env, COLD_MAP_BYTES), "map size");
	check_mdb(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOSYNC, 0600), "open");
	lmdb_fill(run, env, &dbi);
	bench_histogram_reset(&run->took);
	for (uint64_t i = 0; i < run->gets; i++) {
		MDB_val key = { sizeof(text), text }, value;
		uint64_t index = cold_key(run, text);
		uint64_t begun_ns = bench_now_ns();
		check_mdb(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "begin");
		check_mdb(mdb_get(txn, dbi, &key, &value), "get");
		look(value.mv_data, value.mv_size, index);
		mdb_txn_abort(txn);
		bench_histogram_add(&run->took, bench_now_ns() - begun_ns);
	}
	mdb_env_close(env);
	add_took(run, "lmdb", "LMDB with the same data, in this process");
}

static void measure(struct run *run)
{
	static char stats[BENCH_STATS_BYTES_MAX];
	uint64_t memory_bytes = run->memory_mib << 20;
	struct harness *server = bench_server_start("lazy", memory_bytes);
	run->client = bench_client(harness_socket(server));
	run->reader = bench_reader(run->client);
	run->keys = memory_bytes * run->times / COLD_VALUE_BYTES;
	run->hot = memory_bytes / COLD_SHARE_HOT / COLD_VALUE_BYTES;
	write_keys(run, 0, run->hot);
	add_hot(run, "hot_alone", "a view of a hot key, nothing else there");
	uint64_t begun_ns = bench_now_ns();
	write_keys(run, run->hot, run->keys);
	bench_add_one(&run->rows, "write_rate", "writes, while values leave memory", "MB/s",
		      (double)((run->keys - run->hot) * COLD_VALUE_BYTES) * 1000.0 /
			      (double)(bench_now_ns() - begun_ns));
	bench_stats(run->client, stats);
	bench_add_one(&run->rows, "spilled", "values in the store alone", "%",
		      100.0 * (double)bench_stat(stats, "cold_values") / (double)run->keys);
	add_hot(run, "hot", "a view of a hot key, behind that");
	add_trip(run);
	add_cold(run);
	add_hot(run, "hot_after", "a view of a hot key, behind those gets");
	add_lmdb(run, harness_root(server));
	bench_add_one(&run->rows, "ratio_hot", "views of hot keys, with all data / without",
		      "times",
		      bench_median(&run->rows, "hot") / bench_median(&run->rows, "hot_alone"));
	bench_add_one(&run->rows, "ratio_cold", "a get from the store / GET by the socket", "times",
		      bench_median(&run->rows, "cold_get_p50") /
			      bench_median(&run->rows, "trip_p50"));
	(void)kvc_reader_close(run->reader);
	(void)kvc_close(run->client);
	bench_server_free(server);
}

int cold_main(int argc, char **argv)
{
	static struct run run = { .memory_mib = 32, .times = 10, .gets = 20000, .seed = 1 };
	const struct bench_option options[] = {
		{ "--memory-mib", 16, 65536, &run.memory_mib },
		{ "--times", 2, 1000, &run.times },
		{ "--gets", 100, 100000000, &run.gets },
		{ "--seed", 0, UINT32_MAX, &run.seed },
	};
	if (!bench_options(argc, argv, options, sizeof(options) / sizeof(options[0]), &run.json,
			   "usage: kvbench cold [--memory-mib 32] [--times 10] [--gets 20000] "
			   "[--seed 1] [--json]\n"
			   "Values of 4000 bytes, so many times the memory; its folder, which gets "
			   "them twice,\nis under $TMPDIR.\n")) {
		return 2;
	}
	measure(&run);
	bench_print("cold", &run.rows, run.json);
	return 0;
}
