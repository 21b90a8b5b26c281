// SPDX-License-Identifier: MIT
//
// One piece of memory at a time is handed over, of the table before a segment; the thread sleeps on
// a condition variable in between. If the machine is full the piece comes back without pages and
// the writer meets the error itself.
#include "daemon/prepare.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "daemon/keyspace_internal.h"
#include "daemon/keyspace_pages.h"

enum prepare_state { PREPARE_IDLE, PREPARE_ASKED, PREPARE_DONE, PREPARE_STOP };

struct prepare {
	const struct kvs_region *region;
	pthread_t thread;
	pthread_mutex_t lock; // guards what follows
	pthread_cond_t asked;
	enum prepare_state state;
	uint32_t segment; // KVS_SEGMENT_NONE = it is a part of the table
	uint64_t offset;
	uint64_t bytes;
	bool populated;
};

static void *prepare_thread(void *argument)
{
	struct prepare *prepare = argument;
	(void)pthread_mutex_lock(&prepare->lock);
	for (;;) {
		while (prepare->state != PREPARE_ASKED && prepare->state != PREPARE_STOP) {
			(void)pthread_cond_wait(&prepare->asked, &prepare->lock);
		}
		if (prepare->state == PREPARE_STOP) {
			break;
		}
		uint64_t offset = prepare->offset;
		uint64_t bytes = prepare->bytes;
		(void)pthread_mutex_unlock(&prepare->lock);
		int result = kvs_region_populate(prepare->region, offset, bytes);
		(void)pthread_mutex_lock(&prepare->lock);
		prepare->populated = result == 0;
		if (prepare->state == PREPARE_ASKED) {
			prepare->state = PREPARE_DONE;
		}
	}
	(void)pthread_mutex_unlock(&prepare->lock);
	return NULL;
}

int prepare_start(struct prepare **out, const struct kvs_region *region)
{
	struct prepare *prepare = calloc(1, sizeof(*prepare));
	if (prepare == NULL) {
		return -ENOMEM;
	}
	prepare->region = region;
	(void)pthread_mutex_init(&prepare->lock, NULL);
	(void)pthread_cond_init(&prepare->asked, NULL);
	int error = pthread_create(&prepare->thread, NULL, prepare_thread, prepare);
	if (error != 0) {
		free(prepare);
		return -error;
	}
	*out = prepare;
	return 0;
}

static void prepare_ask(struct prepare *prepare, uint32_t segment, uint64_t offset, uint64_t bytes)
{
	prepare->segment = segment;
	prepare->offset = offset;
	prepare->bytes = bytes;
	prepare->state = PREPARE_ASKED;
	(void)pthread_cond_signal(&prepare->asked);
}

// May the table have it? A write that waits for an overflow bucket is never refused for it, nor is
// a FLUSHALL; what else the table wants must leave to others what a write leaves.
static bool prepare_may_take(const struct keyspace *keyspace, const struct kvs_table_piece *piece)
{
	const struct kvs_table *table = &keyspace->table;
	if (piece->awaited && !table->reseed.active &&
	    piece->range != KVS_RANGE_TABLE_0 + table->side) {
		return true;
	}
	uint64_t segments = (piece->bytes >> keyspace->region->segment_shift) + 1;
	return kvs_log_segments_free(&keyspace->log) >=
	       segments + keyspace_reserve(keyspace, KEYSPACE_FOR_WRITE);
}

// The first piece for which there is memory: what must wait must not hide what need not.
static bool prepare_find(const struct keyspace *keyspace, struct kvs_table_piece *piece)
{
	unsigned passed = 0;
	while (kvs_table_ahead_next(&keyspace->table, passed, piece)) {
		if (prepare_may_take(keyspace, piece)) {
			return true;
		}
		passed |= 1u << piece->place;
	}
	return false;
}

static void prepare_collect(struct prepare *prepare, struct keyspace *keyspace)
{
	if (prepare->segment != KVS_SEGMENT_NONE) {
		kvs_log_prepare_end(&keyspace->log, prepare->segment, prepare->populated);
	} else {
		kvs_table_ahead_end(&keyspace->table, prepare->populated);
	}
	prepare->state = PREPARE_IDLE;
}

void prepare_turn(struct keyspace *keyspace)
{
	struct prepare *prepare = keyspace->prepare;
	struct kvs_table_piece piece;
	if (prepare == NULL || pthread_mutex_trylock(&prepare->lock) != 0) {
		return;
	}
	if (prepare->state == PREPARE_DONE) {
		prepare_collect(prepare, keyspace);
	}
	if (prepare->state == PREPARE_IDLE) {
		if (prepare_find(keyspace, &piece)) {
			kvs_table_ahead_begin(&keyspace->table, &piece);
			keyspace_make_way(keyspace, piece.bytes);
			prepare_ask(prepare, KVS_SEGMENT_NONE, piece.offset, piece.bytes);
		} else {
			uint32_t segment = kvs_log_prepare_begin(
				&keyspace->log, keyspace->prefault ? UINT32_MAX : PREPARE_AHEAD);
			if (segment != KVS_SEGMENT_NONE) {
				prepare_ask(prepare, segment,
					    kvs_region_segment_offset(keyspace->region, segment),
					    keyspace->region->segment_bytes);
			}
		}
	}
	(void)pthread_mutex_unlock(&prepare->lock);
}

void prepare_stop(struct prepare *prepare)
{
	if (prepare == NULL) {
		return;
	}
	(void)pthread_mutex_lock(&prepare->lock);
	prepare->state = PREPARE_STOP;
	(void)pthread_cond_signal(&prepare->asked);
	(void)pthread_mutex_unlock(&prepare->lock);
	(void)pthread_join(prepare->thread, NULL);
	(void)pthread_mutex_destroy(&prepare->lock);
	(void)pthread_cond_destroy(&prepare->asked);
	free(prepare);
}
