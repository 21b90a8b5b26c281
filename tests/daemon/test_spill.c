// SPDX-License-Identifier: MIT
//
// Data of ten times the memory: the values that are read least are in the store alone, every key's
// is where its stub says (E), writes go on (G) until nothing is left that could go, and the next
// life loads as much as it has memory for.
#include "daemon/keyspace_cold.h"
#include "daemon/storage/store_read.h"
#include "tests/daemon/persist_fixture.h"

#define MEMORY_BYTES (UINT32_C(8) << 20 >> shift)
#define SEGMENT_BYTES (UINT32_C(256) << 10 >> shift)
#define KEYS (40000u >> shift)
#define VALUE_BYTES 2000u	   // 80 MB
#define SOME_KEYS (1500u >> shift) // less than half of the memory
#define MANY_KEYS_MAX 300000u
#define MANY_KEYS (MANY_KEYS_MAX >> shift) // of few bytes: more than their stubs have room
#define TRIES 400u			   // of a write that waits for memory
#define TURN_KEYS (32u >> shift)	   // written between two commits

static struct life life;
static uint64_t stamps[MANY_KEYS_MAX];
static uint32_t sizes[MANY_KEYS_MAX]; // 0 = never written
static unsigned shift; // in a slow run everything is smaller: as many segments of fewer values

static size_t make_key(char key[32], unsigned number)
{
	const char *prefix = number % 1000 == 7 ? "keep:" : "k";
	size_t bytes = strlen(prefix);
	memcpy(key, prefix, bytes);
	for (unsigned i = 0; i < 6; i++) { // millions of times: snprintf() would be dear
		key[bytes++] = "0123456789abcdef"[(number >> (20 - 4 * i)) & 15];
	}
	return bytes;
}

static void begin(const char *dir, const char *never)
{
	const struct life_options options = {
		.dir = dir,
		.memory_bytes = MEMORY_BYTES,
		.segment_bytes = SEGMENT_BYTES,
		.policy = PERSIST_GROUP,
		.ratio_percent = 150,
		.floor_bytes = MEMORY_BYTES / 8,
		.collect_moves = true,
		.spills = true,
	};
	const struct keyspace_eviction how = { .on = true, .spills = true, .never = never };
	life_begin(&life, &options);
	keyspace_set_judged(life.keyspace, persist_judged(life.persist));
	if (!keyspace_set_eviction(life.keyspace, &how)) {
		printf("Bail out! no memory\n");
		exit(1);
	}
}

// What the loop does between two requests.
static void turn(void)
{
	struct persist_move move;
	uint64_t now_ns = seam_system.monotonic_ns();
	if (life_commit(&life, life_published(&life)) != STORE_OK) {
		printf("Bail out! a commit failed: %s\n", store_why(life.store));
		exit(1);
	}
	persist_follow_values(life.persist, keyspace_follows_places(life.keyspace));
	if (keyspace_wants_places(life.keyspace, persist_places_known(life.persist), now_ns)) {
		persist_want_places(life.persist);
	}
	persist_places_take_wish(life.persist);
	if (persist_places_due(life.persist)) {
		persist_places_step(life.persist);
	}
	while (persist_next_move(life.persist, &move)) {
		(void)keyspace_move(life.keyspace, move.key, move.key_bytes, move.seq, move.place);
	}
	(void)kvs_epoch_scan(&life.epochs, now_ns);
	cleaner_turn(life.keyspace, now_ns);
}

// False: refused, or not done within so many turns.
static bool put(unsigned number, uint32_t bytes)
{
	static unsigned char value[100000];
	char key[32];
	size_t key_bytes = make_key(key, number);
	int result = KEYSPACE_WAIT;
	stamps[number] = keyspace_last_seq(life.keyspace) + 1;
	fixture_fill(value, bytes, number, stamps[number]);
	for (unsigned i = 0; i < TRIES && result == KEYSPACE_WAIT; i++) {
		keyspace_tick(life.keyspace);
		result = keyspace_set(life.keyspace, key, key_bytes, value, bytes, 0, NULL);
		if (result == KEYSPACE_WAIT) {
			turn();
		}
	}
	sizes[number] = result == KEYSPACE_OK ? bytes : sizes[number];
	return result == KEYSPACE_OK;
}

