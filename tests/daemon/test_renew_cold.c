// SPDX-License-Identifier: MIT
//
// Values that are in the store alone while it is written anew: the new one has them, whatever
// became of the old one's name, and their keys learn where they stand now; so they do of moves that
// nobody was told of. What cannot be read any more is counted and named, and everything else goes
// on (E).
#include <dirent.h>

#include "daemon/keyspace_cold.h"
#include "daemon/storage/store_read.h"
#include "tests/daemon/persist_fixture.h"

#define KEYS 600u
#define STUBS_ROUNDS 1000u // of anything that must come to an end

static struct life life;
static uint64_t stamps[KEYS];
static uint32_t sizes[KEYS];

static size_t make_key(char key[32], unsigned number)
{
	return (size_t)snprintf(key, 32, "k%u", number);
}

static void put(unsigned number, uint32_t bytes)
{
	static unsigned char value[400000];
	char key[32];
	uint64_t seq = 0;
	stamps[number] = keyspace_last_seq(life.keyspace) + 1;
	sizes[number] = bytes;
	fixture_fill(value, bytes, number, stamps[number]);
	keyspace_tick(life.keyspace);
	size_t key_bytes = make_key(key, number);
	if (keyspace_set(life.keyspace, key, key_bytes, value, bytes, 0, &seq) != KEYSPACE_OK) {
		printf("Bail out! no room for a value\n");
		exit(1);
	}
}

static void commit(void)
{
	if (life_commit(&life, life_published(&life)) != STORE_OK) {
		printf("Bail out! a commit failed: %s\n", store_why(life.store));
		exit(1);
	}
	(void)keyspace_follow_durable(life.keyspace);
}

// Every other value leaves memory.
static unsigned spill(void)
{
	unsigned stubs = 0;
	for (unsigned i = 0; i < KEYS; i += 2) {
		char key[32];
		stubs += keyspace_spill(life.keyspace, key, make_key(key, i)) == KEYSPACE_COLD_DONE;
	}
	return stubs;
}

// A life with small, long and large values, half of them in the store alone.
static void begin(const char *dir)
{
	struct life_options options = {
		.dir = dir,
		.memory_bytes = 48u << 20,
		.segment_bytes = 1u << 20,
		.policy = PERSIST_GROUP,
		.ratio_percent = 100,
		.floor_bytes = UINT64_C(1) << 30, // nothing is compacted
		.collect_moves = true,
	};
	life_begin(&life, &options);
	keyspace_set_judged(life.keyspace, persist_judged(life.persist));
	for (unsigned i = 0; i < KEYS; i++) {
		put(i, i % 50 == 0 ? 300000 : i % 20 == 0 ? 80000 : 100 + i);
	}
	commit();
	ok_int(spill(), KEYS / 2, "half of the values are in the store alone");
}

// Reads all values, stubs' from the store. Returns how many answered so.
static unsigned count_stubs(int expected)
{
	static unsigned char bytes[400000];
	struct store_reader *reader;
	unsigned count = 0;
	if (store_reader_open(&reader, life.store, 1) != STORE_OK) {
		return 0;
	}
	for (unsigned i = 0; i < KEYS; i++) {
		char key[32];
		struct kvs_hit hit;
		struct store_record record = { 0 };
		size_t key_bytes = make_key(key, i);
		uint64_t hash = keyspace_hash(life.keyspace, key, key_bytes);
		if (keyspace_find(life.keyspace, hash, key, key_bytes, &hit) != KVS_FIND_HIT ||
		    hit.kind != KVS_ENTRY_STUB) {
			continue;
		}
		struct store_wanted wanted = {
			.place = kvs_load_relaxed(&hit.view.record->place),
			.seq = hit.view.seq,
			.key = key,
			.key_bytes = (uint32_t)key_bytes,
			.value_bytes = hit.view.value_bytes,
		};
		int result = store_reader_read(reader, &wanted, &record);
		fixture_fill(bytes, sizes[i], i, stamps[i]);
		if (result == STORE_OK && (record.view.value_bytes != sizes[i] ||
					   memcmp(record.value, bytes, sizes[i]) != 0)) {
			result = -100;
		}
		count += result == expected;
		free(record.bytes);
	}
	store_reader_close(reader);
	return count;
}

struct held {
	bool good[KEYS];
	unsigned count;
};

