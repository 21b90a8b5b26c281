// SPDX-License-Identifier: MIT
//
// Where in the store the records stand whose places are not known: of stubs, whose last moves a
// kill kept from being told; of all of them, when the store was written anew; and of values that
// are to leave memory, for compaction tells their moves only while memory is short. Blocks are read
// through once, newest first, since what was not told was moved last. A current record whose key
// names a place that compaction has passed is told the one that it has, as a move. How many stubs
// do not know their place after a kill was counted as the region was taken over: when all are told
// the rest of the store is left.
//
// It misses nothing: a block that compaction takes away in the meantime has its moves told as they
// are made, and those come behind what was found here. What compaction has judged of the block that
// it is at has been told, too, and must not be told this place again: the block goes.
#include "daemon/persist_internal.h"
#include "daemon/storage/store_read.h"

#define PLACES_BLOCKS 32u // in one go, between two commits

void persist_places_look(struct persist *persist)
{
	struct store_facts facts;
	if (persist->cold == NULL) {
		return;
	}
	store_facts(persist->options.store, &facts);
	persist->places_next = facts.next_block;
	persist->places_counted = false;	      // for more than that
	kvs_store_relaxed(&persist->places_known, 0); // partner: persist_places_known()
}

void persist_places_take_wish(struct persist *persist)
{
	// Acquire: partner persist_want_places().
	if (kvs_load_acquire(&persist->places_wanted) == 0) {
		return;
	}
	kvs_store_relaxed(&persist->places_wanted, 0);
	persist->places_values = true;
	persist_places_look(persist);
}

bool persist_places_due(const struct persist *persist)
{
	return persist->places_next != 0 && !persist->untrusted &&
	       kvs_load_acquire(&persist->moves_waiting) == 0; // partner: persist_next_move()
}

// Of the records of a group that are current, those whose keys do not know where they stand.
static void tell_group(struct persist *persist, uint64_t number, uint64_t oldest,
		       struct persist_candidate *group, unsigned count)
{
	persist_lookup(persist, group, count);
	for (unsigned i = 0; i < count; i++) {
		const struct persist_candidate *candidate = &group[i];
		if (candidate->current == PERSIST_CURRENT_SEQ &&
		    candidate->current_seq == candidate->view.seq &&
		    (candidate->is_stub || persist->places_values) &&
		    (number != persist->compact.number ||
		     candidate->offset >= persist->compact.offset) &&
		    kvs_place_block(candidate->current_place) < oldest) {
			persist_moves_add(persist, &candidate->view,
					  store_block_place(number, candidate->offset));
		}
	}
}

// False: moves must be taken first, and the block be looked at again.
static bool tell_block(struct persist *persist, const struct store_block *block, uint64_t oldest)
{
	struct persist_candidate group[PERSIST_GROUP_RECORDS];
	uint64_t packed_bytes;
	uint32_t offset = 0;
	unsigned count;
	if ((block->flags & STORE_BLOCK_REST) != 0) {
		return true;
	}
	if (block->flags != 0) {
		group[0].offset = 0;
		if (!persist_moves_reserve(persist)) {
			return false;
		}
		if (store_packed_parse(block->payload, block->span_bytes, &group[0].view,
				       &group[0].value, &packed_bytes) == 0) {
			tell_group(persist, block->number, oldest, group, 1);
		}
		return true;
	}
	do {
		if (!persist_moves_reserve(persist)) {
			return false;
		}
		for (count = 0; count < PERSIST_GROUP_RECORDS; count++) {
			group[count].offset = offset;
			if (store_block_next(block, &offset, &group[count].view,
					     &group[count].value) <= 0) {
				break;
			}
		}
		tell_group(persist, block->number, oldest, group, count);
	} while (count == PERSIST_GROUP_RECORDS);
	return true;
}

// One block. False: no further in this go.
static bool look_at(struct persist *persist, uint64_t number, uint64_t oldest)
{
	const struct store_block *block;
	switch (store_reader_block(persist->cold, number, &block)) {
	case STORE_OK:
		return tell_block(persist, block, oldest);
	case STORE_READ_GONE:
	case STORE_DAMAGED: // compaction, or a verification, will say so
		return true;
	default:
		// Another attempt in a while; a store that failed is written anew, and then all of
		// that one is looked at.
		persist->places_retry_ns =
			persist->options.seam->monotonic_ns() + PERSIST_PLACES_RETRY_NS;
		return false;
	}
}

void persist_places_step(struct persist *persist)
{
	struct store_facts facts;
	store_facts(persist->options.store, &facts);
	persist_moves_forget(persist);
	persist->places_retry_ns = 0;
	for (unsigned i = 0; i < PLACES_BLOCKS && persist->places_next > facts.oldest_block; i++) {
		if (!look_at(persist, persist->places_next - 1, facts.oldest_block)) {
			break;
		}
		persist->places_next--;
	}
	// Relaxed: what it says does not become untrue (partner: persist_places_enough()).
	bool enough = persist->places_counted && kvs_load_relaxed(&persist->places_enough) != 0;
	bool over = enough || persist->places_next <= facts.oldest_block;
	persist_moves_publish(persist);
	if (over) {
		persist->places_next = 0;
		persist->places_values = false;
		// Release: the moves are there to be taken (partner: persist_places_known()).
		kvs_store_release(&persist->places_known, 1);
	}
}

// ---- the loop's ----

void persist_want_places(struct persist *persist)
{
	kvs_store_release(&persist->places_wanted, 1); // partner: persist_places_take_wish()
	persist_bring(persist, PERSIST_SLEEP_LAZY);
}

void persist_places_enough(struct persist *persist)
{
	kvs_store_relaxed(&persist->places_enough, 1); // partner: persist_places_step()
}

void persist_follow_values(struct persist *persist, bool follow)
{
	kvs_store_relaxed(&persist->follow_values, follow); // a hint; partner: note_move()
}

bool persist_places_known(struct persist *persist)
{
	const struct persist_moves *moves = &persist->moves;
	// Acquire, and first: partner persist_places_step().
	if (kvs_load_acquire(&persist->places_known) == 0 ||
	    moves->taken_done != moves->taken.used) {
		return false;
	}
	pthread_mutex_lock(&persist->mutex);
	bool none = moves->ready.used == 0;
	pthread_mutex_unlock(&persist->mutex);
	return none;
}
