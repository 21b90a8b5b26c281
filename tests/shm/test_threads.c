// SPDX-License-Identifier: MIT
//
// Readers and the writer of one region as threads of one process, at full speed: sets, removals,
// growth and shrinkage, the cleaner, reclaiming. ThreadSanitizer follows addresses, so in its
// build the readers use the writer's own map and the fenced enter; elsewhere they map the region
// as clients do.
//
//   A  a key that is there throughout is never missed and never goes back
//   B  what is read in a section is what was written
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define READERS 3u
#define STEADY 500u
#define COMING_AND_GOING 6000u
#define WRITES_DEFAULT 150000u
#define GETS_A_SECTION 16u
#define LONGER 100u	   // times the writes: so long the writer goes on until all have read
#define READS_LEAST 10000u // of each reader
#define TRIES 20000000u	   // to find room while a reader that does not run holds a section open

static struct fixture fixture;
static uint64_t stop;		 // release by the writer, acquire by readers
static uint64_t applied[STEADY]; // version of each key that every later search must see at least

struct reading {
	pthread_t thread;
	unsigned number;
	uint64_t random;
	uint64_t newest[STEADY];
	uint64_t reads; // partner: the loads in all_read()
	uint64_t missed;
	uint64_t backwards;
	uint64_t broken;
	uint64_t ended_badly;
};

static size_t key_of(char key[16], const char *kind, uint64_t number)
{
	return (size_t)snprintf(key, 16, "%s%u", kind, (unsigned)number);
}

// A value says its own version at both ends.
struct value {
	uint64_t version;
	uint64_t filler[6];
	uint64_t version_again;
};

static void read_key(struct reading *r, struct kvs_map *map, uint64_t number)
{
	char key[16];
	struct kvs_hit hit;
	size_t key_bytes = key_of(key, "steady", number);
	uint64_t floor = kvs_load_acquire(&applied[number]);
	enum kvs_find_result result = fixture_find(map, key, key_bytes, &hit);
	for (unsigned tries = 0; result == KVS_FIND_UNMAPPED && tries < 8; tries++) {
		(void)kvs_map_extend(map);
		result = fixture_find(map, key, key_bytes, &hit);
	}
	kvs_count(&r->reads, 1); // partner: the loads in all_read()
	if (result != KVS_FIND_HIT) {
		r->missed++;
		return;
	}
	struct value value;
	if (hit.view.value_bytes != sizeof(value)) {
		r->broken++;
		return;
	}
	memcpy(&value, hit.value, sizeof(value));
	r->broken +=
		value.version != value.version_again || value.filler[3] != value.version + number;
	r->backwards += value.version < floor || value.version < r->newest[number];
	r->newest[number] = value.version;
}

static void *read_on(void *argument)
{
	struct reading *r = argument;
	struct kvs_map map;
	bool fenced = fixture.epochs.fenced;
#ifdef KVS_TSAN
	map = fixture.region.map;
#else
	fixture_map_reader(&fixture, &map);
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) != 0) {
		fenced = true;
	}
#endif
	struct kvs_slot *slot = &fixture.page->slot[r->number];
	const struct kvs_hot *hot = &kvs_map_header(&map)->hot;
	while (kvs_load_acquire(&stop) == 0) {
		kvs_epoch_enter(slot, hot, fenced);
		for (unsigned i = 0; i < GETS_A_SECTION; i++) {
			read_key(r, &map, tap_random(&r->random) % STEADY);
		}
		r->ended_badly += !kvs_epoch_leave(slot, hot);
	}
#ifndef KVS_TSAN
	kvs_map_close(&map);
#endif
	return NULL;
}

static struct reading readings[READERS];

static bool set_steady(uint64_t number, uint64_t version)
{
	char key[16];
	struct value value = { .version = version, .version_again = version };
	value.filler[3] = version + number;
	size_t key_bytes = key_of(key, "steady", number);
	if (fixture_set(&fixture, key, key_bytes, &value, sizeof(value)) == 0) {
		return false;
	}
	kvs_store_release(&applied[number], version); // partner: read_key()
	return true;
}

