// SPDX-License-Identifier: MIT
//
// Packing and parsing of blocks. A checksum tells that a block is as it was written; it does not
// tell that whoever wrote it was sane, so lengths are bounded all the same.
#include "daemon/storage/block.h"

#include <string.h>

#include "shm/crc32c.h"

#define CRC_START offsetof(struct store_block_header, number)

static int block_header_contradicts(const struct store_block_header *header)
{
	if (header->flags & ~(uint32_t)STORE_BLOCK_FLAGS_KNOWN || header->first_seq == 0 ||
	    header->first_seq > header->last_seq || header->last_seq > KVS_SEQ_MAX) {
		return 1;
	}
	if (header->flags == 0) {
		return header->span_bytes != 0 || header->count == 0;
	}
	// Pieces are 8-aligned like records; a piece that is not the last fills its block.
	uint32_t payload = header->bytes - (uint32_t)sizeof(*header);
	uint32_t begins = header->flags & STORE_BLOCK_REST ? 0 : 1;
	if (header->count != begins || header->span_bytes <= payload) {
		return 1;
	}
	return (header->flags & STORE_BLOCK_GOES_ON) && payload != STORE_PAYLOAD_BYTES_MAX;
}

int store_block_check(const void *data, size_t bytes, uint64_t number, struct store_block *block)
{
	struct store_block_header header;
	if (bytes < sizeof(header)) {
		return STORE_BLOCK_SHORT;
	}
	memcpy(&header, data, sizeof(header));
	if (header.marker != STORE_BLOCK_MARKER) {
		return STORE_BLOCK_FOREIGN;
	}
	if (header.bytes <= sizeof(header) || header.bytes > STORE_BLOCK_BYTES_MAX ||
	    header.bytes % KVS_RECORD_ALIGN_BYTES != 0) {
		return STORE_BLOCK_CONTRADICTS;
	}
	if (header.bytes > bytes || store_block_value_bytes(header.bytes) != bytes) {
		return STORE_BLOCK_SHORT;
	}
	const unsigned char *from = data;
	if (kvs_crc32c(0, from + CRC_START, header.bytes - CRC_START) != header.crc) {
		return STORE_BLOCK_CRC;
	}
	if (header.number != number) {
		return STORE_BLOCK_MISPLACED;
	}
	if (block_header_contradicts(&header)) {
		return STORE_BLOCK_CONTRADICTS;
	}
	*block = (struct store_block){
		.number = number,
		.first_seq = header.first_seq,
		.last_seq = header.last_seq,
		.payload = from + sizeof(header),
		.payload_bytes = header.bytes - (uint32_t)sizeof(header),
		.count = header.count,
		.flags = header.flags,
		.span_bytes = header.span_bytes,
	};
	return STORE_BLOCK_GOOD;
}

const char *store_block_fault_text(int fault)
{
	static const char *const texts[] = {
		[STORE_BLOCK_GOOD] = "good",
		[STORE_BLOCK_SHORT] = "its length is wrong",
		[STORE_BLOCK_FOREIGN] = "it does not begin as a block of this version",
		[STORE_BLOCK_MISPLACED] = "it is another block",
		[STORE_BLOCK_CONTRADICTS] = "its header contradicts itself",
		[STORE_BLOCK_CRC] = "its checksum is wrong",
	};
	if (fault < 0 || (size_t)fault >= sizeof(texts) / sizeof(texts[0])) {
		return "unknown fault";
	}
	return texts[fault];
}

// Which records may stand in a store: complete ones. A stub's value would be elsewhere.
static int packed_acceptable(const struct kvs_record_view *view)
{
	unsigned flags = view->flags;
	if (flags & (KVS_RECORD_STUB | KVS_RECORD_PREVIOUS)) {
		return 0;
	}
	if (flags & KVS_RECORD_FLUSH) {
		return view->key_bytes == 0 && view->value_bytes == 0 &&
		       !(flags & (KVS_RECORD_LARGE | KVS_RECORD_TOMBSTONE));
	}
	if (view->key_bytes == 0) {
		return 0;
	}
	if (flags & KVS_RECORD_TOMBSTONE) {
		return view->value_bytes == 0 && !(flags & KVS_RECORD_LARGE);
	}
	return 1;
}

