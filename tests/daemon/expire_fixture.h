// SPDX-License-Identifier: MIT
//
// For tests of active expiry: a keyspace whose clocks and memory are the test's, and a look at
// whether its index knows every key that has a time.
#pragma once

#include "daemon/expire.h"
#include "tests/daemon/keyspace_fixture.h"
#include "tests/daemon/refuse_mapped.h"

#define KEYS 400u
#define TURNS_MAX 200000u
#define MS_NS UINT64_C(1000000)
#define CLOCK_NS (1000 * MS_NS)
#define SLOT_MS (UINT64_C(1) << WHEEL_SLOT_SHIFT)
#define YEAR_MS (UINT64_C(365) * 86400000)
#define ITEMS_SPARE 16384u

static uint64_t now_ns = 1000 * MS_NS;

// Each look is 50 us later: a slice is a few looks.
static uint64_t looks_ns;

// Something that happens while the clock is looked at, NULL = nothing does.
static void (*meanwhile)(void);

static uint64_t monotonic_ns(void)
{
	if (meanwhile != NULL) {
		meanwhile();
	}
	return now_ns + (looks_ns += 50000);
}

static uint64_t wall_ms(void)
{
	return fixture_wall_ms;
}

static const struct seam expire_seam = { .monotonic_ns = monotonic_ns,
					 .wall_ms = wall_ms,
					 .random_bytes = fixture_random };

static void open_fixture(struct fixture *f, bool persisted, uint64_t seed)
{
	fixture_open(f, persisted, seed);
	f->keyspace->seam = &expire_seam;
}

static uint64_t counted(const struct fixture *f, enum kvs_counter counter)
{
	return *kvs_counter_word(f->region.base, counter);
}

static bool set_one(struct fixture *f, unsigned key, uint64_t expiry_ms)
{
	char name[16];
	int n = snprintf(name, sizeof(name), "%u", key);
	keyspace_tick(f->keyspace);
	for (unsigned tries = 0; tries < 100; tries++) {
		int result =
			keyspace_set(f->keyspace, name, (size_t)n, "value", 5, expiry_ms, NULL);
		if (result != KEYSPACE_WAIT && result != KEYSPACE_FULL) {
			return result == KEYSPACE_OK;
		}
		fixture_durable(f);
	}
	return false;
}

static bool delete_one(struct fixture *f, unsigned key)
{
	char name[16];
	int n = snprintf(name, sizeof(name), "%u", key);
	return keyspace_delete(f->keyspace, name, (size_t)n) == KEYSPACE_OK;
}

static void pass(uint64_t ns)
{
	static uint64_t rest_ns;
	now_ns += ns;
	looks_ns = 0;
	rest_ns += ns;
	fixture_wall_ms += rest_ns / MS_NS;
	rest_ns %= MS_NS;
}

// Turns at the times they ask for, until none is wanted for a while. How many there were.
static uint32_t turns(struct fixture *f)
{
	for (uint32_t count = 1; count < TURNS_MAX; count++) {
		uint64_t due_ns = expire_turn(f->keyspace, now_ns);
		if (due_ns >= now_ns + 20 * MS_NS) {
			return count;
		}
		pass(due_ns > now_ns ? due_ns - now_ns : 100000);
	}
	ok(false, "turns come to an end");
	return TURNS_MAX;
}

// ---- what the index holds, and what it should ----

struct audit {
	const struct keyspace *keyspace;
	unsigned char *seen; // by place, how many items agree with the record there
	uint64_t places, items, missing;
};

static void audit_list(struct audit *audit, const struct wheel_list *list)
{
	const struct wheel_pool *pool = &audit->keyspace->expire.wheel.pool;
	for (uint32_t number = list->first; number != 0;) {
		const struct wheel_chunk *chunk = wheel_pool_chunk(pool, number);
		for (uint32_t i = 0; i < chunk->count; i++) {
			uint64_t place = wheel_item_place(chunk->items[i]);
			audit->seen[place % audit->places] |=
				(unsigned char)(1u << (chunk->items[i] % 7));
		}
		audit->items += chunk->count;
		number = chunk->next;
	}
}

static void audit_visit(void *context, uint64_t entry)
{
	struct audit *audit = context;
	struct kvs_hit hit;
	if (kvs_table_load(&audit->keyspace->region->map, entry, &hit) != KVS_FIND_HIT ||
	    hit.kind == KVS_ENTRY_TOMBSTONE || hit.view.expiry_ms == 0) {
		return;
	}
	uint64_t place = kvs_entry_offset(entry) / 8;
	uint64_t item = place << WHEEL_TIME_BITS | (hit.view.expiry_ms & WHEEL_TIME_MASK);
	audit->missing += (audit->seen[place % audit->places] & 1u << (item % 7)) == 0;
}

// Does every key with an expiry have an item?
static bool is_whole(struct fixture *f)
{
	const struct wheel *wheel = &f->keyspace->expire.wheel;
	struct audit audit = { .keyspace = f->keyspace, .places = f->region.bytes / 8 };
	audit.seen = calloc(1, audit.places);
	if (audit.seen == NULL || f->keyspace->expire.partial) {
		free(audit.seen);
		return false;
	}
	for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
		for (unsigned digit = 0; digit < WHEEL_SLOTS; digit++) {
			audit_list(&audit, &wheel->slots[level][digit]);
		}
	}
	for (unsigned work = 0; work < WHEEL_WORKS; work++) {
		audit_list(&audit, &wheel->works[work]);
	}
	audit_list(&audit, &wheel->far);
	audit_list(&audit, &wheel->early);
	uint64_t cursor = 0;
	do {
		cursor = kvs_table_scan(&f->region.map, cursor, audit_visit, &audit);
	} while (cursor != 0);
	free(audit.seen);
	return audit.missing == 0 && audit.items == wheel->items;
}
