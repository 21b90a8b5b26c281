// SPDX-License-Identifier: MIT
//
// A keyspace in a small region of its own, with a clock that the test moves and a persister that is
// one call: for tests of what the writer does between the socket and the store.
#pragma once

#include "daemon/cleaner.h"
#include "daemon/keyspace_create.h"
#include "daemon/keyspace_internal.h"
#include "tests/tap/tap.h"

#define FIXTURE_MEMORY_BYTES (8u << 20)
#define FIXTURE_SEGMENT_BYTES (64u << 10)
#ifndef FIXTURE_VALUE_BYTES_MAX
#define FIXTURE_VALUE_BYTES_MAX (1u << 20)
#endif

struct fixture {
	struct kvs_region region;
	struct kvs_epoch_domain epochs;
	struct keyspace *keyspace;
	bool persisted;
};

// Wall clock of every fixture, in ms since 1970.
static uint64_t fixture_wall_ms = 1800000000000;

static uint64_t fixture_wall(void)
{
	return fixture_wall_ms;
}

static uint64_t fixture_now_ns;

// A turn's time: each is two milliseconds later, so scans are always due.
static uint64_t fixture_monotonic_ns(void)
{
	return fixture_now_ns += 2000000;
}

// The clock that work is measured by: a few microseconds from one look to the next.
static uint64_t fixture_look_step_ns = 2000;

static uint64_t fixture_look_ns(void)
{
	return fixture_now_ns += fixture_look_step_ns;
}

static void fixture_random(void *out, size_t bytes)
{
	static unsigned char next;
	unsigned char *at = out;
	for (size_t i = 0; i < bytes; i++) {
		at[i] = (unsigned char)(next += 47);
	}
}

// Everything before recovery, which fixture_serve() ends.
static inline void fixture_begin(struct fixture *f, bool persisted, uint64_t seed,
				 uint64_t memory_bytes, bool block_on_stuck)
{
	static const struct seam seam = { .monotonic_ns = fixture_look_ns,
					  .wall_ms = fixture_wall,
					  .random_bytes = fixture_random };
	struct kvs_region_options options = { .memory_bytes = memory_bytes,
					      .memory_bytes_max = memory_bytes,
					      .segment_bytes = FIXTURE_SEGMENT_BYTES,
					      .instance_id = 1,
					      .hash_key = { seed },
					      .fenced = true };
	memset(f, 0, sizeof(*f));
	ok_int(kvs_region_create(&f->region, &options), KVS_REGION_OK, "region");
	kvs_epoch_init(&f->epochs, &f->region.header->hot, true);
	struct keyspace_options keyspace = { .seam = &seam,
					     .region = &f->region,
					     .epochs = &f->epochs,
					     .persisted = persisted,
					     .block_on_stuck = block_on_stuck,
					     .revoke_ms = 5000,
					     .revoke_min_ms = 50,
					     .value_bytes_max = FIXTURE_VALUE_BYTES_MAX };
	f->keyspace = keyspace_create(&keyspace);
	ok(f->keyspace != NULL, "keyspace");
	f->persisted = persisted;
}

static inline void fixture_serve(struct fixture *f, uint64_t last_seq)
{
	(void)keyspace_recover_finish(f->keyspace, last_seq, last_seq > 0);
	kvs_region_go_alive(&f->region);
}

static inline void fixture_open_sized(struct fixture *f, bool persisted, uint64_t seed,
				      uint64_t memory_bytes, bool block_on_stuck)
{
	fixture_begin(f, persisted, seed, memory_bytes, block_on_stuck);
	fixture_serve(f, 0);
}

static inline void fixture_open(struct fixture *f, bool persisted, uint64_t seed)
{
	fixture_open_sized(f, persisted, seed, FIXTURE_MEMORY_BYTES, false);
}

static inline void fixture_close(struct fixture *f)
{
	keyspace_destroy(f->keyspace);
	kvs_epoch_fini(&f->epochs);
	kvs_region_close(&f->region);
}

// The persister's part: everything applied becomes durable. Then the writer has one turn.
static inline void fixture_durable(struct fixture *f)
{
	if (f->persisted) {
		kvs_store_release(&f->region.header->marks.durable_seq,
				  keyspace_last_seq(f->keyspace));
	}
	cleaner_turn(f->keyspace, fixture_monotonic_ns());
}
