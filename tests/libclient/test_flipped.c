// SPDX-License-Identifier: MIT
//
// H: the library while words of the region change to garbage and back under its readers: gets,
// views, multi-gets and tokens give a value, a miss or an error, never a crash or an endless loop,
// and when the garbage is gone all is as it was. tests/shm/test_flipped.c looks at the bounds; here
// the sanitizers do, and the clock: the test has a time limit. That both overlap is waited for, not
// hoped for: garbage now and then stands until somebody has read on, and readers read on until they
// have seen some, and values.
#include "libclient/internal.h"
#include "tests/libclient/fake.h"
#include "tests/shm/flipped_fixture.h"
#include "tests/tap/tap.h"

#define MEMORY_BYTES (4u << 20)
#define KEYS 64u
#define ROUNDS 50000u
#define VALUES_LEAST (ROUNDS / 100)
#define LONGER 200u // times the rounds: so long readers look for what they have not seen
#define ITEMS 24u
#define STATUSES 32

struct world {
	struct fake fake;
	kvc *client;
	struct kvs_hit hits[KEYS];
	uint64_t stop;		// partner: the load in flip()
	uint64_t read[READERS]; // rounds of each; partner: the loads in rounds_read()
	uint64_t flips;
};

struct reader {
	struct world *world;
	uint64_t *read; // the world's word of this reader
	kvc_reader *reader;
	uint64_t random;
	uint64_t answers[2]; // values, anything else
	uint64_t strange;    // a status that the call does not have
};

static size_t key_of(uint64_t i, char key[16])
{
	return (size_t)snprintf(key, 16, "a-key:%06u", (unsigned)(i % KEYS));
}

static uint64_t *choose(struct world *world, uint64_t *random)
{
	struct kvs_region_header *header = world->fake.fixture.region.header;
	const struct kvs_hit *hit = &world->hits[tap_random(random) % KEYS];
	uint64_t at = tap_random(random);
	switch (tap_random(random) % 16) {
	case 0:
		return (uint64_t *)(void *)&header->hot + at % 4;
	case 1:
		return (uint64_t *)(void *)header + at % 128;
	case 2:
		return &header->hot.table_root;
	case 3:
		return (uint64_t *)(void *)header->hash_sides + at % 8;
	case 4:
	case 5:
	case 6:
	case 7:
		return (uint64_t *)((uintptr_t)hit->slot & ~(uintptr_t)63) + at % 8;
	default:
		return (uint64_t *)(uintptr_t)hit->view.record + at % (hit->view.record_bytes / 8);
	}
}

static void *flip(void *context)
{
	struct world *world = context;
	uint64_t random = 7;
	while (kvs_load_acquire(&world->stop) == 0) {
		uint64_t *word = choose(world, &random);
		uint64_t before = kvs_load_relaxed(word);
		uint64_t any = tap_random(&random);
		kvs_store_release(word, any % 2 == 0 ? before ^ UINT64_C(1) << (any >> 58)
						     : any >> any % 64);
		for (uint64_t spins = any >> 50 & 1023; spins > 0; spins--) {
			kvs_barrier_compiler(); // so long it stands
		}
		if (world->flips % STANDS == 0) {
			stand(world->read);
		}
		kvs_store_release(word, before);
		world->flips++;
	}
	return NULL;
}

static void touch(const void *value, size_t bytes)
{
	const volatile unsigned char *at = value;
	for (size_t i = 0; i < bytes; i += 16) {
		(void)at[i];
	}
	if (bytes > 0) {
		(void)at[bytes - 1];
	}
}

static void note(struct reader *r, int status)
{
	r->answers[status == KVC_OK || status == KVC_TRUNCATED ? 0 : 1]++;
	r->strange += status > STATUSES || status < -STATUSES || status == KVC_INVALID;
}

static void get_one(struct reader *r, const char *key, size_t key_bytes)
{
	char buffer[400];
	struct kvc_meta meta;
	void *copy;
	note(r, kvc_get(r->reader, key, key_bytes, buffer, sizeof(buffer), NULL));
	int status = kvc_get(r->reader, key, key_bytes, buffer, sizeof(buffer), &meta);
	note(r, status);
	status = kvc_get_alloc(r->reader, key, key_bytes, &copy, &meta);
	note(r, status);
	if (status == KVC_OK) {
		touch(copy, meta.value_bytes);
		free(copy);
	}
}

static void view_one(struct reader *r, const char *key, size_t key_bytes)
{
	struct kvc_view view;
	struct kvc_token token;
	(void)kvc_begin(r->reader);
	int status = kvc_view_token(r->reader, key, key_bytes, &view, &token);
	note(r, status);
	if (status == KVC_OK) {
		touch(view.value, view.value_bytes);
	}
	note(r, kvc_end(r->reader));
	status = kvc_check(r->reader, &token); // INVALID for a token that stands for nothing
	r->strange += status != KVC_OK && status != KVC_CHANGED && status != KVC_INVALID;
}

