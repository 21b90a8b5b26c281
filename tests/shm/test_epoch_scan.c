// SPDX-License-Identifier: MIT
//
// shm/epoch.h and shm/epoch_scan.c step by step on one thread: what a slot holds back, nesting,
// exact revocation, pages that come, go, lie or are detached. Interleavings are the business of
// tests/model.
#include "shm/epoch_scan.h"

#include <stdlib.h>

#include "shm/epoch.h"
#include "tests/lib/membarrier.h"
#include "tests/lib/revoke.h"
#include "tests/tap/tap.h"

static struct kvs_hot hot;
static struct kvs_epoch_domain domain;
static _Alignas(KVS_PAGE_BYTES) struct kvs_reader_page pages[3];
static uint64_t now_ns = 1000;

static bool enter(struct kvs_slot *slot)
{
	return kvs_epoch_enter(slot, &hot, domain.fenced);
}

static bool leave(struct kvs_slot *slot)
{
	return kvs_epoch_leave(slot, &hot);
}

static bool scan(void)
{
	return kvs_epoch_scan(&domain, ++now_ns);
}

static void test_grace(struct kvs_slot *slot)
{
	uint64_t stamp = kvs_epoch_stamp(&domain);
	ok(!kvs_epoch_passed(&domain, stamp), "what was unlinked now has not passed");
	ok(scan() && kvs_epoch_passed(&domain, stamp), "with no reader one scan is enough");
	ok(enter(slot) && kvs_epoch_inside(slot), "enter");
	stamp = kvs_epoch_stamp(&domain);
	ok(scan() && scan() && !kvs_epoch_passed(&domain, stamp),
	   "B: a reader inside holds it back");
	ok(kvs_epoch_page_busy(domain.pages[0]), "its page is busy");
	ok(leave(slot) && !kvs_epoch_inside(slot), "leave: good");
	ok(!kvs_epoch_passed(&domain, stamp) && scan() && kvs_epoch_passed(&domain, stamp),
	   "it passes with the next scan");
	enter(slot);
	ok(scan(), "scan");
	leave(slot);
	enter(slot);
	stamp = kvs_epoch_stamp(&domain) - 1;
	ok(scan() && kvs_epoch_passed(&domain, stamp),
	   "a reader that began later holds nothing older back");
	leave(slot);
}

static unsigned stuck_count;
static uint64_t stuck_age_ns;

static void count_stuck(void *owner, uint64_t age_ns)
{
	stuck_count += owner == domain.pages[0]->owner;
	stuck_age_ns = age_ns;
}

static void test_stuck(struct kvs_slot *slot)
{
	domain.stuck_ns = 100;
	domain.stuck = count_stuck;
	enter(slot);
	now_ns += 1000;
	ok(scan() && stuck_count == 0, "D: a section seen for the first time is not old");
	now_ns += 100;
	ok(scan() && stuck_count == 1 && stuck_age_ns >= 100, "D: one that stays is reported");
	now_ns += 1000;
	ok(scan() && stuck_count == 1, "once");
	leave(slot);
	scan();
	enter(slot);
	scan();
	now_ns += 20;
	ok_u64(revoke_all(&domain, kvs_epoch_stamp(&domain), now_ns, 10, 10), 1, "revoked");
	ok(stuck_count == 2 && stuck_age_ns < 100, "who is revoked is reported before, if younger");
	ok(!leave(slot), "B: and told");
	domain.stuck = NULL;
}

static void test_nesting(struct kvs_slot *slot)
{
	enter(slot);
	uint64_t outer = slot->word >> KVS_EPOCH_SHIFT;
	scan();
	ok(enter(slot) && slot->word >> KVS_EPOCH_SHIFT == outer,
	   "a nested section keeps the outer epoch");
	uint64_t stamp = kvs_epoch_stamp(&domain);
	ok(leave(slot) && kvs_epoch_inside(slot), "leaving it leaves the outer one open");
	ok(scan() && !kvs_epoch_passed(&domain, stamp), "which still holds back");
	ok(leave(slot) && !kvs_epoch_inside(slot), "until it ends");
	enter(slot);
	for (unsigned i = 1; i < KVS_NESTING_MASK; i++) {
		enter(slot);
	}
	uint64_t word = slot->word;
	ok(!enter(slot) && slot->word == word, "65535 sections nest, one more is refused");
	for (unsigned i = 0; i < KVS_NESTING_MASK; i++) {
		leave(slot);
	}
	ok(!kvs_epoch_inside(slot), "and all of them can be left");
}

