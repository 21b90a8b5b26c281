// SPDX-License-Identifier: MIT
//
// Writing records and checking them; the parser, which every get runs, is inline in the header.
#include "shm/record.h"

#include <stdbool.h>
#include <string.h>

#include "shm/crc32c.h"

#define RECORD_CRC_START 4u // bytes [4, 24) of the header are covered
#define RECORD_CRC_END 24u

static uint32_t record_crc(const unsigned char *at, uint64_t body_bytes)
{
	uint32_t crc = kvs_crc32c(0, at + RECORD_CRC_START, RECORD_CRC_END - RECORD_CRC_START);
	return kvs_crc32c(crc, at + sizeof(struct kvs_record), body_bytes);
}

void kvs_pieces_join(void *at, const struct kvs_piece *pieces, uint32_t count)
{
	unsigned char *to = at;
	for (uint32_t i = 0; i < count; i++) {
		if (pieces[i].bytes == 0) {
			continue;
		}
		if (pieces[i].data != NULL) {
			memcpy(to, pieces[i].data, pieces[i].bytes);
		} else {
			memset(to, 0, pieces[i].bytes);
		}
		to += pieces[i].bytes;
	}
}

uint32_t kvs_record_write(void *at, const struct kvs_record_spec *spec)
{
	unsigned char *bytes = at;
	bool has_expiry = spec->expiry_ms != 0;
	uint32_t total =
		(uint32_t)kvs_record_bytes(spec->key_bytes, spec->payload_bytes, has_expiry);
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
	if (spec->pieces_count > 0) {
		kvs_pieces_join(body, spec->pieces, spec->pieces_count);
	} else if (spec->payload_bytes > 0) {
		memcpy(body, spec->payload, spec->payload_bytes);
	}
	body += spec->payload_bytes;
	uint64_t body_bytes = (uint64_t)(body - bytes) - sizeof(header);
	uint32_t crc = record_crc(bytes, body_bytes);
	memcpy(bytes, &crc, sizeof(crc));
	return total;
}

uint32_t kvs_record_write_stub(void *at, const struct kvs_record_view *view, uint64_t place)
{
	struct kvs_record_spec spec = {
		.key = view->key,
		.key_bytes = view->key_bytes,
		.value_bytes = view->value_bytes,
		.seq = view->seq,
		.time_ms = kvs_record_time_ms(view->record),
		.expiry_ms = view->expiry_ms,
		.writer = kvs_record_writer(view->record),
		// It stands alone, wherever the batch of its value went on.
		.flags = KVS_RECORD_STUB,
	};
	uint32_t bytes = kvs_record_write(at, &spec);
	struct kvs_record *record = at;
	kvs_store_relaxed(&record->place, place); // before the entry's release store
	return bytes;
}

uint32_t kvs_record_write_moved(void *at, const struct kvs_record_view *view, uint64_t run_offset)
{
	unsigned char *bytes = at;
	const unsigned char *from = (const unsigned char *)view->record;
	struct kvs_run run = kvs_record_run(view);
	uint64_t end = (uint64_t)(view->payload + sizeof(run) - from);
	run.offset = run_offset;
	memcpy(bytes, from, view->record_bytes);
	memcpy(bytes + (view->payload - from), &run, sizeof(run));
	uint32_t crc = record_crc(bytes, end - sizeof(struct kvs_record));
	memcpy(bytes, &crc, sizeof(crc));
	return view->record_bytes;
}

int kvs_record_crc_ok(const struct kvs_record_view *view)
{
	const unsigned char *at = (const unsigned char *)view->record;
	uint64_t body_bytes =
		(uint64_t)(view->payload + view->payload_bytes - at) - sizeof(struct kvs_record);
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
