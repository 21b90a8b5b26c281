// SPDX-License-Identifier: MIT
//
// Records that are read by their place beside the store's owner: what is found is what was asked
// for or is not believed, what compaction took away is gone and not wrong, and while the owner
// commits, compacts and writes another store no reader meets anything else.
#include "daemon/storage/store_read.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "shm/atomics.h"
#include "tests/daemon/store_fixture.h"

#define KEYS 24u
#define THREADS 2u

static struct store *open_store(const char *dir)
{
	char why[512];
	struct store *store;
	struct store_options options = { .dir = dir, .instance_id = 77, .readers = THREADS };
	if (store_open(&store, &options, why, sizeof(why)) != STORE_OK) {
		printf("Bail out! %s\n", why);
		exit(1);
	}
	return store;
}

static struct store_reader *open_reader(struct store *store, unsigned index)
{
	struct store_reader *reader;
	if (store_reader_open(&reader, store, index) != STORE_OK) {
		printf("Bail out! no memory for a reader\n");
		exit(1);
	}
	return reader;
}

// Small ones, one that nearly fills a block, ones of several blocks, large values.
static uint32_t value_bytes_of(uint64_t number)
{
	static const uint32_t bytes[] = { 0, 100, 3000, 32500, 60000, 200000 };
	return bytes[number % 6];
}

static uint16_t flags_of(uint64_t number)
{
	return number % 6 == 5 ? KVS_RECORD_LARGE : 0;
}

static int append(struct store *store, uint64_t number, uint64_t seq, uint64_t *place)
{
	static struct fixture_record record; // the owner's alone
	fixture_record(&record, number, seq, value_bytes_of(number), flags_of(number));
	int result = store_append(store, &record.view, record.value, place);
	free(record.value);
	return result;
}

struct question {
	char key[32];
	struct store_wanted wanted;
};

static const struct store_wanted *ask(struct question *question, uint64_t number, uint64_t seq,
				      uint64_t place)
{
	int bytes =
		snprintf(question->key, sizeof(question->key), "k%llu", (unsigned long long)number);
	question->wanted = (struct store_wanted){
		.place = place,
		.seq = seq,
		.key = question->key,
		.key_bytes = (uint32_t)bytes,
		.value_bytes = value_bytes_of(number),
	};
	return &question->wanted;
}

// As store_reader_read(); what is found and is not what fixture_record() made is -100.
static int read_one(struct store_reader *reader, uint64_t number, uint64_t seq, uint64_t place)
{
	struct question question;
	struct store_record record;
	int result = store_reader_read(reader, ask(&question, number, seq, place), &record);
	if (result == STORE_OK && !fixture_same(&record.view, record.value, number)) {
		result = -100;
	}
	free(record.bytes);
	return result;
}

static int refused(struct store_reader *reader, const struct store_wanted *wanted)
{
	struct store_record record;
	int result = store_reader_read(reader, wanted, &record);
	if (record.bytes != NULL) {
		free(record.bytes);
		return -100;
	}
	return result;
}

// ---- one thread ---------------------------------------------------------------------------------

static uint64_t places[KEYS];

static int commit_all(struct store *store)
{
	int result = store_begin(store);
	for (uint64_t i = 0; i < KEYS && result == STORE_OK; i++) {
		result = append(store, i, i + 1, &places[i]);
	}
	return result == STORE_OK ? store_commit(store, KEYS) : result;
}

static unsigned count_read(struct store_reader *reader, int expected)
{
	unsigned count = 0;
	for (uint64_t i = 0; i < KEYS; i++) {
		count += read_one(reader, i, i + 1, places[i]) == expected;
	}
	return count;
}

static void test_found(struct store *store, struct store_reader *reader)
{
	uint64_t place = 0;
	ok_int(commit_all(store), STORE_OK, "records of all sizes");
	ok_int(count_read(reader, STORE_OK), KEYS, "each is read by its place");
	ok_int(count_read(reader, STORE_OK), KEYS, "and once more");
	ok(store_begin(store) == STORE_OK && append(store, 2, 100, &place) == STORE_OK,
	   "a newer version of one");
	ok_int(read_one(reader, 2, 100, place), STORE_READ_GONE, "is not there");
	ok_int(store_commit(store, 100), STORE_OK, "before it is committed");
	ok_int(read_one(reader, 2, 100, place), STORE_OK, "and then it is");
	ok_int(read_one(reader, 2, 3, places[2]), STORE_OK, "beside the older one");
	ok_int(read_one(reader, 2, 100, 0), STORE_READ_GONE, "nothing stands at no place");
}

