// SPDX-License-Identifier: MIT
//
// What the writer does to the table and the log in step_reader.c, a whole change at a time, while a
// reader is stopped somewhere in its search.
#pragma once

#include "tests/lib/revoke.h"
#include "tests/shm/step_search.h"

#define OLD_KEY 11u // the fixture's
#define NEW_KEY 4711u

struct scene {
	struct fixture f;
	struct search *search;
	pid_t child;
	char keys[STEP_KEYS][16];
	unsigned target; // index of the key searched for: 0 moves when its bucket is split, 1 stays
	bool gap;	 // the chain has room for one more
	uint64_t acknowledged; // newest version of the key searched for
	uint64_t floor;	       // the one acknowledged when the search began
	bool was_absent;
	bool finished;	       // this search
	int cut;	       // enum kvs_table_step at which the search is run to its end, or -1
	struct step_path path; // of an undisturbed search
	uint64_t strayed;      // searches that took another
	uint64_t random;
	uint64_t runs;
	uint64_t steps;
	uint64_t missed;
	uint64_t stale;
	uint64_t garbage;
	uint64_t revoked;
	bool rebuilt; // the table has another hash key than at first
	uint64_t rebuilds;
	uint64_t given; // segments, back to the system
};

static void set(struct scene *s, unsigned i)
{
	uint64_t seq = fixture_set(&s->f, s->keys[i], strlen(s->keys[i]), "value", 5);
	if (i == s->target) {
		s->acknowledged = seq;
	}
}

static void remove_key(struct scene *s, unsigned i)
{
	(void)fixture_remove(&s->f, s->keys[i], strlen(s->keys[i]));
	if (i == s->target) {
		s->acknowledged = 0;
		s->was_absent = true;
	}
}

static void revoke_reader(struct scene *s)
{
	(void)kvs_epoch_scan(&s->f.epochs, ++s->f.now_ns);
	s->f.now_ns += 1000;
	s->revoked += revoke_all(&s->f.epochs, s->f.epochs.epoch, s->f.now_ns, 10, 10);
}

// Empties and refills the overflow buckets of the chain, all but the key searched for.
static void churn_chain(struct scene *s)
{
	for (unsigned i = 2; i < STEP_KEYS; i++) {
		remove_key(s, i);
	}
	(void)fixture_reclaim(&s->f);
	for (unsigned i = STEP_KEYS; i-- > 2;) {
		set(s, i);
	}
}

// All that is free has no pages any more; what a reader may look at has.
static void give_back(struct scene *s)
{
	step_clean(&s->f);
	s->given += kvs_log_give_back(&s->f.log, s->f.log.touched_count);
}

// Another hash key for the table, up to where half of it is copied, or up to its end.
static void rebuild(struct scene *s, uint64_t key, bool whole)
{
	const uint64_t hash_key[2] = { key, 0 };
	struct kvs_table *table = &s->f.table;
	for (unsigned i = 0; i < 4 && !table->other_side_ready; i++) {
		(void)fixture_reclaim(&s->f);
	}
	if (!table->reseed.active && !kvs_table_reseed_begin(table, hash_key)) {
		return; // the reader is on the other side
	}
	while (whole ? kvs_table_reseed_step(table, 64) == 0
		     : table->reseed.copied < table->buckets / 2 &&
			       kvs_table_reseed_step(table, 64) == 0) {
	}
	if (whole && table->reseed.active) {
		kvs_table_reseed_publish(table);
		s->rebuilt = key != OLD_KEY;
		s->rebuilds += s->rebuilt;
	}
}

enum change {
	CHANGE_SPLIT,
	CHANGE_MERGE,
	CHANGE_REPLACE,
	CHANGE_CHURN,
	CHANGE_REMOVE_AND_SET,
	CHANGE_FLUSH,
	CHANGE_CLEAN,
	CHANGE_REVOKE_AND_CLEAN,
	CHANGE_GIVE_BACK,
	CHANGE_HALF_REBUILD,
	CHANGE_REBUILD,
	CHANGES_COUNT,
};

static void change(struct scene *s, enum change what)
{
	switch (what) {
	case CHANGE_SPLIT:
		(void)step_force_split(&s->f.table);
		break;
	case CHANGE_MERGE:
		(void)step_force_merge(&s->f.table);
		break;
	case CHANGE_REPLACE:
		set(s, s->target);
		break;
	case CHANGE_CHURN:
		churn_chain(s);
		break;
	case CHANGE_REMOVE_AND_SET:
		remove_key(s, s->target);
		set(s, s->target);
		break;
	case CHANGE_FLUSH:
		if (kvs_table_switch_side(&s->f.table, NULL, NULL)) {
			s->was_absent = true;
			for (unsigned i = 0; i < STEP_KEYS; i++) {
				set(s, i);
			}
		}
		break;
	case CHANGE_CLEAN:
		step_clean(&s->f);
		break;
	case CHANGE_REVOKE_AND_CLEAN:
		step_roll(&s->f);
		step_clean(&s->f);
		revoke_reader(s);
		step_clean(&s->f);
		break;
	case CHANGE_GIVE_BACK:
		give_back(s);
		break;
	case CHANGE_HALF_REBUILD:
	case CHANGE_REBUILD:
		rebuild(s, NEW_KEY, what == CHANGE_REBUILD);
		break;
	case CHANGES_COUNT:
		break;
	}
}
