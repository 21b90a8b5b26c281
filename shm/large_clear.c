// SPDX-License-Identifier: MIT
//
// Where to make place for a value that finds none though its bytes are free. A stretch that begins
// where a run ends is looked for: every other one can be shifted down to such a place without
// meeting another run. It costs the bytes of the runs in it, which go elsewhere. All this may take
// as many looks as there are runs, so it is done in parts, between which runs may come and go; what
// was found is a hint, and what stands there then is looked at again.
#include "shm/large.h"

#define CLEAR_LOOKS 2048u
#define CLEAR_HELD_TIMES 8u // dearer: who holds it keeps the place, too, for a while

void kvs_large_want(struct kvs_large *large, uint64_t bytes, struct kvs_large_search *search)
{
	if (large->wanted_bytes == 0) {
		large->wish++;
	}
	large->wanted_bytes = bytes;
	large->clear_from = large->clear_to = 0;
	large->opened++;
	large->searched = &large->sentinel;
	*search = (struct kvs_large_search){ .run_bytes_max = search->run_bytes_max,
					     .cost = UINT64_MAX };
}

void kvs_large_want_over(struct kvs_large *large)
{
	large->wanted_bytes = 0;
	large->clear_from = large->clear_to = 0;
	large->opened++;
}

// What it costs that the run goes; UINT64_MAX: it cannot.
static uint64_t clear_cost(const struct kvs_large *large, const struct kvs_large_run *run,
			   struct kvs_large_search *search)
{
	if (run->leaving) {
		return KVS_PAGE_BYTES; // it goes by itself
	}
	if (run->references == 0) {
		search->held = true; // on its way in, or sent to somebody and of no other use
		return UINT64_MAX;
	}
	if (run->stays == large->wish || run->record == 0 || run->bytes > search->run_bytes_max) {
		return UINT64_MAX;
	}
	return run->holds > 0 ? run->bytes * CLEAR_HELD_TIMES : run->bytes;
}

// What the stretch behind `left` costs, or more than the best. What makes it impossible goes to
// *blocked: then the next one begins behind that.
static uint64_t stretch_cost(const struct kvs_large *large, const struct kvs_large_run *left,
			     struct kvs_large_search *search, struct kvs_large_run **blocked,
			     unsigned *looks)
{
	uint64_t to = left->offset + left->bytes + large->wanted_bytes;
	uint64_t cost = 0;
	struct kvs_large_run *run = left->next;
	for (; run != &large->sentinel && run->offset < to && cost < search->cost;
	     run = run->next) {
		uint64_t more = clear_cost(large, run, search);
		*looks -= *looks > 0;
		if (more == UINT64_MAX) {
			*blocked = run;
			return UINT64_MAX;
		}
		cost += more;
	}
	return cost;
}

bool kvs_large_search(struct kvs_large *large, struct kvs_large_search *search)
{
	unsigned looks = CLEAR_LOOKS;
	while (looks > 0) {
		struct kvs_large_run *left = large->searched;
		uint64_t from = left->offset + left->bytes;
		if (kvs_large_end(large) - from < large->wanted_bytes) {
			return true;
		}
		struct kvs_large_run *next = left->next;
		looks--;
		uint64_t cost = stretch_cost(large, left, search, &next, &looks);
		if (cost < search->cost) {
			search->cost = cost;
			search->from = from;
		}
		if (next == &large->sentinel) {
			return true;
		}
		large->searched = next;
	}
	return false;
}

void kvs_large_keep_clear(struct kvs_large *large, uint64_t from)
{
	large->clear_from = from;
	large->clear_to = from + large->wanted_bytes;
	large->searched = &large->sentinel;
}

static struct kvs_large_run *clear_bounded(struct kvs_large *large, struct kvs_large_run *run)
{
	return run != &large->sentinel && run->offset < large->clear_to ? run : NULL;
}

struct kvs_large_run *kvs_large_in_the_way(struct kvs_large *large)
{
	struct kvs_large_run *before = large->searched;
	while (before->next != &large->sentinel &&
	       before->next->offset + before->next->bytes <= large->clear_from) {
		before = before->next;
	}
	large->searched = before;
	return clear_bounded(large, before->next);
}

struct kvs_large_run *kvs_large_next_in_the_way(struct kvs_large *large, struct kvs_large_run *run)
{
	return clear_bounded(large, run->next);
}
