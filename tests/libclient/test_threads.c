// SPDX-License-Identifier: MIT
//
// Readers in many threads of one process while records are overwritten, moved by a cleaner and
// their segments reused, and the table is rebuilt under other hash keys: every value read must be
// one that was written for its key. B: copies are whole, views stand until their end. Threads also
// open and close readers, and one writes by socket.
#include <sched.h>
#include <stddef.h>

#include "libclient/internal.h"
#include "tests/libclient/fake.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (4u << 20)
#define KEYS 500
#define VALUE_WORDS 32
#define READERS 4
#define WRITES 120000
#define LONGER 100	// times the writes: so long it goes on until all of the below has been seen
#define VIEWS_LEAST 20u // of each reader
#define CHURNED_LEAST 6u
#define REUSED_LEAST 51u
#define RESEEDS_LEAST 21u

struct shared {
	struct fake fake;
	kvc *client;
	uint64_t stop;		// partner: loads in the readers
	uint64_t seen[READERS]; // views of each; partner: the loads in enough()
	uint64_t gets, views, bad, revoked, churned, reseeds;
};

struct reading {
	struct shared *shared;
	unsigned number;
};

static void key_name(char *key, uint64_t i)
{
	(void)snprintf(key, 16, "key%03u", (unsigned)(i % KEYS));
}

static void value_fill(uint64_t *value, uint64_t i, uint64_t round)
{
	for (uint64_t w = 0; w < VALUE_WORDS; w++) {
		value[w] = (i % KEYS) << 48 | (round * 31 + w * round) << 8 >> 8 << 8 | w;
	}
	value[0] = (i % KEYS) << 48 | round;
}

static bool value_good(const uint64_t *value, size_t bytes, uint64_t i)
{
	uint64_t expected[VALUE_WORDS];
	if (bytes != sizeof(expected) || value[0] >> 48 != i % KEYS) {
		return false;
	}
	value_fill(expected, i, value[0] & ((UINT64_C(1) << 48) - 1));
	return memcmp(value, expected, sizeof(expected)) == 0;
}

static void *read_values(void *context)
{
	const struct reading *reading = context;
	struct shared *shared = reading->shared;
	kvc_reader *reader;
	uint64_t random = reading->number, gets = 0, views = 0, bad = 0, revoked = 0;
	char key[16];
	bad += kvc_reader_open(shared->client, &reader) != KVC_OK;
	while (kvs_load_acquire(&shared->stop) == 0) { // partner: the store in main()
		uint64_t value[VALUE_WORDS];
		struct kvc_meta meta = { 0 };
		uint64_t i = tap_random(&random) % KEYS;
		key_name(key, i);
		int status = kvc_get(reader, key, 6, value, sizeof(value), &meta);
		bad += status != KVC_OK || !value_good(value, meta.value_bytes, i);
		gets++;
		if (gets % 16 != 0) {
			continue;
		}
		struct kvc_view view;
		(void)kvc_begin(reader);
		bool good = kvc_view(reader, key, 6, &view) == KVC_OK;
		if (good) {
			memcpy(value, view.value,
			       sizeof(value) < view.value_bytes ? sizeof(value) : view.value_bytes);
			good = value_good(value, view.value_bytes, i);
		}
		status = kvc_end(reader);
		revoked += status == KVC_REVOKED;
		bad += status == KVC_OK && !good;
		views++;
		kvs_store_release(&shared->seen[reading->number], views); // partner: enough()
	}
	bad += kvc_reader_close(reader) != KVC_OK;
	__atomic_fetch_add(&shared->gets, gets, __ATOMIC_RELAXED);
	__atomic_fetch_add(&shared->views, views, __ATOMIC_RELAXED);
	__atomic_fetch_add(&shared->bad, bad, __ATOMIC_RELAXED);
	__atomic_fetch_add(&shared->revoked, revoked, __ATOMIC_RELAXED);
	return NULL;
}

static void *churn_readers(void *context)
{
	struct shared *shared = context;
	uint64_t bad = 0;
	while (kvs_load_acquire(&shared->stop) == 0) { // partner: the store in main()
		kvc_reader *reader;
		char byte;
		bad += kvc_reader_open(shared->client, &reader) != KVC_OK;
		bad += kvc_get(reader, "key001", 6, &byte, 1, NULL) != KVC_TRUNCATED;
		bad += kvc_is_mapped(shared->client) != 1;
		bad += kvc_reader_close(reader) != KVC_OK;
		kvs_count(&shared->churned, 1); // partner: the load in enough()
		sched_yield();
	}
	__atomic_fetch_add(&shared->bad, bad, __ATOMIC_RELAXED);
	return NULL;
}

// Empties the fullest-of-garbage segments until there is room again.
static void make_room(struct fixture *f)
{
	for (unsigned tries = 0; tries < 1000 && kvs_log_segments_free(&f->log) < 8; tries++) {
		uint32_t best = KVS_SEGMENT_NONE;
		for (uint32_t i = 0; i < f->log.touched_count; i++) {
			const struct kvs_segment *s = &f->log.segments[i];
			bool full =
				s->state == KVS_SEGMENT_HEAD || s->state == KVS_SEGMENT_SURVIVOR;
			if (full && i != f->log.head.segment && i != f->log.survivor.segment &&
			    (best == KVS_SEGMENT_NONE ||
			     s->live_bytes < f->log.segments[best].live_bytes)) {
				best = i;
			}
		}
		if (best == KVS_SEGMENT_NONE || !fixture_clean(f, best)) {
			break;
		}
		for (unsigned i = 0; i < 10000000 && fixture_reclaim(f) == 0; i++) {
			sched_yield(); // a reader holds it: it will be done soon
		}
	}
}

