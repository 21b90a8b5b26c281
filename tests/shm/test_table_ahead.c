// SPDX-License-Identifier: MIT
//
// shm/table_ahead.c: what a helper populates for the table is counted from the moment it is given
// out, published only when its pages are there, and nobody's if they are not; what a table that
// shrank has behind it goes back when no reader can be there, and not what it grew into meanwhile.
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "shm/extents.h"
#include "shm/table_internal.h"
#include "tests/shm/fixture.h"
#include "tests/tap/tap.h"

#define MEMORY (64u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define KEYS 100000u
#define CHUNK_BUCKETS (SEGMENT / sizeof(struct kvs_bucket))

struct world {
	struct fixture f;
	struct kvs_map map; // a reader's
	uint64_t random;
	uint64_t shadow[KEYS]; // seq, 0 = absent
};

static bool no_memory; // the machine has none
static unsigned tries; // to get some

int __real_madvise(void *address, size_t bytes, int advice);
int __wrap_madvise(void *address, size_t bytes, int advice);
int __wrap_madvise(void *address, size_t bytes, int advice)
{
	tries++;
	if (no_memory) {
		errno = ENOMEM;
		return -1;
	}
	return __real_madvise(address, bytes, advice);
}

static void set(struct world *w, unsigned i)
{
	char key[16];
	(void)snprintf(key, sizeof(key), "key:%u", i);
	w->shadow[i] = fixture_set(&w->f, key, strlen(key), "value", 5);
}

static void drop(struct world *w, unsigned i)
{
	char key[16];
	(void)snprintf(key, sizeof(key), "key:%u", i);
	(void)fixture_remove(&w->f, key, strlen(key));
	w->shadow[i] = 0;
}

// Of every `every`-th key, from the reader's side.
static unsigned count_wrong(struct world *w, unsigned every)
{
	unsigned wrong = 0;
	(void)kvs_map_extend(&w->map);
	for (unsigned i = (unsigned)(tap_random(&w->random) % every); i < KEYS; i += every) {
		char key[16];
		struct kvs_hit hit;
		(void)snprintf(key, sizeof(key), "key:%u", i);
		enum kvs_find_result result = fixture_find(&w->map, key, strlen(key), &hit);
		wrong += w->shadow[i] == 0 ? result != KVS_FIND_ABSENT
					   : result != KVS_FIND_HIT || hit.view.seq != w->shadow[i];
	}
	return wrong;
}

static void open_world(struct world *w)
{
	no_memory = false;
	fixture_open(&w->f, MEMORY, SEGMENT);
	fixture_map_reader(&w->f, &w->map);
	w->f.region.poison = true;
	w->f.step_after_write = true;
	memset(w->shadow, 0, sizeof(w->shadow));
}

static void close_world(struct world *w)
{
	kvs_map_close(&w->map);
	fixture_close(&w->f);
}

static uint64_t pages_of(struct world *w, unsigned range)
{
	struct kvs_extents walk;
	const struct kvs_range_bounds *bounds = &w->f.region.map.ranges[range];
	kvs_extents_begin(&walk, &w->f.region);
	return kvs_extents_populated(&walk, bounds->offset, bounds->bytes_max);
}

// Are bytes counted and bounds published as there are pages?
static bool adds_up(struct world *w)
{
	const struct kvs_table *table = &w->f.table;
	uint64_t sum = table->ahead.active ? table->ahead.piece.bytes : 0;
	bool good = true;
	for (unsigned range = 0; range < KVS_TABLE_RANGES; range++) {
		sum += table->populated[range];
		good = good &&
		       (table->ahead.active || pages_of(w, range) == table->populated[range]);
	}
	return good && sum == w->f.region.table_bytes;
}

// What the helper does.
static bool populate(struct world *w, const struct kvs_table_piece *piece)
{
	return kvs_region_populate(&w->f.region, piece->offset, piece->bytes) == 0;
}

