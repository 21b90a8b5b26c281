// SPDX-License-Identifier: MIT
//
// The asynchronous form against the real kvd: one of each request, seen by a reader of the mapping,
// and increments by the thousand while kvd is killed and comes back. A: what was answered is
// visible at once. E: what was answered is counted after every death; UNKNOWN may be, and
// UNREACHABLE is not.
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "libclient/kvclient.h"
#include "tests/lib/harness.h"
#include "tests/tap/tap.h"

#define ROUNDS 6u
#define UNDER_WAY 500u
#define ANSWERS 3000u // of each life of kvd before it is killed

static kvc_async *open_async(const struct harness *h)
{
	kvc_async *async;
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = harness_socket(h),
				       .name = "async",
				       .reconnect_max_ms = 20 };
	if (kvc_async_open(&async, &options, NULL) != KVC_OK) {
		printf("Bail out! no handle\n");
		exit(99);
	}
	return async;
}

static void turn(kvc_async *async)
{
	struct pollfd poll_fd = { .fd = kvc_async_fd(async), .events = POLLIN };
	(void)poll(&poll_fd, 1, kvc_async_timeout_ms(async));
	(void)kvc_async_dispatch(async);
}

struct seen {
	int status;
	uint64_t version;
	int64_t integer;
	char text[256];
	kvc_reader *reader; // looked into when the completion is called
	int visible;
};

static void see(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct seen *seen = user;
	(void)async;
	seen->status = result->status;
	seen->version = result->version;
	seen->integer = result->integer;
	(void)snprintf(seen->text, sizeof(seen->text), "%.*s", (int)result->value_bytes,
		       result->value ? (const char *)result->value : "");
	if (seen->reader) {
		struct kvc_meta meta;
		seen->visible = kvc_get(seen->reader, "k", 1, NULL, 0, &meta) == KVC_TRUNCATED &&
				meta.version == result->version;
	}
}

static void test_each(kvc_async *async, kvc_reader *reader)
{
	struct seen seen[8] = { { .reader = reader } };
	struct kvc_set_options options = { .struct_bytes = sizeof(options),
					   .flags = KVC_SET_IF_VERSION };
	kvc_batch *batch;
	(void)kvc_async_set(async, "k", 1, "one", 3, NULL, see, &seen[0], NULL);
	(void)kvc_async_set(async, "k", 1, "two", 3, &options, see, &seen[1], NULL);
	(void)kvc_async_get(async, "k", 1, see, &seen[2], NULL);
	(void)kvc_async_increment(async, "k", 1, 1, see, &seen[3], NULL);
	(void)kvc_async_increment(async, "n", 1, 41, see, &seen[4], NULL);
	(void)kvc_async_expire(async, "none", 4, -1, see, &seen[5], NULL);
	(void)kvc_async_delete(async, "none", 4, see, &seen[6], NULL);
	(void)kvc_async_sync(async, see, &seen[7], NULL);
	while (kvc_async_pending(async) > 0) {
		turn(async);
	}
	ok(seen[0].status == KVC_OK && seen[0].visible, "A: set, visible in its completion");
	ok_int(seen[1].status, KVC_NOT_APPLIED, "set, another version");
	ok(seen[2].status == KVC_OK && strcmp(seen[2].text, "one") == 0 &&
		   seen[2].version == seen[0].version,
	   "get");
	ok_int(seen[3].status, KVC_NOT_NUMBER, "increment of no number");
	ok(seen[4].status == KVC_OK && seen[4].integer == 41, "increment");
	ok(seen[5].status == KVC_NOT_FOUND && seen[6].status == KVC_NOT_FOUND, "no such key");
	ok_int(seen[7].status, KVC_OK, "sync");
	(void)kvc_batch_new(&batch);
	(void)kvc_batch_increment(batch, "n", 1, 1);
	(void)kvc_batch_delete(batch, "k", 1);
	(void)kvc_async_commit(async, batch, see, &seen[0], NULL);
	(void)kvc_batch_set(batch, "s", 1, "text", 4, 0);
	(void)kvc_batch_increment(batch, "s", 1, 1);
	(void)kvc_async_commit(async, batch, see, &seen[1], NULL);
	kvc_batch_free(batch);
	seen[0].reader = NULL;
	while (kvc_async_pending(async) > 0) {
		turn(async);
	}
	ok_int(seen[0].status, KVC_OK, "a batch");
	ok_int(seen[1].status, KVC_NOT_NUMBER, "a batch with an error in it");
	char text[8];
	struct kvc_meta meta;
	ok(kvc_get(reader, "n", 1, text, 8, &meta) == KVC_OK && meta.value_bytes == 2 &&
		   memcmp(text, "43", 2) == 0,
	   "A: both are visible");
}

