// SPDX-License-Identifier: MIT
//
// Arguments that are none: each public function says so, by its result, before it does anything:
// nothing is sent, and the next call with good ones works. What may be left out may be left out.
#include <stddef.h>

#include "libclient/internal.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (8u << 20)

static char key_long[KVS_KEY_BYTES_MAX + 1];

static void test_no_client(kvc *client)
{
	const void *argv[] = { "PING" };
	const size_t bytes[] = { 4 };
	const struct kvc_reply *reply;
	kvc_reader *reader;
	ok_int(kvc_set(NULL, "a", 1, "1", 1, NULL, NULL), KVC_INVALID, "kvc_set");
	ok_int(kvc_delete(NULL, "a", 1), KVC_INVALID, "kvc_delete");
	ok_int(kvc_increment(NULL, "a", 1, 1, NULL), KVC_INVALID, "kvc_increment");
	ok_int(kvc_expire(NULL, "a", 1, 1), KVC_INVALID, "kvc_expire");
	ok_int(kvc_sync(NULL), KVC_INVALID, "kvc_sync");
	ok_int(kvc_command(NULL, 1, argv, bytes, &reply), KVC_INVALID, "kvc_command");
	ok_int(kvc_pipeline_append(NULL, 1, argv, bytes), KVC_INVALID, "kvc_pipeline_append");
	ok_int(kvc_pipeline_reply(NULL, &reply), KVC_INVALID, "kvc_pipeline_reply");
	ok_int(kvc_reader_open(NULL, &reader), KVC_INVALID, "kvc_reader_open");
	ok_str(kvc_error_text(NULL), "", "kvc_error_text");
	ok_int(kvc_is_mapped(NULL), 0, "kvc_is_mapped");
	ok_int(kvc_close(NULL), KVC_OK, "kvc_close of nothing is fine");
	ok_int(kvc_command(client, 1, argv, bytes, NULL), KVC_INVALID, "no place for the reply");
	ok_int(kvc_pipeline_reply(client, NULL), KVC_INVALID, "nor for that of a pipeline");
	ok_int(kvc_reader_open(client, NULL), KVC_INVALID, "nor for the reader");
}

static void test_no_reader(kvc_reader *reader)
{
	char buffer[8];
	void *value;
	uint64_t applied, durable;
	struct kvc_view view;
	struct kvc_token token = { { 0 } };
	struct kvc_item item = { .key = "a", .key_bytes = 1 };
	ok_int(kvc_get(NULL, "a", 1, buffer, 1, NULL), KVC_INVALID, "kvc_get");
	ok_int(kvc_get_alloc(NULL, "a", 1, &value, NULL), KVC_INVALID, "kvc_get_alloc");
	ok_int(kvc_get_alloc(reader, "a", 1, NULL, NULL), KVC_INVALID, "no place for it");
	ok_int(kvc_get_alloc(reader, "", 0, &value, NULL), KVC_INVALID, "no key");
	ok_int(kvc_begin(NULL), KVC_INVALID, "kvc_begin");
	ok_int(kvc_end(NULL), KVC_INVALID, "kvc_end");
	ok_int(kvc_view(NULL, "a", 1, &view), KVC_INVALID, "kvc_view");
	ok_int(kvc_view(reader, "a", 1, NULL), KVC_INVALID, "no view");
	ok_int(kvc_get_many(NULL, &item, 1, 0), KVC_INVALID, "kvc_get_many");
	ok_int(kvc_get_many(reader, NULL, 1, 0), KVC_INVALID, "no items");
	ok_int(kvc_get_many(reader, &item, 1, 1u << 9), KVC_INVALID, "an unknown flag");
	ok_int(kvc_watermarks(NULL, &applied, &durable), KVC_INVALID, "kvc_watermarks");
	ok_int(kvc_watermarks(reader, NULL, &durable), KVC_INVALID, "no place for one");
	ok_int(kvc_watermarks(reader, &applied, NULL), KVC_INVALID, "for the other");
	ok_int(kvc_get_token(NULL, "a", 1, buffer, 1, NULL, &token), KVC_INVALID, "kvc_get_token");
	ok_int(kvc_get_token(reader, "a", 1, buffer, 1, NULL, NULL), KVC_INVALID, "no token");
	ok_int(kvc_get_token(reader, "a", 1, NULL, 1, NULL, &token), KVC_INVALID, "no buffer");
	ok_int(kvc_view_token(reader, "a", 1, &view, NULL), KVC_INVALID, "kvc_view_token");
	ok_int(kvc_check(NULL, &token), KVC_INVALID, "kvc_check");
	ok_int(kvc_check(reader, NULL), KVC_INVALID, "no token to check");
	ok_str(kvc_reader_error_text(NULL), "", "kvc_reader_error_text");
	ok_int(kvc_reader_close(NULL), KVC_OK, "kvc_reader_close of nothing is fine");
	ok_int(kvc_begin(reader), KVC_OK, "in an open section");
	ok_int(kvc_view(reader, "a", 1, NULL), KVC_INVALID, "no view");
	ok_int(kvc_view(reader, NULL, 1, &view), KVC_INVALID, "no key");
	ok_int(kvc_view(reader, "", 0, &view), KVC_INVALID, "an empty one");
	ok_int(kvc_view(reader, key_long, sizeof(key_long), &view), KVC_TOO_LARGE, "a long one");
	ok_int(kvc_end(reader), KVC_OK, "and the section ends");
	ok_int(kvc_end(reader), KVC_INVALID, "once");
}

