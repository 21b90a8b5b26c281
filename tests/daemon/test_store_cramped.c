// SPDX-License-Identifier: MIT
//
// No room for a page of LMDB's lock file, as on btrfs over its quota, where what is stored to may
// need a new place: a SIGBUS anywhere. What is asked for is refused for want of room, those who
// read beside the owner go on, and when there is room again the same store does, too (E).
#include "daemon/storage/store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "daemon/storage/block.h"
#include "daemon/storage/env.h"
#include "daemon/storage/store_read.h"
#include "tests/daemon/strike_fixture.h"

// What is done without another store being written.
static int use_plainly(struct store *store)
{
	static unsigned char block[STORE_BLOCK_BYTES_MAX];
	size_t bytes;
	struct store_facts facts;
	store_facts(store, &facts);
	int result = store_begin(store);
	result = result == STORE_OK ? store_read_block(store, facts.oldest_block, block, &bytes)
				    : result;
	result = result == STORE_OK ? append(store, RECORDS + 1, RECORDS + 2) : result;
	result = result == STORE_OK ? store_commit(store, RECORDS + 2) : result;
	return result == STORE_OK ? commit(store, RECORDS + 3, RECORDS + 3) : result;
}

// Refused for the quota each time, and those who read beside the owner go on.
static bool is_cramped(struct store *store, int result)
{
	struct store_reader *reader;
	const struct store_block *block;
	struct store_facts facts;
	bool told = result == STORE_NO_SPACE && strstr(store_why(store), strerror(EDQUOT)) != NULL;
	for (unsigned i = 0; i < 3; i++) {
		told = told && store_begin(store) == STORE_NO_SPACE &&
		       strstr(store_why(store), strerror(EDQUOT)) != NULL;
	}
	store_facts(store, &facts);
	if (store_reader_open(&reader, store, 0) != STORE_OK) {
		return false;
	}
	bool read = store_reader_block(reader, facts.oldest_block, &block) == STORE_OK;
	store_reader_close(reader);
	if (!told || !read) {
		tap_diag("%d, read %d: %s", result, read, store_why(store));
	}
	return told && read;
}

// In a child. When there is room again the same store goes on; and once more.
static int strike_cramped(const char *dir, unsigned n, bool lock)
{
	char why[600] = "";
	struct store *store;
	struct store_options options = { .dir = dir, .instance_id = 77, .readers = 1 };
	if (store_open(&store, &options, why, sizeof(why)) != STORE_OK ||
	    commit(store, 1, RECORDS) != STORE_OK) {
		return 90;
	}
	strike_dir = dir;
	strike_lock = lock;
	for (unsigned times = 1; times <= 2; times++) {
		unsigned good = 0;
		struck = strikes = 0;
		strike_at = n;
		no_room = EDQUOT;
		int result = use_plainly(store);
		strike_at = 0;
		if (struck == 0) {
			store_close(store);
			return result == STORE_OK ? UNHARMED : 91;
		}
		if (!is_cramped(store, result) || !store_may_have_arrived(store)) {
			return 92;
		}
		no_room = 0;
		result = commit(store, RECORDS + 1, RECORDS + 4);
		result = result == STORE_OK ? recover_all(store, &good) : result;
		if (result != STORE_OK || good < RECORDS + 4 || env_lost_count() != times ||
		    store_may_have_arrived(store)) {
			tap_diag("%d, %u records: %s", result, good, store_why(store));
			return 93;
		}
	}
	store_close(store);
	return 0;
}

// A page of the data that cannot be read is no want of room, however full the disk is.
static int strike_data(const char *dir, unsigned n, bool lock)
{
	struct store *store = fixture_store(dir);
	if (commit(store, 1, RECORDS) != STORE_OK) {
		return 90;
	}
	strike_dir = dir;
	strike_lock = lock;
	strike_at = n;
	no_room = EDQUOT;
	int result = use_plainly(store);
	strike_at = 0;
	bool good = result == STORE_IO && store_begin(store) == STORE_IO;
	if (struck > 0 && !good) {
		tap_diag("%d: %s", result, store_why(store));
	}
	store_close(store);
	return struck == 0 ? UNHARMED : good ? 0 : 94;
}

