// SPDX-License-Identifier: MIT
//
// Values that are in the store alone, by every way in which the library reads: what comes is the
// value, its version and its time to live, as if it were in memory (A, E); views stay what they are
// as it leaves memory and comes back (B).
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/kvclient.h"
#include "tests/lib/harness.h"
#include "tests/tap/tap.h"

#define VALUE_BYTES 500u
#define LARGE_BYTES 3000000u // has a run of its own
#define MANY 40u
#define TRIES 100000u // that a commit is over kvd's writer hears of a moment later

static struct harness_connection *link_to_kvd;
static char large[LARGE_BYTES];

static void value_of(const char *key, char value[VALUE_BYTES])
{
	size_t bytes = strlen(key);
	for (size_t i = 0; i < VALUE_BYTES; i++) {
		value[i] = key[i % bytes];
	}
}

// Its value leaves memory.
static void spill(const char *key)
{
	for (unsigned i = 0; i < TRIES; i++) {
		const char *said = harness_command(link_to_kvd, "DEBUG", "SPILL", key, NULL);
		if (said != NULL && strcmp(said, ":1\r\n") == 0) {
			return;
		}
	}
	printf("Bail out! %s does not leave memory\n", key);
	exit(99);
}

static uint64_t put(kvc *client, const char *key, int64_t ttl_ms)
{
	char value[VALUE_BYTES];
	uint64_t version = 0;
	struct kvc_set_options options = { .struct_bytes = sizeof(options), .ttl_ms = ttl_ms };
	value_of(key, value);
	ok_int(kvc_set(client, key, strlen(key), value, sizeof(value), &options, &version), KVC_OK,
	       "%s", key);
	return version;
}

static bool is_value(const char *key, const void *got, size_t bytes)
{
	char value[VALUE_BYTES];
	value_of(key, value);
	return bytes == sizeof(value) && memcmp(got, value, sizeof(value)) == 0;
}

static void test_get(kvc *client, kvc_reader *reader)
{
	char buffer[VALUE_BYTES];
	struct kvc_meta meta;
	void *value = NULL;
	uint64_t version = put(client, "get", 3600000);
	spill("get");
	ok_int(kvc_get(reader, "get", 3, buffer, 10, &meta), KVC_TRUNCATED, "a small buffer");
	ok(meta.value_bytes == VALUE_BYTES && memcmp(buffer, "getgetgetg", 10) == 0,
	   "gets what it has room for, and the length");
	spill("get");
	ok_int(kvc_get(reader, "get", 3, buffer, sizeof(buffer), &meta), KVC_OK, "get");
	ok(is_value("get", buffer, meta.value_bytes), "A: the value");
	ok_u64(meta.version, version, "its version");
	ok(meta.ttl_ms > 3500000 && meta.ttl_ms <= 3600020, "its time to live");
	ok((meta.flags & KVC_META_SOCKET) != 0, "by socket");
	spill("get");
	ok_int(kvc_get_alloc(reader, "get", 3, &value, &meta), KVC_OK, "get_alloc");
	ok(is_value("get", value, meta.value_bytes), "A: the value");
	free(value);
	struct kvc_set_options options = { .struct_bytes = sizeof(options),
					   .flags = KVC_SET_IF_VERSION,
					   .version = version };
	spill("get");
	ok_int(kvc_set(client, "get", 3, "new", 3, &options, NULL), KVC_OK,
	       "if it has this version still: it has");
	ok_int(kvc_get(reader, "no such", 7, buffer, sizeof(buffer), NULL), KVC_NOT_FOUND,
	       "what is absent is absent");
}

static void test_large(kvc *client, kvc_reader *reader)
{
	struct kvc_meta meta;
	void *value = NULL;
	for (size_t i = 0; i < LARGE_BYTES; i++) {
		large[i] = (char)(i * 7 + (i >> 9));
	}
	ok_int(kvc_set(client, "large", 5, large, LARGE_BYTES, NULL, NULL), KVC_OK, "a large one");
	spill("large");
	ok_int(kvc_get_alloc(reader, "large", 5, &value, &meta), KVC_OK, "get_alloc");
	ok(meta.value_bytes == LARGE_BYTES && memcmp(value, large, LARGE_BYTES) == 0,
	   "A: the value");
	free(value);
}

static void test_view(kvc *client, kvc_reader *reader)
{
	struct kvc_view first, second, third;
	(void)put(client, "view", 0);
	(void)put(client, "other", 0);
	spill("view");
	spill("other");
	ok_int(kvc_begin(reader), KVC_OK, "a section");
	ok_int(kvc_view(reader, "view", 4, &first), KVC_OK, "a view");
	ok_int(kvc_view(reader, "other", 5, &second), KVC_OK, "another");
	ok_int(kvc_view(reader, "none", 4, &third), KVC_NOT_FOUND, "none");
	spill("view"); // it came back, and leaves again
	ok(is_value("view", first.value, first.value_bytes) &&
		   is_value("other", second.value, second.value_bytes),
	   "B: both are what they were");
	ok_int(kvc_end(reader), KVC_OK, "until the end");
	// In memory as it is looked at, and spilled behind the view's back.
	ok_int(kvc_set(client, "warm", 4, large, VALUE_BYTES, NULL, NULL), KVC_OK, "a warm one");
	(void)kvc_begin(reader);
	ok_int(kvc_view(reader, "warm", 4, &first), KVC_OK, "a view of memory");
	spill("warm");
	ok(memcmp(first.value, large, VALUE_BYTES) == 0, "B: is what it was");
	ok_int(kvc_view(reader, "warm", 4, &second), KVC_OK, "and once more");
	ok(second.value_bytes == VALUE_BYTES && memcmp(second.value, large, VALUE_BYTES) == 0,
	   "A: from the store");
	ok_int(kvc_end(reader), KVC_OK, "until the end");
}

