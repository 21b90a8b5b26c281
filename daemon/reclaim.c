// SPDX-License-Identifier: MIT
//
// What waits is a list that stands in the memory itself, at the head of each piece. Its pages go
// back from the end on, by madvise(); free() then finds next to nothing left to unmap.
#include "daemon/reclaim.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "shm/limits.h"

struct reclaim_item {
	struct reclaim_item *next;
	size_t bytes; // from its head on that still have pages
};

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

bool reclaim_turn(struct reclaim *reclaim)
{
	struct reclaim_item *item = reclaim->first;
	if (!item) {
		return false;
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
		free(item);
	}
	return reclaim->first != NULL;
}

void reclaim_finish(struct reclaim *reclaim)
{
	while (reclaim->first) {
		struct reclaim_item *item = reclaim->first;
		reclaim->first = item->next;
		free(item);
	}
	reclaim->waiting_bytes = 0;
}
