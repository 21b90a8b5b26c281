// SPDX-License-Identifier: MIT
//
// Counters by place and not by hash: with six two-bit counters a key by hash, those that shared one
// cost a hundredth of all gets (simulated, Zipf 0.99). By place they are exact, take less, and who
// sends hashes of keys that are not there warms nothing.
#include "daemon/heat.h"

#include <string.h>
#include <sys/mman.h>

static void *heat_map(size_t bytes)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	return at == MAP_FAILED ? NULL : at;
}

static uint64_t ghost_sets_for(uint64_t ghosts)
{
	uint64_t sets = 1;
	while (sets * HEAT_GHOST_WAYS < ghosts) {
		sets *= 2;
	}
	return sets;
}

static size_t ghost_bytes(uint64_t sets)
{
	return sets * HEAT_GHOST_WAYS * sizeof(uint16_t);
}

bool heat_open(struct heat *heat, uint64_t start, uint64_t bytes, uint64_t ghosts)
{
	*heat = (struct heat){ .start = start, .bytes = bytes };
	heat->ghost_sets = ghost_sets_for(ghosts);
	heat->counts_bytes = bytes / HEAT_GRANULE_BYTES / 4 + 1;
	heat->counts = heat_map(heat->counts_bytes);
	heat->ghosts = heat_map(ghost_bytes(heat->ghost_sets));
	if (heat->counts == NULL || heat->ghosts == NULL) {
		heat_close(heat);
		return false;
	}
	return true;
}

void heat_ghosts_grow(struct heat *heat, uint64_t ghosts)
{
	uint64_t sets = ghost_sets_for(ghosts);
	uint16_t *more = sets > heat->ghost_sets ? heat_map(ghost_bytes(sets)) : NULL;
	if (more == NULL) {
		return;
	}
	(void)munmap(heat->ghosts, ghost_bytes(heat->ghost_sets));
	heat->ghosts = more;
	heat->ghost_sets = sets;
	heat->has_ghosts = false;
}

void heat_close(struct heat *heat)
{
	if (heat->counts != NULL) {
		(void)munmap(heat->counts, heat->counts_bytes);
	}
	if (heat->ghosts != NULL) {
		(void)munmap(heat->ghosts, ghost_bytes(heat->ghost_sets));
	}
	*heat = (struct heat){ 0 };
}

// Where the count of a place stands; false for what is no place of the log.
static bool heat_at(const struct heat *heat, uint64_t offset, size_t *byte, unsigned *shift)
{
	uint64_t from = offset - heat->start; // wraps to huge if below
	if (from >= heat->bytes) {
		return false;
	}
	uint64_t granule = from / HEAT_GRANULE_BYTES;
	*byte = granule / 4;
	*shift = (unsigned)(granule % 4) * 2;
	return true;
}

unsigned heat_of(const struct heat *heat, uint64_t offset)
{
	size_t byte;
	unsigned shift;
	return heat_at(heat, offset, &byte, &shift) ? heat->counts[byte] >> shift & HEAT_MAX : 0;
}

void heat_set(struct heat *heat, uint64_t offset, unsigned count)
{
	size_t byte;
	unsigned shift;
	if (heat_at(heat, offset, &byte, &shift)) {
		unsigned others = heat->counts[byte] & ~(HEAT_MAX << shift);
		unsigned bounded = count < HEAT_MAX ? count : HEAT_MAX;
		heat->counts[byte] = (unsigned char)(others | bounded << shift);
	}
}

void heat_warm(struct heat *heat, uint64_t offset)
{
	size_t byte;
	unsigned shift;
	if (heat_at(heat, offset, &byte, &shift) &&
	    (heat->counts[byte] >> shift & HEAT_MAX) < HEAT_MAX) {
		heat->counts[byte] = (unsigned char)(heat->counts[byte] + (1u << shift));
	}
}

void heat_cool(struct heat *heat, uint64_t offset, uint64_t bytes)
{
	uint64_t from = offset - heat->start;
	if (from < heat->bytes && bytes <= heat->bytes - from) {
		memset(heat->counts + from / HEAT_GRANULE_BYTES / 4, 0,
		       bytes / HEAT_GRANULE_BYTES / 4);
	}
}

// The low bits choose a bucket of the table, too, and the high ones are its tag: any will do.
static uint16_t *ghost_set(const struct heat *heat, uint64_t hash)
{
	return heat->ghosts + (hash & (heat->ghost_sets - 1)) * HEAT_GHOST_WAYS;
}

static uint16_t ghost_print(uint64_t hash)
{
	uint16_t print = (uint16_t)(hash >> 48);
	return print != 0 ? print : 1;
}

void heat_ghost_add(struct heat *heat, uint64_t hash)
{
	uint16_t *set = ghost_set(heat, hash);
	heat->has_ghosts = true;
	memmove(set + 1, set, (HEAT_GHOST_WAYS - 1) * sizeof(*set));
	set[0] = ghost_print(hash);
}

bool heat_ghost_has(const struct heat *heat, uint64_t hash, uint64_t reach)
{
	const uint16_t *set = ghost_set(heat, hash);
	uint16_t print = ghost_print(hash);
	// Sets fill alike, so the place in a set tells the age.
	uint64_t ways = reach / heat->ghost_sets + (reach % heat->ghost_sets > 0);
	for (unsigned i = 0; i < HEAT_GHOST_WAYS && i < ways; i++) {
		if (set[i] == print) {
			return true;
		}
	}
	return false;
}