static void test_revocation(struct kvs_slot *slot, struct kvs_slot *other)
{
	enter(slot);
	uint64_t stamp = kvs_epoch_stamp(&domain);
	scan();
	enter(other);
	scan();
	now_ns += 50;
	ok_u64(revoke_all(&domain, stamp, now_ns, 1000000, 1000000), 0,
	       "nobody is past its deadline");
	ok(kvs_epoch_still_good(slot, &hot), "so its views are good");
	now_ns += 2000000;
	ok_u64(revoke_all(&domain, stamp, now_ns, 1000000, 1000000), 1,
	       "D: past it, the one that holds back is revoked");
	ok(kvs_epoch_passed(&domain, stamp), "D: and holds back no more");
	ok(!kvs_epoch_still_good(slot, &hot), "B: it can see that while inside");
	ok(kvs_epoch_still_good(other, &hot), "B: a younger section is not hit");
	ok(!leave(slot), "B: and is told when it leaves");
	ok(leave(other), "B: the other leaves in peace");
	ok(enter(slot) && leave(slot), "B: the next section of a revoked slot is good");
	enter(slot);
	ok(scan() && !kvs_epoch_passed(&domain, kvs_epoch_stamp(&domain) - 1),
	   "and holds back again");
	leave(slot);
}

// A reader that loaded the epoch long ago stores it only now.
// Who looks may have taken the time before somebody else who looked earlier.
static void test_time_behind(struct kvs_slot *slot)
{
	stuck_count = 0;
	domain.stuck_ns = 100000;
	domain.stuck = count_stuck;
	enter(slot);
	uint64_t stamp = kvs_epoch_stamp(&domain);
	now_ns += 1000;
	ok(scan(), "a section is seen");
	ok_u64(revoke_all(&domain, stamp, now_ns - 500, 1000000, 1000000), 0,
	       "D: by an earlier time it is not past its deadline");
	ok_u64(stuck_count, 0, "D: nor told of");
	now_ns += 1000000;
	ok_u64(revoke_all(&domain, stamp, now_ns, 1000000, 1000000), 1, "D: but when it is");
	ok(!leave(slot), "B: and told");
	domain.stuck = NULL;
}

static void test_late_store(struct kvs_slot *slot)
{
	uint64_t stale = hot.epoch_word;
	enter(slot);
	scan();
	now_ns += 2000000;
	ok_u64(revoke_all(&domain, domain.epoch, now_ns, 1, 1), 1, "revoke");
	leave(slot);
	slot->word = stale;
	uint64_t stamp = kvs_epoch_stamp(&domain);
	ok(scan() && kvs_epoch_passed(&domain, stamp),
	   "a late store of a revoked epoch holds nothing back");
	ok(!leave(slot), "B: and that section is refused by the same comparison");
}

static void test_second_revocation(void)
{
	struct kvs_epoch_page *page = domain.pages[1];
	struct kvs_slot *slot = &pages[1].slot[5];
	page->revoked_times = 0;
	page->short_deadline = false;
	for (unsigned round = 0; round < 2; round++) {
		enter(slot);
		scan();
		now_ns += 100;
		ok_u64(revoke_all(&domain, domain.epoch, now_ns, 50, 10), 1, "revoked %u",
		       round + 1);
		leave(slot);
	}
	ok(page->short_deadline, "D: revoked twice: the short deadline from now on");
	enter(slot);
	scan();
	now_ns += 20;
	ok_u64(revoke_all(&domain, domain.epoch, now_ns, 50, 10), 1, "D: which is used");
	leave(slot);
}