static void test_awaited(struct world *w)
{
	struct kvs_table *table = &w->f.table;
	struct kvs_table_piece piece;
	const unsigned range = KVS_RANGE_OVERFLOW_0;
	open_world(w);
	ok(!kvs_table_ahead_next(table, 0, &piece), "without a helper nothing is wanted of one");
	table->ahead.helped = true;
	tries = 0;
	ok_int(kvs_table_secure(table, 1), -EAGAIN, "who needs memory is told to wait for it");
	ok(tries == 0 && adds_up(w), "D: and none is taken here");
	ok(kvs_table_ahead_next(table, 0, &piece) && piece.range == range && piece.awaited &&
		   piece.bytes == SEGMENT,
	   "the helper is told which");
	kvs_table_ahead_begin(table, &piece);
	ok(adds_up(w) && !kvs_table_ahead_next(table, 0, &piece),
	   "G: it counts as taken, and nothing else is asked for meanwhile");
	ok(populate(w, &piece) && kvs_load_relaxed(&w->f.region.header->ready[range]) == 0 &&
		   kvs_table_secure(table, 1) == -EAGAIN,
	   "H: until it is back nobody may look there");
	kvs_table_ahead_end(table, true);
	ok(adds_up(w) && kvs_load_relaxed(&w->f.region.header->ready[range]) == SEGMENT &&
		   kvs_table_secure(table, 1) == 0,
	   "then it is published, and there");
	tries = 0;
	ok(kvs_table_secure(table, 3 * CHUNK_BUCKETS) == -EAGAIN &&
		   kvs_table_ahead_next(table, 0, &piece) && piece.bytes == 2 * SEGMENT &&
		   tries == 0,
	   "who needs more gets it at once");
	close_world(w);
}

static void test_refused(struct world *w)
{
	struct kvs_table *table = &w->f.table;
	struct kvs_table_piece piece;
	open_world(w);
	table->ahead.helped = true;
	ok(kvs_table_secure(table, 1) == -EAGAIN && kvs_table_ahead_next(table, 0, &piece),
	   "wanted");
	kvs_table_ahead_begin(table, &piece);
	no_memory = true;
	ok(!populate(w, &piece), "the machine has no memory");
	kvs_table_ahead_end(table, false);
	ok(adds_up(w) && kvs_load_relaxed(&w->f.region.header->ready[piece.range]) == 0,
	   "H: nothing is published or counted");
	ok(!kvs_table_ahead_next(table, 0, &piece), "and the helper is left alone");
	ok_int(kvs_table_secure(table, 1), -ENOMEM, "who needs it meets the error himself");
	ok_int(kvs_table_secure(table, 1), -EAGAIN, "and waits again at the next try");
	no_memory = false;
	ok(kvs_table_ahead_next(table, 0, &piece), "when there is memory");
	kvs_table_ahead_begin(table, &piece);
	ok(populate(w, &piece), "the helper gets it");
	kvs_table_ahead_end(table, true);
	ok(kvs_table_secure(table, 1) == 0 && adds_up(w), "and nobody waits");
	close_world(w);
}

