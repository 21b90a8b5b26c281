// SPDX-License-Identifier: MIT
//
// A block of the store: a header and packed records, one value of the LMDB log. Records stand in it
// with the very bytes they have in memory (their place zeroed), a LARGE record followed by the
// bytes of its run, so that the store needs nothing but itself. Whoever reads a block reads a file,
// hence input: the parser here is pure, bounds everything, and is fuzzed.
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/record.h"

#define STORE_BLOCK_MARKER 0x316b6276u // "vbk1" in the file: the version is in the text

// LMDB keeps a value that does not fit half a page in a run of whole pages behind a 16-byte header:
// values of n * 4096 - 16 bytes waste nothing, and runs of one length refit what was freed. 32 KiB
// did as well as 64 KiB in throughput and better in the tail (bench/store_append.c), and half of it
// is lost at most when a compaction stops inside a block.
#define STORE_PAGE_BYTES 4096u
#define STORE_PAGE_HEADER_BYTES 16u
#define STORE_BLOCK_BYTES_MAX (8 * STORE_PAGE_BYTES - STORE_PAGE_HEADER_BYTES)

// Up to here LMDB keeps a value inside a leaf page, beside others: no rounding needed.
#define STORE_INLINE_BYTES_MAX 2022u

enum store_block_flags {
	STORE_BLOCK_GOES_ON = 1 << 0, // its only record continues in the next block
	STORE_BLOCK_REST = 1 << 1,    // it holds the continuation of a record, and nothing else
	STORE_BLOCK_FLAGS_KNOWN = (1 << 2) - 1,
};

struct store_block_header {
	uint32_t marker;     // STORE_BLOCK_MARKER
	uint32_t crc;	     // crc32c of bytes [8, bytes)
	uint64_t number;     // its key: a page that was written elsewhere, or never, does not fit
	uint64_t first_seq;  // of its first record
	uint64_t last_seq;   // highest in it
	uint32_t bytes;	     // header and records; zeroes to the end of the value after them
	uint32_t count;	     // records that begin here
	uint32_t flags;	     // enum store_block_flags
	uint32_t span_bytes; // packed length of the record that goes on, in all its blocks; else 0
};
static_assert(sizeof(struct store_block_header) == 48, "fixed; a multiple of 8");

#define STORE_PAYLOAD_BYTES_MAX (STORE_BLOCK_BYTES_MAX - sizeof(struct store_block_header))

enum store_block_fault {
	STORE_BLOCK_GOOD = 0,
	STORE_BLOCK_SHORT,	 // fewer bytes than a header, or than the header says
	STORE_BLOCK_FOREIGN,	 // not this marker
	STORE_BLOCK_MISPLACED,	 // another block's number
	STORE_BLOCK_CONTRADICTS, // the header's fields do not fit each other
	STORE_BLOCK_CRC,	 // checksum wrong
};

/// A block whose header and checksum are right.
struct store_block {
	uint64_t number;
	uint64_t first_seq;
	uint64_t last_seq;
	const unsigned char *payload; // records, or a piece of one
	uint32_t payload_bytes;
	uint32_t count;
	uint32_t flags;
	uint32_t span_bytes;
};

/// Checks header and checksum of `bytes` bytes at `data` (8-aligned) that should be block `number`.
/// Returns an enum store_block_fault; fills `block` when it is 0.
int store_block_check(const void *data, size_t bytes, uint64_t number, struct store_block *block);

/// What is wrong, in words.
const char *store_block_fault_text(int fault);

/// Parses the packed record at `at`, of which `limit` bytes may be read. Sets `*value` to the bytes
/// of a LARGE record's value (else NULL) and `*packed_bytes` to the length of it all. Returns 0, or
/// -1 if it is none that a store may hold. No checksum is looked at.
int store_packed_parse(const unsigned char *at, uint64_t limit, struct kvs_record_view *view,
		       const void **value, uint64_t *packed_bytes);

/// Steps through the records of a block that is not part of a span: parses the one at *offset (from
/// the payload's start) and moves *offset behind it. Returns 1, 0 at the end, -1 if it is damaged.
int store_block_next(const struct store_block *block, uint32_t *offset,
		     struct kvs_record_view *view, const void **value);

/// Place of the record at `offset` of the payload of block `number`.
static inline uint64_t store_block_place(uint64_t number, uint32_t offset)
{
	return kvs_place_make(number, offset + (uint32_t)sizeof(struct store_block_header));
}

/// Packed length of a record.
static inline uint64_t store_packed_bytes(const struct kvs_record_view *view)
{
	uint64_t bytes = view->record_bytes;
	if (view->flags & KVS_RECORD_LARGE) {
		bytes += ((uint64_t)view->value_bytes + 7) & ~UINT64_C(7);
	}
	return bytes;
}

/// Length of the LMDB value that holds `used` bytes of a block.
static inline uint32_t store_block_value_bytes(uint32_t used)
{
	if (used <= STORE_INLINE_BYTES_MAX) {
		return used;
	}
	uint32_t pages = (used + STORE_PAGE_HEADER_BYTES + STORE_PAGE_BYTES - 1) / STORE_PAGE_BYTES;
	return pages * STORE_PAGE_BYTES - STORE_PAGE_HEADER_BYTES;
}

/// What a value of so many bytes takes in the file, its share of the leaf page included.
static inline uint64_t store_block_file_bytes(uint64_t value_bytes)
{
	if (value_bytes <= STORE_INLINE_BYTES_MAX) {
		return value_bytes + 20;
	}
	uint64_t pages =
		(value_bytes + STORE_PAGE_HEADER_BYTES + STORE_PAGE_BYTES - 1) / STORE_PAGE_BYTES;
	return pages * STORE_PAGE_BYTES + 28;
}

/// A block being filled.
struct store_builder {
	unsigned char *bytes; // STORE_BLOCK_BYTES_MAX, 8-aligned; the caller's
	uint32_t used;	      // header included
	uint32_t count;
	uint64_t first_seq;
	uint64_t last_seq;
};

void store_builder_reset(struct store_builder *builder);

/// Room left for records.
static inline uint32_t store_builder_room(const struct store_builder *builder)
{
	return STORE_BLOCK_BYTES_MAX - builder->used;
}

/// Appends a record whose packed length fits the room; `value` is a LARGE record's run. Returns its
/// offset in the payload.
uint32_t store_builder_add(struct store_builder *builder, const struct kvs_record_view *view,
			   const void *value);

/// Completes header, zeroed rest and checksum of block `number`. Returns the value's length.
uint32_t store_builder_finish(struct store_builder *builder, uint64_t number);

/// Completes one block of a record that is longer than a block: `payload_bytes` of it stand behind
/// the header in `bytes` already. Returns the value's length.
uint32_t store_builder_finish_piece(unsigned char *bytes, uint64_t number, uint64_t seq,
				    uint32_t payload_bytes, uint32_t flags, uint32_t span_bytes);
