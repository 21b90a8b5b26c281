// SPDX-License-Identifier: MIT
//
// A store that failed is written anew from memory while writes go on. This program's own fdatasync,
// pwrite and renames stand in front of the system's: each can fail, be the last thing that happens,
// or let the writer work in the middle. E: what was reported durable is in the store, whatever
// happens at any of them; nothing that is not there is reported durable.
#include <errno.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/daemon/persist_fixture.h"
#include "tests/daemon/renew_shims.h"

#define KEYS 1500u
#define LARGE_KEYS 45u // of them: together more than one transaction takes
#define LARGE_BYTES 220000u

// ---- a life, and what its keys are --------------------------------------------------------------

/// What stands where: the version of each key, 0 = absent.
struct truth {
	uint64_t seq[KEYS];
	uint64_t last_seq;
};

static struct life life;
static struct truth now;
static uint64_t random_state;
static unsigned meanwhile_left;
static uint64_t published_late; // where the log ends for whoever has waited, or 0

int nanosleep(const struct timespec *time, struct timespec *left)
{
	if (published_late != 0) {
		kvs_store_release(&life.keyspace->log.published, published_late);
		published_late = 0;
		return 0;
	}
	return (int)syscall(SYS_nanosleep, time, left);
}

static void put(unsigned number, size_t bytes)
{
	static unsigned char value[LARGE_BYTES];
	char key[32];
	size_t key_bytes = (size_t)snprintf(key, sizeof(key), "k%u", number);
	uint64_t seq = 0;
	fixture_fill(value, bytes, number, keyspace_last_seq(life.keyspace) + 1);
	keyspace_tick(life.keyspace);
	if (keyspace_set(life.keyspace, key, key_bytes, value, bytes, 0, &seq) != KEYSPACE_OK) {
		printf("Bail out! no room for a value\n");
		exit(1);
	}
	now.seq[number] = seq;
}

static void drop(unsigned number)
{
	char key[32];
	size_t key_bytes = (size_t)snprintf(key, sizeof(key), "k%u", number);
	keyspace_tick(life.keyspace);
	(void)keyspace_delete(life.keyspace, key, key_bytes);
	now.seq[number] = 0;
}

static void change_some(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		unsigned number = (unsigned)(tap_random(&random_state) % KEYS);
		if (tap_random(&random_state) % 4 == 0) {
			drop(number);
		} else {
			put(number, 20 + tap_random(&random_state) % 300);
		}
	}
	now.last_seq = keyspace_last_seq(life.keyspace);
}

// What the writer does in the middle of it: new values, removals, cleaning, and growth.
static void write_meanwhile(void)
{
	if (meanwhile_left > 0) {
		meanwhile_left--;
		change_some(150);
		cleaner_turn(life.keyspace, seam_system.monotonic_ns());
		keyspace_table_steps(life.keyspace, 200);
	}
}

static struct life_options options_of(const char *dir, bool threaded)
{
	return (struct life_options){
		.dir = dir,
		.memory_bytes = 48u << 20,
		.segment_bytes = 1u << 20,
		.policy = PERSIST_GROUP,
		.ratio_percent = 200,
		.floor_bytes = UINT64_C(1) << 30,
		.threaded = threaded,
	};
}

// A life with more than one transaction of data, durable, and then some that is not. *durable gets
// the state up to there.
static void begin(const char *dir, bool threaded, struct truth *durable)
{
	struct life_options options = options_of(dir, threaded);
	memset(&now, 0, sizeof(now));
	random_state = 4711;
	life_begin(&life, &options);
	for (unsigned number = 0; number < KEYS; number++) {
		put(number, number < LARGE_KEYS ? LARGE_BYTES : 50 + number % 200);
	}
	change_some(500);
	if (threaded) {
		persist_request(life.persist, now.last_seq);
		ok(life_wait(&life, now.last_seq), "a first commit is durable");
	} else if (life_commit(&life, life_published(&life)) != STORE_OK) {
		printf("Bail out! a commit failed\n");
		exit(1);
	}
	*durable = now;
	change_some(200);
}

// ---- what a store holds -------------------------------------------------------------------------

struct held {
	uint64_t seq[KEYS]; // of values, and of removals
	bool removed[KEYS];
	uint64_t flush_seq;
	unsigned wrong;
};