// Somebody cannot wait, or the range is given back, while the helper is at it.
static void test_overtaken(struct world *w)
{
	struct kvs_table *table = &w->f.table;
	struct kvs_table_piece piece;
	open_world(w);
	table->ahead.helped = true;
	ok(kvs_table_secure(table, 1) == -EAGAIN && kvs_table_ahead_next(table, 0, &piece),
	   "wanted");
	kvs_table_ahead_begin(table, &piece);
	ok(kvs_table_populate(table, piece.range, 2 * SEGMENT) == 0 && populate(w, &piece),
	   "somebody populates more meanwhile");
	kvs_table_ahead_end(table, true);
	ok(adds_up(w) && table->populated[piece.range] == UINT64_C(2) * SEGMENT,
	   "G: it is counted once");
	const unsigned other = KVS_RANGE_TABLE_0 + 1;
	ok(kvs_table_await(table, other, 2 * SEGMENT) == -EAGAIN, "the other side is wanted");
	ok(kvs_table_populate(table, other, 1) == 0 && kvs_table_ahead_next(table, 0, &piece) &&
		   piece.range == other && piece.bytes == SEGMENT,
	   "a half of it is left to the helper");
	kvs_table_ahead_begin(table, &piece);
	ok(populate(w, &piece), "which is at it");
	kvs_table_free_side(table, 1);
	kvs_table_ahead_end(table, true);
	ok(adds_up(w) && table->populated[other] == 0 && pages_of(w, other) == 0,
	   "G: but the side was given back: so is this");
	close_world(w);
}

// With a helper that is slow, on a table that grows all the time.
static void test_growth(struct world *w)
{
	struct kvs_table *table = &w->f.table;
	unsigned pieces = 0, here = 0, wrong = 0;
	open_world(w);
	(void)kvs_table_secure(table, 1);
	table->ahead.helped = true;
	for (unsigned i = 0; i < KEYS; i++) {
		struct kvs_table_piece piece;
		set(w, i);
		if (w->shadow[i] == 0) { // the fixture does not wait
			table->ahead.refused[KVS_RANGE_OVERFLOW_0] = true;
			set(w, i);
		}
		if (i % 128 != 0 || !kvs_table_ahead_next(table, 0, &piece)) {
			continue;
		}
		kvs_table_ahead_begin(table, &piece);
		wrong += !populate(w, &piece) || !adds_up(w);
		kvs_table_ahead_end(table, true);
		here += kvs_table_growth_bytes(table) > 0;
		pieces++;
	}
	ok(pieces > 20, "%u pieces were populated ahead", pieces);
	ok_u64(here, 0, "none of them too late");
	ok_u64(wrong, 0, "G: and all was counted");
	ok_u64(count_wrong(w, 7), 0, "A: every key is found");
	close_world(w);
}

static void shrink_to(struct world *w, unsigned from, unsigned to)
{
	for (unsigned i = to; i < from; i++) {
		drop(w, i);
	}
	while (kvs_table_step(&w->f.table)) {
	}
}

static void test_shrink(struct world *w)
{
	struct kvs_table *table = &w->f.table;
	const unsigned range = KVS_RANGE_TABLE_0;
	struct kvs_slot *slot = &w->f.page->slot[0];
	open_world(w);
	for (unsigned i = 0; i < KEYS; i++) {
		set(w, i);
	}
	uint64_t grown = table->populated[range];
	ok(grown > 20 * SEGMENT && table->tail_from == KVS_TABLE_TAIL_NONE, "the table is large");
	(void)kvs_epoch_enter(slot, &w->f.region.header->hot, w->f.epochs.fenced);
	shrink_to(w, KEYS, KEYS / 4);
	while (fixture_reclaim(&w->f) > 0) {
	}
	ok(table->populated[range] == grown && table->tail_from < grown,
	   "B: it is smaller, and waits for a reader before it gives anything back");
	uint64_t former = table->tail_from;
	ok_u64(count_wrong(w, 3), 0, "A: every key is found");
	for (unsigned i = KEYS / 4; i < KEYS; i++) {
		set(w, i); // over what waits
	}
	uint64_t needed = table->buckets * sizeof(struct kvs_bucket);
	ok(needed > former && table->tail_from >= needed, "it grows into what waits");
	(void)kvs_epoch_leave(slot, &w->f.region.header->hot);
	while (fixture_reclaim(&w->f) > 0) {
	}
	ok(table->populated[range] == grown && adds_up(w), "then that does not go back");
	ok_u64(count_wrong(w, 3), 0, "A: and no key with it");
	shrink_to(w, KEYS, 0);
	while (fixture_reclaim(&w->f) > 0) {
	}
	ok(table->buckets == table->buckets_min && adds_up(w) &&
		   table->populated[range] <= UINT64_C(3) * SEGMENT,
	   "G: an empty table has little");
	for (unsigned i = 0; i < KEYS; i++) {
		set(w, i);
	}
	ok(count_wrong(w, 1) == 0 && adds_up(w), "A: and grows again");
	close_world(w);
}

