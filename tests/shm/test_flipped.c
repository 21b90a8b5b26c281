// SPDX-License-Identifier: MIT
//
// H: a region whose bytes change while they are read, by a kvd gone mad or by failing memory. A
// thread puts garbage into words of the header, the table, overflow buckets and records, and what
// was there back, as fast as it can, while others search, scan and load: each answer must lie
// within what is mapped, whatever was true a moment before. The sanitizers look on. That both
// overlap is waited for, not hoped for: garbage now and then stands until somebody has read on, and
// readers read on until they have seen some, and hits.
#include <pthread.h>
#include <stdlib.h>

#include "shm/table_quick.h"
#include "tests/shm/fixture.h"
#include "tests/shm/flipped_fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define KEYS 3000u
#define ROUNDS 300000u
#define HITS_LEAST (ROUNDS / 100)
#define LONGER 100u // times the rounds: so long readers look for what they have not seen
#define WANTED 32u  // keys that are read, and whose words change most

struct world {
	struct fixture f;
	struct kvs_hit wanted[WANTED];
	uint64_t stop;		// partner: the load in flip()
	uint64_t read[READERS]; // rounds of each; partner: the loads in rounds_read()
	uint64_t flips;
};

struct reader {
	struct world *world;
	uint64_t *read; // the world's word of this reader
	struct kvs_map map;
	struct kvs_quick_aim aim;
	uint64_t random;
	uint64_t answers[KVS_FIND_DAMAGED + 1];
	uint64_t quick;
	uint64_t outside;
};

static void key_of(uint64_t i, char key[16])
{
	(void)snprintf(key, 16, "key:%u", (unsigned)(i % KEYS));
}

// A word that a read of one of the keys comes by: its bucket's, link included, or its record's.
static uint64_t *choose_wanted(const struct kvs_hit *hit, uint64_t dice, uint64_t at)
{
	if (dice % 2 == 0) {
		uintptr_t bucket = (uintptr_t)hit->slot & ~(uintptr_t)(KVS_CACHE_LINE_BYTES - 1);
		return at % 3 == 0 ? hit->slot : (uint64_t *)bucket + at % 8;
	}
	return (uint64_t *)(uintptr_t)hit->view.record + at % (hit->view.record_bytes / 8);
}

// A word of the region, mostly one that many reads come by.
static uint64_t *choose(struct world *world, uint64_t *random)
{
	struct fixture *f = &world->f;
	uint64_t dice = tap_random(random) % 16;
	uint64_t at = tap_random(random);
	struct kvs_region_header *header = f->region.header;
	if (dice > 4) {
		return choose_wanted(&world->wanted[at % WANTED], dice, at / WANTED);
	}
	if (dice == 0) {
		return &header->hot.table_root;
	}
	if (dice == 1) {
		return (uint64_t *)(void *)header + at % (sizeof(*header) / 8);
	}
	if (dice == 2) {
		return (uint64_t *)(void *)header->hash_sides + at % 8;
	}
	unsigned range = dice == 3 ? KVS_RANGE_TABLE_0 : KVS_RANGE_OVERFLOW_0;
	uint64_t bytes = f->table.populated[range];
	unsigned char *start = f->region.base + f->region.map.ranges[range].offset;
	return (uint64_t *)(void *)start + at % (bytes / 8);
}

static uint64_t garbage(uint64_t before, uint64_t *random)
{
	uint64_t word = tap_random(random);
	switch (word % 4) {
	case 0:
		return before ^ UINT64_C(1) << (word >> 58); // one bit
	case 1:
		return before + (word >> 2) % 4096 - 2048; // somewhere near
	case 2:
		return word >> (word >> 8) % 64; // small
	default:
		return word;
	}
}

