// SPDX-License-Identifier: MIT
//
// shm/segments.c: segments are taken, emptied, retired and freed, so that overwriting goes on for
// ever in bounded memory; none is used again before its readers have gone; pages are given back
// when the bound falls.
#include "shm/segments.h"

#include <errno.h>

#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define KEYS 2000u

static uint64_t shadow[KEYS];

static uint32_t emptiest(const struct kvs_log *log)
{
	uint32_t best = KVS_SEGMENT_NONE;
	for (uint32_t i = 0; i < log->touched_count; i++) {
		if (kvs_log_cleanable(log, i, UINT64_MAX) &&
		    (best == KVS_SEGMENT_NONE ||
		     log->segments[i].live_bytes < log->segments[best].live_bytes)) {
			best = i;
		}
	}
	return best;
}

static void set(struct fixture *f, unsigned i, uint32_t value_bytes, unsigned *failed)
{
	char key[16];
	static unsigned char value[1024];
	(void)snprintf(key, sizeof(key), "key:%u", i);
	shadow[i] = fixture_set(f, key, strlen(key), value, value_bytes);
	*failed += shadow[i] == 0;
}

static unsigned wrong_keys(struct fixture *f)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];
		struct kvs_hit hit;
		(void)snprintf(key, sizeof(key), "key:%u", i);
		enum kvs_find_result result = fixture_find(&f->region.map, key, strlen(key), &hit);
		wrong += shadow[i] ? result != KVS_FIND_HIT || hit.view.seq != shadow[i] ||
					     !kvs_record_crc_ok(&hit.view)
				   : result != KVS_FIND_ABSENT;
	}
	return wrong;
}

static void test_overwriting(struct fixture *f, uint64_t *random)
{
	unsigned failed = 0, cleaned = 0, wrong = 0, stuck = 0;
	uint32_t least = UINT32_MAX;
	for (unsigned i = 0; i < 200000; i++) {
		set(f, (unsigned)(tap_random(random) % KEYS), (uint32_t)(tap_random(random) % 300),
		    &failed);
		while (kvs_log_segments_free(&f->log) < 4) {
			uint32_t victim = emptiest(&f->log);
			if (victim == KVS_SEGMENT_NONE || !fixture_clean(f, victim)) {
				stuck++;
				break;
			}
			cleaned++;
			(void)fixture_reclaim(f);
		}
		if (kvs_log_segments_free(&f->log) < least) {
			least = kvs_log_segments_free(&f->log);
		}
		if (i % 20000 == 0) {
			wrong += wrong_keys(f);
		}
	}
	ok_u64(failed + stuck, 0, "G: overwriting goes on for ever in 4 MiB");
	ok_u64(wrong + wrong_keys(f), 0, "A: and every key has its last value");
	ok(cleaned > 100, "the cleaner emptied %u segments", cleaned);
	uint64_t live = 0, records = 0;
	for (uint32_t i = 0; i < f->log.touched_count; i++) {
		live += f->log.segments[i].live_bytes;
	}
	for (unsigned i = 0; i < KEYS; i++) {
		char key[16];
		struct kvs_hit hit;
		(void)snprintf(key, sizeof(key), "key:%u", i);
		if (fixture_find(&f->region.map, key, strlen(key), &hit) == KVS_FIND_HIT) {
			records += hit.view.record_bytes;
		}
	}
	ok_u64(live, records, "live bytes are counted exactly");
}

// A full segment may be emptied when what came behind it is durable, whatever has become since of
// the segment that it came in.
static void test_followed(const struct fixture *f)
{
	unsigned heads = 0, reused = 0, wrong = 0;
	for (uint32_t i = 0; i < f->log.touched_count; i++) {
		const struct kvs_segment *segment = &f->log.segments[i];
		if (segment->state != KVS_SEGMENT_HEAD || i == f->log.head.segment) {
			continue;
		}
		heads++;
		reused += f->log.segments[segment->next].first_seq != segment->last_seq + 1;
		wrong += kvs_log_cleanable(&f->log, i, segment->last_seq) ||
			 !kvs_log_cleanable(&f->log, i, segment->last_seq + 1);
	}
	ok(heads > 0 && reused > 0, "the next one of %u of %u segments is another by now", reused,
	   heads);
	ok_u64(wrong, 0, "they may be emptied when all of them is durable, and something behind");
}

