// SPDX-License-Identifier: MIT
//
// E, I: a seeded model of commits, compaction and crashes. Random sets, deletes, batches and
// FLUSHALLs run against the real keyspace; commits cover a position that often lies behind the
// newest write, so that compaction meets keys whose current version is not durable; lives end at
// random points, commits or not. What the next life recovers must be exactly the model as of the
// last commit, life after life. Meanwhile values leave memory and come back, and what is in the
// store alone must be there at all times.
#include "daemon/keyspace_promote.h"
#include "daemon/storage/store_read.h"
#include "tests/daemon/persist_fixture.h"

#define KEYS 160u

struct entry {
	uint64_t stamp; // what the value was made from, 0 = absent
	uint32_t bytes;
};

struct state {
	uint64_t position; // of the log, published form
	struct entry keys[KEYS];
};

struct model {
	struct life life;
	struct life_options options;
	struct store_reader *reader;
	struct state now;
	struct state durable;
	uint64_t random;
	uint64_t stamp;
	unsigned wrong;
	unsigned waits;
	unsigned flushes;
	unsigned recovered;
	unsigned spilled, promoted;
};

static size_t make_key(char *key, unsigned number)
{
	return (size_t)snprintf(key, 32, "key:%u", number);
}

static uint64_t pick(struct model *model, uint64_t below)
{
	return tap_random(&model->random) % below;
}

static uint32_t pick_bytes(struct model *model)
{
	uint64_t kind = pick(model, 100);
	if (kind == 0) {
		return (uint32_t)pick(model, 90000); // large, in several blocks
	}
	return (uint32_t)pick(model, kind < 6 ? 9000 : 150);
}

// Applies an answer: FULL and WAIT leave everything as it was.
static bool applied(struct model *model, int result)
{
	model->waits += result == KEYSPACE_WAIT || result == KEYSPACE_FULL;
	return result == KEYSPACE_OK;
}

static void set_one(struct model *model, struct state *state, unsigned number)
{
	static unsigned char value[90000];
	char key[32];
	size_t key_bytes = make_key(key, number);
	uint32_t bytes = pick_bytes(model);
	uint64_t stamp = ++model->stamp;
	uint64_t seq;
	fixture_fill(value, bytes, number, stamp);
	if (applied(model,
		    keyspace_set(model->life.keyspace, key, key_bytes, value, bytes, 0, &seq))) {
		state->keys[number] = (struct entry){ .stamp = stamp, .bytes = bytes };
	}
}

static void delete_one(struct model *model, struct state *state, unsigned number)
{
	char key[32];
	int result = keyspace_delete(model->life.keyspace, key, make_key(key, number));
	model->wrong += (result == KEYSPACE_ABSENT) != (state->keys[number].stamp == 0);
	if (applied(model, result)) {
		state->keys[number].stamp = 0;
	}
}

static void batch(struct model *model)
{
	struct state state = model->now;
	keyspace_batch_begin(model->life.keyspace);
	for (uint64_t i = pick(model, 12) + 2; i > 0; i--) {
		unsigned number = (unsigned)pick(model, KEYS);
		if (pick(model, 3) == 0) {
			delete_one(model, &state, number);
		} else {
			set_one(model, &state, number);
		}
	}
	if (applied(model, keyspace_batch_commit(model->life.keyspace))) {
		model->now = state;
	}
}

static void step(struct model *model)
{
	uint64_t kind = pick(model, 1000);
	// A few keys are written all the time, most now and then: current versions old and new.
	unsigned number = (unsigned)(pick(model, 3) == 0 ? pick(model, 8) : pick(model, KEYS));
	keyspace_tick(model->life.keyspace);
	if (kind < 6) {
		if (applied(model, keyspace_flush(model->life.keyspace))) {
			memset(model->now.keys, 0, sizeof(model->now.keys));
			model->flushes++;
		}
	} else if (kind < 40) {
		batch(model);
	} else if (kind < 350) {
		delete_one(model, &model->now, number);
	} else {
		set_one(model, &model->now, number);
	}
	model->now.position = life_published(&model->life);
}

