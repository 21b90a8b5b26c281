// SPDX-License-Identifier: MIT
//
// What the single-stepped child of step_adoption.c does, and what it tells its parent of it: a
// keyspace of small segments, and scripts of writes whose outcome both know.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"
#include "tests/shm/step.h"

#define SCRIPT_MEMORY (3u << 20)
#define SCRIPT_SEGMENT KVS_SEGMENT_BYTES_MIN
#define SCRIPT_KEYS STEP_KEYS

/// What is counted by name; the others by number (step_adoption.c prints them).
enum script_count {
	SCRIPT_MOVES = 12,
	SCRIPT_RETURNS,
	SCRIPT_PLACES,
	SCRIPT_RESEEDS,
	SCRIPT_PREFAULTS,
	SCRIPT_COUNTS,
};

/// What child and parent share: the child acts, and says here what it has promised. A key's value
/// begins with its number, 0 = absent.
struct script {
	int region_fd;
	struct step_watch region;
	uint64_t random;
	bool mutant; // publish an entry before its record is written
	bool stepping;
	char keys[SCRIPT_KEYS][16];
	uint32_t sure[SCRIPT_KEYS];
	uint32_t maybe[SCRIPT_KEYS]; // once what is under way is applied
	bool pending;
	uint32_t next;
	unsigned counts[SCRIPT_COUNTS];
};

struct world {
	struct kvs_region region;
	struct kvs_epoch_domain epochs;
	struct keyspace *keyspace;
};

/// Which value a stub stands for: this is what its place says here.
static inline uint32_t script_stub_number(const struct kvs_hit *hit)
{
	return (uint32_t)kvs_place_block(kvs_load_relaxed(&hit->view.record->place));
}

/// Time passes with every look.
uint64_t script_monotonic_ns(void);
struct keyspace_options script_options(struct world *w);
/// Everything becomes durable, and the cleaner works.
void script_durable(struct world *w);
/// The child: one script, stepped from mark to mark where `stepping` is set at the first.
void script_run(void *context);
void script_bail(const char *what) __attribute__((noreturn));