static void test_not_believed(struct store_reader *reader)
{
	struct question q;
	const uint64_t block = UINT64_C(1) << KVS_PLACE_OFFSET_BITS;
	ok_int(refused(reader, ask(&q, 1, 3, places[1])), STORE_DAMAGED, "another version");
	ok(strstr(store_reader_why(reader), "another record") != NULL, "%s",
	   store_reader_why(reader));
	ok_int(refused(reader, ask(&q, 7, 2, places[1])), STORE_DAMAGED, "another key");
	(void)ask(&q, 1, 2, places[1]);
	q.wanted.value_bytes++;
	ok_int(refused(reader, &q.wanted), STORE_DAMAGED, "another length");
	ok_int(refused(reader, ask(&q, 1, 2, places[1] + 8)), STORE_DAMAGED, "inside a record");
	ok_int(refused(reader, ask(&q, 1, 2, places[1] + 1)), STORE_DAMAGED, "not aligned");
	ok_int(refused(reader, ask(&q, 1, 2, places[1] | 0xfffff8)), STORE_DAMAGED, "behind all");
	ok_int(refused(reader, ask(&q, 1, 2, places[1] >> 24 << 24)), STORE_DAMAGED,
	       "before the first");
	ok_int(refused(reader, ask(&q, 4, 5, places[4] + block)), STORE_DAMAGED,
	       "the rest of a long one");
	ok_int(refused(reader, ask(&q, 4, 5, places[4] + 8)), STORE_DAMAGED, "inside a long one");
	(void)ask(&q, 4, 5, places[4]);
	q.wanted.value_bytes = 100;
	ok_int(refused(reader, &q.wanted), STORE_DAMAGED, "a long one that should be short");
	ok_int(refused(reader, ask(&q, 4, 6, places[4])), STORE_DAMAGED, "another long one");
	ok_int(count_read(reader, STORE_OK), KEYS, "what is asked for rightly is read as before");
}

static void test_moved(struct store *store, struct store_reader *reader)
{
	uint64_t place = 0;
	struct store_facts facts;
	store_facts(store, &facts);
	uint64_t behind = places[4] >> KVS_PLACE_OFFSET_BITS; // a long one: the block is its own
	ok(store_begin(store) == STORE_OK && store_append_span(store, behind, &place) == STORE_OK &&
		   store_delete_oldest(store, behind + 2 - facts.oldest_block) == STORE_OK,
	   "compaction moves a record");
	ok_int(read_one(reader, 4, 5, places[4]), STORE_OK, "the place holds");
	ok_int(read_one(reader, 4, 5, place), STORE_READ_GONE, "and no other");
	ok_int(store_commit(store, 100), STORE_OK, "until that is committed");
	struct store_reader *other = open_reader(store, 1);
	ok_int(read_one(other, 4, 5, places[4]), STORE_READ_GONE, "then it is gone");
	ok_int(read_one(reader, 4, 5, place), STORE_OK, "and stands elsewhere");
	ok_int(read_one(other, 1, 2, places[1]), STORE_READ_GONE, "what was dropped is gone too");
	store_reader_close(other);
}

static void test_renewed(struct store *store, struct store_reader *reader)
{
	uint64_t old[KEYS];
	ok_int(commit_all(store), STORE_OK, "all anew");
	memcpy(old, places, sizeof(old));
	ok_int(store_renew_begin(store), STORE_OK, "another store is begun");
	struct store_reader *other = open_reader(store, 1);
	ok_int(count_read(other, STORE_OK), KEYS, "the old one is read then");
	ok_int(commit_all(store), STORE_OK, "its records");
	ok_int(read_one(other, 0, 1, places[0]), STORE_READ_GONE, "and not what is half there");
	ok_int(store_renew_finish(store, STORE_REPLACED_GOES), STORE_OK, "it takes the place");
	ok_int(count_read(other, STORE_OK), KEYS, "now it is read");
	memcpy(places, old, sizeof(old));
	ok_int(count_read(other, STORE_READ_GONE), KEYS, "no old place means anything in it");
	ok(store_renew_begin(store) == STORE_OK, "another attempt");
	ok_int(read_one(reader, 1, 2, 1), STORE_READ_GONE, "leaves it open");
	store_renew_abandon(store);
	ok_int(read_one(reader, 1, 2, 1), STORE_READ_SHUT, "shuts it");
	ok_int(store_begin(store), STORE_OK, "that is given up");
	store_abort(store);
	ok_int(read_one(other, 0, 1, old[0]), STORE_READ_GONE, "opens it again");
	store_reader_close(other);
}