static void get_many(struct reader *r, uint32_t flags)
{
	static _Thread_local char keys[ITEMS][16], buffers[ITEMS][400];
	struct kvc_item items[ITEMS];
	for (unsigned i = 0; i < ITEMS; i++) {
		items[i] = (struct kvc_item){ .key = keys[i],
					      .key_bytes = key_of(tap_random(&r->random), keys[i]),
					      .buffer = buffers[i],
					      .buffer_bytes = sizeof(buffers[i]) };
	}
	note(r, kvc_get_many(r->reader, items, ITEMS, flags));
}

static bool unseen(const struct reader *r)
{
	return r->answers[0] <= VALUES_LEAST || r->answers[1] == 0;
}

static void *read_on(void *context)
{
	struct reader *r = context;
	const unsigned rounds = tap_rounds(ROUNDS, ROUNDS / 10);
	for (unsigned round = 0; round < rounds || (unseen(r) && round / LONGER < rounds);
	     round++) {
		char key[16];
		size_t key_bytes = key_of(tap_random(&r->random), key);
		uint64_t applied, durable;
		switch (round % 8) {
		case 0:
			get_many(r, 0);
			break;
		case 1:
			get_many(r, KVC_GET_SNAPSHOT);
			break;
		case 2:
			note(r, kvc_watermarks(r->reader, &applied, &durable));
			break;
		case 3:
		case 4:
		case 5:
			get_one(r, key, key_bytes);
			break;
		default:
			view_one(r, key, key_bytes);
			break;
		}
		kvs_count(r->read, 1); // partner: the loads in rounds_read()
	}
	return NULL;
}

static unsigned count_wrong(kvc_reader *reader)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16], buffer[400];
		struct kvc_meta meta = { 0 };
		size_t key_bytes = key_of(i, key);
		int status = kvc_get(reader, key, key_bytes, buffer, sizeof(buffer), &meta);
		wrong += status != KVC_OK || meta.value_bytes != i * 5 || meta.flags != 0;
	}
	return wrong;
}

int main(void)
{
	static struct world world;
	static struct reader readers[READERS];
	pthread_t threads[READERS + 1];
	uint64_t seed = tap_seed(41);
#ifdef KVS_TSAN
	printf("1..0 # SKIP bytes that change while they are read are what is tested\n");
	return 0;
#endif
	fake_start(&world.fake, MEMORY_BYTES);
	for (unsigned i = 0; i < KEYS; i++) {
		static const char value[KEYS * 5];
		char key[16];
		(void)key_of(i, key);
		fake_put(&world.fake, key, value, i * 5, i % 7 == 3 ? UINT64_C(1) << 44 : 0);
	}
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];
		size_t key_bytes = key_of(i, key);
		(void)fixture_find(&world.fake.fixture.region.map, key, key_bytes, &world.hits[i]);
	}
	world.client = fake_client(&world.fake, &readers[0].reader, 0);
	ok_u64(count_wrong(readers[0].reader), 0, "what is there is read through the mapping");
	(void)kvc_reader_open(world.client, &readers[1].reader);
	fake_set(&world.fake, error, "-ERR only the mapping answers here\r\n");
	fake_set(&world.fake, request, FAKE_ERROR); // it must not look into its table either
	pthread_create(&threads[READERS], NULL, flip, &world);
	for (unsigned i = 0; i < READERS; i++) {
		readers[i].world = &world;
		readers[i].read = &world.read[i];
		readers[i].random = seed + i;
		pthread_create(&threads[i], NULL, read_on, &readers[i]);
	}
	uint64_t answers[2] = { 0, 0 }, strange = 0;
	bool all_seen = true;
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(threads[i], NULL);
		answers[0] += readers[i].answers[0];
		answers[1] += readers[i].answers[1];
		strange += readers[i].strange;
		all_seen = all_seen && !unseen(&readers[i]);
	}
	kvs_store_release(&world.stop, 1);
	pthread_join(threads[READERS], NULL);
	ok(all_seen, "H: %llu values and %llu others while %llu words changed to garbage and back",
	   (unsigned long long)answers[0], (unsigned long long)answers[1],
	   (unsigned long long)world.flips);
	ok_u64(strange, 0, "H2: every answer is one that the call has");
	fake_set(&world.fake, request, FAKE_ANSWER);
	unsigned wrong = 1;
	for (unsigned i = 0; i < 10000 && wrong > 0; i++) {
		wrong = count_wrong(readers[0].reader); // it may wait before it attaches anew
	}
	ok_u64(wrong, 0, "when it is over, everything is read through the mapping again");
	(void)kvc_reader_close(readers[1].reader);
	ok_int(kvc_close(world.client), KVC_OK, "and closed");
	fake_stop(&world.fake);
	return tap_done();
}