// Each of its lies costs a deadline at most, and another one right after it none.
static void test_persistent_liar(struct kvs_slot *liar)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < 50; i++) {
		wrong += !scan();
	}
	uint64_t claimed = domain.epoch - 40;
	liar->word = claimed << KVS_EPOCH_SHIFT | 1;
	uint64_t stamp = kvs_epoch_stamp(&domain);
	wrong += !scan() || kvs_epoch_passed(&domain, stamp);
	now_ns += 1000000;
	ok(revoke_all(&domain, stamp, now_ns, 10, 10) == 1 && wrong == 0,
	   "H: a claimed epoch is revoked");
	for (unsigned i = 1; i < 40; i++) {
		liar->word = (claimed + i) << KVS_EPOCH_SHIFT | 1;
		stamp = kvs_epoch_stamp(&domain);
		wrong += !scan() || !kvs_epoch_passed(&domain, stamp);
	}
	ok_u64(wrong, 0, "H: with it go all that it could have claimed");

	for (unsigned i = 0; i < 200; i++) {
		liar->word = 0;
		wrong += !scan();
	}
	claimed = domain.epoch - 100;
	size_t revoked = 0;
	unsigned scans = 0;
	for (; scans < 90 && revoked == 0; scans++) {
		liar->word = (claimed + scans) << KVS_EPOCH_SHIFT | 1;
		stamp = kvs_epoch_stamp(&domain);
		now_ns += 1000;
		wrong += !scan();
		revoked = revoke_all(&domain, stamp, now_ns, 50000, 50000);
	}
	ok(revoked == 1 && wrong == 0 && scans <= 52,
	   "H: one that claims to have begun anew at each scan is as old as it was (%u scans)",
	   scans);
	liar->word = 0;
}

// What the kernel refuses is not taken for done.
static void test_barrier(struct kvs_slot *slot)
{
	bool fenced = domain.fenced;
	domain.fenced = false;
	uint64_t stamp = kvs_epoch_stamp(&domain);
	unsigned calls = membarrier_calls;
	membarrier_failures = 1;
	ok(!scan() && !kvs_epoch_passed(&domain, stamp) && membarrier_calls == calls + 1,
	   "B: a scan whose barrier failed lets nothing pass");
	ok(scan() && kvs_epoch_passed(&domain, stamp), "the next one does");
	(void)kvs_epoch_enter(slot, &hot, true);
	stamp = kvs_epoch_stamp(&domain);
	(void)scan();
	now_ns += 1000000;
	ok(!kvs_epoch_pass(&domain, now_ns, 0, NULL) && kvs_epoch_passing(&domain), "a pass");
	membarrier_failures = 1; // that behind the revocation
	ok(revoke_all(&domain, stamp, now_ns, 10, 10) == 1 && !kvs_epoch_passing(&domain) &&
		   !kvs_epoch_passed(&domain, stamp),
	   "B: nor does a revocation");
	ok(scan() && kvs_epoch_passed(&domain, stamp) && !leave(slot), "the next scan does");
	membarrier_failures = 1;
	ok(!kvs_epoch_detach(&domain, domain.pages[1]), "B: a page is not idle either");
	ok(kvs_epoch_detach(&domain, domain.pages[1]), "until it succeeds");
	domain.fenced = fenced;
}

