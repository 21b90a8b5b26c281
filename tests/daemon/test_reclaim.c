// SPDX-License-Identifier: MIT
//
// Giving memory back in parts: every turn takes some pages, in the end nothing is left.
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/reclaim.h"
#include "shm/limits.h"
#include "shm/mapped.h"
#include "tests/tap/tap.h"

#define BIG_BYTES (9u << 20)

/// How many of the pages behind the first, of so many bytes, are there?
static size_t pages_in(const void *memory, size_t bytes)
{
	static unsigned char there[BIG_BYTES / KVS_PAGE_BYTES];
	uintptr_t start = ((uintptr_t)memory + KVS_PAGE_BYTES) & ~(uintptr_t)(KVS_PAGE_BYTES - 1);
	size_t pages = bytes / KVS_PAGE_BYTES - 2;
	size_t count = 0;
	if (mincore((void *)start, pages * KVS_PAGE_BYTES, there) != 0) {
		return SIZE_MAX;
	}
	for (size_t i = 0; i < pages; i++) {
		count += there[i] & 1;
	}
	return count;
}

#define PIECES 100000u

struct element {
	uint64_t number;
	char *piece;
	uint64_t more;
};

static struct element *pieces_make(size_t bytes)
{
	struct element *array = calloc(PIECES, sizeof(*array));
	for (size_t i = 0; array && i < PIECES; i++) {
		array[i].piece = malloc(bytes);
	}
	return array;
}

static void pieces_free(struct reclaim *reclaim, struct element *array, size_t count)
{
	reclaim_free_each(reclaim, array, PIECES * sizeof(*array), count, sizeof(*array),
			  offsetof(struct element, piece), PIECES * (sizeof(*array) + 100));
}

static void test_pieces(void)
{
	struct reclaim reclaim = { 0 };
	pieces_free(&reclaim, pieces_make(100), PIECES);
	ok_u64(reclaim.waiting_bytes, PIECES * (sizeof(struct element) + 100), "G: many wait");
	size_t turns = 0;
	size_t most = 0;
	for (size_t before = reclaim.waiting_pieces; before > 0; turns++) {
		(void)reclaim_turn(&reclaim);
		size_t freed = before - reclaim.waiting_pieces;
		most = freed > most ? freed : most;
		before -= freed;
	}
	ok(turns > PIECES / 2048 && most <= RECLAIM_TURN_PIECES, "G: %zu at most in %zu turns",
	   most, turns);
	while (reclaim_turn(&reclaim)) {
		turns++;
	}
	ok(reclaim.waiting_bytes == 0 && !reclaim.first, "then the array goes, and nothing waits");
	struct element *array = pieces_make(1);
	for (size_t i = 0; i < 5; i++) {
		free(array[PIECES - 1 - i].piece);
		array[PIECES - 1 - i].piece = malloc(BIG_BYTES);
	}
	pieces_free(&reclaim, array, PIECES);
	size_t waiting = reclaim.waiting_pieces;
	(void)reclaim_turn(&reclaim);
	ok_u64(waiting - reclaim.waiting_pieces, 1, "G: a large piece is a turn's work");
	for (turns = 0; reclaim_turn(&reclaim); turns++) {
	}
	ok(reclaim.waiting_bytes == 0 && turns > 5 * BIG_BYTES / RECLAIM_TURN_BYTES,
	   "G: large pieces go like all large memory");
	pieces_free(&reclaim, calloc(PIECES, sizeof(struct element)), 10);
	while (reclaim_turn(&reclaim)) {
	}
	ok_u64(reclaim.waiting_pieces, 0, "few go at once");
	pieces_free(&reclaim, pieces_make(100), PIECES);
	pieces_free(&reclaim, pieces_make(100), PIECES);
	(void)reclaim_turn(&reclaim);
	reclaim_finish(&reclaim);
	ok(!reclaim.first && reclaim.waiting_bytes == 0, "at the end all of them go");
}

/// How many maps of their own malloc() has when one more piece is there.
static size_t maps_with(size_t bytes)
{
	size_t before = mallinfo2().hblks;
	char *volatile piece = calloc(1, bytes);
	size_t maps = mallinfo2().hblks - before;
	free(piece);
	return maps;
}

/// Before anything else is freed, as in kvd.
static void test_mapped(void)
{
	reclaim_map_large();
	if (maps_with(64u << 20) == 0) {
		tap_skip("malloc() of large pieces is not glibc's own");
		return;
	}
	(void)maps_with(16u << 20); // glibc would keep so much in its heap from now on
	ok_u64(maps_with(8u << 20), 1, "D: a large piece is a map of its own, whatever was freed");
	ok_u64(maps_with(KVS_MAPPED_BYTES), 1, "from a bound on");
	ok_u64(maps_with(KVS_MAPPED_BYTES / 2), 0, "small pieces are not maps");
}

int main(void)
{
	test_mapped();
	test_pieces();
	struct reclaim reclaim = { 0 };
	reclaim_free(&reclaim, NULL, 0);
	reclaim_free(&reclaim, malloc(100), 100);
	ok(!reclaim.first && !reclaim_turn(&reclaim), "little memory goes at once");
	char *big = malloc(BIG_BYTES);
	memset(big, 'x', BIG_BYTES);
	size_t before = pages_in(big, BIG_BYTES);
	reclaim_free(&reclaim, big, BIG_BYTES);
	ok_u64(reclaim.waiting_bytes, BIG_BYTES, "G: much memory waits");
	unsigned turns = 1;
	ok(reclaim_turn(&reclaim), "G: one turn does not end it");
	size_t after = pages_in(big, BIG_BYTES);
	ok(after < before && before - after <= RECLAIM_TURN_BYTES / KVS_PAGE_BYTES,
	   "G: one turn gives some pages back, and no more than its part");
	while (reclaim_turn(&reclaim)) {
		turns++;
	}
	ok_u64(turns + 1, BIG_BYTES / RECLAIM_TURN_BYTES + 1, "G: so many turns for so much");
	ok_u64(reclaim.waiting_bytes, 0, "then nothing waits");
	for (int i = 0; i < 3; i++) {
		char *again = malloc(BIG_BYTES);
		again[BIG_BYTES - 1] = 'y';
		reclaim_free(&reclaim, again, BIG_BYTES);
	}
	(void)reclaim_turn(&reclaim);
	ok_u64(reclaim.waiting_bytes / BIG_BYTES, 2, "several pieces wait together");
	char *map = kvs_mapped_alloc(BIG_BYTES);
	map[BIG_BYTES - 1] = 'z';
	reclaim_free_mapped(&reclaim, map, BIG_BYTES);
	size_t waiting = reclaim.waiting_bytes;
	(void)reclaim_turn(&reclaim);
	ok_u64(waiting - reclaim.waiting_bytes, RECLAIM_TURN_BYTES, "G: a map goes in parts, too");
	for (unsigned i = 0; i < BIG_BYTES / RECLAIM_TURN_BYTES; i++) {
		(void)reclaim_turn(&reclaim);
	}
	ok(pages_in(map, BIG_BYTES) == SIZE_MAX, "and is gone then");
	reclaim_finish(&reclaim);
	ok(!reclaim.first && reclaim.waiting_bytes == 0, "at the end all of it goes");
	return tap_done();
}