static void *flip(void *context)
{
	struct world *world = context;
	uint64_t random = 99;
	while (kvs_load_acquire(&world->stop) == 0) {
		uint64_t *word[4];
		uint64_t before[4];
		for (unsigned i = 0; i < 4; i++) {
			word[i] = choose(world, &random);
			before[i] = kvs_load_relaxed(word[i]);
			kvs_store_release(word[i], garbage(before[i], &random));
		}
		for (uint64_t spins = tap_random(&random) % 300; spins > 0; spins--) {
			kvs_barrier_compiler(); // so long it stands
		}
		if (world->flips % (4 * STANDS) == 0) {
			stand(world->read);
		}
		for (unsigned i = 4; i-- > 0;) { // the other way round: one may have come twice
			kvs_store_release(word[i], before[i]);
		}
		world->flips += 4;
	}
	return NULL;
}

static bool within(const struct kvs_map *map, int range, const void *at, uint64_t bytes)
{
	const unsigned char *start = map->base + map->ranges[range].offset;
	uint64_t ready = kvs_load_acquire(&map->ready[range]);
	uint64_t offset = (uint64_t)((const unsigned char *)at - start);
	return offset <= ready && bytes <= ready - offset;
}

static void touch(const unsigned char *at, uint64_t bytes)
{
	const volatile unsigned char *byte = at;
	if (bytes > 0) {
		(void)byte[0];
		(void)byte[bytes / 2];
		(void)byte[bytes - 1];
	}
}

static void look(struct reader *r, const char *key)
{
	struct kvs_hit hit;
	struct kvs_quick quick;
	size_t bytes = strlen(key);
	uint64_t hash = kvs_map_hash(&r->map, key, bytes);
	kvs_table_prefetch_bucket(&r->map, hash);
	kvs_table_prefetch_record(&r->map, hash);
	enum kvs_find_result result = kvs_table_find(&r->map, hash, key, bytes, &hit);
	r->answers[result]++;
	if (result == KVS_FIND_HIT) {
		bool large = (hit.view.flags & KVS_RECORD_LARGE) != 0;
		r->outside +=
			!within(&r->map, KVS_RANGE_LOG, hit.view.record, hit.view.record_bytes);
		r->outside += hit.value != NULL &&
			      !within(&r->map, large ? KVS_RANGE_LARGE : KVS_RANGE_LOG, hit.value,
				      hit.view.value_bytes);
		touch(hit.value, hit.value != NULL ? hit.view.value_bytes : 0);
	}
	hash = kvs_hash(r->aim.hash_seed, key, bytes);
	const struct kvs_hot *hot = &kvs_map_header(&r->map)->hot;
	if (kvs_table_quick(hot, &r->aim, hash, key, bytes, false, &quick)) {
		r->outside += !within(&r->map, KVS_RANGE_LOG, quick.value, quick.value_bytes);
		touch(quick.value, quick.value_bytes);
		r->quick++;
	} else {
		(void)kvs_quick_aim(&r->map, &r->aim);
	}
}

static void visit(void *context, uint64_t entry)
{
	struct reader *r = context;
	struct kvs_hit hit;
	if (kvs_table_load(&r->map, entry, &hit) == KVS_FIND_HIT) {
		r->outside +=
			!within(&r->map, KVS_RANGE_LOG, hit.view.record, hit.view.record_bytes);
	}
}

static bool unseen(const struct reader *r)
{
	const uint64_t *answers = r->answers;
	return answers[KVS_FIND_HIT] <= HITS_LEAST || r->quick == 0 ||
	       answers[KVS_FIND_ABSENT] + answers[KVS_FIND_UNMAPPED] + answers[KVS_FIND_MOVING] +
			       answers[KVS_FIND_DAMAGED] ==
		       0;
}