// Sections of any age are taken back, no scan needed before; only those of the pages given.
static void test_expel(void)
{
	struct kvs_epoch_page *victims[] = { domain.pages[0], domain.pages[1] };
	struct kvs_slot *old = &pages[0].slot[2], *young = &pages[1].slot[7];
	struct kvs_slot *idle = &pages[0].slot[9], *other = &pages[2].slot[4];
	size_t revoked = 99;
	uint64_t revocations = domain.revocations;
	enter(other);
	enter(old);
	(void)scan();
	enter(young);
	uint64_t stamp = kvs_epoch_stamp(&domain);
	ok(kvs_epoch_expel(&domain, victims, 2, ++now_ns, &revoked) && revoked == 2 &&
		   domain.revocations == revocations + 2,
	   "D: pages are expelled, with an old section and one that no scan has seen");
	ok(pages[0].header.state == KVS_PAGE_DETACHED &&
		   pages[1].header.state == KVS_PAGE_DETACHED &&
		   pages[2].header.state == KVS_PAGE_ATTACHED,
	   "their readers are told to come again");
	ok(!kvs_epoch_page_busy(victims[0]) && !kvs_epoch_page_busy(victims[1]),
	   "nothing is read through them any more");
	ok(scan() && !kvs_epoch_passed(&domain, stamp), "B: another page's section holds back");
	ok(leave(other), "B: and is good to its end");
	ok(scan() && kvs_epoch_passed(&domain, stamp), "D: those taken back hold nothing back");
	ok(!leave(old) && !leave(young), "B: they are told when they leave");
	enter(idle);
	ok(leave(idle), "B: a section that begins later is another");
	bool fenced = domain.fenced;
	domain.fenced = false;
	(void)kvs_epoch_enter(old, &hot, true);
	stamp = kvs_epoch_stamp(&domain);
	membarrier_failures = 1;
	ok(!kvs_epoch_expel(&domain, victims, 1, ++now_ns, &revoked) && revoked == 0 &&
		   !kvs_epoch_passed(&domain, stamp) && kvs_epoch_page_busy(victims[0]),
	   "B: a barrier that failed takes nothing back");
	ok(leave(old), "B: so that its views are good");
	domain.fenced = fenced;
	pages[0].header.state = KVS_PAGE_ATTACHED;
	pages[1].header.state = KVS_PAGE_ATTACHED;
}

static void test_lying_page(uint64_t *random)
{
	uint64_t stamp = kvs_epoch_stamp(&domain);
	struct kvs_slot *liar = &pages[2].slot[0];
	liar->word = UINT64_MAX;
	ok(scan() && kvs_epoch_passed(&domain, stamp),
	   "H: an epoch from the future holds nothing back");
	liar->revoked_upto = UINT64_MAX;
	liar->word = UINT64_C(1) << KVS_EPOCH_SHIFT | 1;
	stamp = kvs_epoch_stamp(&domain);
	ok(scan() && !kvs_epoch_passed(&domain, stamp), "H: a claimed old epoch holds back");
	now_ns += 1000000;
	(void)revoke_all(&domain, stamp, now_ns, 10, 10);
	(void)scan();
	liar->word = 0;
	(void)scan();
	ok(kvs_epoch_passed(&domain, stamp), "H1: but not for ever");
	test_persistent_liar(liar);
	unsigned char *bytes = (unsigned char *)&pages[2];
	for (unsigned round = 0; round < 2000; round++) {
		for (unsigned i = 0; i < 64; i++) {
			bytes[tap_random(random) % KVS_PAGE_BYTES] =
				(unsigned char)tap_random(random);
		}
		(void)scan();
		now_ns += 1000;
		(void)revoke_all(&domain, domain.epoch, now_ns, 10, 10);
	}
	memset(bytes, 0, KVS_PAGE_BYTES);
	stamp = kvs_epoch_stamp(&domain);
	ok(scan() && kvs_epoch_passed(&domain, stamp), "H1: any bytes in a page are survived");
}

static void test_pages(struct kvs_slot *slot)
{
	enter(slot);
	uint64_t stamp = kvs_epoch_stamp(&domain);
	kvs_epoch_detach(&domain, domain.pages[0]);
	ok_u64(pages[0].header.state, KVS_PAGE_DETACHED, "a detached page says so");
	ok(scan() && !kvs_epoch_passed(&domain, stamp),
	   "B: its open sections are honoured all the same");
	struct kvs_epoch_page *first = domain.pages[0];
	struct kvs_epoch_page *last = domain.pages[domain.pages_count - 1];
	kvs_epoch_remove(&domain, first);
	ok(scan() && kvs_epoch_passed(&domain, stamp),
	   "D: the page of a dead process holds nothing back");
	ok(domain.pages_count == 2 && last->index < 2 && domain.pages[last->index] == last,
	   "the others are still in their places");
}

static void test_restart(void)
{
	uint64_t before = domain.epoch;
	struct kvs_epoch_domain again;
	kvs_epoch_init(&again, &hot, domain.fenced);
	ok_u64(again.epoch, before, "F: a new domain continues the epochs of the region");
	struct kvs_slot slot = { 0 };
	enter(&slot);
	hot.oldest_valid = again.epoch + 1;
	ok(!leave(&slot), "F: sections from before oldest_valid are refused");
	hot.oldest_valid = 1;
	kvs_epoch_fini(&again);
}

