// SPDX-License-Identifier: MIT
//
// The last steps of a restore, of which each call fails in turn: the names are exchanged, or
// nothing is, and kvd.gen is raised, or an error tells.
#include "daemon/storage/restored.h"

#include <errno.h>
#include <limits.h>
#include <sys/syscall.h>

#include "shm/limits.h"
#include "tests/daemon/store_fixture.h"

// ---- the system, as far as it is to fail ----

static unsigned calls;	   // counted
static unsigned fail_at;   // this one; 0 = none
static int fail_error;	   // with this; 0 = it is short
static bool no_flags;	   // the file system knows none of renameat2()'s
static uid_t pretended_id; // who this is

static bool fails_now(void)
{
	if (++calls != fail_at) {
		return false;
	}
	errno = fail_error;
	return true;
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	if (no_flags && flags != 0) {
		errno = EINVAL;
		return -1;
	}
	return fails_now() ? -1 : (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int rename(const char *from, const char *to)
{
	return fails_now() ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0u);
}

int fsync(int fd)
{
	return fails_now() ? -1 : (int)syscall(SYS_fsync, fd);
}

int fchown(int fd, uid_t uid, gid_t gid)
{
	(void)uid;
	(void)gid;
	return fails_now() ? -1 : (int)syscall(SYS_fchown, fd, getuid(), getgid());
}

uid_t geteuid(void)
{
	return pretended_id;
}

int shim_truncate(int fd, off64_t bytes) __asm__("ftruncate");
int shim_truncate64(int fd, off64_t bytes) __asm__("ftruncate64");
ssize_t shim_pread(int fd, void *bytes, size_t count, off64_t offset) __asm__("pread");
ssize_t shim_pread64(int fd, void *bytes, size_t count, off64_t offset) __asm__("pread64");
ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite");
ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset) __asm__("pwrite64");

int shim_truncate64(int fd, off64_t bytes)
{
	return fails_now() ? -1 : (int)syscall(SYS_ftruncate, fd, bytes);
}

int shim_truncate(int fd, off64_t bytes)
{
	return shim_truncate64(fd, bytes);
}

ssize_t shim_pread64(int fd, void *bytes, size_t count, off64_t offset)
{
	return fails_now() ? (fail_error != 0 ? -1 : 3)
			   : syscall(SYS_pread64, fd, bytes, count, offset);
}

ssize_t shim_pread(int fd, void *bytes, size_t count, off64_t offset)
{
	return shim_pread64(fd, bytes, count, offset);
}

ssize_t shim_pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	return fails_now() ? (fail_error != 0 ? -1 : 3)
			   : syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t shim_pwrite(int fd, const void *bytes, size_t count, off64_t offset)
{
	return shim_pwrite64(fd, bytes, count, offset);
}

static void fail(unsigned at, int error)
{
	calls = 0;
	fail_at = at;
	fail_error = error;
}

// ---- what is there ----

static char dir[FIXTURE_PATH_BYTES];
static char work[FIXTURE_PATH_BYTES + 32];
static char store[FIXTURE_PATH_BYTES + 32];
static char aside[FIXTURE_PATH_BYTES + 32];

// A folder with one file, which says which it is.
static void make(const char *path, const char *mark)
{
	char file[FIXTURE_PATH_BYTES + 64];
	(void)snprintf(file, sizeof(file), "%s/%s", path, mark);
	int fd = mkdir(path, 0700) == 0 ? open(file, O_CREAT | O_CLOEXEC, 0600) : -1;
	if (fd < 0 || close(fd) != 0) {
		printf("Bail out! cannot make %s\n", path);
		exit(1);
	}
}

static bool has(const char *path, const char *mark)
{
	char file[FIXTURE_PATH_BYTES + 64];
	(void)snprintf(file, sizeof(file), "%s/%s", path, mark);
	return access(file, F_OK) == 0;
}

static void begin(bool with_store)
{
	fixture_dir(dir);
	(void)snprintf(work, sizeof(work), "%s/%s", dir, RESTORED_WORK_NAME);
	(void)snprintf(store, sizeof(store), "%s/store", dir);
	(void)snprintf(aside, sizeof(aside), "%s/store.before", dir);
	make(work, "new");
	if (with_store) {
		make(store, "old");
	}
}

static void end(void)
{
	fail(0, 0);
	no_flags = false;
	fixture_remove(dir);
}

