// SPDX-License-Identifier: MIT
//
// Linear hashing: an entry more, a bucket more; only the bucket that the new one comes from is
// divided. Without memory for another bucket the chains grow longer, and nothing else happens.
#include "daemon/lookup.h"

#include <stdbool.h>
#include <stdlib.h>

#define LOOKUP_CHUNK 512u // buckets that are allocated together

static struct lookup_link **lookup_bucket(struct lookup *table, size_t index)
{
	return index == 0 ? &table->zero
			  : &table->chunks[index / LOOKUP_CHUNK][index % LOOKUP_CHUNK];
}

static size_t lookup_index(const struct lookup *table, uint64_t hash)
{
	size_t index = hash & table->mask;
	return index <= table->grown ? index : index & (table->mask >> 1);
}

/// Memory for the bucket with this index.
static bool lookup_chunk(struct lookup *table, size_t index)
{
	size_t chunk = index / LOOKUP_CHUNK;
	if (index != 1 && index % LOOKUP_CHUNK != 0) {
		return true; // it stands beside the one before
	}
	if (chunk == table->chunks_capacity) {
		size_t capacity = chunk ? chunk * 2 : 4;
		struct lookup_link ***chunks =
			reallocarray(table->chunks, capacity, sizeof(*chunks));
		if (!chunks) {
			return false;
		}
		table->chunks = chunks;
		table->chunks_capacity = capacity;
	}
	table->chunks[chunk] = calloc(LOOKUP_CHUNK, sizeof(**table->chunks));
	return table->chunks[chunk] != NULL;
}

static void lookup_grow(struct lookup *table)
{
	size_t added = table->grown + 1;
	if (!lookup_chunk(table, added)) {
		return;
	}
	if (added > table->mask) {
		table->mask = table->mask * 2 + 1;
	}
	struct lookup_link **from = lookup_bucket(table, added & (table->mask >> 1));
	struct lookup_link **to = lookup_bucket(table, added);
	while (*from) {
		struct lookup_link *link = *from;
		if ((link->hash & table->mask) == added) {
			*from = link->next;
			link->next = *to;
			*to = link;
		} else {
			from = &link->next;
		}
	}
	table->grown = added;
}

void lookup_add(struct lookup *table, struct lookup_link *link, uint64_t hash)
{
	if (table->count > table->grown) {
		lookup_grow(table);
	}
	struct lookup_link **bucket = lookup_bucket(table, lookup_index(table, hash));
	link->hash = hash;
	link->next = *bucket;
	*bucket = link;
	table->count++;
}

void lookup_remove(struct lookup *table, struct lookup_link *link)
{
	struct lookup_link **at = lookup_bucket(table, lookup_index(table, link->hash));
	while (*at != link) {
		at = &(*at)->next;
	}
	*at = link->next;
	link->next = NULL;
	table->count--;
}

static struct lookup_link *lookup_with(struct lookup_link *link, uint64_t hash)
{
	while (link && link->hash != hash) {
		link = link->next;
	}
	return link;
}

struct lookup_link *lookup_first(const struct lookup *table, uint64_t hash)
{
	// Only the type of lookup_bucket() wants a table that may be changed.
	struct lookup *same = (struct lookup *)(uintptr_t)table;
	return lookup_with(*lookup_bucket(same, lookup_index(table, hash)), hash);
}

struct lookup_link *lookup_more(const struct lookup_link *link)
{
	return lookup_with(link->next, link->hash);
}

size_t lookup_buckets(const struct lookup *table)
{
	return table->grown + 1;
}

struct lookup_link *lookup_chain(const struct lookup *table, size_t bucket)
{
	struct lookup *same = (struct lookup *)(uintptr_t)table; // as above
	return *lookup_bucket(same, bucket);
}

struct lookup_link *lookup_any(struct lookup *table, uint64_t random)
{
	for (size_t i = 0; table->count > 0 && i <= table->grown; i++) {
		size_t index = (random + i) % (table->grown + 1);
		struct lookup_link *link = *lookup_bucket(table, index);
		if (link) {
			return link;
		}
	}
	return NULL;
}

struct lookup_link *lookup_take(struct lookup *table, size_t *cursor)
{
	for (; table->count > 0 && *cursor <= table->grown; ++*cursor) {
		struct lookup_link **bucket = lookup_bucket(table, *cursor);
		if (*bucket) {
			struct lookup_link *link = *bucket;
			*bucket = link->next;
			table->count--;
			return link;
		}
	}
	return NULL;
}

void lookup_free(struct lookup *table)
{
	for (size_t i = 0; table->grown > 0 && i <= table->grown / LOOKUP_CHUNK; i++) {
		free(table->chunks[i]);
	}
	free(table->chunks);
	*table = (struct lookup){ 0 };
}