static int look(void *context, const struct kvs_record_view *view, const void *value,
		uint64_t place)
{
	static unsigned char bytes[400000];
	struct held *held = context;
	char key[32] = "";
	(void)place;
	memcpy(key, view->key, view->key_bytes < 31 ? view->key_bytes : 31);
	unsigned long number = strtoul(key + 1, NULL, 10);
	const void *has = (view->flags & KVS_RECORD_LARGE) != 0 ? value : view->payload;
	if (number < KEYS && view->value_bytes == sizes[number]) {
		fixture_fill(bytes, sizes[number], number, stamps[number]);
		bool good = memcmp(has, bytes, sizes[number]) == 0;
		held->count += good && !held->good[number];
		held->good[number] = held->good[number] || good;
	}
	return 0;
}

// Of how many keys has the store the newest value?
static unsigned count_held(struct store *store)
{
	static struct held held;
	memset(&held, 0, sizeof(held));
	struct store_walk walk = { .record = look, .context = &held, .check_records = true };
	return store_recover(store, &walk) == STORE_OK ? held.count : 0;
}

// All moves that there are, and places that are looked for. False: no end of it.
static bool tell_all(bool apply)
{
	for (unsigned i = 0; i < STUBS_ROUNDS; i++) {
		struct persist_move move;
		while (persist_next_move(life.persist, &move)) {
			if (apply) {
				(void)keyspace_move(life.keyspace, move.key, move.key_bytes,
						    move.seq, move.place);
			}
		}
		if (persist_places_known(life.persist)) {
			return true;
		}
		if (persist_places_due(life.persist)) {
			persist_places_step(life.persist);
		}
	}
	return false;
}

static int renew(void)
{
	life.persist->untrusted = true;
	return persist_renew(life.persist);
}

static bool has_failed_one(const char *dir)
{
	DIR *folder = opendir(dir);
	const struct dirent *entry;
	bool found = false;
	while (folder != NULL && (entry = readdir(folder)) != NULL) {
		found = found || strncmp(entry->d_name, "store.failed-", 13) == 0;
	}
	if (folder != NULL) {
		(void)closedir(folder);
	}
	return found;
}

static void end(const char *dir)
{
	(void)life_end(&life);
	fixture_remove(dir);
}

static void test_renewed(void)
{
	char dir[FIXTURE_PATH_BYTES];
	fixture_dir_fast(dir);
	begin(dir);
	put(1, 50); // what is not durable yet comes from the log
	put(2, 60);
	put(3, 300);
	ok_int(renew(), STORE_OK, "the store is written anew");
	life.keyspace->durable_seen = life.persist->durable_seq;
	ok_int(keyspace_spill(life.keyspace, "k3", 2), KEYSPACE_COLD_UNPLACED,
	       "E: no value in memory names a place in what might have come to nothing");
	ok_int(count_held(life.store), KEYS, "E: it has every value");
	ok_int(count_stubs(STORE_READ_GONE), KEYS / 2 - 1, "what stubs say is the old one's");
	ok(!persist_places_known(life.persist), "that is known");
	ok(tell_all(true), "and looked for");
	ok_int(count_stubs(STORE_OK), KEYS / 2 - 1, "E: then each is read by its place");
	ok_int(renew(), STORE_OK, "once more");
	ok_int(count_held(life.store), KEYS, "E: with every value");
	ok(!has_failed_one(dir), "and nothing that was lost is left for anybody");
	end(dir);
}

static void test_without_name(void)
{
	char dir[FIXTURE_PATH_BYTES];
	char path[FIXTURE_PATH_BYTES + 32];
	fixture_dir_fast(dir);
	begin(dir);
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	ok(unlink(path) == 0, "the store's file is removed");
	ok_int(renew(), STORE_OK, "it is written anew");
	ok_int(count_held(life.store), KEYS, "E: with every value, for it was open");
	ok_u64(life_counter(&life, KVS_COUNTER_cold_lost), 0, "nothing is lost");
	end(dir);
}

