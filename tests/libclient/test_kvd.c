// SPDX-License-Identifier: MIT
//
// The library against the real kvd: every function once in earnest, by mapping and by socket, and
// through deaths and restarts of kvd. A: visible, also across restarts. F: reads survive kvd.
// I: batches are whole.
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libclient/kvclient.h"
#include "tests/lib/harness.h"
#include "tests/tap/tap.h"

#define SOON_NS UINT64_C(30000000000)

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static kvc *open_client(const struct harness *h, uint32_t flags, kvc_reader **reader)
{
	kvc *client;
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = harness_socket(h),
				       .name = "test_kvd",
				       .flags = flags };
	if (!ok(kvc_open(&client, &options) == KVC_OK, "open") ||
	    !ok(kvc_reader_open(client, reader) == KVC_OK, "reader")) {
		printf("Bail out! no client\n");
		exit(99);
	}
	return client;
}

static int set(kvc *client, const char *key, const char *value)
{
	return kvc_set(client, key, strlen(key), value, strlen(value), NULL, NULL);
}

static bool has(kvc_reader *reader, const char *key, const char *value)
{
	char buffer[256];
	struct kvc_meta meta;
	return kvc_get(reader, key, strlen(key), buffer, sizeof(buffer), &meta) == KVC_OK &&
	       meta.value_bytes == strlen(value) && memcmp(buffer, value, meta.value_bytes) == 0;
}

static int absent(kvc_reader *reader, const char *key)
{
	return kvc_get(reader, key, strlen(key), NULL, 0, NULL) == KVC_NOT_FOUND;
}

static void test_set(kvc *client, kvc_reader *reader)
{
	struct kvc_set_options options = { .struct_bytes = sizeof(options) };
	struct kvc_meta meta;
	uint64_t version = 0, newer = 0;
	ok_int(kvc_set(client, "k", 1, "one", 3, NULL, &version), KVC_OK, "set");
	ok(has(reader, "k", "one"), "A: visible at once");
	options.flags = KVC_SET_IF_ABSENT;
	ok_int(kvc_set(client, "k", 1, "x", 1, &options, NULL), KVC_NOT_APPLIED,
	       "if absent: it is not");
	ok_int(kvc_set(client, "new", 3, "x", 1, &options, NULL), KVC_OK, "if absent: it is");
	options.flags = KVC_SET_IF_PRESENT;
	ok_int(kvc_set(client, "none", 4, "x", 1, &options, NULL), KVC_NOT_APPLIED,
	       "if present: it is not");
	ok_int(kvc_set(client, "new", 3, "y", 1, &options, NULL), KVC_OK, "if present: it is");
	options.flags = KVC_SET_IF_VERSION;
	options.version = version;
	ok_int(kvc_set(client, "k", 1, "two", 3, &options, &newer), KVC_OK, "if version");
	ok(newer > version, "the version grows");
	ok_int(kvc_set(client, "k", 1, "three", 5, &options, NULL), KVC_NOT_APPLIED,
	       "if an old version");
	options.version = 0;
	ok_int(kvc_set(client, "k", 1, "three", 5, &options, NULL), KVC_NOT_APPLIED,
	       "version 0: only if absent");
	ok_int(kvc_set(client, "k0", 2, "three", 5, &options, NULL), KVC_OK, "version 0: it is");
	ok(has(reader, "k", "two"), "what stands");
	options = (struct kvc_set_options){ .struct_bytes = sizeof(options), .ttl_ms = 3600000 };
	ok_int(kvc_set(client, "t", 1, "x", 1, &options, NULL), KVC_OK, "with a time to live");
	(void)kvc_get(reader, "t", 1, NULL, 0, &meta);
	ok(meta.ttl_ms > 3500000 && meta.ttl_ms <= 3600020, "which it has");
	options.ttl_ms = 0;
	options.flags = KVC_SET_KEEP_TTL;
	ok_int(kvc_set(client, "t", 1, "y", 1, &options, NULL), KVC_OK, "kept");
	(void)kvc_get(reader, "t", 1, NULL, 0, &meta);
	ok(meta.ttl_ms > 3500000, "by the next value");
	ok_int(kvc_expire(client, "t", 1, -1), KVC_OK, "expiry removed");
	ok_int(kvc_expire(client, "t", 1, -1), KVC_OK, "there is none, but the key");
	(void)kvc_get(reader, "t", 1, NULL, 0, &meta);
	ok_int(meta.ttl_ms, -1, "for ever");
	ok_int(kvc_expire(client, "t", 1, 20), KVC_OK, "20 ms");
	uint64_t end_ns = now_ns() + SOON_NS;
	while (!absent(reader, "t") && now_ns() < end_ns) {
	}
	ok(absent(reader, "t"), "and it is gone");
	ok_int(kvc_expire(client, "t", 1, -1), KVC_NOT_FOUND, "persist of nothing");
	ok_int(kvc_expire(client, "t", 1, 5), KVC_NOT_FOUND, "expire of nothing");
	ok_int(kvc_expire(client, "new", 3, 0), KVC_OK, "expire at once");
	ok(absent(reader, "new"), "deletes");
}

