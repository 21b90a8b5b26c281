// SPDX-License-Identifier: MIT
//
// The keyspace against a model: seeded random sets, deletes, expiries, batches, large values and
// flushes in a small region, so that cleaning, growth, shrinkage and waiting for durability happen
// all the time. After each round everything is compared: values (A: visible), counts, and the live
// bytes of every segment with a fresh scan of the table (G: bounded, nothing leaks).
#include <sys/stat.h>
#include <unistd.h>

#include "shm/epoch.h"
#include "shm/writers.h"
#include "tests/daemon/keyspace_fixture.h"

#define KEYS 9000u
#define WRITES_A_ROUND 2000u
#define PHASES 4u // keys mostly appear, then mostly go, and again

struct model_value {
	bool there;
	uint64_t stamp; // what the value's bytes are made from
	uint32_t bytes;
	uint64_t expiry_ms;
};

struct rig {
	struct fixture fixture;
	struct keyspace *keyspace; // the fixture's
	struct model_value model[KEYS];
	uint64_t random;
	uint64_t stamp;
	bool shrinking;
	unsigned wrong;
	unsigned refused;
	unsigned waited;
	unsigned renamed;
};

static size_t make_key(unsigned index, char *key)
{
	return (size_t)snprintf(key, 64, "key-%u-%.*s", index, (int)(index % 30),
				"abcdefghijklmnopqrstuvwxyz0123456789");
}

static void make_value(uint64_t stamp, unsigned char *out, uint32_t bytes)
{
	uint64_t state = stamp;
	for (uint32_t i = 0; i < bytes; i += 8) {
		uint64_t word = tap_random(&state);
		memcpy(out + i, &word, bytes - i < 8 ? bytes - i : 8);
	}
}

static void become_durable(struct rig *rig)
{
	fixture_durable(&rig->fixture);
}

static void compare_key(struct rig *rig, unsigned index)
{
	static unsigned char expected[1u << 20];
	char key[64];
	size_t key_bytes = make_key(index, key);
	struct keyspace_value value;
	const struct model_value *model = &rig->model[index];
	bool there = model->there && (model->expiry_ms == 0 || model->expiry_ms > fixture_wall_ms);
	int result = keyspace_get(rig->keyspace, key, key_bytes, &value);
	if (!there) {
		rig->wrong += result != KEYSPACE_ABSENT;
		return;
	}
	if (result != KEYSPACE_OK || value.value_bytes != model->bytes ||
	    value.expiry_ms != model->expiry_ms) {
		rig->wrong++;
		return;
	}
	make_value(model->stamp, expected, model->bytes);
	rig->wrong += memcmp(expected, value.value, model->bytes) != 0;
}

static uint32_t random_bytes(struct rig *rig)
{
	uint64_t pick = tap_random(&rig->random) % 100;
	if (pick < 90) {
		return (uint32_t)(tap_random(&rig->random) % 300);
	}
	if (pick < 99) {
		return (uint32_t)(tap_random(&rig->random) % 9000);
	}
	return (uint32_t)(20000 + tap_random(&rig->random) % 60000);
}

// Writes the value a key has again, its middle from outside, the rest from where it stands.
static int write_pieces(struct rig *rig, const char *key, size_t key_bytes,
			const struct model_value *model)
{
	static unsigned char bytes[1u << 20];
	struct keyspace_value old;
	if (keyspace_get(rig->keyspace, key, key_bytes, &old) != KEYSPACE_OK) {
		return KEYSPACE_ABSENT;
	}
	make_value(model->stamp, bytes, model->bytes);
	size_t start = tap_random(&rig->random) % (old.value_bytes + 1);
	size_t end = start + tap_random(&rig->random) % (old.value_bytes - start + 1);
	const unsigned char *at = old.value;
	const struct kvs_piece pieces[] = { { at, start },
					    { bytes + start, end - start },
					    { at + end, old.value_bytes - end } };
	return keyspace_set_pieces(rig->keyspace, key, key_bytes, pieces, 3, old.expiry_ms, NULL);
}

// Moves a key to another name, in a batch of its own unless one is open.
static int write_rename(struct rig *rig, const char *key, size_t key_bytes,
			struct model_value *model)
{
	char other[64];
	unsigned index = (unsigned)(tap_random(&rig->random) % KEYS);
	size_t other_bytes = make_key(index, other);
	bool own = !rig->keyspace->batch.open;
	if (model == &rig->model[index]) {
		return KEYSPACE_OK;
	}
	if (own) {
		keyspace_batch_begin(rig->keyspace);
	}
	int result = keyspace_rename_copy(rig->keyspace, key, key_bytes, other, other_bytes);
	if (result == KEYSPACE_OK) {
		result = keyspace_delete(rig->keyspace, key, key_bytes);
	}
	int committed = own ? keyspace_batch_commit(rig->keyspace) : KEYSPACE_OK;
	if (result == KEYSPACE_OK && committed == KEYSPACE_OK) {
		rig->model[index] = *model;
		model->there = false;
		rig->renamed++;
	}
	return committed == KEYSPACE_OK ? result : committed;
}

