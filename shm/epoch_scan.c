// SPDX-License-Identifier: MIT
//
// Scanning the reader pages. The order of the four steps is the whole proof: unlink (done by the
// caller), bump the epoch, one membarrier, look at the slots, all of them, at any time. What a slot
// says is compared with what this side knows and never believed further: a lying page delays
// reclamation until it is revoked.
#include "shm/epoch_scan.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/atomics.h"

static long epoch_membarrier(int command)
{
	return syscall(SYS_membarrier, command, 0, 0);
}

bool kvs_epoch_membarrier_works(void)
{
#ifdef KVS_TSAN
	return false;
#else
	long commands = epoch_membarrier(MEMBARRIER_CMD_QUERY);
	return commands > 0 && (commands & MEMBARRIER_CMD_GLOBAL_EXPEDITED) != 0;
#endif
}

void kvs_epoch_init(struct kvs_epoch_domain *domain, struct kvs_hot *hot, bool fenced)
{
	memset(domain, 0, sizeof(*domain));
	domain->hot = hot;
	domain->fenced = fenced;
	domain->epoch = kvs_load_relaxed(&hot->epoch_word) >> KVS_EPOCH_SHIFT;
	domain->oldest = domain->epoch;
}

void kvs_epoch_fini(struct kvs_epoch_domain *domain)
{
	for (size_t i = 0; i < domain->pages_count; i++) {
		free(domain->pages[i]);
	}
	free(domain->pages);
	memset(domain, 0, sizeof(*domain));
}

struct kvs_epoch_page *kvs_epoch_add(struct kvs_epoch_domain *domain, struct kvs_reader_page *page,
				     void *owner)
{
	if (domain->pages_count == domain->pages_capacity) {
		size_t capacity = domain->pages_capacity ? domain->pages_capacity * 2 : 16;
		struct kvs_epoch_page **pages = realloc(domain->pages, capacity * sizeof(*pages));
		if (pages == NULL) {
			return NULL;
		}
		domain->pages = pages;
		domain->pages_capacity = capacity;
	}
	struct kvs_epoch_page *entry = calloc(1, sizeof(*entry));
	if (entry == NULL) {
		return NULL;
	}
	memset(page, 0, sizeof(*page));
	memcpy(page->header.marker, KVS_PAGE_MARKER, sizeof(page->header.marker));
	page->header.readers_count = KVS_READERS_PER_PAGE;
	entry->page = page;
	entry->owner = owner;
	entry->index = domain->pages_count;
	domain->pages[domain->pages_count++] = entry;
	return entry;
}

// Moves a page to another place of the array. Returns the place that it leaves.
static size_t epoch_move(struct kvs_epoch_domain *domain, size_t from, size_t to)
{
	domain->pages[to] = domain->pages[from];
	domain->pages[to]->index = to;
	return from;
}

void kvs_epoch_remove(struct kvs_epoch_domain *domain, struct kvs_epoch_page *page)
{
	size_t hole = page->index;
	if (hole < domain->pass_at) {
		// The last page, which takes its place, has yet to be looked at: it goes behind
		// those that were.
		hole = epoch_move(domain, --domain->pass_at, hole);
	}
	(void)epoch_move(domain, --domain->pages_count, hole);
	free(page);
}

// Makes every reader's announcement visible here, and every unlink visible to readers that announce
// later. False if the kernel would not.
static bool epoch_order_readers(const struct kvs_epoch_domain *domain)
{
	if (domain->fenced) {
		kvs_fence_full(); // partner: kvs_store_fenced() in kvs_epoch_enter()
		return true;
	}
	return epoch_membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED) == 0;
}

// Reports the section of slot `i` if it has been open for so long and nobody was told yet.
static void epoch_report_stuck(const struct kvs_epoch_domain *domain, struct kvs_epoch_page *entry,
			       unsigned i, uint64_t now_ns, uint64_t least_ns)
{
	uint64_t age_ns = now_ns - entry->seen_since_ns[i];
	uint32_t bit = UINT32_C(1) << i;
	if (domain->stuck == NULL || entry->owner == NULL || age_ns < least_ns ||
	    (entry->told & bit) != 0) {
		return;
	}
	entry->told |= bit;
	domain->stuck(entry->owner, age_ns);
}

