// SPDX-License-Identifier: MIT
//
// What is behind daemon/cold.c, as test_cold.c plays it: a store that reads when the test says so,
// and a keyspace that says what the test wants.
#pragma once

#include "daemon/cold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/cold_parts.h"
#include "daemon/kvd.h"
#include "daemon/loop.h"
#include "daemon/parcel.h"
#include "daemon/seam.h"
#include "daemon/stats.h"
#include "tests/tap/tap.h"

#define VALUE_BYTES 1000u
#define VALUE_BYTES_MAX 4000u // so 8000 bytes may stand in buffers
#define VERSIONS 64u
#define MS UINT64_C(1000000)
#define PATIENCE_S 20

// ---- what is behind it ----

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned allowed;     // readings that may go on
	unsigned begun;	      // that were
	uint64_t last_place;  // of the last one
	int result[VERSIONS]; // by version
} disk = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static struct {
	bool has_stub;
	uint64_t place;
	unsigned promoted, slices, dropped;
	enum keyspace_cold_result result;
} writer;

static uint64_t now_ns;
static unsigned parcels; // under the mutex, too
static uint64_t counters[KVS_COUNTERS_COUNT];
static struct stats stats = { .counters = counters };
static int wake_fd;

int store_reader_open(struct store_reader **out, struct store *store, unsigned index)
{
	(void)store, (void)index;
	*out = NULL;
	return STORE_OK;
}

void store_reader_close(struct store_reader *reader)
{
	(void)reader;
}

const char *store_reader_why(const struct store_reader *reader)
{
	(void)reader;
	return "the test wants it";
}

int store_reader_read(struct store_reader *reader, const struct store_wanted *wanted,
		      struct store_record *record)
{
	(void)reader;
	(void)pthread_mutex_lock(&disk.mutex);
	disk.begun++;
	disk.last_place = wanted->place;
	(void)pthread_cond_broadcast(&disk.changed);
	while (disk.allowed == 0) {
		(void)pthread_cond_wait(&disk.changed, &disk.mutex);
	}
	disk.allowed--;
	int result = disk.result[wanted->seq];
	(void)pthread_mutex_unlock(&disk.mutex);
	record->bytes = result == STORE_OK ? malloc(wanted->value_bytes) : NULL;
	record->value = record->bytes;
	if (record->bytes != NULL) {
		memset(record->bytes, (int)wanted->seq, wanted->value_bytes);
	}
	return result;
}

struct parcel *parcel_create(size_t bytes)
{
	struct parcel *parcel = malloc(sizeof(*parcel) + bytes);
	if (parcel == NULL) {
		abort();
	}
	parcel->bytes = bytes;
	parcel->references = 1;
	(void)pthread_mutex_lock(&disk.mutex);
	parcels++;
	(void)pthread_mutex_unlock(&disk.mutex);
	return parcel;
}

void parcel_release(struct session_shared *shared, struct parcel *parcel)
{
	(void)shared;
	(void)pthread_mutex_lock(&disk.mutex);
	parcels -= parcel != NULL;
	(void)pthread_mutex_unlock(&disk.mutex);
	free(parcel);
}

size_t keyspace_value_bytes_max(const struct keyspace *keyspace)
{
	(void)keyspace;
	return VALUE_BYTES_MAX;
}

bool keyspace_stub_place(struct keyspace *keyspace, const void *key, size_t key_bytes, uint64_t seq,
			 uint64_t *place)
{
	(void)keyspace, (void)key, (void)key_bytes, (void)seq;
	*place = writer.has_stub ? writer.place : *place;
	return writer.has_stub;
}

enum keyspace_cold_result keyspace_promote(struct keyspace *keyspace,
					   const struct keyspace_loaded *loaded,
					   struct keyspace_promotion *promotion, uint64_t until_ns)
{
	(void)keyspace, (void)loaded, (void)until_ns;
	if (writer.slices > 0) {
		writer.slices--;
		promotion->run_offset = 1;
		return KEYSPACE_COLD_MORE;
	}
	writer.promoted++;
	promotion->run_offset = 0;
	return writer.result;
}

void keyspace_promote_drop(struct keyspace *keyspace, struct keyspace_promotion *promotion)
{
	(void)keyspace;
	writer.dropped += promotion->run_offset != 0;
	promotion->run_offset = 0;
}

