// SPDX-License-Identifier: MIT
//
// A growing ring of blocks. It lives outside the region: a restarted kvd finds what is unlinked by
// scanning.
#include "shm/limbo.h"

#include <stdlib.h>
#include <string.h>

#include "shm/layout.h"

#define LIMBO_CAPACITY_START 16u

bool kvs_limbo_init(struct kvs_limbo *limbo)
{
	memset(limbo, 0, sizeof(*limbo));
	limbo->blocks = calloc(LIMBO_CAPACITY_START, sizeof(*limbo->blocks));
	limbo->spare = calloc(KVS_LIMBO_BLOCK_ITEMS, sizeof(*limbo->spare));
	limbo->capacity = LIMBO_CAPACITY_START;
	if (limbo->blocks == NULL || limbo->spare == NULL) {
		kvs_limbo_fini(limbo);
		return false;
	}
	return true;
}

void kvs_limbo_fini(struct kvs_limbo *limbo)
{
	for (size_t i = 0; limbo->blocks != NULL && i < limbo->capacity; i++) {
		free(limbo->blocks[i]);
	}
	free(limbo->blocks);
	free(limbo->spare);
	memset(limbo, 0, sizeof(*limbo));
}

// The block number `number`, counted from the first that ever was.
static struct kvs_limbo_item **limbo_block(const struct kvs_limbo *limbo, size_t number)
{
	return &limbo->blocks[number & (limbo->capacity - 1)];
}

static bool limbo_grow(struct kvs_limbo *limbo, size_t first)
{
	size_t capacity = limbo->capacity * 2;
	struct kvs_limbo_item **blocks = calloc(capacity, sizeof(struct kvs_limbo_item *));
	if (blocks == NULL) {
		return false;
	}
	for (size_t i = first; i < first + limbo->capacity; i++) {
		blocks[i & (capacity - 1)] = *limbo_block(limbo, i);
	}
	free(limbo->blocks);
	limbo->blocks = blocks;
	limbo->capacity = capacity;
	return true;
}

// A block for the position behind the last, which is its first.
static bool limbo_extend(struct kvs_limbo *limbo)
{
	size_t first = limbo->head >> KVS_LIMBO_BLOCK_SHIFT;
	size_t next = (limbo->head + limbo->count) >> KVS_LIMBO_BLOCK_SHIFT;
	if (next - first == limbo->capacity && !limbo_grow(limbo, first)) {
		return false;
	}
	struct kvs_limbo_item *block = limbo->spare;
	if (block == NULL) {
		block = malloc(KVS_LIMBO_BLOCK_ITEMS * sizeof(*block));
	}
	limbo->spare = NULL;
	*limbo_block(limbo, next) = block;
	return block != NULL;
}

void kvs_limbo_push(struct kvs_limbo *limbo, uint64_t stamp, uint32_t kind, uint64_t a, uint64_t b)
{
	size_t at = limbo->head + limbo->count;
	if ((at & (KVS_LIMBO_BLOCK_ITEMS - 1)) == 0 && !limbo_extend(limbo)) {
		limbo->lost++;
		return;
	}
	(*limbo_block(limbo, at >> KVS_LIMBO_BLOCK_SHIFT))[at & (KVS_LIMBO_BLOCK_ITEMS - 1)] =
		(struct kvs_limbo_item){
			.stamp = stamp, .a = a, .b = b, .before = limbo->bytes, .kind = kind
		};
	limbo->bytes += kind == KVS_LIMBO_OVERFLOW ? sizeof(struct kvs_bucket) : b;
	limbo->count++;
}

const struct kvs_limbo_item *kvs_limbo_peek(const struct kvs_limbo *limbo, uint64_t oldest)
{
	if (limbo->count == 0 || kvs_limbo_at(limbo, 0)->stamp >= oldest) {
		return NULL;
	}
	return kvs_limbo_at(limbo, 0);
}

bool kvs_limbo_pop(struct kvs_limbo *limbo, uint64_t oldest, struct kvs_limbo_item *item)
{
	const struct kvs_limbo_item *first = kvs_limbo_peek(limbo, oldest);
	if (first == NULL) {
		return false;
	}
	*item = *first;
	size_t number = limbo->head >> KVS_LIMBO_BLOCK_SHIFT;
	limbo->head++;
	limbo->count--;
	if (limbo->head >> KVS_LIMBO_BLOCK_SHIFT != number) {
		free(limbo->spare);
		limbo->spare = *limbo_block(limbo, number);
		*limbo_block(limbo, number) = NULL;
	}
	return true;
}

uint64_t kvs_limbo_held_bytes(const struct kvs_limbo *limbo, uint64_t stamp)
{
	size_t below = 0, end = limbo->count; // all before `below` are older, all from `end` on not
	while (below < end) {
		size_t middle = below + (end - below) / 2;
		if (kvs_limbo_at(limbo, middle)->stamp < stamp) {
			below = middle + 1;
		} else {
			end = middle;
		}
	}
	if (below == limbo->count) {
		return 0;
	}
	return limbo->bytes - kvs_limbo_at(limbo, below)->before;
}

uint64_t kvs_limbo_newest_stamp(const struct kvs_limbo *limbo)
{
	if (limbo->count == 0) {
		return 0;
	}
	return kvs_limbo_at(limbo, limbo->count - 1)->stamp;
}
