// SPDX-License-Identifier: MIT
//
// shm/map.c: a client maps only a header that is whole, of its own layout, alive, and at peace with
// the size of the file; each field is spoiled in turn. What kvd has not published cannot be
// touched, and the read-only descriptor stays read-only. What the system refuses is an error, and
// nothing stays mapped.
#include "shm/map.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN

struct spoil {
	const char *what;
	size_t offset;
	size_t bytes;
	uint64_t value;
	int expected;
};

#define FIELD(field) offsetof(struct kvs_region_header, field)
#define RANGE(i, field)                                          \
	(FIELD(ranges) + (i) * sizeof(struct kvs_range_bounds) + \
	 offsetof(struct kvs_range_bounds, field))

static const struct spoil spoils[] = {
	{ "marker", FIELD(marker), 8, 0, KVS_MAP_FOREIGN },
	{ "layout version", FIELD(layout_version), 4, KVS_LAYOUT_VERSION + 1, KVS_MAP_LAYOUT },
	{ "fingerprint", FIELD(fingerprint), 4, 1, KVS_MAP_LAYOUT },
	{ "a kind of hash that nobody knows", FIELD(hash_kind), 8, KVS_HASH_KINDS_COUNT,
	  KVS_MAP_HASH },
	{ "lifecycle: starting", FIELD(lifecycle), 8, KVS_REGION_STARTING, KVS_MAP_NOT_ALIVE },
	{ "lifecycle: retired", FIELD(lifecycle), 8, KVS_REGION_RETIRED, KVS_MAP_NOT_ALIVE },
	{ "lifecycle: unknown", FIELD(lifecycle), 8, 77, KVS_MAP_NOT_ALIVE },
	{ "region size: smaller", FIELD(region_bytes), 8, 4096, KVS_MAP_DAMAGED },
	{ "region size: larger", FIELD(region_bytes), 8, UINT64_MAX, KVS_MAP_DAMAGED },
	{ "segment size 0", FIELD(segment_bytes), 4, 0, KVS_MAP_DAMAGED },
	{ "segment size not a power of two", FIELD(segment_bytes), 4, 96 << 10, KVS_MAP_DAMAGED },
	{ "segment size too small", FIELD(segment_bytes), 4, KVS_SEGMENT_BYTES_MIN / 2,
	  KVS_MAP_DAMAGED },
	{ "segment size too large", FIELD(segment_bytes), 4, KVS_SEGMENT_BYTES_MAX * 2u,
	  KVS_MAP_DAMAGED },
	{ "range offset beyond the file", RANGE(0, offset), 8, UINT64_C(1) << 50, KVS_MAP_DAMAGED },
	{ "range offset not on a page", RANGE(1, offset), 8, 12345, KVS_MAP_DAMAGED },
	{ "range over the header", RANGE(2, offset), 8, 0, KVS_MAP_DAMAGED },
	{ "range longer than the file", RANGE(3, bytes_max), 8, UINT64_C(1) << 50,
	  KVS_MAP_DAMAGED },
	{ "range that wraps around", RANGE(4, bytes_max), 8, UINT64_MAX & ~UINT64_C(4095),
	  KVS_MAP_DAMAGED },
	{ "log not at a segment boundary", RANGE(KVS_RANGE_LOG, offset), 8, 4096, KVS_MAP_DAMAGED },
	{ "log of half segments", RANGE(KVS_RANGE_LOG, bytes_max), 8, 4096 * 3, KVS_MAP_DAMAGED },
	{ "large range not in pages", RANGE(KVS_RANGE_LARGE, bytes_max), 8, 12345,
	  KVS_MAP_DAMAGED },
};

static void test_damaged_headers(struct fixture *f)
{
	struct kvs_map map;
	ok_int(kvs_map_open(&map, f->region.fd_readonly), KVS_MAP_OK, "the good header is mapped");
	kvs_map_close(&map);
	for (unsigned i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++) {
		unsigned char saved[8];
		memcpy(saved, f->region.base + spoils[i].offset, spoils[i].bytes);
		memcpy(f->region.base + spoils[i].offset, &spoils[i].value, spoils[i].bytes);
		int result = kvs_map_open(&map, f->region.fd_readonly);
		ok_int(result, spoils[i].expected, "refused: %s", spoils[i].what);
		if (result == KVS_MAP_OK) {
			kvs_map_close(&map);
		}
		struct kvs_map adopted;
		ok_int(kvs_map_adopt(&adopted, f->region.base, f->region.bytes), spoils[i].expected,
		       "refused in place: %s", spoils[i].what);
		memcpy(f->region.base + spoils[i].offset, saved, spoils[i].bytes);
	}
}

