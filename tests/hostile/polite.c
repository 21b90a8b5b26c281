// SPDX-License-Identifier: MIT
//
// The client that must not be hurt. It reads through the mapping and the socket and writes, each at
// a fixed rate on a thread of its own, whatever became of the request before (open loop: a wait
// counts from when the request was due), and checks every value: its keys are written by nobody
// else. Commands come by standard input, one line each, answers go to standard output.
//   run SECONDS GETS SETS   so long, or until another line comes: a line of JSON with the waits in
//                           nanoseconds and what was found
//   visit                   "ok" if a new client can attach, write and read what it wrote
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "libclient/kvclient.h"
#include "shm/atomics.h"

#define STABLE_KEYS 1000u
#define WAITS_MAX (1u << 22)
#define VALUE_BYTES 64u
#define LINE_BYTES 128u

static uint64_t stop; // the run is over early

struct worker {
	const char *socket_path;
	bool writes;
	uint64_t until_ns;
	uint64_t every_ns;
	uint64_t *waits;
	size_t count;
	uint64_t wrong, failed;
	char why[160]; // of the first failure
};

static uint64_t now_ns(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now); // cannot fail with such arguments
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void wait_until(uint64_t due_ns)
{
	struct timespec due = { .tv_sec = (time_t)(due_ns / UINT64_C(1000000000)),
				.tv_nsec = (long)(due_ns % UINT64_C(1000000000)) };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) != 0) {
	}
}

static int client_open(const char *socket_path, kvc **client, kvc_reader **reader)
{
	struct kvc_options options;
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.name = "polite";
	options.request_timeout_ms = 10000;
	int status = kvc_open(client, &options);
	if (status != KVC_OK) {
		return status;
	}
	status = kvc_reader_open(*client, reader);
	if (status != KVC_OK) {
		(void)kvc_close(*client);
	}
	return status;
}

/// What stands in a stable key for ever.
static void stable(unsigned index, char key[static 32], char value[static VALUE_BYTES])
{
	(void)snprintf(key, 32, "polite:stable:%u", index);
	memset(value, 'a' + (int)(index % 26), VALUE_BYTES);
}

static int preload(kvc *client)
{
	for (unsigned i = 0; i < STABLE_KEYS; i++) {
		char key[32], value[VALUE_BYTES];
		stable(i, key, value);
		int status = kvc_set(client, key, strlen(key), value, sizeof(value), NULL, NULL);
		if (status != KVC_OK) {
			return status;
		}
	}
	return KVC_OK;
}

static void note(struct worker *w, int status, const char *what, const char *text)
{
	if (w->failed++ == 0) {
		(void)snprintf(w->why, sizeof(w->why), "%s: %s (%.80s)", what, kvc_strerror(status),
			       text);
	}
}

static void get_once(struct worker *w, kvc_reader *reader, uint64_t number)
{
	char key[32], value[VALUE_BYTES], got[VALUE_BYTES];
	struct kvc_meta meta;
	stable((unsigned)(number * 7919 % STABLE_KEYS), key, value);
	int status = kvc_get(reader, key, strlen(key), got, sizeof(got), &meta);
	if (status != KVC_OK) {
		note(w, status, "get", kvc_reader_error_text(reader));
	} else {
		w->wrong += meta.value_bytes != sizeof(value) ||
			    memcmp(got, value, sizeof(value)) != 0 ||
			    (meta.flags & KVC_META_SOCKET) != 0;
	}
}

static void set_once(struct worker *w, kvc *client, kvc_reader *reader, uint64_t number)
{
	char key[32], value[32] = { 0 }, got[32] = { 0 };
	(void)snprintf(key, sizeof(key), "polite:own:%d:%u", (int)getpid(),
		       (unsigned)(number % 64));
	(void)snprintf(value, sizeof(value), "%" PRIu64, number);
	int status = kvc_set(client, key, strlen(key), value, sizeof(value), NULL, NULL);
	if (status != KVC_OK) {
		note(w, status, "set", kvc_error_text(client));
		return;
	}
	status = kvc_get(reader, key, strlen(key), got, sizeof(got), NULL);
	if (status != KVC_OK) {
		note(w, status, "get of what was set", kvc_reader_error_text(reader));
	} else {
		w->wrong += memcmp(got, value, sizeof(value)) != 0;
	}
}

