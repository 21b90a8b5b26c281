// SPDX-License-Identifier: MIT
//
// A device that fails, at every system call of a commit in turn: this program's own fdatasync,
// pwrite and writev stand in front of the system's, and one of them answers EIO (or ENOSPC), once
// or for a while. E: a commit that reported failure may be repeated, none that reported success is
// ever lost, and a store left behind in any of these states opens again.
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "tests/daemon/store_fixture.h"

static unsigned calls;	   // of a commit, counted
static unsigned fail_from; // this call fails, 0 = none
static unsigned fail_upto; // and all up to this one
static int fail_error;
static bool fail_arrived; // the first that fails was carried out all the same

static bool fails_now(void)
{
	calls++;
	if (fail_from == 0 || calls < fail_from || calls > fail_upto) {
		return false;
	}
	return true;
}

// A call and what is told of it.
static long call(long number, long a, long b, long c, long d)
{
	bool fails = fails_now();
	bool arrives = !fails || (fail_arrived && calls == fail_from);
	long result = arrives ? syscall(number, a, b, c, d) : 0;
	if (fails) {
		errno = fail_error;
		return -1;
	}
	return result;
}

int fdatasync(int fd)
{
	return (int)call(SYS_fdatasync, fd, 0, 0, 0);
}

// Both names that a library may call it by, whatever this file's own offsets are.
ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite");
ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite64");

ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	return call(SYS_pwrite64, fd, (long)(intptr_t)bytes, (long)count, offset);
}

ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset)
{
	return shim_pwrite64(fd, bytes, count, offset);
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
	return call(SYS_writev, fd, (long)(intptr_t)pieces, count, 0);
}

static bool disk_full; // as far as statvfs() tells

int statvfs(const char *path, struct statvfs *facts)
{
	(void)path;
	*facts = (struct statvfs){ .f_frsize = 4096, .f_bavail = disk_full ? 0 : 1 << 20 };
	return 0;
}

struct seen {
	uint64_t seqs; // bit per seq
	unsigned wrong;
};

static int see(void *context, const struct kvs_record_view *view, const void *value, uint64_t place)
{
	struct seen *seen = context;
	(void)place;
	seen->seqs |= UINT64_C(1) << (view->seq & 63);
	seen->wrong += !fixture_same(view, value, view->seq);
	return 0;
}

static int commit_range(struct store *store, uint64_t first, uint64_t last)
{
	static struct fixture_record record;
	uint64_t place;
	int result = store_begin(store);
	for (uint64_t seq = first; seq <= last && result == STORE_OK; seq++) {
		fixture_record(&record, seq, seq, 30000, 0);
		result = store_append(store, &record.view, NULL, &place);
	}
	if (result == STORE_OK) {
		result = store_commit(store, last);
	}
	return result;
}

static int commit(struct store *store, uint64_t seq)
{
	return commit_range(store, seq, seq);
}

static bool holds(struct store *store, uint64_t last_seq)
{
	struct seen seen = { 0 };
	struct store_walk walk = { .record = see, .context = &seen, .check_records = true };
	return store_recover(store, &walk) == STORE_OK && seen.wrong == 0 &&
	       seen.seqs == (UINT64_C(2) << last_seq) - 2;
}

// As commit(). Is what is told the want of room, if that is what there was? LMDB refuses every call
// once it could not write its meta page.
static bool try(struct store *store, uint64_t seq, int error, bool *failed)
{
	int result = commit(store, seq);
	*failed = result != STORE_OK;
	bool told = !*failed || error != ENOSPC || result == STORE_NO_SPACE;
	if (!told) {
		tap_diag("%d: %s", result, store_why(store));
	}
	return told;
}

// Commits 1 to 3, then 4 with the failure, repeated until it succeeds, then 5. With `reborn` the
// store is left behind at the failure, as by a kvd that was killed, and must hold 3, or 4, whole.
static bool survives(unsigned from, unsigned upto, int error, bool reborn, bool *failed)
{
	char dir[FIXTURE_PATH_BYTES];
	char why[600];
	fixture_dir_fast(dir);
	struct store *store = fixture_store(dir);
	bool good = commit(store, 1) == 0 && commit(store, 2) == 0 && commit(store, 3) == 0;
	calls = 0;
	fail_from = from;
	fail_upto = upto;
	fail_error = error;
	good = try(store, 4, error, failed) && good;
	if (*failed && strstr(store_why(store), dir) == NULL) {
		tap_diag("no folder in: %s", store_why(store));
		good = false;
	}
	if (reborn) {
		fail_from = 0;
		store_close(store);
		good = good && store_probe(dir, why, sizeof(why)) == STORE_OK;
		store = fixture_store(dir);
		struct store_facts facts;
		store_facts(store, &facts);
		good = good && holds(store, facts.durable_seq) &&
		       (facts.durable_seq == 4 || (*failed && facts.durable_seq == 3));
	}
	unsigned tries = 0;
	for (bool again = *failed || reborn; again && tries < 50; tries += again) {
		good = try(store, 4, error, &again) && good;
	}
	fail_from = 0;
	good = good && tries < 50 && commit(store, 5) == STORE_OK && holds(store, 5);
	store_close(store);
	store = fixture_store(dir);
	good = good && holds(store, 5);
	store_close(store);
	fixture_remove(dir);
	return good;
}