// Oldest epoch that this page holds back, or `bound`. `before` is the epoch that was open since the
// scan before this one: a section that really began since then announces at least that. Anything
// older is as old as what stood in the slot before it, whatever a page claims.
static uint64_t epoch_scan_page(const struct kvs_epoch_domain *domain,
				struct kvs_epoch_page *entry, uint64_t bound, uint64_t before,
				uint64_t now_ns)
{
	for (unsigned i = 0; i < KVS_READERS_PER_PAGE; i++) {
		// Acquire: the section's loads are over when it reads inactive (partner:
		// kvs_epoch_leave()).
		uint64_t word = kvs_load_acquire(&entry->page->slot[i].word);
		uint64_t epoch = word >> KVS_EPOCH_SHIFT;
		bool active = (word & KVS_NESTING_MASK) != 0 && epoch > entry->revoked[i];
		if (!active) {
			entry->seen_epoch[i] = 0;
			continue;
		}
		bool begun_since = epoch != entry->seen_epoch[i] && epoch >= before;
		if (entry->seen_epoch[i] == 0 || begun_since) {
			entry->seen_since_ns[i] = now_ns;
			entry->told &= ~(UINT32_C(1) << i);
		}
		entry->seen_epoch[i] = epoch;
		epoch_report_stuck(domain, entry, i, now_ns, domain->stuck_ns);
		if (epoch < bound) {
			bound = epoch;
		}
	}
	return bound;
}

static void epoch_publish(struct kvs_epoch_domain *domain, uint64_t epoch)
{
	domain->epoch = epoch;
#ifdef KVS_TSAN
	kvs_store_fenced(&domain->hot->epoch_word, epoch << KVS_EPOCH_SHIFT | 1);
#else
	// Release: what was unlinked before is unlinked for whoever loads this epoch (partner:
	// enter).
	kvs_store_release(&domain->hot->epoch_word, epoch << KVS_EPOCH_SHIFT | 1);
#endif
}

void kvs_epoch_hold(struct kvs_epoch_domain *domain, struct kvs_adoptions *adoptions)
{
	uint64_t valid = kvs_load_relaxed(&domain->hot->oldest_valid);
	domain->adoptions = adoptions;
	domain->own_epoch = UINT64_MAX; // not begun yet
	domain->oldest = valid < domain->oldest ? valid : domain->oldest;
}

void kvs_epoch_adopt(struct kvs_epoch_domain *domain, uint64_t now_ns)
{
	struct kvs_adoptions *adoptions = domain->adoptions;
	struct kvs_hot *hot = domain->hot;
	uint64_t incarnation = kvs_load_relaxed(&hot->incarnation) + 1;
	uint64_t epoch = domain->epoch + 1;
	domain->own_epoch = epoch;
	domain->own_since_ns = now_ns;
	domain->now_ns = now_ns;
	kvs_store_relaxed(&adoptions->epoch[incarnation % KVS_ADOPTIONS_KEPT], epoch);
	// An earlier life's hold that is not over goes on: lives may be shorter than deadlines.
	if (kvs_load_relaxed(&adoptions->hold_epoch) <= kvs_load_relaxed(&hot->oldest_valid) ||
	    kvs_load_relaxed(&adoptions->hold_since_ns) > now_ns) {
		kvs_store_relaxed(&adoptions->hold_since_ns, now_ns);
		kvs_store_release(&adoptions->hold_epoch, epoch);
	}
	// Release: the boundary is there (partner: kvc_attachment_boundary()).
	kvs_store_release(&hot->incarnation, incarnation);
	epoch_publish(domain, epoch);
}

// Ends what is held the longest, if its time is over: from here on every section begun before is
// refused when it ends, and who has not attached anew begins none. False if it is not over.
static bool epoch_hold_lift(struct kvs_epoch_domain *domain, uint64_t stamp, uint64_t now_ns,
			    uint64_t deadline_ns)
{
	struct kvs_adoptions *adoptions = domain->adoptions;
	if (adoptions == NULL || stamp < kvs_load_relaxed(&domain->hot->oldest_valid) ||
	    now_ns - kvs_load_relaxed(&adoptions->hold_since_ns) < deadline_ns) {
		return false;
	}
	uint64_t epoch = kvs_load_relaxed(&adoptions->hold_epoch);
	// Release, and the barrier of the scan that follows, before any reuse (partner:
	// kvs_epoch_leave()).
	kvs_store_release(&domain->hot->oldest_valid, epoch);
	if (epoch >= domain->own_epoch) {
		domain->adoptions = NULL;
	} else {
		kvs_store_relaxed(&adoptions->hold_since_ns, domain->own_since_ns);
		kvs_store_release(&adoptions->hold_epoch, domain->own_epoch);
	}
	return true;
}