// A little more of a rebuild of the table under another hash key, again and again.
static void reseed(struct shared *shared, uint64_t n)
{
	struct kvs_table *table = &shared->fake.fixture.table;
	const uint64_t hash_key[2] = { n, ~n };
	if (!table->reseed.active) {
		(void)kvs_table_reseed_begin(table, hash_key); // once the last side is free
	} else if (kvs_table_reseed_step(table, 2) == 1) {
		kvs_table_reseed_publish(table);
		shared->reseeds++;
	}
}

// However the threads are scheduled: each of them has been at work, and what it must not disturb
// has happened.
static bool enough(const struct shared *shared, uint64_t reused)
{
	bool all = reused >= REUSED_LEAST && shared->reseeds >= RESEEDS_LEAST &&
		   kvs_load_relaxed(&shared->churned) >= CHURNED_LEAST;
	for (unsigned i = 0; i < READERS; i++) {
		all = all && kvs_load_acquire(&shared->seen[i]) >= VIEWS_LEAST;
	}
	return all;
}

static uint64_t write_values(struct shared *shared, uint64_t *reused)
{
	struct fixture *f = &shared->fake.fixture;
	uint64_t refused = 0;
	char key[16];
	uint64_t value[VALUE_WORDS];
	const uint64_t writes = tap_rounds(WRITES, 12000);
	for (uint64_t n = 0; n < writes || (!enough(shared, *reused) && n / LONGER < writes); n++) {
		key_name(key, n);
		value_fill(value, n, n / KEYS);
		pthread_mutex_lock(&shared->fake.mutex);
		uint64_t freed = kvs_log_segments_free(&f->log);
		if (freed < 4) {
			make_room(f);
			*reused += kvs_log_segments_free(&f->log) - freed;
		}
		refused += fixture_set(f, key, 6, value, sizeof(value)) == 0;
		reseed(shared, n);
		pthread_mutex_unlock(&shared->fake.mutex);
		if (n % 1000 == 999) {
			refused += kvc_set(shared->client, "by-socket", 9, value, 64, NULL, NULL) !=
				   KVC_OK;
		}
	}
	return refused;
}

#ifdef KVS_TSAN
// ThreadSanitizer goes by addresses: it sees a race only if reader and writer use the same mapping.
static struct kvs_reader_page *share_mapping(struct shared *shared)
{
	struct kvc_attachment *attachment = shared->client->attachment;
	struct kvs_region *region = &shared->fake.fixture.region;
	struct kvs_reader_page *own = attachment->pages[0];
	kvs_map_close(&attachment->map);
	ok_int(kvs_map_adopt(&attachment->map, region->base, region->bytes), KVS_MAP_OK,
	       "readers use the writer's mapping");
	attachment->hot = &region->header->hot;
	attachment->pages[0] = shared->fake.pages[0]->page;
	return own;
}
#endif

static void run(uint32_t flags, const char *how)
{
	struct shared shared = { .stop = 0 };
	struct reading readings[READERS];
	pthread_t threads[READERS + 1];
	kvc_reader *reader;
	uint64_t value[VALUE_WORDS], reused = 0;
	char key[16];
	fake_start(&shared.fake, MEMORY_BYTES);
	for (uint64_t i = 0; i < KEYS; i++) {
		key_name(key, i);
		value_fill(value, i, 0);
		fake_put(&shared.fake, key, value, sizeof(value), 0);
	}
	shared.client = fake_client(&shared.fake, &reader, flags);
#ifdef KVS_TSAN
	(void)kvc_reader_close(reader);
	struct kvs_reader_page *own = share_mapping(&shared);
#endif
	for (unsigned i = 0; i < READERS; i++) {
		readings[i] = (struct reading){ .shared = &shared, .number = i };
		pthread_create(&threads[i], NULL, read_values, &readings[i]);
	}
	pthread_create(&threads[READERS], NULL, churn_readers, &shared);
	ok_u64(write_values(&shared, &reused), 0, "%s: all writes", how);
	kvs_store_release(&shared.stop, 1);
	for (int i = 0; i <= READERS; i++) {
		pthread_join(threads[i], NULL);
	}
	tap_diag("%llu gets, %llu views (%llu revoked), %llu readers opened, %llu segments reused",
		 (unsigned long long)shared.gets, (unsigned long long)shared.views,
		 (unsigned long long)shared.revoked, (unsigned long long)shared.churned,
		 (unsigned long long)reused);
	ok_u64(shared.bad, 0, "B: %s: every value is one that was written for its key", how);
	ok(enough(&shared, REUSED_LEAST), "%s: and enough of them", how);
	ok(reused >= REUSED_LEAST, "%s: while memory was reused", how);
	ok(shared.reseeds >= RESEEDS_LEAST, "A: %s: and the hash key changed %llu times", how,
	   (unsigned long long)shared.reseeds);
#ifdef KVS_TSAN
	shared.client->attachment->pages[0] = own;
#endif
	ok_int(kvc_close(shared.client), KVC_OK, "%s: close", how);
	fake_stop(&shared.fake);
}

int main(void)
{
	run(0, "light");
	run(KVC_OPEN_FENCED, "fenced");
	return tap_done();
}
