// SPDX-License-Identifier: MIT
//
// Readers that stop: four processes read in long sections and are stopped, by SIGSTOP or as a
// debugger does it, until kvd has taken their memory back, which the words in their slots tell;
// then that is overwritten, by poison and by other values, and they go on. A stop counts if it was
// inside a section that was revoked before the process went on.
//
//   B  bytes of a section that kvc_end calls good are whole and right, however long it was stopped
//   D  no write fails or waits much longer than the deadline, and kvd takes the memory back
//
// Arguments: light or fenced. Ends after KVD_TEST_STOPS stops (10), and not before
// KVD_TEST_SECONDS (0).
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libclient/kvclient.h"
#include "tests/lib/harness.h"
#include "tests/tap/tap.h"
#include "tests/torture/slot.h"
#include "tests/torture/value.h"

#define READERS 4u
#define KEYS 2000u
#define VIEWS_PER_SECTION 100u
#define PIPELINE 32u
#define STOP_MS_MAX 60000u // the deadline is 100 ms, the rest is for a busy machine
#define OVERWRITES 40u	   // pipelines after a revocation
#define SLOWEST_MS 20000u  // of a pipeline; the deadline is 100 ms, the rest is for a busy machine

struct tally {
	uint64_t good;
	uint64_t revoked;
	uint64_t garbage; // in sections that ended well
	uint64_t missed;
	uint64_t failed;
	int last_error;
};

static struct tally *tally;

static void add(uint64_t *word, uint64_t by)
{
	(void)__atomic_fetch_add(word, by, __ATOMIC_RELAXED);
}

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

// One long section; its findings count only if it ends well.
static void read_section(kvc_reader *reader, uint64_t *random)
{
	uint64_t garbage = 0, missed = 0, count;
	if (kvc_begin(reader) != KVC_OK) {
		add(&tally->failed, 1);
		return;
	}
	for (unsigned i = 0; i < VIEWS_PER_SECTION; i++) {
		char name[24];
		struct kvc_view view;
		uint64_t key = tap_random(random) % KEYS;
		size_t name_bytes = value_key(name, key);
		int status = kvc_view(reader, name, name_bytes, &view);
		// A revoked section may meet anything before it is told.
		missed += status != KVC_OK;
		garbage +=
			status == KVC_OK && !value_check(view.value, view.value_bytes, key, &count);
	}
	int status = kvc_end(reader);
	if (status == KVC_OK) {
		add(&tally->garbage, garbage);
		add(&tally->missed, missed);
		add(&tally->good, 1);
	} else if (status == KVC_REVOKED) {
		add(&tally->revoked, 1);
	} else {
		add(&tally->failed, 1);
		tally->last_error = status;
	}
}

static pid_t spawn_reader(const char *socket_path, bool fenced, uint64_t random)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid != 0) {
		return pid;
	}
	struct kvc_options options;
	kvc *client;
	kvc_reader *reader;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.flags = fenced ? KVC_OPEN_FENCED : 0;
	options.connect_timeout_ms = options.request_timeout_ms = 60000; // machines may be slow
	if (kvc_open(&client, &options) != KVC_OK || kvc_reader_open(client, &reader) != KVC_OK) {
		add(&tally->failed, 1);
		_exit(1);
	}
	for (;;) {
		read_section(reader, &random);
	}
}

struct writing {
	kvc *client;
	uint64_t random;
	uint64_t count;
	uint64_t writes;
	uint64_t refused;
	uint64_t slowest_ms;
};

// One pipeline of writes; `first` counts up through all keys, or UINT64_MAX for random ones.
static void write_pipeline(struct writing *w, uint64_t first)
{
	static unsigned char value[512];
	uint64_t start = now_ms();
	for (unsigned i = 0; i < PIPELINE; i++) {
		char name[24];
		uint64_t dice = tap_random(&w->random);
		uint64_t key = first == UINT64_MAX ? dice % KEYS : (first + i) % KEYS;
		size_t name_bytes = value_key(name, key);
		size_t bytes = VALUE_BYTES_MIN + (dice >> 32) % 400;
		value_fill(value, bytes, key, ++w->count);
		const void *argv[] = { "SET", name, value };
		size_t argv_bytes[] = { 3, name_bytes, bytes };
		w->refused += kvc_pipeline_append(w->client, 3, argv, argv_bytes) != KVC_OK;
	}
	for (unsigned i = 0; i < PIPELINE; i++) {
		const struct kvc_reply *reply;
		bool good = kvc_pipeline_reply(w->client, &reply) == KVC_OK &&
			    reply->type == KVC_REPLY_STATUS;
		w->refused += !good;
	}
	w->writes += PIPELINE;
	uint64_t took = now_ms() - start;
	w->slowest_ms = took > w->slowest_ms ? took : w->slowest_ms;
}

struct stops {
	unsigned inside;   // a section that was revoked before its process went on
	unsigned debugger; // of them
	unsigned outside;
	unsigned never; // revoked, though memory was wanted
	bool no_debugger;
};

// Stops a process as a debugger does; false if that is not permitted here.
static bool debugger_stop(pid_t pid)
{
	int status;
	return ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0 &&
	       ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0 &&
	       waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status);
}

static void go_on(pid_t pid, bool debugged)
{
	if (debugged) {
		(void)ptrace(PTRACE_DETACH, pid, NULL, NULL);
	} else {
		(void)kill(pid, SIGCONT);
	}
}

