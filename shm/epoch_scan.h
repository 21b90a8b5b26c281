// SPDX-License-Identifier: MIT
//
// Cross-process read sections, the writer's half: which pages exist, the current epoch, one scan
// that tells the oldest epoch anybody may still be reading, and revocation of readers that
// overstayed. A page's content is never trusted: each word is loaded once, compared with what this
// side knows, and used for nothing but "how old". The reader's half is shm/epoch.h.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/layout.h"

/// One reader page as its owner, kvd, sees it.
struct kvs_epoch_page {
	struct kvs_reader_page *page; // writable map
	void *owner; // whose it is: the daemon's client record, NULL for kvd's own threads
	uint64_t revoked[KVS_READERS_PER_PAGE]; // private truth; the page only mirrors it
	uint64_t seen_epoch[KVS_READERS_PER_PAGE]; // open section at the last scan, 0 = none
	uint64_t seen_since_ns[KVS_READERS_PER_PAGE]; // when that section was first seen open
	size_t index; // place in the domain's array
	uint32_t told; // one bit a slot: its open section was reported as stuck
	bool short_deadline; // revoked twice: short deadline for good
	uint32_t revoked_times; // scans that took sections of it back
};

/// Whose sections may hold memory back no longer: those that do (epoch <= stamp), and are older
/// than their deadline.
struct kvs_epoch_deadlines {
	uint64_t stamp;
	uint64_t deadline_ns; // of well-behaved pages, and of sections of an earlier life
	uint64_t short_ns;    // of pages with short_deadline
	// Nobody else's: readers of an earlier life cannot be waited for, since nobody would learn
	// that they are gone.
	bool hold_only;
};

enum kvs_epoch_revokes {
	KVS_EPOCH_REVOKES_NOT,
	KVS_EPOCH_REVOKES_REST, // of the pages, and in the next pass all
	KVS_EPOCH_REVOKES,
};

struct kvs_epoch_domain {
	struct kvs_hot *hot; // in the region
	struct kvs_epoch_page **pages;
	size_t pages_count;
	size_t pages_capacity;
	uint64_t epoch; // current; mirrored in hot->epoch_word
	uint64_t oldest; // result of the last pass: nothing with a lower stamp is being read
	bool fenced; // no membarrier: every reader fences
	uint64_t stuck_ns; // sections open for so long, or about to be revoked, are reported once
	void (*stuck)(void *owner, uint64_t age_ns); // NULL = to nobody; must not touch the domain
	// The pass that is under way, see kvs_epoch_pass().
	uint64_t pass_epoch; // that it opened, 0 = there is none
	uint64_t pass_oldest;
	size_t pass_at; // pages looked at
	size_t pass_revoked;
	enum kvs_epoch_revokes pass_revokes;
	struct kvs_epoch_deadlines deadlines;
	uint64_t now_ns; // the latest time that a pass or an adoption was told
	uint64_t scans;
	uint64_t revocations;
	// The hold of an adopted region, until oldest_valid has reached own_epoch; NULL = none.
	struct kvs_adoptions *adoptions;
	uint64_t own_epoch; // that this life began with
	uint64_t own_since_ns;
};

/// Prepares `domain` for the region whose hot line is `hot`; the epoch continues from the one
/// there. `fenced` must agree with the header's KVS_HEADER_READERS_FENCE.
void kvs_epoch_init(struct kvs_epoch_domain *domain, struct kvs_hot *hot, bool fenced);
void kvs_epoch_fini(struct kvs_epoch_domain *domain);

/// Behind kvs_epoch_init(), for a region whose writer is gone: its readers' pages went with it, so
/// every section begun in its life may be open, and nothing that was unlinked in it or later is
/// passed until they had the time that kvs_epoch_pass() leaves to readers.
void kvs_epoch_hold(struct kvs_epoch_domain *domain, struct kvs_adoptions *adoptions);