// ---- values that are in the store alone ----

static bool find_stub(struct model *model, unsigned number, struct kvs_hit *hit)
{
	char key[32];
	struct keyspace *keyspace = model->life.keyspace;
	size_t key_bytes = make_key(key, number);
	uint64_t hash = keyspace_hash(keyspace, key, key_bytes);
	return keyspace_find(keyspace, hash, key, key_bytes, hit) == KVS_FIND_HIT &&
	       hit->kind == KVS_ENTRY_STUB;
}

// What the store has of it; the caller frees record->bytes.
static bool read_stub(struct model *model, const struct kvs_hit *hit, struct store_record *record)
{
	struct store_wanted wanted = {
		.place = kvs_load_relaxed(&hit->view.record->place),
		.seq = hit->view.seq,
		.key = hit->view.key,
		.key_bytes = hit->view.key_bytes,
		.value_bytes = hit->view.value_bytes,
	};
	int result = store_reader_read(model->reader, &wanted, record);
	if (result != STORE_OK) {
		tap_diag("a stub's value cannot be read: %d %s", result,
			 result < 0 ? store_reader_why(model->reader) : "");
	}
	return result == STORE_OK;
}

static void promote_one(struct model *model, unsigned number)
{
	char key[32];
	struct kvs_hit hit;
	struct store_record record;
	if (!find_stub(model, number, &hit)) {
		return;
	}
	if (!read_stub(model, &hit, &record)) {
		model->wrong++;
		return;
	}
	const struct keyspace_loaded loaded = { key, make_key(key, number), hit.view.seq,
						record.value, record.view.value_bytes };
	struct keyspace_promotion promotion = { 0 };
	enum keyspace_cold_result result =
		keyspace_promote(model->life.keyspace, &loaded, &promotion, UINT64_MAX);
	model->promoted += result == KEYSPACE_COLD_DONE;
	model->wrong += result != KEYSPACE_COLD_DONE && result != KEYSPACE_COLD_NO_ROOM;
	free(record.bytes);
}

static void take_moves(struct model *model)
{
	struct persist_move move;
	while (persist_next_move(model->life.persist, &move)) {
		(void)keyspace_move(model->life.keyspace, move.key, move.key_bytes, move.seq,
				    move.place);
	}
}

static void change_cold(struct model *model)
{
	take_moves(model);
	for (uint64_t i = pick(model, 30); i > 0; i--) {
		char key[32];
		unsigned number = (unsigned)pick(model, KEYS);
		if (pick(model, 3) == 0) {
			promote_one(model, number);
		} else {
			model->spilled +=
				keyspace_spill(model->life.keyspace, key, make_key(key, number)) ==
				KEYSPACE_COLD_DONE;
		}
	}
}

static bool stub_is(struct model *model, unsigned number, const struct entry *entry,
		    const unsigned char *expected)
{
	struct kvs_hit hit;
	struct store_record record = { 0 };
	bool same = find_stub(model, number, &hit) && read_stub(model, &hit, &record) &&
		    record.view.value_bytes == entry->bytes &&
		    memcmp(record.value, expected, entry->bytes) == 0;
	free(record.bytes);
	return same;
}

static unsigned differences(struct model *model, const struct state *state)
{
	static unsigned char expected[90000];
	unsigned wrong = 0;
	for (unsigned number = 0; number < KEYS; number++) {
		char key[32];
		size_t key_bytes = make_key(key, number);
		struct keyspace_value value;
		const struct entry *entry = &state->keys[number];
		bool there =
			keyspace_stat(model->life.keyspace, key, key_bytes, &value) == KEYSPACE_OK;
		if (there != (entry->stamp != 0)) {
			tap_diag("%s is %s", key, there ? "there but was removed" : "lost");
			wrong++;
		} else if (there) {
			fixture_fill(expected, entry->bytes, number, entry->stamp);
			bool same = value.value != NULL ? value.value_bytes == entry->bytes &&
								  memcmp(value.value, expected,
									 entry->bytes) == 0
							: stub_is(model, number, entry, expected);
			wrong += !same;
		}
	}
	return wrong;
}

