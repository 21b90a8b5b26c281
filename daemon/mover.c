// SPDX-License-Identifier: MIT
//
// One value at a time is copied, in slices between turns, into a place outside of the stretch that
// is kept clear. Then a copy of its record that names that place is published, as the cleaner
// publishes its copies, and the old place waits for the readers there may be. Nobody sees the new
// place before, and a value that changes meanwhile is let be; so a kvd that is killed anywhere
// leaves either record, whole, and pages that no record names, which the next life frees.
//
// A record that is not durable names its place to the persister, and to a backup: it is moved when
// they have passed it. What is held is moved, too (cheaper places first): replies that are under
// way go on from the old one. What is only on its way in is not.
#include "daemon/mover.h"

#include <string.h>

#include "daemon/keyspace_internal.h"

#define MOVER_CHUNK_BYTES (128u << 10)	      // copied between two looks at the clock
#define MOVER_PATIENCE_NS UINT64_C(100000000) // nobody asked for so long: nobody waits
#define MOVER_AGAIN_NS UINT64_C(1000000)      // a reader or a commit is in the way
#define MOVER_ROUNDS 64u		 // of searches for one wish in which all may be moved again
#define MOVER_NONE_NS UINT64_C(10000000) // so long nothing is looked for in vain again

// Nothing is being copied any more.
static void copy_over(struct keyspace *keyspace)
{
	struct mover *mover = &keyspace->mover;
	if (mover->from != 0) {
		keyspace_unpin(keyspace, mover->to);
		keyspace_unpin(keyspace, mover->from);
	}
	mover->from = mover->to = 0;
}

static void mover_stop(struct keyspace *keyspace)
{
	copy_over(keyspace);
	kvs_large_want_over(&keyspace->large);
}

// Bytes that large values may still take without harm to what writes need.
static uint64_t free_bytes(const struct keyspace *keyspace)
{
	uint32_t free = kvs_log_segments_free(&keyspace->log);
	uint32_t reserve = keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE);
	reserve = keyspace->mover.at_once ? 0 : reserve; // then all that is free is for this
	return free > reserve ? (uint64_t)(free - reserve) << keyspace->region->segment_shift : 0;
}

static void search_begin(struct keyspace *keyspace, uint64_t bytes)
{
	struct mover *mover = &keyspace->mover;
	uint64_t most = free_bytes(keyspace);
	mover->search.run_bytes_max = most > bytes ? most : bytes;
	kvs_large_want(&keyspace->large, bytes, &mover->search);
}

uint64_t mover_bytes(const struct keyspace *keyspace)
{
	const struct mover *mover = &keyspace->mover;
	return mover->from != 0 ? kvs_large_bytes(keyspace->region, mover->value_bytes) : 0;
}

// Was no stretch found for as much or less, and is that so still, as far as is known? Each run that
// comes or goes may change it, but not each is worth a search.
static bool is_hopeless(const struct keyspace *keyspace, uint64_t bytes, uint64_t now_ns)
{
	const struct mover *mover = &keyspace->mover;
	return mover->none_bytes != 0 && bytes >= mover->none_bytes &&
	       (mover->none_changes == keyspace->large.changes ||
		now_ns < mover->none_ns + MOVER_NONE_NS);
}

int mover_asks(struct keyspace *keyspace, size_t value_bytes)
{
	struct kvs_large *large = &keyspace->large;
	struct mover *mover = &keyspace->mover;
	uint64_t bytes = kvs_large_bytes(keyspace->region, value_bytes);
	uint64_t now_ns = keyspace->seam->monotonic_ns();
	if (kvs_large_has_place(large, value_bytes)) {
		return KEYSPACE_FULL; // it is the machine that has no memory
	}
	if (is_hopeless(keyspace, bytes, now_ns)) {
		bool comes = mover->none_held || large->leaving_bytes > 0 ||
			     mover->none_changes != large->changes;
		return comes ? KEYSPACE_WAIT : KEYSPACE_FULL;
	}
	if (bytes > large->wanted_bytes) {
		copy_over(keyspace);
		mover->moved = mover->rounds = 0;
		search_begin(keyspace, bytes);
	}
	// Who wants less comes when this one has his place, or asks no more.
	if (bytes == large->wanted_bytes) {
		mover->asked_ns = now_ns;
	}
	return KEYSPACE_WAIT;
}

int mover_reserve(struct keyspace *keyspace, size_t value_bytes, uint64_t *offset)
{
	return kvs_large_reserve(&keyspace->large, value_bytes, offset) == 0
		       ? KEYSPACE_OK
		       : mover_asks(keyspace, value_bytes);
}

int mover_clears(struct keyspace *keyspace, size_t bytes)
{
	if (kvs_large_has_place(&keyspace->large, bytes)) {
		return KEYSPACE_OK; // and so has each of them
	}
	int result = mover_asks(keyspace, bytes);
	return result == KEYSPACE_FULL ? KEYSPACE_OK : result;
}

