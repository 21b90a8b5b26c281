// SPDX-License-Identifier: MIT
//
// libkvclient on a system that refuses: it opens, attaches, reads, writes, watches and closes while
// the n-th call that may fail does, for every n; kvd itself is well. Nothing crashes or hangs;
// what a call says happened did, and what it refuses has a reason; no descriptor and no memory is
// left; and the next time, when nothing fails, everything works.
#include <dirent.h>
#include <poll.h>
#include <time.h>

#include "libclient/kvclient.h"
#include "tests/crash/faults.h"
#include "tests/lib/harness.h"
#include "tests/tap/tap.h"

#define VALUE_BYTES 5000u
#define ASYNC_MS_MAX 60000u

static struct faults page;
static char value[VALUE_BYTES];
static const char *socket_path;
static char wrong[512]; // the first thing that was, in this run

__attribute__((format(printf, 1, 2))) static void find(const char *format, ...)
{
	va_list args;
	if (wrong[0] == '\0') {
		va_start(args, format);
		(void)vsnprintf(wrong, sizeof(wrong), format, args);
		va_end(args);
	}
}

static uint64_t now_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

// Is this what a call may say when the system refuses it something? Never that kvd or the region is
// wrong, for they are not.
static bool is_refusal(int status)
{
	switch (status) {
	case KVC_UNREACHABLE:
	case KVC_TIMEOUT:
	case KVC_UNKNOWN:
	case KVC_NO_MEMORY:
	case KVC_SYSTEM:
	case KVC_BUSY:
	case KVC_CANCELLED:
		return true;
	default:
		return false;
	}
}

// `status` of `what`: OK, or a refusal in a run where something failed.
static bool succeeded(const char *what, int status)
{
	if (status == KVC_OK) {
		return true;
	}
	if (!is_refusal(status)) {
		find("%s says: %s", what, kvc_strerror(status));
	} else if (page.failed == 0) {
		find("%s says %s, and nothing had failed", what, kvc_strerror(status));
	}
	return false;
}

static void read_all(kvc_reader *reader)
{
	char buffer[VALUE_BYTES];
	void *copy = NULL;
	struct kvc_meta meta;
	if (succeeded("kvc_get", kvc_get(reader, "k", 1, buffer, sizeof(buffer), &meta)) &&
	    (meta.value_bytes != VALUE_BYTES || memcmp(buffer, value, VALUE_BYTES) != 0)) {
		find("kvc_get has another value");
	}
	if (succeeded("kvc_get_alloc", kvc_get_alloc(reader, "k", 1, &copy, &meta)) &&
	    memcmp(copy, value, VALUE_BYTES) != 0) {
		find("kvc_get_alloc has another value");
	}
	free(copy);
	int status = kvc_get(reader, "absent", 6, buffer, sizeof(buffer), &meta);
	if (status != KVC_NOT_FOUND) {
		(void)succeeded("kvc_get of nothing", status);
		if (status == KVC_OK) {
			find("kvc_get found what is not there");
		}
	}
	if (succeeded("kvc_begin", kvc_begin(reader))) {
		struct kvc_view view;
		bool seen = succeeded("kvc_view", kvc_view(reader, "k", 1, &view)) &&
			    view.value_bytes == VALUE_BYTES &&
			    memcmp(view.value, value, VALUE_BYTES) == 0;
		if (succeeded("kvc_end", kvc_end(reader)) && !seen && page.failed == 0) {
			find("kvc_view has another value");
		}
	}
	struct kvc_item items[2] = {
		{ .key = "k", .key_bytes = 1, .buffer = buffer, .buffer_bytes = sizeof(buffer) },
		{ .key = "absent", .key_bytes = 6 },
	};
	if (succeeded("kvc_get_many", kvc_get_many(reader, items, 2, KVC_GET_SNAPSHOT)) &&
	    items[0].status == KVC_NOT_FOUND) {
		find("kvc_get_many does not find what is there");
	}
}

// A write that was acknowledged is seen.
static void write_some(kvc *client, kvc_reader *reader)
{
	char text[32];
	char found[32] = "";
	static unsigned number;
	int length = snprintf(text, sizeof(text), "%u", ++number);
	int64_t sum;
	struct kvc_meta meta;
	if (succeeded("kvc_set", kvc_set(client, "w", 1, text, (size_t)length, NULL, NULL)) &&
	    succeeded("kvc_get of it", kvc_get(reader, "w", 1, found, sizeof(found) - 1, &meta)) &&
	    strcmp(found, text) != 0) {
		find("kvc_get says %s after kvc_set of %s", found, text);
	}
	(void)succeeded("kvc_increment", kvc_increment(client, "n", 1, 1, &sum));
	kvc_batch *batch = NULL;
	if (succeeded("kvc_batch_new", kvc_batch_new(&batch))) {
		int status = kvc_batch_set(batch, "b", 1, value, VALUE_BYTES, 0);
		if (succeeded("kvc_batch_set", status)) {
			(void)succeeded("kvc_batch_commit", kvc_batch_commit(client, batch));
		}
		kvc_batch_free(batch);
	}
	(void)succeeded("kvc_sync", kvc_sync(client));
}

// ---- without waiting ----------------------------------------------------------------------------

struct completions {
	unsigned wanted;
	unsigned called;
	unsigned events;
};

static void done(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct completions *completions = user;
	(void)async;
	completions->called++;
	if (succeeded("a completion", result->status) && result->value != NULL &&
	    (result->value_bytes != VALUE_BYTES ||
	     memcmp(result->value, value, VALUE_BYTES) != 0)) {
		find("a completion has another value");
	}
}

