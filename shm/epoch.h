// SPDX-License-Identifier: MIT
//
// Cross-process read sections, the reader's half: how a process announces "I may be looking at
// memory of epoch e" with one plain store to its own line, and learns at the end whether that
// memory was taken back meanwhile. The writer's half is shm/epoch_scan.h; both follow the protocol,
// the proof obligations and the model in shm/LAYOUT.md and tests/model/.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/atomics.h"
#include "shm/layout.h"

/// Enters a read section on a slot that this thread owns now. Nests; only the outermost publishes.
/// Returns false if 65535 sections are already nested.
/// Call with: a slot of a page kvd knows. Thread must: own the slot's reader. Orders: later loads
/// of table and records come after the announcement, paired with the membarrier (light) or by the
/// full barrier here (fenced) in kvs_epoch_scan().
static inline bool kvs_epoch_enter(struct kvs_slot *slot, const struct kvs_hot *hot, bool fenced)
{
	uint64_t word = kvs_load_relaxed(&slot->word);
	if ((word & KVS_NESTING_MASK) != 0) {
		if ((word & KVS_NESTING_MASK) == KVS_NESTING_MASK) {
			return false;
		}
		kvs_store_relaxed(&slot->word, word + 1);
		return true;
	}
	// Acquire: an epoch published after an unlink implies that unlink is seen (partner: scan's
	// bump).
	uint64_t epoch_word = kvs_load_acquire(&hot->epoch_word);
	if (fenced) {
		kvs_store_fenced(&slot->word, epoch_word);
	} else {
		kvs_store_relaxed(&slot->word, epoch_word);
		kvs_barrier_compiler(); // partner: membarrier in kvs_epoch_scan()
	}
	return true;
}

/// The same for a slot on which no section is open. Returns the announced word, for
/// kvs_epoch_leave_last().
static inline uint64_t kvs_epoch_enter_first(struct kvs_slot *slot, const struct kvs_hot *hot,
					     bool fenced)
{
	// Acquire: as above.
	uint64_t epoch_word = kvs_load_acquire(&hot->epoch_word);
	if (__builtin_expect(fenced, 0)) {
		kvs_store_fenced(&slot->word, epoch_word);
	} else {
		kvs_store_relaxed(&slot->word, epoch_word);
		kvs_barrier_compiler(); // partner: membarrier in kvs_epoch_scan()
	}
	return epoch_word;
}

/// Leaves a section that did not nest, by the word that its enter returned.
static inline bool kvs_epoch_leave_last(struct kvs_slot *slot, const struct kvs_hot *hot,
					uint64_t word)
{
	kvs_fence_acquire();
	uint64_t epoch = word >> KVS_EPOCH_SHIFT;
	bool good = epoch > kvs_load_relaxed(&slot->revoked_upto) &&
		    epoch >= kvs_load_relaxed(&hot->oldest_valid);
	kvs_store_release(&slot->word, word & ~KVS_NESTING_MASK);
	return good;
}

/// Leaves. Returns true if every view of the outermost section is still good, false if kvd revoked
/// it; inner sections always return true.
/// Call with: a matching enter. Thread must: own the slot's reader. Orders: all data loads come
/// before the check (acquire fence; partner: the revoking store in kvs_epoch_pass()) and before
/// the slot reads inactive (release; partner: scan's load-acquire).
static inline bool kvs_epoch_leave(struct kvs_slot *slot, const struct kvs_hot *hot)
{
	uint64_t word = kvs_load_relaxed(&slot->word);
	if ((word & KVS_NESTING_MASK) != 1) {
		kvs_store_relaxed(&slot->word, word - 1);
		return true;
	}
	kvs_fence_acquire();
	uint64_t epoch = word >> KVS_EPOCH_SHIFT;
	bool good = epoch > kvs_load_relaxed(&slot->revoked_upto) &&
		    epoch >= kvs_load_relaxed(&hot->oldest_valid);
	kvs_store_release(&slot->word, word - 1);
	return good;
}

/// The same check without leaving: are views of the open section good so far?
/// Call with: an open section. Thread must: own the slot's reader. Orders: as kvs_epoch_leave().
static inline bool kvs_epoch_still_good(const struct kvs_slot *slot, const struct kvs_hot *hot)
{
	kvs_fence_acquire();
	uint64_t epoch = kvs_load_relaxed(&slot->word) >> KVS_EPOCH_SHIFT;
	return epoch > kvs_load_relaxed(&slot->revoked_upto) &&
	       epoch >= kvs_load_relaxed(&hot->oldest_valid);
}

static inline bool kvs_epoch_inside(const struct kvs_slot *slot)
{
	return (kvs_load_relaxed(&slot->word) & KVS_NESTING_MASK) != 0;
}