static void test_other_writes(kvc *client, kvc_reader *reader)
{
	int64_t sum = 0;
	ok_int(kvc_increment(client, "n", 1, 40, &sum), KVC_OK, "increment of nothing");
	ok_int(kvc_increment(client, "n", 1, 2, &sum), KVC_OK, "and again");
	ok_int(sum, 42, "adds up");
	ok(has(reader, "n", "42"), "A: visible");
	ok_int(kvc_increment(client, "k", 1, 1, NULL), KVC_NOT_NUMBER, "not a number: %s",
	       kvc_error_text(client));
	ok_int(kvc_increment(client, "n", 1, INT64_MAX, NULL), KVC_NOT_NUMBER, "overflow");
	ok_int(kvc_delete(client, "n", 1), KVC_OK, "delete");
	ok(absent(reader, "n"), "A: gone");
	ok_int(kvc_delete(client, "n", 1), KVC_NOT_FOUND, "delete of nothing");
	ok_int(kvc_sync(client), KVC_OK, "sync");
	uint64_t applied = 0, durable = 0;
	ok_int(kvc_watermarks(reader, &applied, &durable), KVC_OK, "watermarks");
	ok(applied > 0 && durable == applied, "E: all durable after sync");
	char bytes[512];
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] = (char)i;
	}
	char back[512];
	ok_int(kvc_set(client, bytes, 511, bytes, 512, NULL, NULL), KVC_OK, "any bytes as key");
	ok(kvc_get(reader, bytes, 511, back, 512, NULL) == KVC_OK && memcmp(back, bytes, 512) == 0,
	   "and as value");
}

static void test_large(kvc *client, kvc_reader *reader)
{
	size_t bytes = 5 << 20;
	char *large = malloc(bytes);
	void *back = NULL;
	struct kvc_meta meta = { 0 };
	struct kvc_view view;
	for (size_t i = 0; i < bytes; i++) {
		large[i] = (char)(i * 2654435761u >> 13);
	}
	ok_int(kvc_set(client, "large", 5, large, bytes, NULL, NULL), KVC_OK, "5 MiB");
	ok_int(kvc_get_alloc(reader, "large", 5, &back, &meta), KVC_OK, "back");
	ok(meta.value_bytes == bytes && memcmp(back, large, bytes) == 0, "B: byte for byte");
	ok_int(kvc_begin(reader), KVC_OK, "a section");
	ok_int(kvc_view(reader, "large", 5, &view), KVC_OK, "a view");
	ok_int(kvc_set(client, "large", 5, "small", 5, NULL, NULL), KVC_OK,
	       "overwritten meanwhile");
	ok(view.value_bytes == bytes && memcmp(view.value, large, bytes) == 0,
	   "B: the view stands");
	ok_int(kvc_end(reader), KVC_OK, "end");
	ok(has(reader, "large", "small"), "A: the new value");
	char *huge = malloc(300u << 20);
	memset(huge, 'h', 300u << 20);
	ok_int(kvc_set(client, "huge", 4, huge, 300u << 20, NULL, NULL), KVC_TOO_LARGE,
	       "over the limit: %s", kvc_error_text(client));
	free(huge);
	ok_int(set(client, "after", "x"), KVC_OK, "the connection goes on");
	free(back);
	free(large);
}

