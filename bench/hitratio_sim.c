// SPDX-License-Identifier: MIT
//
// Caches that know every get, of objects of different sizes in so many bytes.
#include "bench/hitratio.h"

#include <stdlib.h>

#include "bench/common.h"

#define SIM_NONE UINT32_MAX

// A list of keys, newest first, for LRU and SIEVE.
struct sim_list {
	uint32_t *newer, *older;
	uint32_t head, tail;
	unsigned char *state; // 0 = not in it
	uint64_t bytes;
};

static void *sim_memory(size_t count, size_t bytes)
{
	void *memory = calloc(count, bytes);
	if (!memory) {
		bench_die("no memory for %zu keys", count);
	}
	return memory;
}

static void list_open(struct sim_list *list, uint32_t keys)
{
	*list = (struct sim_list){ .head = SIM_NONE, .tail = SIM_NONE };
	list->newer = sim_memory(keys, sizeof(uint32_t));
	list->older = sim_memory(keys, sizeof(uint32_t));
	list->state = sim_memory(keys, 1);
}

static void list_close(struct sim_list *list)
{
	free(list->newer);
	free(list->older);
	free(list->state);
}

static void list_push(struct sim_list *list, uint32_t key)
{
	list->older[key] = list->head;
	list->newer[key] = SIM_NONE;
	if (list->head == SIM_NONE) {
		list->tail = key;
	} else {
		list->newer[list->head] = key;
	}
	list->head = key;
}

static void list_take(struct sim_list *list, uint32_t key)
{
	uint32_t newer = list->newer[key], older = list->older[key];
	if (newer == SIM_NONE) {
		list->head = older;
	} else {
		list->older[newer] = older;
	}
	if (older == SIM_NONE) {
		list->tail = newer;
	} else {
		list->newer[older] = newer;
	}
}

double hitratio_lru(const struct hitratio_trace *trace, uint64_t bytes)
{
	struct sim_list list;
	uint64_t hits = 0;
	list_open(&list, trace->keys_count);
	for (uint64_t i = 0; i < trace->count; i++) {
		uint32_t key = trace->keys[i];
		if (list.state[key]) {
			hits++;
			list_take(&list, key);
		} else {
			list.bytes += hitratio_bytes(trace, key);
		}
		list.state[key] = 1;
		list_push(&list, key);
		while (list.bytes > bytes) {
			uint32_t last = list.tail;
			list_take(&list, last);
			list.state[last] = 0;
			list.bytes -= hitratio_bytes(trace, last);
		}
	}
	list_close(&list);
	return (double)hits / (double)trace->count;
}

// The hand goes from the oldest to the newest: what was hit since it came by stays where it is.
static uint32_t sieve_evict(const struct hitratio_trace *trace, struct sim_list *list,
			    uint32_t hand)
{
	hand = hand == SIM_NONE ? list->tail : hand;
	while (list->state[hand] == 2) {
		list->state[hand] = 1;
		hand = list->newer[hand] == SIM_NONE ? list->tail : list->newer[hand];
	}
	uint32_t next = list->newer[hand];
	list_take(list, hand);
	list->state[hand] = 0;
	list->bytes -= hitratio_bytes(trace, hand);
	return next;
}

double hitratio_sieve(const struct hitratio_trace *trace, uint64_t bytes)
{
	struct sim_list list;
	uint64_t hits = 0;
	uint32_t hand = SIM_NONE;
	list_open(&list, trace->keys_count);
	for (uint64_t i = 0; i < trace->count; i++) {
		uint32_t key = trace->keys[i];
		if (list.state[key]) {
			hits++;
			list.state[key] = 2;
			continue;
		}
		uint64_t needed = hitratio_bytes(trace, key);
		while (list.bytes + needed > bytes && list.head != SIM_NONE) {
			hand = sieve_evict(trace, &list, hand);
		}
		list.bytes += needed;
		list.state[key] = 1;
		list_push(&list, key);
	}
	list_close(&list);
	return (double)hits / (double)trace->count;
}

struct sim_queue {
	uint32_t *keys;
	uint64_t head, tail, length;
	uint64_t bytes;
};

struct sim_s3 {
	const struct hitratio_trace *trace;
	struct sim_queue queue[2]; // new, main
	unsigned char *where;	   // queue + 1; 0 = out
	unsigned char *count;
	uint64_t *ghost; // gone_bytes when it went, 0 = no ghost
	uint64_t gone_bytes;
};

static void s3_push(struct sim_s3 *s3, unsigned queue, uint32_t key)
{
	struct sim_queue *to = &s3->queue[queue];
	to->keys[to->tail++ % to->length] = key;
	to->bytes += hitratio_bytes(s3->trace, key);
	s3->where[key] = (unsigned char)(queue + 1);
}

static void s3_evict(struct sim_s3 *s3, uint64_t bytes)
{
	bool fresh = s3->queue[0].bytes > bytes / 10 || s3->queue[1].head == s3->queue[1].tail;
	struct sim_queue *from = &s3->queue[fresh ? 0 : 1];
	uint32_t key = from->keys[from->head++ % from->length];
	from->bytes -= hitratio_bytes(s3->trace, key);
	if (fresh && s3->count[key] > 1) {
		s3->count[key] = 0;
		s3_push(s3, 1, key);
	} else if (!fresh && s3->count[key] > 0) {
		s3->count[key]--;
		s3_push(s3, 1, key);
	} else {
		s3->where[key] = 0;
		s3->gone_bytes += fresh ? hitratio_bytes(s3->trace, key) : 0;
		s3->ghost[key] = fresh ? s3->gone_bytes : 0;
	}
}

double hitratio_s3fifo(const struct hitratio_trace *trace, uint64_t bytes)
{
	struct sim_s3 s3 = { .trace = trace };
	uint64_t hits = 0;
	for (unsigned i = 0; i < 2; i++) {
		s3.queue[i].length = trace->keys_count + UINT64_C(1);
		s3.queue[i].keys = sim_memory(s3.queue[i].length, sizeof(uint32_t));
	}
	s3.where = sim_memory(trace->keys_count, 1);
	s3.count = sim_memory(trace->keys_count, 1);
	s3.ghost = sim_memory(trace->keys_count, sizeof(uint64_t));
	for (uint64_t i = 0; i < trace->count; i++) {
		uint32_t key = trace->keys[i];
		if (s3.where[key]) {
			hits++;
			s3.count[key] = (unsigned char)(s3.count[key] < 3 ? s3.count[key] + 1 : 3);
			continue;
		}
		bool known = s3.ghost[key] != 0 && s3.gone_bytes - s3.ghost[key] < bytes;
		s3.count[key] = 0;
		s3.ghost[key] = 0;
		s3_push(&s3, known, key);
		while (s3.queue[0].bytes + s3.queue[1].bytes > bytes) {
			s3_evict(&s3, bytes);
		}
	}
	for (unsigned i = 0; i < 2; i++) {
		free(s3.queue[i].keys);
	}
	free(s3.where);
	free(s3.count);
	free(s3.ghost);
	return (double)hits / (double)trace->count;
}
