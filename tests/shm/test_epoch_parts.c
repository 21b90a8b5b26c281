// SPDX-License-Identifier: MIT
//
// Passes over very many reader pages, in parts: what may happen between two of them lets nothing go
// too early, and nobody is overlooked.
#include "shm/epoch.h"
#include "shm/epoch_scan.h"
#include "tests/tap/tap.h"

#define MANY 100u
#define PART 32u
#define THINGS 64u

static _Alignas(KVS_PAGE_BYTES) struct kvs_reader_page many_pages[MANY];

static uint64_t now_ns = 1000;

struct many {
	struct kvs_hot hot;
	struct kvs_epoch_domain domain;
	struct kvs_epoch_page *entry[MANY]; // NULL = its process is dead
	uint64_t section[MANY];		    // open on the page, 0 = none
	uint64_t sections;
};

static void many_open(struct many *many)
{
	memset(many, 0, sizeof(*many));
	many->hot.epoch_word = UINT64_C(5) << KVS_EPOCH_SHIFT | 1;
	many->hot.oldest_valid = 1;
	kvs_epoch_init(&many->domain, &many->hot, true);
	for (unsigned i = 0; i < MANY; i++) {
		many->entry[i] = kvs_epoch_add(&many->domain, &many_pages[i], many);
	}
}

static void many_enter(struct many *many, unsigned i)
{
	(void)kvs_epoch_enter(&many_pages[i].slot[i % KVS_READERS_PER_PAGE], &many->hot, true);
	many->section[i] = ++many->sections;
}

static bool many_leave(struct many *many, unsigned i)
{
	many->section[i] = 0;
	return kvs_epoch_leave(&many_pages[i].slot[i % KVS_READERS_PER_PAGE], &many->hot);
}

// So many pages are looked at in a call, and only the end of a pass lets anything go.
static void test_parts(void)
{
	static struct many many;
	struct kvs_epoch_domain *all = &many.domain;
	many_open(&many);
	many_enter(&many, 99);
	many_enter(&many, 0);
	uint64_t stamp = kvs_epoch_stamp(all);
	unsigned calls = 1;
	unsigned wrong = 0;
	for (size_t before = 0; !kvs_epoch_pass(all, ++now_ns, PART, NULL); calls++) {
		wrong += all->pass_at - before > PART || kvs_epoch_passed(all, stamp);
		before = all->pass_at;
	}
	ok(wrong == 0 && calls == 4, "D: %u pages are looked at, 32 a call", MANY);
	ok(!kvs_epoch_passed(all, stamp), "B: what is read on the last one is held back");
	ok(many_leave(&many, 99) && !kvs_epoch_pass(all, now_ns, PART, NULL), "a pass begins");
	ok(many_leave(&many, 0), "a reader leaves behind the look at its page");
	while (!kvs_epoch_pass(all, now_ns, PART, NULL)) {
	}
	ok(!kvs_epoch_passed(all, stamp), "B: the pass that saw it inside lets nothing go");
	many_enter(&many, 99);
	stamp = kvs_epoch_stamp(all);
	(void)kvs_epoch_pass(all, now_ns, 1, NULL);
	kvs_epoch_remove(all, many.entry[0]);
	while (!kvs_epoch_pass(all, now_ns, PART, NULL)) {
	}
	ok(!kvs_epoch_passed(all, stamp), "B: a page that moves while others are looked at counts");
	(void)kvs_epoch_pass(all, now_ns, 1, NULL);
	stamp = kvs_epoch_stamp(all);
	while (!kvs_epoch_pass(all, now_ns, PART, NULL)) {
	}
	ok(!kvs_epoch_passed(all, stamp),
	   "B: what is unlinked in the midst of a pass does not pass with it");
	const struct kvs_epoch_deadlines deadlines = { .stamp = stamp, .deadline_ns = 10 };
	now_ns += 1000;
	(void)kvs_epoch_pass(all, now_ns, 40, NULL); // and only then somebody wants it
	unsigned revoked_at = 0;
	for (calls = 1; !kvs_epoch_pass(all, now_ns, PART, calls == 1 ? &deadlines : NULL);
	     calls++) {
		revoked_at = all->revocations > 0 && revoked_at == 0 ? calls : revoked_at;
		wrong += kvs_epoch_passed(all, stamp);
	}
	ok(revoked_at > 0 && all->revocations == 1 && wrong == 0 && kvs_epoch_passed(all, stamp),
	   "D: who wants memory asks once, and all pages are gone through (%u calls)", calls);
	ok(!many_leave(&many, 99), "B: who is revoked is told");
	kvs_epoch_fini(all);
}

// What anybody does at any time while passes are under way: nothing passes that a section holds
// which was open when it was unlinked.
static void test_parts_at_random(uint64_t *random)
{
	static struct many many;
	static uint64_t held[THINGS][MANY];
	uint64_t stamps[THINGS] = { 0 };
	struct kvs_epoch_domain *all = &many.domain;
	unsigned early = 0, passed = 0;
	many_open(&many);
	for (unsigned round = 0; round < tap_rounds(60000, 6000); round++) {
		unsigned i = (unsigned)(tap_random(random) % MANY);
		unsigned what = (unsigned)(tap_random(random) % 16);
		if (what == 0 && many.entry[i] != NULL && many.section[i] == 0) {
			many_enter(&many, i);
		} else if (what < 6 && many.section[i] != 0) {
			(void)many_leave(&many, i);
		} else if (what < 8 && many.entry[i] != NULL) { // its process dies
			kvs_epoch_remove(all, many.entry[i]);
			many.entry[i] = NULL;
			many.section[i] = 0;
		} else if (what < 12 && many.entry[i] == NULL) {
			many.entry[i] = kvs_epoch_add(all, &many_pages[i], &many);
		} else if (what < 14) {
			(void)kvs_epoch_pass(all, ++now_ns, tap_random(random) % 60, NULL);
		} else {
			unsigned thing = i % THINGS;
			bool over = stamps[thing] != 0 && kvs_epoch_passed(all, stamps[thing]);
			for (unsigned j = 0; j < MANY && over; j++) {
				early += held[thing][j] != 0 && held[thing][j] == many.section[j];
			}
			passed += over;
			if (over || stamps[thing] == 0) {
				memcpy(held[thing], many.section, sizeof(held[thing]));
				stamps[thing] = kvs_epoch_stamp(all);
			}
		}
	}
	ok_u64(early, 0, "B: nothing is given back that is read");
	ok(passed > 10, "D: and %u things were", passed);
	kvs_epoch_fini(all);
}

int main(void)
{
	uint64_t random = tap_seed(19);
	test_parts();
	test_parts_at_random(&random);
	return tap_done();
}