static void test_batch(kvc *client, kvc_reader *reader)
{
	kvc_batch *batch;
	ok_int(kvc_batch_new(&batch), KVC_OK, "a batch");
	(void)set(client, "b:gone", "x");
	(void)kvc_batch_set(batch, "b:1", 3, "one", 3, 0);
	(void)kvc_batch_set(batch, "b:2", 3, "two", 3, 3600000);
	(void)kvc_batch_increment(batch, "b:n", 3, 7);
	(void)kvc_batch_delete(batch, "b:gone", 6);
	(void)kvc_batch_expire(batch, "b:2", 3, -1);
	ok(absent(reader, "b:1"), "nothing is sent before the commit");
	ok_int(kvc_batch_commit(client, batch), KVC_OK, "I: commit");
	ok(has(reader, "b:1", "one") && has(reader, "b:2", "two") && has(reader, "b:n", "7") &&
		   absent(reader, "b:gone"),
	   "I: all of it");
	kvc_batch_reset(batch);
	(void)kvc_batch_set(batch, "b:3", 3, "x", 1, 0);
	(void)kvc_batch_increment(batch, "b:1", 3, 1);
	ok_int(kvc_batch_commit(client, batch), KVC_NOT_NUMBER, "an increment that cannot be");
	ok(has(reader, "b:3", "x"), "as in Redis the rest is applied");
	kvc_batch_reset(batch);
	for (int i = 0; i < 20000; i++) {
		char key[16];
		(void)snprintf(key, sizeof(key), "bb:%d", i);
		(void)kvc_batch_set(batch, key, strlen(key), key, strlen(key), 0);
	}
	ok_int(kvc_batch_commit(client, batch), KVC_OK, "I: 20000 at once");
	ok(has(reader, "bb:0", "bb:0") && has(reader, "bb:19999", "bb:19999"), "I: first and last");
	kvc_batch_free(batch);
}

static void test_many(kvc_reader *reader)
{
	char values[1000][16], keys[1000][16];
	struct kvc_item items[1000];
	for (uint32_t flags = 0; flags <= KVC_GET_SNAPSHOT; flags++) {
		bool good = true;
		memset(values, 0, sizeof(values));
		for (int i = 0; i < 1000; i++) {
			(void)snprintf(keys[i], 16, "bb:%d", i);
			items[i] = (struct kvc_item){ .key = keys[i],
						      .key_bytes = strlen(keys[i]),
						      .buffer = values[i],
						      .buffer_bytes = 16 };
		}
		ok_int(kvc_get_many(reader, items, 1000, flags), KVC_OK, "a thousand, flags %u",
		       flags);
		for (int i = 0; i < 1000; i++) {
			good = good && items[i].status == KVC_OK && strcmp(values[i], keys[i]) == 0;
		}
		ok(good, "each as it is");
	}
}

