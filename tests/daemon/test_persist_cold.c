// SPDX-License-Identifier: MIT
//
// Compaction, by the persister's thread, while values leave memory: the file follows the live bytes
// (G), and whatever is relied on as a place in the store is where the record stands (E).
#include "daemon/keyspace_cold.h"
#include "daemon/storage/store_read.h"
#include "tests/daemon/persist_thread.h"

struct found {
	uint64_t place_of_seq[1 << 16]; // by seq modulo
};

static int look(void *context, const struct kvs_record_view *view, const void *value,
		uint64_t place)
{
	struct found *found = context;
	(void)value;
	found->place_of_seq[view->seq & 0xffff] = place;
	return 0;
}

static void look_into(const char *dir, struct found *found)
{
	memset(found, 0, sizeof(*found));
	struct store *store = fixture_store(dir);
	struct store_walk walk = { .record = look, .context = found, .check_records = true };
	if (store_recover(store, &walk) != STORE_OK) {
		tap_diag("%s", store_why(store));
	}
	store_close(store);
}

static struct found found;

#define COMPACTION_KEYS 10000u

// What keys have, beside what the keyspace and the store say.
static uint64_t stamp_of[COMPACTION_KEYS];
static uint32_t size_of[COMPACTION_KEYS]; // 0 = nothing yet

// Tells stubs their new places; returns how many records were moved.
static uint64_t take_moves(struct life *life)
{
	struct persist_move move;
	uint64_t taken = 0;
	while (persist_next_move(life->persist, &move)) {
		// It may have been written since.
		(void)keyspace_move(life->keyspace, move.key, move.key_bytes, move.seq, move.place);
		taken++;
	}
	return taken;
}

static bool find_key(const struct life *life, unsigned number, struct kvs_hit *hit)
{
	char key[32];
	size_t bytes = make_key(key, number);
	uint64_t hash = keyspace_hash(life->keyspace, key, bytes);
	return keyspace_find(life->keyspace, hash, key, bytes, hit) == KVS_FIND_HIT;
}

// What the store has at the place of a key's stub: STORE_OK if it is the key's value.
static int read_stub(struct store_reader *reader, unsigned number, const struct kvs_hit *hit)
{
	static unsigned char expected[1 << 17];
	struct store_record record;
	struct store_wanted wanted = {
		.place = kvs_load_relaxed(&hit->view.record->place),
		.seq = hit->view.seq,
		.key = hit->view.key,
		.key_bytes = hit->view.key_bytes,
		.value_bytes = hit->view.value_bytes,
	};
	int result = store_reader_read(reader, &wanted, &record);
	if (result == STORE_OK) {
		fixture_fill(expected, size_of[number], number, stamp_of[number]);
		result = record.view.value_bytes == size_of[number] &&
					 memcmp(record.value, expected, size_of[number]) == 0
				 ? STORE_OK
				 : -100;
	}
	free(record.bytes);
	return result;
}

// Some values leave memory, and some that have are read. Returns how often that went wrong.
static unsigned spill_some(struct life *life, struct store_reader *reader, uint64_t *state)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < 100; i++) {
		unsigned number = (unsigned)(tap_random(state) % COMPACTION_KEYS);
		char key[32];
		struct kvs_hit hit;
		(void)keyspace_spill(life->keyspace, key, make_key(key, number));
		if (find_key(life, number, &hit) && hit.kind == KVS_ENTRY_STUB) {
			int result = read_stub(reader, number, &hit);
			wrong += result != STORE_OK && result != STORE_READ_GONE;
		}
	}
	return wrong;
}

// Random overwrites, committed as they come. Returns how many records were moved meanwhile.
static uint64_t overwrite(struct life *life, struct store_reader *reader, unsigned writes,
			  unsigned *wrong)
{
	uint64_t state = tap_seed(5);
	uint64_t moved = 0;
	for (unsigned i = 0; i < writes; i++) {
		uint32_t size = tap_random(&state) % 1000 == 0 ? 80000 : 200;
		unsigned number = (unsigned)(tap_random(&state) % COMPACTION_KEYS);
		uint64_t seq = set(life, number, i, size);
		stamp_of[number] = i;
		size_of[number] = size;
		if (i % 50 == 0) {
			persist_set_live_bytes(life->persist, keyspace_live_bytes(life->keyspace));
			persist_request(life->persist, seq);
			moved += take_moves(life);
		}
		if (i % 500 == 0) {
			(void)life_wait(life, seq);
			cleaner_turn(life->keyspace, seam_system.monotonic_ns());
			*wrong += spill_some(life, reader, &state);
		}
	}
	return moved;
}

