// SPDX-License-Identifier: MIT
//
// Caches of a number of equal things that see every get, and sources of gets: what eviction is held
// against.
#pragma once

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "tests/tap/tap.h"

enum model_trace { MODEL_ZIPF, MODEL_SCANS, MODEL_LOOP };

static inline const char *model_trace_name(enum model_trace kind)
{
	static const char *const names[] = { "Zipf", "Zipf with scans", "a loop" };
	return names[kind];
}

struct model_source {
	enum model_trace kind;
	unsigned keys; // of Zipf's law; scans go over the rest
	unsigned all;
	unsigned loop;
	unsigned next;
	unsigned scan_left;
	uint64_t random;
	double *sums;
};

static inline void model_source_open(struct model_source *source, enum model_trace kind,
				     unsigned keys, unsigned holds, uint64_t seed)
{
	*source =
		(struct model_source){ .kind = kind,
				       .keys = kind == MODEL_SCANS ? keys / 2 : keys,
				       .all = keys,
				       .loop = holds + holds / 2 < keys ? holds + holds / 2 : keys,
				       .random = seed };
	source->next = source->keys % source->all;
	source->sums = calloc(source->keys, sizeof(double));
	double sum = 0;
	for (unsigned i = 0; i < source->keys; i++) {
		source->sums[i] = sum += 1.0 / (i + 1);
	}
}

static inline void model_source_close(struct model_source *source)
{
	free(source->sums);
}

static inline unsigned model_source_next(struct model_source *source)
{
	if (source->kind == MODEL_LOOP) {
		source->next = (source->next + 1) % source->loop;
		return source->next;
	}
	if (source->kind == MODEL_SCANS && source->scan_left == 0 &&
	    tap_random(&source->random) % 3000 == 0) {
		source->scan_left = 1000;
	}
	if (source->scan_left > 0) {
		source->scan_left--;
		source->next = source->next + 1 < source->all ? source->next + 1 : source->keys;
		return source->next;
	}
	double at = (double)(tap_random(&source->random) >> 11) * 0x1p-53;
	at *= source->sums[source->keys - 1];
	unsigned low = 0, high = source->keys - 1;
	while (low < high) {
		unsigned middle = (low + high) / 2;
		if (source->sums[middle] < at) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low;
}

/// S3-FIFO: a tenth of the room for what is new, ghosts of as many as there are things.
struct model_s3 {
	unsigned room, hits;
	unsigned *queue[2];
	uint64_t head[2], tail[2];
	unsigned length;
	unsigned char *where; // 0 = out, else queue + 1
	unsigned char *count;
	uint64_t *ghost; // when it went, 0 = never
	uint64_t gone;
};

static inline void model_s3_open(struct model_s3 *s3, unsigned keys, unsigned room)
{
	*s3 = (struct model_s3){ .room = room, .length = keys + 1 };
	s3->queue[0] = calloc(keys + 1, sizeof(unsigned));
	s3->queue[1] = calloc(keys + 1, sizeof(unsigned));
	s3->where = calloc(keys, 1);
	s3->count = calloc(keys, 1);
	s3->ghost = calloc(keys, sizeof(uint64_t));
}

static inline void model_s3_close(struct model_s3 *s3)
{
	free(s3->queue[0]);
	free(s3->queue[1]);
	free(s3->where);
	free(s3->count);
	free(s3->ghost);
}

static inline void model_s3_push(struct model_s3 *s3, unsigned queue, unsigned key)
{
	s3->queue[queue][s3->tail[queue]++ % s3->length] = key;
	s3->where[key] = (unsigned char)(queue + 1);
}

static inline void model_s3_evict(struct model_s3 *s3)
{
	uint64_t small = s3->tail[0] - s3->head[0];
	unsigned queue = small > s3->room / 10 || s3->head[1] == s3->tail[1] ? 0 : 1;
	unsigned key = s3->queue[queue][s3->head[queue]++ % s3->length];
	if (queue == 0 && s3->count[key] > 1) {
		s3->count[key] = 0;
		model_s3_push(s3, 1, key);
	} else if (queue == 1 && s3->count[key] > 0) {
		s3->count[key]--;
		model_s3_push(s3, 1, key);
	} else {
		s3->where[key] = 0;
		s3->ghost[key] = queue == 0 ? ++s3->gone : 0;
	}
}

static inline void model_s3_get(struct model_s3 *s3, unsigned key)
{
	if (s3->where[key] != 0) {
		s3->hits++;
		s3->count[key] = (unsigned char)(s3->count[key] < 3 ? s3->count[key] + 1 : 3);
		return;
	}
	bool ghost = s3->ghost[key] != 0 && s3->gone - s3->ghost[key] < s3->room;
	s3->count[key] = 0;
	s3->ghost[key] = 0;
	model_s3_push(s3, ghost, key);
	while (s3->tail[0] - s3->head[0] + s3->tail[1] - s3->head[1] > s3->room) {
		model_s3_evict(s3);
	}
}

/// By the time of the last get; what is out of date in the queue is passed over.
struct model_lru {
	unsigned room, hits, held;
	uint64_t clock, oldest;
	uint64_t *used;	 // when, 0 = out
	unsigned *order; // key by time
	uint64_t capacity;
};

static inline void model_lru_open(struct model_lru *lru, unsigned keys, unsigned room)
{
	*lru = (struct model_lru){ .room = room, .capacity = UINT64_C(1) << 22, .oldest = 1 };
	lru->used = calloc(keys, sizeof(uint64_t));
	lru->order = calloc(lru->capacity, sizeof(unsigned));
}

static inline void model_lru_close(struct model_lru *lru)
{
	free(lru->used);
	free(lru->order);
}

static inline void model_lru_get(struct model_lru *lru, unsigned key)
{
	lru->hits += lru->used[key] != 0;
	lru->held += lru->used[key] == 0;
	lru->used[key] = ++lru->clock;
	lru->order[lru->clock % lru->capacity] = key;
	while (lru->held > lru->room) {
		unsigned last = lru->order[lru->oldest % lru->capacity];
		if (lru->used[last] == lru->oldest) {
			lru->used[last] = 0;
			lru->held--;
		}
		lru->oldest++;
	}
}