static void watched(kvc_async *async, void *user, enum kvc_watch_event event, const void *key,
		    size_t key_bytes)
{
	struct completions *completions = user;
	(void)async;
	(void)event;
	(void)key;
	(void)key_bytes;
	completions->events++;
}

static void dispatch(kvc_async *async, struct completions *completions, bool watches)
{
	uint64_t end_ms = now_ms() + ASYNC_MS_MAX;
	while (completions->called < completions->wanted || (watches && completions->events == 0)) {
		struct pollfd set = { .fd = kvc_async_fd(async), .events = POLLIN };
		int wait_ms = kvc_async_timeout_ms(async);
		if (now_ms() > end_ms) {
			find("%u of %u completions were called, %u events told",
			     completions->called, completions->wanted, completions->events);
			return;
		}
		wait_ms = wait_ms < 0 || wait_ms > 500 ? 500 : wait_ms;
		(void)poll(&set, 1, wait_ms); // may fail for ever: then without waiting
		(void)succeeded("kvc_async_dispatch", kvc_async_dispatch(async));
	}
}

static void without_waiting(const struct kvc_options *options)
{
	struct completions completions = { 0 };
	kvc_async *async = NULL;
	kvc_watch *watch = NULL;
	if (!succeeded("kvc_async_open", kvc_async_open(&async, options, NULL))) {
		return;
	}
	bool watches = succeeded("kvc_watch_open",
				 kvc_watch_open(async, "w", 1, 0, watched, &completions, &watch));
	completions.wanted +=
		succeeded("kvc_async_set", kvc_async_set(async, "a", 1, value, VALUE_BYTES, NULL,
							 done, &completions, NULL));
	completions.wanted +=
		succeeded("kvc_async_get", kvc_async_get(async, "k", 1, done, &completions, NULL));
	dispatch(async, &completions, watches);
	(void)succeeded("kvc_watch_close", kvc_watch_close(watch));
	(void)succeeded("kvc_async_close", kvc_async_close(async));
}

// ---- runs ---------------------------------------------------------------------------------------

static void use(void)
{
	char error_text[512] = "";
	struct kvc_options options;
	kvc *client = NULL;
	kvc_reader *reader = NULL;
	kvc_options_init(&options);
	options.socket_path = socket_path;
	options.name = "faults";
	options.error_text = error_text;
	options.error_text_bytes = sizeof(error_text);
	options.reconnect_min_ms = 1;
	options.reconnect_max_ms = 4;
	if (!succeeded("kvc_open", kvc_open(&client, &options))) {
		if (error_text[0] == '\0') {
			find("kvc_open says nothing");
		}
	} else if (succeeded("kvc_reader_open", kvc_reader_open(client, &reader))) {
		read_all(reader);
		write_some(client, reader);
		(void)succeeded("kvc_reader_close", kvc_reader_close(reader));
	}
	if (client != NULL) {
		(void)succeeded("kvc_close", kvc_close(client));
	}
	without_waiting(&options);
}

static unsigned descriptors(void)
{
	unsigned count = 0;
	DIR *folder = opendir("/proc/self/fd");
	while (folder != NULL && readdir(folder) != NULL) {
		count++;
	}
	if (folder != NULL) {
		(void)closedir(folder);
	}
	return count;
}

// One run with the n-th call failing. Returns whether there were so many.
static bool run(uint64_t number, uint64_t count, uint64_t seed)
{
	unsigned fds = descriptors();
	int64_t blocks = page.blocks;
	wrong[0] = '\0';
	page.calls = page.failed = 0;
	page.fail_at = number;
	page.fail_count = count;
	page.seed = seed;
	page.armed = 1;
	use();
	page.armed = 0;
	bool failed = page.failed > 0;
	if (page.blocks != blocks) {
		find("%lld blocks of memory are left", (long long)(page.blocks - blocks));
	}
	if (descriptors() != fds) {
		find("%u descriptors, %u before", descriptors(), fds);
	}
	page.failed = 0;
	if (wrong[0] == '\0') {
		use();
	}
	if (wrong[0] != '\0') {
		tap_diag("call %llu, %s() from %s+0x%llx, error %d: %s", (unsigned long long)number,
			 page.name, page.module, (unsigned long long)page.where, (int)page.error,
			 wrong);
	}
	return failed;
}

int main(void)
{
	const char *const args[] = { "--memory", "16MiB", "--persist", "group", NULL };
	uint64_t seed = tap_seed(1);
	struct harness *kvd = harness_start(args);
	socket_path = harness_socket(kvd);
	memset(value, 'v', sizeof(value));
	struct harness_connection *connection = harness_connect(kvd);
	const void *const set[] = { "SET", "k", value };
	const size_t set_bytes[] = { 3, 1, VALUE_BYTES };
	ok_str(harness_command_argv(connection, 3, set, set_bytes, NULL), "+OK\r\n", "a value");
	harness_disconnect(connection);
	use(); // whatever is made once is there
	faults = &page;
	(void)run(0, 0, seed);
	ok(wrong[0] == '\0', "%llu calls that may fail, none does: %s",
	   (unsigned long long)page.calls, wrong);
	uint64_t injected = 0;
	static const uint64_t counts[] = { 1, 2, 1000000 };
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		unsigned bad = 0;
		uint64_t number = 1;
		while (run(number, counts[i], seed) && bad < 10) {
			bad += wrong[0] != '\0';
			number++;
		}
		injected += number - 1;
		ok_u64(bad, 0, "each of %llu calls fails, and %llu more behind it",
		       (unsigned long long)number - 1, (unsigned long long)counts[i] - 1);
	}
	tap_diag("counted faults-injected %llu", (unsigned long long)injected);
	faults = NULL;
	ok_int(harness_stop(kvd), 0, "kvd was well all the time");
	harness_free(kvd);
	return tap_done();
}
