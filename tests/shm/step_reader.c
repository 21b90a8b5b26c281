// SPDX-License-Identifier: MIT
//
// The other half of step_growth.c: here the reader is stepped. A child enters a section, looks up
// one key, checks its value and leaves, and between any two of its instructions this process, the
// writer, makes a whole change of the table: every change at every instruction of the search, then
// sequences of changes at random ones, splits and merges cut in two at their labelled steps among
// them.
//
//   A  a key that is there throughout is found, with a value not older than when the search began.
//   B  bytes seen in a section that ends well are those that were written for the key.
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/shm/step_changes.h"
#include "tests/tap/tap.h"

#define MEMORY (4u << 20)
#define SEGMENT KVS_SEGMENT_BYTES_MIN
#define RANDOM_RUNS_DEFAULT 300u

static void begin_search(struct scene *s)
{
	s->floor = s->acknowledged;
	s->was_absent = s->acknowledged == 0;
	s->search->running = true;
	s->finished = false;
	s->runs++;
}

// Lets the child make up to `count` steps. False once its search is over.
static bool advance(struct scene *s, uint64_t count)
{
	while (count-- > 0 && s->search->running) {
		if (step_one(s->child) != STEP_STOPPED) {
			printf("Bail out! the reader crashed\n");
			exit(99);
		}
		s->steps++;
	}
	return s->search->running;
}

static void finish_search(struct scene *s)
{
	if (s->finished) {
		return;
	}
	s->finished = true;
	if (step_continue(s->child) != STEP_STOPPED) {
		printf("Bail out! the reader crashed\n");
		exit(99);
	}
	const struct search *found = s->search;
	if (!found->good) {
		return; // revoked: whatever it saw is discarded
	}
	if (found->result == KVS_FIND_HIT) {
		s->garbage += !found->right;
		s->stale += found->seq < s->floor;
	} else if (found->result == KVS_FIND_ABSENT) {
		s->missed += !s->was_absent;
	} else {
		s->garbage++;
	}
}

// Brings the table to a known shape: smallest size, or one bucket more, keys in the chain, the one
// searched for among the first or the last.
static void arrange(struct scene *s, unsigned target, bool grown, bool last)
{
	kvs_table_reseed_abandon(&s->f.table);
	if (s->rebuilt) {
		rebuild(s, OLD_KEY, true); // under it the keys share a bucket
	}
	s->target = target;
	memcpy(s->search->key, s->keys[target], sizeof(s->keys[target]));
	s->search->key_bytes = strlen(s->search->key);
	s->search->hash = kvs_map_hash(&s->f.region.map, s->search->key, s->search->key_bytes);
	while (s->f.table.buckets > s->f.table.buckets_min && step_force_merge(&s->f.table)) {
	}
	for (unsigned i = 0; i < STEP_KEYS; i++) {
		remove_key(s, i);
	}
	step_clean(&s->f);
	(void)fixture_reclaim(&s->f);
	for (unsigned n = 0; n < STEP_KEYS; n++) {
		set(s, last ? STEP_KEYS - 1 - n : n);
	}
	if (s->gap) {
		remove_key(s, STEP_KEYS - 1);
	}
	if (grown) {
		(void)step_force_split(&s->f.table);
	}
	// As after a long time of growing: the next split is then no change of direction.
	s->f.table.growing = true;
	(void)kvs_quick_aim(&s->search->map, &s->search->aim);
}

static bool is_running(void *context)
{
	return ((struct scene *)context)->search->running;
}

// The way of a search that nothing disturbs.
static void note_path(struct scene *s)
{
	begin_search(s);
	if (step_follow(s->child, &s->path, is_running, s) != STEP_STOPPED) {
		printf("Bail out! the reader crashed\n");
		exit(99);
	}
	s->steps += s->path.steps;
	finish_search(s);
}

// A search begins and is stopped after so many instructions; false if it is over before that.
static bool begin_until(struct scene *s, unsigned target, bool grown, bool last, uint64_t position)
{
	bool there = false;
	arrange(s, target, grown, last);
	begin_search(s);
	if (position <= s->path.steps) {
		if (step_to(s->child, &s->path, (unsigned)position, &there) != STEP_STOPPED) {
			printf("Bail out! the reader crashed\n");
			exit(99);
		}
		s->steps += there;
		s->strayed += !there;
	}
	if (there) {
		return s->search->running;
	}
	finish_search(s); // it took another way, or a longer one
	arrange(s, target, grown, last);
	begin_search(s);
	return advance(s, position);
}

