// SPDX-License-Identifier: MIT
//
// Maps or malloc(), by size; see mapped.h.
#include "shm/mapped.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *kvs_mapped_alloc(size_t bytes)
{
	if (bytes < KVS_MAPPED_BYTES) {
		return calloc(1, bytes);
	}
	void *memory =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return memory != MAP_FAILED ? memory : NULL;
}

void *kvs_mapped_grow(void *memory, size_t bytes, size_t new_bytes)
{
	if (new_bytes < KVS_MAPPED_BYTES) {
		return realloc(memory, new_bytes);
	}
	if (bytes >= KVS_MAPPED_BYTES) {
		void *grown = mremap(memory, bytes, new_bytes, MREMAP_MAYMOVE);
		return grown != MAP_FAILED ? grown : NULL;
	}
	void *map = kvs_mapped_alloc(new_bytes);
	if (map != NULL && memory != NULL) {
		memcpy(map, memory, bytes);
		free(memory);
	}
	return map;
}

void kvs_mapped_free(void *memory, size_t bytes)
{
	if (bytes < KVS_MAPPED_BYTES || memory == NULL) {
		free(memory);
		return;
	}
	// Only an address that is none could fail.
	(void)munmap(memory, bytes);
}
