// SPDX-License-Identifier: MIT
//
// Blocks of the store whose checksum is right and whose header, or whose records, are not: whoever
// wrote them was not sane, or another version. Each is refused, and for what it is.
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "daemon/storage/block.h"
#include "shm/crc32c.h"
#include "tests/tap/tap.h"

#define NUMBER 7u

static _Alignas(8) unsigned char block[STORE_BLOCK_BYTES_MAX];

static void sum(struct store_block_header *header)
{
	uint32_t bytes = header->bytes < sizeof(block) ? header->bytes : sizeof(block);
	memcpy(block, header, sizeof(*header));
	header->crc = bytes > 8 ? kvs_crc32c(0, block + 8, bytes - 8) : 0;
	memcpy(block, header, sizeof(*header));
}

// A block with one small record. Returns the value's length.
static size_t make(struct store_block_header *header)
{
	static _Alignas(8) unsigned char record[64];
	struct kvs_record_spec spec = { .key = "key",
					.key_bytes = 3,
					.payload = "value",
					.payload_bytes = 5,
					.value_bytes = 5,
					.seq = 9 };
	struct kvs_record_view view;
	struct store_builder builder = { .bytes = block };
	(void)kvs_record_write(record, &spec);
	(void)kvs_record_parse(record, sizeof(record), &view);
	memset(block, 0, sizeof(block));
	store_builder_reset(&builder);
	(void)store_builder_add(&builder, &view, NULL);
	size_t bytes = store_builder_finish(&builder, NUMBER);
	memcpy(header, block, sizeof(*header));
	return bytes;
}

static void refused(struct store_block_header *header, size_t bytes, int fault, const char *what)
{
	struct store_block found;
	sum(header);
	int got = store_block_check(block, bytes, NUMBER, &found);
	ok(got == fault, "%s: %s", what, store_block_fault_text(got));
}

static void test_headers(void)
{
	static const struct {
		const char *what;
		uint64_t first_seq, last_seq;
		uint32_t flags, count, span_bytes;
	} rows[] = {
		{ "unknown flags", 9, 9, 4, 1, 0 },
		{ "no first version", 0, 9, 0, 1, 0 },
		{ "a first version behind the last", 9, 8, 0, 1, 0 },
		{ "a version that there cannot be", 9, KVS_SEQ_MAX + 1, 0, 1, 0 },
		{ "a span of what does not go on", 9, 9, 0, 1, 100 },
		{ "no record", 9, 9, 0, 0, 0 },
		{ "two records that go on", 9, 9, STORE_BLOCK_GOES_ON, 2, 100000 },
		{ "a record that begins in the rest of another", 9, 9, STORE_BLOCK_REST, 1,
		  100000 },
		{ "a span that ends before its piece", 9, 9, STORE_BLOCK_REST, 0, 8 },
		{ "a piece that goes on before its block ends", 9, 9,
		  STORE_BLOCK_REST | STORE_BLOCK_GOES_ON, 0, 100000 },
	};
	struct store_block_header header;
	struct store_block found;
	size_t bytes = make(&header);
	ok_int(store_block_check(block, bytes, NUMBER, &found), STORE_BLOCK_GOOD, "a block");
	ok_int(store_block_check(block, bytes, NUMBER + 1, &found), STORE_BLOCK_MISPLACED,
	       "under another number");
	ok_int(store_block_check(block, sizeof(header) - 1, NUMBER, &found), STORE_BLOCK_SHORT,
	       "less than a header");
	ok_int(store_block_check(block, bytes - 8, NUMBER, &found), STORE_BLOCK_SHORT,
	       "less than it says");
	ok_int(store_block_check(block, bytes + 8, NUMBER, &found), STORE_BLOCK_SHORT, "or more");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		bytes = make(&header);
		header.first_seq = rows[i].first_seq;
		header.last_seq = rows[i].last_seq;
		header.flags = rows[i].flags;
		header.count = rows[i].count;
		header.span_bytes = rows[i].span_bytes;
		refused(&header, bytes, STORE_BLOCK_CONTRADICTS, rows[i].what);
	}
	bytes = make(&header);
	header.marker++;
	refused(&header, bytes, STORE_BLOCK_FOREIGN, "another version");
	static const uint32_t lengths[] = { 0, sizeof(header), STORE_BLOCK_BYTES_MAX + 8, 61 };
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		bytes = make(&header);
		header.bytes = lengths[i];
		refused(&header, bytes, STORE_BLOCK_CONTRADICTS, "a length that there cannot be");
	}
	bytes = make(&header);
	block[bytes - 1] ^= 1;
	ok_int(store_block_check(block, bytes, NUMBER, &found), STORE_BLOCK_CRC, "one wrong bit");
	ok_str(store_block_fault_text(-1), "unknown fault", "a fault that there is not");
	ok_str(store_block_fault_text(99), "unknown fault", "nor this one");
}

