// SPDX-License-Identifier: MIT
//
// Moves: which records stand elsewhere in the store after compaction. Whoever keeps a place needs
// every one of them, so none is dropped: while many wait to be taken, compaction rests, and one
// transaction adds a bounded number.
#include <stdlib.h>
#include <string.h>

#include "daemon/persist_internal.h"

bool persist_moves_reserve(struct persist *persist)
{
	struct persist_moves *moves = &persist->moves;
	if (persist->txn.moves_count + PERSIST_GROUP_RECORDS <= moves->fresh_capacity) {
		return true;
	}
	size_t capacity = moves->fresh_capacity == 0 ? 4096 : moves->fresh_capacity * 2;
	if (capacity > PERSIST_MOVES_MAX) {
		return false;
	}
	struct persist_move *fresh = realloc(moves->fresh, capacity * sizeof(*fresh));
	if (fresh == NULL) {
		return false;
	}
	moves->fresh = fresh;
	// Room to publish what this transaction may collect is made now, while it can still
	// decline.
	pthread_mutex_lock(&persist->mutex);
	size_t ready_capacity = PERSIST_MOVES_MAX + capacity;
	struct persist_move *ready = realloc(moves->ready, ready_capacity * sizeof(*ready));
	if (ready != NULL) {
		moves->ready = ready;
		moves->ready_capacity = ready_capacity;
		moves->fresh_capacity = capacity;
	}
	pthread_mutex_unlock(&persist->mutex);
	return ready != NULL;
}

void persist_moves_add(struct persist *persist, uint64_t hash, uint64_t seq, uint64_t place)
{
	persist->moves.fresh[persist->txn.moves_count++] =
		(struct persist_move){ .hash = hash, .seq = seq, .place = place };
}

void persist_moves_publish(struct persist *persist)
{
	struct persist_moves *moves = &persist->moves;
	if (persist->txn.moves_count == 0) {
		return;
	}
	pthread_mutex_lock(&persist->mutex);
	// Fits: compaction rests from PERSIST_MOVES_MAX on.
	memcpy(moves->ready + moves->ready_count, moves->fresh,
	       persist->txn.moves_count * sizeof(*moves->fresh));
	moves->ready_count += persist->txn.moves_count;
	if (moves->ready_count >= PERSIST_MOVES_MAX) {
		kvs_store_release(&persist->moves_waiting, 1); // partner: persist_compact()
	}
	pthread_mutex_unlock(&persist->mutex);
}

size_t persist_take_moves(struct persist *persist, struct persist_move *out, size_t max)
{
	struct persist_moves *moves = &persist->moves;
	pthread_mutex_lock(&persist->mutex);
	size_t count = moves->ready_count < max ? moves->ready_count : max;
	if (count > 0) {
		memcpy(out, moves->ready, count * sizeof(*out));
		moves->ready_count -= count;
		memmove(moves->ready, moves->ready + count, moves->ready_count * sizeof(*out));
	}
	bool resumes = moves->ready_count == 0 && kvs_load_relaxed(&persist->moves_waiting) != 0;
	if (resumes) {
		kvs_store_release(&persist->moves_waiting, 0); // partner: persist_compact()
		if (kvs_load_relaxed(&persist->sleeping) == PERSIST_SLEEP_IDLE) {
			kvs_store_relaxed(&persist->sleeping, PERSIST_AWAKE);
			pthread_cond_signal(&persist->wake);
		}
	}
	pthread_mutex_unlock(&persist->mutex);
	return count;
}