uint64_t loop_now_ns(const struct loop *loop)
{
	(void)loop;
	return now_ns;
}

int loop_wake_fd(const struct loop *loop)
{
	(void)loop;
	return wake_fd;
}

static uint64_t slow_ms; // that LATENCY was told

void latency_add(struct latency *latency, enum latency_event event, uint64_t ms, uint64_t time_s)
{
	(void)latency;
	slow_ms = event == LATENCY_COLD_LOAD && time_s == 2 ? slow_ms + ms : UINT64_MAX;
}

static uint64_t clock_ns(void)
{
	return now_ns;
}

static uint64_t wall_ms(void)
{
	return 2000;
}

static void random_bytes(void *out, size_t bytes)
{
	memset(out, 7, bytes);
}

static struct kvd kvd;
static struct cold *cold;
static void ready(void *owner)
{
	(*(unsigned *)owner)++;
}

static void start(void)
{
	static const struct seam seam = { .monotonic_ns = clock_ns,
					  .wall_ms = wall_ms,
					  .random_bytes = random_bytes };
	kvd = (struct kvd){ .seam = &seam, .stats = &stats };
	kvd.config.memory_bytes = 1000;
	kvd.config.read_wait_ms = 100;
	memset(counters, 0, sizeof(counters));
	memset(disk.result, 0, sizeof(disk.result));
	disk.allowed = disk.begun = 0;
	memset(&writer, 0, sizeof(writer));
	writer.has_stub = true;
	writer.place = 70;
	slow_ms = 0;
	now_ns = 1000 * MS;
	wake_fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
	ok_int(cold_start(&cold, &kvd, NULL, ready), 0, "it starts");
}

static void stop(const char *what)
{
	uint64_t left = cold->bytes + cold->loads.count + cold->wants.count + cold->waits;
	cold_stop(cold);
	(void)close(wake_fd);
	ok(left == 0 && parcels == 0, "G: %s: nothing is left", what);
}

// So many readings end, and the loop hears of them.
static void let_read(unsigned count)
{
	uint64_t one;
	(void)pthread_mutex_lock(&disk.mutex);
	disk.allowed += count;
	(void)pthread_cond_broadcast(&disk.changed);
	(void)pthread_mutex_unlock(&disk.mutex);
	for (unsigned i = 0; i < count; i++) {
		if (read(wake_fd, &one, sizeof(one)) != (ssize_t)sizeof(one)) {
			abort();
		}
	}
	cold_turn(cold, now_ns);
}

// The test goes on when so many were begun, or fails.
static void await_begun(unsigned count)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	int error = 0;
	(void)pthread_mutex_lock(&disk.mutex);
	while (disk.begun < count && error == 0) {
		error = pthread_cond_timedwait(&disk.changed, &disk.mutex, &until);
	}
	(void)pthread_mutex_unlock(&disk.mutex);
	if (error != 0) {
		ok(false, "reading %u begins", count);
		exit(tap_done());
	}
}

static const unsigned char *ask_bytes(struct cold_wait *wait, unsigned version, uint32_t bytes)
{
	struct kvs_record record = { .place = 70 };
	const struct kvs_record_view stub = { .record = &record,
					      .key = (const unsigned char *)"key",
					      .key_bytes = 3,
					      .seq = version,
					      .value_bytes = bytes };
	return cold_wait_value(wait, &stub);
}

static const unsigned char *ask(struct cold_wait *wait, unsigned version)
{
	return ask_bytes(wait, version, VALUE_BYTES);
}

static struct cold_wait *wait_for(unsigned *told, unsigned first, unsigned count)
{
	struct cold_wait *wait = cold_wait_create(cold, told);
	for (unsigned i = 0; i < count; i++) {
		(void)ask(wait, first + i);
	}
	cold_wait_begin(wait);
	return wait;
}

static bool is_value(const unsigned char *value, unsigned version)
{
	return value != NULL && value[0] == version && value[VALUE_BYTES - 1] == version;
}

static bool says(const struct cold_wait *wait, const char *what)
{
	char text[512] = "";
	bool failed = cold_wait_failed(wait, text, sizeof(text));
	return failed == (what[0] != 0) && strncmp(text, what, strlen(what)) == 0;
}
