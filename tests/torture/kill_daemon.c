// SPDX-License-Identifier: MIT
//
// kill -9 of kvd under load, again and again on the same data. Several connections write single
// values, removals and MULTI batches, pipelined, and remember in shared memory what they sent, in
// which order, and what was acknowledged. After each restart the keys of each connection must look
// exactly as after some prefix of what it sent, ending at a whole batch:
//
//   E  under group (and sync) that prefix contains everything acknowledged; under lazy everything
//   from
//      before the last KVD.SYNC that was answered
//   I  a batch is there whole or not at all
//
// Arguments: group, sync or lazy. KVD_TEST_SECONDS sets the duration (5).
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libclient/kvclient.h"
#include "tests/lib/harness.h"
#include "tests/tap/tap.h"
#include "tests/torture/value.h"

#define WRITERS 4u
#define KEYS 400u		  // of each writer
#define OPERATIONS_MAX (1u << 20) // of one writer in one round
#define BATCH_MAX 12u
#define PIPELINE_MAX 16u
#define VALUE_BYTES_MAX 30000u
#define ROUND_MS_MAX 400u
#define ACKNOWLEDGED_LEAST 50u // in each round
#define PATIENCE_MS 30000u

struct operation {
	uint16_t key;
	bool removal;
	bool ends_batch; // a prefix may end behind this operation
};

// One connection's diary, written by its process, read by the parent once that process is gone.
struct diary {
	uint64_t base; // count of the first operation of this round
	uint64_t before
		[KEYS]; // count that each key's value had at the start of the round, 0 = absent
	uint32_t sent;
	uint32_t acknowledged; // operations [0, acknowledged) were answered
	uint32_t synced;       // operations [0, synced) were answered by KVD.SYNC as durable
	uint32_t refused;
	struct operation operations[OPERATIONS_MAX];
};

struct writing {
	struct diary *diary;
	kvc *client;
	uint64_t random;
	unsigned number;
	bool lazy;
	uint32_t pipelined[PIPELINE_MAX *
			   (BATCH_MAX + 2)]; // operations that each awaited reply acknowledges
	unsigned pipelined_count;
	unsigned char value[VALUE_BYTES_MAX];
};

static uint64_t key_number(unsigned writer, unsigned key)
{
	return (uint64_t)writer * 100000 + key;
}

static void pause_ms(uint64_t ms)
{
	struct timespec time = { .tv_sec = (time_t)(ms / 1000),
				 .tv_nsec = (long)(ms % 1000) * 1000000 };
	(void)nanosleep(&time, NULL);
}

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

// Appends one command to the pipeline; its reply acknowledges the operations before `acknowledges`.
static void send_command(struct writing *w, uint32_t acknowledges, unsigned argc,
			 const void *const *argv, const size_t *argv_bytes)
{
	if (kvc_pipeline_append(w->client, (int)argc, argv, argv_bytes) != KVC_OK) {
		_exit(0); // kvd is gone: the round is over
	}
	w->pipelined[w->pipelined_count++] = acknowledges;
}

static void send_word(struct writing *w, uint32_t acknowledges, const char *word)
{
	const void *argv[] = { word };
	size_t bytes[] = { strlen(word) };
	send_command(w, acknowledges, 1, argv, bytes);
}

// Writes one operation into the diary, then sends it.
static void send_operation(struct writing *w, bool in_batch, bool ends_batch)
{
	struct diary *d = w->diary;
	uint64_t dice = tap_random(&w->random);
	unsigned key = (unsigned)(dice % KEYS);
	bool removal = (dice >> 16) % 8 == 0;
	uint32_t index = d->sent;
	char name[24];
	size_t name_bytes = value_key(name, key_number(w->number, key));
	d->operations[index] = (struct operation){ .key = (uint16_t)key,
						   .removal = removal,
						   .ends_batch = ends_batch };
	__atomic_store_n(&d->sent, index + 1, __ATOMIC_RELEASE);
	uint32_t acknowledges = in_batch ? 0 : index + 1;
	if (removal) {
		const void *argv[] = { "DEL", name };
		size_t bytes[] = { 3, name_bytes };
		send_command(w, acknowledges, 2, argv, bytes);
		return;
	}
	size_t value_bytes = VALUE_BYTES_MIN + (dice >> 24) % 400;
	if ((dice >> 40) % 300 == 0) {
		value_bytes = VALUE_BYTES_MAX - (dice >> 24) % 10000;
	}
	value_fill(w->value, value_bytes, key_number(w->number, key), d->base + index);
	const void *argv[] = { "SET", name, w->value, "PX", "1000000000" };
	size_t bytes[] = { 3, name_bytes, value_bytes, 2, 10 };
	send_command(w, acknowledges, (dice >> 50) % 4 == 0 ? 5 : 3, argv, bytes);
}