// A commit of 1 to 3 that arrives and is told to have failed; what is tried next is shorter, as
// when the bound of a commit has changed. Then kvd is killed.
static bool survives_shorter(unsigned from, bool *failed, bool *arrived)
{
	char dir[FIXTURE_PATH_BYTES];
	char why[600];
	struct store_facts facts;
	fixture_dir_fast(dir);
	struct store *store = fixture_store(dir);
	calls = 0;
	fail_from = from;
	fail_upto = from + 11;
	fail_error = EIO;
	fail_arrived = true;
	*failed = commit_range(store, 1, 3) != STORE_OK;
	fail_from = 0;
	fail_arrived = false;
	bool good = commit_range(store, 1, 2) == STORE_OK;
	store_close(store);
	good = good && store_probe(dir, why, sizeof(why)) == STORE_OK;
	store = fixture_store(dir);
	store_facts(store, &facts);
	*arrived = facts.durable_seq == 3;
	good = good && holds(store, *arrived ? 3 : 2);
	good = good && commit_range(store, 3, 4) == STORE_OK && holds(store, 4);
	store_close(store);
	fixture_remove(dir);
	return good;
}

static void test_shorter(void)
{
	bool failed;
	bool arrived;
	unsigned bad = 0;
	unsigned arrivals = 0;
	unsigned from = 1;
	do {
		bad += !survives_shorter(from, &failed, &arrived);
		arrivals += failed && arrived;
	} while (failed && from++ < 40);
	ok(bad == 0 && from > 2, "E: a commit that is told to have failed, and a shorter one");
	ok(arrivals > 0, "%u of %u had arrived", arrivals, from - 1);
}

/// What the person at the machine reads after EIO.
static void test_names(void)
{
	char dir[FIXTURE_PATH_BYTES];
	fixture_dir_fast(dir);
	struct store *store = fixture_store(dir);
	fail_from = 1;
	fail_upto = UINT32_MAX;
	fail_error = EIO;
	disk_full = true;
	calls = 0;
	ok(commit(store, 1) == STORE_NO_SPACE && strstr(store_why(store), strerror(ENOSPC)) &&
		   strstr(store_why(store), "make room") &&
		   !strstr(store_why(store), strerror(EIO)),
	   "a short write to a full disk is called that: %s", store_why(store));
	disk_full = false;
	ok(commit(store, 1) == STORE_IO && strstr(store_why(store), strerror(EIO)) &&
		   strstr(store_why(store), "dmesg"),
	   "a failing device too: %s", store_why(store));
	fail_from = 0;
	struct rlimit limit;
	ok(getrlimit(RLIMIT_FSIZE, &limit) == 0, "the limit on file sizes");
	rlim_t before = limit.rlim_cur;
	(void)signal(SIGXFSZ, SIG_IGN);
	limit.rlim_cur = store_file_bytes(store) + 10000; // within a page of the commit
	ok(setrlimit(RLIMIT_FSIZE, &limit) == 0 && commit(store, 1) == STORE_NO_SPACE &&
		   strstr(store_why(store), "ulimit -f"),
	   "a write that a limit cut short, too: %s", store_why(store));
	limit.rlim_cur = before;
	ok(setrlimit(RLIMIT_FSIZE, &limit) == 0 && commit(store, 1) == STORE_OK,
	   "it goes on when the limit is raised");
	store_close(store);
	fixture_remove(dir);
}

int main(int argc, char **argv)
{
	int code;
	if (fixture_is_probe(argc, argv, &code)) {
		return code;
	}
	bool failed;
	ok(survives(0, 0, 0, false, &failed) && !failed, "without a failure nothing fails");
	static const unsigned lengths[] = { 1, 2, 12 };
	static const int errors[] = { EIO, ENOSPC };
	unsigned refused = 0;
	for (size_t e = 0; e < 2; e++) {
		for (size_t l = 0; l < 3; l++) {
			for (int reborn = 0; reborn < 2; reborn++) {
				unsigned bad = 0;
				unsigned from = 1;
				do {
					if (!survives(from, from + lengths[l] - 1, errors[e],
						      reborn != 0, &failed)) {
						tap_diag("call %u", from);
						bad++;
					}
					refused += failed;
				} while (failed && from++ < 40);
				ok(bad == 0 && from > 2, "%s at each of %u calls, %u long%s",
				   strerror(errors[e]), from - 1, lengths[l],
				   reborn ? ", and a crash" : "");
			}
		}
	}
	ok(refused > 0, "%u commits were refused", refused);
	test_shorter();
	test_names();
	return tap_done();
}
