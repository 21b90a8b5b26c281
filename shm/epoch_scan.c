// SPDX-License-Identifier: MIT
//
// Scanning the reader pages. The order of the four steps is the whole proof: unlink (done by the
// caller), bump the epoch, one membarrier, look at the slots. What a slot says is compared with
// what this side knows and never believed further: a lying page delays reclamation until it is
// revoked.
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

void kvs_epoch_remove(struct kvs_epoch_domain *domain, struct kvs_epoch_page *page)
{
	struct kvs_epoch_page *last = domain->pages[--domain->pages_count];
	domain->pages[page->index] = last;
	last->index = page->index;
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

bool kvs_epoch_scan(struct kvs_epoch_domain *domain, uint64_t now_ns)
{
	uint64_t next = domain->epoch + 1;
	domain->scans++;
	epoch_publish(domain, next);
	if (!epoch_order_readers(domain)) {
		return false;
	}
	uint64_t oldest = next;
	for (size_t i = 0; i < domain->pages_count; i++) {
		oldest = epoch_scan_page(domain, domain->pages[i], oldest, next - 1, now_ns);
	}
	if (domain->adoptions != NULL) {
		uint64_t valid = kvs_load_relaxed(&domain->hot->oldest_valid);
		oldest = valid < oldest ? valid : oldest;
	}
	if (oldest > domain->oldest) {
		domain->oldest = oldest;
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

size_t kvs_epoch_revoke(struct kvs_epoch_domain *domain, uint64_t stamp, uint64_t now_ns,
			uint64_t deadline_ns, uint64_t deadline_short_ns)
{
	size_t total = 0;
	for (size_t i = 0; i < domain->pages_count; i++) {
		struct kvs_epoch_page *entry = domain->pages[i];
		if (entry->owner == NULL) {
			continue; // kvd's own threads keep their sections short, and are not told
		}
		uint64_t deadline = entry->short_deadline ? deadline_short_ns : deadline_ns;
		size_t revoked = epoch_revoke_page(domain, entry, stamp, now_ns, deadline);
		if (revoked > 0 && ++entry->revoked_times >= 2) {
			entry->short_deadline = true;
		}
		total += revoked;
	}
	domain->revocations += total;
	bool lifted = epoch_hold_lift(domain, stamp, now_ns, deadline_ns);
	if ((total > 0 || lifted) && !kvs_epoch_scan(domain, now_ns)) {
		return 0; // the barrier failed: nothing may be reused yet, the next scan will tell
	}
	return total;
}

bool kvs_epoch_lift(struct kvs_epoch_domain *domain, uint64_t stamp, uint64_t now_ns,
		    uint64_t deadline_ns)
{
	return epoch_hold_lift(domain, stamp, now_ns, deadline_ns) &&
	       kvs_epoch_scan(domain, now_ns);
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

// A section that the scan does not see yet is announced behind its barrier, and finds the page
// DETACHED. What it sees is revoked: nobody reads any more through what will not be scanned again.
// The revoking stores are ordered before any reuse by the scan that lets `oldest` rise.
bool kvs_epoch_expel(struct kvs_epoch_domain *domain, struct kvs_epoch_page *const *pages,
		     size_t pages_count, uint64_t now_ns, size_t *revoked)
{
	*revoked = 0;
	for (size_t i = 0; i < pages_count; i++) {
		// Release, and the barrier of the scan: as in kvs_epoch_detach().
		kvs_store_release(&pages[i]->page->header.state, KVS_PAGE_DETACHED);
	}
	if (!kvs_epoch_scan(domain, now_ns)) {
		return false;
	}
	for (size_t i = 0; i < pages_count; i++) {
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