static void *work(void *context)
{
	struct worker *w = context;
	kvc *client;
	kvc_reader *reader;
	int status = client_open(w->socket_path, &client, &reader);
	(void)prctl(PR_SET_TIMERSLACK, 1);
	if (status != KVC_OK) {
		note(w, status, "open", "");
		return NULL;
	}
	uint64_t due_ns = now_ns();
	// Relaxed: a flag that stands for itself (partner: run()).
	for (uint64_t i = 0; w->count < WAITS_MAX && !kvs_load_relaxed(&stop); i++) {
		due_ns += w->every_ns;
		if (due_ns > w->until_ns) {
			break;
		}
		wait_until(due_ns);
		if (w->writes) {
			set_once(w, client, reader, i);
		} else {
			get_once(w, reader, i);
		}
		w->waits[w->count++] = now_ns() - due_ns;
	}
	status = kvc_close(client);
	if (status != KVC_OK) {
		note(w, status, "close", "");
	}
	return NULL;
}

static int by_size(const void *left, const void *right)
{
	const uint64_t *a = left, *b = right;
	return (*a > *b) - (*a < *b);
}

static void tell(const char *name, struct worker *w)
{
	static const double parts[] = { 0.5, 0.99, 0.999, 1 };
	qsort(w->waits, w->count, sizeof(w->waits[0]), by_size);
	printf("\"%s\": {\"count\": %zu, \"wrong\": %" PRIu64 ", \"failed\": %" PRIu64
	       ", \"why\": \"%s\", \"waits_ns\": [",
	       name, w->count, w->wrong, w->failed, w->why);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		size_t at = w->count ? (size_t)((double)(w->count - 1) * parts[i]) : 0;
		printf("%s%" PRIu64, i ? ", " : "", w->count ? w->waits[at] : 0);
	}
	printf("]}");
}

static void run(const char *socket_path, double seconds, unsigned gets, unsigned sets)
{
	uint64_t until_ns = now_ns() + (uint64_t)(seconds * 1e9);
	stop = 0;
	struct worker workers[2] = { { .every_ns = UINT64_C(1000000000) / gets },
				     { .every_ns = UINT64_C(1000000000) / sets, .writes = true } };
	pthread_t threads[2];
	for (unsigned i = 0; i < 2; i++) {
		workers[i].socket_path = socket_path;
		workers[i].until_ns = until_ns;
		workers[i].waits = calloc(WAITS_MAX, sizeof(uint64_t));
		if (!workers[i].waits ||
		    pthread_create(&threads[i], NULL, work, &workers[i]) != 0) {
			abort();
		}
	}
	struct pollfd told = { .fd = STDIN_FILENO, .events = POLLIN };
	if (poll(&told, 1, (int)(seconds * 1000)) > 0) {
		kvs_store_release(&stop, 1); // partner: work()
		char line[LINE_BYTES];
		(void)!fgets(line, sizeof(line), stdin); // that it came is all
	}
	for (unsigned i = 0; i < 2; i++) {
		(void)pthread_join(threads[i], NULL);
	}
	printf("{");
	tell("get", &workers[0]);
	printf(", ");
	tell("set", &workers[1]);
	printf("}\n");
	free(workers[0].waits);
	free(workers[1].waits);
}

/// A client that comes now must be served as one that was there before.
static void visit(const char *socket_path)
{
	static uint64_t number;
	struct worker w = { .socket_path = socket_path };
	kvc *client;
	kvc_reader *reader;
	int status = client_open(socket_path, &client, &reader);
	if (status != KVC_OK) {
		printf("open: %s\n", kvc_strerror(status));
		return;
	}
	bool mapped = kvc_is_mapped(client) == 1;
	get_once(&w, reader, number);
	set_once(&w, client, reader, number++);
	status = kvc_close(client);
	if (!mapped || w.wrong || w.failed || status != KVC_OK) {
		printf("mapped %d, wrong %" PRIu64 ", failed %" PRIu64 ": %s, close: %s\n", mapped,
		       w.wrong, w.failed, w.why, kvc_strerror(status));
	} else {
		printf("ok\n");
	}
}

int main(int argc, char **argv)
{
	char line[LINE_BYTES];
	kvc *client;
	kvc_reader *reader;
	if (argc != 2) {
		return 2;
	}
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	int status = client_open(argv[1], &client, &reader);
	status = status == KVC_OK ? preload(client) : status;
	printf("%s\n", kvc_strerror(status));
	(void)fflush(stdout);
	while (status == KVC_OK && fgets(line, sizeof(line), stdin)) {
		double seconds;
		unsigned gets, sets;
		if (sscanf(line, "run %lf %u %u", &seconds, &gets, &sets) == 3 && gets && sets) {
			run(argv[1], seconds, gets, sets);
		} else {
			visit(argv[1]);
		}
		(void)fflush(stdout);
	}
	return status != KVC_OK;
}