// Empties segments until a few are free.
static bool make_room(void)
{
	for (unsigned tries = 0; kvs_log_segments_free(&fixture.log) < 6; tries++) {
		struct kvs_log *log = &fixture.log;
		uint32_t victim = KVS_SEGMENT_NONE;
		for (uint32_t i = 0; i < log->touched_count; i++) {
			if (kvs_log_cleanable(log, i, UINT64_MAX) &&
			    (victim == KVS_SEGMENT_NONE ||
			     log->segments[i].live_bytes < log->segments[victim].live_bytes)) {
				victim = i;
			}
		}
		if (log->retired_count < 8 && victim != KVS_SEGMENT_NONE) {
			(void)fixture_clean(&fixture, victim);
		}
		if (fixture_reclaim(&fixture) == 0) {
			(void)sched_yield();
		}
		if (tries > TRIES) {
			return false;
		}
	}
	return true;
}

// However they are scheduled.
static bool all_read(void)
{
	bool all = true;
	for (unsigned i = 0; i < READERS; i++) {
		all = all && kvs_load_relaxed(&readings[i].reads) >= READS_LEAST;
	}
	return all;
}

static unsigned write_all(uint64_t *random, unsigned writes)
{
	unsigned failed = 0, wave = 0;
	for (unsigned i = 0; i < writes || (!all_read() && i / LONGER < writes); i++) {
		char key[16];
		failed += !set_steady(tap_random(random) % STEADY, i + 2);
		size_t key_bytes = key_of(key, "x", wave % COMING_AND_GOING);
		if (wave / COMING_AND_GOING % 2 == 0) {
			failed += fixture_set(&fixture, key, key_bytes, "", 0) == 0;
		} else {
			(void)fixture_remove(&fixture, key, key_bytes);
		}
		wave++;
		if (i % 64 == 0) {
			(void)fixture_reclaim(&fixture);
		}
		failed += !make_room();
	}
	return failed;
}

int main(int argc, char **argv)
{
	uint64_t random = tap_seed(18);
	unsigned writes = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : WRITES_DEFAULT;
#ifdef KVS_SANITIZED
	writes /= 4;
#endif
	if (getenv("KVD_TEST_EMULATED") != NULL) {
		writes /= 8;
	}
	fixture_open(&fixture, MEMORY, SEGMENT);
	fixture.step_after_write = true;
	for (unsigned i = 0; i < STEADY; i++) {
		(void)set_steady(i, 1);
	}
	for (unsigned i = 0; i < READERS; i++) {
		readings[i].number = i;
		readings[i].random = random + i;
		if (pthread_create(&readings[i].thread, NULL, read_on, &readings[i]) != 0) {
			printf("Bail out! no thread\n");
			return 99;
		}
	}
	unsigned failed = write_all(&random, writes);
	kvs_store_release(&stop, 1);
	struct reading sum = { 0 };
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(readings[i].thread, NULL);
		sum.reads += readings[i].reads;
		sum.missed += readings[i].missed;
		sum.backwards += readings[i].backwards;
		sum.broken += readings[i].broken;
		sum.ended_badly += readings[i].ended_badly;
	}
	tap_diag("%" PRIu64 " reads, %u writes, %" PRIu64 " splits, %" PRIu64 " merges, %" PRIu64
		 " scans",
		 sum.reads, 2 * writes, fixture.table.splits, fixture.table.merges,
		 fixture.epochs.scans);
	ok_u64(failed, 0, "G: the writer always found room");
	ok_u64(sum.missed, 0, "A1: no key was missed");
	ok_u64(sum.backwards, 0, "A2: none went back behind an acknowledged version");
	ok_u64(sum.broken, 0, "B: no value was torn or reused");
	ok_u64(sum.ended_badly, 0, "B: no section was refused");
	ok(all_read(), "the readers had their turns");
	ok(fixture.table.splits > 50 && fixture.table.merges > 10, "the table grew and shrank");
	fixture_close(&fixture);
	return tap_done();
}