// What another one is to replace is read and searched, whatever became of its name; what failed is
// opened anew.
static void test_replaced(void)
{
	char dir[FIXTURE_PATH_BYTES];
	char path[FIXTURE_PATH_BYTES + 32];
	struct question q;
	unsigned found = 0;
	fixture_dir_fast(dir);
	struct store *store = open_store(dir);
	struct store_reader *reader = open_reader(store, STORE_READER_RENEWAL);
	ok_int(commit_all(store), STORE_OK, "a store");
	ok_int(store_renew_begin(store), STORE_OK, "is to be replaced");
	ok_int(count_read(reader, STORE_OK), KEYS, "it is read meanwhile");
	for (uint64_t i = 0; i < KEYS; i++) {
		(void)ask(&q, i, i + 1, 1);
		found += store_reader_find(reader, &q.wanted) == STORE_OK &&
			 q.wanted.place == places[i];
	}
	ok_int(found, KEYS, "and searched");
	(void)ask(&q, 1, 7, 1);
	ok_int(store_reader_find(reader, &q.wanted), STORE_READ_GONE, "for what it has");
	ok_int(store_replaced_again(store), STORE_OK, "it is opened anew");
	ok_int(count_read(reader, STORE_OK), KEYS, "and read");
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	ok(unlink(path) == 0, "it loses its name");
	ok_int(count_read(reader, STORE_OK), KEYS, "it is read all the same");
	ok_int(store_replaced_again(store), STORE_GONE, "but not opened");
	struct store_reader *other = open_reader(store, 1);
	ok_int(count_read(other, STORE_READ_SHUT), KEYS, "nothing can be read then");
	ok_int(commit_all(store), STORE_OK, "others");
	ok_int(store_renew_finish(store, STORE_REPLACED_GOES), STORE_OK, "take its place");
	ok_int(count_read(other, STORE_OK), KEYS, "and are read");
	store_reader_close(other);
	store_reader_close(reader);
	store_close(store);
	fixture_remove(dir);
}

// ---- damage -------------------------------------------------------------------------------------

// Flips a bit of the bytes that follow `mark` by `behind` in the store's file.
static bool flip(const char *dir, const void *mark, size_t mark_bytes, long behind)
{
	char path[FIXTURE_PATH_BYTES + 32];
	static unsigned char all[4 << 20];
	(void)snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	ssize_t bytes = fd < 0 ? 0 : read(fd, all, sizeof(all));
	unsigned char *at = bytes > 0 ? memmem(all, (size_t)bytes, mark, mark_bytes) : NULL;
	bool done = false;
	if (at != NULL) {
		at += behind;
		*at ^= 4;
		done = pwrite(fd, at, 1, at - all) == 1;
	}
	(void)close(fd);
	return done;
}

static void test_damaged(void)
{
	char dir[FIXTURE_PATH_BYTES];
	unsigned char value[64];
	fixture_dir_fast(dir);
	struct store *store = open_store(dir);
	struct store_reader *reader = open_reader(store, 0);
	ok_int(commit_all(store), STORE_OK, "a store");
	fixture_fill(value, sizeof(value), 4, 5);
	ok(flip(dir, value, sizeof(value), 40), "a bit of a long value");
	ok_int(read_one(reader, 4, 5, places[4]), STORE_DAMAGED, "is damage");
	ok(strstr(store_reader_why(reader), "checksum") != NULL, "%s", store_reader_why(reader));
	ok_int(count_read(reader, STORE_OK), KEYS - 1, "of one record alone");
	store_reader_close(reader);
	store_close(store);
	fixture_remove(dir);
}

// ---- several threads ----------------------------------------------------------------------------

struct shared {
	struct store *store;
	uint64_t seed;
	uint64_t place[KEYS]; // of the only version of each key
	uint64_t over;	      // the owner changes nothing any more
	uint64_t found, gone, shut, wrong;
};