struct counted {
	unsigned values, stubs, wrong, absent;
};

static bool is_right(unsigned number, const void *value, uint32_t bytes)
{
	static unsigned char expected[100000];
	fixture_fill(expected, sizes[number], number, stamps[number]);
	return bytes == sizes[number] && memcmp(value, expected, bytes) == 0;
}

static bool stub_is_right(struct store_reader *reader, unsigned number, const struct kvs_hit *hit)
{
	struct store_record record;
	const struct store_wanted wanted = {
		.place = kvs_load_relaxed(&hit->view.record->place),
		.seq = hit->view.seq,
		.key = hit->view.key,
		.key_bytes = hit->view.key_bytes,
		.value_bytes = hit->view.value_bytes,
	};
	bool good = store_reader_read(reader, &wanted, &record) == STORE_OK &&
		    is_right(number, record.value, record.view.value_bytes);
	free(record.bytes);
	return good;
}

// Every key has the value that was written last.
static struct counted count(unsigned keys)
{
	struct counted counted = { 0 };
	struct store_reader *reader;
	if (store_reader_open(&reader, life.store, 1) != STORE_OK) {
		printf("Bail out! no reader\n");
		exit(1);
	}
	for (unsigned i = 0; i < keys; i++) {
		char key[32];
		struct kvs_hit hit;
		size_t key_bytes = make_key(key, i);
		uint64_t hash = keyspace_hash(life.keyspace, key, key_bytes);
		if (keyspace_find(life.keyspace, hash, key, key_bytes, &hit) != KVS_FIND_HIT) {
			counted.absent++;
		} else if (hit.kind == KVS_ENTRY_STUB) {
			counted.stubs++;
			counted.wrong += !stub_is_right(reader, i, &hit);
		} else {
			counted.values++;
			counted.wrong += !is_right(i, hit.value, hit.view.value_bytes);
		}
	}
	store_reader_close(reader);
	return counted;
}

static void say(const struct counted *counted)
{
	tap_diag("%u values in memory, %u in the store alone, %u wrong, %u absent", counted->values,
		 counted->stubs, counted->wrong, counted->absent);
}

static void test_ten_times(const char *dir)
{
	unsigned refused = 0;
	begin(dir, "keep:");
	for (unsigned i = 0; i < KEYS; i++) {
		refused += !put(i, i % 500 == 3 ? 90000 : VALUE_BYTES);
		if (i % TURN_KEYS == 0) {
			turn();
		}
	}
	turn();
	struct counted counted = count(KEYS);
	say(&counted);
	ok_u64(refused, 0, "G: no write is refused");
	ok(counted.absent == 0 && counted.wrong == 0, "E: every key has its value");
	ok(counted.values > MEMORY_BYTES / 10 / VALUE_BYTES, "memory is used for some of them");
	ok(counted.stubs > KEYS / 2, "most are in the store alone");
	ok_u64(keyspace_count_stubs(life.keyspace), counted.stubs, "as many as are counted");
	unsigned kept = 0;
	for (unsigned i = 7; i < KEYS; i += 1000) {
		char key[32];
		struct kvs_hit hit;
		size_t bytes = make_key(key, i);
		uint64_t hash = keyspace_hash(life.keyspace, key, bytes);
		kept += keyspace_find(life.keyspace, hash, key, bytes, &hit) == KVS_FIND_HIT &&
			hit.kind != KVS_ENTRY_STUB;
	}
	ok_u64(kept, KEYS / 1000, "what is not to leave memory has not");
	// Everything is written again and again, so compaction goes over all of it.
	uint64_t state = tap_seed(3);
	for (unsigned i = 0; i < KEYS; i++) {
		refused += !put((unsigned)(tap_random(&state) % KEYS), VALUE_BYTES / 2);
		if (i % TURN_KEYS == 0) {
			turn();
		}
	}
	turn();
	counted = count(KEYS);
	say(&counted);
	ok(refused == 0 && counted.absent == 0 && counted.wrong == 0,
	   "E: so it is while compaction moves all of them");
	(void)life_end(&life);
}

