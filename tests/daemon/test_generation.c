// SPDX-License-Identifier: MIT
//
// kvd's side of kvd.gen: what it says, how seldom it is written, and what happens when it cannot
// be. A: no version is noted that could be handed out again.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/generation.h"
#include "shm/record.h"
#include "tests/tap/tap.h"

#define SECOND UINT64_C(1000000000)

// Files are large everywhere, so pwrite() is pwrite64().
static unsigned writes; // that were asked for
static int write_error; // of the next ones
static ssize_t write_bytes_max;

ssize_t __real_pwrite64(int fd, const void *data, size_t bytes, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t bytes, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t bytes, off_t at)
{
	writes++;
	if (write_error != 0) {
		errno = write_error;
		write_error = write_error == EINTR ? 0 : write_error;
		return -1;
	}
	return __real_pwrite64(fd, data, bytes < (size_t)write_bytes_max ? bytes : 0, at);
}

static char dir[4096], path[4128], why[1024];

static struct generation begin(void)
{
	struct generation generation;
	int error = generation_open(&generation, dir, why, sizeof(why));
	if (error != 0) {
		printf("Bail out! %s\n", why);
		exit(99);
	}
	return generation;
}

static struct kvs_generation said(void)
{
	struct kvs_generation record = { .generation = UINT64_MAX };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (!kvs_generation_read(fd, &record)) {
		record.generation = UINT64_MAX;
	}
	close(fd);
	return record;
}

static void write_file(const void *data, size_t bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (write(fd, data, bytes) != (ssize_t)bytes || close(fd) != 0) {
		printf("Bail out! %s: %s\n", path, strerror(errno));
		exit(99);
	}
}

static void test_serve(void)
{
	struct generation generation = begin();
	struct stat facts;
	ok(stat(path, &facts) == 0 && facts.st_size == 4096, "a page, from the start");
	ok_u64(generation.now.generation, 0, "that nobody has served from");
	ok_int(generation_serve(&generation, 77, true), 0, "the first region");
	struct kvs_generation record = said();
	ok(record.generation == 1 && kvs_generation_names(&record, 1, 77), "is named");
	ok(!kvs_generation_names(&record, 1, 78), "E: and no other that counts alike");
	ok(!kvs_generation_names(&record, 2, 77), "nor itself under another count");
	writes = 0;
	ok_int(generation_serve(&generation, 77, false), 0, "it is taken over");
	ok_u64(writes, 0, "which is no news");
	ok_int(generation_serve(&generation, 99, true), 0, "the second");
	generation_close(&generation);
	generation = begin();
	ok_u64(generation.now.generation, 2, "is the second to the next kvd, too");
	write_error = EIO;
	ok_int(generation_serve(&generation, 100, true), -EIO, "a third that cannot be named");
	ok_u64(generation.now.generation, 2, "is none");
	write_error = 0;
	write_bytes_max = 1;
	ok_int(generation_serve(&generation, 100, true), -ENOSPC, "nor one named in part");
	write_bytes_max = SSIZE_MAX;
	write_error = EINTR;
	ok_int(generation_serve(&generation, 100, true), 0, "an interrupted call is made again");
	generation_close(&generation);
	generation_close(&generation);
}

// As a kvd left it that knew two words.
static void test_former(void)
{
	const uint64_t words[] = { 5, 1000 };
	write_file(words, sizeof(words));
	struct generation generation = begin();
	ok_u64(generation.now.generation, 0, "less than what it says says nothing");
	generation_close(&generation);
	uint64_t page[512] = { 5, 1000 };
	write_file(page, sizeof(page));
	generation = begin();
	ok(kvs_generation_names(&generation.now, 5, 1) &&
		   kvs_generation_names(&generation.now, 5, 2),
	   "a kvd that named none: the count decides");
	ok_u64(generation.now.version, 1000, "its note of versions counts");
	write_error = EIO;
	ok_int(generation_serve(&generation, 3, false), 0,
	       "a region that it left serves, named or");
	ok(generation.is_failing && generation.is_due, "not");
	write_error = 0;
	generation_turn(&generation, 0, 5 * SECOND);
	struct kvs_generation record = said();
	ok(!kvs_generation_names(&record, 5, 2) && kvs_generation_names(&record, 5, 3),
	   "and is named as soon as that can be");
	generation_close(&generation);
	page[1] = KVS_SEQ_MAX + 1;
	write_file(page, sizeof(page));
	generation = begin();
	ok_u64(generation.now.version, 0, "a version that cannot be is none");
	generation_close(&generation);
}

