// SPDX-License-Identifier: MIT
//
// Many keys at once, and snapshots of them.
// A: nothing older than acknowledged. I: a batch is seen whole or not at all.
#include <stddef.h>
#include <time.h>

#include "libclient/internal.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (64u << 20)
#define KEYS 100
#define BATCH 8
#define ROUNDS 3000

static char keys[KEYS][16];
static char values[KEYS][16];

static void prepare(struct kvc_item *items)
{
	memset(values, 0, sizeof(values));
	for (int i = 0; i < KEYS; i++) {
		(void)snprintf(keys[i], sizeof(keys[i]), "many%d", i);
		items[i] = (struct kvc_item){ .key = keys[i],
					      .key_bytes = strlen(keys[i]),
					      .buffer = values[i],
					      .buffer_bytes = sizeof(values[i]) };
	}
}

static bool as_expected(const struct kvc_item *items)
{
	bool good = true;
	for (int i = 0; i < KEYS; i++) {
		int expected = i % 7 == 3 ? KVC_NOT_FOUND : KVC_OK;
		good = good && items[i].status == expected &&
		       (expected != KVC_OK || (items[i].meta.value_bytes == strlen(keys[i]) &&
					       strcmp(values[i], keys[i]) == 0));
	}
	return good;
}

static void test_plain(struct fake *fake, kvc_reader *reader)
{
	struct kvc_item items[KEYS];
	prepare(items);
	for (int i = 0; i < KEYS; i++) {
		if (i % 7 != 3) {
			fake_put_text(fake, keys[i], keys[i]);
		}
	}
	ok_int(kvc_get_many(reader, items, KEYS, 0), KVC_OK, "a hundred");
	ok(as_expected(items), "each as it is");
	prepare(items);
	ok_int(kvc_get_many(reader, items, KEYS, KVC_GET_SNAPSHOT), KVC_OK, "as a snapshot");
	ok(as_expected(items), "the same");
	prepare(items);
	ok_int(kvc_begin(reader), KVC_OK, "inside a section");
	ok_int(kvc_get_many(reader, items, KEYS, 0), KVC_OK, "plain");
	ok(as_expected(items), "the same");
	ok_int(kvc_get_many(reader, items, KEYS, KVC_GET_SNAPSHOT), KVC_OK, "snapshot");
	ok_int(kvc_end(reader), KVC_OK, "end");
	prepare(items);
	items[0].key_bytes = 0;
	items[1].key_bytes = 600;
	items[2].buffer_bytes = 2;
	ok_int(kvc_get_many(reader, items, KEYS, 0), KVC_OK, "with bad items");
	ok(items[0].status == KVC_INVALID && items[1].status == KVC_TOO_LARGE &&
		   items[2].status == KVC_TRUNCATED && items[2].meta.value_bytes == 5,
	   "which say so");
	ok_int(kvc_get_many(reader, NULL, 0, 0), KVC_OK, "none");
	ok_int(kvc_get_many(reader, NULL, 1, 0), KVC_INVALID, "no items");
	ok_int(kvc_get_many(reader, items, 1, 99), KVC_INVALID, "unknown flag");
}

static void test_cold(struct fake *fake, kvc_reader *reader)
{
	struct kvc_item items[KEYS];
	prepare(items);
	fake_put_stub(fake, keys[5], 4);
	fake_put_stub(fake, keys[50], 4);
	for (uint32_t flags = 0; flags <= KVC_GET_SNAPSHOT; flags++) {
		memset(values, 0, sizeof(values));
		ok_int(kvc_get_many(reader, items, KEYS, flags), KVC_OK, "some only on disk");
		ok(strcmp(values[5], "ssss") == 0 && strcmp(values[50], "ssss") == 0 &&
			   items[5].meta.flags == KVC_META_SOCKET,
		   "come by socket");
		ok(strcmp(values[6], keys[6]) == 0, "the others are there too");
	}
	fake_put_text(fake, keys[5], keys[5]);
	fake_put_text(fake, keys[50], keys[50]);
}