static int look(void *context, const struct kvs_record_view *view, const void *value,
		uint64_t place)
{
	struct held *held = context;
	char key[32] = "";
	(void)place;
	if (view->flags & KVS_RECORD_FLUSH) {
		held->flush_seq = view->seq > held->flush_seq ? view->seq : held->flush_seq;
		return 0;
	}
	memcpy(key, view->key, view->key_bytes < 31 ? view->key_bytes : 31);
	unsigned long number = strtoul(key + 1, NULL, 10);
	bool removed = (view->flags & KVS_RECORD_TOMBSTONE) != 0;
	if (number >= KEYS || (!removed && !fixture_same(view, value, number))) {
		held->wrong++;
	} else if (view->seq >= held->seq[number]) {
		held->seq[number] = view->seq;
		held->removed[number] = removed;
	}
	return 0;
}

// Does the store hold exactly this?
static bool holds(struct store *store, const struct truth *truth)
{
	static struct held held;
	memset(&held, 0, sizeof(held));
	struct store_walk walk = { .record = look, .context = &held, .check_records = true };
	if (store_recover(store, &walk) != STORE_OK) {
		tap_diag("%s", store_why(store));
		return false;
	}
	for (unsigned i = 0; i < KEYS; i++) {
		uint64_t seq = held.removed[i] || held.seq[i] < held.flush_seq ? 0 : held.seq[i];
		if (seq != truth->seq[i]) {
			tap_diag("k%u: version %llu instead of %llu", i, (unsigned long long)seq,
				 (unsigned long long)truth->seq[i]);
			return false;
		}
	}
	return held.wrong == 0;
}

static bool is_there(const char *dir, const char *name)
{
	char path[FIXTURE_PATH_BYTES + 32];
	struct stat facts;
	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return stat(path, &facts) == 0;
}

// Whatever a crash left: completed as a start does it, opened, and one state or the other.
static bool holds_either(const char *dir, const struct truth *before, const struct truth *after,
			 bool *is_after)
{
	if (store_renew_complete(dir) != 0 || is_there(dir, "store.ready") ||
	    !is_there(dir, "store")) {
		return false;
	}
	struct store *store = fixture_store(dir);
	struct store_facts facts;
	store_facts(store, &facts);
	*is_after = facts.durable_seq == after->last_seq;
	bool good = (*is_after || facts.durable_seq == before->last_seq) &&
		    holds(store, *is_after ? after : before);
	store_close(store);
	return good;
}

// ---- tests --------------------------------------------------------------------------------------

// One renewal with the writer at work in the middle, at most so often. Returns what persist_renew()
// said; *rest is the state as of the log's end when the walk was over.
static int renew_once(unsigned turns, struct truth *rest)
{
	meanwhile_left = turns; // when the new store is made, in the middle of the walk, at its end
	meanwhile = write_meanwhile;
	life.persist->untrusted = true;
	calls = 0;
	die_at = die_wanted;
	int result = persist_renew(life.persist);
	meanwhile = NULL;
	*rest = now;
	return result;
}

static void test_meanwhile(void)
{
	char dir[FIXTURE_PATH_BYTES];
	static struct truth durable;
	static struct truth rest;
	fixture_dir_fast(dir);
	begin(dir, false, &durable);
	ok_int(renew_once(3, &rest), STORE_OK, "written anew while writes go on");
	ok(meanwhile_left == 0 && rest.last_seq > durable.last_seq + 600, "they did");
	ok_u64(life.persist->durable_seq, rest.last_seq, "all of them are durable");
	ok(holds(life.store, &rest), "E: the store holds each key's last version, and no other");
	ok(!life.persist->untrusted, "it is trusted");
	ok(!is_there(dir, "store.new"), "nothing else is left in the folder");
	keyspace_tick(life.keyspace);
	ok_int(keyspace_flush(life.keyspace), KEYSPACE_OK, "a FLUSHALL");
	memset(&now, 0, sizeof(now));
	put(3, 100);
	now.last_seq = keyspace_last_seq(life.keyspace);
	ok_int(life_commit(&life, life_published(&life)), STORE_OK, "commits go on in the new one");
	ok(holds(life.store, &now), "and hold");
	ok_int(renew_once(2, &rest), STORE_OK, "and it can be written anew again");
	ok(holds(life.store, &rest), "after a FLUSHALL, too");
	ok_int(life_end(&life), 0, "ended");
	struct store *store = fixture_store(dir);
	ok(holds(store, &rest), "E: so does the next life");
	store_close(store);
	fixture_remove(dir);
}

