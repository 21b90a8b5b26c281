// SPDX-License-Identifier: MIT
//
// Large pieces of memory, and very many small ones, are given back a little in every turn: the
// kernel takes tens of milliseconds to take back what one connection may hold, as long as free()
// takes for half a million pieces, and everybody would wait for it.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define RECLAIM_WHOLE_BYTES (1u << 20)	  // smaller pieces are freed at once
#define RECLAIM_TURN_BYTES (2u << 20)	  // of the others so much in one turn
#define RECLAIM_TURN_PIECES 1024u	  // and so many small ones,
#define RECLAIM_TURNS 128u		  // or this part of them, if that is more
#define RECLAIM_WAITING_MAX (512ul << 20) // beyond that they are freed at once, too

struct reclaim_item;

/// All zero = nothing waits.
struct reclaim {
	struct reclaim_item *first;
	size_t waiting_bytes;
	size_t waiting_pieces;
};

/// Has malloc() make a map of its own for every large piece (KVS_MAPPED_BYTES), for good, unless
/// its heap has room for it: that grows without a copy, and free() gives it back. By itself glibc
/// does so only until one was freed; from then on its heap grows for pieces up to that size. Other
/// libraries' malloc() is left as it is.
void reclaim_map_large(void);
/// Frees memory of malloc(), of which `bytes` are known to be usable; NULL is fine.
void reclaim_free(struct reclaim *reclaim, void *memory, size_t bytes);
/// The same for memory of kvs_mapped_alloc() and kvs_mapped_grow(), of that size.
void reclaim_free_mapped(struct reclaim *reclaim, void *memory, size_t bytes);
/// Frees an array of malloc() and what `count` elements of `each` bytes in it point to, at `offset`
/// in the element: memory of malloc(), too. `bytes` are the array's, `all_bytes` with the pieces.
void reclaim_free_each(struct reclaim *reclaim, void *array, size_t bytes, size_t count,
		       size_t each, size_t offset, size_t all_bytes);
/// One turn's part. True if there is more to do.
bool reclaim_turn(struct reclaim *reclaim);
/// Frees all that waits.
void reclaim_finish(struct reclaim *reclaim);