int store_packed_parse(const unsigned char *at, uint64_t limit, struct kvs_record_view *view,
		       const void **value, uint64_t *packed_bytes)
{
	if (kvs_record_parse(at, limit, view) != 0 || !packed_acceptable(view)) {
		return -1;
	}
	*packed_bytes = store_packed_bytes(view);
	if (*packed_bytes > limit) {
		return -1;
	}
	*value = view->flags & KVS_RECORD_LARGE ? at + view->record_bytes : NULL;
	return 0;
}

int store_block_next(const struct store_block *block, uint32_t *offset,
		     struct kvs_record_view *view, const void **value)
{
	if (*offset == block->payload_bytes) {
		return 0;
	}
	uint64_t packed_bytes;
	if (*offset > block->payload_bytes || *offset % KVS_RECORD_ALIGN_BYTES != 0 ||
	    store_packed_parse(block->payload + *offset, block->payload_bytes - *offset, view,
			       value, &packed_bytes) != 0) {
		return -1;
	}
	*offset += (uint32_t)packed_bytes;
	return 1;
}

void store_builder_reset(struct store_builder *builder)
{
	builder->used = sizeof(struct store_block_header);
	builder->count = 0;
	builder->first_seq = 0;
	builder->last_seq = 0;
}

uint32_t store_builder_add(struct store_builder *builder, const struct kvs_record_view *view,
			   const void *value)
{
	uint32_t offset = builder->used;
	unsigned char *to = builder->bytes + offset;
	// Header without its last word: the place is the memory copy's own business.
	memcpy(to, view->record, offsetof(struct kvs_record, place));
	memset(to + offsetof(struct kvs_record, place), 0, sizeof(uint64_t));
	memcpy(to + sizeof(struct kvs_record), view->record + 1,
	       view->record_bytes - sizeof(struct kvs_record));
	builder->used += view->record_bytes;
	if (view->flags & KVS_RECORD_LARGE) {
		to += view->record_bytes;
		memcpy(to, value, view->value_bytes);
		uint32_t padded = (view->value_bytes + 7) & ~7u;
		memset(to + view->value_bytes, 0, padded - view->value_bytes);
		builder->used += padded;
	}
	if (builder->count++ == 0) {
		builder->first_seq = view->seq;
	}
	if (view->seq > builder->last_seq) {
		builder->last_seq = view->seq;
	}
	return offset - (uint32_t)sizeof(struct store_block_header);
}

static uint32_t block_finish(unsigned char *bytes, struct store_block_header *header)
{
	memcpy(bytes, header, sizeof(*header));
	header->crc = kvs_crc32c(0, bytes + CRC_START, header->bytes - CRC_START);
	memcpy(bytes, header, sizeof(*header));
	uint32_t value_bytes = store_block_value_bytes(header->bytes);
	memset(bytes + header->bytes, 0, value_bytes - header->bytes);
	return value_bytes;
}

uint32_t store_builder_finish(struct store_builder *builder, uint64_t number)
{
	struct store_block_header header = {
		.marker = STORE_BLOCK_MARKER,
		.number = number,
		.first_seq = builder->first_seq,
		.last_seq = builder->last_seq,
		.bytes = builder->used,
		.count = builder->count,
	};
	return block_finish(builder->bytes, &header);
}

uint32_t store_builder_finish_piece(unsigned char *bytes, uint64_t number, uint64_t seq,
				    uint32_t payload_bytes, uint32_t flags, uint32_t span_bytes)
{
	struct store_block_header header = {
		.marker = STORE_BLOCK_MARKER,
		.number = number,
		.first_seq = seq,
		.last_seq = seq,
		.bytes = payload_bytes + (uint32_t)sizeof(header),
		.count = flags & STORE_BLOCK_REST ? 0 : 1,
		.flags = flags,
		.span_bytes = span_bytes,
	};
	return block_finish(bytes, &header);
}