// One sequence of changes, all made at once, at every instruction of the search in turn.
static void everywhere(struct scene *s, unsigned target, bool grown, bool last,
		       const enum change *what, unsigned count, const char *name)
{
	uint64_t missed = s->missed, stale = s->stale, garbage = s->garbage, position = 0;
	bool inside = true;
	arrange(s, target, grown, last);
	note_path(s);
	for (; inside; position++) {
		inside = begin_until(s, target, grown, last, position);
		for (unsigned i = 0; i < count; i++) {
			change(s, what[i]);
		}
		finish_search(s);
	}
	ok(missed == s->missed && stale == s->stale && garbage == s->garbage,
	   "A: %s at each of %" PRIu64 " instructions, key %s%s", name, position,
	   last ? "last in its chain" : "first in its chain",
	   s->search->quick ? ", the quick way" : "");
}

// In the middle of a split or merge the search goes on to its end.
static void on_cut(void *context, enum kvs_table_step step)
{
	struct scene *s = context;
	if ((int)step == s->cut && s->search->running) {
		finish_search(s);
	}
}

// The writer stops half-way at each labelled step in turn, and the reader does not.
static void test_cut(struct scene *s)
{
	static const struct {
		const char *name;
		enum kvs_table_step step;
		unsigned target;
		bool grown;
		bool last;
		enum change what;
	} cases[] = {
		{ "split, filled", KVS_TABLE_SPLIT_FILLED, 0, false, true, CHANGE_SPLIT },
		{ "split, published", KVS_TABLE_SPLIT_PUBLISHED, 0, false, true, CHANGE_SPLIT },
		{ "compaction, filled", KVS_TABLE_COMPACT_FILLED, 1, false, true, CHANGE_SPLIT },
		{ "compaction, published", KVS_TABLE_COMPACT_PUBLISHED, 1, false, true,
		  CHANGE_SPLIT },
		{ "merge, filled", KVS_TABLE_MERGE_FILLED, 0, true, false, CHANGE_MERGE },
		{ "merge, published", KVS_TABLE_MERGE_PUBLISHED, 0, true, false, CHANGE_MERGE },
	};
	s->f.table.step_hook = on_cut;
	s->f.table.step_context = s;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		s->cut = (int)cases[i].step;
		everywhere(s, cases[i].target, cases[i].grown, cases[i].last, &cases[i].what, 1,
			   cases[i].name);
	}
	s->f.table.step_hook = NULL;
}

static void test_everywhere(struct scene *s)
{
	enum { MOVES, STAYS };
	static const struct {
		const char *name;
		unsigned target;
		bool grown;
		bool last;
		unsigned count;
		enum change what[3];
	} cases[] = {
		{ "a split", MOVES, false, true, 1, { CHANGE_SPLIT } },
		{ "a split that compacts the chain", STAYS, false, true, 1, { CHANGE_SPLIT } },
		{ "a merge", MOVES, true, false, 1, { CHANGE_MERGE } },
		{ "split, merge", MOVES, false, false, 2, { CHANGE_SPLIT, CHANGE_MERGE } },
		{ "merge, split", MOVES, true, false, 2, { CHANGE_MERGE, CHANGE_SPLIT } },
		{ "split, merge, split",
		  STAYS,
		  false,
		  true,
		  3,
		  { CHANGE_SPLIT, CHANGE_MERGE, CHANGE_SPLIT } },
		{ "a replacement", MOVES, false, false, 1, { CHANGE_REPLACE } },
		{ "split, set, merge",
		  MOVES,
		  false,
		  false,
		  3,
		  { CHANGE_SPLIT, CHANGE_REPLACE, CHANGE_MERGE } },
		{ "overflow buckets coming and going", MOVES, false, true, 1, { CHANGE_CHURN } },
		{ "a flush", MOVES, false, false, 1, { CHANGE_FLUSH } },
		{ "two flushes",
		  MOVES,
		  false,
		  false,
		  3,
		  { CHANGE_FLUSH, CHANGE_CLEAN, CHANGE_FLUSH } },
		{ "the cleaner", MOVES, false, true, 1, { CHANGE_CLEAN } },
		{ "revocation and reuse", MOVES, false, false, 1, { CHANGE_REVOKE_AND_CLEAN } },
		{ "memory given back",
		  MOVES,
		  false,
		  true,
		  3,
		  { CHANGE_GIVE_BACK, CHANGE_REPLACE, CHANGE_GIVE_BACK } },
		{ "another hash key", STAYS, false, true, 1, { CHANGE_REBUILD } },
		{ "another hash key, the key first", MOVES, false, false, 1, { CHANGE_REBUILD } },
		{ "half of a rebuild, a replacement, and its end",
		  MOVES,
		  false,
		  false,
		  3,
		  { CHANGE_HALF_REBUILD, CHANGE_REPLACE, CHANGE_REBUILD } },
	};
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		everywhere(s, cases[i].target, cases[i].grown, cases[i].last, cases[i].what,
			   cases[i].count, cases[i].name);
		if (!cases[i].last) { // only the first bucket is looked into in the quick way
			s->search->quick = true;
			everywhere(s, cases[i].target, cases[i].grown, false, cases[i].what,
				   cases[i].count, cases[i].name);
			s->search->quick = false;
		}
	}
}