static void take_replies(struct writing *w)
{
	for (unsigned i = 0; i < w->pipelined_count; i++) {
		const struct kvc_reply *reply;
		if (kvc_pipeline_reply(w->client, &reply) != KVC_OK) {
			_exit(0);
		}
		if (reply->type == KVC_REPLY_ERROR) {
			w->diary->refused++;
			tap_diag("refused: %s", reply->text);
			_exit(1);
		}
		if (w->pipelined[i] > w->diary->acknowledged) {
			__atomic_store_n(&w->diary->acknowledged, w->pipelined[i],
					 __ATOMIC_RELEASE);
		}
	}
	w->pipelined_count = 0;
}

static void send_batch(struct writing *w)
{
	unsigned count = 2 + (unsigned)(tap_random(&w->random) % (BATCH_MAX - 1));
	send_word(w, 0, "MULTI");
	for (unsigned i = 0; i < count; i++) {
		send_operation(w, true, i + 1 == count);
	}
	send_word(w, w->diary->sent, "EXEC");
}

static void writer_process(struct writing *w, const char *socket_path)
{
	struct kvc_options options;
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.flags = KVC_OPEN_SOCKET_ONLY;
	options.connect_timeout_ms = options.request_timeout_ms = PATIENCE_MS;
	if (kvc_open(&w->client, &options) != KVC_OK) {
		_exit(1);
	}
	while (w->diary->sent + PIPELINE_MAX * BATCH_MAX < OPERATIONS_MAX) {
		unsigned commands = 1 + (unsigned)(tap_random(&w->random) % PIPELINE_MAX);
		for (unsigned i = 0; i < commands; i++) {
			if (tap_random(&w->random) % 4 == 0) {
				send_batch(w);
			} else {
				send_operation(w, false, true);
			}
		}
		take_replies(w);
		if (w->lazy && tap_random(&w->random) % 100 == 0) {
			if (kvc_sync(w->client) != KVC_OK) {
				_exit(0);
			}
			w->diary->synced = w->diary->acknowledged;
		}
	}
	_exit(0);
}

static pid_t spawn_writer(struct diary *diary, unsigned number, const char *socket_path, bool lazy,
			  uint64_t random)
{
	static struct writing w;
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		w = (struct writing){
			.diary = diary, .number = number, .lazy = lazy, .random = random + number
		};
		writer_process(&w, socket_path);
	}
	return pid;
}

// What the keys of one writer hold now: the count in each value, 0 = absent. Returns the number of
// values that are not whole.
static unsigned observe(kvc_reader *reader, unsigned writer, uint64_t *counts)
{
	static unsigned char value[VALUE_BYTES_MAX];
	unsigned broken = 0;
	for (unsigned key = 0; key < KEYS; key++) {
		char name[24];
		struct kvc_meta meta;
		size_t name_bytes = value_key(name, key_number(writer, key));
		int status = kvc_get(reader, name, name_bytes, value, sizeof(value), &meta);
		counts[key] = 0;
		if (status == KVC_OK) {
			broken += !value_check(value, meta.value_bytes, key_number(writer, key),
					       &counts[key]);
		} else if (status != KVC_NOT_FOUND) {
			broken++;
			tap_diag("get: %s", kvc_strerror(status));
		}
	}
	return broken;
}

// Is there a prefix of at least `least` operations, ending at a whole batch, after which the keys
// look like `counts`? Returns its length, or UINT32_MAX.
static uint32_t matching_prefix(const struct diary *d, uint32_t least, const uint64_t *counts)
{
	uint64_t expected[KEYS];
	unsigned different = 0;
	for (unsigned key = 0; key < KEYS; key++) {
		expected[key] = d->before[key];
		different += expected[key] != counts[key];
	}
	if (different == 0 && least == 0) {
		return 0;
	}
	for (uint32_t i = 0; i < d->sent; i++) {
		unsigned key = d->operations[i].key;
		different -= expected[key] != counts[key];
		expected[key] = d->operations[i].removal ? 0 : d->base + i;
		different += expected[key] != counts[key];
		if (different == 0 && i + 1 >= least && d->operations[i].ends_batch) {
			return i + 1;
		}
	}
	return UINT32_MAX;
}

struct totals {
	uint64_t rounds;
	uint64_t operations;
	uint64_t acknowledged;
	uint64_t lost; // acknowledged, but beyond the prefix that survived (allowed under lazy)
	unsigned broken;
	unsigned impossible; // no prefix matches
	unsigned too_short;  // a prefix matches, but it lacks something promised
	unsigned refused;
};

static void explain(const struct diary *d, const uint64_t *counts, uint32_t least)
{
	uint32_t shorter = matching_prefix(d, 0, counts);
	tap_diag("sent %u, acknowledged %u, promised %u, matches a prefix of %d", d->sent,
		 d->acknowledged, least, (int)shorter);
}