static void test_gone(struct fake *fake, kvc *client, kvc_reader *reader)
{
	struct kvc_item items[KEYS];
	prepare(items);
	client->options.reconnect_min_ms = client->options.reconnect_max_ms = 60000;
	fake_kill(fake);
	fake_say_generation(fake, 99, 1);
	ok_int(kvc_get_many(reader, items, KEYS, 0), KVC_UNREACHABLE, "nobody there");
	ok(items[0].status == KVC_UNREACHABLE && items[99].status == KVC_UNREACHABLE,
	   "each item says so");
	ok_int(kvc_get_many(reader, items, KEYS, KVC_GET_SNAPSHOT), KVC_UNREACHABLE,
	       "snapshot too");
}

struct writer {
	struct fake *fake;
	uint64_t done;
	bool pause; // between batches
};

static void *write_batches(void *context)
{
	struct writer *writer = context;
	const char *names[BATCH];
	for (int i = 0; i < BATCH; i++) {
		names[i] = keys[i];
	}
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		fake_put_batch(writer->fake, names, BATCH, &round, sizeof(round));
		for (unsigned spin = 0; writer->pause && spin < 2000; spin++) {
			kvs_barrier_compiler();
		}
	}
	kvs_store_release(&writer->done, 1); // partner: the load in test_snapshots()
	return NULL;
}

static void test_snapshots(struct fake *fake, kvc_reader *reader, bool pause)
{
	struct writer writer = { .fake = fake, .pause = pause };
	struct kvc_item items[KEYS];
	uint64_t seen[BATCH], last = 0, mixed = 0, backwards = 0, good = 0, busy = 0, other = 0;
	pthread_t thread;
	prepare(items);
	for (int i = 0; i < BATCH; i++) {
		items[i].buffer = &seen[i];
		items[i].buffer_bytes = sizeof(seen[i]);
	}
	uint64_t zero = 0;
	const char *names[BATCH];
	for (int i = 0; i < BATCH; i++) {
		names[i] = keys[i];
	}
	fake_put_batch(fake, names, BATCH, &zero, sizeof(zero));
	pthread_create(&thread, NULL, write_batches, &writer);
	while (kvs_load_acquire(&writer.done) == 0 || good == 0) {
		int status = kvc_get_many(reader, items, BATCH, KVC_GET_SNAPSHOT);
		if (status != KVC_OK) {
			busy += status == KVC_BUSY;
			other += status != KVC_BUSY;
			continue;
		}
		good++;
		for (int i = 1; i < BATCH; i++) {
			mixed += seen[i] != seen[0];
		}
		backwards += seen[0] < last;
		last = seen[0];
	}
	pthread_join(thread, NULL);
	(void)kvc_get_many(reader, items, BATCH, KVC_GET_SNAPSHOT);
	tap_diag("%llu snapshots, %llu busy", (unsigned long long)good, (unsigned long long)busy);
	ok_u64(other, 0, "no error");
	ok_u64(mixed, 0, "I1: no snapshot mixes two batches");
	ok_u64(backwards, 0, "A: none is older than the one before");
	ok_u64(seen[0], ROUNDS, "A: the last one is the last batch");
}

int main(void)
{
	struct fake fake;
	kvc_reader *reader;
	fake_start(&fake, MEMORY_BYTES);
	kvc *client = fake_client(&fake, &reader, 0);
	test_plain(&fake, reader);
	test_cold(&fake, reader);
	test_snapshots(&fake, reader, true);
	test_snapshots(&fake, reader, false);
	kvs_store_release(&fake.fixture.region.header->marks.last_removal_seq, KVS_SEQ_MAX);
	struct kvc_item item = { .key = "many1", .key_bytes = 5 };
	ok_int(kvc_get_many(reader, &item, 1, KVC_GET_SNAPSHOT), KVC_BUSY,
	       "I: removals all the time: BUSY");
	ok_int(kvc_get_many(reader, &item, 1, 0), KVC_OK, "plain does not mind");
	test_gone(&fake, client, reader);
	ok_int(kvc_close(client), KVC_OK, "close");
	fake_stop(&fake);
	return tap_done();
}
