// SPDX-License-Identifier: MIT
//
// Fuzz target for blocks of the store. The first byte says whether the input is taken as it is or
// gets a right length and checksum first, since no fuzzer finds those by itself. Whatever passes is
// walked as recovery and compaction walk it, and every byte that a record names must lie in the
// block.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/storage/block.h"
#include "shm/crc32c.h"

#define NUMBER 7u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(int condition)
{
	if (!condition) {
		abort();
	}
}

// Makes the checks that a fuzzer cannot pass pass. Returns the value's length.
static size_t mend(unsigned char *block, size_t bytes)
{
	struct store_block_header header;
	bytes -= bytes % 8;
	memcpy(&header, block, sizeof(header));
	header.marker = STORE_BLOCK_MARKER;
	header.number = NUMBER;
	header.bytes = (uint32_t)bytes;
	memcpy(block, &header, sizeof(header));
	header.crc = kvs_crc32c(0, block + 8, bytes - 8);
	memcpy(block, &header, sizeof(header));
	return store_block_value_bytes((uint32_t)bytes);
}

static void walk(const struct store_block *block)
{
	const unsigned char *end = block->payload + block->payload_bytes;
	uint32_t offset = 0;
	struct kvs_record_view view;
	const void *value;
	while (store_block_next(block, &offset, &view, &value) == 1) {
		require(view.payload + view.payload_bytes <= end);
		require(offset <= block->payload_bytes);
		volatile int sum = kvs_record_crc_ok(&view);
		if (value != NULL) {
			const unsigned char *bytes = value;
			require(bytes + view.value_bytes <= end);
			sum += view.value_bytes > 0 ? bytes[view.value_bytes - 1] : 0;
		}
		(void)sum;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (bytes < 1 + sizeof(struct store_block_header) || bytes > STORE_BLOCK_BYTES_MAX) {
		return 0;
	}
	// Of the exact size, so that a sanitizer sees one byte too many.
	size_t length = bytes - 1;
	unsigned char *block = calloc(1, store_block_value_bytes((uint32_t)length) + 8);
	if (block == NULL) {
		return 0;
	}
	memcpy(block, data + 1, length);
	if (data[0] & 1) {
		length = mend(block, length);
	}
	struct store_block parsed;
	if (store_block_check(block, length, NUMBER, &parsed) == STORE_BLOCK_GOOD) {
		if (parsed.flags == 0) {
			walk(&parsed);
		} else {
			struct kvs_record_view view;
			const void *value;
			uint64_t packed_bytes;
			(void)store_packed_parse(parsed.payload, parsed.payload_bytes, &view,
						 &value, &packed_bytes);
		}
	}
	free(block);
	return 0;
}
