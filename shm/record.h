// SPDX-License-Identifier: MIT
//
// A record: one write, immutable and self-describing. The same bytes stand in the memory log, in
// the persister's blocks and in the LMDB store, so that there is one format to check, to walk and
// to recover from. Every field of a record that came from a mapping or a file is input: the parse
// function below loads each word once, bounds it, and everything else uses its result.
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/atomics.h"
#include "shm/limits.h"

enum kvs_record_flags {
	KVS_RECORD_MORE = 1 << 0, // the batch goes on with the next record
	// an expiry time (u64, ms since 1970) stands between header and key
	KVS_RECORD_EXPIRY = 1 << 1,
	KVS_RECORD_TOMBSTONE = 1 << 2, // the key is removed; no value
	KVS_RECORD_STUB = 1 << 3,      // value_bytes is true, the bytes are only in the store
	// the payload is a struct kvs_run, the bytes are in the large range
	KVS_RECORD_LARGE = 1 << 4,
	KVS_RECORD_FLUSH = 1 << 5,    // everything with a lower seq is removed; no key, no value
	KVS_RECORD_EXPIRED = 1 << 6,  // tombstone because of expiry
	KVS_RECORD_EVICTED = 1 << 7,  // tombstone because of eviction
	KVS_RECORD_PREVIOUS = 1 << 8, // reserved: place of the previous version (history)
	KVS_RECORD_FLAGS_KNOWN = (1 << 8) - 1,
};

#define KVS_SEQ_BITS 48
#define KVS_SEQ_MAX ((UINT64_C(1) << KVS_SEQ_BITS) - 1)
#define KVS_TIME_BITS 40
#define KVS_TIME_ORIGIN_MS UINT64_C(1704067200000) // 2024-01-01T00:00:00Z: our own epoch
#define KVS_PLACE_OFFSET_BITS 24

struct kvs_record {
	uint32_t crc; // crc32c of bytes [4, 24) and of all that follows the header
	uint32_t value_bytes;
	uint64_t seq_flags; // seq 48 | flags 16 (high)
	uint64_t time_key;  // wall time 40 (ms since KVS_TIME_ORIGIN_MS) | key_bytes 12 | writer 12
	// store block 40 (high) | offset in it 24; 0 = not in the store; outside the crc
	uint64_t place;
};
static_assert(sizeof(struct kvs_record) == 32, "design: at most 32 bytes");
static_assert(offsetof(struct kvs_record, place) == 24, "the crc ends before it");

#define KVS_WRITER_BITS 12
#define KVS_WRITERS_MAX (1u << KVS_WRITER_BITS) // 0 = unknown or beyond the table

/// Payload of a LARGE record: where the value stands.
struct kvs_run {
	uint64_t offset; // from the start of the region
	uint32_t crc;	 // crc32c of the value
	uint32_t reserved;
};
static_assert(sizeof(struct kvs_run) == 16, "fixed");

/// What a parsed record says; pointers into the bytes it was parsed from.
struct kvs_record_view {
	const struct kvs_record *record;
	const unsigned char *key;
	const unsigned char *payload; // value, or struct kvs_run for LARGE; not aligned
	uint64_t seq;
	uint64_t expiry_ms; // wall clock, 0 = never
	uint32_t key_bytes;
	uint32_t value_bytes;	// of the value, wherever it is
	uint32_t payload_bytes; // in the record
	uint32_t record_bytes;	// all of it, padding included
	uint16_t flags;
};

/// Bytes that a record takes in the log, padding included. `payload_bytes` is what stands inline.
static inline uint64_t kvs_record_bytes(uint64_t key_bytes, uint64_t payload_bytes, int has_expiry)
{
	uint64_t bytes =
		sizeof(struct kvs_record) + (has_expiry ? 8 : 0) + key_bytes + payload_bytes;
	return (bytes + KVS_RECORD_ALIGN_BYTES - 1) & ~(uint64_t)(KVS_RECORD_ALIGN_BYTES - 1);
}

/// A part of a value on its way into a record; without `data` it is so many zero bytes.
struct kvs_piece {
	const void *data;
	uint64_t bytes;
};

/// Puts pieces one behind the other at `at`.
void kvs_pieces_join(void *at, const struct kvs_piece *pieces, uint32_t count);

/// Everything a record to be written consists of.
struct kvs_record_spec {
	const void *key;
	const void *payload;
	const struct kvs_piece *pieces; // the payload instead, if it is in pieces_count of them
	uint64_t seq;
	uint64_t time_ms;   // wall clock, ms since 1970
	uint64_t expiry_ms; // 0 = none
	uint32_t key_bytes;
	uint32_t value_bytes;
	uint32_t payload_bytes; // of all pieces
	uint32_t pieces_count;	// 0 = in one
	uint16_t flags;		// EXPIRY is set from expiry_ms
	uint16_t writer;
};

/// Writes a complete record, crc and zeroed padding included, to `at` (8-aligned, unpublished, at
/// least kvs_record_bytes() long). Returns its length.
/// Call with: the log's writer, or any private buffer. Thread must: own `at`. Orders: nothing; the
/// entry's release store publishes it.
uint32_t kvs_record_write(void *at, const struct kvs_record_spec *spec);

