// SPDX-License-Identifier: MIT
//
// Arenas with free chunks are a list. Chunks are taken from its head, and an arena in which one
// comes free joins at its end: so those that were emptied last are filled last, and run dry.
#include "daemon/wheel_pool.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/reclaim.h"
#include "shm/mapped.h"

#define ARENA_BYTES (WHEEL_ARENA_CHUNKS * sizeof(struct wheel_chunk))
#define ARENAS_MAX (UINT32_MAX >> WHEEL_ARENA_SHIFT)

static void link_last(struct wheel_pool *pool, uint32_t arena)
{
	struct wheel_arena *at = &pool->arenas[arena - 1];
	at->before = pool->last;
	at->after = 0;
	if (pool->last != 0) {
		pool->arenas[pool->last - 1].after = arena;
	} else {
		pool->first = arena;
	}
	pool->last = arena;
}

static void unlink_arena(struct wheel_pool *pool, uint32_t arena)
{
	const struct wheel_arena *at = &pool->arenas[arena - 1];
	if (at->before != 0) {
		pool->arenas[at->before - 1].after = at->after;
	} else {
		pool->first = at->after;
	}
	if (at->after != 0) {
		pool->arenas[at->after - 1].before = at->before;
	} else {
		pool->last = at->before;
	}
}

// A place for one more arena, as index + 1; 0 if memory is short.
static uint32_t vacant_place(struct wheel_pool *pool)
{
	for (uint32_t i = 0; pool->vacant > 0 && i < pool->count; i++) {
		if (pool->arenas[i].chunks == NULL) {
			return i + 1;
		}
	}
	uint32_t count = pool->count > 0 ? pool->count * 2 : 16;
	if (count > ARENAS_MAX) {
		return 0;
	}
	struct wheel_arena *arenas = realloc(pool->arenas, count * sizeof(*arenas));
	if (arenas == NULL) {
		return 0;
	}
	memset(arenas + pool->count, 0, (count - pool->count) * sizeof(*arenas));
	uint32_t place = pool->count + 1;
	pool->vacant += count - pool->count;
	pool->arenas = arenas;
	pool->count = count;
	return place;
}

static uint32_t add_arena(struct wheel_pool *pool)
{
	uint32_t place = vacant_place(pool);
	struct wheel_chunk *chunks = place != 0 ? kvs_mapped_alloc(ARENA_BYTES) : NULL;
	if (chunks == NULL) {
		return 0;
	}
	pool->arenas[place - 1] = (struct wheel_arena){ .chunks = chunks };
	pool->vacant--;
	pool->idle++;
	link_last(pool, place);
	return place;
}

uint32_t wheel_pool_take(struct wheel_pool *pool)
{
	uint32_t place = pool->first != 0 ? pool->first : add_arena(pool);
	if (place == 0) {
		return 0;
	}
	struct wheel_arena *arena = &pool->arenas[place - 1];
	uint32_t number = arena->given;
	if (number != 0) {
		arena->given = wheel_pool_chunk(pool, number)->next;
	} else {
		number = ((place - 1) << WHEEL_ARENA_SHIFT) + arena->fresh++ + 1;
	}
	pool->idle -= arena->used == 0;
	if (++arena->used == WHEEL_ARENA_CHUNKS) {
		unlink_arena(pool, place);
	}
	return number;
}

static void drop_arena(struct wheel_pool *pool, uint32_t place, struct reclaim *reclaim)
{
	struct wheel_arena *arena = &pool->arenas[place - 1];
	unlink_arena(pool, place);
	if (reclaim != NULL) {
		reclaim_free_mapped(reclaim, arena->chunks, ARENA_BYTES);
	} else {
		kvs_mapped_free(arena->chunks, ARENA_BYTES);
	}
	*arena = (struct wheel_arena){ 0 };
	pool->vacant++;
}

void wheel_pool_give(struct wheel_pool *pool, uint32_t number)
{
	uint32_t place = ((number - 1) >> WHEEL_ARENA_SHIFT) + 1;
	struct wheel_arena *arena = &pool->arenas[place - 1];
	wheel_pool_chunk(pool, number)->next = arena->given;
	arena->given = number;
	if (arena->used-- == WHEEL_ARENA_CHUNKS) {
		link_last(pool, place);
	}
	if (arena->used > 0) {
		return;
	}
	if (pool->idle > 0) {
		drop_arena(pool, place, pool->reclaim);
	} else {
		pool->idle++;
	}
}

size_t wheel_pool_bytes(const struct wheel_pool *pool)
{
	return (pool->count - pool->vacant) * ARENA_BYTES;
}

void wheel_pool_clear(struct wheel_pool *pool, struct reclaim *reclaim)
{
	bool kept = false;
	pool->first = 0;
	pool->last = 0;
	for (uint32_t place = 1; place <= pool->count; place++) {
		struct wheel_arena *arena = &pool->arenas[place - 1];
		if (arena->chunks == NULL) {
			continue;
		}
		*arena = (struct wheel_arena){ .chunks = arena->chunks };
		link_last(pool, place);
		if (kept) {
			drop_arena(pool, place, reclaim);
		}
		kept = true;
	}
	pool->idle = kept;
}

void wheel_pool_fini(struct wheel_pool *pool)
{
	wheel_pool_clear(pool, NULL);
	if (pool->first != 0) {
		drop_arena(pool, pool->first, NULL);
	}
	free(pool->arenas);
	*pool = (struct wheel_pool){ 0 };
}