// The walk meets entries of a batch that is not in the log yet: its end is waited for.
static void test_published_late(void)
{
	char dir[FIXTURE_PATH_BYTES];
	static struct truth durable;
	static struct truth rest;
	fixture_dir_fast(dir);
	begin(dir, false, &durable);
	for (unsigned removal = 0; removal < 2; removal++) {
		uint64_t before = life_published(&life);
		removal ? drop(7) : put(9, 100);
		now.last_seq = keyspace_last_seq(life.keyspace);
		published_late = life_published(&life);
		kvs_store_release(&life.keyspace->log.published, before);
		ok_int(renew_once(0, &rest), STORE_OK, "written anew in the middle of a batch");
		ok_u64(published_late, 0, "its end is waited for");
		ok(holds(life.store, &now), "E: %s is there", removal ? "a removal" : "a value");
	}
	ok_int(life_end(&life), 0, "ended");
	fixture_remove(dir);
}

// A read section of the walk is revoked: what it wrote does not count, and nothing is left out.
static void test_revoked(void)
{
	char dir[FIXTURE_PATH_BYTES];
	static struct truth durable;
	static struct truth rest;
	fixture_dir_fast(dir);
	begin(dir, false, &durable);
	revoke_slot = &life.page->slot[0];
	revoke_in = 12;
	ok_int(renew_once(3, &rest), STORE_OK, "a read section is revoked in the middle");
	ok_u64(revocations, 1, "it was");
	ok(holds(life.store, &rest), "E: the store holds everything");
	ok_int(life_end(&life), 0, "ended");
	fixture_remove(dir);
}

// The device keeps another byte than it was given: that is seen before the old store goes.
static void test_read_back(void)
{
	char dir[FIXTURE_PATH_BYTES];
	static struct truth durable;
	static struct truth rest;
	bool after = true;
	fixture_dir_fast(dir);
	begin(dir, false, &durable);
	spoils = true;
	ok_int(renew_once(0, &rest), STORE_DAMAGED, "what was written is read back");
	spoils = false;
	ok(spoilt, "from the device: it was synced, and left the page cache");
	ok(holds_either(dir, &durable, &rest, &after) && !after, "E: the old store stays");
	ok_int(persist_renew(life.persist), STORE_OK, "the next attempt succeeds");
	ok(holds(life.store, &now), "E: and holds everything");
	ok_int(life_end(&life), 0, "ended");
	fixture_remove(dir);
}

// The n-th call fails: the old store stays, and the next attempt succeeds. *failed: it was refused.
static bool survives_failure(unsigned n, bool *failed)
{
	char dir[FIXTURE_PATH_BYTES];
	static struct truth durable;
	static struct truth rest;
	bool after;
	fixture_dir_fast(dir);
	begin(dir, false, &durable);
	fail_from = fail_upto = n;
	*failed = renew_once(3, &rest) != STORE_OK;
	fail_from = 0;
	bool good = true;
	if (*failed) {
		good = life.persist->untrusted && life.persist->durable_seq == durable.last_seq &&
		       holds_either(dir, &durable, &rest, &after) &&
		       persist_renew(life.persist) == STORE_OK;
	}
	good = good && holds(life.store, &now) && !is_there(dir, "store.new");
	if (!good) {
		tap_diag("call %u: %s", n, store_why(life.store));
	}
	(void)life_end(&life);
	fixture_remove(dir);
	return good;
}

static void test_failures(unsigned all)
{
	unsigned bad = 0;
	unsigned refused = 0;
	// Each life takes seconds in a slow run: there a few of the calls will do.
	for (unsigned n = all; n >= 1 && n <= all && bad < 5; n -= tap_step(1, 4)) {
		bool failed;
		bad += !survives_failure(n, &failed);
		refused += failed;
	}
	ok(bad == 0, "E: EIO at each of %u calls", all);
	ok(refused > 2, "%u were refused", refused);
}

static int dies_at(const char *dir, unsigned n)
{
	static struct truth durable;
	static struct truth rest;
	int status = 0;
	pid_t child = fork();
	if (child == 0) {
		begin(dir, false, &durable);
		die_wanted = n;
		_exit(renew_once(3, &rest) == STORE_OK ? 0 : 1);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) {
		return -1;
	}
	return WEXITSTATUS(status);
}

