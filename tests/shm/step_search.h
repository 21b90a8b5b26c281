// SPDX-License-Identifier: MIT
//
// The child of step_reader.c, which is stepped: a reader that looks up one key again and again, in
// a section of its own each time.
#pragma once

#include <linux/membarrier.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/table_quick.h"
#include "tests/shm/step.h"

/// What the child found, and for which key it shall look.
struct search {
	struct kvs_map map; // of the child; made before it is stepped
	struct kvs_slot *slot;
	bool fenced;
	bool quick; // try kvs_table_quick() first, as clients do
	struct kvs_quick_aim aim;
	bool running;
	bool quit;
	char key[16];
	size_t key_bytes;
	uint64_t hash;
	uint64_t quick_hits;
	uint64_t result; // enum kvs_find_result
	uint64_t seq;
	bool right; // the value is the one that every version has
	bool good;  // the section ended well
};

/// Runs until it shall quit; stops at a step_mark() ahead of each search.
static inline void search_run(void *context)
{
	struct search *s = context;
	(void)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
	const struct kvs_hot *hot = &kvs_map_header(&s->map)->hot;
	for (;;) {
		step_mark();
		if (s->quit) {
			return;
		}
		struct kvs_hit hit;
		struct kvs_quick found;
		kvs_epoch_enter(s->slot, hot, s->fenced);
		if (s->quick && kvs_table_quick(hot, &s->aim, s->hash, s->key, s->key_bytes,
						kvs_quick_is_short(s->key_bytes), &found)) {
			s->seq = found.seq;
			s->right = found.value_bytes == 5 && memcmp(found.value, "value", 5) == 0;
			s->good = kvs_epoch_leave(s->slot, hot);
			s->result = KVS_FIND_HIT;
			s->quick_hits++;
			s->running = false;
			continue;
		}
		enum kvs_find_result result =
			kvs_table_find(&s->map, s->hash, s->key, s->key_bytes, &hit);
		for (unsigned tries = 0; result == KVS_FIND_UNMAPPED && tries < 4; tries++) {
			(void)kvs_map_extend(&s->map);
			result = kvs_table_find(&s->map, s->hash, s->key, s->key_bytes, &hit);
		}
		if (result == KVS_FIND_HIT) {
			s->seq = hit.view.seq;
			s->right = hit.view.value_bytes == 5 && memcmp(hit.value, "value", 5) == 0;
		}
		s->good = kvs_epoch_leave(s->slot, hot);
		s->result = result;
		s->running = false;
	}
}