// Compares one writer's keys with its diary, and starts the diary of the next round.
static void verify(struct diary *d, kvc_reader *reader, unsigned writer, bool lazy,
		   struct totals *t)
{
	uint64_t counts[KEYS];
	t->broken += observe(reader, writer, counts);
	uint32_t least = lazy ? d->synced : d->acknowledged;
	uint32_t prefix = matching_prefix(d, least, counts);
	if (prefix == UINT32_MAX) {
		bool shorter = matching_prefix(d, 0, counts) != UINT32_MAX;
		t->too_short += shorter;
		t->impossible += !shorter;
		explain(d, counts, least);
	} else if (d->acknowledged > prefix) {
		t->lost += d->acknowledged - prefix;
	}
	t->operations += d->sent;
	t->acknowledged += d->acknowledged;
	t->refused += d->refused;
	memcpy(d->before, counts, sizeof(d->before));
	d->base += d->sent;
	d->sent = 0;
	d->acknowledged = 0;
	d->synced = 0;
	d->refused = 0;
}

static void verify_all(struct harness *h, struct diary *diaries, bool lazy, struct totals *t)
{
	struct kvc_options options;
	kvc *client;
	kvc_reader *reader;
	kvc_options_init(&options);
	options.socket_path = harness_socket(h);
	options.connect_timeout_ms = options.request_timeout_ms = PATIENCE_MS;
	if (kvc_open(&client, &options) != KVC_OK || kvc_reader_open(client, &reader) != KVC_OK) {
		printf("Bail out! cannot read\n");
		exit(99);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		verify(&diaries[i], reader, i, lazy, t);
	}
	(void)kvc_close(client);
}

static uint64_t acknowledged(const struct diary *diaries)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < WRITERS; i++) {
		sum += __atomic_load_n(&diaries[i].acknowledged, __ATOMIC_ACQUIRE);
	}
	return sum;
}

static void round_of_load(struct harness *h, struct diary *diaries, bool lazy, uint64_t *random)
{
	pid_t pids[WRITERS];
	for (unsigned i = 0; i < WRITERS; i++) {
		pids[i] = spawn_writer(&diaries[i], i, harness_socket(h), lazy, tap_random(random));
	}
	pause_ms(20 + tap_random(random) % ROUND_MS_MAX);
	for (unsigned i = 0; i < PATIENCE_MS && acknowledged(diaries) < ACKNOWLEDGED_LEAST; i++) {
		pause_ms(1); // on a slow machine nothing may have happened yet
	}
	harness_kill(h);
	for (unsigned i = 0; i < WRITERS; i++) {
		while (waitpid(pids[i], NULL, 0) < 0 && errno == EINTR) {
		}
	}
}

static void report(const struct totals *t, bool lazy)
{
	tap_diag("%" PRIu64 " kills, %" PRIu64 " operations sent, %" PRIu64
		 " acknowledged, %" PRIu64 " of them lost",
		 t->rounds, t->operations, t->acknowledged, t->lost);
	tap_diag("counted daemon-kills %" PRIu64, t->rounds);
	ok(t->rounds >= 3 && t->acknowledged >= t->rounds * ACKNOWLEDGED_LEAST,
	   "kvd was killed under load %" PRIu64 " times", t->rounds);
	ok_u64(t->broken, 0, "every value found is whole and in its place");
	ok_u64(t->impossible, 0, "I1: what is found is the state after a prefix of whole batches");
	ok_u64(t->too_short, 0,
	       lazy ? "E: with everything that KVD.SYNC vouched for"
		    : "E: with everything that was acknowledged");
	ok_u64(t->refused, 0, "no write was refused");
}

int main(int argc, char **argv)
{
	const char *policy = argc > 1 ? argv[1] : "group";
	bool lazy = strcmp(policy, "lazy") == 0;
	const char *text = getenv("KVD_TEST_SECONDS");
	uint64_t seconds = text != NULL ? strtoull(text, NULL, 10) : 5;
	uint64_t random = tap_seed(21);
	struct diary *diaries = mmap(NULL, WRITERS * sizeof(*diaries), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (diaries == MAP_FAILED) {
		printf("Bail out! no shared memory\n");
		return 99;
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		diaries[i].base = 1;
	}
	// Small enough that cleaner and compaction are busy while kvd is killed.
	const char *const args[] = { "--memory",
				     "24MiB",
				     "--segment",
				     "64KiB",
				     "--persist",
				     policy,
				     "--lazy-interval",
				     "100ms",
				     "--compact-floor",
				     "2MiB",
				     "--write-wait",
				     "60s",
				     NULL };
	struct harness *h = harness_start(args);
	struct totals totals = { 0 };
	for (uint64_t end = now_ms() + seconds * 1000; now_ms() < end || totals.rounds < 3;) {
		round_of_load(h, diaries, lazy, &random);
		harness_restart(h);
		totals.rounds++;
		verify_all(h, diaries, lazy, &totals);
	}
	report(&totals, lazy);
	ok_int(harness_stop(h), 0, "kvd stops cleanly");
	harness_restart(h);
	struct totals after = { 0 };
	verify_all(h, diaries, lazy, &after);
	ok(after.impossible + after.too_short + after.broken == 0, "E: and finds everything again");
	harness_free(h);
	return tap_done();
}
