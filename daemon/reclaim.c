// SPDX-License-Identifier: MIT
//
// What waits is a list that stands in the memory itself, at the head of each piece. Its pages go
// back from the end on, by madvise(); free() then finds next to nothing left to unmap. An array of
// pieces is emptied from its end on, and then goes the same way.
#include "daemon/reclaim.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/limits.h"
#include "shm/mapped.h"

struct reclaim_item {
	struct reclaim_item *next;
	size_t bytes; // from its head on that still have pages; of an array: with its pieces
	size_t each;  // of an array, 0 = it is none
	size_t offset;
	size_t count; // elements whose pieces are still there
	size_t array_bytes;
	size_t mapped_bytes; // a map of so many bytes, 0 = it is malloc()'s
};

void reclaim_map_large(void)
{
	// Naming it keeps it where it is.
	(void)mallopt(M_MMAP_THRESHOLD, (int)KVS_MAPPED_BYTES);
}

void reclaim_free(struct reclaim *reclaim, void *memory, size_t bytes)
{
	if (!memory || bytes < RECLAIM_WHOLE_BYTES ||
	    reclaim->waiting_bytes + bytes > RECLAIM_WAITING_MAX) {
		free(memory);
		return;
	}
	struct reclaim_item *item = memory;
	*item = (struct reclaim_item){ .next = reclaim->first, .bytes = bytes };
	reclaim->first = item;
	reclaim->waiting_bytes += bytes;
}

void reclaim_free_mapped(struct reclaim *reclaim, void *memory, size_t bytes)
{
	if (!memory || bytes < RECLAIM_WHOLE_BYTES ||
	    reclaim->waiting_bytes + bytes > RECLAIM_WAITING_MAX) {
		kvs_mapped_free(memory, bytes);
		return;
	}
	reclaim_free(reclaim, memory, bytes);
	reclaim->first->mapped_bytes = bytes;
}

/// Where the array holds its `i`-th piece. Elements need not be aligned for it in the eyes of the
/// compiler.
static void *reclaim_piece(const void *array, size_t i, size_t each, size_t offset)
{
	void *piece;
	memcpy(&piece, (const char *)array + i * each + offset, sizeof(piece));
	return piece;
}

/// How many elements the item stands over.
static size_t reclaim_covered(size_t each)
{
	return (sizeof(struct reclaim_item) + each - 1) / each;
}

void reclaim_free_each(struct reclaim *reclaim, void *array, size_t bytes, size_t count,
		       size_t each, size_t offset, size_t all_bytes)
{
	size_t covered = reclaim_covered(each);
	bool wait = count > covered + RECLAIM_TURN_PIECES / 4 &&
		    reclaim->waiting_bytes + all_bytes <= RECLAIM_WAITING_MAX;
	for (size_t i = 0; i < (wait ? covered : count); i++) {
		free(reclaim_piece(array, i, each, offset));
	}
	if (!wait) {
		reclaim_free(reclaim, array, bytes);
		return;
	}
	struct reclaim_item *item = array;
	*item = (struct reclaim_item){ .next = reclaim->first,
				       .bytes = all_bytes,
				       .each = each,
				       .offset = offset,
				       .count = count,
				       .array_bytes = bytes };
	reclaim->first = item;
	reclaim->waiting_bytes += all_bytes;
	reclaim->waiting_pieces += count - covered;
}

/// Takes the array, the first of those that wait, from the list; what it points to is gone.
static void reclaim_array_done(struct reclaim *reclaim, struct reclaim_item *item)
{
	size_t bytes = item->array_bytes;
	reclaim->first = item->next;
	reclaim->waiting_bytes -= item->bytes;
	reclaim_free(reclaim, item, bytes);
}

/// Frees pieces of the first that waits, an array.
static void reclaim_turn_each(struct reclaim *reclaim, struct reclaim_item *item)
{
	// A part of all that wait: whoever makes them faster finds his turns as much longer.
	size_t pieces = reclaim->waiting_pieces / RECLAIM_TURNS;
	pieces = pieces > RECLAIM_TURN_PIECES ? pieces : RECLAIM_TURN_PIECES;
	size_t covered = reclaim_covered(item->each);
	size_t bytes = 0;
	for (; pieces > 0 && item->count > covered && bytes < RECLAIM_TURN_BYTES; pieces--) {
		void *piece = reclaim_piece(item, --item->count, item->each, item->offset);
		size_t piece_bytes = malloc_usable_size(piece);
		bytes += piece_bytes;
		reclaim->waiting_pieces--;
		if (piece_bytes < RECLAIM_WHOLE_BYTES) {
			free(piece);
			continue;
		}
		// It becomes an item of its own, behind the array, which stays the first.
		reclaim->first = item->next;
		reclaim_free(reclaim, piece, piece_bytes);
		item->next = reclaim->first;
		reclaim->first = item;
	}
	if (item->count <= covered) {
		reclaim_array_done(reclaim, item);
	}
}

static void reclaim_item_free(struct reclaim_item *item)
{
	if (item->mapped_bytes > 0) {
		kvs_mapped_free(item, item->mapped_bytes);
	} else {
		free(item);
	}
}

bool reclaim_turn(struct reclaim *reclaim)
{
	struct reclaim_item *item = reclaim->first;
	if (!item) {
		return false;
	}
	if (item->each > 0) {
		reclaim_turn_each(reclaim, item);
		return reclaim->first != NULL;
	}
	uintptr_t start = (uintptr_t)item;
	uintptr_t end = (start + item->bytes) & ~(uintptr_t)(KVS_PAGE_BYTES - 1);
	uintptr_t head =
		(start + sizeof(*item) + KVS_PAGE_BYTES) & ~(uintptr_t)(KVS_PAGE_BYTES - 1);
	uintptr_t from = end - head > RECLAIM_TURN_BYTES ? end - RECLAIM_TURN_BYTES : head;
	reclaim->waiting_bytes -= item->bytes - (from - start);
	item->bytes = from - start;
	// If the kernel refuses, free() gives the pages back: late, but all of them.
	if (from == head || madvise((void *)from, end - from, MADV_DONTNEED) != 0) {
		reclaim->waiting_bytes -= item->bytes;
		reclaim->first = item->next;
		reclaim_item_free(item);
	}
	return reclaim->first != NULL;
}

void reclaim_finish(struct reclaim *reclaim)
{
	while (reclaim->first) {
		struct reclaim_item *item = reclaim->first;
		reclaim->first = item->next;
		for (size_t i = item->each ? reclaim_covered(item->each) : 0; i < item->count;
		     i++) {
			free(reclaim_piece(item, i, item->each, item->offset));
		}
		reclaim_item_free(item);
	}
	reclaim->waiting_bytes = 0;
	reclaim->waiting_pieces = 0;
}
