// SPDX-License-Identifier: MIT
//
// Writing and parsing records. The parser is the only code that turns bytes from a mapping or a file
// into lengths and pointers; it loads each header word once and believes nothing beyond the limit.
#include "shm/record.h"

#include <stdbool.h>
#include <string.h>

#include "shm/atomics.h"
#include "shm/crc32c.h"

#define RECORD_CRC_START 4u // bytes [4, 24) of the header are covered
#define RECORD_CRC_END 24u

static uint32_t record_crc(const unsigned char *at, uint64_t body_bytes)
{
	uint32_t crc = kvs_crc32c(0, at + RECORD_CRC_START, RECORD_CRC_END - RECORD_CRC_START);
	return kvs_crc32c(crc, at + sizeof(struct kvs_record), body_bytes);
}

uint32_t kvs_record_write(void *at, const struct kvs_record_spec *spec)
{
	unsigned char *bytes = at;
	bool has_expiry = spec->expiry_ms != 0;
	uint32_t total = (uint32_t)kvs_record_bytes(spec->key_bytes, spec->payload_bytes, has_expiry);
	uint64_t flags = spec->flags | (has_expiry ? KVS_RECORD_EXPIRY : 0u);
	uint64_t time = spec->time_ms > KVS_TIME_ORIGIN_MS ? spec->time_ms - KVS_TIME_ORIGIN_MS : 0;
	struct kvs_record header = {
		.value_bytes = spec->value_bytes,
		.seq_flags = (spec->seq & KVS_SEQ_MAX) | flags << KVS_SEQ_BITS,
		.time_key = (time & ((UINT64_C(1) << KVS_TIME_BITS) - 1)) |
			    (uint64_t)spec->key_bytes << KVS_TIME_BITS |
			    (uint64_t)spec->writer << (KVS_TIME_BITS + 12),
	};

	// Padding first: the tail word may hold bytes of an older record.
	memset(bytes + total - 8, 0, 8);
	memcpy(bytes, &header, sizeof(header));
	unsigned char *body = bytes + sizeof(header);
	if (has_expiry) {
		memcpy(body, &spec->expiry_ms, 8);
		body += 8;
	}
	if (spec->key_bytes > 0) {
		memcpy(body, spec->key, spec->key_bytes);
		body += spec->key_bytes;
	}
	uint32_t head_bytes = spec->payload_bytes - spec->tail_bytes;
	if (head_bytes > 0) {
		memcpy(body, spec->payload, head_bytes);
	}
	if (spec->tail_bytes > 0) {
		memcpy(body + head_bytes, spec->tail, spec->tail_bytes);
	}
	body += spec->payload_bytes;
	uint64_t body_bytes = (uint64_t)(body - bytes) - sizeof(header);
	uint32_t crc = record_crc(bytes, body_bytes);
	memcpy(bytes, &crc, sizeof(crc));
	return total;
}

int kvs_record_parse(const void *at, uint64_t limit, struct kvs_record_view *view)
{
	if (limit < sizeof(struct kvs_record)) {
		return -1;
	}
	const struct kvs_record *record = at;
	// Relaxed, not for order but so that each word is loaded exactly once: the bytes may be anybody's.
	uint32_t value_bytes = kvs_load_relaxed_32(&record->value_bytes);
	uint64_t seq_flags = kvs_load_relaxed(&record->seq_flags);
	uint64_t time_key = kvs_load_relaxed(&record->time_key);

	view->record = record;
	view->seq = seq_flags & KVS_SEQ_MAX;
	view->flags = (uint16_t)(seq_flags >> KVS_SEQ_BITS);
	view->key_bytes = (uint32_t)(time_key >> KVS_TIME_BITS) & 0xfffu;
	view->value_bytes = value_bytes;
	view->expiry_ms = 0;
	uint32_t payload_bytes = value_bytes;
	if (__builtin_expect((view->flags & (KVS_RECORD_STUB | KVS_RECORD_LARGE)) != 0, 0)) {
		payload_bytes = view->flags & KVS_RECORD_LARGE ? sizeof(struct kvs_run) : 0;
	}
	bool has_expiry = (view->flags & KVS_RECORD_EXPIRY) != 0;
	uint64_t total = kvs_record_bytes(view->key_bytes, payload_bytes, has_expiry);
	if (view->seq == 0 || view->key_bytes > KVS_KEY_BYTES_MAX || total > limit ||
	    value_bytes > KVS_VALUE_BYTES_MAX || (view->flags & ~KVS_RECORD_FLAGS_KNOWN) != 0) {
		return -1;
	}
	const unsigned char *body = (const unsigned char *)at + sizeof(struct kvs_record);
	if (has_expiry) {
		memcpy(&view->expiry_ms, body, 8);
		body += 8;
	}
	view->key = body;
	view->payload = body + view->key_bytes;
	view->payload_bytes = payload_bytes;
	view->record_bytes = (uint32_t)total;
	return 0;
}

int kvs_record_crc_ok(const struct kvs_record_view *view)
{
	const unsigned char *at = (const unsigned char *)view->record;
	uint64_t body_bytes = (uint64_t)(view->payload + view->payload_bytes - at) -
			      sizeof(struct kvs_record);
	return record_crc(at, body_bytes) == view->record->crc;
}

struct kvs_run kvs_record_run(const struct kvs_record_view *view)
{
	struct kvs_run run = { 0 };
	if (view->payload_bytes == sizeof(run)) {
		memcpy(&run, view->payload, sizeof(run));
	}
	return run;
}

uint64_t kvs_record_time_ms(const struct kvs_record *record)
{
	return (record->time_key & ((UINT64_C(1) << KVS_TIME_BITS) - 1)) + KVS_TIME_ORIGIN_MS;
}

uint16_t kvs_record_writer(const struct kvs_record *record)
{
	return (uint16_t)(record->time_key >> (KVS_TIME_BITS + 12));
}