// A side that is flushed, or left for another hash key, while its tail waits.
static void test_tail_of_former_side(struct world *w)
{
	struct kvs_table *table = &w->f.table;
	open_world(w);
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < KEYS / 2; i++) {
			set(w, i);
		}
		shrink_to(w, KEYS / 2, 500);
		ok(table->tail_from != KVS_TABLE_TAIL_NONE, "round %u: a tail waits", round);
		ok(kvs_table_switch_side(table, NULL, NULL), "and the side is left");
		memset(w->shadow, 0, sizeof(w->shadow));
		for (unsigned i = 0; i < KEYS / 4; i++) {
			set(w, i);
		}
		while (fixture_reclaim(&w->f) > 0) {
		}
		ok(table->tail_from == KVS_TABLE_TAIL_NONE && table->other_side_ready && adds_up(w),
		   "G: all of it goes back");
		ok_u64(count_wrong(w, 5), 0, "A: nothing of the other");
	}
	close_world(w);
}

// The tide comes and goes, with a reader that looks in all the time.
static void test_tides(struct world *w)
{
	unsigned wrong = 0, rounds = tap_rounds(12, 2);
	struct kvs_slot *slot = &w->f.page->slot[0];
	open_world(w);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned until = (unsigned)(tap_random(&w->random) % KEYS);
		bool inside = round % 3 != 0;
		if (inside) {
			(void)kvs_epoch_enter(slot, &w->f.region.header->hot, w->f.epochs.fenced);
		}
		for (unsigned i = 0; i < KEYS; i++) {
			if (i < until && w->shadow[i] == 0) {
				set(w, i);
			} else if (i >= until && w->shadow[i] != 0) {
				drop(w, i);
			}
			if (i % 8192 == 0) {
				(void)fixture_reclaim(&w->f);
			}
		}
		wrong += count_wrong(w, 17);
		if (inside) {
			(void)kvs_epoch_leave(slot, &w->f.region.header->hot);
		}
		(void)fixture_reclaim(&w->f);
		wrong += !adds_up(w);
		for (uint32_t i = 0; i < w->f.log.touched_count; i++) {
			if (kvs_log_cleanable(&w->f.log, i, UINT64_MAX)) {
				(void)fixture_clean(&w->f, i);
			}
		}
	}
	ok_u64(wrong, 0, "A, G: %u tides", rounds);
	close_world(w);
}

