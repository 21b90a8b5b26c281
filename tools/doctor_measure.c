// SPDX-License-Identifier: MIT
//
// What huge pages bring, where the answer is: two files as the region's is, one of small and one of
// huge pages, read at places of which each follows from what was read before. So reads do not
// overlap, and each pays for its page being unknown to the processor besides for its line. Short
// turns, one on either file, in the processor time of this thread: what else runs takes from both.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "daemon/memory_limit.h"
#include "shm/limits.h"
#include "shm/newer_linux.h"
#include "tools/doctor.h"
#include "tools/kvctl.h"

#define MEASURE_BYTES (UINT64_C(64) << 20) // of either file: small pages of it exceed any TLB
#define MEASURE_BYTES_MIN (UINT64_C(16) << 20)
#define MEASURE_SPARE 4 // times as much memory has to be left as is taken
// Of this thread's processor time; of the clock on the wall MEASURE_BUSY times as much at most.
#define MEASURE_FILL_SECONDS 0.12 // for either file; what there is then is measured
#define MEASURE_READ_SECONDS 0.15 // for all turns
#define MEASURE_BUSY 4
#define MEASURE_TURNS 31u    // of either file
#define MEASURE_READS 16384u // of one turn
#define MEASURE_LINE_BYTES 64u

struct measure_clock {
	double cpu_until, wall_until;
};

struct measure_file {
	unsigned char *base; // NULL = none
	uint64_t bytes;	     // that have pages, a power of two
	uint64_t at;	     // where the next read follows from
};

static double measure_cpu(void)
{
	struct timespec now;
	return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0
		       ? (double)now.tv_sec + (double)now.tv_nsec / 1e9
		       : 0;
}

static struct measure_clock measure_clock(double seconds)
{
	return (struct measure_clock){ measure_cpu() + seconds,
				       kvctl_seconds() + MEASURE_BUSY * seconds };
}

static bool measure_is_over(const struct measure_clock *clock)
{
	return measure_cpu() >= clock->cpu_until || kvctl_seconds() >= clock->wall_until;
}

// A file of MEASURE_BYTES at an address of huge pages. What is reserved beside it stays so.
static bool measure_map(struct measure_file *file, unsigned flags)
{
	uint64_t room = MEASURE_BYTES + KVS_HUGE_PAGE_BYTES;
	int fd = memfd_create("kvctl-doctor", MFD_CLOEXEC | flags);
	*file = (struct measure_file){ .at = 1 };
	if (fd < 0 || ftruncate(fd, (off_t)MEASURE_BYTES) != 0) {
		if (fd >= 0) {
			(void)close(fd);
		}
		return false;
	}
	unsigned char *place =
		mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (place != MAP_FAILED) {
		place += -(uintptr_t)place & (KVS_HUGE_PAGE_BYTES - 1);
		// Without MAP_NORESERVE: of a pool that has too few this fails, where a read would
		// be a SIGBUS.
		void *base = mmap(place, MEASURE_BYTES, PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_FIXED, fd, 0);
		file->base = base == MAP_FAILED ? NULL : base;
	}
	(void)close(fd);
	return file->base != NULL;
}

static void measure_unmap(struct measure_file *file)
{
	if (file->base) {
		(void)munmap(file->base, MEASURE_BYTES);
		file->base = NULL;
	}
}

static bool measure_populate(unsigned char *at, uint64_t bytes)
{
	if (madvise(at, bytes, MADV_POPULATE_WRITE) == 0) {
		return true;
	}
	if (errno == EINVAL) { // an older kernel: memory is there, which was looked at
		memset(at, 0, bytes);
		return true;
	}
	return false;
}

// Pages from the front on, as far as there are some and time is left; `joined`: huge ones of small
// ones, as kvd makes them.
static void measure_fill(struct measure_file *file, bool joined)
{
	struct measure_clock clock = measure_clock(MEASURE_FILL_SECONDS);
	uint64_t filled = 0;
	bool good = true;
	while (good && filled < MEASURE_BYTES && !measure_is_over(&clock)) {
		unsigned char *at = file->base + filled;
		if (joined) {
			good = measure_populate(at, KVS_PAGE_BYTES) &&
			       madvise(at, KVS_HUGE_PAGE_BYTES, MADV_COLLAPSE) == 0;
		}
		good = good && measure_populate(at, KVS_HUGE_PAGE_BYTES);
		filled += good ? KVS_HUGE_PAGE_BYTES : 0;
	}
	file->bytes = MEASURE_BYTES;
	while (file->bytes > filled) {
		file->bytes /= 2;
	}
}

