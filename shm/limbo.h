// SPDX-License-Identifier: MIT
//
// Limbo: things that wait until nobody can be looking at them. What no entry points at any more
// waits for the readers: its stamp is an epoch, and what comes out goes back to its allocator. What
// must not change before it is durable (daemon/keyspace_follow.c) waits for a commit: its stamp is
// a seq. Either is one FIFO, because stamps only rise; it is in blocks, so that it grows and
// shrinks without a pause, however long it becomes.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kvs_limbo_kind {
	KVS_LIMBO_SEGMENT,  // a = segment index, b = its bytes
	KVS_LIMBO_OVERFLOW, // a = overflow bucket index, b = side
	KVS_LIMBO_RUN,	    // a = offset of a large run, b = its bytes
	KVS_LIMBO_SIDE,	    // a = side of the table, b = its bytes
	KVS_LIMBO_TAIL,	    // a = side of a table that shrank, b = bytes behind its last bucket
};

struct kvs_limbo_item {
	uint64_t stamp; // epoch in which it was unlinked, or seq that must become durable
	uint64_t a;
	uint64_t b;
	uint64_t before; // bytes that were queued before it, ever
	uint32_t kind;	 // enum kvs_limbo_kind, or the owner's own
};

#define KVS_LIMBO_BLOCK_SHIFT 10u
#define KVS_LIMBO_BLOCK_ITEMS (1u << KVS_LIMBO_BLOCK_SHIFT)

struct kvs_limbo {
	struct kvs_limbo_item **blocks; // ring, of blocks in use
	struct kvs_limbo_item *spare;	// a block that is not, NULL = none
	size_t capacity;		// of the ring, a power of two
	size_t head;			// position of the oldest, of all that ever were
	size_t count;
	uint64_t bytes; // queued, ever; of kinds of the owner's own it means nothing
	uint64_t lost;	// items that could not be queued for lack of memory: leaked until restart
};

/// Prepares an empty limbo; false if memory is short.
bool kvs_limbo_init(struct kvs_limbo *limbo);
void kvs_limbo_fini(struct kvs_limbo *limbo);

/// Queues an item. If the ring cannot grow the item is leaked and counted, never reused too early.
void kvs_limbo_push(struct kvs_limbo *limbo, uint64_t stamp, uint32_t kind, uint64_t a, uint64_t b);

/// Takes the oldest item if its stamp is below `oldest`. Returns false if there is none.
bool kvs_limbo_pop(struct kvs_limbo *limbo, uint64_t oldest, struct kvs_limbo_item *item);

/// The item that kvs_limbo_pop() would take, NULL if there is none; good until the next call.
const struct kvs_limbo_item *kvs_limbo_peek(const struct kvs_limbo *limbo, uint64_t oldest);

/// The item at a position from the oldest on, below limbo->count; good until the next call.
static inline const struct kvs_limbo_item *kvs_limbo_at(const struct kvs_limbo *limbo, size_t i)
{
	size_t at = limbo->head + i;
	return &limbo->blocks[at >> KVS_LIMBO_BLOCK_SHIFT & (limbo->capacity - 1)]
			     [at & (KVS_LIMBO_BLOCK_ITEMS - 1)];
}

/// Bytes of the items with this stamp or a later one: what a reader of that epoch holds back.
uint64_t kvs_limbo_held_bytes(const struct kvs_limbo *limbo, uint64_t stamp);

/// Stamp of the newest item, 0 if empty: revoking readers up to it would free everything.
uint64_t kvs_limbo_newest_stamp(const struct kvs_limbo *limbo);
