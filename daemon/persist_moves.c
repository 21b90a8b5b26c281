// SPDX-License-Identifier: MIT
//
// Moves: which records stand elsewhere in the store after compaction. Whoever keeps a place needs
// every one of them, so none is dropped: while many wait to be taken, compaction rests, and one
// transaction adds a bounded number. Only stubs keep places that must hold. A value whose place is
// a former one is told from others by the block's number (persist_judged()), and the loop has to
// search for values that are moved only while some are to leave memory (persist_follow_values()).
#include <stdlib.h>
#include <string.h>

#include "daemon/persist_internal.h"

// A move as it stands in a list, followed by its key.
struct move_head {
	uint64_t seq;
	uint64_t place;
	uint64_t key_bytes;
};

#define MOVE_BYTES_MAX (sizeof(struct move_head) + ((KVS_KEY_BYTES_MAX + 7) & ~7u))
#define MOVES_GROUP_BYTES (PERSIST_GROUP_RECORDS * MOVE_BYTES_MAX)
#define MOVES_FIRST_BYTES (4 * MOVES_GROUP_BYTES)

static bool list_reserve(struct persist_moves_list *list, size_t capacity)
{
	if (list->capacity >= capacity) {
		return true;
	}
	unsigned char *bytes = realloc(list->bytes, capacity);
	if (bytes == NULL) {
		return false;
	}
	list->bytes = bytes;
	list->capacity = capacity;
	return true;
}

bool persist_moves_reserve(struct persist *persist)
{
	struct persist_moves *moves = &persist->moves;
	size_t capacity = moves->fresh.capacity == 0 ? MOVES_FIRST_BYTES : moves->fresh.capacity;
	while (capacity < moves->fresh.used + MOVES_GROUP_BYTES) {
		capacity *= 2;
	}
	if (capacity == moves->fresh.capacity) {
		return true;
	}
	if (capacity > PERSIST_MOVES_BYTES_MAX) {
		return false;
	}
	// Room to publish what this transaction may collect is made now, while it can still
	// decline.
	pthread_mutex_lock(&persist->mutex);
	bool good = list_reserve(&moves->ready, PERSIST_MOVES_BYTES_MAX + capacity);
	pthread_mutex_unlock(&persist->mutex);
	return good && list_reserve(&moves->fresh, capacity);
}

void persist_moves_add(struct persist *persist, const struct kvs_record_view *view, uint64_t place)
{
	struct persist_moves_list *fresh = &persist->moves.fresh;
	const struct move_head head = {
		.seq = view->seq,
		.place = place,
		.key_bytes = view->key_bytes,
	};
	memcpy(fresh->bytes + fresh->used, &head, sizeof(head));
	memcpy(fresh->bytes + fresh->used + sizeof(head), view->key, view->key_bytes);
	fresh->used += sizeof(head) + ((view->key_bytes + 7) & ~(size_t)7);
}

void persist_moves_forget(struct persist *persist)
{
	persist->moves.fresh.used = 0;
}

void persist_moves_publish(struct persist *persist)
{
	struct persist_moves *moves = &persist->moves;
	if (moves->fresh.used == 0) {
		return;
	}
	pthread_mutex_lock(&persist->mutex);
	// Fits: compaction rests from PERSIST_MOVES_BYTES_MAX on, and no list that takes the place
	// of this one is shorter.
	memcpy(moves->ready.bytes + moves->ready.used, moves->fresh.bytes, moves->fresh.used);
	moves->ready.used += moves->fresh.used;
	if (moves->ready.used >= PERSIST_MOVES_BYTES_MAX) {
		kvs_store_release(&persist->moves_waiting, 1); // partner: persist_compact()
	}
	pthread_mutex_unlock(&persist->mutex);
	moves->fresh.used = 0;
}

void persist_moves_void(struct persist *persist)
{
	persist_moves_forget(persist);
	pthread_mutex_lock(&persist->mutex);
	persist->moves.ready.used = 0;
	kvs_store_release(&persist->moves_waiting, 0); // partner: persist_compact()
	pthread_mutex_unlock(&persist->mutex);
}

// What is ready becomes what the loop goes through. False if there is nothing, or no memory for as
// long a list now.
static bool take_ready(struct persist *persist)
{
	struct persist_moves *moves = &persist->moves;
	pthread_mutex_lock(&persist->mutex);
	bool taken = moves->ready.used > 0 && list_reserve(&moves->taken, moves->ready.capacity);
	if (taken) {
		struct persist_moves_list empty = moves->taken;
		empty.used = 0;
		moves->taken = moves->ready;
		moves->ready = empty;
		moves->taken_done = 0;
	}
	if (taken && kvs_load_relaxed(&persist->moves_waiting) != 0) {
		kvs_store_release(&persist->moves_waiting, 0); // partner: persist_compact()
		if (kvs_load_relaxed(&persist->sleeping) == PERSIST_SLEEP_IDLE) {
			kvs_store_relaxed(&persist->sleeping, PERSIST_AWAKE);
			pthread_cond_signal(&persist->wake);
		}
	}
	pthread_mutex_unlock(&persist->mutex);
	return taken;
}

bool persist_next_move(struct persist *persist, struct persist_move *move)
{
	struct persist_moves *moves = &persist->moves;
	if (moves->taken_done == moves->taken.used && !take_ready(persist)) {
		return false;
	}
	struct move_head head;
	const unsigned char *at = moves->taken.bytes + moves->taken_done;
	memcpy(&head, at, sizeof(head));
	*move = (struct persist_move){
		.seq = head.seq,
		.place = head.place,
		.key = at + sizeof(head),
		.key_bytes = head.key_bytes,
	};
	moves->taken_done += sizeof(head) + ((head.key_bytes + 7) & ~(size_t)7);
	return true;
}

void persist_moves_fini(struct persist *persist)
{
	free(persist->moves.fresh.bytes);
	free(persist->moves.ready.bytes);
	free(persist->moves.taken.bytes);
}

const uint64_t *persist_judged(const struct persist *persist)
{
	return &persist->judged;
}