// Another process is in the store. Its pages would not be seen to be in use, nor would a mutex be
// made anew that is held for ever: as it is not opened, another one has to be written.
static void be_in_it(const char *dir, int ready_fd)
{
	char path[FIXTURE_PATH_BYTES + 32];
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1 };
	(void)snprintf(path, sizeof(path), "%s/store/lock.mdb", dir);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fcntl(fd, F_SETLK, &lock) == 0 && write(ready_fd, "x", 1) == 1) {
		(void)pause();
	}
	_exit(1);
}

static int strike_shared(const char *dir, unsigned n, bool lock)
{
	int ends[2];
	char ready;
	struct store *store = fixture_store(dir);
	if (commit(store, 1, RECORDS) != STORE_OK || pipe(ends) != 0) {
		return 90;
	}
	strike_dir = dir;
	strike_lock = lock;
	strike_at = n;
	no_room = EDQUOT;
	int result = use_plainly(store);
	strike_at = 0;
	if (struck == 0) {
		store_close(store);
		return UNHARMED;
	}
	pid_t other = fork();
	if (other == 0) {
		be_in_it(dir, ends[1]);
	}
	(void)close(ends[1]);
	bool is_in_it = read(ends[0], &ready, 1) == 1;
	no_room = 0;
	bool good = result == STORE_NO_SPACE && is_in_it && store_begin(store) == STORE_IO;
	(void)kill(other, SIGKILL);
	good = waitpid(other, NULL, 0) == other && good && commit(store, 13, 14) == STORE_OK;
	if (!good) {
		tap_diag("%d: %s", result, store_why(store));
	}
	store_close(store);
	return good ? 0 : 95;
}

// In a child: with the persister's thread. It is DEGRADED, and no store is written anew for it.
static int strike_persister(const char *dir, unsigned n, bool lock)
{
	static struct life life;
	const char *why = "";
	bool good = true;
	no_room = EDQUOT;
	strike_life(&life, dir, n, lock);
	for (unsigned i = 0; struck == 0 && i < 400; i++) {
		(void)write_durably(&life, i);
	}
	strike_at = 0;
	bool is_struck = struck > 0;
	for (unsigned i = 0; is_struck && good && i < 2; i++) {
		good = !write_durably(&life, i) &&
		       persist_state(life.persist, &why) == PERSIST_STATE_DEGRADED;
	}
	if (!good) {
		tap_diag("state %d: %s", (int)persist_state(life.persist, &why), why);
	}
	no_room = 0;
	bool is_well = false;
	// Each write is answered, durable or not, so this waits for nothing else.
	for (unsigned i = 0; !is_well && i < 100000; i++) {
		is_well = write_durably(&life, i) &&
			  persist_state(life.persist, &why) == PERSIST_STATE_OK;
	}
	good = good && is_well && persist_renewals(life.persist) == 0;
	good = life_end(&life) == STORE_OK && good;
	struct store *store = fixture_store(dir);
	unsigned records;
	good = recover_all(store, &records) == STORE_OK && good;
	store_close(store);
	return !good ? 95 : is_struck ? 0 : UNHARMED;
}

// A commit that is told to have failed may have moved values: their places are looked for.
static int strike_moves(const char *dir, unsigned n, bool lock)
{
	static struct life life;
	struct life_options options = {
		.dir = dir,
		.memory_bytes = 32u << 20,
		.segment_bytes = 1u << 20,
		.policy = PERSIST_GROUP,
		.ratio_percent = 150,
		.floor_bytes = 1,
		.collect_moves = true,
	};
	uint64_t seq;
	life_begin(&life, &options);
	if (keyspace_set(life.keyspace, "key", 3, "value", 5, 0, &seq) != KEYSPACE_OK ||
	    !persist_places_known(life.persist)) {
		return 96;
	}
	strike_lock = lock;
	strike_dir = dir;
	strike_at = n;
	no_room = EDQUOT;
	int result = life_commit(&life, life_published(&life));
	strike_at = 0;
	no_room = 0;
	bool good = struck == 0 || (result == STORE_NO_SPACE &&
				    life_commit(&life, life_published(&life)) == STORE_OK);
	good = good && persist_places_known(life.persist) == (struck == 0);
	(void)life_end(&life);
	return !good ? 97 : struck > 0 ? 0 : UNHARMED;
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	unsigned step = tap_step(1, 6);
	test_each("the store", strike_cramped, true, 20, step);
	test_each("its data", strike_data, false, 20, step);
	test_each("beside another process", strike_shared, true, 20, 5 * step);
	test_each("values that moved", strike_moves, true, 10, step);
	test_each("the persister", strike_persister, true, 900, 300 * step);
	return tap_done();
}