static void test_publish(const char *form)
{
	begin(false);
	ok_int(restored_publish(work, store, NULL), 0, "%s: into an empty place", form);
	ok(has(store, "new") && access(work, F_OK) != 0, "%s: it is there", form);
	end();
	begin(true);
	ok_int(restored_publish(work, store, aside), 0, "%s: into that of another", form);
	ok(has(store, "new") && has(aside, "old") && access(work, F_OK) != 0,
	   "%s: which is beside it", form);
	end();
}

static void test_publish_fails(void)
{
	begin(true);
	ok_int(restored_publish(work, store, NULL), EEXIST, "not over anything unasked");
	ok(has(store, "old") && has(work, "new"), "which stays");
	no_flags = true;
	ok(restored_publish(work, store, NULL) != 0 && has(store, "old"), "nor without flags");
	fail(1, EIO);
	ok_int(restored_publish(work, store, aside), EIO, "the first of two names fails");
	ok(has(store, "old") && has(work, "new"), "both stay");
	fail(2, EIO);
	ok_int(restored_publish(work, store, aside), EIO, "the second fails");
	ok(has(aside, "old") && has(work, "new"),
	   "the old one is beside, the new one where it was");
	end();
	begin(true);
	fail(1, EACCES);
	ok_int(restored_publish(work, store, aside), EACCES, "the exchange is refused");
	fail(2, EIO);
	ok_int(restored_publish(work, store, aside), EIO, "the name after it fails");
	ok(has(store, "new") && has(work, "old"), "they are exchanged all the same");
	end();
}

static uint64_t generation(void)
{
	char path[FIXTURE_PATH_BYTES + 32];
	uint64_t word = UINT64_MAX;
	(void)snprintf(path, sizeof(path), "%s/kvd.gen", dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, &word, sizeof(word)) != (ssize_t)sizeof(word)) {
		word = UINT64_MAX;
	}
	(void)close(fd);
	return word;
}

static void test_generation(void)
{
	char long_name[FIXTURE_PATH_BYTES * 12];
	begin(false);
	ok(restored_raise_generation(dir, getuid(), getgid()) == 0 && generation() == 1,
	   "kvd.gen is made");
	ok(restored_raise_generation(dir, getuid(), getgid()) == 0 && generation() == 2,
	   "and raised");
	fail(0, 0);
	ok(restored_raise_generation(dir, getuid(), getgid()) == 0, "once more");
	unsigned all = calls;
	unsigned told = 0;
	for (unsigned n = 1; n <= all; n++) {
		fail(n, ENOSPC);
		told += restored_raise_generation(dir, getuid(), getgid()) == ENOSPC;
	}
	ok_u64(told, all, "each call that root needs tells");
	pretended_id = 1;
	fail(all, EPERM);
	ok_int(restored_raise_generation(dir, getuid(), getgid()), 0,
	       "others need not give it away");
	pretended_id = 0;
	fail(2, 0);
	ok_int(restored_raise_generation(dir, getuid(), getgid()), EIO, "a short read");
	fail(3, 0);
	ok_int(restored_raise_generation(dir, getuid(), getgid()), EIO, "a short write");
	fail(0, 0);
	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	ok_int(restored_raise_generation(long_name, 0, 0), ENAMETOOLONG, "a path too long");
	ok_int(restored_raise_generation("/nonexistent", 0, 0), ENOENT, "no folder");
	end();
}

static void test_check(void)
{
	char why[512] = "";
	char long_name[FIXTURE_PATH_BYTES * 12];
	begin(false);
	ok(restored_check(dir, why, sizeof(why)) == -1 && strstr(why, "cut off") != NULL,
	   "a restore that was cut off: %s", why);
	make(store, "old");
	ok_int(restored_check(dir, why, sizeof(why)), 0, "beside what it was to replace");
	end();
	ok_int(restored_check(dir, why, sizeof(why)), 0, "no folder at all");
	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	ok_int(restored_check(long_name, why, sizeof(why)), 0, "a path too long is none");
}

int main(void)
{
	test_publish("exchanged");
	no_flags = true;
	begin(true);
	ok_int(restored_publish(work, store, aside), 0, "one after the other");
	ok(has(store, "new") && has(aside, "old"), "where names cannot be exchanged");
	end();
	begin(false);
	no_flags = true;
	ok_int(restored_publish(work, store, NULL), 0, "and into an empty place");
	end();
	test_publish_fails();
	test_generation();
	test_check();
	return tap_done();
}