// Some writes, of which the commit at their end covers a random part.
static void round_of_writes(struct model *model)
{
	uint64_t writes = pick(model, 60) + 1;
	uint64_t covered = pick(model, 2) == 0 ? writes : pick(model, writes + 1);
	struct state target = model->now;
	for (uint64_t i = 1; i <= writes; i++) {
		step(model);
		if (i == covered) {
			target = model->now;
		}
	}
	if (covered == 0) {
		return;
	}
	if (life_commit(&model->life, target.position) != STORE_OK) {
		tap_diag("%s", store_why(model->life.store));
		model->wrong++;
		return;
	}
	model->durable = target;
	cleaner_turn(model->life.keyspace, seam_system.monotonic_ns());
	for (uint64_t i = pick(model, 3); i > 0 && life_compact_idle(&model->life); i--) {
	}
}

static void one_life(struct model *model)
{
	model->options.policy = pick(model, 2) == 0 ? PERSIST_LAZY : PERSIST_GROUP;
	model->options.ratio_percent = (uint32_t)(105 + pick(model, 200));
	model->options.floor_bytes = pick(model, 3) == 0 ? 0 : pick(model, 300000);
	life_begin(&model->life, &model->options);
	keyspace_set_judged(model->life.keyspace, persist_judged(model->life.persist));
	model->wrong += store_reader_open(&model->reader, model->life.store, 1) != STORE_OK;
	unsigned wrong = differences(model, &model->durable);
	model->recovered++;
	model->wrong += wrong;
	if (wrong > 0) {
		tap_diag("life %u recovered %u keys wrongly", model->recovered, wrong);
	}
	model->now = model->durable;
	model->now.position = life_published(&model->life);
	for (uint64_t rounds = pick(model, 40) + 1; rounds > 0; rounds--) {
		round_of_writes(model);
		change_cold(model);
	}
	wrong = differences(model, &model->now);
	if (wrong > 0) {
		tap_diag("life %u ends with %u wrong values", model->recovered, wrong);
	}
	model->wrong += wrong;
	store_reader_close(model->reader);
	if (pick(model, 4) == 0) { // a crash while a transaction is being filled
		model->wrong += store_begin(model->life.store) != STORE_OK ||
				store_delete_oldest(model->life.store, 1) == STORE_NO_SPACE;
	}
	(void)life_end(&model->life);
}

static void run(uint64_t seed, unsigned lives)
{
	char dir[FIXTURE_PATH_BYTES];
	fixture_dir_fast(dir);
	static struct model model;
	memset(&model, 0, sizeof(model));
	model.random = seed;
	model.options = (struct life_options){
		.dir = dir,
		.memory_bytes = 12u << 20,
		.segment_bytes = 64u << 10,
		.lazy_ms = 1,
		.lazy_bytes = 1u << 20,
		.collect_moves = true,
	};
	for (unsigned i = 0; i < lives && model.wrong == 0; i++) {
		one_life(&model);
	}
	ok_u64(model.wrong, 0,
	       "%u lives from seed %llu, %llu writes, %u flushes, %u waits, %u values "
	       "that left and %u that came back",
	       model.recovered, (unsigned long long)seed, (unsigned long long)model.stamp,
	       model.flushes, model.waits, model.spilled, model.promoted);
	fixture_remove(dir);
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	uint64_t seed = tap_seed(1000);
	unsigned runs = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : tap_rounds(40, 4);
	for (unsigned i = 0; i < runs; i++) {
		run(seed + i, 25);
	}
	return tap_done();
}