// Records that may stand in memory, or nowhere, and not in a store.
static void test_records(void)
{
	static const struct {
		const char *what;
		uint16_t flags;
		const char *key;
		uint32_t payload_bytes, value_bytes;
		bool good;
	} rows[] = {
		{ "a record", 0, "key", 5, 5, true },
		{ "a removal", KVS_RECORD_TOMBSTONE, "key", 0, 0, true },
		{ "a flush", KVS_RECORD_FLUSH, "", 0, 0, true },
		{ "a value that is elsewhere", KVS_RECORD_STUB, "key", 0, 100, false },
		{ "a record without a key", 0, "", 5, 5, false },
		{ "a removal with a value", KVS_RECORD_TOMBSTONE, "key", 5, 5, false },
		{ "a flush of a key", KVS_RECORD_FLUSH, "key", 0, 0, false },
		{ "a flush with a value", KVS_RECORD_FLUSH, "", 5, 5, false },
		{ "a flush that is a removal", KVS_RECORD_FLUSH | KVS_RECORD_TOMBSTONE, "", 0, 0,
		  false },
		{ "a large value that is not there", KVS_RECORD_LARGE, "key", 16, 100000, false },
	};
	static _Alignas(8) unsigned char record[256];
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kvs_record_spec spec = { .key = rows[i].key,
						.key_bytes = (uint32_t)strlen(rows[i].key),
						.payload = "0123456789abcdef",
						.payload_bytes = rows[i].payload_bytes,
						.value_bytes = rows[i].value_bytes,
						.seq = 9,
						.flags = rows[i].flags };
		struct kvs_record_view view;
		const void *value;
		uint64_t packed;
		memset(record, 0, sizeof(record));
		uint32_t bytes = kvs_record_write(record, &spec);
		int result = store_packed_parse(record, bytes, &view, &value, &packed);
		ok((result == 0) == rows[i].good, "%s: %s", rows[i].what,
		   result == 0 ? "taken" : "refused");
	}
}

static void test_steps(void)
{
	struct store_block_header header;
	struct store_block found;
	struct kvs_record_view view;
	const void *value;
	uint32_t offset = 0;
	size_t bytes = make(&header);
	ok(store_block_check(block, bytes, NUMBER, &found) == STORE_BLOCK_GOOD &&
		   store_block_next(&found, &offset, &view, &value) == 1 && view.seq == 9 &&
		   store_block_next(&found, &offset, &view, &value) == 0,
	   "one record, and the end");
	offset = found.payload_bytes + 8;
	ok_int(store_block_next(&found, &offset, &view, &value), -1, "behind the end");
	offset = 4;
	ok_int(store_block_next(&found, &offset, &view, &value), -1, "between two places");
	offset = 8;
	ok_int(store_block_next(&found, &offset, &view, &value), -1, "amid a record");
}

int main(void)
{
	test_headers();
	test_records();
	test_steps();
	return tap_done();
}
