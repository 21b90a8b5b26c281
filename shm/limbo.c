// SPDX-License-Identifier: MIT
//
// A growing ring. It lives outside the region: a restarted kvd finds what is unlinked by scanning.
#include "shm/limbo.h"

#include <stdlib.h>
#include <string.h>

#include "shm/layout.h"

#define LIMBO_CAPACITY_START 1024u

bool kvs_limbo_init(struct kvs_limbo *limbo)
{
	memset(limbo, 0, sizeof(*limbo));
	limbo->items = calloc(LIMBO_CAPACITY_START, sizeof(*limbo->items));
	limbo->capacity = limbo->items != NULL ? LIMBO_CAPACITY_START : 0;
	return limbo->items != NULL;
}

void kvs_limbo_fini(struct kvs_limbo *limbo)
{
	free(limbo->items);
	memset(limbo, 0, sizeof(*limbo));
}

static bool limbo_grow(struct kvs_limbo *limbo)
{
	size_t capacity = limbo->capacity * 2;
	struct kvs_limbo_item *items = calloc(capacity, sizeof(*items));
	if (items == NULL) {
		return false;
	}
	for (size_t i = 0; i < limbo->count; i++) {
		items[i] = limbo->items[(limbo->head + i) & (limbo->capacity - 1)];
	}
	free(limbo->items);
	limbo->items = items;
	limbo->capacity = capacity;
	limbo->head = 0;
	return true;
}

void kvs_limbo_push(struct kvs_limbo *limbo, uint64_t stamp, uint32_t kind, uint64_t a, uint64_t b)
{
	if (limbo->count == limbo->capacity && !limbo_grow(limbo)) {
		limbo->lost++;
		return;
	}
	size_t at = (limbo->head + limbo->count) & (limbo->capacity - 1);
	limbo->items[at] = (struct kvs_limbo_item){
		.stamp = stamp, .a = a, .b = b, .before = limbo->bytes, .kind = kind
	};
	limbo->bytes += kind == KVS_LIMBO_OVERFLOW ? sizeof(struct kvs_bucket) : b;
	limbo->count++;
}

const struct kvs_limbo_item *kvs_limbo_peek(const struct kvs_limbo *limbo, uint64_t oldest)
{
	if (limbo->count == 0 || limbo->items[limbo->head].stamp >= oldest) {
		return NULL;
	}
	return &limbo->items[limbo->head];
}

bool kvs_limbo_pop(struct kvs_limbo *limbo, uint64_t oldest, struct kvs_limbo_item *item)
{
	const struct kvs_limbo_item *first = kvs_limbo_peek(limbo, oldest);
	if (first == NULL) {
		return false;
	}
	*item = *first;
	limbo->head = (limbo->head + 1) & (limbo->capacity - 1);
	limbo->count--;
	return true;
}

uint64_t kvs_limbo_held_bytes(const struct kvs_limbo *limbo, uint64_t stamp)
{
	size_t below = 0, end = limbo->count; // all before `below` are older, all from `end` on not
	while (below < end) {
		size_t middle = below + (end - below) / 2;
		size_t at = (limbo->head + middle) & (limbo->capacity - 1);
		if (limbo->items[at].stamp < stamp) {
			below = middle + 1;
		} else {
			end = middle;
		}
	}
	if (below == limbo->count) {
		return 0;
	}
	return limbo->bytes - limbo->items[(limbo->head + below) & (limbo->capacity - 1)].before;
}

uint64_t kvs_limbo_newest_stamp(const struct kvs_limbo *limbo)
{
	if (limbo->count == 0) {
		return 0;
	}
	return limbo->items[(limbo->head + limbo->count - 1) & (limbo->capacity - 1)].stamp;
}
