// SPDX-License-Identifier: MIT
//
// A growing ring. It lives outside the region: a restarted kvd finds what is unlinked by scanning.
#include "shm/limbo.h"

#include <stdlib.h>
#include <string.h>

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
	limbo->items[at] = (struct kvs_limbo_item){ .stamp = stamp, .a = a, .b = b, .kind = kind };
	limbo->count++;
}

bool kvs_limbo_pop(struct kvs_limbo *limbo, uint64_t oldest, struct kvs_limbo_item *item)
{
	if (limbo->count == 0 || limbo->items[limbo->head].stamp >= oldest) {
		return false;
	}
	*item = limbo->items[limbo->head];
	limbo->head = (limbo->head + 1) & (limbo->capacity - 1);
	limbo->count--;
	return true;
}

uint64_t kvs_limbo_newest_stamp(const struct kvs_limbo *limbo)
{
	if (limbo->count == 0) {
		return 0;
	}
	return limbo->items[(limbo->head + limbo->count - 1) & (limbo->capacity - 1)].stamp;
}
