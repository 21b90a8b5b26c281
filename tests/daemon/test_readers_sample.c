// SPDX-License-Identifier: MIT
//
// What kvd takes from the rings behind reader pages: everything that is new, a share of each user
// and process, whatever they wrote there; and how often it asks readers for more.
#include <stdlib.h>
#include <string.h>

#include "daemon/keyspace.h"
#include "daemon/readers_parts.h"
#include "daemon/seam.h"
#include "shm/counters.h"
#include "shm/map.h"
#include "tests/tap/tap.h"

#define TURN_NS UINT64_C(1000000)
#define CLIENTS 4u

static bool wanted;
static uint64_t taken_count;
static uint64_t taken_of[CLIENTS + 1]; // by the top byte of the hash: whose it is
static uint64_t taken_sum;
static uint64_t counters[KVS_PAGE_BYTES / 8];
static struct kvs_map map = { .base = (unsigned char *)counters };

bool keyspace_wants_heat(struct keyspace *keyspace)
{
	(void)keyspace;
	return wanted;
}

void keyspace_warm(struct keyspace *keyspace, const uint64_t *hashes, size_t count)
{
	(void)keyspace;
	for (size_t i = 0; i < count; i++) {
		taken_count++;
		taken_of[hashes[i] >> 56 <= CLIENTS ? hashes[i] >> 56 : 0]++;
		taken_sum += hashes[i] & 0xffffff;
	}
}

const struct kvs_map *keyspace_map(const struct keyspace *keyspace)
{
	(void)keyspace;
	return &map;
}

static uint64_t look_ns; // from one look at the clock to the next
static uint64_t clock_ns;

static uint64_t stub_clock(void)
{
	return clock_ns += look_ns;
}

static const struct seam seam = { .monotonic_ns = stub_clock };

struct crowd {
	struct kvd kvd;
	struct readers readers;
	struct readers_user user[2];
	struct reader_client client[CLIENTS];
	struct kvs_epoch_page page[CLIENTS];
	uint64_t now_ns;
};

// The last client is one user's, the others another's; each has a page.
static void crowd_open(struct crowd *crowd)
{
	memset(crowd, 0, sizeof(*crowd));
	crowd->readers.kvd = &crowd->kvd;
	crowd->kvd.seam = &seam;
	look_ns = 1000;
	crowd->now_ns = TURN_NS;
	TAILQ_INIT(&crowd->readers.clients);
	LIST_INIT(&crowd->readers.users);
	LIST_INSERT_HEAD(&crowd->readers.users, &crowd->user[0], link);
	LIST_INSERT_HEAD(&crowd->readers.users, &crowd->user[1], link);
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct reader_client *client = &crowd->client[i];
		client->user = &crowd->user[i == CLIENTS - 1];
		client->user->clients++;
		client->pages_count = 1;
		client->pages[0] = &crowd->page[i];
		client->sights[0] = calloc(1, sizeof(struct readers_sight));
		crowd->page[i].page = aligned_alloc(KVS_PAGE_BYTES, KVS_PAGE_FILE_BYTES);
		memset(crowd->page[i].page, 0, KVS_PAGE_FILE_BYTES);
		TAILQ_INSERT_TAIL(&crowd->readers.clients, client, link);
		crowd->readers.count++;
	}
	wanted = true;
}

static void crowd_close(struct crowd *crowd)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		free(crowd->client[i].sights[0]);
		free(crowd->page[i].page);
	}
}

static uint64_t crowd_turn(struct crowd *crowd)
{
	taken_count = 0;
	taken_sum = 0;
	memset(taken_of, 0, sizeof(taken_of));
	crowd->now_ns += TURN_NS;
	return readers_sample(&crowd->readers, crowd->now_ns);
}

// The reader of a slot hits `count` keys.
static void read_keys(struct crowd *crowd, unsigned client, unsigned slot, unsigned count)
{
	struct kvs_reader_page *page = crowd->page[client].page;
	for (unsigned i = 0; i < count; i++) {
		uint64_t at = page->slot[slot].sample_count++;
		kvs_page_ring(page, slot)->hash[at % KVS_RING_SAMPLES] =
			(uint64_t)(client + 1) << 56 | at;
	}
}

static uint64_t every_of(const struct crowd *crowd, unsigned client)
{
	return crowd->page[client].page->header.sample_every;
}

