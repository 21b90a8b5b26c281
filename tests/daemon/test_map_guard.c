// SPDX-License-Identifier: MIT
//
// A page of the store that is not there, at every place at which LMDB is called, and inside its
// commits: what was asked for is refused with EIO, the process lives, and another store is written
// in the same life (E). And that a SIGBUS of anything else ends the process as before.
#include "daemon/storage/map_guard.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "daemon/storage/block.h"
#include "daemon/storage/env.h"
#include "daemon/storage/store_read.h"
#include "tests/daemon/strike_fixture.h"

// ---- the guard ----------------------------------------------------------------------------------

// A page of a file that has none.
static volatile char *page_of_nothing(void)
{
	int fd = memfd_create("nothing", MFD_CLOEXEC);
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	(void)close(fd);
	return page == MAP_FAILED ? NULL : page;
}

static bool touch(const struct map_guard *guard, volatile char *page)
{
	struct map_guard_section section;
	if (sigsetjmp(*map_guard_enter(&section, guard), 0) != 0) {
		return false;
	}
	sink = page[0];
	map_guard_leave();
	return true;
}

static void touch_outside(void)
{
	sink = *page_of_nothing();
}

static void touch_elsewhere(void)
{
	uintptr_t at = (uintptr_t)page_of_nothing();
	struct map_guard guard = { .files = { { .start = at, .end = at + 4096 } } };
	(void)touch(&guard, page_of_nothing());
}

static void touch_behind(void)
{
	struct map_guard guard = { 0 };
	(void)touch(&guard, page_of_nothing());
	touch_outside();
}

static void be_sent(void)
{
	struct map_guard guard = { 0 };
	struct map_guard_section section;
	if (sigsetjmp(*map_guard_enter(&section, &guard), 0) == 0) {
		(void)raise(SIGBUS);
	}
}

// Does this end the process?
static bool ends(void (*what)(void))
{
	int status = 0;
	(void)fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		what();
		_exit(0);
	}
	return child > 0 && waitpid(child, &status, 0) == child &&
	       !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static volatile sig_atomic_t met_before;

static void handler_before(int number)
{
	(void)number;
	met_before = 1;
	_exit(7);
}

static void test_guard(void)
{
	struct map_guard guard = { 0 };
	volatile char *page = page_of_nothing();
	struct sigaction before = { .sa_handler = handler_before };
	int status = 0;
	pid_t child = fork();
	if (child == 0) {
		(void)sigaction(SIGBUS, &before, NULL);
		(void)map_guard_install();
		touch_outside();
		_exit(0);
	}
	ok(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7,
	   "who took the signal before gets what is not the guard's");
	ok_int(map_guard_install(), 0, "the signal is taken");
	ok(!touch(&guard, page), "a page that is not there is an answer");
	ok(!touch(&guard, page), "and another time");
	guard.files[1].start = (uintptr_t)page;
	guard.files[1].end = guard.files[1].start + 4096;
	ok(!touch(&guard, page), "so it is where the map is known");
	ok(ends(touch_elsewhere), "a page of another map ends the process");
	ok(ends(touch_outside), "so does one outside of a section");
	ok(ends(touch_behind), "and behind one that was left");
	ok(ends(be_sent), "and the signal when it is sent");
	sigset_t all;
	sigfillset(&all);
	map_guard_unblock(&all);
	ok(sigismember(&all, SIGBUS) == 0 && sigismember(&all, SIGTERM) == 1,
	   "threads that block signals let this one through");
}

// ---- a store, struck at each place --------------------------------------------------------------

// A page that is not there for who reads beside the owner is not there for him either.
static int read_beside(struct store *store)
{
	struct store_reader *reader;
	struct store_record record;
	struct store_facts facts;
	store_facts(store, &facts);
	struct store_wanted wanted = {
		.place = kvs_place_make(facts.oldest_block, sizeof(struct store_block_header)),
		.seq = 1,
		.key = "k1",
		.key_bytes = 2,
		.value_bytes = 9000,
	};
	int result = store_reader_open(&reader, store, 0);
	if (result != STORE_OK) {
		return result;
	}
	result = store_reader_read(reader, &wanted, &record);
	free(record.bytes);
	store_reader_close(reader);
	if (result == STORE_IO) {
		result = store_begin(store);
		return result == STORE_IO ? result : STORE_SYSTEM;
	}
	return result;
}

// All that is ever done with a store, until something is refused.
static int use(struct store *store)
{
	static unsigned char block[STORE_BLOCK_BYTES_MAX];
	static uint32_t uids[KVS_WRITERS_MAX] = { 1000, 1001 };
	uint32_t writers;
	unsigned good;
	size_t bytes;
	struct store_facts facts;
	store_facts(store, &facts);
	int result = recover_all(store, &good);
	result = result == STORE_OK ? store_read_writers(store, uids, &writers) : result;
	result = result >= STORE_OK ? read_beside(store) : result;
	result = result == STORE_OK ? store_begin(store) : result;
	result = result == STORE_OK ? store_read_block(store, facts.oldest_block, block, &bytes)
				    : result;
	result = result == STORE_OK ? append(store, RECORDS + 1, RECORDS + 3) : result;
	result = result == STORE_OK ? store_delete_oldest(store, 1) : result;
	result = result == STORE_OK ? store_put_writers(store, uids, 2) : result;
	result = result == STORE_OK ? store_commit(store, RECORDS + 3) : result;
	result = result == STORE_OK ? store_begin(store) : result;
	if (result == STORE_OK) {
		store_abort(store);
		result = store_renew_begin(store);
	}
	result = result == STORE_OK ? commit(store, 1, RECORDS + 3) : result;
	result = result == STORE_OK ? store_renew_finish(store, STORE_REPLACED_GOES) : result;
	return result == STORE_OK ? commit(store, RECORDS + 4, RECORDS + 4) : result;
}