static void test_command(kvc *client)
{
	const void *hello[] = { "HELLO", "3" };
	const size_t hello_bytes[] = { 5, 1 };
	const void *multi[] = { "MULTI" };
	const size_t multi_bytes[] = { 5 };
	const void *discard[] = { "DISCARD" };
	const size_t discard_bytes[] = { 7 };
	const struct kvc_reply *reply;
	ok(kvc_command(client, 2, hello, hello_bytes, &reply) == KVC_OK &&
		   reply->type == KVC_REPLY_MAP && reply->count >= 5 &&
		   reply->element[0].type == KVC_REPLY_STRING,
	   "HELLO 3 answers with a map");
	ok(set(client, "in3", "x") == KVC_OK, "requests work in RESP3 too");
	struct kvc_set_options options = { .struct_bytes = sizeof(options),
					   .flags = KVC_SET_IF_ABSENT };
	ok_int(kvc_set(client, "in3", 3, "y", 1, &options, NULL), KVC_NOT_APPLIED, "its null too");
	ok_int(kvc_command(client, 1, multi, multi_bytes, &reply), KVC_OK, "MULTI");
	ok_int(set(client, "queued", "x"), KVC_PROTOCOL, "a request in it is not answered");
	ok_int(kvc_command(client, 1, discard, discard_bytes, &reply), KVC_OK, "DISCARD");
	ok_int(set(client, "in3", "y"), KVC_OK, "well again");
	bool good = true;
	for (int i = 0; i < 2000; i++) {
		char key[16];
		(void)snprintf(key, sizeof(key), "p:%d", i);
		const void *argv[] = { "SET", key, "v" };
		const size_t bytes[] = { 3, strlen(key), 1 };
		good = good && kvc_pipeline_append(client, 3, argv, bytes) == KVC_OK;
	}
	for (int i = 0; i < 2000; i++) {
		good = good && kvc_pipeline_reply(client, &reply) == KVC_OK &&
		       reply->type == KVC_REPLY_STATUS && strcmp(reply->text, "OK") == 0;
	}
	ok(good, "a pipeline of 2000");
}

// Reads until kvd is back: old values or UNREACHABLE meanwhile, nothing else.
static bool comes_back(kvc_reader *reader, const char *key, const char *value)
{
	uint64_t end_ns = now_ns() + SOON_NS;
	while (now_ns() < end_ns) {
		if (has(reader, key, value)) {
			return true;
		}
	}
	return false;
}

static void test_death(struct harness *h, kvc *client, kvc_reader *reader)
{
	ok(set(client, "life", "before") == KVC_OK && kvc_sync(client) == KVC_OK,
	   "a durable value");
	harness_kill(h);
	ok(has(reader, "life", "before"), "F: kill -9: read on");
	ok_int(set(client, "life", "x"), KVC_UNREACHABLE, "writes cannot");
	ok(has(reader, "life", "before"), "F: read on");
	harness_restart(h);
	struct harness_connection *c = harness_connect(h);
	ok_str(harness_command(c, "SET", "life", "after", NULL), "+OK\r\n", "somebody writes");
	ok(comes_back(reader, "life", "after"), "A: the reader sees it");
	struct kvc_meta meta;
	ok_int(kvc_get(reader, "bb:77", 5, NULL, 0, &meta), KVC_TRUNCATED,
	       "E: what was durable is back");
	ok_int(kvc_is_mapped(client), 1, "by mapping");
	harness_disconnect(c);

	ok(harness_stop(h) == 0, "stopped");
	ok(has(reader, "life", "after"), "F: shut down cleanly: read on");
	harness_restart(h);
	c = harness_connect(h);
	ok_str(harness_command(c, "SET", "life", "again", NULL), "+OK\r\n", "somebody writes");
	ok(comes_back(reader, "life", "again"), "A: the reader sees it");
	harness_disconnect(c);
	uint64_t end_ns = now_ns() + SOON_NS;
	int status;
	do {
		status = set(client, "life", "mine");
	} while (status == KVC_UNREACHABLE && now_ns() < end_ns);
	ok_int(status, KVC_OK, "A: and this client writes again");
	ok(has(reader, "life", "mine"), "A: and sees it");
}

// Until it is answered; after a time limit, too, as that one may be sent again.
static int set_soon(kvc *client, const char *value)
{
	uint64_t end_ns = now_ns() + SOON_NS;
	int status;
	do {
		status = set(client, "life", value);
	} while (status != KVC_OK && now_ns() < end_ns);
	return status;
}

