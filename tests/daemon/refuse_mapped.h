// SPDX-License-Identifier: MIT
//
// Memory in maps of its own (shm/mapped.h), refused when a test says so; the test is linked with
// --wrap=kvs_mapped_alloc.
#pragma once

#include <stddef.h>

static unsigned refuse; // so many pieces of memory are refused

void *__real_kvs_mapped_alloc(size_t bytes);
void *__wrap_kvs_mapped_alloc(size_t bytes);
void *__wrap_kvs_mapped_alloc(size_t bytes)
{
	if (refuse > 0) {
		refuse--;
		return NULL;
	}
	return __real_kvs_mapped_alloc(bytes);
}