// Flips a bit of a value in the store's file. False if it is not found.
static bool spoil(const char *dir, unsigned number)
{
	char path[FIXTURE_PATH_BYTES + 32];
	static unsigned char all[48 << 20];
	static unsigned char mark[400000];
	fixture_fill(mark, sizes[number], number, stamps[number]);
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	ssize_t bytes = fd < 0 ? 0 : read(fd, all, sizeof(all));
	size_t part = sizes[number] < 64 ? sizes[number] : 64;
	unsigned char *at = bytes > 0 ? memmem(all, (size_t)bytes, mark, part) : NULL;
	bool done = false;
	if (at != NULL) {
		*at ^= 4;
		done = pwrite(fd, at, 1, at - all) == 1;
	}
	(void)close(fd);
	return done;
}

static void test_lost(void)
{
	char dir[FIXTURE_PATH_BYTES];
	fixture_dir_fast(dir);
	begin(dir);
	ok(spoil(dir, 100), "a long value that is in the store alone is spoilt there");
	ok_int(renew(), STORE_OK, "the store is written anew");
	ok_u64(life_counter(&life, KVS_COUNTER_cold_lost), 1, "one value is lost, and counted");
	ok_int(count_held(life.store), KEYS - 1, "E: all others are in it");
	ok(has_failed_one(dir), "the old one is left for who can get more out of it");
	ok(tell_all(true), "places are looked for");
	ok_int(count_stubs(STORE_OK), KEYS / 2 - 1, "E: and found");
	ok_int(count_stubs(STORE_READ_GONE), 1, "the lost one keeps its stub, and has none");
	ok_int(renew(), STORE_OK, "the store can be written anew all the same");
	ok_u64(life_counter(&life, KVS_COUNTER_cold_lost), 2, "which tells it again");
	put(100, 10);
	commit();
	ok_int(count_held(life.store), KEYS, "until the key is written");
	end(dir);
}

// Compaction goes over everything, and its moves are not told. Ends, for each commit looks at more
// than it appends.
static void move_untold(void)
{
	for (unsigned round = 0; round < 40; round++) {
		for (unsigned i = 1; i < KEYS; i += 2) {
			put(i, 200);
		}
		commit();
		struct persist_move move;
		while (persist_next_move(life.persist, &move)) {
		}
	}
}

static void begin_untold(char *dir)
{
	fixture_dir_fast(dir);
	begin(dir);
	life.persist->options.compact_floor_bytes = 1; // from now on
	move_untold();
}

static void test_untold(void)
{
	char dir[FIXTURE_PATH_BYTES];
	begin_untold(dir);
	unsigned gone = count_stubs(STORE_READ_GONE);
	ok(gone > KEYS / 4, "compaction moved %u stubs' values, and told nobody", gone);
	ok_int(count_held(life.store), KEYS, "the store has every value");
	ok_int(renew(), STORE_OK, "it is written anew");
	ok_int(count_held(life.store), KEYS, "E: with every value");
	ok_u64(life_counter(&life, KVS_COUNTER_cold_lost), 0, "nothing is lost");
	end(dir);
}

// The persister of a next life, which looks for places or was told everything.
static void begin_anew(bool find_places)
{
	struct persist_options options = life.persist->options;
	options.start_position = life_published(&life);
	options.find_places = find_places;
	keyspace_set_judged(life.keyspace, NULL);
	persist_free(life.persist);
	life.persist = persist_new(&options);
	keyspace_set_judged(life.keyspace, persist_judged(life.persist));
}

// A kvd that was killed left a region whose stubs were not told everything.
static void test_after_kill(void)
{
	char dir[FIXTURE_PATH_BYTES];
	begin_untold(dir);
	unsigned gone = count_stubs(STORE_READ_GONE);
	begin_anew(true);
	ok(gone > 0 && !persist_places_known(life.persist), "%u places are not known", gone);
	for (unsigned i = 0; i < 3; i++) {
		persist_places_step(life.persist);
		for (unsigned k = 1; k < KEYS; k += 2) {
			put(k, 200); // compaction goes on meanwhile
		}
		commit();
	}
	ok(tell_all(true), "they are looked for while commits go on");
	ok_int(count_stubs(STORE_OK), KEYS / 2, "E: and found");
	begin_anew(false);
	ok(persist_places_known(life.persist), "a life that was told everything looks for nothing");
	end(dir);
}

// Looks until the places are known; how many steps that took.
static unsigned look_through(bool counts)
{
	unsigned steps = 0;
	while (!persist_places_known(life.persist) && steps < STUBS_ROUNDS) {
		struct persist_move move;
		persist_places_step(life.persist);
		while (persist_next_move(life.persist, &move)) {
			(void)keyspace_move(life.keyspace, move.key, move.key_bytes, move.seq,
					    move.place);
		}
		if (counts && keyspace_stubs_astray(life.keyspace) == 0) {
			persist_places_enough(life.persist);
		}
		steps++;
	}
	return steps;
}