static void test_taken(void)
{
	struct crowd crowd;
	crowd_open(&crowd);
	wanted = false;
	read_keys(&crowd, 0, 3, 50);
	ok(crowd_turn(&crowd) == UINT64_MAX && taken_count == 0 && every_of(&crowd, 0) == 0,
	   "while it does not matter nobody looks");
	wanted = true;
	for (unsigned i = 0; i < 8; i++) {
		(void)crowd_turn(&crowd);
	}
	ok_u64(every_of(&crowd, 0), 1, "when it does, every hit is asked for");
	read_keys(&crowd, 0, 3, 80);
	read_keys(&crowd, 1, 30, 1);
	read_keys(&crowd, 3, 0, 128);
	(void)crowd_turn(&crowd);
	ok(taken_count == 209 && taken_of[1] == 80 && taken_of[2] == 1 && taken_of[4] == 128,
	   "what is new is taken");
	ok_u64(taken_sum, (50 + 129) * 40 + 127 * 64, "each once");
	(void)crowd_turn(&crowd);
	ok_u64(taken_count, 0, "and not again");
	read_keys(&crowd, 1, 30, 128);
	crowd.now_ns -= TURN_NS;
	(void)crowd_turn(&crowd);
	ok_u64(taken_count, 0, "nobody looks twice in a fraction of a millisecond");
	counters[KVS_COUNTERS_OFFSET / 8 + KVS_COUNTER_keys_evicted] = 1;
	ok(crowd_turn(&crowd) < crowd.now_ns + 100 * TURN_NS, "after an eviction kvd comes again");
	crowd.now_ns += UINT64_C(20000000000);
	ok_u64(crowd_turn(&crowd), UINT64_MAX, "later it may sleep");
	counters[KVS_COUNTERS_OFFSET / 8 + KVS_COUNTER_values_spilled] = 5;
	ok(crowd_turn(&crowd) < crowd.now_ns + 100 * TURN_NS,
	   "so it does after values left memory");
	crowd.now_ns += UINT64_C(20000000000);
	ok_u64(crowd_turn(&crowd), UINT64_MAX, "later it may sleep");
	wanted = false;
	(void)crowd_turn(&crowd);
	ok_u64(every_of(&crowd, 0), 0, "and readers are asked for few again");
	crowd_close(&crowd);
}

static void test_pace(void)
{
	struct crowd crowd;
	uint64_t every[12];
	crowd_open(&crowd);
	for (unsigned i = 0; i < 8; i++) {
		(void)crowd_turn(&crowd);
	}
	for (unsigned i = 0; i < 12; i++) {
		read_keys(&crowd, 0, 0, 1000);
		(void)crowd_turn(&crowd);
		every[i] = every_of(&crowd, 0);
	}
	ok(every[0] == 2 && every[3] == 16 && every[11] == 64, "who runs over is asked for fewer");
	ok_u64(every_of(&crowd, 1), 1, "others are not");
	for (unsigned i = 0; i < 8; i++) {
		read_keys(&crowd, 0, 0, 20);
		(void)crowd_turn(&crowd);
	}
	ok_u64(every_of(&crowd, 0), 1, "who reads less for more again");
	crowd.page[2].page->header.sample_every = UINT64_MAX;
	(void)crowd_turn(&crowd);
	ok(every_of(&crowd, 2) - 1 < KVS_SAMPLE_EVERY, "what a client wrote there is bounded");
	crowd_close(&crowd);
}

// One process fills all its rings all the time; another has read a few keys.
static void test_flood(uint64_t seed)
{
	struct crowd crowd;
	uint64_t random = seed;
	uint64_t flood = 0, honest = 0, most = 0, other = 0;
	crowd_open(&crowd);
	(void)crowd_turn(&crowd);
	for (unsigned turn = 0; turn < 200; turn++) {
		for (unsigned slot = 0; slot < KVS_READERS_PER_PAGE; slot++) {
			read_keys(&crowd, 0, slot, 128);
		}
		// Its counts may be anything, too.
		crowd.page[0].page->slot[turn % 31].sample_count = tap_random(&random);
		read_keys(&crowd, 1, 0, 80);
		read_keys(&crowd, 3, 0, 100);
		(void)crowd_turn(&crowd);
		flood += taken_count - taken_of[2] - taken_of[4];
		most = taken_count > most ? taken_count : most;
		honest += taken_of[2];
		other += taken_of[4];
	}
	ok(most <= 512 + 64, "H: %llu hashes at a time at most", (unsigned long long)most);
	// Half of a turn's is its user's, and a third of that this process's.
	ok(flood / 200 <= 512 / 2 / 3 + 1, "H: %llu of them the flood's, its share",
	   (unsigned long long)(flood / 200));
	ok(honest == 200 * 80 && other == 200 * 100, "H: nothing of the others' is lost for it");
	ok_u64(every_of(&crowd, 0), KVS_SAMPLE_EVERY, "and it is asked for few");
	crowd_close(&crowd);
}

// A look takes long: a turn is over after a page or two, and whoever was next comes first then.
static void test_slow(void)
{
	struct crowd crowd;
	uint64_t of[CLIENTS] = { 0 };
	unsigned most = 0, alike = 0;
	crowd_open(&crowd);
	look_ns = 25000;
	for (unsigned turn = 0; turn < 400; turn++) {
		unsigned looked = 0;
		for (unsigned i = 0; i < CLIENTS; i++) {
			read_keys(&crowd, i, 0, 20);
		}
		(void)crowd_turn(&crowd);
		for (unsigned i = 0; i < CLIENTS; i++) {
			looked += taken_of[i + 1] > 0;
			of[i] += taken_of[i + 1];
		}
		most = looked > most ? looked : most;
	}
	ok(most > 0 && most <= 2, "G: a turn that takes long is cut: %u pages at most", most);
	for (unsigned i = 0; i < CLIENTS; i++) {
		alike += of[i] >= 7000;
	}
	ok_u64(alike, CLIENTS, "and nobody is passed over for it");
	crowd_close(&crowd);
}

int main(void)
{
	uint64_t seed = tap_seed(0x5a3);
	test_taken();
	test_pace();
	test_flood(seed);
	test_slow();
	return tap_done();
}