static void test_grace(struct fixture *f)
{
	struct kvs_slot *slot = &f->page->slot[0];
	uint32_t victim = KVS_SEGMENT_NONE;
	struct kvs_hit hit;
	kvs_epoch_enter(slot, &f->region.header->hot, f->epochs.fenced);
	char key[16];
	for (unsigned i = 0; i < KEYS && victim == KVS_SEGMENT_NONE; i++) {
		(void)snprintf(key, sizeof(key), "key:%u", i);
		if (fixture_find(&f->region.map, key, strlen(key), &hit) == KVS_FIND_HIT) {
			uint32_t segment = kvs_log_segment_of(&f->log, kvs_entry_offset(hit.entry));
			victim = kvs_log_cleanable(&f->log, segment, UINT64_MAX) ? segment : victim;
		}
	}
	ok(victim != KVS_SEGMENT_NONE && fixture_clean(f, victim),
	   "clean a segment that a reader looks at");
	ok_u64(f->region.directory[victim].state, KVS_SEGMENT_RETIRED, "it is retired");
	unsigned failed = 0;
	for (unsigned i = 0; i < 20000; i++) {
		set(f, i % KEYS, 200, &failed);
		(void)fixture_reclaim(f);
		uint32_t other = emptiest(&f->log);
		if (kvs_log_segments_free(&f->log) < 4 && other != KVS_SEGMENT_NONE) {
			(void)fixture_clean(f, other);
		}
		if (kvs_log_segments_free(&f->log) == 0) {
			break;
		}
	}
	ok(kvs_record_crc_ok(&hit.view) && f->log.segments[victim].state == KVS_SEGMENT_RETIRED,
	   "B1: the bytes behind the reader's view have not changed");
	ok(kvs_epoch_leave(slot, &f->region.header->hot), "B: its section was good");
	(void)fixture_reclaim(f);
	ok_u64(f->log.segments[victim].state, KVS_SEGMENT_FREE, "then the segment is free");
	ok_u64(f->log.retired_count, 0, "and none is retired any more");
}

static void test_bound(struct fixture *f)
{
	uint32_t allowed = kvs_log_segments_allowed(&f->log);
	uint32_t prepared = f->log.prepared_count;
	f->region.memory_bytes -= 10 * SEGMENT;
	ok_u64(kvs_log_segments_allowed(&f->log), allowed - 10,
	       "a lower bound allows fewer segments");
	for (unsigned i = 0; i < 60; i++) {
		uint32_t victim = emptiest(&f->log);
		if (victim != KVS_SEGMENT_NONE && kvs_log_segments_free(&f->log) < 10) {
			(void)fixture_clean(f, victim);
			(void)fixture_reclaim(f);
		}
	}
	uint32_t given = kvs_log_trim(&f->log, UINT32_MAX);
	ok(given > 0 && f->log.prepared_count == prepared - given,
	   "G: trimming gives back %u segments", given);
	ok(f->log.prepared_count <= kvs_log_segments_allowed(&f->log), "G: to within the bound");
	ok_u64(wrong_keys(f), 0, "A: and no key is lost");
}

static void test_prepare(void)
{
	struct fixture f;
	fixture_open(&f, MEMORY, SEGMENT);
	uint32_t count = f.log.free_list_count;
	uint32_t index = kvs_log_prepare_begin(&f.log, 4);
	ok(index != KVS_SEGMENT_NONE && f.log.free_list_count == count - 1,
	   "a segment goes to the helper");
	kvs_log_prepare_end(&f.log, index, true);
	ok(f.log.free_list_count == count && f.log.segments[index].prepared,
	   "and comes back with pages");
	unsigned rounds = 0;
	while ((index = kvs_log_prepare_begin(&f.log, 4)) != KVS_SEGMENT_NONE && rounds < 100) {
		kvs_log_prepare_end(&f.log, index, true);
		rounds++;
	}
	ok_u64(rounds, 3, "four ahead, no more");
	uint32_t populated = f.log.prepared_count;
	f.log.helped_most = 6;
	ok(kvs_segments_prepare(&f.log, 4) == 0 && kvs_segments_prepare(&f.log, 6) == -EAGAIN &&
		   f.log.prepared_count == populated,
	   "D: where the helper is waited for the writer populates none itself");
	ok_int(kvs_segments_prepare(&f.log, 7), 0, "unless it wants too many for that");
	f.log.helped_most = 0;
	ok_int(kvs_segments_prepare(&f.log, 9), 0, "several at once");
	ok(kvs_segments_prepare(&f.log, 100000) != 0, "but not more than there are");
	ok(kvs_segments_take(&f.log, KVS_SEGMENT_HEAD) < 8, "indexes are used from the start");
	fixture_close(&f);
}

int main(void)
{
	uint64_t random = tap_seed(14);
	struct fixture f;
	fixture_open(&f, MEMORY, SEGMENT);
	f.step_after_write = true;
	test_overwriting(&f, &random);
	test_followed(&f);
	test_grace(&f);
	test_bound(&f);
	fixture_close(&f);
	test_prepare();
	return tap_done();
}