static void read_random(struct shared *shared, struct store_reader *reader, uint64_t *state)
{
	uint64_t number = tap_random(state) % KEYS;
	uint64_t place = kvs_load_acquire(&shared->place[number]);
	switch (read_one(reader, number, number + 1, place)) {
	case STORE_OK:
		(void)__atomic_add_fetch(&shared->found, 1, __ATOMIC_RELAXED);
		break;
	case STORE_READ_GONE:
		(void)__atomic_add_fetch(&shared->gone, 1, __ATOMIC_RELAXED);
		break;
	case STORE_READ_SHUT:
		(void)__atomic_add_fetch(&shared->shut, 1, __ATOMIC_RELAXED);
		break;
	default:
		(void)__atomic_add_fetch(&shared->wrong, 1, __ATOMIC_RELAXED);
		break;
	}
}

struct thread {
	struct shared *shared;
	pthread_t id;
	unsigned index;
};

static void *thread_main(void *argument)
{
	const struct thread *thread = argument;
	struct shared *shared = thread->shared;
	struct store_reader *reader = open_reader(shared->store, thread->index);
	uint64_t state = shared->seed + thread->index;
	while (kvs_load_acquire(&shared->over) == 0) {
		read_random(shared, reader, &state);
		(void)sched_yield(); // the owner is who has something to do
	}
	store_reader_close(reader);
	return NULL;
}

// All records once more, at other places, and what was before goes.
static int move_all(struct shared *shared, uint64_t moved[KEYS])
{
	struct store_facts facts;
	int result = store_begin(shared->store);
	store_facts(shared->store, &facts);
	uint64_t blocks = facts.next_block - facts.oldest_block;
	for (uint64_t i = 0; i < KEYS && result == STORE_OK; i++) {
		result = append(shared->store, i, i + 1, &moved[i]);
	}
	if (result == STORE_OK) {
		result = store_delete_oldest(shared->store, blocks);
	}
	return result == STORE_OK ? store_commit(shared->store, KEYS) : result;
}

static int round_of(struct shared *shared, unsigned round)
{
	uint64_t moved[KEYS];
	bool renews = round % 16 == 15;
	int result = renews ? store_renew_begin(shared->store) : STORE_OK;
	result = result == STORE_OK ? move_all(shared, moved) : result;
	if (renews && result == STORE_OK) {
		result = store_renew_finish(shared->store, STORE_REPLACED_GOES);
	}
	for (unsigned i = 0; i < KEYS && result == STORE_OK; i++) {
		kvs_store_release(&shared->place[i], moved[i]);
	}
	return result;
}

static void test_threads(void)
{
	char dir[FIXTURE_PATH_BYTES];
	fixture_dir_fast(dir);
	struct shared shared = { .store = open_store(dir), .seed = tap_seed(17) };
	struct thread threads[THREADS];
	unsigned rounds = tap_rounds(64, 17);
	unsigned bad = round_of(&shared, 0) != STORE_OK;
	for (unsigned i = 0; i < THREADS; i++) {
		threads[i] = (struct thread){ .shared = &shared, .index = i };
		bad += pthread_create(&threads[i].id, NULL, thread_main, &threads[i]) != 0;
	}
	for (unsigned round = 1; round <= rounds && bad == 0; round++) {
		bad += round_of(&shared, round) != STORE_OK;
	}
	ok(bad == 0, "the owner moves everything %u times: %s", rounds, store_why(shared.store));
	kvs_store_release(&shared.over, 1);
	for (unsigned i = 0; i < THREADS; i++) {
		bad += pthread_join(threads[i].id, NULL) != 0;
	}
	tap_diag("%llu found, %llu gone, %llu shut", (unsigned long long)shared.found,
		 (unsigned long long)shared.gone, (unsigned long long)shared.shut);
	ok(bad == 0 && shared.wrong == 0, "no reader meets what it did not ask for");
	struct store_reader *reader = open_reader(shared.store, 0);
	memcpy(places, shared.place, sizeof(places));
	ok_int(count_read(reader, STORE_OK), KEYS, "and in the end everything is there");
	store_reader_close(reader);
	store_close(shared.store);
	fixture_remove(dir);
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	char dir[FIXTURE_PATH_BYTES];
	fixture_dir_fast(dir);
	struct store *store = open_store(dir);
	struct store_reader *reader = open_reader(store, 0);
	test_found(store, reader);
	test_not_believed(reader);
	test_moved(store, reader);
	test_renewed(store, reader);
	store_reader_close(reader);
	store_close(store);
	fixture_remove(dir);
	test_replaced();
	test_damaged();
	test_threads();
	return tap_done();
}