/// Bytes of the stub that a record can leave in memory when its value is in the store alone.
static inline uint32_t kvs_record_stub_bytes(uint32_t key_bytes, int has_expiry)
{
	return (uint32_t)kvs_record_bytes(key_bytes, 0, has_expiry);
}

/// Parses the record at `at`, of which `limit` bytes may be read. Returns 0 and fills `view`, or -1
/// if it does not describe a record that lies within the limit. Checks bounds and flags, not the
/// crc. Inline because every get runs it.
/// Call with: any bytes. Thread must: be in a read section if they are the region's. Orders: each
/// word is loaded once.
static inline int kvs_record_parse(const void *at, uint64_t limit, struct kvs_record_view *view)
{
	if (limit < sizeof(struct kvs_record)) {
		return -1;
	}
	const struct kvs_record *record = (const struct kvs_record *)at;
	// Relaxed, not for order but so that each word is loaded exactly once: the bytes may be
	// anybody's.
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
	int has_expiry = (view->flags & KVS_RECORD_EXPIRY) != 0;
	uint64_t total = kvs_record_bytes(view->key_bytes, payload_bytes, has_expiry);
	if (view->seq == 0 || view->key_bytes > KVS_KEY_BYTES_MAX || total > limit ||
	    value_bytes > KVS_VALUE_BYTES_MAX || (view->flags & ~KVS_RECORD_FLAGS_KNOWN) != 0) {
		return -1;
	}
	const unsigned char *body = (const unsigned char *)at + sizeof(struct kvs_record);
	if (has_expiry) {
		view->expiry_ms = kvs_load_relaxed((const uint64_t *)(const void *)body);
		body += 8;
	}
	view->key = body;
	view->payload = body + view->key_bytes;
	view->payload_bytes = payload_bytes;
	view->record_bytes = (uint32_t)total;
	return 0;
}

/// Writes the stub of a value (or of a stub) with this place in the store: the same version, of the
/// same writer and time. `at` as for kvs_record_write(), kvs_record_stub_bytes() long. Returns its
/// length.
/// Call with: a view of a version that is no removal. Thread, orders: as kvs_record_write().
uint32_t kvs_record_write_stub(void *at, const struct kvs_record_view *view, uint64_t place);

/// Copies a LARGE record, whose value has been copied to `run_offset`: the same version in every
/// other respect, its place in the store included. `at` as for kvs_record_write(), and
/// view->record_bytes long. Returns its length.
/// Call with: a view of a LARGE record that is durable. Thread, orders: as kvs_record_write().
uint32_t kvs_record_write_moved(void *at, const struct kvs_record_view *view, uint64_t run_offset);

/// Bytes that a version counts for, whether its value is in memory or not: its record, with the
/// value, large if it has more than `inline_bytes_max`. So much the store holds of it, its owner is
/// charged, and is live.
static inline uint64_t kvs_record_stored_bytes(const struct kvs_record_view *view,
					       uint64_t inline_bytes_max)
{
	if (__builtin_expect((view->flags & (KVS_RECORD_STUB | KVS_RECORD_LARGE)) == 0, 1)) {
		return view->record_bytes;
	}
	if ((view->flags & KVS_RECORD_STUB) == 0) {
		return (uint64_t)view->record_bytes + view->value_bytes;
	}
	int has_expiry = (view->flags & KVS_RECORD_EXPIRY) != 0;
	if (view->value_bytes <= inline_bytes_max) {
		return kvs_record_bytes(view->key_bytes, view->value_bytes, has_expiry);
	}
	return kvs_record_bytes(view->key_bytes, sizeof(struct kvs_run), has_expiry) +
	       view->value_bytes;
}

/// True if the crc of a parsed record is right (for LARGE: of the record, not of the run).
int kvs_record_crc_ok(const struct kvs_record_view *view);

/// The run of a LARGE record.
struct kvs_run kvs_record_run(const struct kvs_record_view *view);

/// Wall time of a record in ms since 1970, and the index of the uid that wrote it.
static inline uint64_t kvs_record_time_word_ms(uint64_t time_key)
{
	return (time_key & ((UINT64_C(1) << KVS_TIME_BITS) - 1)) + KVS_TIME_ORIGIN_MS;
}

static inline uint64_t kvs_record_time_ms(const struct kvs_record *record)
{
	return kvs_record_time_word_ms(kvs_load_relaxed(&record->time_key));
}
static inline uint16_t kvs_record_writer(const struct kvs_record *record)
{
	return (uint16_t)(kvs_load_relaxed(&record->time_key) >> (KVS_TIME_BITS + 12));
}

static inline uint64_t kvs_place_make(uint64_t block, uint32_t offset)
{
	return block << KVS_PLACE_OFFSET_BITS | offset;
}
static inline uint64_t kvs_place_block(uint64_t place)
{
	return place >> KVS_PLACE_OFFSET_BITS;
}
static inline uint32_t kvs_place_offset(uint64_t place)
{
	return (uint32_t)(place & ((1u << KVS_PLACE_OFFSET_BITS) - 1));
}