static void test_token(kvc *client, kvc_reader *reader)
{
	char buffer[VALUE_BYTES];
	struct kvc_token token;
	struct kvc_meta meta = { .flags = KVC_META_SOCKET };
	uint64_t version = put(client, "token", 0);
	ok_int(kvc_get_token(reader, "token", 5, buffer, sizeof(buffer), NULL, &token), KVC_OK,
	       "a token of a value in memory");
	spill("token");
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "what leaves memory is read again");
	ok_int(kvc_get_token(reader, "token", 5, buffer, sizeof(buffer), &meta, &token), KVC_OK,
	       "by socket");
	ok_int(kvc_check(reader, &token), KVC_CHANGED, "as often as that is asked");
	for (unsigned i = 0; i < TRIES && (meta.flags & KVC_META_SOCKET) != 0; i++) {
		(void)kvc_get_token(reader, "token", 5, buffer, sizeof(buffer), &meta, &token);
	}
	ok_int(kvc_check(reader, &token), KVC_OK, "A: until it is back");
	ok_u64(meta.version, version, "of the same version");
	ok(put(client, "token", 0) > version, "another version");
	ok(kvc_check(reader, &token) != KVC_OK, "is one");
}

static void test_many(kvc *client, kvc_reader *reader)
{
	static char keys[MANY][16];
	static char values[MANY][VALUE_BYTES];
	struct kvc_item items[MANY];
	for (unsigned i = 0; i < MANY; i++) {
		(void)snprintf(keys[i], sizeof(keys[i]), "many%u", i);
		(void)put(client, keys[i], 0);
		items[i] = (struct kvc_item){ .key = keys[i],
					      .key_bytes = strlen(keys[i]),
					      .buffer = values[i],
					      .buffer_bytes = VALUE_BYTES };
	}
	for (uint32_t flags = 0; flags <= KVC_GET_SNAPSHOT; flags++) {
		for (unsigned i = 0; i < MANY; i += 3) {
			spill(keys[i]);
		}
		memset(values, 0, sizeof(values));
		bool good = kvc_get_many(reader, items, MANY, flags) == KVC_OK;
		for (unsigned i = 0; i < MANY; i++) {
			good = good && items[i].status == KVC_OK &&
			       is_value(keys[i], values[i], items[i].meta.value_bytes);
		}
		ok(good, "A, I: many, of which some are in the store alone (flags %u)",
		   (unsigned)flags);
	}
}

struct seen {
	unsigned count;
	unsigned good;
};

static void see(kvc_async *async, void *user, const struct kvc_result *result)
{
	struct seen *seen = user;
	char key[16];
	(void)async;
	(void)snprintf(key, sizeof(key), "many%u", seen->count++);
	seen->good += result->status == KVC_OK && is_value(key, result->value, result->value_bytes);
}

static void test_async(const struct harness *h)
{
	kvc_async *async;
	struct seen seen = { 0 };
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = harness_socket(h) };
	if (!ok(kvc_async_open(&async, &options, NULL) == KVC_OK, "an asynchronous client")) {
		return;
	}
	for (unsigned i = 0; i < MANY; i += 2) {
		char key[16];
		(void)snprintf(key, sizeof(key), "many%u", i);
		spill(key);
	}
	for (unsigned i = 0; i < MANY; i++) {
		char key[16];
		int bytes = snprintf(key, sizeof(key), "many%u", i);
		(void)kvc_async_get(async, key, (size_t)bytes, see, &seen, NULL);
	}
	while (kvc_async_pending(async) > 0) {
		struct pollfd poll_fd = { .fd = kvc_async_fd(async), .events = POLLIN };
		(void)poll(&poll_fd, 1, kvc_async_timeout_ms(async));
		(void)kvc_async_dispatch(async);
	}
	ok_u64(seen.good, MANY, "A: each completion has its own value, in order");
	(void)kvc_async_close(async);
}

int main(void)
{
	kvc *client;
	kvc_reader *reader;
	struct harness *h = harness_start((const char *const[]){
		"--persist", "group", "--memory", "64MiB", "--memory-max", "64MiB", NULL });
	struct kvc_options options = { .struct_bytes = sizeof(options),
				       .socket_path = harness_socket(h) };
	if (kvc_open(&client, &options) != KVC_OK || kvc_reader_open(client, &reader) != KVC_OK) {
		printf("Bail out! no client\n");
		exit(99);
	}
	link_to_kvd = harness_connect(h);
	ok_int(kvc_is_mapped(client), 1, "it reads the mapping");
	test_get(client, reader);
	test_large(client, reader);
	test_view(client, reader);
	test_token(client, reader);
	test_many(client, reader);
	test_async(h);
	harness_disconnect(link_to_kvd);
	ok_int(kvc_reader_close(reader), KVC_OK, "the reader goes");
	ok_int(kvc_close(client), KVC_OK, "and the client");
	ok_int(harness_stop(h), 0, "kvd stops");
	harness_free(h);
	return tap_done();
}