/// Begins the new life: another incarnation, then another epoch. Readers that attached before
/// notice and attach anew; meanwhile they read on as if in the last epoch of their own life.
/// Call with: kvs_epoch_hold() done, ready to accept them. Thread must: be the writer. Orders:
/// adoptions before incarnation, that before the epoch, all release (partner: the client's slow
/// enter); a section that announces the new epoch on an old page has seen the old incarnation gone.
void kvs_epoch_adopt(struct kvs_epoch_domain *domain, uint64_t now_ns);

/// Are sections of an earlier life still waited for?
static inline bool kvs_epoch_held(const struct kvs_epoch_domain *domain)
{
	return domain->adoptions != NULL;
}

/// Can this process order its readers by membarrier(GLOBAL_EXPEDITED)?
bool kvs_epoch_membarrier_works(void);

/// Adds a page (initialised here: marker, state, revoked words) or takes it out; the memory stays
/// the caller's. kvs_epoch_add returns NULL if memory is short.
struct kvs_epoch_page *kvs_epoch_add(struct kvs_epoch_domain *domain, struct kvs_reader_page *page,
				     void *owner);
void kvs_epoch_remove(struct kvs_epoch_domain *domain, struct kvs_epoch_page *page);

/// The stamp to give to something unlinked just now: it may be reused once `domain->oldest` is
/// above.
static inline uint64_t kvs_epoch_stamp(const struct kvs_epoch_domain *domain)
{
	return domain->epoch;
}

/// One scan: opens a new epoch, makes every reader's announcement visible, looks at all slots and
/// updates `domain->oldest`. Sections found stuck are reported. Returns false, and changes nothing
/// but the epoch, if the barrier failed.
/// Call with: things already unlinked and stamped. Thread must: be the writer. Orders: bump is a
/// release (partner: the reader's load-acquire); membarrier pairs with the reader's compiler
/// barrier; slots are load-acquired (partner: the reader's release on leave).
bool kvs_epoch_scan(struct kvs_epoch_domain *domain, uint64_t now_ns);

/// The same in parts, up to `pages_max` pages a call: goes on with the pass that is under way, or
/// begins one (then 0 pages only do that). True when it is over: `domain->oldest` is updated. With
/// `deadlines` it revokes, all of a pass and not only of this call; sections of an earlier life
/// are revoked by oldest_valid. If any were, another pass follows that lets go of what they held.
/// False, and kvs_epoch_passing() is, too, if the barrier failed: the next call begins anew. A
/// `now_ns` earlier than one of before counts as that one.
/// Call with, thread: as kvs_epoch_scan(). Orders: the same, and revoked_upto is store-released
/// before the membarrier of the pass that follows, reuse comes after that (partner: acquire fence
/// and load in kvs_epoch_leave()).
bool kvs_epoch_pass(struct kvs_epoch_domain *domain, uint64_t now_ns, size_t pages_max,
		    const struct kvs_epoch_deadlines *deadlines);

/// Is a pass under way?
static inline bool kvs_epoch_passing(const struct kvs_epoch_domain *domain)
{
	return domain->pass_epoch != 0;
}

/// True if no page has a section open that began at or before `epoch` (as of the last scan).
static inline bool kvs_epoch_passed(const struct kvs_epoch_domain *domain, uint64_t stamp)
{
	return stamp < domain->oldest;
}

/// Takes every section of these pages back, however young, and tells their readers to attach anew:
/// the pages may then be removed at once. *revoked is how many sections were open. False if the
/// barrier failed: the readers are told, but nothing may be removed yet.
/// Call with: pages of one owner or several. Thread must: be the writer. Orders: as
/// kvs_epoch_detach() and kvs_epoch_pass(). Looks at these pages only.
bool kvs_epoch_expel(struct kvs_epoch_domain *domain, struct kvs_epoch_page *const *pages,
		     size_t pages_count, uint64_t now_ns, size_t *revoked);

/// Is any slot of the page inside a section that was not taken back? One load-acquire per slot.
bool kvs_epoch_page_busy(const struct kvs_epoch_page *page);

/// Tells a page's readers that their connection is gone (state DETACHED, then a membarrier). False
/// if the barrier failed: an announcement may still be invisible here, so the page must not be
/// called idle before another call has returned true.
bool kvs_epoch_detach(struct kvs_epoch_domain *domain, struct kvs_epoch_page *page);
