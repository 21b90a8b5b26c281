// SPDX-License-Identifier: MIT
//
// The table of links, against a list: every entry is found, colliding ones too, whatever was added
// and taken out before, and emptying it visits each once.
#include <stdlib.h>

#include "daemon/lookup.h"
#include "tests/tap/tap.h"

#define ENTRIES 20000u
#define HASHES 15000u // some entries share one

struct entry {
	struct lookup_link link;
	bool inside;
};

static struct entry entries[ENTRIES];

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

/// Spread over the whole range, so that high bits count, too.
static uint64_t hash_of(size_t i)
{
	return (i % HASHES) * UINT64_C(0x9e3779b97f4a7c15);
}

static bool found(const struct lookup *table, const struct entry *entry)
{
	struct lookup_link *link = lookup_first(table, entry->link.hash);
	while (link && link != &entry->link) {
		link = lookup_more(link);
	}
	return link == &entry->link;
}

static bool all_right(const struct lookup *table)
{
	size_t count = 0;
	for (size_t i = 0; i < ENTRIES; i++) {
		count += entries[i].inside;
		if (entries[i].inside != found(table, &entries[i])) {
			return false;
		}
	}
	return count == table->count;
}

static void test_random(void)
{
	struct lookup table = { 0 };
	uint64_t state = 1;
	bool good = true;
	for (size_t i = 0; i < ENTRIES; i++) {
		entries[i].link.hash = hash_of(i);
	}
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < ENTRIES; i++) {
			size_t at = next_random(&state) % ENTRIES;
			bool add = next_random(&state) % 100 < (round < 10 ? 70 : 30);
			if (add && !entries[at].inside) {
				lookup_add(&table, &entries[at].link, hash_of(at));
			} else if (!add && entries[at].inside) {
				lookup_remove(&table, &entries[at].link);
			} else {
				continue;
			}
			entries[at].inside = add;
		}
		good = good && all_right(&table);
	}
	ok(good, "every entry is found, and no other, through growth and removals");
	struct lookup_link *any = lookup_any(&table, 12345);
	ok(any && ((struct entry *)(void *)any)->inside, "some entry");
	size_t cursor = 0, taken = 0;
	struct lookup_link *link;
	while ((link = lookup_take(&table, &cursor)) != NULL) {
		struct entry *entry = (struct entry *)(void *)link;
		good = good && entry->inside;
		entry->inside = false;
		taken++;
	}
	ok(good && taken > 0 && table.count == 0 && all_right(&table), "emptied, each once: %zu",
	   taken);
	ok(!lookup_any(&table, 1) && !lookup_first(&table, hash_of(1)), "nothing is in it");
	lookup_free(&table);
	ok(table.grown == 0 && !table.chunks, "and it can begin anew");
}

static void test_small(void)
{
	struct lookup table = { 0 };
	struct lookup_link same[3] = { 0 };
	ok(!lookup_first(&table, 0) && !lookup_any(&table, 7), "an empty table needs no memory");
	for (int i = 0; i < 3; i++) {
		lookup_add(&table, &same[i], 9);
	}
	size_t count = 0;
	for (struct lookup_link *at = lookup_first(&table, 9); at; at = lookup_more(at)) {
		count++;
	}
	ok_u64(count, 3, "one hash, three entries");
	lookup_remove(&table, &same[1]);
	ok(lookup_first(&table, 9) && !lookup_first(&table, 8), "one less; none of another hash");
	lookup_free(&table);
}

int main(void)
{
	test_small();
	test_random();
	return tap_done();
}
