// SPDX-License-Identifier: MIT
//
// What attached processes read, as far as eviction wants to know it. While memory is not full each
// reader leaves one hash in about 64 hits and nobody looks; once it is, kvd asks for every one of
// them, and for fewer again from pages whose rings run over. What stands in a ring is its process's
// word alone: hashes of keys that are not there warm nothing, and of each process the same number
// is taken at a time. So one that reads a little is heard as well as one that reads all the time:
// of the latter each sample stands for more reads, and counts as one.
#include "daemon/readers.h"

#include "daemon/keyspace.h"
#include "daemon/readers_parts.h"
#include "daemon/seam.h"
#include "shm/counters.h"
#include "shm/layout.h"
#include "shm/map.h"

#define SAMPLE_INTERVAL_NS 200000u // between two looks: a ring is good for 640 000 hits a second
#define SAMPLE_IDLE_NS 10000000u   // the same when nothing else wakes kvd
#define SAMPLE_URGENT_NS UINT64_C(10000000000) // after something went: then kvd may sleep
#define SAMPLE_TURN_NS 50000u		       // then whoever is next has the next turn
#define SAMPLE_TURN_MAX 512u		       // hashes at a time, of all users
#define SAMPLE_TURN_PAGES 32u		       // reader pages at a time
#define SAMPLE_SHARE_MIN 16u		       // of one process, however many there are
#define SAMPLE_BATCH 64u

struct sample_batch {
	struct keyspace *keyspace;
	const struct seam *seam;
	uint64_t until_ns;
	uint64_t hashes[SAMPLE_BATCH];
	size_t count;
};

static void batch_end(struct sample_batch *batch)
{
	keyspace_warm(batch->keyspace, batch->hashes, batch->count);
	batch->count = 0;
}

static void batch_take(struct sample_batch *batch, uint64_t hash)
{
	batch->hashes[batch->count++] = hash;
	if (batch->count == SAMPLE_BATCH) {
		batch_end(batch);
	}
}

// Takes the newest of what came since the last look, at most `most`. Returns how many; *lost tells
// whether there were more.
static uint32_t sample_slot(struct sample_batch *batch, struct kvs_reader_page *page, unsigned slot,
			    uint64_t *seen, uint32_t most, bool *lost)
{
	// Acquire: the hashes before it are there (partner: kvc_reader_sample()).
	uint64_t count = kvs_load_acquire(&page->slot[slot].sample_count);
	uint64_t fresh = count - *seen;
	if (fresh == 0) {
		return 0;
	}
	*seen = count;
	uint32_t taken = fresh < KVS_RING_SAMPLES ? (uint32_t)fresh : KVS_RING_SAMPLES;
	taken = taken < most ? taken : most;
	*lost = *lost || fresh > taken;
	const struct kvs_sample_ring *ring = kvs_page_ring(page, slot);
	for (uint32_t i = 0; i < taken; i++) {
		// Relaxed: may be overwritten meanwhile, by a hash as good as this one.
		uint64_t at = (count - 1 - i) % KVS_RING_SAMPLES;
		batch_take(batch, kvs_load_relaxed(&ring->hash[at]));
	}
	return taken;
}

// A page whose rings ran over is asked for half as many, one that left few for twice as many.
static void sample_pace(struct kvs_reader_page *page, bool lost, uint32_t taken)
{
	uint64_t every = kvs_load_relaxed(&page->header.sample_every);
	every = every - 1 < KVS_SAMPLE_EVERY ? every : KVS_SAMPLE_EVERY;
	if (lost && every < KVS_SAMPLE_EVERY) {
		every *= 2;
	} else if (!lost && taken < KVS_RING_SAMPLES / 4 && every > 1) {
		every /= 2;
	}
	// Relaxed: a wish (partner: kvc_reader_sample()).
	kvs_store_relaxed(&page->header.sample_every, every);
}