static void test_requests(kvc *client)
{
	const void *no_words[] = { "ECHO", NULL };
	const size_t bytes[] = { 4, 1 }, huge[] = { 4, (size_t)KVS_VALUE_BYTES_MAX + 1 };
	const void *words[] = { "ECHO", "x" };
	const struct kvc_reply *reply;
	struct kvc_set_options set = { .struct_bytes = sizeof(set), .ttl_ms = -1 };
	ok_int(kvc_set(client, "a", 1, "1", 1, &set, NULL), KVC_INVALID, "a negative time to live");
	set.ttl_ms = 5;
	set.flags = KVC_SET_KEEP_TTL;
	ok_int(kvc_set(client, "a", 1, "1", 1, &set, NULL), KVC_INVALID, "two times to live");
	set = (struct kvc_set_options){ .struct_bytes = sizeof(set), .version = UINT64_MAX };
	ok_int(kvc_set(client, "a", 1, "1", 1, &set, NULL), KVC_INVALID, "no version");
	ok_int(kvc_delete(client, "", 0), KVC_INVALID, "kvc_delete of no key");
	ok_int(kvc_increment(client, key_long, sizeof(key_long), 1, NULL), KVC_TOO_LARGE,
	       "kvc_increment of a long key");
	ok_int(kvc_expire(client, "", 0, 5), KVC_INVALID, "kvc_expire of no key");
	ok_int(kvc_expire(client, "", 0, -1), KVC_INVALID, "nor to keep it");
	ok_int(kvc_command(client, 0, words, bytes, &reply), KVC_INVALID, "no words");
	ok_int(kvc_command(client, 2, NULL, bytes, &reply), KVC_INVALID, "no words given");
	ok_int(kvc_command(client, 2, words, NULL, &reply), KVC_INVALID, "no lengths");
	ok_int(kvc_command(client, 2, no_words, bytes, &reply), KVC_INVALID, "a word without text");
	ok_int(kvc_command(client, 2, words, huge, &reply), KVC_TOO_LARGE, "a word too long");
	ok_int(kvc_command(client, (int)KVS_COMMAND_ARGS_MAX + 1, words, bytes, &reply),
	       KVC_TOO_LARGE, "too many words");
	ok_int(kvc_pipeline_append(client, 2, no_words, bytes), KVC_INVALID, "in a pipeline, too");
	ok_int(kvc_pipeline_reply(client, &reply), KVC_INVALID, "which is empty still");
	const size_t empty[] = { 4, 0 };
	ok(kvc_command(client, 2, no_words, empty, &reply) == KVC_OK && reply->text_bytes == 0,
	   "an empty word needs no text");
	ok_int(kvc_increment(client, "n", 1, 1, NULL), KVC_REFUSED, "nor a sum a place to go");
}

