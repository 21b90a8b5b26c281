// SPDX-License-Identifier: MIT
//
// One reading of a store, for verify.c and verify_records.c alone.
#pragma once

#include "daemon/storage/store_internal.h"
#include "daemon/storage/verify.h"
#include "daemon/storage/verify_keys.h"

struct verify {
	const struct verify_options *options;
	struct store *store;
	struct store_facts facts; // of the present snapshot
	struct verify_keys keys;
	uint64_t hash_seed;
	uint64_t next_block; // expected
	uint64_t blocks;
	uint64_t records;
	uint64_t bytes;
	uint64_t damaged;
	bool naming; // the second reading: only tells the keys that memory did not name
	bool no_memory;
	unsigned char *span; // long record being put together, NULL = none
	uint32_t span_bytes;
	uint32_t span_done;
	uint64_t span_block;
	_Alignas(8) unsigned char copy[STORE_BLOCK_BYTES_MAX];
};

/// Says a damaged place; `key` may be NULL.
void verify_damage(struct verify *verify, uint64_t block, uint64_t seq, const void *key,
		   size_t key_bytes, const char *text);

/// Looks at block `number`, whose `bytes` bytes stand at `data` (8-aligned).
void verify_block(struct verify *verify, uint64_t number, const void *data, size_t bytes);

/// The long record that was being put together is given up.
void verify_span_drop(struct verify *verify, const char *why);