// One random write; the model follows if it was applied.
static void write_one(struct rig *rig)
{
	static unsigned char bytes[1u << 20];
	char key[64];
	unsigned index = (unsigned)(tap_random(&rig->random) % KEYS);
	size_t key_bytes = make_key(index, key);
	struct model_value *model = &rig->model[index];
	uint64_t pick = tap_random(&rig->random) % 100;
	int result;
	if (pick < (rig->shrinking ? 15 : 65)) {
		struct model_value next = { true, ++rig->stamp, random_bytes(rig), 0 };
		if (tap_random(&rig->random) % 4 == 0) {
			next.expiry_ms = fixture_wall_ms + 1 + tap_random(&rig->random) % 500;
		}
		make_value(next.stamp, bytes, next.bytes);
		result = keyspace_set(rig->keyspace, key, key_bytes, bytes, next.bytes,
				      next.expiry_ms, NULL);
		if (result == KEYSPACE_OK) {
			*model = next;
		}
	} else if (pick >= 65 && pick < 69) {
		result = write_pieces(rig, key, key_bytes, model);
	} else if (pick >= 69 && pick < 73) {
		result = write_rename(rig, key, key_bytes, model);
	} else if (pick < 87) {
		result = keyspace_delete(rig->keyspace, key, key_bytes);
		if (result == KEYSPACE_OK) {
			model->there = false;
		}
	} else {
		uint64_t expiry_ms = tap_random(&rig->random) % 2 ? fixture_wall_ms + 700 : 0;
		result = keyspace_expire(rig->keyspace, key, key_bytes, expiry_ms);
		if (result == KEYSPACE_OK) {
			model->expiry_ms = expiry_ms;
		}
	}
	rig->waited += result == KEYSPACE_WAIT;
	rig->refused += result == KEYSPACE_FULL || result == KEYSPACE_TOO_LARGE;
	if (result == KEYSPACE_ABSENT) {
		compare_key(rig, index);
	}
}

static void write_batch(struct rig *rig)
{
	static struct model_value before[KEYS];
	memcpy(before, rig->model, sizeof(before));
	unsigned count = (unsigned)(1 + tap_random(&rig->random) % 40);
	keyspace_batch_begin(rig->keyspace);
	for (unsigned i = 0; i < count; i++) {
		if (tap_random(&rig->random) % 200 == 0) {
			(void)keyspace_flush(rig->keyspace);
			memset(rig->model, 0, sizeof(rig->model));
		}
		write_one(rig);
		compare_key(rig, (unsigned)(tap_random(&rig->random) % KEYS));
	}
	if (tap_random(&rig->random) % 5 == 0) {
		keyspace_batch_abort(rig->keyspace);
		memcpy(rig->model, before, sizeof(before));
	} else if (keyspace_batch_commit(rig->keyspace) != KEYSPACE_OK) {
		rig->waited++;
		memcpy(rig->model, before, sizeof(before));
	}
}

struct recount {
	struct rig *rig;
	uint64_t segment_live[4 * FIXTURE_MEMORY_BYTES / FIXTURE_SEGMENT_BYTES];
	uint64_t live_bytes;
	uint64_t keys;
	uint64_t keys_with_expiry;
	uint64_t entries;
	unsigned damaged;
};

static void recount_visit(void *context, uint64_t entry)
{
	struct recount *recount = context;
	struct kvs_hit hit;
	recount->entries++;
	if (kvs_table_load(&recount->rig->fixture.region.map, entry, &hit) != KVS_FIND_HIT ||
	    !kvs_record_crc_ok(&hit.view)) {
		recount->damaged++;
		return;
	}
	uint32_t segment =
		kvs_log_segment_of(&recount->rig->keyspace->log, kvs_entry_offset(entry));
	recount->segment_live[segment] += hit.view.record_bytes;
	recount->live_bytes += hit.view.record_bytes;
	if (hit.kind == KVS_ENTRY_LARGE) {
		recount->live_bytes += hit.view.value_bytes;
	}
	if (hit.kind != KVS_ENTRY_TOMBSTONE) {
		recount->keys++;
		recount->keys_with_expiry += hit.view.expiry_ms != 0;
	}
}