// The data folder is another one than before, so nobody tells the reader through kvd.gen.
static void test_replaced(struct harness *h, kvc *client, kvc_reader *reader)
{
	char path[4096];
	(void)snprintf(path, sizeof(path), "%s/kvd.gen", harness_dir(h));
	ok_int(set(client, "life", "first"), KVC_OK, "a value");
	harness_kill(h);
	ok_int(unlink(path), 0, "kvd.gen is replaced between two lives");
	harness_restart(h);
	ok_int(set_soon(client, "second"), KVC_OK, "this client writes through the new kvd");
	ok(has(reader, "life", "second"), "A: and its reader sees that");
	ok_int(kvc_is_mapped(client), 1, "by mapping");
}

// kvd hangs: writes end in time, reads do not notice.
static void test_stopped(struct harness *h)
{
	kvc *client;
	kvc_reader *reader;
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = harness_socket(h),
				       .connect_timeout_ms = 200,
				       .request_timeout_ms = 200 };
	uint64_t end_ns = now_ns() + SOON_NS;
	int status;
	do { // on a machine that may be slow
		status = kvc_open(&client, &options);
	} while (status == KVC_TIMEOUT && now_ns() < end_ns);
	ok_int(status, KVC_OK, "an impatient client");
	ok_int(kvc_reader_open(client, &reader), KVC_OK, "its reader");
	ok_int(set_soon(client, "mine"), KVC_OK, "a write");
	siginfo_t info;
	(void)kill(harness_pid(h), SIGSTOP);
	ok_int(waitid(P_PID, (id_t)harness_pid(h), &info, WSTOPPED), 0, "kvd stands still");
	ok_int(set(client, "life", "mine"), KVC_TIMEOUT, "kvd stopped: a write ends in time");
	ok(has(reader, "life", "mine"), "F: reads go on");
	kvc *other;
	ok_int(kvc_open(&other, &options), KVC_TIMEOUT, "opening ends in time");
	(void)kill(harness_pid(h), SIGCONT);
	ok_int(set_soon(client, "mine"), KVC_OK, "well again");
	ok_int(kvc_close(client), KVC_OK, "close");
}

// An application that daemonises: everything closed under our feet.
static void test_closed_fds(kvc *client, kvc_reader *reader)
{
	struct kvc_meta meta;
	char path[64], target[64];
	int closed = 0;
	for (int fd = 3; fd < 100; fd++) {
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		ssize_t bytes = readlink(path, target, sizeof(target) - 1);
		if (bytes > 7 && memcmp(target, "socket:", 7) == 0) {
			closed += close(fd) == 0;
		}
	}
	ok(closed >= 2, "%d sockets closed", closed);
	ok(has(reader, "life", "mine"), "reads need none");
	uint64_t end_ns = now_ns() + SOON_NS;
	bool good = true;
	while (good && now_ns() < end_ns &&
	       kvc_get(reader, "life", 4, NULL, 0, &meta) == KVC_TRUNCATED && meta.flags != 0) {
		good = set(client, "other", "x") == KVC_OK; // until kvd has seen the hang-up
	}
	ok(good && has(reader, "life", "mine"), "reads go on when kvd has detached the page");
	ok_int(kvc_is_mapped(client), 1, "by mapping");
}

static void run(struct harness *h, uint32_t flags)
{
	kvc_reader *reader;
	kvc *client = open_client(h, flags, &reader);
	tap_diag("flags %u", flags);
	ok_int(kvc_is_mapped(client), !(flags & KVC_OPEN_SOCKET_ONLY), "mapped as asked");
	struct harness_connection *c = harness_connect(h);
	(void)harness_command(c, "FLUSHALL", NULL);
	harness_disconnect(c);
	test_set(client, reader);
	test_other_writes(client, reader);
	test_large(client, reader);
	test_batch(client, reader);
	test_many(reader);
	test_command(client);
	if (flags == 0) {
		test_death(h, client, reader);
		test_replaced(h, client, reader);
		test_stopped(h);
		test_closed_fds(client, reader);
	}
	ok_int(kvc_close(client), KVC_OK, "close");
}

int main(void)
{
	struct harness *h = harness_start(NULL);
	run(h, 0);
	run(h, KVC_OPEN_FENCED);
	run(h, KVC_OPEN_SOCKET_ONLY);
	harness_free(h);
	return tap_done();
}