// What the store must have at the place of each stub, and of each value whose place is known.
static void test_places(struct life *life, struct store_reader *reader, const char *dir)
{
	static uint64_t seqs[COMPACTION_KEYS];
	static uint64_t places[COMPACTION_KEYS];
	unsigned stubs = 0, unplaced = 0, unread = 0, lost = 0;
	uint64_t judged = *persist_judged(life->persist);
	for (unsigned i = 0; i < COMPACTION_KEYS; i++) {
		struct kvs_hit hit;
		seqs[i] = 0;
		if (!find_key(life, i, &hit)) {
			continue;
		}
		bool is_stub = hit.kind == KVS_ENTRY_STUB;
		places[i] = kvs_load_relaxed(&hit.view.record->place);
		bool is_placed = is_stub || kvs_place_block(places[i]) > judged;
		seqs[i] = is_placed ? hit.view.seq : 0;
		stubs += is_stub;
		unplaced += !is_placed;
		unread += is_stub && read_stub(reader, i, &hit) != STORE_OK;
	}
	ok_u64(unread, 0, "E: the values of %u stubs are read, each at its place", stubs);
	ok(stubs > 500 && unplaced > 500, "%u values are of unknown place", unplaced);
	ok_u64(stubs, keyspace_count_stubs(life->keyspace), "all are counted");
	store_reader_close(reader);
	ok_int(life_end(life), 0, "stopped");
	look_into(dir, &found);
	for (unsigned i = 0; i < COMPACTION_KEYS; i++) {
		lost += seqs[i] != 0 && found.place_of_seq[seqs[i] & 0xffff] != places[i];
	}
	ok_u64(lost, 0, "every place that is relied on is where the record stands");
}

// G: the file follows the live bytes, and every record can be found at its place.
static void test_compaction(const char *dir)
{
	struct life life;
	struct store_reader *reader;
	struct life_options options = options_of(dir, PERSIST_GROUP);
	unsigned wrong = 0;
	options.collect_moves = true;
	life_begin(&life, &options);
	keyspace_set_judged(life.keyspace, persist_judged(life.persist));
	if (store_reader_open(&reader, life.store, 1) != STORE_OK) {
		printf("Bail out! no memory for a reader\n");
		exit(1);
	}
	uint64_t moved = overwrite(&life, reader, 60000, &wrong);
	ok_u64(wrong, 0, "E: what leaves memory is in the store meanwhile");
	persist_set_live_bytes(life.persist, keyspace_live_bytes(life.keyspace));
	uint64_t seq = set(&life, COMPACTION_KEYS, 1, 10);
	persist_request(life.persist, seq);
	ok(life_wait(&life, seq), "60000 overwrites are durable");
	uint64_t live = keyspace_live_bytes(life.keyspace);
	uint64_t log = life_counter(&life, KVS_COUNTER_store_bytes);
	ok(log <= live * 21 / 10, "the log holds %llu bytes for %llu live ones",
	   (unsigned long long)log, (unsigned long long)live);
	ok(moved > 0, "%llu records of stubs were moved", (unsigned long long)moved);

	// No more compaction: with much allowed, and a commit after that, none is under way.
	persist_set_live_bytes(life.persist, UINT64_C(1) << 40);
	seq = set(&life, COMPACTION_KEYS, 1, 10);
	persist_request(life.persist, seq);
	ok(life_wait(&life, seq), "one more commit");
	(void)take_moves(&life);
	test_places(&life, reader, dir);
	char why[600];
	ok_int(store_probe(dir, why, sizeof(why)), STORE_OK, "the probe finds nothing wrong");
}

int main(int argc, char **argv)
{
	int code;
	char dir[FIXTURE_PATH_BYTES];
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	fixture_dir_fast(dir);
	test_compaction(dir);
	fixture_remove(dir);
	return tap_done();
}