// Nanoseconds a read. All that is read is zero, which the processor cannot know: where it reads
// next waits for it.
static double measure_turn(struct measure_file *file, uint64_t bytes)
{
	const unsigned char *base = file->base;
	uint64_t mask = (bytes - 1) & ~(uint64_t)(MEASURE_LINE_BYTES - 1);
	uint64_t at = file->at;
	double from = measure_cpu();
	for (unsigned i = 0; i < MEASURE_READS; i++) {
		uint64_t word;
		memcpy(&word, base + (at >> 24 & mask), sizeof word);
		at = at * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407) + word;
	}
	file->at = at;
	return (measure_cpu() - from) * 1e9 / MEASURE_READS;
}

static int measure_order(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;
	return (left > right) - (left < right);
}

static double measure_median(double *numbers, unsigned count)
{
	qsort(numbers, count, sizeof *numbers, measure_order);
	return count > 0 ? numbers[count / 2] : 0;
}

static void measure_read(struct measure_file *small, struct measure_file *huge,
			 struct doctor_measure *measure)
{
	double small_ns[MEASURE_TURNS], huge_ns[MEASURE_TURNS], ratio[MEASURE_TURNS];
	struct measure_clock clock = measure_clock(MEASURE_READ_SECONDS);
	uint64_t bytes = small->bytes;
	unsigned count = 0;
	bytes = huge->base && huge->bytes < bytes ? huge->bytes : bytes;
	(void)measure_turn(small, bytes); // what is looked at first is looked up first
	while (count < MEASURE_TURNS && (count == 0 || !measure_is_over(&clock))) {
		small_ns[count] = measure_turn(small, bytes);
		huge_ns[count] = huge->base ? measure_turn(huge, bytes) : 0;
		ratio[count] = huge_ns[count] > 0 ? small_ns[count] / huge_ns[count] : 0;
		count++;
	}
	measure->bytes = (int64_t)bytes;
	measure->small_ns = measure_median(small_ns, count);
	measure->huge_ns = measure_median(huge_ns, count);
	measure->ratio = measure_median(ratio, count);
	measure->done = measure->small_ns > 0;
}

static void measure_not(struct doctor_measure *measure, const char *why)
{
	(void)snprintf(measure->why, sizeof measure->why, "%s", why);
}

// Huge pages as kvd would get them by default, else those of the pool if it has twice as many: not
// the last ones, which somebody may be about to take.
static enum doctor_huge measure_huge(const struct doctor_machine *machine,
				     struct measure_file *huge)
{
	if (measure_map(huge, 0)) {
		measure_fill(huge, true);
		if (huge->bytes >= MEASURE_BYTES_MIN) {
			return DOCTOR_HUGE_JOINED;
		}
		measure_unmap(huge);
	}
	int64_t pages = (int64_t)(MEASURE_BYTES / KVS_HUGE_PAGE_BYTES);
	if (machine->pool_available >= 2 * pages && measure_map(huge, MFD_HUGETLB | MFD_HUGE_2MB)) {
		measure_fill(huge, false);
		if (huge->bytes >= MEASURE_BYTES_MIN) {
			return DOCTOR_HUGE_POOL;
		}
		measure_unmap(huge);
	}
	return DOCTOR_HUGE_NONE;
}

void doctor_measure_reads(const struct doctor_machine *machine, struct doctor_measure *measure)
{
	struct measure_file small, huge = { 0 };
	struct memory_limit limit = memory_limit_find("");
	uint64_t least = MEASURE_SPARE * 2 * MEASURE_BYTES;
	*measure = (struct doctor_measure){ 0 };
	// In the group of kvd, say, too little would be the end of one of the two.
	if (machine->available_bytes < (int64_t)least || limit.room_bytes < least) {
		measure_not(measure, "too little memory is left for it");
		return;
	}
	if (!measure_map(&small, 0)) {
		measure_not(measure, strerror(errno));
		return;
	}
	(void)madvise(small.base, MEASURE_BYTES, MADV_NOHUGEPAGE); // a kernel without has none
	measure_fill(&small, false);
	if (small.bytes < MEASURE_BYTES_MIN) {
		measure_not(measure, "the machine gives pages too slowly now");
	} else {
		measure->huge = measure_huge(machine, &huge);
		measure_read(&small, &huge, measure);
	}
	measure_unmap(&small);
	measure_unmap(&huge);
}