// Any 8 bytes anywhere in the header: refused or mapped, never a crash, and then still usable.
static void test_random_headers(struct fixture *f, uint64_t *random)
{
	struct kvs_region_header saved = *f->region.header;
	unsigned mapped = 0;
	const unsigned rounds = tap_rounds(3000, 500);
	for (unsigned round = 0; round < rounds; round++) {
		uint64_t at = tap_random(random) % (sizeof(saved) / 8) * 8;
		uint64_t word = tap_random(random) >> tap_random(random) % 64;
		memcpy(f->region.base + at, &word, 8);
		struct kvs_map map;
		if (kvs_map_open(&map, f->region.fd_readonly) == KVS_MAP_OK) {
			struct kvs_hit hit;
			(void)fixture_find(&map, "key", 3, &hit);
			(void)kvs_map_extend(&map);
			kvs_map_close(&map);
			mapped++;
		}
		*f->region.header = saved;
	}
	ok(mapped > 0, "random words in the header: no crash (%u of 3000 harmless)", mapped);
}

// The same bytes in a file that somebody could make shorter under its readers.
static void test_unsealed(struct fixture *f)
{
	struct kvs_map map;
	int fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ok(ftruncate(fd, (off_t)f->region.bytes) == 0 &&
		   pwrite(fd, f->region.base, KVS_PAGE_BYTES, 0) == (ssize_t)KVS_PAGE_BYTES,
	   "a copy of the region's header");
	ok_int(kvs_map_open(&map, fd), KVS_MAP_FOREIGN, "H: a file that may shrink is refused");
	ok(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0 && kvs_map_open(&map, fd) == KVS_MAP_OK,
	   "one that is sealed is mapped");
	kvs_map_close(&map);
	close(fd);
}

static void test_other_files(struct fixture *f)
{
	struct kvs_map map;
	int fd = memfd_create("small", MFD_CLOEXEC);
	ok_int(kvs_map_open(&map, fd), KVS_MAP_FOREIGN, "an empty file is refused");
	ok(ftruncate(fd, KVS_PAGE_BYTES) == 0 && kvs_map_open(&map, fd) == KVS_MAP_FOREIGN,
	   "a page of zeroes is refused");
	ok(ftruncate(fd, KVS_PAGE_BYTES + 1) == 0 && kvs_map_open(&map, fd) == KVS_MAP_FOREIGN,
	   "a file of no whole pages is refused");
	ok(ftruncate(fd, (off_t)(2 * KVS_REGION_BYTES_MAX)) == 0 &&
		   kvs_map_open(&map, fd) == KVS_MAP_FOREIGN,
	   "a file larger than any region is refused");
	close(fd);
	test_unsealed(f);
	FILE *file = tmpfile();
	ok(file != NULL && ftruncate(fileno(file), KVS_PAGE_BYTES) == 0 &&
		   kvs_map_open(&map, fileno(file)) == KVS_MAP_FOREIGN,
	   "H: so is a file of a file system, which cannot be sealed");
	ok(file == NULL || fclose(file) == 0, "and goes again");
	ok_int(kvs_map_open(&map, -1), KVS_MAP_SYSTEM, "a bad descriptor is a system error");
	int pipes[2];
	ok(pipe(pipes) == 0 && kvs_map_open(&map, pipes[0]) != KVS_MAP_OK, "a pipe is refused");
	close(pipes[0]);
	close(pipes[1]);
}

// Linked in front of the system's: the call that takes *calls to 0 fails.
void *__real_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_mprotect(void *at, size_t bytes, int protection);
int __wrap_mprotect(void *at, size_t bytes, int protection);
static int mmap_fails, mprotect_fails;

static bool refuses(int *calls)
{
	if (*calls == 0 || --*calls > 0) {
		return false;
	}
	errno = ENOMEM;
	return true;
}

void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	return refuses(&mmap_fails) ? MAP_FAILED
				    : __real_mmap64(at, bytes, protection, flags, fd, offset);
}

int __wrap_mprotect(void *at, size_t bytes, int protection)
{
	return refuses(&mprotect_fails) ? -1 : __real_mprotect(at, bytes, protection);
}

static unsigned mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned lines = 0;
	for (int letter; maps != NULL && (letter = fgetc(maps)) != EOF;) {
		lines += letter == '\n';
	}
	return maps != NULL && fclose(maps) == 0 ? lines : 0;
}

static void test_refused(struct fixture *f)
{
	struct kvs_map map;
	unsigned before = mappings();
	ok(before > 0, "what is mapped can be counted");
	static const char *const steps[] = { "the reservation", "the region in it", "the header",
					     "what is published" };
	for (int i = 0; i < 4; i++) {
		*(i < 2 ? &mmap_fails : &mprotect_fails) = i % 2 + 1;
		errno = 0;
		ok(kvs_map_open(&map, f->region.fd_readonly) == KVS_MAP_SYSTEM && errno == ENOMEM,
		   "memory refused for %s is a system error with its reason", steps[i]);
		ok(mmap_fails == 0 && mprotect_fails == 0 && mappings() == before,
		   "nothing stays mapped");
	}
	fixture_map_reader(f, &map);
	uint64_t ready = kvs_load_relaxed(&map.ready[KVS_RANGE_LOG]);
	f->region.header->ready[KVS_RANGE_LOG] = ready + SEGMENT;
	mprotect_fails = 1;
	ok_int(kvs_map_extend(&map), -ENOMEM, "so is extending that is refused");
	ok_u64(kvs_load_relaxed(&map.ready[KVS_RANGE_LOG]), ready, "which opens nothing");
	ok(kvs_map_extend(&map) == 0 && map.ready[KVS_RANGE_LOG] == ready + SEGMENT,
	   "and can be tried again");
	f->region.header->ready[KVS_RANGE_LOG] = ready;
	kvs_map_close(&map);
}

