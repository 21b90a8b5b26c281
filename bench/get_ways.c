// SPDX-License-Identifier: MIT
//
// The ways of reading; see get.h.
#include <errno.h>
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/common.h"
#include "bench/get.h"
#include "bench/server.h"

static uint64_t ends(const void *value, size_t bytes)
{
	const unsigned char *byte = value;
	return (uint64_t)byte[0] + byte[bytes - 1];
}

__attribute__((noreturn, cold)) static void missed(const char *way, int status)
{
	bench_die("%s: %s", way, kvc_strerror(status));
}

// ---- kvd ----------------------------------------------------------------------------------------

static uint64_t kvd_view(struct get_side *side, const char *keys, size_t count)
{
	kvc_reader *reader = side->reader;
	struct kvc_view view;
	uint64_t sum = 0;
	for (size_t i = 0; i < count; i++) {
		if (kvc_begin(reader) != KVC_OK) {
			missed("kvc_begin", KVC_INVALID);
		}
		int status = kvc_view(reader, keys + i * BENCH_KEY_BYTES, BENCH_KEY_BYTES, &view);
		if (status != KVC_OK) {
			missed("kvc_view", status);
		}
		sum += ends(view.value, view.value_bytes);
		if (kvc_end(reader) != KVC_OK) {
			missed("kvc_end", KVC_REVOKED);
		}
	}
	return sum;
}

static uint64_t kvd_view_100(struct get_side *side, const char *keys, size_t count)
{
	kvc_reader *reader = side->reader;
	struct kvc_view view;
	uint64_t sum = 0;
	for (size_t i = 0; i < count;) {
		size_t stop = count - i < GET_PER_SECTION ? count : i + GET_PER_SECTION;
		if (kvc_begin(reader) != KVC_OK) {
			missed("kvc_begin", KVC_INVALID);
		}
		for (; i < stop; i++) {
			int status = kvc_view(reader, keys + i * BENCH_KEY_BYTES, BENCH_KEY_BYTES,
					      &view);
			if (status != KVC_OK) {
				missed("kvc_view", status);
			}
			sum += ends(view.value, view.value_bytes);
		}
		if (kvc_end(reader) != KVC_OK) {
			missed("kvc_end", KVC_REVOKED);
		}
	}
	return sum;
}

static uint64_t kvd_get(struct get_side *side, const char *keys, size_t count)
{
	char value[BENCH_VALUE_BYTES];
	uint64_t sum = 0;
	for (size_t i = 0; i < count; i++) {
		int status = kvc_get(side->reader, keys + i * BENCH_KEY_BYTES, BENCH_KEY_BYTES,
				     value, sizeof(value), NULL);
		if (status != KVC_OK) {
			missed("kvc_get", status);
		}
		sum += ends(value, sizeof(value));
	}
	return sum;
}

static uint64_t kvd_many(struct get_side *side, const char *keys, size_t count)
{
	struct kvc_item items[GET_BATCH];
	char value[GET_BATCH][BENCH_VALUE_BYTES];
	uint64_t sum = 0;
	for (size_t i = 0; i < GET_BATCH; i++) {
		items[i] = (struct kvc_item){ .key_bytes = BENCH_KEY_BYTES,
					      .buffer = value[i],
					      .buffer_bytes = sizeof(value[i]) };
	}
	for (size_t first = 0; first < count; first += GET_BATCH) {
		size_t batch = count - first < GET_BATCH ? count - first : GET_BATCH;
		for (size_t i = 0; i < batch; i++) {
			items[i].key = keys + (first + i) * BENCH_KEY_BYTES;
		}
		int status = kvc_get_many(side->reader, items, batch, 0);
		for (size_t i = 0; i < batch; i++) {
			if (status != KVC_OK || items[i].status != KVC_OK) {
				missed("kvc_get_many", status ? status : items[i].status);
			}
			sum += ends(value[i], sizeof(value[i]));
		}
	}
	return sum;
}

// ---- LMDB ---------------------------------------------------------------------------------------

static void lmdb_check(const char *what, int status)
{
	if (__builtin_expect(status != MDB_SUCCESS, 0)) {
		bench_die("LMDB: %s: %s", what, mdb_strerror(status));
	}
}

static uint64_t lmdb_gets(struct get_side *side, const char *keys, size_t count, size_t per_txn)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < count;) {
		size_t stop = count - i < per_txn ? count : i + per_txn;
		lmdb_check("mdb_txn_renew", mdb_txn_renew(side->txn));
		for (; i < stop; i++) {
			MDB_val key = { .mv_size = BENCH_KEY_BYTES,
					.mv_data =
						(void *)(uintptr_t)(keys + i * BENCH_KEY_BYTES) };
			MDB_val value;
			lmdb_check("mdb_get", mdb_get(side->txn, side->dbi, &key, &value));
			sum += ends(value.mv_data, value.mv_size);
		}
		mdb_txn_reset(side->txn);
	}
	return sum;
}

static uint64_t lmdb_renew(struct get_side *side, const char *keys, size_t count)
{
	return lmdb_gets(side, keys, count, 1);
}

static uint64_t lmdb_renew_100(struct get_side *side, const char *keys, size_t count)
{
	return lmdb_gets(side, keys, count, GET_PER_SECTION);
}

// ---- neither ------------------------------------------------------------------------------------