static void compare_all(struct rig *rig, unsigned round)
{
	rig->wrong = 0;
	struct recount recount = { .rig = rig };
	uint64_t cursor = 0;
	do {
		cursor = kvs_table_scan(&rig->fixture.region.map, cursor, recount_visit, &recount);
	} while (cursor != 0);
	const struct keyspace *keyspace = rig->keyspace;
	unsigned segments_wrong = 0;
	for (uint32_t i = 0; i < rig->fixture.region.segments_count_max; i++) {
		segments_wrong += keyspace->log.segments[i].live_bytes != recount.segment_live[i];
	}
	bool counts = recount.damaged == 0 && recount.keys == keyspace->keys &&
		      recount.keys_with_expiry == keyspace->keys_with_expiry &&
		      recount.live_bytes == keyspace->live_bytes &&
		      recount.entries == keyspace->table.entries && segments_wrong == 0;
	if (!counts) {
		tap_diag("round %u: damaged %u keys %" PRIu64 "/%" PRIu64 " expiry %" PRIu64
			 "/%" PRIu64 " live %" PRIu64 "/%" PRIu64 " entries %" PRIu64 "/%" PRIu64
			 " segments %u",
			 round, recount.damaged, recount.keys, keyspace->keys,
			 recount.keys_with_expiry, keyspace->keys_with_expiry, recount.live_bytes,
			 keyspace->live_bytes, recount.entries, keyspace->table.entries,
			 segments_wrong);
	}
	struct stat file;
	uint64_t bytes = fstat(rig->fixture.region.fd, &file) == 0 ? (uint64_t)file.st_blocks * 512
								   : UINT64_MAX;
	// What the table took since the last turn is given back by segments in the next.
	if (bytes > FIXTURE_MEMORY_BYTES + FIXTURE_SEGMENT_BYTES + KVS_WRITERS_BYTES &&
	    getenv("KVD_TEST_EMULATED") == NULL) {
		tap_diag("round %u: the region takes %" PRIu64 " bytes", round, bytes);
		counts = false;
	}
	for (unsigned i = 0; i < KEYS; i++) {
		compare_key(rig, i);
	}
	if (!counts || rig->wrong != 0) {
		ok(false, "round %u: counts %d, wrong values %u", round, counts, rig->wrong);
	}
}

// Every key there with a small value, then none.
static void grow_and_shrink(struct rig *rig)
{
	char key[64];
	(void)keyspace_flush(rig->keyspace);
	become_durable(rig);
	for (unsigned i = 0; i < KEYS; i++) {
		size_t key_bytes = make_key(i, key);
		rig->wrong += keyspace_set(rig->keyspace, key, key_bytes, key, key_bytes, 0,
					   NULL) != KEYSPACE_OK;
		if (i % 64 == 0) {
			become_durable(rig);
		}
	}
	const struct kvs_watermarks *marks = keyspace_marks(rig->keyspace);
	unsigned untold = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		size_t key_bytes = make_key(i, key);
		rig->wrong += keyspace_delete(rig->keyspace, key, key_bytes) != KEYSPACE_OK;
		untold += marks->last_removal_seq != keyspace_last_seq(rig->keyspace);
	}
	ok_u64(rig->wrong, 0, "all keys set and deleted");
	ok_u64(keyspace_owned(rig->keyspace, 0).bytes, 0, "G: and on nobody's account any more");
	ok_u64(untold, 0, "I: each removal is told to whoever reads many keys at a time");
}

static void run(bool persisted, uint64_t seed, unsigned rounds)
{
	static struct rig rig;
	memset(&rig, 0, sizeof(rig));
	fixture_open(&rig.fixture, persisted, seed);
	rig.keyspace = rig.fixture.keyspace;
	rig.random = seed;
	int failed_before = tap_failed;
	for (unsigned round = 0; round < rounds && tap_failed == failed_before; round++) {
		keyspace_tick(rig.keyspace);
		rig.shrinking = round * PHASES / rounds % 2 == 1;
		for (unsigned i = 0; i < WRITES_A_ROUND; i++) {
			write_one(&rig);
			if (tap_random(&rig.random) % 64 == 0) {
				become_durable(&rig);
			}
		}
		write_batch(&rig);
		if (tap_random(&rig.random) % 50 == 0 &&
		    keyspace_flush(rig.keyspace) == KEYSPACE_OK) {
			memset(rig.model, 0, sizeof(rig.model));
		}
		fixture_wall_ms += tap_random(&rig.random) % 50;
		keyspace_tick(rig.keyspace);
		compare_all(&rig, round);
	}
	ok(tap_failed == failed_before, "A, G, I: %u rounds agree with the model, %s", rounds,
	   persisted ? "persisted" : "memory");
	ok(rig.renamed > 15 * rounds, "%u keys were renamed", rig.renamed);
	tap_diag("refused %u, waited %u, cleaned %" PRIu64 ", splits %" PRIu64 ", merges %" PRIu64
		 ", scans %" PRIu64,
		 rig.refused, rig.waited,
		 *kvs_counter_word(rig.fixture.region.base, KVS_COUNTER_cleaner_segments),
		 rig.keyspace->table.splits, rig.keyspace->table.merges, rig.fixture.epochs.scans);
	grow_and_shrink(&rig);
	for (unsigned i = 0; i < 400; i++) {
		become_durable(&rig);
	}
	ok_u64(rig.keyspace->limbo.count, 0, "limbo drains");
	ok_u64(rig.keyspace->table.entries, 0, "no tombstone outlives its durability");
	ok_u64(rig.keyspace->table.buckets, rig.keyspace->table.buckets_min,
	       "the table is small again");
	ok(*kvs_counter_word(rig.fixture.region.base, KVS_COUNTER_cleaner_segments) > 0 &&
		   rig.keyspace->table.splits > 0 && rig.keyspace->table.merges > 0,
	   "the cleaner ran, the table grew and shrank");
	fixture_close(&rig.fixture);
}

int main(void)
{
	uint64_t seed = tap_seed(1);
	run(false, seed, tap_rounds(64, 10));
	run(true, seed + 1, tap_rounds(64, 10));
	return tap_done();
}
