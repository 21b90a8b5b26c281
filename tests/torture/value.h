// SPDX-License-Identifier: MIT
//
// Values that check themselves: whoever reads one can tell whose it is, which write it was, and
// whether every byte of it belongs to that write.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "shm/crc32c.h"

#define VALUE_BYTES_MIN 32u

struct value_head {
	uint64_t key;
	uint64_t count;	 // how manieth write of this key
	uint32_t bytes;	 // of the whole value
	uint32_t crc;	 // of everything but this field
	uint64_t filler; // seed of the bytes that follow
};
_Static_assert(sizeof(struct value_head) == VALUE_BYTES_MIN, "no padding");

static inline uint32_t value_crc(const unsigned char *value, size_t bytes)
{
	uint32_t crc = kvs_crc32c(0, value, offsetof(struct value_head, crc));
	size_t after = offsetof(struct value_head, crc) + sizeof(uint32_t);
	return kvs_crc32c(crc, value + after, bytes - after);
}

/// Fills `value`, of `bytes` (at least VALUE_BYTES_MIN).
static inline void value_fill(unsigned char *value, size_t bytes, uint64_t key, uint64_t count)
{
	struct value_head head = {
		.key = key, .count = count, .bytes = (uint32_t)bytes, .filler = key * 31 + count
	};
	uint64_t word = head.filler * UINT64_C(0x9e3779b97f4a7c15);
	for (size_t at = sizeof(head); at < bytes; at++) {
		value[at] = (unsigned char)(word >> (at % 8 * 8));
	}
	memcpy(value, &head, sizeof(head));
	head.crc = value_crc(value, bytes);
	memcpy(value, &head, sizeof(head));
}

/// True if `value` is whole and belongs to `key`; *count then says which write it was.
static inline bool value_check(const unsigned char *value, size_t bytes, uint64_t key,
			       uint64_t *count)
{
	struct value_head head;
	if (bytes < sizeof(head)) {
		return false;
	}
	memcpy(&head, value, sizeof(head));
	*count = head.count;
	return head.key == key && head.bytes == bytes && value_crc(value, bytes) == head.crc;
}

/// The key of a number below 10^8. Without snprintf, which would be a quarter of a read.
static inline size_t value_key(char key[24], uint64_t number)
{
	static const char name[] = "torture:00000000";
	size_t bytes = sizeof(name) - 1;
	memcpy(key, name, sizeof(name));
	for (char *digit = key + bytes; number > 0; number /= 10) {
		*--digit = (char)('0' + number % 10);
	}
	return bytes;
}