// In the middle of a split or merge the reader goes on for a while.
static void on_step(void *context, enum kvs_table_step step)
{
	struct scene *s = context;
	(void)step;
	if (s->search->running) {
		(void)advance(s, tap_random(&s->random) % 60);
	}
}

static void test_random(struct scene *s, unsigned runs)
{
	uint64_t missed = s->missed, stale = s->stale, garbage = s->garbage;
	s->f.table.step_hook = on_step;
	s->f.table.step_context = s;
	for (unsigned run = 0; run < runs; run++) {
		if (run % 20 == 0) {
			uint64_t dice = tap_random(&s->random);
			arrange(s, dice & 1, dice & 2, dice & 4);
		}
		s->search->quick = run % 2 != 0;
		begin_search(s);
		unsigned changes = 1 + (unsigned)(tap_random(&s->random) % 4);
		for (unsigned i = 0; i < changes; i++) {
			(void)advance(s, tap_random(&s->random) % 200);
			// Mostly growth; the rest is slow.
			unsigned roll_of_dice = (unsigned)(tap_random(&s->random) % 40);
			change(s, roll_of_dice < CHANGES_COUNT ? (enum change)roll_of_dice
							       : (enum change)(roll_of_dice % 3));
		}
		finish_search(s);
	}
	s->f.table.step_hook = NULL;
	s->search->quick = false;
	ok(s->search->quick_hits > 0, "the quick way answered %" PRIu64 " searches",
	   s->search->quick_hits);
	ok_u64(s->missed - missed, 0, "A1: nothing missed in %u random sequences", runs);
	ok_u64(s->stale - stale, 0, "A2: nothing stale");
	ok_u64(s->garbage - garbage, 0, "B1: nothing torn or reused");
}

// The chain's entries change places: what must never happen.
static void test_teeth(struct scene *s)
{
	uint64_t missed = s->missed, position = 0;
	bool inside = true;
	s->gap = true;
	arrange(s, 0, false, true);
	note_path(s);
	for (; inside; position++) {
		inside = begin_until(s, 0, false, true, position);
		struct kvs_hit hit;
		uint64_t hash = kvs_map_hash(&s->f.region.map, s->keys[0], strlen(s->keys[0]));
		if (fixture_find(&s->f.region.map, s->keys[0], strlen(s->keys[0]), &hit) ==
		    KVS_FIND_HIT) {
			(void)kvs_table_insert(&s->f.table, hash, hit.entry);
			kvs_table_remove(&s->f.table, hash, hit.slot);
		}
		finish_search(s);
	}
	ok(s->missed > missed,
	   "an entry moved within its chain is missed at %" PRIu64 " of %" PRIu64,
	   s->missed - missed, position);
}

int main(int argc, char **argv)
{
	const char *why;
	if (!step_supported(&why)) {
		printf("1..0 # SKIP %s\n", why);
		return 0;
	}
	static struct scene s;
	s.random = tap_seed(17);
	unsigned runs = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : RANDOM_RUNS_DEFAULT;
	fixture_open(&s.f, MEMORY, SEGMENT);
	s.search = mmap(NULL, sizeof(*s.search), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (s.search == MAP_FAILED) {
		printf("Bail out! no shared memory\n");
		return 99;
	}
	step_colliding_keys(&s.f.table, s.keys);
	(void)kvs_table_secure(&s.f.table, 8);
	fixture_map_reader(&s.f, &s.search->map);
	kvs_quick_aim_clear(&s.search->aim);
	s.search->slot = &s.f.page->slot[0];
	s.search->fenced = s.f.epochs.fenced;
	arrange(&s, 0, true, false); // everything that will be used is published and mapped
	s.child = step_start(search_run, s.search);
	test_everywhere(&s);
	test_cut(&s);
	test_random(&s, runs);
	test_teeth(&s);
	tap_diag("%" PRIu64 " searches, %" PRIu64 " stops, %" PRIu64
		 " ways that were not foreseen, "
		 "%" PRIu64 " revocations",
		 s.runs, s.steps, s.strayed, s.revoked);
	ok(s.revoked > 0, "revocation happened");
	ok(s.rebuilds > 0 && s.given > 0,
	   "so did another hash key, %" PRIu64 " times, and %" PRIu64 " segments without pages",
	   s.rebuilds, s.given);
	s.search->quit = true;
	ok(step_continue(s.child) == STEP_ENDED, "the reader ends");
	fixture_close(&s.f);
	return tap_done();
}