// A map of what is mapped already, as kvd's own: bounds follow what is published, nothing is
// unmapped.
static void test_in_place(struct fixture *f)
{
	struct kvs_map map;
	ok_int(kvs_map_adopt(&map, f->region.base, KVS_PAGE_BYTES - 1), KVS_MAP_DAMAGED,
	       "H: less than a header is no region");
	uint64_t saved = f->region.header->region_bytes;
	f->region.header->region_bytes = 2 * KVS_REGION_BYTES_MAX;
	ok_int(kvs_map_adopt(&map, f->region.base, 2 * KVS_REGION_BYTES_MAX), KVS_MAP_DAMAGED,
	       "H: nor is more than an entry can name");
	f->region.header->region_bytes = saved;
	ok_int(kvs_map_adopt(&map, f->region.base, f->region.bytes), KVS_MAP_OK, "the region is");
	uint64_t ready = kvs_load_relaxed(&map.ready[KVS_RANGE_LOG]);
	f->region.header->ready[KVS_RANGE_LOG] = ready + SEGMENT;
	ok(kvs_map_extend(&map) == 0 && map.ready[KVS_RANGE_LOG] == ready + SEGMENT,
	   "what is published since is ready, too");
	f->region.header->ready[KVS_RANGE_LOG] = ready;
	kvs_map_close(&map);
	ok(map.base == NULL && memcmp(f->region.base, KVS_REGION_MARKER, 8) == 0,
	   "closed, and the region is still there");
}

static sigjmp_buf fault;

static void on_fault(int number)
{
	(void)number;
	siglongjmp(fault, 1);
}

// True if reading (or writing) the byte faults.
static bool faults(volatile unsigned char *at, bool write)
{
	struct sigaction action = { .sa_handler = on_fault }, segv, bus;
	sigaction(SIGSEGV, &action, &segv);
	sigaction(SIGBUS, &action, &bus);
	bool result = true;
	if (sigsetjmp(fault, 1) == 0) {
		if (write) {
			*at = 0;
		} else {
			(void)*at;
		}
		result = false;
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	return result;
}

static void test_only_published(struct fixture *f)
{
	struct kvs_map map;
	fixture_map_reader(f, &map);
	const struct kvs_range_bounds *log = &map.ranges[KVS_RANGE_LOG];
	uint64_t ready = kvs_load_relaxed(&map.ready[KVS_RANGE_LOG]);
	ok_u64(ready, SEGMENT, "one segment of the log is published at first");
	ok(!faults(map.base + log->offset + ready - 1, false), "published bytes can be read");
	ok(faults(map.base + log->offset + ready, false), "the byte behind them cannot");
	ok(faults(map.base, true), "H: the map cannot be written");
	ok(mprotect(map.base, KVS_PAGE_BYTES, PROT_READ | PROT_WRITE) != 0,
	   "H: and not be made writable");
	ok(ftruncate(f->region.fd_readonly, 0) != 0 &&
		   fallocate(f->region.fd_readonly, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			     KVS_PAGE_BYTES) != 0 &&
		   pwrite(f->region.fd_readonly, "x", 1, 0) < 0,
	   "H: the clients' descriptor allows no truncating, punching or writing");
	ok(mmap(NULL, KVS_PAGE_BYTES, PROT_WRITE, MAP_SHARED, f->region.fd_readonly, 0) ==
		   MAP_FAILED,
	   "H: and no writable map");
	ok((uintptr_t)map.base % KVS_HUGE_PAGE_BYTES == 0, "the map is congruent with huge pages");

	kvs_region_populate(&f->region, log->offset + ready, SEGMENT);
	kvs_region_publish(&f->region, KVS_RANGE_LOG, ready + SEGMENT);
	ok(faults(map.base + log->offset + ready, false),
	   "new segments stay closed until extended");
	ok_int(kvs_map_extend(&map), 0, "extend");
	ok(!faults(map.base + log->offset + ready, false), "then they can be read");
	kvs_region_publish(&f->region, KVS_RANGE_LOG, SEGMENT);
	ok_u64(f->region.header->ready[KVS_RANGE_LOG], ready + SEGMENT,
	       "published bounds only rise");
	kvs_map_close(&map);
}

int main(void)
{
	uint64_t random = tap_seed(6);
	struct fixture f;
	fixture_open(&f, MEMORY, SEGMENT);
	test_damaged_headers(&f);
	test_other_files(&f);
	test_refused(&f);
	test_in_place(&f);
	test_only_published(&f);
	test_random_headers(&f, &random);
	fixture_close(&f);
	return tap_done();
}