// kvd dies at each call in turn. Returns how many there are.
static unsigned test_deaths(void)
{
	char dir[FIXTURE_PATH_BYTES];
	static struct truth durable;
	static struct truth rest;
	fixture_dir_fast(dir);
	begin(dir, false, &durable);
	ok_int(renew_once(3, &rest), STORE_OK, "it is written anew%s",
	       no_exchange ? " where names cannot be exchanged" : "");
	unsigned all = calls;
	ok_int(life_end(&life), 0, "ended");
	fixture_remove(dir);
	unsigned bad = 0;
	unsigned old = 0;
	unsigned new = 0;
	// Each life takes seconds in a slow run: there a few of the calls will do.
	for (unsigned n = all; n >= 1 && n <= all && bad < 5; n -= tap_step(1, 4)) {
		bool after = false;
		fixture_dir_fast(dir);
		if (dies_at(dir, n) != DIED || !holds_either(dir, &durable, &rest, &after)) {
			tap_diag("call %u", n);
			bad++;
		}
		old += !after;
		new += after;
		fixture_remove(dir);
	}
	ok(bad == 0, "E: death at each of %u calls leaves one whole store", all);
	ok(old > 2 && new > 0, "the old one %u times, the new one %u times", old, new);
	return all;
}

// ---- with its thread ----------------------------------------------------------------------------

static bool write_durably(unsigned number)
{
	put(number, 100);
	now.last_seq = keyspace_last_seq(life.keyspace);
	persist_request(life.persist, now.last_seq);
	return life_wait(&life, now.last_seq);
}

// Writes until one is durable again: each that is not is answered, so this waits for nothing else.
static bool recovers(void)
{
	for (unsigned i = 0; i < 100000; i++) {
		if (write_durably(i % KEYS)) {
			return true;
		}
	}
	return false;
}

static void check_failed(const char *what, const char *words)
{
	const char *why = "";
	ok(!write_durably(1), "E: %s: the next write is not called durable", what);
	bool failed = persist_state(life.persist, &why) == PERSIST_STATE_FAILED;
	ok(failed && strstr(why, words) != NULL, "the state is FAILED: %s", why);
}

static void check_good(const char *dir, uint64_t renewals)
{
	const char *why = "";
	ok(recovers(), "it recovers by itself");
	ok(persist_state(life.persist, &why) == PERSIST_STATE_OK, "the state is OK again");
	ok_u64(persist_renewals(life.persist), renewals, "written anew so many times");
	ok(is_there(dir, "store") && !is_there(dir, "store.new"), "and in its place");
}

static void test_thread(void)
{
	char dir[FIXTURE_PATH_BYTES];
	char path[FIXTURE_PATH_BYTES + 16];
	static struct truth durable;
	fixture_dir_fast(dir);
	begin(dir, true, &durable);
	calls = 0;
	fail_upto = UINT32_MAX;
	fail_from = 1;
	check_failed("EIO", "Input/output error");
	fail_from = 0;
	check_good(dir, 1);
	(void)snprintf(path, sizeof(path), "%s/store", dir);
	fixture_remove(path);
	check_failed("the store's folder is removed", "removed");
	check_good(dir, 2);
	(void)snprintf(path, sizeof(path), "%s.away", dir);
	ok(rename(dir, path) == 0 && mkdir(dir, 0700) == 0, "the data folder is replaced");
	check_failed("another data folder", "re");
	const char *why = "";
	bool failed =
		!write_durably(1) && persist_state(life.persist, &why) == PERSIST_STATE_FAILED;
	ok(failed && strstr(why, "replaced") != NULL && !is_there(dir, "store"),
	   "nothing is written into another folder: %s", why);
	ok(rmdir(dir) == 0 && rename(path, dir) == 0, "the old one is brought back");
	check_good(dir, 3);
	ok_int(life_end(&life), 0, "ended in order");
	struct store *store = fixture_store(dir);
	ok(holds(store, &now), "E: the store holds everything");
	store_close(store);
	fixture_remove(dir);
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	test_meanwhile();
	test_revoked();
	test_published_late();
	test_read_back();
	unsigned all = test_deaths();
	test_failures(all);
	if (tap_slowness() < 4) {
		no_exchange = true;
		(void)test_deaths();
		no_exchange = false;
	}
	test_thread();
	return tap_done();
}