// A life that took over a region: what sections it cannot see may look at.
static void test_hold(void)
{
	struct kvs_hot region = { .epoch_word = UINT64_C(50) << KVS_EPOCH_SHIFT | 1,
				  .incarnation = 9,
				  .oldest_valid = 1 };
	struct kvs_adoptions adoptions = { .hold_epoch = 0 };
	struct kvs_epoch_domain life;
	struct kvs_slot old = { 0 };
	kvs_epoch_init(&life, &region, domain.fenced);
	ok(!kvs_epoch_held(&life), "a new region holds nothing");
	(void)kvs_epoch_enter(&old, &region, domain.fenced); // on a page of the life before
	kvs_epoch_hold(&life, &adoptions);
	uint64_t stamp = kvs_epoch_stamp(&life);
	kvs_epoch_adopt(&life, 1000);
	ok_u64(region.incarnation, 10, "F: another incarnation");
	ok_u64(adoptions.epoch[10 % KVS_ADOPTIONS_KEPT], 51, "which says how it began");
	ok(kvs_epoch_scan(&life, 1001) && !kvs_epoch_passed(&life, stamp),
	   "F: what the life before unlinked waits");
	(void)revoke_all(&life, stamp, 1099, 100, 100);
	ok(!kvs_epoch_passed(&life, stamp) && kvs_epoch_still_good(&old, &region),
	   "F2: no view ends because kvd was restarted");
	kvs_epoch_fini(&life);
	// Killed before the deadline: the next life goes on waiting for the same.
	kvs_epoch_init(&life, &region, domain.fenced);
	kvs_epoch_hold(&life, &adoptions);
	kvs_epoch_adopt(&life, 1090);
	(void)revoke_all(&life, kvs_epoch_stamp(&life), 1100, 100, 100);
	ok(kvs_epoch_passed(&life, stamp),
	   "D: the deadline counts from the first of several lives");
	ok(!kvs_epoch_leave(&old, &region), "B: and who overstayed is told");
	ok(kvs_epoch_held(&life) && !kvs_epoch_passed(&life, 52),
	   "F: what began in the second waits for its own");
	(void)revoke_all(&life, kvs_epoch_stamp(&life), 1189, 100, 100);
	ok(kvs_epoch_held(&life), "until its deadline");
	(void)revoke_all(&life, kvs_epoch_stamp(&life), 1190, 100, 100);
	ok(!kvs_epoch_held(&life), "D: and no longer");
	kvs_epoch_fini(&life);
	kvs_epoch_init(&life, &region, domain.fenced);
	kvs_epoch_hold(&life, &adoptions);
	kvs_epoch_adopt(&life, 2000);
	ok_u64(adoptions.hold_since_ns, 2000, "F: the next life's readers have their own time");
	kvs_epoch_fini(&life);
}

int main(void)
{
	uint64_t random = tap_seed(12);
	hot.epoch_word = UINT64_C(5) << KVS_EPOCH_SHIFT | 1;
	hot.oldest_valid = 1;
	bool light = kvs_epoch_membarrier_works();
	tap_diag("%s mode", light ? "light" : "fenced");
	kvs_epoch_init(&domain, &hot, !light);
	for (unsigned i = 0; i < 3; i++) {
		ok(kvs_epoch_add(&domain, &pages[i], &pages[i]) != NULL, "add page %u", i);
	}
	test_grace(&pages[0].slot[0]);
	test_stuck(&pages[0].slot[1]);
	test_nesting(&pages[0].slot[KVS_READERS_PER_PAGE - 1]);
	test_revocation(&pages[0].slot[0], &pages[1].slot[3]);
	test_time_behind(&pages[0].slot[2]);
	test_late_store(&pages[0].slot[1]);
	test_second_revocation();
	test_expel();
	test_lying_page(&random);
	test_barrier(&pages[1].slot[5]);
	test_pages(&pages[0].slot[0]);
	test_restart();
	test_hold();
	kvs_epoch_fini(&domain);
	return tap_done();
}