// With large segments the ranges take memory in chunks of their own size, and give it back so.
static void test_chunks(struct world *w)
{
	struct kvs_table *table = &w->f.table;
	const unsigned keys = 150000; // more buckets than a huge page has
	unsigned missed = 0, wrong = 0, parts = 0;
	fixture_open(&w->f, MEMORY, KVS_HUGE_PAGE_BYTES);
	w->f.step_after_write = true;
	for (unsigned i = 0; i < keys; i++) {
		missed += fixture_set(&w->f, &i, sizeof(i), "", 0) == 0;
	}
	uint64_t primary = table->populated[KVS_RANGE_TABLE_0];
	uint64_t overflow = table->populated[KVS_RANGE_OVERFLOW_0];
	uint64_t used = table->overflow[0].fresh * sizeof(struct kvs_bucket);
	ok(missed == 0 && primary == 2 * KVS_HUGE_PAGE_BYTES, "two huge pages of buckets");
	ok(overflow >= used && overflow - used < KVS_TABLE_OVERFLOW_CHUNK_BYTES,
	   "and no more overflow buckets than are needed");
	struct fixture_successor after;
	fixture_adopt(&after, &w->f);
	ok(after.f.table.populated[KVS_RANGE_TABLE_0] == primary &&
		   after.f.table.populated[KVS_RANGE_OVERFLOW_0] == overflow,
	   "whoever takes it over counts the same");
	fixture_adopt_close(&after);
	ok(kvs_table_switch_side(table, NULL, NULL), "the side is left");
	bool over = false;
	for (; !over && parts < 100; parts++) {
		over = kvs_table_free_side_part(table, 0, 1);
		wrong += table->populated[KVS_RANGE_TABLE_0] % KVS_HUGE_PAGE_BYTES != 0 ||
			 table->populated[KVS_RANGE_OVERFLOW_0] % KVS_TABLE_OVERFLOW_CHUNK_BYTES !=
				 0;
	}
	ok(over && parts > 1 && wrong == 0 && table->populated[KVS_RANGE_TABLE_0] == 0 &&
		   table->populated[KVS_RANGE_OVERFLOW_0] == 0,
	   "G: it goes back in %u parts, by whole chunks", parts);
	fixture_close(&w->f);
}

// Whoever takes the region over while the helper has a piece finds its pages, and no word of them.
static void test_adopted(struct world *w)
{
	struct fixture *f = &w->f;
	struct kvs_table_piece piece;
	open_world(w);
	for (unsigned i = 0; i < KEYS / 4; i++) {
		set(w, i);
	}
	const unsigned range = KVS_RANGE_TABLE_0;
	uint64_t before = f->table.populated[range];
	f->table.ahead.helped = true;
	ok(kvs_table_await(&f->table, range, before + SEGMENT) == -EAGAIN &&
		   kvs_table_ahead_next(&f->table, 0, &piece) && populate(w, &piece),
	   "a piece is populated");
	struct fixture_successor after;
	fixture_adopt(&after, f);
	ok_u64(after.f.table.populated[range], before + SEGMENT,
	       "G: what has pages is the table's");
	ok_u64(kvs_load_relaxed(&after.f.region.header->ready[range]), before + SEGMENT,
	       "A: and readers may look there when it grows");
	ok_u64(count_wrong(w, 3), 0, "A: they read on");
	fixture_adopt_close(&after);
	close_world(w);
}

// Whoever takes over a table that has shrunk gives back what waited behind it.
static void test_adopted_tail(struct world *w)
{
	struct fixture_successor after;
	const unsigned range = KVS_RANGE_TABLE_0;
	open_world(w);
	for (unsigned i = 0; i < KEYS; i++) {
		set(w, i);
	}
	shrink_to(w, KEYS, KEYS / 16);
	uint64_t grown = w->f.table.populated[range];
	fixture_adopt(&after, &w->f);
	ok(after.f.table.populated[range] == grown, "B: a table that has shrunk is taken over");
	while (fixture_adopt_reclaim(&after) > 0) {
	}
	uint64_t needed = after.f.table.buckets * sizeof(struct kvs_bucket);
	ok(after.f.table.populated[range] <= needed + 2 * SEGMENT && needed < grown / 4,
	   "G: what it has behind its last bucket goes back");
	ok_u64(count_wrong(w, 3), 0, "A: and no key with it");
	fixture_adopt_close(&after);
	close_world(w);
}

int main(void)
{
	static struct world w;
	w.random = tap_seed(20261122);
	test_awaited(&w);
	test_refused(&w);
	test_overtaken(&w);
	test_growth(&w);
	test_shrink(&w);
	test_tail_of_former_side(&w);
	test_tides(&w);
	const char *emulated = getenv("KVD_TEST_EMULATED");
	if (emulated == NULL || strcmp(emulated, "valgrind") == 0) {
		test_chunks(&w);
		test_adopted(&w);
		test_adopted_tail(&w);
	}
	return tap_done();
}