#define OWN_WORDS_BITS 13u // 64 KiB: the caches of one processor hold it
#define OWN_ROUNDS 8u

static uint64_t own_loop(struct get_side *side, const char *keys, size_t count)
{
	static uint64_t table[1u << OWN_WORDS_BITS];
	uint64_t sum = 0;
	(void)side;
	for (size_t i = 0; table[1] == 0 && i < sizeof(table) / sizeof(table[0]); i++) {
		table[i] = i * UINT64_C(0x9e3779b97f4a7c15);
	}
	for (size_t i = 0; i < count; i++) {
		uint64_t word[2];
		memcpy(word, keys + i * BENCH_KEY_BYTES, sizeof(word));
		for (unsigned round = 0; round < OWN_ROUNDS; round++) {
			word[0] = (word[0] ^ word[1]) * UINT64_C(0xbf58476d1ce4e5b9);
			word[1] ^= table[word[0] >> (64 - OWN_WORDS_BITS)];
		}
		sum += word[1];
	}
	return sum;
}

const struct get_way get_way_own = { "own_memory", "a loop in private memory", false, own_loop };

const struct get_way get_ways[] = {
	{ "kvd_view", "kvd: begin, view, end a get", false, kvd_view },
	{ "lmdb_renew", "LMDB: renew, mdb_get, reset a get", true, lmdb_renew },
	{ "kvd_get", "kvd: kvc_get, copying", false, kvd_get },
	{ "lmdb_renew_100", "LMDB: renew and reset per 100", true, lmdb_renew_100 },
	{ "kvd_view_100", "kvd: begin and end per 100 views", false, kvd_view_100 },
	{ "kvd_many", "kvd: kvc_get_many of 32, copying", false, kvd_many },
};
const size_t get_ways_count = sizeof(get_ways) / sizeof(get_ways[0]);

const struct get_way *get_way_find(const char *id)
{
	for (size_t i = 0; i < get_ways_count; i++) {
		if (strcmp(get_ways[i].id, id) == 0) {
			return &get_ways[i];
		}
	}
	bench_die("no way of reading is called %s", id);
}

// ---- both sides ---------------------------------------------------------------------------------

void get_side_open(struct get_side *side, const char *socket_path, const char *lmdb_path)
{
	*side = (struct get_side){ .client = bench_client(socket_path) };
	side->reader = bench_reader(side->client);
	if (!lmdb_path) {
		return;
	}
	lmdb_check("mdb_env_create", mdb_env_create(&side->env));
	lmdb_check("mdb_env_open", mdb_env_open(side->env, lmdb_path, MDB_RDONLY, 0600));
	lmdb_check("mdb_txn_begin", mdb_txn_begin(side->env, NULL, MDB_RDONLY, &side->txn));
	lmdb_check("mdb_dbi_open", mdb_dbi_open(side->txn, NULL, 0, &side->dbi));
	mdb_txn_reset(side->txn);
}

void get_side_close(struct get_side *side)
{
	int status = kvc_close(side->client);
	if (status != KVC_OK) {
		bench_die("kvc_close: %s", kvc_strerror(status));
	}
	if (side->env) {
		mdb_txn_abort(side->txn);
		mdb_env_close(side->env);
	}
}

void get_lmdb_load(const char *path, uint64_t keys)
{
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	char key_bytes[BENCH_KEY_BYTES], value_bytes[BENCH_VALUE_BYTES];
	if (mkdir(path, 0700) != 0) {
		bench_die("%s: %s", path, strerror(errno));
	}
	lmdb_check("mdb_env_create", mdb_env_create(&env));
	lmdb_check("mdb_env_set_mapsize", mdb_env_set_mapsize(env, (keys * 160) + (64u << 20)));
	lmdb_check("mdb_env_open", mdb_env_open(env, path, MDB_NOSYNC, 0600));
	for (uint64_t first = 0; first < keys;) {
		uint64_t stop = keys - first < 100000 ? keys : first + 100000;
		lmdb_check("mdb_txn_begin", mdb_txn_begin(env, NULL, 0, &txn));
		lmdb_check("mdb_dbi_open", mdb_dbi_open(txn, NULL, 0, &dbi));
		for (; first < stop; first++) {
			MDB_val key = { BENCH_KEY_BYTES, key_bytes };
			MDB_val value = { BENCH_VALUE_BYTES, value_bytes };
			bench_key(key_bytes, first);
			bench_value(value_bytes, first);
			lmdb_check("mdb_put", mdb_put(txn, dbi, &key, &value, MDB_APPEND));
		}
		lmdb_check("mdb_txn_commit", mdb_txn_commit(txn));
	}
	lmdb_check("mdb_env_sync", mdb_env_sync(env, 1));
	mdb_env_close(env);
}

struct get_stream get_stream_new(uint64_t keys, size_t count, uint64_t seed)
{
	struct get_stream stream = { .keys = malloc(count * BENCH_KEY_BYTES), .count = count };
	if (!stream.keys) {
		bench_die("out of memory");
	}
	for (size_t i = 0; i < count; i++) {
		uint64_t index = bench_random_below(&seed, keys);
		bench_key(stream.keys + i * BENCH_KEY_BYTES, index);
		stream.sum += bench_value_sum(index);
	}
	return stream;
}