// The current record that names the run, and its entry. False if there is none: then the run is
// not moved.
static bool find_record(struct keyspace *keyspace, const struct kvs_large_run *run,
			struct kvs_record_view *view, uint64_t *hash, uint64_t **slot)
{
	const struct kvs_region *region = keyspace->region;
	if (run->references != 1 || run->record == 0) {
		return false;
	}
	uint32_t segment = kvs_log_segment_of(&keyspace->log, run->record);
	uint64_t start = run->record - kvs_region_segment_offset(region, segment);
	uint64_t end = kvs_log_written_bytes(&keyspace->log, segment);
	if (start >= end || kvs_record_parse(region->base + run->record, end - start, view) != 0 ||
	    (view->flags & KVS_RECORD_LARGE) == 0 || kvs_record_run(view).offset != run->offset) {
		return false;
	}
	*hash = keyspace_hash(keyspace, view->key, view->key_bytes);
	*slot = kvs_table_slot_of(&keyspace->table, *hash, run->record);
	return *slot != NULL && kvs_entry_kind(kvs_load_relaxed(*slot)) == KVS_ENTRY_LARGE;
}

// Has the persister, or a backup, yet to come to this version?
static bool is_followed(const struct keyspace *keyspace, uint64_t seq)
{
	return !keyspace->mover.at_once && seq > keyspace_passed_seq(keyspace);
}

enum move_result {
	MOVE_DONE,
	MOVE_WAIT,
	MOVE_STAYS, // this one does not go: another stretch is looked for
};

// Takes the run's new place. What has not come yet of memory or of a commit is waited for.
static enum move_result copy_begin(struct keyspace *keyspace, struct kvs_large_run *run)
{
	struct mover *mover = &keyspace->mover;
	struct kvs_record_view view;
	uint64_t hash, *slot;
	if (!find_record(keyspace, run, &view, &hash, &slot)) {
		return MOVE_STAYS;
	}
	if (is_followed(keyspace, view.seq)) {
		return MOVE_WAIT;
	}
	if (free_bytes(keyspace) < run->bytes) {
		bool later = keyspace->large.leaving_bytes > 0 ||
			     run->bytes <= keyspace->large.wanted_bytes;
		return later ? MOVE_WAIT : MOVE_STAYS;
	}
	if (kvs_large_reserve_low(&keyspace->large, view.value_bytes, &mover->to) != 0) {
		return MOVE_STAYS;
	}
	mover->from = run->offset;
	mover->value_bytes = view.value_bytes;
	mover->done = 0;
	mover->populated = 0;
	kvs_large_hold(&keyspace->large, run->offset);
	return MOVE_DONE;
}

// Copies a part of it, or gives pages to one. False if the machine has none.
static bool copy_chunk(struct keyspace *keyspace)
{
	struct mover *mover = &keyspace->mover;
	if (mover->populated <= mover->done) {
		return keyspace_run_populate(keyspace, mover->to, mover->value_bytes,
					     &mover->populated);
	}
	uint64_t bytes = mover->value_bytes - mover->done;
	uint64_t there = mover->populated - mover->done;
	bytes = bytes < there ? bytes : there;
	bytes = bytes < MOVER_CHUNK_BYTES ? bytes : MOVER_CHUNK_BYTES;
	unsigned char *base = keyspace->region->base;
	memcpy(base + mover->to + mover->done, base + mover->from + mover->done, bytes);
	mover->done += bytes;
	keyspace_counter_add(keyspace, KVS_COUNTER_large_moved_bytes, bytes);
	SEAM_CRASH(value_half_moved);
	return true;
}

// All of it is there: the record is copied with its new place, and the copy becomes the entry. Its
// checksum of the value is kept, not computed: it is of what was written once.
static enum move_result publish(struct keyspace *keyspace, const struct kvs_large_run *run)
{
	struct mover *mover = &keyspace->mover;
	struct kvs_record_view view;
	uint64_t hash, *slot, at;
	if (!find_record(keyspace, run, &view, &hash, &slot)) {
		return MOVE_STAYS;
	}
	if (is_followed(keyspace, view.seq)) {
		return MOVE_WAIT; // its time to live was changed
	}
	void *copy = kvs_log_append_survivor(&keyspace->log, view.record_bytes, view.seq, &at);
	if (copy == NULL) {
		return MOVE_WAIT;
	}
	(void)kvs_record_write_moved(copy, &view, mover->to);
	uint64_t entry = kvs_load_relaxed(slot);
	kvs_table_replace(&keyspace->table, hash, slot,
			  (entry & ~KVS_ENTRY_LOCATION_MASK) | at / 8);
	SEAM_CRASH(value_moved);
	kvs_log_live_sub(&keyspace->log, run->record, view.record_bytes);
	kvs_log_live_add(&keyspace->log, at, view.record_bytes);
	expire_moved(keyspace, at, view.expiry_ms);
	evict_carried(keyspace, run->record, at);
	kvs_large_settle(&keyspace->large, mover->to, at);
	(void)kvs_large_unref(&keyspace->large, mover->from); // it is held
	keyspace_counter_add(keyspace, KVS_COUNTER_large_moved, 1);
	if (kvs_large_drop(&keyspace->large, mover->from)) {
		// What is durable names it, and nobody who follows the log comes there again.
		keyspace_limbo_run(keyspace, mover->from);
	}
	mover->from = mover->to = 0;
	mover->moved++;
	return MOVE_DONE;
}