// Everything up to the epoch before the current one is revoked together: a section
// that begins from now on announces more, so only what a page makes up is refused for good.
static size_t epoch_revoke_page(const struct kvs_epoch_domain *domain,
				struct kvs_epoch_page *entry, uint64_t stamp, uint64_t now_ns,
				uint64_t deadline_ns)
{
	size_t revoked = 0;
	uint64_t before = domain->epoch - 1;
	for (unsigned i = 0; i < KVS_READERS_PER_PAGE; i++) {
		uint64_t epoch = entry->seen_epoch[i];
		if (epoch == 0 || epoch > stamp || now_ns - entry->seen_since_ns[i] < deadline_ns) {
			continue;
		}
		epoch_report_stuck(domain, entry, i, now_ns, 0);
		uint64_t upto = epoch > before ? epoch : before;
		entry->revoked[i] = upto;
		entry->seen_epoch[i] = 0;
		// Release, and the barrier below, before any reuse (partner: kvs_epoch_leave()).
		kvs_store_release(&entry->page->slot[i].revoked_upto, upto);
		revoked++;
	}
	return revoked;
}

// The epoch is advanced, and every announcement that was made before is visible from here on. False
// if the barrier failed: then there is no pass.
static bool epoch_pass_begin(struct kvs_epoch_domain *domain)
{
	uint64_t next = domain->epoch + 1;
	domain->scans++;
	domain->pass_epoch = 0;
	domain->pass_at = 0;
	epoch_publish(domain, next);
	if (!epoch_order_readers(domain)) {
		return false;
	}
	domain->pass_epoch = next;
	domain->pass_oldest = next;
	domain->pass_revoked = 0;
	return true;
}

// Every page was looked at.
static void epoch_pass_end(struct kvs_epoch_domain *domain)
{
	uint64_t oldest = domain->pass_oldest;
	if (domain->adoptions != NULL) {
		uint64_t valid = kvs_load_relaxed(&domain->hot->oldest_valid);
		oldest = valid < oldest ? valid : oldest;
	}
	if (oldest > domain->oldest) {
		domain->oldest = oldest;
	}
	domain->pass_epoch = 0;
	domain->pass_at = 0;
}

// Revokes who is past his deadline on a page that was looked at just now.
static void epoch_pass_revoke(struct kvs_epoch_domain *domain, struct kvs_epoch_page *entry,
			      uint64_t now_ns)
{
	const struct kvs_epoch_deadlines *deadlines = &domain->deadlines;
	if (entry->owner == NULL || deadlines->hold_only) {
		return; // kvd's own threads keep their sections short, and are not told
	}
	uint64_t deadline = entry->short_deadline ? deadlines->short_ns : deadlines->deadline_ns;
	size_t revoked = epoch_revoke_page(domain, entry, deadlines->stamp, now_ns, deadline);
	if (revoked > 0 && ++entry->revoked_times >= 2) {
		entry->short_deadline = true;
	}
	domain->pass_revoked += revoked;
	domain->revocations += revoked;
}

// Looks at up to `*pages_max` pages more, which is what is left of it then. True at the end.
static bool epoch_pass_pages(struct kvs_epoch_domain *domain, uint64_t now_ns, size_t *pages_max)
{
	for (; *pages_max > 0 && domain->pass_at < domain->pages_count; --*pages_max) {
		struct kvs_epoch_page *entry = domain->pages[domain->pass_at++];
		domain->pass_oldest = epoch_scan_page(domain, entry, domain->pass_oldest,
						      domain->pass_epoch - 1, now_ns);
		if (domain->pass_revokes != KVS_EPOCH_REVOKES_NOT) {
			epoch_pass_revoke(domain, entry, now_ns);
		}
	}
	return domain->pass_at == domain->pages_count;
}

