// SPDX-License-Identifier: MIT
//
// A persister comes, without its thread, and goes.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/persist_internal.h"
#include "daemon/region_walk.h"
#include "daemon/storage/store_read.h"

void persist_free(struct persist *persist)
{
	pthread_cond_destroy(&persist->wake);
	pthread_mutex_destroy(&persist->mutex);
	free(persist->compact.copy);
	if (persist->cold != NULL) {
		store_reader_close(persist->cold);
	}
	persist_moves_fini(persist);
	free(persist);
}

struct persist *persist_new(const struct persist_options *options)
{
	struct persist *persist = calloc(1, sizeof(*persist));
	if (persist == NULL) {
		return NULL;
	}
	struct kvs_region_header *header = options->region_base;
	persist->options = *options;
	persist->hot = &header->hot;
	persist->marks = &header->marks;
	persist->fenced = region_walk_must_fence(options->map);
	persist->live_bytes = PERSIST_LIVE_UNKNOWN;
	persist->position =
		(struct kvs_log_position){ .segment = (uint32_t)(options->start_position >> 32),
					   .offset = (uint32_t)options->start_position };
	persist->durable_seq = kvs_load_acquire(&header->marks.durable_seq);
	struct store_facts facts;
	store_facts(options->store, &facts);
	persist->compact.boundary = facts.next_block;
	persist->judged = facts.oldest_block - 1;
	persist->compact.copy = aligned_alloc(64, (STORE_BLOCK_BYTES_MAX + 63) & ~63u);

	pthread_condattr_t attributes;
	pthread_mutex_init(&persist->mutex, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&persist->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	bool reads = !options->collect_moves || store_reader_open(&persist->cold, options->store,
								  STORE_READER_RENEWAL) == STORE_OK;
	if (persist->compact.copy == NULL || !reads) {
		persist_free(persist);
		return NULL;
	}
	persist->places_known = 1;
	if (options->find_places) {
		persist_places_look(persist);
		persist->places_counted = true;
	}
	if (options->renew_why != NULL) {
		persist->untrusted = true;
		persist->degraded = PERSIST_UNTRUSTED;
		strlcpy(persist->why, options->renew_why, sizeof(persist->why));
		persist->options.renew_why = NULL; // the caller's
	}
	if (options->begin_why != NULL) {
		persist->unbegun = true;
		persist->backoff_ns = PERSIST_BACKOFF_FIRST_NS;
		persist->degraded = PERSIST_UNWRITABLE;
		strlcpy(persist->why, options->begin_why, sizeof(persist->why));
		persist->options.begin_why = NULL; // the caller's
	}
	return persist;
}