static void test_batches(kvc *client)
{
	kvc_batch *batch = NULL;
	ok_int(kvc_batch_new(NULL), KVC_INVALID, "kvc_batch_new");
	ok_int(kvc_batch_new(&batch), KVC_OK, "a batch");
	ok_int(kvc_batch_set(NULL, "a", 1, "1", 1, 0), KVC_INVALID, "kvc_batch_set");
	ok_int(kvc_batch_set(batch, "a", 1, NULL, 1, 0), KVC_INVALID, "no value");
	ok_int(kvc_batch_set(batch, "a", 1, "1", 1, -1), KVC_INVALID, "a negative time to live");
	ok_int(kvc_batch_set(batch, "a", 1, "1", (size_t)KVS_VALUE_BYTES_MAX + 1, 0), KVC_TOO_LARGE,
	       "a value too long");
	ok_int(kvc_batch_delete(batch, "", 0), KVC_INVALID, "kvc_batch_delete of no key");
	ok_int(kvc_batch_increment(batch, "", 0, 1), KVC_INVALID, "nor kvc_batch_increment");
	ok_int(kvc_batch_expire(batch, "", 0, 1), KVC_INVALID, "nor kvc_batch_expire");
	ok_int(kvc_batch_commit(NULL, batch), KVC_INVALID, "kvc_batch_commit without a client");
	ok_int(kvc_batch_commit(client, NULL), KVC_INVALID, "or a batch");
	ok_int(kvc_batch_commit(client, batch), KVC_OK, "nothing got in");
	ok_int(kvc_batch_set(batch, "a", 1, NULL, 0, 0), KVC_OK, "an empty value needs none");
	ok_int(kvc_batch_expire(batch, "a", 1, 5), KVC_OK, "a time to live may be given");
	ok_int(kvc_batch_expire(batch, "a", 1, -1), KVC_OK, "a time to live may be taken away");
	kvc_batch_reset(NULL);
	kvc_batch_free(batch);
	kvc_batch_free(NULL);
}

static void watched(kvc_async *async, void *user, enum kvc_watch_event event, const void *key,
		    size_t key_bytes)
{
	(void)async;
	(void)user;
	(void)event;
	(void)key;
	(void)key_bytes;
}

static void test_no_handle(void)
{
	const void *argv[] = { "PING" };
	const size_t bytes[] = { 4 };
	kvc_watch *watch;
	ok_int(kvc_async_fd(NULL), -1, "kvc_async_fd");
	ok_int(kvc_async_timeout_ms(NULL), -1, "kvc_async_timeout_ms");
	ok_int(kvc_async_dispatch(NULL), KVC_INVALID, "kvc_async_dispatch");
	ok_int(kvc_async_flush(NULL), KVC_INVALID, "kvc_async_flush");
	ok_u64(kvc_async_pending(NULL), 0, "kvc_async_pending");
	ok_str(kvc_async_error_text(NULL), "", "kvc_async_error_text");
	ok_int(kvc_async_cancel(NULL, 1), KVC_INVALID, "kvc_async_cancel");
	ok_int(kvc_async_set(NULL, "a", 1, "1", 1, NULL, NULL, NULL, NULL), KVC_INVALID,
	       "kvc_async_set");
	ok_int(kvc_async_delete(NULL, "a", 1, NULL, NULL, NULL), KVC_INVALID, "kvc_async_delete");
	ok_int(kvc_async_increment(NULL, "a", 1, 1, NULL, NULL, NULL), KVC_INVALID,
	       "kvc_async_increment");
	ok_int(kvc_async_expire(NULL, "a", 1, 1, NULL, NULL, NULL), KVC_INVALID,
	       "kvc_async_expire");
	ok_int(kvc_async_get(NULL, "a", 1, NULL, NULL, NULL), KVC_INVALID, "kvc_async_get");
	ok_int(kvc_async_sync(NULL, NULL, NULL, NULL), KVC_INVALID, "kvc_async_sync");
	ok_int(kvc_async_commit(NULL, NULL, NULL, NULL, NULL), KVC_INVALID, "kvc_async_commit");
	ok_int(kvc_async_command(NULL, 1, argv, bytes, NULL, NULL, NULL), KVC_INVALID,
	       "kvc_async_command");
	ok_int(kvc_watch_open(NULL, "a", 1, 0, watched, NULL, &watch), KVC_INVALID,
	       "kvc_watch_open");
	ok_int(kvc_watch_close(NULL), KVC_OK, "kvc_watch_close of nothing is fine");
	ok_int(kvc_async_close(NULL), KVC_OK, "and kvc_async_close");
}

