// SPDX-License-Identifier: MIT
//
// For tests of the persister's thread: a life in which it commits when it is asked, and writes that
// wait until there is room for them.
#pragma once

#include "tests/daemon/persist_fixture.h"

#define HOUR_MS 3600000u

static struct life_options options_of(const char *dir, enum persist_policy policy)
{
	return (struct life_options){
		.dir = dir,
		.memory_bytes = 32u << 20,
		.segment_bytes = 256u << 10,
		.policy = policy,
		.lazy_ms = HOUR_MS,
		.lazy_bytes = UINT64_MAX,
		.ratio_percent = 200,
		.floor_bytes = 1u << 20,
		.threaded = true,
	};
}

static size_t make_key(char key[32], unsigned number)
{
	return (size_t)snprintf(key, 32, "k%u", number);
}

static uint64_t set(struct life *life, unsigned number, uint64_t stamp, size_t bytes)
{
	static unsigned char value[4 << 20];
	char key[32];
	size_t key_bytes = make_key(key, number);
	uint64_t seq = 0;
	fixture_fill(value, bytes, number, stamp);
	for (unsigned tries = 0; tries < 1000; tries++) {
		keyspace_tick(life->keyspace);
		int result = keyspace_set(life->keyspace, key, key_bytes, value, bytes, 0, &seq);
		if (result == KEYSPACE_OK) {
			return seq;
		}
		// No room until more is durable and cleaned.
		uint64_t last = keyspace_last_seq(life->keyspace);
		persist_request(life->persist, last);
		(void)life_wait(life, last);
		cleaner_turn(life->keyspace, seam_system.monotonic_ns());
	}
	printf("Bail out! no room for a value\n");
	exit(1);
}