static void test_versions(void)
{
	write_file("", 0);
	struct generation generation = begin();
	(void)generation_serve(&generation, 1, true);
	writes = 0;
	generation_note_version(&generation, 10);
	ok(said().version > 10, "A: more than was handed out is noted at once");
	uint64_t short_of = 0, last = 10;
	for (; last < 10000000; last += 1000) {
		generation_turn(&generation, last, SECOND);
		short_of += said().version < last + 100000;
	}
	ok_u64(short_of, 0, "A: and well ahead, always");
	ok(writes < 30, "C: by %u writes for ten million versions", writes);
	generation_turn(&generation, KVS_SEQ_MAX - 5, SECOND);
	ok_u64(said().version, KVS_SEQ_MAX, "up to the last");
	writes = 0;
	generation_turn(&generation, KVS_SEQ_MAX, SECOND);
	generation_note_version(&generation, KVS_SEQ_MAX);
	ok_u64(writes, 0, "and no further");
	generation_end_versions(&generation, 12345);
	ok_u64(said().version, 12345, "but what a life in order has ended with");
	ok_int(generation_keep_version(&generation, 12346), 0, "one more is kept");
	ok(said().version > 12346, "well ahead, too");
	generation_end_versions(&generation, 20000);
	write_error = EIO;
	ok_int(generation_keep_version(&generation, 20001), -EIO, "or its caller told");
	write_error = 0;
	generation_close(&generation);
}

static void test_tended(void)
{
	write_file("", 0);
	struct generation generation = begin();
	(void)generation_serve(&generation, 1, true);
	generation_turn(&generation, 10, SECOND);
	ok_int(truncate(path, 0), 0, "somebody cuts it short");
	writes = 0;
	generation_turn(&generation, 11, SECOND + 1);
	ok_u64(writes, 0, "nobody looks each turn");
	generation_turn(&generation, 12, 2 * SECOND);
	struct kvs_generation record = said();
	ok(memcmp(&record, &generation.now, sizeof(record)) == 0, "F: but each second");
	write_file("garbage that is longer than what is read of it", 46);
	write_error = ENOSPC;
	writes = 0;
	for (uint64_t at = 3 * SECOND; at < 6 * SECOND; at += SECOND / 10) {
		generation_turn(&generation, 13, at);
	}
	ok_u64(writes, 3, "what fails is tried again as often");
	write_error = 0;
	generation_turn(&generation, 13, 7 * SECOND);
	record = said();
	ok(memcmp(&record, &generation.now, sizeof(record)) == 0 && !generation.is_failing,
	   "F: until it does not");
	generation_close(&generation);
}

// The folder was removed, and made anew.
static void test_renewed(void)
{
	write_file("", 0);
	struct generation generation = begin();
	(void)generation_serve(&generation, 7, true);
	int old = open(path, O_RDONLY | O_CLOEXEC), fd = generation.fd;
	struct kvs_generation record;
	(void)unlink(path);
	write_error = ENOSPC;
	ok_int(generation_renew(&generation, dir, why, sizeof(why)), -ENOSPC, "a full disk");
	ok(strstr(why, path) && strstr(why, "make room"), "is told: %s", why);
	write_error = 0;
	ok_int(generation_renew(&generation, dir, why, sizeof(why)), 0, "a new file");
	ok(generation.fd == fd, "by the same descriptor");
	record = said();
	ok(kvs_generation_names(&record, 1, 7), "says what the old one said");
	ok(kvs_generation_read(old, &record) && record.generation == 2,
	   "which tells who mapped it that it is over");
	close(old);
	generation_close(&generation);
	ok_int(generation_renew(&generation, "/dev/null", why, sizeof(why)), -ENOTDIR,
	       "no folder to make it in");
}

static void test_in_the_way(void)
{
	struct generation generation;
	(void)unlink(path);
	ok_int(mkfifo(path, 0600), 0, "a pipe of that name");
	ok_int(generation_open(&generation, dir, why, sizeof(why)), -EEXIST, "is refused");
	ok(strstr(why, path) && strstr(why, "move away"), "with what to do: %s", why);
	ok(generation.fd < 0, "and closed");
	(void)unlink(path);
	ok_int(symlink("elsewhere", path), 0, "a link");
	ok_int(generation_open(&generation, dir, why, sizeof(why)), -ELOOP, "is not followed");
	(void)unlink(path);
	char longer[5000];
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	ok_int(generation_open(&generation, longer, why, sizeof(why)), -ENAMETOOLONG,
	       "a folder that no call can name");
}

int main(void)
{
	const char *temporary = getenv("TMPDIR");
	(void)snprintf(dir, sizeof(dir), "%s/kvd-generation-XXXXXX",
		       temporary != NULL ? temporary : "/tmp");
	if (mkdtemp(dir) == NULL) {
		printf("Bail out! mkdtemp: %s\n", strerror(errno));
		return 99;
	}
	(void)snprintf(path, sizeof(path), "%s/kvd.gen", dir);
	write_bytes_max = SSIZE_MAX;
	test_serve();
	test_former();
	test_versions();
	test_tended();
	test_renewed();
	test_in_the_way();
	(void)rmdir(dir);
	return tap_done();
}