static void sample_page(struct sample_batch *batch, struct reader_client *client, uint32_t index,
			uint32_t most)
{
	struct kvs_reader_page *page = client->pages[index]->page;
	struct readers_sight *sight = client->sights[index];
	uint32_t taken = 0;
	bool lost = false;
	// Another slot is the first each time: the share must not be that of the first few.
	unsigned first = client->sample_turn++ % KVS_READERS_PER_PAGE;
	for (unsigned i = 0; i < KVS_READERS_PER_PAGE; i++) {
		unsigned slot = (first + i) % KVS_READERS_PER_PAGE;
		taken += sample_slot(batch, page, slot, &sight->seen[slot], most - taken, &lost);
	}
	sample_pace(page, lost, taken);
}

// Looks at the client's pages from where it stopped. False if the turn was over before the last.
static bool sample_client(struct sample_batch *batch, struct reader_client *client, uint32_t share)
{
	uint32_t count = client->pages_count;
	for (; client->sample_page < count; client->sample_page++) {
		if (batch->seam->monotonic_ns() >= batch->until_ns) {
			return false;
		}
		sample_page(batch, client, client->sample_page, share / count + 1);
	}
	client->sample_page = 0;
	return true;
}

static void sample_stop(struct readers *readers)
{
	struct reader_client *client;
	readers->sampling = false;
	TAILQ_FOREACH (client, &readers->clients, link) {
		for (uint32_t i = 0; i < client->pages_count; i++) {
			kvs_store_relaxed(&client->pages[i]->page->header.sample_every, 0);
		}
	}
}

// Of what is taken in one turn each user has the same share, and of that each of his processes.
static uint32_t sample_share(const struct readers *readers, const struct reader_client *client)
{
	uint32_t users = 0;
	const struct readers_user *user;
	LIST_FOREACH (user, &readers->users, link) {
		users++;
	}
	uint32_t share = SAMPLE_TURN_MAX / users / client->user->clients;
	return share > SAMPLE_SHARE_MIN ? share : SAMPLE_SHARE_MIN;
}

static void sample_some(struct readers *readers)
{
	const struct seam *seam = readers->kvd->seam;
	struct sample_batch batch = { .keyspace = readers->kvd->keyspace,
				      .seam = seam,
				      .until_ns = seam->monotonic_ns() + SAMPLE_TURN_NS };
	struct reader_client *client = TAILQ_FIRST(&readers->clients);
	size_t at = 0;
	for (; client && at < readers->sample_at; at++) {
		client = TAILQ_NEXT(client, link);
	}
	for (uint32_t pages = 0; client && pages < SAMPLE_TURN_PAGES; at++) {
		pages += client->pages_count;
		if (!sample_client(&batch, client, sample_share(readers, client))) {
			break;
		}
		client = TAILQ_NEXT(client, link);
	}
	readers->sample_at = client ? at : 0;
	batch_end(&batch);
}

// Have keys gone lately, or values left memory? Then reads matter also while nobody writes.
static bool sample_is_urgent(struct readers *readers, uint64_t now_ns)
{
	void *base = keyspace_map(readers->kvd->keyspace)->base;
	// Relaxed: kvd's own counts, of this thread.
	uint64_t went = kvs_load_relaxed(kvs_counter_word(base, KVS_COUNTER_keys_evicted)) +
			kvs_load_relaxed(kvs_counter_word(base, KVS_COUNTER_values_spilled));
	if (went != readers->went) {
		readers->went = went;
		readers->went_ns = now_ns;
	}
	return now_ns - readers->went_ns < SAMPLE_URGENT_NS;
}

uint64_t readers_sample_next_ns(struct readers *readers, uint64_t now_ns)
{
	if (!keyspace_wants_heat(readers->kvd->keyspace)) {
		return UINT64_MAX;
	}
	bool comes_again = readers->count > 0 && sample_is_urgent(readers, now_ns);
	return comes_again ? readers->sampled_ns + SAMPLE_IDLE_NS : UINT64_MAX;
}

uint64_t readers_sample(struct readers *readers, uint64_t now_ns)
{
	if (!keyspace_wants_heat(readers->kvd->keyspace)) {
		if (readers->sampling) {
			sample_stop(readers);
		}
		return UINT64_MAX;
	}
	readers->sampling = true;
	if (now_ns - readers->sampled_ns >= SAMPLE_INTERVAL_NS) {
		readers->sampled_ns = now_ns;
		sample_some(readers);
	}
	return readers_sample_next_ns(readers, now_ns);
}
