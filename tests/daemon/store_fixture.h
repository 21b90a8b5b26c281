// SPDX-License-Identifier: MIT
//
// What the tests of the store and of the persister share: a folder of one's own, records made from
// a few numbers, and the probe's child, which is the test program itself.
#pragma once

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/storage/probe.h"
#include "daemon/storage/recover.h"
#include "daemon/storage/store.h"
#include "shm/crc32c.h"
#include "tests/tap/tap.h"

#define FIXTURE_PATH_BYTES 512

/// Ends the probe's child by this signal instead.
#define FIXTURE_PROBE_SIGNAL "KVD_TEST_PROBE_SIGNAL"

/// Is this process the probe's child? Then *code is what main() must return.
__attribute__((unused)) static bool fixture_is_probe(int argc, char **argv, int *code)
{
	if (argc != 3 || strcmp(argv[1], STORE_PROBE_OPTION) != 0) {
		return false;
	}
	if (getenv(FIXTURE_PROBE_SIGNAL) != NULL) {
		int number = (int)strtol(getenv(FIXTURE_PROBE_SIGNAL), NULL, 10);
		// Whoever started the tests may ignore some: nohup does.
		(void)sigaction(number, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
		(void)raise(number);
	}
	*code = store_probe_child(argv[2]);
	return true;
}

__attribute__((unused)) static void fixture_dir(char path[FIXTURE_PATH_BYTES])
{
	const char *base = getenv("TMPDIR");
	(void)snprintf(path, FIXTURE_PATH_BYTES, "%s/kvd-store-XXXXXX", base ? base : "/tmp");
	if (mkdtemp(path) == NULL) {
		printf("Bail out! no temporary folder %s\n", path);
		exit(1);
	}
}

/// The same in memory where that can be had: for tests that commit thousands of times and crash
/// only this process.
__attribute__((unused)) static void fixture_dir_fast(char path[FIXTURE_PATH_BYTES])
{
	const char *base = getenv("KVD_TEST_MEMORY_DIR");
	if (base == NULL && getenv("TMPDIR") == NULL) {
		base = "/dev/shm";
	}
	if (base != NULL && access(base, W_OK | X_OK) == 0) {
		(void)snprintf(path, FIXTURE_PATH_BYTES, "%s/kvd-store-XXXXXX", base);
		if (mkdtemp(path) != NULL) {
			return;
		}
	}
	fixture_dir(path);
}

__attribute__((unused)) static int fixture_unlink(const char *path, const struct stat *facts,
						  int kind, struct FTW *walk)
{
	(void)facts;
	(void)kind;
	(void)walk;
	return remove(path);
}

__attribute__((unused)) static void fixture_remove(const char *path)
{
	if (nftw(path, fixture_unlink, 16, FTW_DEPTH | FTW_PHYS) != 0) {
		tap_diag("cannot remove %s", path);
	}
}

__attribute__((unused)) static struct store *fixture_store(const char *dir)
{
	char why[512];
	struct store *store;
	struct store_options options = { .dir = dir, .instance_id = 77, .readers = 2 };
	if (store_open(&store, &options, why, sizeof(why)) != STORE_OK) {
		printf("Bail out! %s\n", why);
		exit(1);
	}
	return store;
}

/// A record in a buffer of its own: key "k<number>", a value that follows from number and seq. With
/// `large` the value stands apart.
struct fixture_record {
	_Alignas(8) unsigned char bytes[70000];
	unsigned char *value; // of a large one; the caller frees
	struct kvs_record_view view;
};

__attribute__((unused)) static void fixture_fill(unsigned char *to, size_t bytes, uint64_t number,
						 uint64_t seq)
{
	uint64_t state = number * 1000003 + seq;
	for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) { // words: megabytes under valgrind
		uint64_t word = tap_random(&state);
		size_t rest = bytes - i;
		memcpy(to + i, &word, rest < sizeof(word) ? rest : sizeof(word));
	}
}

__attribute__((unused)) static void fixture_record(struct fixture_record *record, uint64_t number,
						   uint64_t seq, uint32_t value_bytes,
						   uint16_t flags)
{
	char key[32];
	int key_bytes = snprintf(key, sizeof(key), "k%llu", (unsigned long long)number);
	static unsigned char payload[65536];
	struct kvs_run run = { 0 };
	struct kvs_record_spec spec = {
		.key = key,
		.key_bytes = flags & KVS_RECORD_FLUSH ? 0 : (uint32_t)key_bytes,
		.payload = payload,
		.payload_bytes = value_bytes,
		.value_bytes = value_bytes,
		.seq = seq,
		.time_ms = KVS_TIME_ORIGIN_MS + seq,
		.flags = flags,
	};
	record->value = NULL;
	if (flags & KVS_RECORD_LARGE) {
		record->value = malloc(value_bytes + 1);
		fixture_fill(record->value, value_bytes, number, seq);
		run.crc = kvs_crc32c(0, record->value, value_bytes);
		spec.payload = &run;
		spec.payload_bytes = sizeof(run);
	} else {
		fixture_fill(payload, value_bytes, number, seq);
	}
	(void)kvs_record_write(record->bytes, &spec);
	if (kvs_record_parse(record->bytes, sizeof(record->bytes), &record->view) != 0) {
		printf("Bail out! a test's record is malformed\n");
		exit(1);
	}
}

/// Is this the record that fixture_record() makes from the same numbers?
__attribute__((unused)) static bool fixture_same(const struct kvs_record_view *view,
						 const void *value, uint64_t number)
{
	char key[32];
	int key_bytes = snprintf(key, sizeof(key), "k%llu", (unsigned long long)number);
	bool large = (view->flags & KVS_RECORD_LARGE) != 0;
	unsigned char *expected = malloc(view->value_bytes + 1);
	fixture_fill(expected, view->value_bytes, number, view->seq);
	bool same = view->key_bytes == (uint32_t)key_bytes &&
		    memcmp(view->key, key, view->key_bytes) == 0 && kvs_record_crc_ok(view) &&
		    view->record->place == 0 &&
		    memcmp(large ? value : view->payload, expected, view->value_bytes) == 0;
	free(expected);
	return same;
}
