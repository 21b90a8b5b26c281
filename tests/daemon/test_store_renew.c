// SPDX-License-Identifier: MIT
//
// A small store that is written anew, of which each call fails in turn: whatever happens, the old
// one or the new one is there, whole, and the next attempt succeeds (E). With and without file
// systems that exchange names, and with the data folder removed in the middle.
#include "daemon/storage/datadir.h"

#include <dirent.h>

#include "tests/daemon/job_shims.h"
#include "tests/daemon/store_fixture.h"

#define RECORDS 6u

static bool no_exchange; // the file system cannot
static int exchange_fails;

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	if (flags == RENAME_EXCHANGE && (no_exchange || exchange_fails != 0)) {
		// The kernel looks for the names before it asks the file system.
		errno = access(to, F_OK) != 0 ? ENOENT : no_exchange ? EINVAL : exchange_fails;
		return -1;
	}
	return fails_now() ? -1 : (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int unlink(const char *path)
{
	return fails_now() ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
	return fails_now() ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

// ---- a store of a few records -------------------------------------------------------------------

static char dir[FIXTURE_PATH_BYTES];
static struct store *store;

static int commit(uint64_t first, uint64_t last)
{
	static struct fixture_record record;
	uint64_t place;
	int result = store_begin(store);
	for (uint64_t seq = first; seq <= last && result == STORE_OK; seq++) {
		fixture_record(&record, seq, seq, 9000, 0);
		result = store_append(store, &record.view, NULL, &place);
	}
	return result == STORE_OK ? store_commit(store, last) : result;
}

static void begin(struct datadir *folder)
{
	char why[600];
	struct store_options options = { .dir = dir, .instance_id = 77, .folder = folder };
	if (store_open(&store, &options, why, sizeof(why)) != STORE_OK ||
	    commit(1, RECORDS) != STORE_OK) {
		printf("Bail out! no store\n");
		exit(1);
	}
	calls = 0;
}

static int count(void *context, const struct kvs_record_view *view, const void *value,
		 uint64_t place)
{
	(void)place;
	*(unsigned *)context += fixture_same(view, value, view->seq);
	return 0;
}

static bool holds(struct store *whole, unsigned expected)
{
	unsigned good = 0;
	struct store_walk walk = { .record = count, .context = &good, .check_records = true };
	int result = store_recover(whole, &walk);
	if (result != STORE_OK || good != expected) {
		tap_diag("%u records: %s", good, store_why(whole));
	}
	return result == STORE_OK && good == expected;
}

static int renew(enum store_replaced replaced)
{
	int result = store_renew_begin(store);
	result = result == STORE_OK ? commit(1, RECORDS + 1) : result;
	result = result == STORE_OK ? store_renew_finish(store, replaced) : result;
	if (result != STORE_OK) {
		store_renew_abandon(store);
	}
	return result;
}

static bool is_there(const char *name)
{
	char path[FIXTURE_PATH_BYTES + 64];
	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return access(path, F_OK) == 0;
}

// As the next start does it. *records: how many are in it.
static bool starts(unsigned *records)
{
	if (store_renew_complete(dir) != 0 || is_there("store.ready") || !is_there("store")) {
		return false;
	}
	struct store *next = fixture_store(dir);
	struct store_facts facts;
	store_facts(next, &facts);
	*records = (unsigned)facts.durable_seq;
	bool good = holds(next, *records);
	store_close(next);
	return good;
}

// ---- each call fails ----------------------------------------------------------------------------

// `restart`: what is left is found by another kvd; else this one tries again.
static bool survives(unsigned n, bool restart, bool *refused)
{
	unsigned records = 0;
	fixture_dir_fast(dir);
	begin(NULL);
	fail_at = n;
	*refused = renew(STORE_REPLACED_GOES) != STORE_OK;
	fail_at = 0;
	bool good = true;
	if (restart) {
		store_close(store);
		good = starts(&records) &&
		       (records == RECORDS + 1 || (*refused && records == RECORDS));
	} else {
		good = !*refused || renew(STORE_REPLACED_GOES) == STORE_OK;
		good = good && holds(store, RECORDS + 1) && !is_there("store.new");
		good = good && commit(RECORDS + 2, RECORDS + 2) == STORE_OK;
		store_close(store);
		good = good && starts(&records) && records == RECORDS + 2;
	}
	if (!good) {
		tap_diag("call %u%s", n, restart ? ", then a start" : "");
	}
	fixture_remove(dir);
	return good;
}

static void test_each(const char *form)
{
	unsigned bad = 0;
	unsigned refusals = 0;
	bool refused;
	fixture_dir_fast(dir);
	begin(NULL);
	ok_int(renew(STORE_REPLACED_GOES), STORE_OK, "%s: written anew", form);
	unsigned all = calls;
	ok(holds(store, RECORDS + 1) && !is_there("store.new") && !is_there("store.ready"),
	   "%s: it is there, and nothing else", form);
	store_close(store);
	fixture_remove(dir);
	for (unsigned n = 1; n <= all && bad < 5; n += tap_step(1, 5)) {
		bad += !survives(n, false, &refused);
		refusals += refused;
		bad += !survives(n, true, &refused);
	}
	ok(bad == 0, "E: %s: EIO at each of %u calls", form, all);
	ok(refusals > 2, "%u were refused", refusals);
}

// ---- names ------------------------------------------------------------------------------------

static unsigned names_with(const char *start)
{
	DIR *folder = opendir(dir);
	const struct dirent *entry;
	unsigned found = 0;
	while (folder != NULL && (entry = readdir(folder)) != NULL) {
		found += strncmp(entry->d_name, start, strlen(start)) == 0;
	}
	if (folder != NULL) {
		(void)closedir(folder);
	}
	return found;
}

static void test_replaced(void)
{
	fixture_dir_fast(dir);
	begin(NULL);
	ok(renew(STORE_REPLACED_STAYS) == STORE_OK && names_with("store.before-") == 1,
	   "what was replaced stays");
	store_keep_failed(store);
	ok(renew(STORE_REPLACED_GOES) == STORE_OK && names_with("store.failed-") == 1,
	   "and where failed ones are to be kept");
	exchange_fails = EACCES;
	ok_int(renew(STORE_REPLACED_GOES), STORE_NO_ACCESS, "the exchange is refused: %s",
	       store_why(store));
	exchange_fails = 0;
	ok(commit(RECORDS + 2, RECORDS + 2) == STORE_OK && holds(store, RECORDS + 2),
	   "the old one goes on");
	char path[FIXTURE_PATH_BYTES + 64];
	(void)snprintf(path, sizeof(path), "%s/store", dir);
	fixture_remove(path);
	ok(renew(STORE_REPLACED_GOES) == STORE_OK && holds(store, RECORDS + 1),
	   "where no old one is the new one is the store");
	(void)snprintf(path, sizeof(path), "%s/store.new", dir);
	int fd = shim_open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	ok(close(fd) == 0 && renew(STORE_REPLACED_GOES) != STORE_OK,
	   "something in the place of the new one: %s", store_why(store));
	ok(unlink(path) == 0 && renew(STORE_REPLACED_GOES) == STORE_OK, "when it is gone, it is");
	store_close(store);
	fixture_remove(dir);
}

// What is called store.ready and is no store must not take the place of one.
static void test_not_ready(const char *ready)
{
	char data[FIXTURE_PATH_BYTES + 80];
	(void)snprintf(data, sizeof(data), "%s/data.mdb", ready);
	ok(mkfifo(ready, 0600) == 0 && store_renew_complete(dir) == EEXIST, "a pipe is refused");
	ok(unlink(ready) == 0 && symlink(dir, ready) == 0 && store_renew_complete(dir) == EEXIST,
	   "so is a link");
	ok(unlink(ready) == 0 && mkdir(ready, 0700) == 0 && store_renew_complete(dir) == EEXIST,
	   "an empty folder");
	ok(mkfifo(data, 0600) == 0 && store_renew_complete(dir) == EEXIST, "one with a pipe in it");
	int fd = unlink(data) == 0 ? shim_open(data, O_CREAT | O_WRONLY | O_CLOEXEC, 0600) : -1;
	ok(fd >= 0 && ftruncate(fd, 65536) == 0 && close(fd) == 0 &&
		   store_renew_complete(dir) == EEXIST,
	   "one whose file is none of LMDB's");
	ok(is_there("store") && is_there("store.ready"), "and everything is where it was");
	ok(unlink(data) == 0 && rmdir(ready) == 0, "moved away");
}

static void test_complete(void)
{
	char from[FIXTURE_PATH_BYTES + 64];
	char to[FIXTURE_PATH_BYTES + 64];
	char long_name[FIXTURE_PATH_BYTES * 12];
	unsigned records = 0;
	fixture_dir_fast(dir);
	begin(NULL);
	store_close(store);
	(void)snprintf(from, sizeof(from), "%s/store", dir);
	(void)snprintf(to, sizeof(to), "%s/store.ready", dir);
	ok(store_renew_complete(dir) == 0 && is_there("store"), "nothing is to be completed");
	ok(rename(from, to) == 0 && starts(&records) && records == RECORDS,
	   "the old one had gone aside");
	ok(rename(from, to) == 0 && mkdir(from, 0700) == 0 && starts(&records) &&
		   records == RECORDS && names_with("store.failed-") == 1,
	   "it had not: it does now");
	ok(rename(from, to) == 0, "once more");
	for (unsigned n = 1; n <= 2; n++) {
		calls = 0;
		fail_at = n;
		ok_int(store_renew_complete(dir), EIO, "name %u fails", n);
	}
	fail_at = 0;
	ok(starts(&records) && records == RECORDS, "then it does not");
	test_not_ready(to);
	ok(starts(&records) && records == RECORDS, "nothing is lost by any of them");
	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	ok_int(store_renew_complete(long_name), ENAMETOOLONG, "a path too long");
	ok_int(store_renew_complete("/dev/null"), 0, "no folder");
	fixture_remove(dir);
}

// ---- its folder ---------------------------------------------------------------------------------

static void test_folder(void)
{
	char why[600];
	char away[FIXTURE_PATH_BYTES + 16];
	struct datadir *folder;
	fixture_dir_fast(dir);
	ok(datadir_take(&folder, dir, NULL, why, sizeof(why)) == 0, "a folder");
	begin(folder);
	fixture_remove(dir);
	ok_int(store_begin(store), STORE_GONE, "is removed: %s", store_why(store));
	ok(renew(STORE_REPLACED_GOES) == STORE_OK && holds(store, RECORDS + 1),
	   "and made anew with its store");
	ok(commit(RECORDS + 2, RECORDS + 2) == STORE_OK && is_there("kvd.lock"), "which goes on");
	(void)snprintf(away, sizeof(away), "%s.away", dir);
	ok(rename(dir, away) == 0 && renew(STORE_REPLACED_GOES) == STORE_GONE,
	   "moved away it is waited for: %s", store_why(store));
	ok(rename(away, dir) == 0 && renew(STORE_REPLACED_GOES) == STORE_OK, "until it is back");
	fixture_remove(dir);
	int fd = shim_open(dir, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	ok(close(fd) == 0 && renew(STORE_REPLACED_GOES) == STORE_GONE &&
		   strstr(store_why(store), "not empty") != NULL,
	   "something else stands there: %s", store_why(store));
	ok(unlink(dir) == 0 && renew(STORE_REPLACED_GOES) == STORE_OK, "when it is gone, it is");
	store_close(store);
	datadir_release(folder);
	fixture_remove(dir);
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	test_each("names exchanged");
	no_exchange = true;
	test_each("one name after the other");
	no_exchange = false;
	test_replaced();
	test_complete();
	test_folder();
	return tap_done();
}