// Why a pass may take its time. Let a thing be unlinked before the epoch was advanced to that of
// the pass. A reader whose announcement was made before the barrier is found by a look at any time
// behind it, if it is still inside; one that announces behind the barrier reads behind it, too, and
// cannot come to the thing. So each slot may be looked at once, whenever that is, as long as all of
// them are looked at behind one barrier, pages that move in the array meanwhile among them; a page
// that is added meanwhile has no readers from before. What is unlinked while the pass is under way
// is stamped with its epoch, and does not pass with it. Sections that a pass revokes still hold
// back what they held: only the next one, whose barrier comes after those stores, does without
// them.
bool kvs_epoch_pass(struct kvs_epoch_domain *domain, uint64_t now_ns, size_t pages_max,
		    const struct kvs_epoch_deadlines *deadlines)
{
	// Some look with the time at which their turn began, behind others who took it anew: by
	// that a section first seen in between would be as old as can be, and revoked.
	now_ns = now_ns > domain->now_ns ? now_ns : domain->now_ns;
	domain->now_ns = now_ns;
	if (deadlines != NULL) {
		domain->deadlines = *deadlines;
		if (domain->pass_revokes == KVS_EPOCH_REVOKES_NOT) {
			domain->pass_revokes =
				domain->pass_at == 0 ? KVS_EPOCH_REVOKES : KVS_EPOCH_REVOKES_REST;
		}
	}
	if (!kvs_epoch_passing(domain) && !epoch_pass_begin(domain)) {
		return false;
	}
	while (epoch_pass_pages(domain, now_ns, &pages_max)) {
		epoch_pass_end(domain);
		bool again = domain->pass_revoked > 0;
		if (domain->pass_revokes != KVS_EPOCH_REVOKES_NOT &&
		    epoch_hold_lift(domain, domain->deadlines.stamp, now_ns,
				    domain->deadlines.deadline_ns)) {
			again = true;
		}
		if (domain->pass_revokes == KVS_EPOCH_REVOKES_REST) {
			domain->pass_revokes = KVS_EPOCH_REVOKES; // those that came before
			again = true;
		} else {
			domain->pass_revokes = KVS_EPOCH_REVOKES_NOT;
		}
		if (!again) {
			return true;
		}
		// If the barrier fails nothing may be reused yet: the next pass will tell.
		if (!epoch_pass_begin(domain)) {
			return false;
		}
	}
	return false;
}

bool kvs_epoch_scan(struct kvs_epoch_domain *domain, uint64_t now_ns)
{
	domain->pass_revokes = KVS_EPOCH_REVOKES_NOT;
	domain->pass_epoch = 0; // what is under way looks at fewer pages than this
	return kvs_epoch_pass(domain, now_ns, SIZE_MAX, NULL);
}

bool kvs_epoch_page_busy(const struct kvs_epoch_page *page)
{
	for (unsigned i = 0; i < KVS_READERS_PER_PAGE; i++) {
		// Acquire: as in epoch_scan_page().
		uint64_t word = kvs_load_acquire(&page->page->slot[i].word);
		if ((word & KVS_NESTING_MASK) != 0 && word >> KVS_EPOCH_SHIFT > page->revoked[i]) {
			return true;
		}
	}
	return false;
}

// A section that this look does not see yet is announced behind its barrier, and finds the page
// DETACHED. What it sees is revoked: nobody reads any more through what will not be scanned again.
// The revoking stores are ordered before any reuse by the next pass that begins.
bool kvs_epoch_expel(struct kvs_epoch_domain *domain, struct kvs_epoch_page *const *pages,
		     size_t pages_count, uint64_t now_ns, size_t *revoked)
{
	*revoked = 0;
	for (size_t i = 0; i < pages_count; i++) {
		// Release, and the barrier of the scan: as in kvs_epoch_detach().
		kvs_store_release(&pages[i]->page->header.state, KVS_PAGE_DETACHED);
	}
	uint64_t before = domain->epoch;
	epoch_publish(domain, before + 1);
	if (!epoch_order_readers(domain)) {
		return false;
	}
	for (size_t i = 0; i < pages_count; i++) {
		// A pass that is under way began before these stores: it holds back what they did.
		domain->pass_oldest =
			epoch_scan_page(domain, pages[i], domain->pass_oldest, before, now_ns);
		pages[i]->told = UINT32_MAX; // who is expelled need not be stuck
		*revoked += epoch_revoke_page(domain, pages[i], UINT64_MAX, now_ns, 0);
	}
	domain->revocations += *revoked;
	return true;
}

bool kvs_epoch_detach(struct kvs_epoch_domain *domain, struct kvs_epoch_page *page)
{
	// Release and barrier: a reader that announces later sees it (partner: the client's check
	// after kvs_epoch_enter()).
	kvs_store_release(&page->page->header.state, KVS_PAGE_DETACHED);
	return epoch_order_readers(domain);
}