// Another one, in the same life, from what memory has.
static bool is_renewed(struct store *store)
{
	unsigned good = 0;
	store_renew_abandon(store);
	int result = store_renew_begin(store);
	result = result == STORE_OK ? commit(store, 1, RECORDS + 4) : result;
	result = result == STORE_OK ? store_renew_finish(store, STORE_REPLACED_GOES) : result;
	result = result == STORE_OK ? commit(store, RECORDS + 5, RECORDS + 5) : result;
	result = result == STORE_OK ? recover_all(store, &good) : result;
	if (result != STORE_OK || good != RECORDS + 5) {
		tap_diag("%u records: %s", good, store_why(store));
	}
	return result == STORE_OK && good == RECORDS + 5;
}

static bool is_told(struct store *store, int result, const char *why)
{
	if (strstr(why, "store.new") != NULL) {
		return result == STORE_IO; // the old one may be the store again
	}
	bool told = result == STORE_IO && strstr(why, "Input/output error") != NULL &&
		    strstr(why, "not there") != NULL;
	if (!told) {
		tap_diag("%d: %s", result, why);
	}
	return told && store_begin(store) == STORE_IO; // not opened again: locks may be held
}

// In a child: its exit code is 0 if all is as it should be.
static int strike_store(const char *dir, unsigned n, bool lock)
{
	char why[600] = "";
	struct store *store = fixture_store(dir);
	if (commit(store, 1, RECORDS) != STORE_OK) {
		return 90;
	}
	store_close(store);
	strike_dir = dir;
	strike_lock = lock;
	strike_at = n;
	struct store_options options = {
		.dir = dir, .instance_id = 77, .renewable = true, .readers = 1
	};
	int result = store_open(&store, &options, why, sizeof(why));
	if (result == STORE_OK) {
		result = use(store);
		(void)snprintf(why, sizeof(why), "%s", store_why(store));
	}
	strike_at = 0;
	if (struck == 0) {
		store_close(store);
		return result == STORE_OK ? UNHARMED : 91;
	}
	// What came as an environment was closed harmed nobody.
	if (result != STORE_OK && !is_told(store, result, why)) {
		return 92;
	}
	bool good = is_renewed(store) && env_lost_count() == 1;
	store_close(store);
	return good ? 0 : 93;
}

// In a child: with the persister's thread, until it is well again by itself.
static int strike_persister(const char *dir, unsigned n, bool lock)
{
	static struct life life;
	const char *why = "";
	bool is_struck = false;
	bool good = false;
	strike_life(&life, dir, n, lock);
	for (unsigned i = 0; !is_struck && i < 400; i++) {
		(void)write_durably(&life, i);
		is_struck = struck > 0;
	}
	strike_at = 0;
	// Each write is answered, durable or not, so this waits for nothing else.
	for (unsigned i = 0; !good && i < 100000; i++) {
		good = write_durably(&life, i) &&
		       persist_state(life.persist, &why) == PERSIST_STATE_OK &&
		       (!is_struck || persist_renewals(life.persist) > 0);
	}
	good = life_end(&life) == STORE_OK && good;
	struct store *store = fixture_store(dir);
	unsigned records;
	good = recover_all(store, &records) == STORE_OK && good;
	store_close(store);
	return !good ? 95 : is_struck ? 0 : UNHARMED;
}

static void nothing_more(void)
{
	char dir[FIXTURE_PATH_BYTES];
	char why[600] = "";
	struct store *store;
	struct env *env;
	struct env_options options = { .path = dir, .map_bytes = 1u << 30 };
	struct store_options whole = { .dir = dir, .instance_id = 77 };
	int rc = 0;
	fixture_dir_fast(dir);
	for (unsigned i = 0; i < ENV_LOST_MAX && rc == 0; i++) {
		rc = env_open(&env, &options);
		strike_dir = dir;
		strikes = 0;
		strike_at = 1;
		rc = rc == 0 && env_begin(env, true) == EIO && !env_close(env) ? 0 : -1;
	}
	bool refused = store_open(&store, &whole, why, sizeof(why)) == STORE_SYSTEM;
	fixture_remove(dir);
	_exit(rc == 0 && refused && strstr(why, "restart kvd") != NULL ? 1 : 0);
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	unsigned step = tap_step(1, 12);
	test_guard();
	test_each("a page of the data", strike_store, false, 100, step);
	test_each("the lock file", strike_store, true, 100, step);
	test_each("the persister, a page of the data", strike_persister, false, 100, 47 * step);
	test_each("the persister, the lock file", strike_persister, true, 100, 97 * step);
	ok(ends(nothing_more), "%u environments are left in memory, and no more", ENV_LOST_MAX);
	return tap_done();
}
