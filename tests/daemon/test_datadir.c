// SPDX-License-Identifier: MIT
//
// The data folder that was removed: made anew where nothing else stands, and what is refused (E).
#include "daemon/storage/datadir.h"

#include <errno.h>
#include <sys/file.h>

#include "tests/daemon/store_fixture.h"

static char root[FIXTURE_PATH_BYTES];
static char path[FIXTURE_PATH_BYTES + 16];
static char why[600];

static struct datadir *take(const char *name)
{
	struct datadir *folder;
	if (datadir_take(&folder, name, NULL, why, sizeof(why)) != 0) {
		printf("Bail out! %s\n", why);
		exit(1);
	}
	return folder;
}

// What a kvd leaves in it besides.
static void drop(const char *name)
{
	char lock[FIXTURE_PATH_BYTES + 32];
	(void)snprintf(lock, sizeof(lock), "%s/kvd.lock", name);
	if (unlink(lock) != 0 || rmdir(name) != 0) {
		printf("Bail out! cannot remove %s\n", name);
		exit(1);
	}
}

static bool is_locked(const char *name)
{
	char lock[FIXTURE_PATH_BYTES + 32];
	(void)snprintf(lock, sizeof(lock), "%s/kvd.lock", name);
	int fd = open(lock, O_RDWR | O_CLOEXEC);
	bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
	(void)close(fd);
	return locked;
}

static int remake(struct datadir *folder)
{
	why[0] = '\0';
	return datadir_remake(folder, why, sizeof(why));
}

static void test_made_anew(const char *name, const char *form)
{
	struct datadir *folder = take(name);
	ok(is_locked(path) && datadir_remade(folder) == 0, "%s: it is locked", form);
	drop(path);
	ok_int(remake(folder), 0, "%s: removed, it is made anew", form);
	ok(is_locked(path) && datadir_remade(folder) == 1, "%s: and locked", form);
	ok_int(remake(folder), 0, "%s: what an attempt made is used by the next", form);
	ok_u64(datadir_remade(folder), 1, "%s: and counts once", form);
	drop(path);
	ok(mkdir(path, 0700) == 0 && remake(folder) == 0, "%s: an empty one is used", form);
	ok(is_locked(path) && datadir_remade(folder) == 2, "%s: and locked", form);
	datadir_release(folder);
	ok(!is_locked(path), "%s: released", form);
	drop(path);
}

// Two that serve from one folder would take each other's store for damaged, and lose what was
// acknowledged.
static void test_lock_removed(void)
{
	char lock[FIXTURE_PATH_BYTES + 32];
	struct datadir *other;
	struct datadir *folder = take(path);
	(void)snprintf(lock, sizeof(lock), "%s/kvd.lock", path);
	ok(unlink(lock) == 0, "somebody removes the lock file");
	ok_int(datadir_take(&other, path, NULL, why, sizeof(why)), EWOULDBLOCK,
	       "who comes then is refused");
	ok(strstr(why, path) && strstr(why, "kvd.lock was removed"), "is told: %s", why);
	ok(!is_locked(path), "and keeps no lock");
	datadir_release(folder);
	ok_int(datadir_take(&other, path, NULL, why, sizeof(why)), 0, "it is free again");
	datadir_release(other);
	drop(path);
}

static void test_refused(void)
{
	char other[FIXTURE_PATH_BYTES + 32];
	struct datadir *folder = take(path);
	(void)snprintf(other, sizeof(other), "%s/other", root);
	ok(rename(path, other) == 0 && remake(folder) == 1, "one that was moved may come back");
	ok(mkdir(path, 0700) == 0 && remake(folder) == 1, "another of its name or not");
	ok(rmdir(path) == 0 && rename(other, path) == 0, "it does");
	drop(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ok(close(fd) == 0 && remake(folder) == -1 && strstr(why, "not empty") != NULL,
	   "a file in its place: %s", why);
	(void)unlink(path);
	struct datadir *theirs = take(path);
	ok(remake(folder) == -1 && strstr(why, "not empty") != NULL, "another kvd's: %s", why);
	datadir_release(theirs);
	drop(path);
	ok(rmdir(root) == 0 && remake(folder) == -1 && strstr(why, "above") != NULL,
	   "nothing above it: %s", why);
	ok(symlink("/proc", root) == 0 && remake(folder) == -1 &&
		   strstr(why, "another file system") != NULL,
	   "another file system above it: %s", why);
	ok(unlink(root) == 0 && mkdir(root, 0700) == 0, "the folder above is back");
	if (geteuid() != 0) {
		ok(chmod(root, 0500) == 0 && remake(folder) == -1 &&
			   strstr(why, "cannot be made anew") != NULL,
		   "no right to make it: %s", why);
		(void)chmod(root, 0700);
	}
	ok_int(remake(folder), 0, "then it is made anew");
	datadir_release(folder);
	drop(path);
}

static void test_taken(void)
{
	struct datadir *folder;
	char deep[FIXTURE_PATH_BYTES + 32];
	(void)snprintf(deep, sizeof(deep), "%s/no/such", root);
	ok_int(datadir_take(&folder, deep, NULL, why, sizeof(why)), ENOENT, "nothing above it: %s",
	       why);
	ok(folder == NULL, "nothing is taken");
	datadir_release(folder);
}

int main(void)
{
	char slashes[FIXTURE_PATH_BYTES + 32];
	fixture_dir(root);
	(void)snprintf(path, sizeof(path), "%s/data", root);
	(void)snprintf(slashes, sizeof(slashes), "%s//data//", root);
	test_made_anew(path, "by its path");
	test_made_anew(slashes, "with slashes");
	ok(chdir(root) == 0, "in the folder above");
	test_made_anew("data", "by its name");
	ok(chdir("/") == 0, "out of it");
	test_lock_removed();
	test_refused();
	test_taken();
	fixture_remove(root);
	return tap_done();
}
