// SPDX-License-Identifier: MIT
//
// Values on their way from the store: many that want one version share one reading, a wait has all
// that it wants or holds nothing (G), what becomes of a reading is told to who waits for it, and
// nothing is kept for who does not. The store behind it reads when the test says so, and the
// keyspace says what the test wants.
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

static uint64_t clock_ns(void)
{
	return now_ns;
}

static void random_bytes(void *out, size_t bytes)
{
	memset(out, 7, bytes);
}

// ---- the test's hands ----

static struct kvd kvd;
static struct cold *cold;
static void ready(void *owner)
{
	(*(unsigned *)owner)++;
}

static void start(void)
{
	static const struct seam seam = { .monotonic_ns = clock_ns, .random_bytes = random_bytes };
	kvd = (struct kvd){ .seam = &seam, .stats = &stats };
	kvd.config.memory_bytes = 1000;
	kvd.config.read_wait_ms = 100;
	memset(counters, 0, sizeof(counters));
	memset(disk.result, 0, sizeof(disk.result));
	disk.allowed = disk.begun = 0;
	memset(&writer, 0, sizeof(writer));
	writer.has_stub = true;
	writer.place = 70;
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

static void test_shared(void)
{
	unsigned told[3] = { 0 };
	start();
	struct cold_wait *a = wait_for(&told[0], 1, 1);
	struct cold_wait *b = wait_for(&told[1], 1, 1);
	struct cold_wait *c = wait_for(&told[2], 2, 1);
	cold_turn(cold, now_ns);
	ok(counters[KVS_COUNTER_cold_loads] == 2 && counters[KVS_COUNTER_cold_loads_shared] == 1 &&
		   counters[KVS_COUNTER_cold_gets] == 3 && counters[KVS_COUNTER_cold_waits] == 3,
	   "two that want one version share a reading");
	disk.result[2] = STORE_DAMAGED;
	let_read(2);
	ok(told[0] == 1 && told[1] == 1 && told[2] == 1, "all of them are told");
	const unsigned char *value = ask(a, 1);
	ok(is_value(value, 1) && ask(b, 1) == value, "A: the same bytes");
	ok(cold_wait_parcel(a, value + 5) != NULL &&
		   cold_wait_parcel(a, value + VALUE_BYTES) == NULL,
	   "which stand in a buffer");
	ok(ask(c, 2) == NULL && says(c, "DAMAGED the value of 'key'"),
	   "G: what cannot be read is an error that names it");
	ok_u64(counters[KVS_COUNTER_cold_load_errors], 1, "and counts");
	ok(writer.promoted == 1 && counters[KVS_COUNTER_cold_promotions] == 1, "one is put back");
	cold_wait_drop(a);
	ok(is_value(ask(b, 1), 1), "it stays for who still has it");
	cold_wait_drop(b);
	cold_wait_drop(c);
	stop("shared");
}

// Eight values fit.
static void test_line(void)
{
	unsigned told[3] = { 0 };
	start();
	struct cold_wait *a = wait_for(&told[0], 1, 6);
	struct cold_wait *b = wait_for(&told[1], 5, 5); // two of them a has, too
	struct cold_wait *c = wait_for(&told[2], 20, 1);
	ok_u64(counters[KVS_COUNTER_cold_loads], 6, "G: who finds no room for all holds nothing");
	let_read(6);
	ok(told[0] == 1 && told[1] == 0 && told[2] == 0, "nor does who came behind him go first");
	ok_u64(cold->bytes, 6 * VALUE_BYTES, "what stands in buffers is bounded");
	cold_wait_drop(a);
	ok_u64(cold_next_ns(cold), 0, "with room it is his turn");
	cold_turn(cold, now_ns);
	ok_u64(counters[KVS_COUNTER_cold_loads], 12, "and that of the next");
	let_read(6);
	ok(told[1] == 1 && told[2] == 1, "both get theirs");
	ok(is_value(ask(b, 5), 5) && is_value(ask(b, 9), 9), "A: each value");
	// What it held before is let go of as it has to stand in line for more.
	for (unsigned i = 30; i < 33; i++) {
		(void)ask(b, i);
	}
	cold_wait_begin(b);
	ok(cold->bytes <= 2 * VALUE_BYTES && told[1] == 1, "G: who wants more keeps nothing");
	cold_wait_drop(c);
	cold_turn(cold, now_ns);
	let_read(8);
	ok(told[1] == 2 && is_value(ask(b, 5), 5) && is_value(ask(b, 32), 32), "until all fit");
	cold_wait_drop(b);
	stop("in line");
}

static void test_too_much(void)
{
	unsigned told = 0;
	start();
	struct cold_wait *wait = cold_wait_create(cold, &told);
	(void)ask_bytes(wait, 1, 9000);
	ok(says(wait, ""), "one that is larger than all buffers may come");
	(void)ask(wait, 2);
	ok(says(wait, "ERR the values that this needs"), "G: two that do not fit never will");
	cold_wait_drop(wait);
	wait = cold_wait_create(cold, &told);
	for (unsigned i = 0; i < 40000; i++) {
		(void)ask_bytes(wait, VERSIONS + i, 0);
		if (i == 2000) {
			ok(wait->count == 1024 && says(wait, ""), "a thousand at a time");
		}
		wait->fresh = i < 2000 ? wait->fresh : 0; // as if it had waited
	}
	ok(wait->count == 16384 && says(wait, "ERR more than 16384 values"), "G: nor so many");
	cold_wait_drop(wait);
	stop("too much");
}

static void test_late(void)
{
	unsigned told = 0;
	start();
	struct cold_wait *wait = wait_for(&told, 1, 1);
	await_begun(1);
	ok_u64(cold_next_ns(cold), now_ns + 100 * MS, "a wait has an end");
	now_ns += 100 * MS;
	cold_turn(cold, now_ns);
	ok(told == 1 && ask(wait, 1) == NULL && says(wait, "TRYAGAIN"), "G: which is an error");
	cold_wait_drop(wait);
	ok_u64(cold->loads.count, 1, "what is being read goes on");
	let_read(1);
	ok_u64(writer.promoted, 0, "and is not put back for nobody");
	stop("late");
}

// Five are wanted, four threads read.
static void test_unwanted(void)
{
	unsigned told[5] = { 0 };
	struct cold_wait *wait[5];
	start();
	for (unsigned i = 0; i < 5; i++) {
		wait[i] = wait_for(&told[i], 1 + i, 1);
	}
	await_begun(COLD_THREADS);
	for (unsigned i = 0; i < 5; i++) {
		cold_wait_drop(wait[i]);
	}
	ok_u64(cold->loads.count, COLD_THREADS, "what nobody has begun is forgotten at once");
	let_read(COLD_THREADS);
	ok(disk.begun == COLD_THREADS && told[4] == 0, "and never read");
	stop("unwanted");
}

static void test_gone(void)
{
	unsigned told = 0;
	start();
	disk.result[1] = STORE_READ_GONE;
	struct cold_wait *wait = wait_for(&told, 1, 1);
	await_begun(1);
	writer.place = 90; // compaction was faster
	let_read(1);
	await_begun(2);
	ok(disk.last_place == 90 && told == 0, "what was moved is read at its new place, at once");
	let_read(1);
	ok(cold->awaited_ns != 0 || !TAILQ_EMPTY(&cold->awaited),
	   "where nothing is, it is awaited");
	now_ns += MS;
	cold_turn(cold, now_ns);
	await_begun(3);
	disk.result[1] = STORE_READ_SHUT;
	let_read(1);
	ok_u64(told, 0, "also while the store cannot be read");
	now_ns += MS;
	cold_turn(cold, now_ns);
	await_begun(4);
	disk.result[1] = STORE_OK;
	let_read(1);
	ok(told == 1 && is_value(ask(wait, 1), 1), "A: until it is there");
	cold_wait_drop(wait);
	disk.result[2] = STORE_READ_GONE;
	wait = wait_for(&told, 2, 1);
	await_begun(5);
	writer.has_stub = false;
	let_read(1);
	ok(told == 2 && counters[KVS_COUNTER_cold_load_errors] == 0,
	   "what was replaced meanwhile is asked for anew, and no error");
	cold_wait_drop(wait);
	disk.result[3] = STORE_NO_MEMORY;
	wait = wait_for(&told, 3, 1);
	let_read(1);
	ok(told == 3 && ask(wait, 3) == NULL && says(wait, "OOM"), "G: memory may be short");
	cold_wait_drop(wait);
	stop("gone");
}

// A large value is put back in slices: nobody waits for that.
static void test_slices(void)
{
	unsigned told[2] = { 0 };
	start();
	writer.slices = 3;
	struct cold_wait *a = wait_for(&told[0], 1, 1);
	let_read(1);
	ok(told[0] == 1 && is_value(ask(a, 1), 1), "who waits has it before it is back");
	cold_wait_drop(a);
	ok(writer.promoted == 0 && cold_next_ns(cold) == 0, "the rest comes in the next turns");
	ok_u64(cold->loads.count, 1, "until then it stays");
	struct cold_wait *b = wait_for(&told[1], 1, 1);
	ok(told[1] == 1 && is_value(ask(b, 1), 1) && counters[KVS_COUNTER_cold_loads] == 1,
	   "for others, too");
	now_ns += MS; // a turn has no time: a slice of it all the same
	for (unsigned turns = 0; turns < 5; turns++) {
		cold_turn(cold, now_ns);
	}
	ok(writer.promoted == 1 && counters[KVS_COUNTER_cold_promotions] == 1, "then it is back");
	ok(cold->loads.count == 1 && TAILQ_EMPTY(&cold->returning), "and stays for who has it");
	cold_wait_drop(b);
	writer.result = KEYSPACE_COLD_NO_ROOM;
	a = wait_for(&told[0], 2, 1);
	let_read(1);
	cold_wait_drop(a);
	writer.result = KEYSPACE_COLD_OTHER;
	a = wait_for(&told[0], 3, 1);
	let_read(1);
	cold_wait_drop(a);
	ok(counters[KVS_COUNTER_cold_promotions_declined] == 1 &&
		   counters[KVS_COUNTER_cold_promotions_void] == 1 &&
		   counters[KVS_COUNTER_cold_promotions] == 1,
	   "what does not come back counts, too");
	writer.slices = 100;
	a = wait_for(&told[0], 4, 1);
	let_read(1);
	cold_wait_drop(a);
	cold_stop(cold);
	(void)close(wake_fd);
	ok_u64(writer.dropped, 1, "a stop leaves no half");
	parcels = 0; // freed with it
}

int main(void)
{
	test_shared();
	test_line();
	test_too_much();
	test_late();
	test_unwanted();
	test_gone();
	test_slices();
	return tap_done();
}