/// Increments and what became of them.
struct count {
	uint64_t answered, unknown, unreachable, other;
};

static void counted(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct count *count = user;
	(void)async;
	count->answered += result->status == KVC_OK;
	count->unknown += result->status == KVC_UNKNOWN;
	count->unreachable += result->status == KVC_UNREACHABLE;
	count->other += result->status != KVC_OK && result->status != KVC_UNKNOWN &&
			result->status != KVC_UNREACHABLE;
}

// What a kvd that was stopped cannot answer any more.
static void leave_under_way(const struct harness *h, kvc_async *async, struct count *count)
{
	siginfo_t info;
	(void)kill(harness_pid(h), SIGSTOP);
	(void)waitid(P_PID, (id_t)harness_pid(h), &info, WSTOPPED);
	for (unsigned i = 0; i < UNDER_WAY; i++) {
		(void)kvc_async_increment(async, "counter", 7, 1, counted, count, NULL);
	}
	(void)kvc_async_dispatch(async);
}

static void test_deaths(struct harness *h, kvc_async *async)
{
	struct count count = { 0 };
	struct seen seen = { .status = 1 };
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t until = count.answered + ANSWERS;
		while (count.answered < until) {
			for (size_t n = kvc_async_pending(async); n < UNDER_WAY; n++) {
				(void)kvc_async_increment(async, "counter", 7, 1, counted, &count,
							  NULL);
			}
			turn(async);
		}
		if (round % 2 == 0) {
			leave_under_way(h, async, &count);
		}
		harness_kill(h);
		while (kvc_async_pending(async) > 0) {
			turn(async);
		}
		harness_restart(h);
	}
	while (seen.status != KVC_OK) {
		(void)kvc_async_increment(async, "counter", 7, 0, see, &seen, NULL);
		turn(async);
	}
	while (kvc_async_pending(async) > 0) {
		turn(async);
	}
	uint64_t sum = (uint64_t)seen.integer;
	ok(sum >= count.answered && sum <= count.answered + count.unknown,
	   "E: %u deaths: %" PRIu64 " answered, %" PRIu64 " unknown, %" PRIu64
	   " unreachable, counted %" PRIu64,
	   ROUNDS, count.answered, count.unknown, count.unreachable, sum);
	ok(count.unknown > 0 && count.other == 0, "some were under way, nothing else happened");
}

int main(void)
{
	const char *const args[] = { "--persist", "group", NULL };
	struct harness *h = harness_start(args);
	kvc *client;
	kvc_reader *reader;
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = harness_socket(h) };
	if (kvc_open(&client, &options) != KVC_OK || kvc_reader_open(client, &reader) != KVC_OK) {
		printf("Bail out! no client\n");
		return 99;
	}
	kvc_async *async = open_async(h);
	test_each(async, reader);
	test_deaths(h, async);
	ok_int(kvc_async_close(async), KVC_OK, "close");
	(void)kvc_close(client);
	ok_int(harness_stop(h), 0, "kvd ends well");
	harness_free(h);
	return tap_done();
}
