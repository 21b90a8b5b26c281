// SPDX-License-Identifier: MIT
//
// Arrays that are maps of their own from a size on: zeroed without being touched, whatever malloc()
// has in its heap, and the same bytes after they have grown.
#include "shm/mapped.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/limits.h"
#include "tests/tap/tap.h"

#define BIG_BYTES (8u << 20)
#define PIECES 1200u
#define PIECE_BYTES (20u << 10)

/// How many of its pages are there? It must begin with a page.
static size_t pages_in(void *map)
{
	static unsigned char there[BIG_BYTES / KVS_PAGE_BYTES];
	size_t count = 0;
	if (mincore(map, BIG_BYTES, there) != 0) {
		return SIZE_MAX;
	}
	for (size_t i = 0; i < sizeof(there); i++) {
		count += there[i] & 1;
	}
	return count;
}

/// Fills malloc()'s heap and frees all of it but the last piece, which is returned.
static void *leave_a_hole(void)
{
	static void *pieces[PIECES];
	for (unsigned i = 0; i < PIECES; i++) {
		pieces[i] = malloc(PIECE_BYTES);
		memset(pieces[i], 'x', PIECE_BYTES);
	}
	for (unsigned i = 0; i < PIECES - 1; i++) {
		free(pieces[i]);
	}
	return pieces[PIECES - 1];
}

int main(void)
{
	void *last = leave_a_hole();
	unsigned char *big = kvs_mapped_alloc(BIG_BYTES);
	ok(big != NULL && (uintptr_t)big % KVS_PAGE_BYTES == 0, "a large array begins with a page");
	ok_u64(pages_in(big), 0, "D: and nobody has cleared it by hand");
	ok(big[0] == 0 && big[BIG_BYTES - 1] == 0, "it is zero");
	kvs_mapped_free(big, BIG_BYTES);
	free(last);

	unsigned wrong = 0;
	unsigned char *array = NULL;
	size_t bytes = 0;
	for (size_t next = 100; next <= BIG_BYTES; next *= 2) {
		array = kvs_mapped_grow(array, bytes, next);
		for (size_t i = 0; i < bytes; i += 50) {
			wrong += array[i] != (unsigned char)(i / 50);
		}
		for (size_t i = 0; i < next; i += 50) {
			array[i] = (unsigned char)(i / 50);
		}
		bytes = next;
	}
	ok(wrong == 0 && bytes > 2 * KVS_MAPPED_BYTES, "what grows keeps its bytes");
	ok(kvs_mapped_grow(array, bytes, SIZE_MAX / 2) == NULL && array[50] == 1,
	   "what finds no memory is as it was");
	kvs_mapped_free(array, bytes);
	unsigned char *small = kvs_mapped_alloc(100);
	ok(small && small[0] == 0 && small[99] == 0, "a small one is zero, too");
	kvs_mapped_free(small, 100);
	kvs_mapped_free(NULL, 0);
	ok(kvs_mapped_grow(NULL, 0, SIZE_MAX / 2) == NULL, "too much is refused at once");
	return tap_done();
}
