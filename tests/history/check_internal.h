// SPDX-License-Identifier: MIT
//
// What the parts of the checker share: the writes by what they wrote, and the lives of kvd, which
// crashes without the region part from each other.
#pragma once

#include "tests/history/check.h"

#define CHECK_CRASHES_MAX 32u

/// A write by (key, value), of keys that are no counters: each value is written once.
struct check_write {
	uint64_t value;
	uint64_t version; // 0 = nobody was told
	uint64_t commit;  // highest of its batch: from then on it was visible
	uint64_t begin_ns, end_ns;
	uint32_t life;
	uint32_t client;
	uint16_t key;
	bool acknowledged;
};

struct check_crash {
	uint64_t begin_ns, end_ns;
	struct {
		uint64_t value, version;
		bool told;
	} key[HISTORY_KEYS]; // what was there afterwards
};

struct check {
	const struct history_event *events; // by their beginning
	size_t count;
	enum history_policy policy;
	struct history_verdict *verdict;
	struct check_write *writes;	// by key and value
	struct check_write *by_version; // those whose version is known, by key, life and commit
	size_t writes_count, by_version_count;
	struct check_crash crash[CHECK_CRASHES_MAX];
	unsigned crashes;
	bool deleted[HISTORY_KEYS]; // somebody tried to
	// What a client wrote before is not what its next sync vouches for.
	uint64_t disclaimed_ns[HISTORY_CLIENTS_MAX];
};

static inline bool check_is_counter(uint16_t key)
{
	return key >= HISTORY_COUNTER_FIRST && key < HISTORY_FAMILY_FIRST;
}

static inline bool check_is_read(const struct history_event *e)
{
	return e->kind == HISTORY_READ || e->kind == HISTORY_SNAPSHOT;
}

/// The life in which something began.
static inline uint32_t check_life(const struct check *c, uint64_t begin_ns)
{
	uint32_t life = 0;
	while (life < c->crashes && c->crash[life].end_ns <= begin_ns) {
		life++;
	}
	return life;
}

/// Does it lie, in part, between a crash and what follows?
static inline bool check_in_crash(const struct check *c, const struct history_event *e)
{
	uint32_t life = check_life(c, e->begin_ns);
	return life < c->crashes && e->end_ns > c->crash[life].begin_ns;
}

/// The write of this value to this key, or NULL.
struct check_write *check_find(const struct check *c, uint16_t key, uint64_t value);

/// The first write of the key in this life that came after `commit`, or NULL.
const struct check_write *check_next(const struct check *c, uint16_t key, uint32_t life,
				     uint64_t commit);

/// Version of what was read or written, told or known from others; 0 = unknown.
uint64_t check_version(const struct check *c, const struct history_event *e);

bool check_keys(struct check *c);
bool check_snapshots(struct check *c);
bool check_crashes(struct check *c);
bool check_version_order(struct check *c);