static void *read_on(void *context)
{
	struct reader *r = context;
	kvs_quick_aim_clear(&r->aim);
	const unsigned rounds = tap_rounds(ROUNDS, ROUNDS / 10);
	for (unsigned round = 0; round < rounds || (unseen(r) && round / LONGER < rounds);
	     round++) {
		char key[16];
		key_of(tap_random(&r->random) % WANTED, key);
		look(r, key);
		if (round % 16 == 0) {
			(void)kvs_table_scan(&r->map, tap_random(&r->random), visit, r);
		}
		if (round % 64 == 0) {
			(void)kvs_map_extend(&r->map);
			kvs_quick_aim_clear(&r->aim); // as libclient does behind it
		}
		kvs_count(r->read, 1); // partner: the loads in rounds_read()
	}
	return NULL;
}

// Mapping is a look at the header, once: any moment of it may be the one that is copied.
static unsigned map_again_and_again(struct world *world)
{
	unsigned mapped = 0;
	for (unsigned i = 0; i < 2000; i++) {
		struct kvs_map map;
		struct kvs_hit hit;
		if (kvs_map_open(&map, world->f.region.fd_readonly) == KVS_MAP_OK) {
			(void)fixture_find(&map, "key:1", 5, &hit);
			kvs_map_close(&map);
			mapped++;
		}
	}
	return mapped;
}

int main(void)
{
	static struct world world;
	static struct reader readers[READERS];
	pthread_t threads[READERS + 1];
	uint64_t seed = tap_seed(31);
#ifdef KVS_TSAN
	printf("1..0 # SKIP bytes that change while they are read are what is tested\n");
	return 0;
#endif
	fixture_open(&world.f, MEMORY, SEGMENT);
	world.f.step_after_write = true;
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];
		static const char value[300];
		key_of(i, key);
		(void)fixture_set(&world.f, key, strlen(key), value, i % sizeof(value));
	}
	for (unsigned i = 0; i < WANTED; i++) {
		char key[16];
		key_of(i, key);
		(void)fixture_find(&world.f.region.map, key, strlen(key), &world.wanted[i]);
	}
	for (unsigned i = 0; i < READERS; i++) {
		readers[i].world = &world;
		readers[i].read = &world.read[i];
		readers[i].random = seed + i;
		fixture_map_reader(&world.f, &readers[i].map);
	}
	pthread_create(&threads[READERS], NULL, flip, &world);
	for (unsigned i = 0; i < READERS; i++) {
		pthread_create(&threads[i], NULL, read_on, &readers[i]);
	}
	unsigned mapped = map_again_and_again(&world);
	uint64_t outside = 0;
	bool all_seen = true;
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(threads[i], NULL);
		all_seen = all_seen && !unseen(&readers[i]);
		outside += readers[i].outside;
	}
	kvs_store_release(&world.stop, 1);
	pthread_join(threads[READERS], NULL);
	const struct reader *r = &readers[0];
	tap_diag("%" PRIu64 " words changed and back; of one reader %" PRIu64 " hits, %" PRIu64
		 " quick ones, %" PRIu64 " misses, %" PRIu64 " unmapped, %" PRIu64
		 " moving, %" PRIu64 " damaged; mapped %u times of 2000",
		 world.flips, r->answers[KVS_FIND_HIT], r->quick, r->answers[KVS_FIND_ABSENT],
		 r->answers[KVS_FIND_UNMAPPED], r->answers[KVS_FIND_MOVING],
		 r->answers[KVS_FIND_DAMAGED], mapped);
	ok_u64(outside, 0, "H2: no answer lies outside of what is mapped");
	ok(all_seen, "and it was the region that was read, while it changed");
	unsigned missing = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];
		struct kvs_hit hit;
		key_of(i, key);
		(void)kvs_map_extend(&readers[0].map);
		missing += fixture_find(&readers[0].map, key, strlen(key), &hit) != KVS_FIND_HIT;
	}
	ok_u64(missing, 0, "what was put back is found again");
	for (unsigned i = 0; i < READERS; i++) {
		kvs_map_close(&readers[i].map);
	}
	fixture_close(&world.f);
	return tap_done();
}