// A step for the value that is being copied.
static enum move_result copy_step(struct keyspace *keyspace)
{
	struct mover *mover = &keyspace->mover;
	struct kvs_large_run *run = kvs_large_run_at(&keyspace->large, mover->from);
	bool named = run != NULL && run->references > 0;
	if (named && mover->done < mover->value_bytes) {
		if (copy_chunk(keyspace)) {
			return MOVE_DONE;
		}
		run->stays = keyspace->large.wish;
		copy_over(keyspace);
		return MOVE_STAYS;
	}
	enum move_result result = named ? publish(keyspace, run) : MOVE_DONE;
	if (!named || result == MOVE_STAYS) {
		copy_over(keyspace); // it was replaced or removed: so it goes by itself
	}
	return result == MOVE_STAYS ? MOVE_DONE : result;
}

// A step of the next value in the way. One that does not go is no reason to leave the others: what
// they leave may be the place that it needs, by itself or in another stretch.
static enum move_result clear_step(struct keyspace *keyspace)
{
	struct kvs_large *large = &keyspace->large;
	struct kvs_large_run *run = kvs_large_in_the_way(large);
	bool stays = false;
	for (; run != NULL; run = kvs_large_next_in_the_way(large, run)) {
		if (run->references == 0) {
			continue; // it leaves; or it came as the place was not kept yet
		}
		enum move_result result =
			run->stays == large->wish ? MOVE_STAYS : copy_begin(keyspace, run);
		if (result == MOVE_DONE) {
			return MOVE_DONE;
		}
		if (result == MOVE_STAYS) {
			run->stays = large->wish;
			stays = true;
		}
	}
	return stays ? MOVE_STAYS : MOVE_WAIT;
}

// A part of the search.
static void search_step(struct keyspace *keyspace)
{
	struct mover *mover = &keyspace->mover;
	struct kvs_large *large = &keyspace->large;
	if (!kvs_large_search(large, &mover->search)) {
		return;
	}
	if (mover->search.cost != UINT64_MAX) {
		kvs_large_keep_clear(large, mover->search.from);
		return;
	}
	if (mover->moved > 0 && mover->rounds < MOVER_ROUNDS) {
		// Others went: what had no place may have one now.
		large->wish++;
		mover->rounds++;
		mover->moved = 0;
		search_begin(keyspace, large->wanted_bytes);
		return;
	}
	mover->none_bytes = large->wanted_bytes;
	mover->none_held = mover->search.held;
	mover->none_changes = large->changes;
	mover->none_ns = keyspace->seam->monotonic_ns();
	kvs_large_want_over(large); // who wants less may find some
}

// One step of whatever is to be done. False if something has to come first.
static bool mover_step(struct keyspace *keyspace)
{
	struct mover *mover = &keyspace->mover;
	struct kvs_large *large = &keyspace->large;
	enum move_result result;
	if (mover->from != 0) {
		result = copy_step(keyspace);
	} else if (large->clear_from == large->clear_to) {
		search_step(keyspace);
		return large->wanted_bytes != 0;
	} else {
		result = clear_step(keyspace);
	}
	if (result == MOVE_STAYS) {
		search_begin(keyspace, large->wanted_bytes);
	}
	return result != MOVE_WAIT;
}

bool mover_makes_place(struct keyspace *keyspace, size_t value_bytes)
{
	struct mover *mover = &keyspace->mover;
	mover->at_once = true;
	mover->moved = mover->rounds = 0;
	search_begin(keyspace, kvs_large_bytes(keyspace->region, value_bytes));
	bool made = false, freed = true;
	while (!made && freed && keyspace->large.wanted_bytes != 0) {
		while (mover_step(keyspace)) {
		}
		freed = keyspace_recover_drain(keyspace);
		made = kvs_large_has_place(&keyspace->large, value_bytes);
	}
	mover_stop(keyspace);
	mover->at_once = false;
	mover->none_bytes = 0;
	return made;
}

uint64_t mover_turn(struct keyspace *keyspace, uint64_t now_ns)
{
	struct mover *mover = &keyspace->mover;
	struct kvs_large *large = &keyspace->large;
	if (__builtin_expect(large->wanted_bytes == 0, 1)) {
		if (mover->from != 0) {
			mover_stop(keyspace); // who waited has his place
		}
		return UINT64_MAX;
	}
	if (now_ns >= mover->asked_ns + MOVER_PATIENCE_NS) {
		mover_stop(keyspace);
		return UINT64_MAX;
	}
	uint64_t until_ns = keyspace->seam->monotonic_ns() + CLEANER_SLICE_NS;
	while (mover_step(keyspace)) {
		if (keyspace->seam->monotonic_ns() >= until_ns) {
			return now_ns;
		}
	}
	if (large->leaving_bytes > 0 && kvs_large_in_the_way(large) != NULL) {
		keyspace_push_limbo(keyspace, now_ns); // a place waits for its readers
	}
	return now_ns + MOVER_AGAIN_NS;
}