static void test_next_life(const char *dir)
{
	begin(dir, "");
	struct counted counted = count(KEYS);
	say(&counted);
	ok(counted.absent == 0 && counted.wrong == 0, "E: the next life has every key's value");
	ok(counted.values > MEMORY_BYTES / 10 / VALUE_BYTES, "some of them in memory");
	ok(life.region.memory_bytes <= MEMORY_BYTES, "and no more memory than it may");
	unsigned refused = 0;
	for (unsigned i = 0; i < KEYS / 20; i++) {
		refused += !put(i, VALUE_BYTES);
		if (i % TURN_KEYS == 0) {
			turn();
		}
	}
	ok_u64(refused, 0, "G: it can be written at once");
	(void)life_end(&life);
}

// Of the keys but the first, how many say where they are.
static unsigned still_placed(unsigned keys)
{
	unsigned placed = 0;
	for (unsigned i = 1; i < keys; i++) {
		char key[32];
		uint64_t place = 0;
		(void)life_lookup(&life, key, make_key(key, i), &place);
		placed += kvs_place_block(place) > *persist_judged(life.persist);
	}
	return placed;
}

// Values that compaction has moved have no place that holds: it is looked for when they are to go.
static void test_unplaced(void)
{
	char dir[FIXTURE_PATH_BYTES];
	unsigned refused = 0;
	fixture_dir_fast(dir);
	memset(sizes, 0, sizeof(sizes));
	begin(dir, "");
	for (unsigned i = 0; i < SOME_KEYS; i++) {
		refused += !put(i, VALUE_BYTES);
	}
	turn();
	unsigned placed = still_placed(SOME_KEYS);
	ok(placed > SOME_KEYS / 10 * 9, "what is committed is where it says: %u", placed);
	// All others are moved meanwhile, by the persister's thread: as long as it takes.
	for (unsigned i = 0; i < 60000 && placed >= SOME_KEYS / 10; i++) {
		refused += !put(0, VALUE_BYTES);
		if (i % 8 == 0) {
			turn();
		}
		placed = i % 500 == 499 ? still_placed(SOME_KEYS) : placed;
	}
	ok(placed < SOME_KEYS / 10, "compaction has passed nearly all: %u are where they say",
	   placed);
	life.persist->options.compact_floor_bytes = UINT64_C(1) << 30; // nothing more is moved
	for (unsigned i = SOME_KEYS; i < KEYS / 5; i++) {
		refused += !put(i, VALUE_BYTES);
		if (i % TURN_KEYS == 0) {
			turn();
		}
	}
	struct counted counted = count(SOME_KEYS);
	ok(counted.stubs > SOME_KEYS / 3 * 2, "they were looked for: %u have left memory",
	   counted.stubs);
	counted = count(KEYS / 5);
	say(&counted);
	ok_u64(refused, 0, "G: no write is refused");
	ok(counted.absent == 0 && counted.wrong == 0, "E: every key has its value");
	(void)life_end(&life);
	fixture_remove(dir);
}

// Nothing is left that could go.
static void test_in_vain(void)
{
	char dir[FIXTURE_PATH_BYTES];
	unsigned written = 0;
	fixture_dir_fast(dir);
	memset(sizes, 0, sizeof(sizes));
	begin(dir, "");
	while (written < MANY_KEYS && put(written, 200)) {
		if (written++ % TURN_KEYS == 0) {
			turn();
		}
	}
	struct counted counted = count(written);
	say(&counted);
	ok(written < MANY_KEYS && counted.stubs > written / 10 * 9,
	   "G: a write is refused after %u, when nearly all are stubs", written);
	ok(counted.absent == 0 && counted.wrong == 0, "E: every key has its value");
	(void)life_end(&life);
	fixture_remove(dir);
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	char dir[FIXTURE_PATH_BYTES];
	shift = tap_slowness() > 4 ? 2 : 0;
	fixture_dir_fast(dir);
	test_ten_times(dir);
	test_next_life(dir);
	fixture_remove(dir);
	test_unplaced();
	test_in_vain();
	return tap_done();
}