// One stub, whose value was appended last, does not know where.
static void begin_astray(void)
{
	struct store_facts facts;
	char key[32];
	uint64_t place;
	size_t key_bytes = make_key(key, KEYS - 2);
	uint64_t seq = life_lookup(&life, key, key_bytes, &place);
	store_facts(life.store, &facts);
	life.keyspace->first_block = facts.oldest_block;
	(void)keyspace_move(life.keyspace, key, key_bytes, seq, kvs_place_make(0, 48));
	life.keyspace->stubs_astray = 1;
	begin_anew(true);
}

// Where it is known how many are looked for the rest of the store is left.
static void test_enough(void)
{
	char dir[FIXTURE_PATH_BYTES], key[32];
	struct store_facts facts;
	uint64_t place, found = 0;
	fixture_dir_fast(dir);
	begin(dir);
	(void)life_lookup(&life, key, make_key(key, KEYS - 2), &place);
	store_facts(life.store, &facts);
	uint64_t blocks = facts.next_block - facts.oldest_block;
	begin_astray();
	unsigned all = look_through(false);
	ok(all > 5, "all %" PRIu64 " blocks are looked through in %u steps", blocks, all);
	begin_astray();
	unsigned steps = look_through(true);
	(void)life_lookup(&life, key, make_key(key, KEYS - 2), &found);
	ok(steps < all / 2 && found == place, "G: one stub is found in %u", steps);
	ok_u64(keyspace_stubs_astray(life.keyspace), 0, "none is left");
	ok_int(count_stubs(STORE_OK), KEYS / 2, "E: all know their places");
	persist_places_look(life.persist);
	ok_u64(look_through(true), all, "who looks for more is not stopped by that");
	begin_astray();
	put(KEYS - 2, 10);
	ok_u64(keyspace_stubs_astray(life.keyspace), 0, "one that is replaced need not be found");
	end(dir);
}

// How many values that nobody changes say where they are.
static unsigned still_placed(void)
{
	unsigned placed = 0;
	for (unsigned i = 3; i < KEYS; i += 2) {
		char key[32];
		uint64_t place = 0;
		(void)life_lookup(&life, key, make_key(key, i), &place);
		placed += kvs_place_block(place) > *persist_judged(life.persist);
	}
	return placed;
}

// Values whose places compaction has passed are told them when somebody wants to know.
static void test_values(void)
{
	char dir[FIXTURE_PATH_BYTES];
	fixture_dir_fast(dir);
	begin(dir);
	life.persist->options.compact_floor_bytes = 1; // from now on
	for (unsigned i = 3; i < KEYS; i += 2) {
		put(i, 200);
	}
	commit(); // which places them
	for (unsigned i = 0; i < 2000 && (i % 50 != 0 || still_placed() > 0); i++) {
		put(1, 3000); // the only one that changes: all others are moved
		commit();
		(void)tell_all(true);
	}
	ok(spill() == 0, "nothing more is to leave memory of those");
	char key[32];
	unsigned unplaced = 0;
	for (unsigned i = 3; i < KEYS; i += 2) {
		unplaced += keyspace_spill(life.keyspace, key, make_key(key, i)) ==
			    KEYSPACE_COLD_UNPLACED;
	}
	ok(unplaced > KEYS / 4, "compaction has passed %u values", unplaced);
	persist_want_places(life.persist);
	persist_places_take_wish(life.persist);
	ok(!persist_places_known(life.persist) && tell_all(true), "their places are wanted");
	unsigned spilled = 0;
	for (unsigned i = 3; i < KEYS; i += 2) {
		spilled +=
			keyspace_spill(life.keyspace, key, make_key(key, i)) == KEYSPACE_COLD_DONE;
	}
	ok(spilled == unplaced, "then all of them can leave memory");
	ok_int(count_stubs(STORE_OK), KEYS / 2 + spilled, "E: and are read");
	end(dir);
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	test_renewed();
	test_without_name();
	test_lost();
	test_untold();
	test_after_kill();
	test_enough();
	test_values();
	return tap_done();
}