static void test_handle(const struct fake *fake)
{
	struct kvc_options options;
	struct kvc_async_options more = { .struct_bytes = 1 };
	kvc_async *async = NULL;
	kvc_watch *watch;
	kvc_options_init(&options);
	options.socket_path = fake->socket_path;
	ok_int(kvc_async_open(NULL, &options, NULL), KVC_INVALID, "no place for the handle");
	ok_int(kvc_async_open(&async, &options, &more), KVC_INVALID, "options of no size");
	options.struct_bytes = 1;
	ok_int(kvc_async_open(&async, &options, NULL), KVC_INVALID, "nor those of the client");
	options.struct_bytes = sizeof(options);
	options.socket_path = "/nowhere/kvd.sock";
	ok_int(kvc_async_open(&async, &options, NULL), KVC_UNREACHABLE, "nobody, and no text");
	char text[64] = "";
	options.error_text = text;
	ok_int(kvc_async_open(&async, &options, NULL), KVC_UNREACHABLE, "nor room for one");
	ok_str(text, "", "which stays as it is");
	ok_int(setenv("KVD_SOCKET", fake->socket_path, 1), 0, "named by the environment");
	ok_int(kvc_async_open(&async, NULL, NULL), KVC_OK, "options may be left out");
	ok_int(kvc_async_close(async), KVC_OK, "close");
	(void)unsetenv("KVD_SOCKET");
	options.socket_path = fake->socket_path;
	ok_int(kvc_async_open(&async, &options, NULL), KVC_OK, "a handle");
	ok_int(kvc_watch_open(async, "a", 1, 0, watched, NULL, NULL), KVC_INVALID,
	       "no place for the watch");
	ok_int(kvc_watch_open(async, "a", 1, 0, NULL, NULL, &watch), KVC_INVALID, "nobody to tell");
	ok_int(kvc_watch_open(async, "a", 1, 1u << 9, watched, NULL, &watch), KVC_INVALID,
	       "an unknown flag");
	ok_int(kvc_watch_open(async, NULL, 1, KVC_WATCH_PREFIX, watched, NULL, &watch), KVC_INVALID,
	       "no prefix");
	ok_int(kvc_watch_open(async, NULL, 0, KVC_WATCH_PREFIX, watched, NULL, &watch), KVC_OK,
	       "every key needs none");
	ok_int(kvc_watch_close(watch), KVC_OK, "close");
	ok_int(kvc_async_cancel(async, 77), KVC_NOT_FOUND, "a request that never was");
	ok_int(kvc_async_cancel(async, 0), KVC_NOT_FOUND, "nor is there one without a number");
	ok_u64(kvc_async_pending(async), 0, "nothing is under way");
	ok_int(kvc_async_close(async), KVC_OK, "close");
}

static void test_options(const struct fake *fake)
{
	struct kvc_options options;
	kvc *client;
	char text[256] = "", name[KVS_CLIENT_NAME_BYTES_MAX + 2];
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	kvc_options_init(NULL);
	kvc_options_init(&options);
	ok_int(kvc_open(NULL, &options), KVC_INVALID, "no place for the client");
	ok_int(setenv("KVD_SOCKET", fake->socket_path, 1), 0, "named by the environment");
	ok_int(kvc_open(&client, NULL), KVC_OK, "options may be left out");
	ok_int(kvc_close(client), KVC_OK, "close");
	(void)unsetenv("KVD_SOCKET");
	options.socket_path = "";
	options.flags = KVC_OPEN_NO_CONNECT;
	ok_int(kvc_open(&client, &options), KVC_OK, "an empty path");
	ok_str(client->socket_path, "/run/kvd/kvd.sock", "is the default");
	ok_int(kvc_close(client), KVC_OK, "close");
	options.flags = 0;
	options.socket_path = fake->socket_path;
	options.name = name;
	options.error_text = text;
	ok_int(kvc_open(&client, &options), KVC_INVALID, "a name too long");
	ok_str(text, "", "no room for a text: none");
	options.error_text_bytes = sizeof(text);
	ok_int(kvc_open(&client, &options), KVC_INVALID, "and with room");
	ok(text[0] != '\0', "it says: %s", text);
	options.name = "";
	options.reconnect_min_ms = 50;
	options.reconnect_max_ms = 10;
	ok_int(kvc_open(&client, &options), KVC_OK, "an empty name is none");
	ok_u64(client->options.reconnect_max_ms, 50, "the longest pause is no shorter than any");
	ok_int(kvc_close(client), KVC_OK, "close");
}

int main(void)
{
	static struct fake fake;
	kvc_reader *reader;
	memset(key_long, 'k', sizeof(key_long));
	fake_start(&fake, MEMORY_BYTES);
	fake_put_text(&fake, "a", "1");
	kvc *client = fake_client(&fake, &reader, 0);
	char byte;
	ok_int(kvc_get(reader, "a", 1, &byte, 1, NULL), KVC_OK, "attached");
	uint64_t requests = fake_get(&fake, &fake.requests);
	test_no_client(client);
	test_no_reader(reader);
	test_batches(client);
	test_no_handle();
	test_handle(&fake);
	test_options(&fake);
	ok_u64(fake_get(&fake, &fake.requests), requests, "nothing of all that was sent");
	test_requests(client);
	ok_u64(fake_get(&fake, &fake.requests), requests + 2,
	       "nor of the others, but what was good");
	ok_int(kvc_get(reader, "a", 1, &byte, 1, NULL), KVC_OK, "the reader reads on");
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_stop(&fake);
	return tap_done();
}