// Writes until every section that is open on these was revoked.
static bool write_until_revoked(struct writing *w, const pid_t *readers, const bool *inside)
{
	uint64_t until = now_ms() + STOP_MS_MAX;
	bool all = false;
	while (!all && now_ms() < until) {
		write_pipeline(w, UINT64_MAX);
		all = true;
		for (unsigned i = 0; i < READERS; i++) {
			all = all && (!inside[i] || slot_look(readers[i]).revoked);
		}
	}
	return all;
}

// All readers are stopped at once, half of the times by a debugger.
static void stop_all(struct writing *w, const pid_t *readers, struct stops *stops)
{
	bool debugged[READERS], inside[READERS];
	unsigned count = 0, by_debugger = 0;
	for (unsigned i = 0; i < READERS; i++) {
		debugged[i] = tap_random(&w->random) % 2 && !stops->no_debugger;
		if (debugged[i] && !debugger_stop(readers[i])) {
			stops->no_debugger = true;
			debugged[i] = false;
		}
		inside[i] = (debugged[i] || slot_stop(readers[i])) && slot_look(readers[i]).open;
		count += inside[i];
		by_debugger += inside[i] && debugged[i];
	}
	stops->outside += READERS - count;
	if (write_until_revoked(w, readers, inside)) {
		stops->inside += count;
		stops->debugger += by_debugger;
	} else {
		stops->never += count;
	}
	for (unsigned i = 0; i < OVERWRITES; i++) {
		write_pipeline(w, UINT64_MAX);
	}
	for (unsigned i = 0; i < READERS; i++) {
		go_on(readers[i], debugged[i]);
	}
	uint64_t until = now_ms() + 1 + tap_random(&w->random) % 20;
	do {
		write_pipeline(w, UINT64_MAX);
	} while (now_ms() < until);
}

// Some stood where a section has been announced and nothing was read in it, or behind the last look
// at what is revoked: they begin anew, or end, without being told.
static bool were_told(const struct stops *stops)
{
	return __atomic_load_n(&tally->revoked, __ATOMIC_RELAXED) * 2 >= stops->inside;
}

static void report(const struct writing *w, const struct stops *stops)
{
	tap_diag("%u stops inside a section (%u by a debugger%s), %u outside, %" PRIu64
		 " good sections, %" PRIu64 " revoked, %" PRIu64
		 " writes, slowest pipeline %" PRIu64 " ms",
		 stops->inside, stops->debugger, stops->no_debugger ? ", not permitted here" : "",
		 stops->outside, tally->good, tally->revoked, w->writes, w->slowest_ms);
	tap_diag("counted stops %u", stops->inside);
	ok_u64(stops->never, 0, "D: every section was revoked while its process stood still");
	ok(tally->good > 0, "sections ended well");
	ok(were_told(stops), "D: they were told so when they went on");
	ok_u64(tally->garbage, 0, "B: a section that ended well saw nothing but right values");
	ok_u64(tally->missed, 0, "A: and missed nothing");
	ok_u64(tally->failed, 0, "nothing else went wrong");
	ok_u64(w->refused, 0, "D: no write was refused");
	ok(w->slowest_ms < SLOWEST_MS, "D: none waited for long");
}

static bool any_good(void)
{
	return __atomic_load_n(&tally->good, __ATOMIC_RELAXED) > 0;
}

static uint64_t environment_number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

// The last that were stopped need a moment to be told.
static void settle(const struct stops *stops)
{
	uint64_t until = now_ms() + STOP_MS_MAX;
	struct timespec moment = { .tv_nsec = 1000000 };
	while (!were_told(stops) && now_ms() < until) {
		(void)nanosleep(&moment, NULL);
	}
}

int main(int argc, char **argv)
{
	bool fenced = argc > 1 && strcmp(argv[1], "fenced") == 0;
	uint64_t wanted = environment_number("KVD_TEST_STOPS", 10);
	uint64_t end_ms = now_ms() + environment_number("KVD_TEST_SECONDS", 0) * 1000;
	struct writing w = { .random = tap_seed(22) };
	tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (tally == MAP_FAILED) {
		printf("Bail out! no shared memory\n");
		return 99;
	}
	const char *const args[] = { "--memory", "4MiB",	 "--segment",
				     "64KiB",	 "--persist",	 "memory",
				     "--revoke", "100ms",	 "--revoke-min",
				     "30ms",	 "--write-wait", "30s",
				     NULL };
	struct harness *h = harness_new();
	harness_setenv(h, "KVD_FENCED", fenced ? "1" : NULL);
	harness_setenv(h, "KVD_POISON", "1");
	harness_launch(h, args);
	struct kvc_options options;
	kvc_options_init(&options);
	options.socket_path = harness_socket(h);
	options.flags = KVC_OPEN_SOCKET_ONLY;
	options.request_timeout_ms = 30000;
	ok_int(kvc_open(&w.client, &options), KVC_OK, "connect");
	for (uint64_t key = 0; key < KEYS; key += PIPELINE) {
		write_pipeline(&w, key);
	}
	pid_t readers[READERS];
	for (unsigned i = 0; i < READERS; i++) {
		readers[i] = spawn_reader(harness_socket(h), fenced, w.random + i);
	}
	struct stops stops = { 0 };
	while (stops.never == 0 && (stops.inside < wanted || now_ms() < end_ms || !any_good())) {
		stop_all(&w, readers, &stops);
	}
	settle(&stops);
	for (unsigned i = 0; i < READERS; i++) {
		(void)kill(readers[i], SIGKILL);
		(void)waitpid(readers[i], NULL, 0);
	}
	report(&w, &stops);
	(void)kvc_close(w.client);
	ok(harness_log_has(h, "has had a view open for"), "and kvd's log told who does that");
	ok_int(harness_stop(h), 0, "kvd stops cleanly");
	harness_free(h);
	return tap_done();
}
