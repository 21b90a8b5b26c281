// SPDX-License-Identifier: MIT
//
// Memory of the timing wheel: chunks of a few items, cut from arenas of a megabyte and named by
// numbers of 32 bits. An arena whose chunks have all come back is given back itself, but for one,
// so that what a million keys took is not kept when they are gone.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct reclaim;

#define WHEEL_CHUNK_ITEMS 29u
#define WHEEL_ARENA_SHIFT 12u // chunks of an arena, as a power of two
#define WHEEL_ARENA_CHUNKS (1u << WHEEL_ARENA_SHIFT)

struct wheel_chunk {
	uint32_t next;	 // number of the next in its list, 0 = none
	uint32_t number; // its own
	uint32_t count;
	uint32_t reserved;
	uint64_t time_ms; // of what was its first item
	uint64_t items[WHEEL_CHUNK_ITEMS];
};
_Static_assert(sizeof(struct wheel_chunk) == 256, "four lines");

struct wheel_arena {
	struct wheel_chunk *chunks; // NULL = none here
	uint32_t used;		    // chunks in use
	uint32_t fresh;		    // chunks from here on were never used
	uint32_t given;		    // number of the first that came back, 0 = none
	uint32_t before, after;	    // others with free chunks, index + 1, 0 = none
};

/// All zero = empty.
struct wheel_pool {
	struct wheel_arena *arenas;
	uint32_t count;		 // places for arenas
	uint32_t vacant;	 // of them with none
	uint32_t first, last;	 // arenas with free chunks, index + 1
	uint32_t idle;		 // arenas of which nothing is in use
	struct reclaim *reclaim; // takes what is given back, NULL = free it at once
};

/// A chunk of the number, which is in use.
static inline struct wheel_chunk *wheel_pool_chunk(const struct wheel_pool *pool, uint32_t number)
{
	uint32_t index = number - 1;
	return &pool->arenas[index >> WHEEL_ARENA_SHIFT].chunks[index & (WHEEL_ARENA_CHUNKS - 1)];
}

/// The number of a chunk, whose bytes may be anything; 0 if memory is short.
uint32_t wheel_pool_take(struct wheel_pool *pool);
void wheel_pool_give(struct wheel_pool *pool, uint32_t number);

/// Bytes of all arenas.
size_t wheel_pool_bytes(const struct wheel_pool *pool);

/// All chunks have come back; the arenas go to `reclaim`, but for one.
void wheel_pool_clear(struct wheel_pool *pool, struct reclaim *reclaim);
void wheel_pool_fini(struct wheel_pool *pool);
